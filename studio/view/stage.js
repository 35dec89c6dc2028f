// The photo, what lies over it, and how it is shown.

import {SCALES, css, key as keyColours, limit, paint} from "../core/colour.js";
import {placement, seen, stretched, unseenPath} from "../core/frame.js";
import {heatMap, smoothed} from "../core/maps.js";
import {choice, html, newId, segmented, slider, svg} from "./dom.js";
import {GroupShapes} from "./group_shapes.js";
import {number} from "./numbers.js";
import {acceptDrops} from "./photo_picker.js";
import {scheme} from "./theme.js";

const LARGE_INPUT = 96; // pixels of the shorter side from which speckle is smoothed
const USUAL_SIGMA = 5; // percent of that side

const MEASURES = {attribution: "attribution of a segment", directional: "directional gradient of a segment"};

/** @typedef {"map" | "segments" | "photo"} Mode */

export class Stage {
    /** @param {import("./pane.js").Pane} pane */
    constructor(pane) {
        this.pane = pane;
        /** @type {Mode} */
        this.mode = "segments";
        /** @type {import("./pane.js").Explained | null} */
        this.explained = null;
        /** @type {string | null} */
        this.mapUrl = null;
        this.shapes = new GroupShapes(pane);
        this.image = svg("image", {class: "photo-image", preserveAspectRatio: "none"});
        this.map = svg("image", {class: "map", preserveAspectRatio: "none"});
        this.unseen = svg("path", {class: "outside", "fill-rule": "evenodd"});
        this.drawing = svg(
            "svg",
            {class: "drawing", role: "group", "aria-label": "Photo"},
            this.image,
            this.map,
            this.unseen,
            this.shapes.element,
        );
        this.frame = html("div", {class: "photo", hidden: true}, this.drawing, pane.settings.painting.layer);
        this.empty = html(
            "div",
            {class: "empty"},
            html("p", {class: "big"}, "Drop a photo here"),
            html("p", {}, "or paste one, take one with the camera, pick an example."),
        );
        this.readout = html("p", {class: "readout"});
        this.opacity = slider("Opacity", {
            min: 0,
            max: 100,
            step: 5,
            value: 80,
            unit: " %",
            oninput: () => this._look(),
        });
        this.sigma = slider("Smoothing", {
            min: 0,
            max: 10,
            step: 0.5,
            value: 0,
            unit: " %",
            oninput: () => this._paint(),
        });
        const id = newId("scale");
        this.scale = choice(
            SCALES.map((scale) => ({value: scale, label: scale.replace("-", " / ")})),
            SCALES[0],
            {id, class: "small", onchange: () => this.repaint()},
        );
        this.bar = svg("svg", {viewBox: "0 0 210 8", preserveAspectRatio: "none", "aria-hidden": "true"});
        this.ends = [html("span", {}), html("span", {})];
        const label = html("label", {for: id, class: "unseen"}, "Colours of the answer");
        this.key = html("div", {class: "key", hidden: true}, this.ends[0], this.bar, this.ends[1], label, this.scale);
        this.modes = segmented(
            "Shown over the photo",
            [
                {value: "map", label: "Heat map"},
                {value: "segments", label: "Segments"},
                {value: "photo", label: "Photo"},
            ],
            this.mode,
            (mode) => this._setMode(/** @type {Mode} */ (mode)),
        );
        this.controls = html(
            "div",
            {class: "stage-controls", hidden: true},
            this.modes,
            this.opacity.element,
            this.sigma.element,
        );
        this.element = html(
            "div",
            {class: "stage"},
            this.controls,
            html("div", {class: "well"}, this.frame, this.empty),
            this.key,
            this.readout,
        );
        acceptDrops(this.element, (blob, name) => void pane.givePhoto(blob, name));
    }

    /** @param {import("./photo.js").Photo} photo */
    showPhoto(photo) {
        const known = photo.url !== null;
        this.frame.hidden = !known;
        this.empty.hidden = known;
        if (!known) {
            this.empty.querySelector(".big").textContent = "This browser cannot show the file";
            return;
        }
        this.drawing.setAttribute("viewBox", `0 0 ${photo.width} ${photo.height}`);
        this.drawing.setAttribute("aria-label", `Photo ${photo.name}`);
        this.frame.style.setProperty("--aspect", String(photo.width / photo.height));
        for (const [name, value] of Object.entries({href: photo.url, width: photo.width, height: photo.height}))
            this.image.setAttribute(name, String(value));
    }

    /** @param {boolean} painting */
    showPainting(painting) {
        this.frame.classList.toggle("is-painted", painting);
        this.shapes.element.classList.toggle("behind", painting);
    }

    /** Take the answer off the photo. */
    clear() {
        this.explained = null;
        this.map.removeAttribute("href");
        this.unseen.setAttribute("d", "");
        this.shapes.clear();
        this.controls.hidden = true;
        this.key.hidden = true;
        this.readout.textContent = "";
        this.frame.dataset.mode = "photo";
    }

    /** @param {import("./pane.js").Explained} explained */
    showAnswer(explained) {
        this.explained = explained;
        this.controls.hidden = false;
        const map = heatMap(explained.tensors);
        this.values = map;
        const speckled = map && Math.min(map.height, map.width) >= LARGE_INPUT && !explained.summary.layer;
        this.sigma.input.value = String(speckled ? USUAL_SIGMA : 0);
        this.sigma.input.dispatchEvent(new Event("input"));
        const {photo} = explained;
        this.place =
            explained.summary.frame ?? stretched([photo.height, photo.width], map ? [map.height, map.width] : [1, 1]);
        for (const [name, value] of Object.entries(placement(this.place))) this.map.setAttribute(name, String(value));
        this.unseen.setAttribute("d", unseenPath(this.place));
        const grouped = Boolean(explained.summary.groups?.some(({segmentation}) => segmentation));
        const segments = this.modes.querySelector("input[value=segments]");
        segments.disabled = !grouped;
        if (this.mode === "segments" && !grouped) this._choose("map");
        if (this.mode !== "segments" && grouped) this._choose("segments");
        this.shapes.show(explained);
        this.repaint();
        this._setMode(this.mode);
    }

    /** Draw anew, in other colours or by another measure. */
    repaint() {
        this.shapes.colour(scheme(), this.scale.value);
        this._paint();
        this._key();
    }

    /** Say what is under the pointer or in focus. @param {string} words */
    tell(words) {
        this.readout.textContent = words || this.hint;
    }

    /** What the colours show, and what can be done with the segments. */
    get hint() {
        if (!this.explained || this.mode === "photo") return "";
        const measure = this.mode === "map" ? "attribution of a pixel" : MEASURES[this.shapes.measure];
        const click = this.pane.view.absence.possible ? " Click a segment to switch it off." : "";
        return `Colours: ${measure}.${click}`;
    }

    /** @param {Mode} mode */
    _choose(mode) {
        this.mode = mode;
        this.modes.querySelector(`input[value=${mode}]`).checked = true;
    }

    /** @param {Mode} mode */
    _setMode(mode) {
        this.mode = mode;
        this.frame.dataset.mode = mode;
        this.pane.settings.painting.active = false;
        this.showPainting(false);
        this.sigma.element.hidden = mode !== "map";
        this.opacity.element.hidden = mode === "photo";
        this._look();
        this._key();
        this.tell("");
    }

    _look() {
        const opacity = this.opacity.input.valueAsNumber / 100;
        this.frame.style.setProperty("--opacity", String(opacity));
    }

    async _paint() {
        if (!this.explained || !this.values) return;
        const {height, width} = this.values;
        const {values} = smoothed(this.values, (this.sigma.input.valueAsNumber / 100) * Math.min(height, width));
        this.limit = limit(values);
        const canvas = new OffscreenCanvas(width, height);
        canvas.getContext("2d")?.putImageData(
            paint(values, height, width, {
                scale: this.scale.value,
                scheme: scheme(),
                limit: this.limit,
                fade: true,
            }),
            0,
            0,
        );
        const url = URL.createObjectURL(await canvas.convertToBlob());
        this.map.setAttribute("href", url);
        if (this.mapUrl) URL.revokeObjectURL(this.mapUrl);
        this.mapUrl = url;
        this._key();
    }

    _key() {
        this.key.hidden = !this.explained || this.mode === "photo";
        if (this.key.hidden) return;
        const of = this.mode === "segments" ? this.shapes.most : (this.limit ?? 0);
        const colours = keyColours(21, scheme(), this.scale.value);
        this.bar.replaceChildren(
            ...colours.map(({colour}, index) =>
                svg("rect", {x: 10 * index, width: 10.2, height: 8, fill: css(colour)}),
            ),
        );
        this.ends[0].textContent = `opposes ${number(-of)}`;
        this.ends[1].textContent = `${number(of, {sign: true})} supports`;
    }
}
