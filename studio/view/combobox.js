// A text field with a list of matches.

import {html, newId} from "./dom.js";

const SHOWN_MATCHES = 40;

export class Combobox {
    /**
     * @param {{label: string, field: string, placeholder?: string, changed: (value: string) => void}} options
     */
    constructor({label, field, placeholder = "", changed}) {
        this.changed = changed;
        /** @type {string[]} */
        this.choices = [];
        this.at = -1;
        const id = newId("combobox");
        this.list = html("ul", {
            role: "listbox",
            id: `${id}-list`,
            class: "matches",
            hidden: true,
            "aria-label": label,
        });
        this.input = html("input", {
            id,
            type: "text",
            role: "combobox",
            autocomplete: "off",
            spellcheck: "false",
            placeholder,
            "data-field": field,
            "aria-expanded": "false",
            "aria-controls": this.list.id,
            "aria-autocomplete": "list",
            oninput: () => this._open(this.input.value),
            onkeydown: (/** @type {KeyboardEvent} */ event) => this._key(event),
            onfocus: () => this.input.select(),
            onclick: () => this._open(""),
            onblur: () => {
                this._close();
                this._take(this.input.value.trim());
            },
        });
        this.taken = "";
        this.element = html(
            "div",
            {class: "field combobox"},
            html("div", {class: "label"}, html("label", {for: id}, label)),
            this.input,
            this.list,
        );
    }

    get value() {
        return this.taken;
    }

    set value(value) {
        this.taken = this.input.value = value;
    }

    /** @param {string} value */
    _take(value) {
        this.input.value = value;
        if (value === this.taken) return;
        this.taken = value;
        this.changed(value);
    }

    /** @param {string} words */
    _open(words) {
        const wanted = words.trim().toLowerCase();
        const starts = (/** @type {string} */ choice) => choice.toLowerCase().startsWith(wanted);
        const matches = this.choices.filter((choice) => choice.toLowerCase().includes(wanted));
        matches.sort((one, other) => Number(starts(other)) - Number(starts(one)));
        this.at = -1;
        this.list.replaceChildren(
            ...matches.slice(0, SHOWN_MATCHES).map((choice) =>
                html(
                    "li",
                    {
                        role: "option",
                        id: newId("match"),
                        "aria-selected": "false",
                        onpointerdown: (/** @type {Event} */ event) => {
                            event.preventDefault();
                            this._close();
                            this._take(choice);
                        },
                    },
                    choice,
                ),
            ),
        );
        this._expand(matches.length > 0);
    }

    /** @param {boolean} open */
    _expand(open) {
        this.list.hidden = !open;
        this.input.setAttribute("aria-expanded", String(open));
        if (!open) this.input.removeAttribute("aria-activedescendant");
    }

    _close() {
        this._expand(false);
    }

    /** @param {KeyboardEvent} event */
    _key(event) {
        const options = /** @type {HTMLElement[]} */ ([...this.list.children]);
        if (event.key === "ArrowDown" || event.key === "ArrowUp") {
            event.preventDefault();
            if (this.list.hidden) return this._open("");
            this.at = (this.at + (event.key === "ArrowDown" ? 1 : -1) + options.length) % options.length;
            options.forEach((option, index) => option.setAttribute("aria-selected", String(index === this.at)));
            options[this.at].scrollIntoView({block: "nearest"});
            this.input.setAttribute("aria-activedescendant", options[this.at].id);
        } else if (event.key === "Enter") {
            event.preventDefault();
            const chosen = this.list.hidden ? null : options[this.at]?.textContent;
            this._close();
            this._take(chosen ?? this.input.value.trim());
        } else if (event.key === "Escape" && !this.list.hidden) {
            event.preventDefault();
            this._close();
        }
    }
}
