// Residual against evaluations, measured on demand.

import {STEPS, convergence} from "../core/convergence.js";
import {html, svg} from "./dom.js";
import {number, percent} from "./numbers.js";
import {Run} from "./run.js";

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT] = [340, 200, 52, 34, 12, 14];
const LEAST = 1e-6; // of the score's difference, below which a residual is drawn as this
/** Options that a path of its own replaces. */
const PATH = ["steps", "tolerance", "method", "combine", "smooth", "layer", "normalized"];

export class ConvergenceView {
    /** @param {import("./pane.js").Pane} pane */
    constructor(pane) {
        this.pane = pane;
        this.run = new Run();
        this.button = html("button", {type: "button", onclick: () => void this._measure()}, "Measure");
        this.chart = html("div", {class: "chart"});
        this.table = html("div", {});
        this.element = html(
            "div",
            {class: "convergence"},
            html(
                "p",
                {},
                "The residual is what the path’s steps miss of the score’s difference. It is measured with ",
                `${STEPS.join(", ")} steps of integrated gradients.`,
            ),
            html("div", {class: "row"}, this.button, this.run.element),
            this.chart,
            this.table,
        );
    }

    clear() {
        this.run.controller?.abort();
        this.chart.replaceChildren();
        this.table.replaceChildren();
    }

    async _measure() {
        const {explained, studio, settings} = this.pane;
        if (!explained) return;
        const options = Object.fromEntries(Object.entries(explained.options).filter(([name]) => !PATH.includes(name)));
        for (const name of ["segments", "n_segments", "compactness", "rows", "columns", "threshold", "masks"])
            delete options[name];
        if (explained.model.kind === "segmenter" && explained.options.threshold !== undefined)
            options.threshold = explained.options.threshold;
        this.clear();
        /** @type {import("../core/convergence.js").Point[]} */
        const points = [];
        try {
            await this.run.during("Measuring …", async (signal, tell) => {
                for await (const point of convergence(
                    studio.service,
                    explained.model.name,
                    explained.photo.blob,
                    options,
                    {signal},
                )) {
                    points.push(point);
                    tell(`${point.steps} steps done`);
                    this._draw(points);
                }
            });
        } catch (failure) {
            this.pane.alert.show(failure, () => this._measure());
        }
    }

    /** @param {import("../core/convergence.js").Point[]} points */
    _draw(points) {
        const part = (/** @type {import("../core/convergence.js").Point} */ {residual, summary}) =>
            Math.abs(residual / (summary.score - summary.baseline_score));
        const parts = points.map((point) => Math.max(LEAST, part(point)));
        const [first, last] = [
            points[0].evaluations,
            Math.max(points[0].evaluations * 2, points.at(-1)?.evaluations ?? 1),
        ];
        const [low, high] = [
            Math.floor(Math.log10(Math.min(...parts))),
            Math.max(Math.floor(Math.log10(Math.min(...parts))) + 1, Math.ceil(Math.log10(Math.max(...parts)))),
        ];
        const x = (/** @type {number} */ value) =>
            LEFT + ((WIDTH - LEFT - RIGHT) * Math.log(value / first)) / Math.log(last / first);
        const y = (/** @type {number} */ value) =>
            TOP + ((HEIGHT - TOP - BOTTOM) * (high - Math.log10(value))) / (high - low);
        const lines = Array.from({length: high - low + 1}, (_, index) => 10 ** (low + index));
        const chart = svg(
            "svg",
            {
                viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
                role: "img",
                "aria-label": `Residual of ${percent(parts.at(-1) ?? 0)} at ${points.at(-1)?.evaluations} evaluations`,
            },
            ...lines.flatMap((line) => [
                svg("line", {class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: y(line), y2: y(line)}),
                svg(
                    "text",
                    {x: LEFT - 6, y: y(line) + 4, "text-anchor": "end"},
                    `${Number((100 * line).toPrecision(1))} %`,
                ),
            ]),
            ...points.map(({evaluations}) =>
                svg("text", {x: x(evaluations), y: HEIGHT - BOTTOM + 16, "text-anchor": "middle"}, evaluations),
            ),
            svg(
                "text",
                {x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 2, "text-anchor": "middle", class: "axis"},
                "evaluations",
            ),
            svg("polyline", {
                class: "curve",
                points: points.map(({evaluations}, index) => `${x(evaluations)},${y(parts[index])}`).join(" "),
            }),
            ...points.map(({evaluations}, index) =>
                svg("circle", {class: "dot", cx: x(evaluations), cy: y(parts[index]), r: 4}),
            ),
        );
        this.chart.replaceChildren(
            html("p", {class: "muted small-words"}, "|residual| as a part of the score’s difference"),
            chart,
        );
        this.table.replaceChildren(
            html(
                "table",
                {class: "plain"},
                html("caption", {class: "unseen"}, "Residual by evaluations"),
                html(
                    "thead",
                    {},
                    html(
                        "tr",
                        {},
                        ...["Steps", "Evaluations", "Residual", "Part", "Time"].map((name) =>
                            html("th", {scope: "col"}, name),
                        ),
                    ),
                ),
                html(
                    "tbody",
                    {},
                    ...points.map((point) =>
                        html(
                            "tr",
                            {},
                            html("th", {scope: "row"}, point.steps),
                            html("td", {}, point.evaluations),
                            html("td", {}, number(point.residual)),
                            html("td", {}, percent(part(point))),
                            html("td", {}, `${point.seconds.toFixed(2)} s`),
                        ),
                    ),
                ),
            ),
        );
    }
}
