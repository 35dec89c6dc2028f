// Elements of the page.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Build an HTML element.
 *
 * @param {string} tag Name of the element.
 * @param {Record<string, any>} [attributes] Attributes; those that start with "on" are listeners, false and null are
 *     left out, true stands for an empty one. Styles are no attributes here: the page's policy forbids them.
 * @param {...(Node | string | number | null)} children
 * @returns {any}
 */
export function html(tag, attributes = {}, ...children) {
    return filled(document.createElement(tag), attributes, children);
}

/**
 * Build an SVG element.
 *
 * @param {string} tag Name of the element.
 * @param {Record<string, any>} [attributes] Attributes, as those of `html`.
 * @param {...(Node | string | number | null)} children
 * @returns {any}
 */
export function svg(tag, attributes = {}, ...children) {
    return filled(document.createElementNS(SVG, tag), attributes, children);
}

/** @param {Element} element @param {Record<string, any>} attributes @param {any[]} children */
function filled(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
        if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
        else if (value !== false && value !== null && value !== undefined)
            element.setAttribute(name, value === true ? "" : String(value));
    }
    element.append(
        ...children
            .filter((child) => child !== null && child !== undefined)
            .map((child) => (typeof child === "number" ? String(child) : child)),
    );
    return element;
}

let count = 0;

/**
 * An id that no other element has.
 *
 * @param {string} [stem]
 */
export const newId = (stem = "e") => `${stem}-${++count}`;

/**
 * A labelled control: label above, a line of help or error below.
 *
 * @param {string} label
 * @param {HTMLElement} control Input, select or the like; gets an id, and the name of the service's field.
 * @param {{field?: string, help?: string, aside?: Node | null, quiet?: boolean}} [more] A quiet label is for who hears
 *     the page alone.
 */
export function field(label, control, {field: name, help, aside, quiet} = {}) {
    control.id ||= newId("field");
    if (name) control.dataset.field = name;
    const note = help ? html("p", {class: "help", id: `${control.id}-help`}, help) : null;
    if (note) control.setAttribute("aria-describedby", note.id);
    return html(
        "div",
        {class: "field"},
        html("div", {class: quiet ? "unseen" : "label"}, html("label", {for: control.id}, label), aside ?? null),
        control,
        note,
    );
}

/**
 * A slider with its value beside the label.
 *
 * @param {string} label
 * @param {{min: number, max: number, step?: number, value: number, field?: string, unit?: string,
 *     oninput?: (value: number) => void}} range
 */
export function slider(label, {min, max, step = 1, value, field: name, unit = "", oninput}) {
    const input = html("input", {type: "range", min, max, step, value});
    const shown = html("span", {class: "shown"}, value + unit);
    input.addEventListener("input", () => {
        shown.textContent = input.value + unit;
        input.setAttribute("aria-valuetext", input.value + unit);
        oninput?.(input.valueAsNumber);
    });
    return {element: field(label, input, {field: name, aside: shown}), input};
}

/**
 * A select of options.
 *
 * @param {(string | {value: string, label: string, disabled?: boolean})[]} options
 * @param {string} [value]
 * @param {Record<string, any>} [attributes]
 */
export function choice(options, value, attributes = {}) {
    const select = html(
        "select",
        attributes,
        ...options.map((option) => {
            const {
                value: own,
                label,
                disabled,
            } = typeof option === "string" ? {value: option, label: option, disabled: false} : option;
            return html("option", {value: own, disabled}, label);
        }),
    );
    if (value !== undefined) select.value = value;
    return select;
}

/**
 * A row of buttons of which one is chosen.
 *
 * @param {string} legend
 * @param {{value: string, label: string}[]} options
 * @param {string} value
 * @param {(value: string) => void} chosen
 * @param {string} [name] The service's field.
 */
export function segmented(legend, options, value, chosen, name) {
    const group = newId("choice");
    return html(
        "fieldset",
        {class: "segmented", "data-field": name, tabindex: name ? -1 : null},
        html("legend", {class: "unseen"}, legend),
        ...options.map((option) =>
            html(
                "label",
                {},
                html("input", {
                    type: "radio",
                    name: group,
                    value: option.value,
                    checked: option.value === value,
                    onchange: () => chosen(option.value),
                }),
                html("span", {}, option.label),
            ),
        ),
    );
}

/**
 * Say something to who listens to the page rather than sees it.
 *
 * @param {string} words
 */
export function say(words) {
    const said = document.getElementById("said");
    if (said) said.textContent = words;
}
