// The settings of one pane.

import {first, schemas} from "../core/document.js";
import {choice, field, html} from "./dom.js";
import {MethodPicker} from "./method_picker.js";
import {Painting} from "./painting.js";
import {PhotoPicker} from "./photo_picker.js";
import {SegmentsPicker} from "./segments_picker.js";
import {TargetPicker} from "./target_picker.js";

export class Settings {
    /** @param {import("./pane.js").Pane} pane */
    constructor(pane) {
        this.pane = pane;
        /** @type {import("../core/document.js").Model | null} */
        this.model = null;
        /** @type {import("../core/document.js").Model[]} */
        this.models = [];
        let begun = false;
        const changed = () => {
            if (begun) pane.changed();
        };
        this.photo = new PhotoPicker((blob, name) => void pane.givePhoto(blob, name));
        this.same = html("input", {
            type: "checkbox",
            checked: pane.name !== "A",
            onchange: () => pane.studio.samePhoto(pane),
        });
        this.sameRow = html("label", {class: "check", hidden: pane.name === "A"}, this.same, "The photo of A");
        this.select = choice([], undefined, {onchange: () => this.choose(this.select.value)});
        this.about = html("p", {class: "help"});
        this.target = new TargetPicker(changed);
        this.painting = new Painting(changed);
        this.segments = new SegmentsPicker(this.painting, changed);
        this.method = new MethodPicker(changed);
        this.button = html("button", {type: "submit", class: "primary wide"}, "Explain");
        this.footer = html("div", {class: "footer"}, this.button);
        this.element = html(
            "form",
            {
                class: "settings-form",
                novalidate: true,
                "aria-label": `Settings of ${pane.name}`,
                oninput: changed,
                onchange: changed,
                onsubmit: (/** @type {Event} */ event) => {
                    event.preventDefault();
                    void pane.explain();
                },
            },
            html(
                "div",
                {class: "sections"},
                section("Photo", this.sameRow, this.photo.element),
                section("Model", field("Model", this.select, {quiet: true}), this.about),
                section("Answer to explain", this.target.element),
                section("Segments", this.segments.element),
                section("Method", this.method.element),
            ),
            this.footer,
        );
        begun = true;
    }

    /** Options of the request, those alone that differ from the service's defaults. @returns {Record<string, any>} */
    get options() {
        return {...this.target.options, ...this.method.options, ...this.segments.options};
    }

    /**
     * @param {any} document  OpenAPI document.
     * @param {import("../core/document.js").Model[]} models
     */
    offer(document, models) {
        this.document = document;
        this.models = models;
        const before = this.select.value;
        const group = (/** @type {string} */ kind, /** @type {string} */ label, disabled = false) => {
            const own = models.filter((model) => model.kind === kind);
            return own.length
                ? html("optgroup", {label}, ...own.map(({name}) => html("option", {value: name, disabled}, name)))
                : null;
        };
        this.select.replaceChildren(
            ...[
                group("classifier", "Classifiers"),
                group("segmenter", "Segmenters"),
                group("captioner", "Captioners, explained by docs/captions.md", true),
            ].filter((each) => each !== null),
        );
        this.segments.offer(
            models.filter(({kind}) => kind === "segmenter").map(({name}) => name),
            (name) => schemas(document, name, "prediction").threshold?.default ?? 0.5,
        );
        const next = models.find(({name}) => name === before) ?? first(models);
        if (next) this.choose(next.name);
    }

    /** @param {string} name */
    choose(name) {
        const model = this.models.find((each) => each.name === name) ?? null;
        if (!model) return;
        this.model = model;
        this.select.value = name;
        this.about.textContent = model.description;
        this.target.reset();
        this.method.offer(this.document, model);
        this.pane.forget();
        void this.pane.look();
    }

    /** Begin as other settings are. @param {Settings} other */
    copy(other) {
        if (other.model) this.choose(other.model.name);
        this.target.copy(other.target);
        this.method.copy(other.method);
        this.segments.copy(other.segments);
    }

    /** @param {boolean} follow  Whether the photo is that of A. */
    followPhoto(follow) {
        this.same.checked = follow;
    }

    /** Tell whether the photo is that of A. */
    get follows() {
        return !this.sameRow.hidden && this.same.checked;
    }
}

/** @param {string} title @param {...Node} children */
function section(title, ...children) {
    return html("section", {class: "section"}, html("h2", {}, title), ...children);
}
