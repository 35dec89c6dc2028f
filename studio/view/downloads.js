// What can be kept: the answer in each form, and the lines that reproduce it.

import {GZIP, JSON_MEDIA, PNG, SAFETENSORS, WITH_SUMMARY} from "../core/service.js";
import {curl, python} from "../core/snippets.js";
import {html, say} from "./dom.js";
import {size} from "./numbers.js";
import {asked} from "./pane.js";
import {Run} from "./run.js";

const FORMS = [
    {label: "Tensors, gzip", help: "torch.load reads it", accept: GZIP, suffix: "gzip"},
    {label: "Tensors, safetensors", help: "with the summary", accept: WITH_SUMMARY, suffix: "safetensors"},
    {label: "Summary, JSON", help: "scores and groups", accept: JSON_MEDIA, suffix: "json"},
    {label: "Picture, PNG", help: "as the service draws it", accept: PNG, suffix: "png"},
];

export class Downloads {
    /** @param {import("./pane.js").Pane} pane */
    constructor(pane) {
        this.pane = pane;
        this.run = new Run();
        this.curl = new Snippet("curl");
        this.python = new Snippet("Python");
        this.element = html(
            "div",
            {class: "downloads"},
            html(
                "div",
                {class: "forms"},
                ...FORMS.map((form) =>
                    html(
                        "button",
                        {type: "button", onclick: () => void this._save(form)},
                        html("strong", {}, form.label),
                        html("span", {class: "muted"}, form.help),
                    ),
                ),
            ),
            this.run.element,
            html("p", {class: "muted small-words"}, "The lines hold no key: they read it from the variable KEY."),
            this.curl.element,
            this.python.element,
        );
    }

    /** @param {import("./pane.js").Explained} explained */
    show({model, photo, options}) {
        const request = {
            base: location.origin,
            endpoint: /** @type {const} */ ("explanation"),
            model: model.name,
            options,
            photo: photo.name,
            accept: JSON_MEDIA,
        };
        this.curl.show(curl(request));
        this.python.show(python(request));
    }

    /** @param {(typeof FORMS)[number]} form */
    async _save({accept, suffix, label}) {
        const {explained, studio} = this.pane;
        if (!explained) return;
        const {model, photo, options} = explained;
        const name = `${photo.name.replace(/\.[^.]*$/, "")}_${model.name.replaceAll("/", "_")}.${suffix}`;
        try {
            const answer =
                accept === WITH_SUMMARY
                    ? explained
                    : await this.run.during(`Asking for ${label} …`, (signal) =>
                          studio.service.explain(model.name, photo.blob, accept === PNG ? options : asked(options), {
                              accept,
                              signal,
                          }),
                      );
            if (!answer) return;
            save(
                new Blob([/** @type {Uint8Array<ArrayBuffer>} */ (answer.bytes)], {
                    type: accept === WITH_SUMMARY ? SAFETENSORS : accept,
                }),
                name,
            );
            say(`${name} saved, ${size(answer.bytes.length)}.`);
        } catch (failure) {
            this.pane.alert.show(failure);
        }
    }
}

/** Lines to copy. */
class Snippet {
    /** @param {string} label */
    constructor(label) {
        this.code = html("code", {});
        const copy = html(
            "button",
            {
                type: "button",
                class: "small quiet",
                "aria-label": `Copy the lines of ${label}`,
                onclick: async () => {
                    await navigator.clipboard?.writeText(this.code.textContent ?? "");
                    say("Copied.");
                    copy.textContent = "Copied";
                    setTimeout(() => {
                        copy.textContent = "Copy";
                    }, 1500);
                },
            },
            "Copy",
        );
        this.element = html(
            "div",
            {class: "snippet"},
            html("div", {class: "row spread"}, html("strong", {}, label), copy),
            html("pre", {tabindex: 0, "aria-label": `Lines of ${label}`}, this.code),
        );
    }

    /** @param {string} lines */
    show(lines) {
        this.code.textContent = lines;
    }
}

/** @param {Blob} blob @param {string} name */
function save(blob, name) {
    const url = URL.createObjectURL(blob);
    html("a", {href: url, download: name}).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
