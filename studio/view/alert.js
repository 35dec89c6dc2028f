// Errors, in the service's own words, at the field that they name.

import {html, newId} from "./dom.js";
import {plain} from "./numbers.js";

/**
 * @typedef {object} Failure
 * @property {string} message
 * @property {number} [status]
 * @property {string | null} [field]
 * @property {number | null} [retryAfter] Seconds.
 * @property {boolean} [keyless] Whether a key is what is wanted.
 */

/** A place for one error. */
export class Alert {
    /**
     * @param {HTMLElement} fields Element with the controls that a field of the service may name.
     * @param {() => void} askForKey
     */
    constructor(fields, askForKey) {
        this.fields = fields;
        this.askForKey = askForKey;
        this.element = html("div", {class: "alert-place"});
    }

    clear() {
        this.element.replaceChildren();
        for (const control of this.fields.querySelectorAll("[aria-invalid]")) {
            control.removeAttribute("aria-invalid");
            control.removeAttribute("aria-errormessage");
        }
    }

    /**
     * @param {Failure} failure
     * @param {(() => void) | null} [again] What "Try again" does.
     */
    show(failure, again = null) {
        this.clear();
        const id = newId("error");
        const control = this._control(failure.field);
        if (control?.matches("input, select, textarea")) {
            control.setAttribute("aria-invalid", "true");
            control.setAttribute("aria-errormessage", id);
        }
        const wait = failure.retryAfter;
        const keyless = failure.keyless || failure.status === 401 || failure.status === 403;
        this.element.append(
            html(
                "div",
                {class: failure.keyless ? "alert notice" : "alert", role: "alert"},
                html(
                    "p",
                    {id},
                    failure.field ? html("strong", {}, `${plain(failure.field)}: `) : null,
                    failure.message,
                ),
                html(
                    "div",
                    {class: "row"},
                    failure.status ? html("span", {class: "muted"}, `Status ${failure.status}`) : null,
                    wait ? html("span", {class: "muted"}, `The service asks to wait ${wait} s.`) : null,
                    control
                        ? html(
                              "button",
                              {type: "button", class: "small", onclick: () => reach(control)},
                              `Go to ${plain(failure.field ?? "")}`,
                          )
                        : null,
                    keyless
                        ? html("button", {type: "button", class: "small", onclick: this.askForKey}, "Enter the key")
                        : null,
                    again ? html("button", {type: "button", class: "small", onclick: again}, "Try again") : null,
                    html("button", {type: "button", class: "small", onclick: () => this.clear()}, "Dismiss"),
                ),
            ),
        );
    }

    /** @param {string | null | undefined} name @returns {HTMLElement | null} */
    _control(name) {
        const stem = name?.split(/[.[]/)[0];
        return stem ? this.fields.querySelector(`[data-field="${CSS.escape(stem)}"]`) : null;
    }
}

/** Bring a control into view and focus, opening what hides it. @param {HTMLElement} control */
function reach(control) {
    for (let place = control.closest("details"); place; place = place.parentElement?.closest("details") ?? null)
        place.open = true;
    control.scrollIntoView({block: "center"});
    control.focus();
}
