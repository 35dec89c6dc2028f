// The method, its options from the OpenAPI document, and the baseline.

import {applies, controls} from "../core/options.js";
import {choice, field, html} from "./dom.js";
import {plain} from "./numbers.js";
import {KINDS, optionControl} from "./option_control.js";

/** Parts of a request that the page has other places for. */
const ELSEWHERE = ["target", "groups", "segmenter", "picture", "answer", "graph"];
const FIRST = ["steps", "samples", "permutations"]; // shown without opening the rest
const USUAL = "integrated_gradients";

export class MethodPicker {
    /** @param {() => void} changed */
    constructor(changed) {
        this.changed = changed;
        /** @type {any} */
        this.document = null;
        /** @type {import("../core/document.js").Model | null} */
        this.model = null;
        this.method = choice([], undefined, {onchange: () => this._fill()});
        this.times = choice([], undefined, {onchange: () => this._fill()});
        this.about = html("p", {class: "help"});
        this.first = html("div", {class: "options"});
        this.rest = html("div", {class: "options"});
        this.more = html(
            "details",
            {},
            html("summary", {}, "More options"),
            field("Multiplied by", this.times, {field: "combine"}),
            this.rest,
        );
        /** @type {import("./option_control.js").Shown[]} */
        this.shown = [];
        this.element = html(
            "div",
            {onchange: () => this._show()},
            field("Method", this.method, {field: "method", quiet: true}),
            this.about,
            this.first,
            this.more,
        );
    }

    /**
     * @param {any} document  OpenAPI document.
     * @param {import("../core/document.js").Model} model
     */
    offer(document, model) {
        const before = [this.method.value || model.method || USUAL, this.times.value];
        [this.document, this.model] = [document, model];
        const about = document["x-methods"] ?? {};
        this.method.replaceChildren(...model.methods.map((name) => html("option", {value: name}, plain(name))));
        this.method.value = model.methods.includes(before[0]) ? before[0] : (model.method ?? model.methods[0]);
        const coarse = model.methods.filter((name) => about[name]?.coarse);
        this.times.replaceChildren(
            html("option", {value: ""}, "nothing"),
            ...coarse.map((name) => html("option", {value: name}, plain(name))),
        );
        this.times.value = coarse.includes(before[1]) ? before[1] : "";
        this._fill();
    }

    /** Options of the service that the person set. @returns {Record<string, any>} */
    get options() {
        /** @type {Record<string, any>} */
        const options = {};
        if (this.times.value) options.combine = [this.method.value, this.times.value];
        else if (this.method.value !== this.model?.method) options.method = this.method.value;
        for (const {control, element, value} of this.shown)
            if (!element.hidden && value() !== undefined) options[control.name] = value();
        return options;
    }

    /** @param {MethodPicker} other */
    copy(other) {
        this.method.value = other.method.value;
        this.times.value = other.times.value;
        this._fill();
        const given = new Map(other.shown.map(({control, value}) => [control.name, value()]));
        for (const {control, set} of this.shown)
            if (given.get(control.name) !== undefined) set(given.get(control.name));
        this._show();
    }

    _fill() {
        if (!this.model) return;
        const given = this.shown
            .map(({control, value}) => [control.name, value()])
            .filter(([, value]) => value !== undefined);
        const before = new Map(/** @type {[string, any][]} */ (given));
        const method = this.times.value
            ? /** @type {[string, string]} */ ([this.method.value, this.times.value])
            : this.method.value;
        this.controls = controls(this.document, this.model.name, method);
        const own = this.controls.filter(
            ({name, part, kind}) => !ELSEWHERE.includes(part) && KINDS.has(kind) && name !== "baseline_tensor",
        );
        for (const control of own)
            if (control.name === "baseline") control.choices = control.choices?.filter((each) => each !== "tensor");
        this.shown = own.map(optionControl);
        for (const {control, set} of this.shown) if (before.has(control.name)) set(before.get(control.name));
        const isFirst = ({control}) => FIRST.includes(control.name) || control.part === "baseline";
        this.first.replaceChildren(...this.shown.filter(isFirst).map(({element}) => element));
        this.rest.replaceChildren(...this.shown.filter((each) => !isFirst(each)).map(({element}) => element));
        this.about.textContent = this.document["x-methods"]?.[this.method.value]?.description ?? "";
        this._show();
    }

    /** Show the options that mean something beside the others. */
    _show() {
        const values = Object.fromEntries(
            this.shown.map(({control, value}) => [control.name, value()]).filter(([, value]) => value !== undefined),
        );
        for (const {control, element} of this.shown) element.hidden = !applies(control, values, this.controls ?? []);
    }
}
