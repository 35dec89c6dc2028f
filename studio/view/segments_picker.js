// The segments to score: superpixels, a grid, those of a segmenter, or painted ones.

import {choice, field, html, segmented, slider} from "./dom.js";

/** @typedef {"none" | "slic" | "grid" | "found" | "painted"} Kind */

export class SegmentsPicker {
    /**
     * @param {import("./painting.js").Painting} painting
     * @param {() => void} changed
     */
    constructor(painting, changed) {
        /** @type {Kind} */
        this.kind = "slic";
        this.painting = painting;
        this.changed = changed;
        this.number = slider("Superpixels, about", {min: 2, max: 150, value: 20, field: "n_segments"});
        this.compactness = html("input", {type: "number", min: 0.01, step: "any", placeholder: "20"});
        this.rows = slider("Rows", {min: 1, max: 16, value: 4, field: "rows"});
        this.columns = slider("Columns", {min: 1, max: 16, value: 4, field: "columns"});
        this.segmenter = choice([], undefined, {});
        /** @type {(name: string) => number} */
        this.thresholdOf = () => 0.5;
        this.threshold = slider("Surer than", {min: 0, max: 0.95, step: 0.05, value: 0.5, field: "threshold"});
        this.segmenter.addEventListener("change", () => this._usual());
        this.panel = html("div", {class: "panel"});
        this.panels = {
            none: [],
            slic: [
                this.number.element,
                html(
                    "details",
                    {},
                    html("summary", {}, "Shape"),
                    field("Compactness", this.compactness, {
                        field: "compactness",
                        help: "Weight of nearness against colour.",
                    }),
                ),
            ],
            grid: [html("div", {class: "pair"}, this.rows.element, this.columns.element)],
            found: [
                html(
                    "div",
                    {class: "pair"},
                    field("Segmenter", this.segmenter, {field: "segments"}),
                    this.threshold.element,
                ),
            ],
            painted: [painting.tools],
        };
        this.element = html(
            "div",
            {},
            segmented(
                "Segments",
                [
                    {value: "none", label: "None"},
                    {value: "slic", label: "Superpixels"},
                    {value: "grid", label: "Grid"},
                    {value: "found", label: "Found"},
                    {value: "painted", label: "Painted"},
                ],
                this.kind,
                (value) => this.choose(/** @type {Kind} */ (value)),
            ),
            this.panel,
        );
        this.choose(this.kind);
    }

    /** @param {Kind} kind */
    choose(kind) {
        this.kind = kind;
        this.panel.replaceChildren(...this.panels[kind]);
        this.painting.active = kind === "painted";
        this.changed();
    }

    /**
     * @param {string[]} names  Segmenters of the server.
     * @param {(name: string) => number} threshold  The threshold of each where a request names none.
     */
    offer(names, threshold) {
        this.thresholdOf = threshold;
        this.segmenter.replaceChildren(...names.map((name) => html("option", {value: name}, name)));
        const found = this.element.querySelector("input[value=found]");
        found.disabled = names.length === 0;
        found.parentElement.title = names.length === 0 ? "No segmenter is served." : "";
        if (names.length) this._usual();
    }

    /** Take over another's choice, but not what was painted there. @param {SegmentsPicker} other */
    copy(other) {
        const kind = other.kind === "painted" ? "slic" : other.kind;
        this.segmenter.value = other.segmenter.value;
        this.compactness.value = other.compactness.value;
        for (const name of ["number", "rows", "columns", "threshold"]) {
            this[name].input.value = other[name].input.value;
            this[name].input.dispatchEvent(new Event("input"));
        }
        this.element.querySelector(`input[value=${kind}]`).checked = true;
        this.choose(kind);
    }

    _usual() {
        this.usual = this.thresholdOf(this.segmenter.value);
        this.threshold.input.value = String(this.usual);
        this.threshold.input.dispatchEvent(new Event("input"));
        this.usual = this.threshold.input.valueAsNumber;
    }

    /** Options of the service. */
    get options() {
        if (this.kind === "slic") {
            const compactness = this.compactness.value ? {compactness: this.compactness.valueAsNumber} : {};
            return {segments: "slic", n_segments: this.number.input.valueAsNumber, ...compactness};
        }
        if (this.kind === "grid")
            return {segments: "grid", rows: this.rows.input.valueAsNumber, columns: this.columns.input.valueAsNumber};
        if (this.kind === "found") {
            const threshold = this.threshold.input.valueAsNumber;
            return {segments: this.segmenter.value, ...(threshold === this.usual ? {} : {threshold})};
        }
        if (this.kind === "painted") return {masks: this.painting.masks()};
        return {};
    }
}
