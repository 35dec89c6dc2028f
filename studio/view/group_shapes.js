// The segments of an answer as shapes over the photo: each can be pointed at, reached by keys, and switched off.

import {css, diverging} from "../core/colour.js";
import {strengths} from "../core/groups.js";
import {bounds, outlineOf} from "../core/rle.js";
import {newId, svg} from "./dom.js";
import {number, percent, short} from "./numbers.js";

const DIRECTIONS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
const FAINTEST = 0.12; // part of the opacity that a segment of no strength has
const NAMED = 14; // segments whose names stand in the photo
const ACROSS = 2; // weight of distance across the arrow's direction

/** @typedef {"attribution" | "directional"} Measure */
/** @typedef {{path: SVGPathElement, centre: [number, number]}} Shape */

export class GroupShapes {
    /** @param {import("./pane.js").Pane} pane */
    constructor(pane) {
        this.pane = pane;
        /** @type {Measure} */
        this.measure = "attribution";
        this.most = 0;
        /** @type {Map<number, Shape>} */
        this.shapes = new Map();
        const hatch = newId("hatch");
        this.hatch = `url(#${hatch})`;
        this.pattern = svg(
            "pattern",
            {id: hatch, width: 8, height: 8, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)"},
            svg("rect", {width: 8, height: 8, class: "hatch-ground"}),
            svg("rect", {width: 3, height: 8, class: "hatch-line"}),
        );
        this.paths = svg("g", {});
        this.names = svg("g", {class: "names", "aria-hidden": "true"});
        this.element = svg(
            "g",
            {
                class: "shapes",
                role: "group",
                "aria-label": "Segments, on or off",
                onkeydown: (/** @type {KeyboardEvent} */ event) => this._key(event),
            },
            svg("defs", {}, this.pattern),
            this.paths,
            this.names,
        );
    }

    clear() {
        this.paths.replaceChildren();
        this.names.replaceChildren();
        this.shapes.clear();
        this.rows = [];
    }

    /** @param {import("./pane.js").Explained} explained */
    show({summary, photo}) {
        this.clear();
        this.summary = summary;
        this.rows = summary.groups ?? [];
        this.measure = this.rows.some(({directional}) => directional !== undefined && directional !== null)
            ? this.measure
            : "attribution";
        this.pattern.setAttribute("patternTransform", `rotate(45) scale(${Math.max(photo.width, photo.height) / 900})`);
        const drawn = this.rows
            .map((row, index) => ({row, index}))
            .filter(({row}) => row.segmentation && row.kind !== "whole");
        drawn.sort((one, other) => other.row.area - one.row.area); // small ones lie on large ones
        for (const {row, index} of drawn) {
            const box = bounds(row.segmentation);
            if (!box) continue;
            const path = svg("path", {
                d: outlineOf(row.segmentation),
                "fill-rule": "evenodd",
                tabindex: -1,
                role: "switch",
                "aria-checked": "true",
                "aria-label": wordsOf(row, summary),
                "data-group": index,
                onclick: () => this.pane.view.absence.toggle(index),
                onpointerenter: () => this.pane.view.point(index),
                onpointerleave: () => this.pane.view.point(null),
                onfocus: () => {
                    this._rove(index);
                    this.pane.view.point(index);
                },
                onblur: () => this.pane.view.point(null),
            });
            this.shapes.set(index, {path, centre: [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2]});
            this.paths.append(path);
        }
        const strongest = this._byStrength()[0];
        if (strongest !== undefined) this._rove(strongest);
        this._name(photo);
    }

    /**
     * Write the names of the strongest into the photo, where there is room.
     * @param {import("./photo.js").Photo} photo
     */
    _name(photo) {
        const size = Math.max(photo.width, photo.height) / 40;
        this.names.setAttribute("font-size", String(size));
        for (const index of this._byStrength().slice(0, NAMED)) {
            const name = short(this.rows[index].label).replace(/^(slic|grid) /, "");
            const place = inside(/** @type {Shape} */ (this.shapes.get(index)).path);
            if (place && place.room > size * (1 + 0.3 * name.length))
                this.names.append(svg("text", {x: place.x, y: place.y + size / 3, "text-anchor": "middle"}, name));
        }
    }

    /**
     * @param {import("../core/colour.js").Scheme} scheme
     * @param {import("../core/colour.js").Scale} scale
     */
    colour(scheme, scale) {
        this.scheme = scheme;
        this.scale = scale;
        const found = strengths(this.rows ?? [], this.measure);
        this.most = Math.max(
            0,
            ...(this.rows ?? []).filter(({kind}) => kind !== "whole").map((row) => Math.abs(row[this.measure] ?? 0)),
        );
        for (const [index, {path}] of this.shapes) {
            path.setAttribute(
                "fill",
                this.pane.view.absence?.off.has(index) ? this.hatch : css(diverging(found[index], scheme, scale)),
            );
            path.style.setProperty(
                "--strength",
                (FAINTEST + (1 - FAINTEST) * Math.sqrt(Math.abs(found[index]))).toFixed(3),
            );
        }
    }

    /** @param {number} index @returns {string} Colour of a row. */
    colourOf(index) {
        return css(diverging(strengths(this.rows, this.measure)[index], this.scheme, this.scale));
    }

    /** Mark the shape that is pointed at. @param {number | null} pointed */
    point(pointed) {
        for (const [index, {path}] of this.shapes) path.classList.toggle("pointed", index === pointed);
    }

    /** Show which shapes are off. @param {Set<number>} off */
    setOff(off) {
        for (const [index, {path}] of this.shapes) {
            path.setAttribute("aria-checked", String(!off.has(index)));
            path.classList.toggle("off", off.has(index));
        }
        if (this.scheme && this.scale) this.colour(this.scheme, this.scale);
    }

    _byStrength() {
        const size = (/** @type {number} */ index) => Math.abs(this.rows[index].attribution ?? 0);
        return [...this.shapes.keys()].sort((one, other) => size(other) - size(one));
    }

    /** Let the tabulator reach one shape alone. @param {number} reached */
    _rove(reached) {
        for (const [index, {path}] of this.shapes) path.setAttribute("tabindex", index === reached ? "0" : "-1");
    }

    /** @param {KeyboardEvent} event */
    _key(event) {
        const at = Number(/** @type {Element} */ (event.target).getAttribute("data-group"));
        const here = this.shapes.get(at);
        if (!here) return;
        if (event.key === " " || event.key === "Enter") {
            event.preventDefault();
            return this.pane.view.absence.toggle(at);
        }
        const order = this._byStrength();
        const direction = DIRECTIONS[event.key];
        const next = direction
            ? this._nearest(at, here.centre, direction)
            : event.key === "Home"
              ? order[0]
              : event.key === "End"
                ? order.at(-1)
                : undefined;
        if (direction || next !== undefined) event.preventDefault();
        if (next !== undefined) this.shapes.get(next)?.path.focus();
    }

    /**
     * The nearest shape in a direction.
     * @param {number} at
     * @param {[number, number]} from
     * @param {number[]} direction
     */
    _nearest(at, from, direction) {
        let [best, least] = [/** @type {number | undefined} */ (undefined), Infinity];
        for (const [index, {centre}] of this.shapes) {
            const [x, y] = [centre[0] - from[0], centre[1] - from[1]];
            const along = x * direction[0] + y * direction[1];
            const distance = along + ACROSS * Math.abs(x * direction[1] - y * direction[0]);
            if (index !== at && along > 0 && distance < least) [best, least] = [index, distance];
        }
        return best;
    }
}

const SAMPLES = 11; // along each side of the box around a shape

/**
 * A place within a shape, in the middle of its widest stretch, and the room beside it.
 * @param {SVGPathElement} path
 * @returns {{x: number, y: number, room: number, centrality: number} | null}
 */
function inside(path) {
    const box = path.getBBox();
    let best = null;
    for (let row = 1; row < SAMPLES; row++) {
        const y = box.y + (box.height * row) / SAMPLES;
        let first = -1;
        for (let column = 0; column <= SAMPLES; column++) {
            const within =
                column < SAMPLES && path.isPointInFill(new DOMPoint(box.x + (box.width * (column + 0.5)) / SAMPLES, y));
            if (within && first < 0) first = column;
            if (within || first < 0) continue;
            const room = (box.width * (column - first)) / SAMPLES;
            const centrality = room * (1 - 0.5 * Math.abs(row / SAMPLES - 0.5));
            if (!best || centrality > best.centrality)
                best = {x: box.x + (box.width * (first + column)) / 2 / SAMPLES, y, room, centrality};
            first = -1;
        }
    }
    return best;
}

/**
 * A segment in words.
 * @param {import("../core/groups.js").Group} row
 * @param {any} summary
 */
export function wordsOf(row, summary) {
    const {attribution} = row;
    if (attribution === null) return `${short(row.label)}: not finite`;
    const verb = attribution > 0 ? "supports" : attribution < 0 ? "opposes" : "does nothing for";
    const words = `${short(row.label)} ${verb} ${short(summary.target_label)}, ${number(attribution, {sign: true})}`;
    return row.dividend === undefined || row.dividend === null ? words : `${words}, dividend ${percent(row.dividend)}`;
}
