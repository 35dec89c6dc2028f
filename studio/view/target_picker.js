// The answer to explain: one of the best classes, any other, or an instance; and the class that it is told from.

import {Combobox} from "./combobox.js";
import {html, newId} from "./dom.js";
import {number, percent, short} from "./numbers.js";

/** @typedef {{label: string, index: number, score: number, probability?: number}} RankedClass */

export class TargetPicker {
    /** @param {() => void} changed */
    constructor(changed) {
        this.changed = changed;
        this.top = html("fieldset", {class: "top"});
        this.other = new Combobox({
            label: "Class",
            field: "target_class",
            placeholder: "predicted",
            changed: () => {
                this._mark();
                changed();
            },
        });
        this.contrast = new Combobox({label: "Rather than", field: "contrast_class", placeholder: "none", changed});
        /** @type {string | null} */
        this.detection = null;
        this.instances = false;
        /** @type {string[]} */
        this.labels = [];
        /** @type {Map<string, number>} */
        this.indices = new Map();
        this.element = html(
            "div",
            {class: "target"},
            this.top,
            html("div", {class: "pair"}, this.other.element, this.contrast.element),
        );
        this.wait("The best classes appear here.");
    }

    /** Options of the service. */
    get options() {
        /** @type {Record<string, any>} */
        const options = {};
        if (this.instances && this.detection !== null) options.detection = Number(this.detection);
        else if (this.other.value) options.target_class = this._named(this.other.value);
        if (this.contrast.value) options.contrast_class = this._named(this.contrast.value);
        return options;
    }

    /** A label, or its index where another class has the same. @param {string} label */
    _named(label) {
        return this.labels.indexOf(label) === this.labels.lastIndexOf(label)
            ? label
            : (this.indices.get(label) ?? label);
    }

    /** @param {TargetPicker} other */
    copy(other) {
        this.other.value = other.other.value;
        this.contrast.value = other.contrast.value;
        this.detection = other.detection;
    }

    /** @param {string} words */
    wait(words) {
        this.top.replaceChildren(html("legend", {class: "unseen"}, "Best classes"), html("p", {class: "muted"}, words));
    }

    /** Forget a choice that was another model's. */
    reset() {
        this.other.value = "";
        this.contrast.value = "";
        this.detection = null;
    }

    /**
     * Offer what a classifier predicts.
     *
     * @param {RankedClass[]} ranked
     * @param {string[] | null} labels All of the model's.
     */
    offerClasses(ranked, labels) {
        this.instances = false;
        this.detection = null;
        const all = labels ?? ranked.map(({label}) => label);
        this.labels = labels ?? [];
        this.indices = new Map(ranked.map(({label, index}) => [label, index]));
        this.other.choices = all;
        this.contrast.choices = all;
        this._offer(
            "Best classes",
            ranked.map(({label, score, probability}) => ({
                value: label,
                label: short(label),
                part: probability,
                words: probability === undefined ? number(score) : percent(probability),
            })),
        );
        this._mark();
    }

    /**
     * Offer what a segmenter finds.
     *
     * @param {{label: string, score: number}[]} found
     * @param {string[] | null} labels
     */
    offerInstances(found, labels) {
        this.instances = true;
        const all = labels ?? [...new Set(found.map(({label}) => label))];
        this.other.choices = all;
        this.contrast.choices = all;
        if (found.length === 0) return this.wait("The segmenter finds nothing in this photo.");
        this._offer(
            "Instances",
            found.map(({label, score}, index) => ({
                value: String(index),
                label: short(label),
                part: score,
                words: percent(score),
            })),
        );
        this._mark();
    }

    /** @param {string} legend @param {{value: string, label: string, part?: number, words: string}[]} rows */
    _offer(legend, rows) {
        const name = newId("target");
        this.top.replaceChildren(
            html("legend", {class: "unseen"}, legend),
            ...rows.map(({value, label, part, words}) => {
                const bar = html("span", {class: "part", "aria-hidden": "true"});
                bar.style.inlineSize = `${100 * Math.min(1, Math.max(0, part ?? 0))}%`;
                return html(
                    "label",
                    {class: "class"},
                    html("input", {type: "radio", name, value, onchange: () => this._choose(value)}),
                    html("span", {class: "name", title: label}, label),
                    bar,
                    html("span", {class: "words"}, words),
                );
            }),
        );
    }

    /** @param {string} value */
    _choose(value) {
        if (this.instances) {
            this.detection = value;
            this.other.value = "";
        } else this.other.value = value;
        this._mark();
        this.changed();
    }

    _mark() {
        const radios = /** @type {HTMLInputElement[]} */ ([...this.top.querySelectorAll("input")]);
        if (this.instances && this.other.value) this.detection = null;
        const wanted = this.instances
            ? this.other.value
                ? null
                : (this.detection ?? radios[0]?.value)
            : this.other.value || radios[0]?.value;
        radios.forEach((radio) => {
            radio.checked = radio.value === wanted;
        });
    }
}
