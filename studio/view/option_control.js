// A control for an option of the service, as its OpenAPI document describes it.

import {choice, field, html} from "./dom.js";
import {plain} from "./numbers.js";

/** @typedef {import("../core/options.js").Control} Control */

/**
 * A control on the page.
 * @typedef {Object} Shown
 * @property {Control} control
 * @property {HTMLElement} element
 * @property {() => any} value  What the person gave; undefined where it is the service's default.
 * @property {(value: any) => void} set
 */

/** Kinds of options that the page has a control for. */
export const KINDS = new Set(["number", "integer", "choice", "boolean", "text", "file", "object"]);

/**
 * Show an option.
 * @param {Control} control
 * @returns {Shown}
 */
export function optionControl(control) {
    const {name, kind} = control;
    const label = title(name);
    const help = control.help || undefined;
    const usual = control.default ?? null;
    if (kind === "object") return objectControl(control, label, help);
    if (kind === "file") {
        const input = html("input", {type: "file", accept: "image/jpeg,image/png,image/webp"});
        return {
            control,
            element: field(label, input, {field: name, help}),
            value: () => input.files?.[0],
            set: () => {},
        };
    }
    if (kind === "boolean" || kind === "choice") {
        const named = kind === "boolean" ? (usual ? "yes" : "no") : plain(String(usual));
        const choices =
            kind === "boolean"
                ? [
                      {value: "true", label: "yes"},
                      {value: "false", label: "no"},
                  ]
                : (control.choices ?? []).map((each) => ({value: String(each), label: plain(String(each))}));
        const select = choice([{value: "", label: usual === null ? "none" : `${named} (default)`}, ...choices], "");
        const value = () =>
            select.value === "" ? undefined : kind === "boolean" ? select.value === "true" : select.value;
        return {
            control,
            element: field(label, select, {field: name, help}),
            value,
            set: (given) => {
                select.value = String(given);
            },
        };
    }
    const input =
        kind === "text"
            ? html("input", {type: "text", placeholder: usual, spellcheck: "false"})
            : html("input", {
                  type: "number",
                  step: kind === "integer" ? 1 : "any",
                  placeholder: usual,
                  min: control.exclusive ? null : control.minimum,
                  max: control.maximum,
              });
    const value = () =>
        input.value.trim() === "" ? undefined : kind === "text" ? input.value.trim() : Number(input.value);
    return {
        control,
        element: field(label, input, {field: name, help}),
        value,
        set: (given) => {
            input.value = String(given);
        },
    };
}

/**
 * @param {Control} control
 * @param {string} label
 * @param {string} [help]
 * @returns {Shown}
 */
function objectControl(control, label, help) {
    const fields = (control.fields ?? []).filter(({kind}) => KINDS.has(kind)).map(optionControl);
    for (const {
        control: {name},
        element,
    } of fields)
        for (const each of element.querySelectorAll("[data-field]"))
            each.setAttribute("data-field", `${control.name}.${name}`);
    const used = html("input", {type: "checkbox", "data-field": control.name});
    const inner = html("div", {class: "options", hidden: true}, ...fields.map(({element}) => element));
    used.addEventListener("change", () => {
        inner.hidden = !used.checked;
    });
    const element = html(
        "div",
        {class: "field"},
        html("label", {class: "check"}, used, label),
        help ? html("p", {class: "help"}, help) : null,
        inner,
    );
    const value = () => {
        if (!used.checked) return undefined;
        const given = fields.map((each) => [each.control.name, each.value()]).filter(([, each]) => each !== undefined);
        return Object.fromEntries(given);
    };
    return {control, element, value, set: () => {}};
}

/** @param {string} name */
function title(name) {
    const words = plain(name);
    return words[0].toUpperCase() + words.slice(1);
}
