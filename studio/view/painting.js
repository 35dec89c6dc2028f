// Segments painted by hand: with a brush, or as rectangles by the arrow keys.

import {encode} from "../core/rle.js";
import {html, newId, say, segmented, slider} from "./dom.js";
import {Rectangle} from "./rectangle.js";

const SIDE = 900; // pixels of the longer side of what is painted on
const COLOURS = [
    [0, 114, 178],
    [230, 159, 0],
    [0, 158, 115],
    [204, 121, 167],
    [86, 180, 233],
    [213, 94, 0],
]; // Okabe and Ito's

/** @typedef {{label: string, mask: Uint8Array}} Painted */

export class Painting {
    /** @param {() => void} changed */
    constructor(changed) {
        this.changed = changed;
        /** Called when the person paints on. */
        this.resumed = () => {};
        /** @type {Painted[]} */
        this.segments = [];
        this.current = 0;
        /** @type {"brush" | "eraser"} */
        this.tool = "brush";
        /** @type {import("./photo.js").Photo | null} */
        this.photo = null;
        this.width = 0;
        this.height = 0;
        this.canvas = html("canvas", {class: "canvas", "aria-hidden": "true"});
        this.rectangle = new Rectangle(
            (place) => this._paintRectangle(place),
            () => this.tools.focus(),
        );
        this.layer = html("div", {class: "painting", hidden: true}, this.canvas, this.rectangle.element);
        this.brush = slider("Brush", {min: 1, max: 30, value: 8, unit: " %"});
        this.list = html("div", {class: "painted", role: "group", "aria-label": "Painted segments"});
        this.tools = html(
            "div",
            {
                class: "paint-tools",
                "data-field": "masks",
                tabindex: -1,
                onfocusin: () => this.resume(),
                onpointerdown: () => this.resume(),
            },
            this.list,
            html(
                "div",
                {class: "row"},
                segmented(
                    "Tool",
                    [
                        {value: "brush", label: "Brush"},
                        {value: "eraser", label: "Eraser"},
                    ],
                    this.tool,
                    (tool) => {
                        this.tool = /** @type {any} */ (tool);
                    },
                ),
                html("button", {type: "button", class: "small", onclick: () => this.add()}, "New segment"),
            ),
            this.brush.element,
            html(
                "button",
                {type: "button", class: "small", onclick: () => this.rectangle.start()},
                "Rectangle by keys",
            ),
            html(
                "p",
                {class: "help"},
                "Paint on the photo. Without a pointer: a rectangle is moved by the arrow keys, sized with Shift, ",
                "painted with Enter, left with Escape.",
            ),
        );
        this._listen();
        this._list();
    }

    /** Tell whether painting is what the person does now. */
    get active() {
        return !this.layer.hidden;
    }

    set active(active) {
        this.layer.hidden = !active;
        if (active && this.segments.length === 0) this.add();
    }

    /** Paint on, over an answer to what was painted. */
    resume() {
        if (this.active) return;
        this.active = true;
        this.resumed();
    }

    /** @param {import("./photo.js").Photo | null} photo */
    setPhoto(photo) {
        this.photo = photo;
        const scale = photo?.width ? Math.min(1, SIDE / Math.max(photo.width, photo.height)) : 0;
        [this.width, this.height] = photo?.width
            ? [Math.max(1, Math.round(photo.width * scale)), Math.max(1, Math.round(photo.height * scale))]
            : [0, 0];
        [this.canvas.width, this.canvas.height] = [this.width || 1, this.height || 1];
        const many = this.segments.length;
        this.segments = [];
        if (many) this.add();
        this._draw();
    }

    add() {
        this.segments.push({
            label: `painted ${this.segments.length + 1}`,
            mask: new Uint8Array(this.width * this.height),
        });
        this.current = this.segments.length - 1;
        this._list();
    }

    /** The masks over the upright photo, as COCO's run lengths; empty ones are left out. */
    masks() {
        const {width, height} = this.photo ?? {width: 0, height: 0};
        return this.segments
            .filter(({mask}) => mask.includes(1))
            .map(({label, mask}) => {
                const full = new Uint8Array(width * height);
                for (let y = 0; y < height; y++) {
                    const row = Math.min(this.height - 1, Math.floor((y * this.height) / height)) * this.width;
                    for (let x = 0; x < width; x++)
                        full[y * width + x] =
                            mask[row + Math.min(this.width - 1, Math.floor((x * this.width) / width))];
                }
                return {label, ...encode(full, height, width)};
            });
    }

    _list() {
        const name = newId("painted");
        this.list.replaceChildren(
            ...this.segments.map((segment, index) => {
                const swatch = html("span", {class: "swatch", "aria-hidden": "true"});
                swatch.style.background = `rgb(${COLOURS[index % COLOURS.length]})`;
                return html(
                    "div",
                    {class: "row"},
                    html("input", {
                        type: "radio",
                        name,
                        checked: index === this.current,
                        "aria-label": `Paint ${segment.label}`,
                        onchange: () => {
                            this.current = index;
                            this._draw();
                        },
                    }),
                    swatch,
                    html("input", {
                        type: "text",
                        value: segment.label,
                        "aria-label": `Label of painted segment ${index + 1}`,
                        maxlength: 200,
                        oninput: (event) => {
                            segment.label = event.target.value || `painted ${index + 1}`;
                            this.changed();
                        },
                    }),
                    html(
                        "button",
                        {
                            type: "button",
                            class: "quiet small",
                            "aria-label": `Remove ${segment.label}`,
                            onclick: () => this._remove(index),
                        },
                        "×",
                    ),
                );
            }),
        );
        this._draw();
    }

    /** @param {number} index */
    _remove(index) {
        this.segments.splice(index, 1);
        if (this.segments.length === 0) return this.add();
        this.current = Math.min(this.current, this.segments.length - 1);
        this._list();
        this.changed();
    }

    _listen() {
        /** @type {[number, number] | null} */
        let last = null;
        const at = (event) => {
            const box = this.canvas.getBoundingClientRect();
            return /** @type {[number, number]} */ ([
                ((event.clientX - box.left) / box.width) * this.width,
                ((event.clientY - box.top) / box.height) * this.height,
            ]);
        };
        this.canvas.addEventListener("pointerdown", (event) => {
            this.canvas.setPointerCapture(event.pointerId);
            last = at(event);
            this._stroke(last, last);
        });
        this.canvas.addEventListener("pointermove", (event) => {
            if (!last) return;
            const next = at(event);
            this._stroke(last, next);
            last = next;
        });
        const end = () => {
            if (last) this.changed();
            last = null;
        };
        this.canvas.addEventListener("pointerup", end);
        this.canvas.addEventListener("pointercancel", end);
    }

    /** Paint a line of discs. @param {[number, number]} from @param {[number, number]} to */
    _stroke(from, to) {
        const mask = this.segments[this.current].mask;
        const radius = Math.max(1, (this.brush.input.valueAsNumber / 200) * Math.min(this.width, this.height));
        const value = this.tool === "brush" ? 1 : 0;
        const steps = Math.max(1, Math.ceil(Math.hypot(to[0] - from[0], to[1] - from[1]) / (radius / 2)));
        for (let step = 0; step <= steps; step++) {
            const [x, y] = [0, 1].map((axis) => from[axis] + ((to[axis] - from[axis]) * step) / steps);
            for (let row = Math.max(0, Math.ceil(y - radius)); row <= Math.min(this.height - 1, y + radius); row++) {
                const half = Math.sqrt(Math.max(0, radius ** 2 - (row - y) ** 2));
                const [first, last] = [
                    Math.max(0, Math.ceil(x - half)),
                    Math.min(this.width - 1, Math.floor(x + half)),
                ];
                if (last >= first) mask.fill(value, row * this.width + first, row * this.width + last + 1);
            }
        }
        this._draw();
    }

    _draw() {
        const context = this.canvas.getContext("2d");
        if (!context || !this.width) return;
        const image = context.createImageData(this.width, this.height);
        this.segments.forEach(({mask}, index) => {
            const [r, g, b] = COLOURS[index % COLOURS.length];
            const alpha = index === this.current ? 165 : 110;
            for (let pixel = 0; pixel < mask.length; pixel++)
                if (mask[pixel]) image.data.set([r, g, b, alpha], 4 * pixel);
        });
        context.putImageData(image, 0, 0);
    }

    /** @param {import("./rectangle.js").Place} place */
    _paintRectangle({x, y, w, h}) {
        const {mask, label} = this.segments[this.current];
        const [left, right] = [Math.round(x * this.width), Math.round((x + w) * this.width)];
        for (let row = Math.round(y * this.height); row < Math.round((y + h) * this.height); row++) {
            mask.fill(this.tool === "brush" ? 1 : 0, row * this.width + left, row * this.width + right);
        }
        this._draw();
        say(`Rectangle ${this.tool === "brush" ? "painted into" : "erased from"} ${label}.`);
        this.changed();
    }
}
