// Words for what differs between two panes, and what their answers say of it.

import {html} from "./dom.js";
import {number, plain, short} from "./numbers.js";

/**
 * @param {import("./pane.js").Explained | null} one
 * @param {import("./pane.js").Explained | null} other
 * @returns {HTMLElement}
 */
export function comparison(one, other) {
    if (!one || !other)
        return html(
            "p",
            {class: "comparison muted"},
            "Each side has settings of its own: explain both to compare them.",
        );
    const found = differences(one, other);
    const words = found.length
        ? found.flatMap(({name, values}, index) => [
              index ? "; " : "",
              html("strong", {}, name),
              ` ${values[0]} / ${values[1]}`,
          ])
        : ["nothing"];
    const alike = correlation(one.summary.groups, other.summary.groups);
    return html(
        "p",
        {class: "comparison"},
        html("span", {class: "muted"}, "Differs in "),
        ...words,
        ".",
        alike === null
            ? ""
            : html("span", {class: "muted"}, ` Attributions of the segments correlate by ${number(alike)}.`),
    );
}

/**
 * What is asked or answered differently.
 * @param {import("./pane.js").Explained} one
 * @param {import("./pane.js").Explained} other
 * @returns {{name: string, values: [string, string]}[]}
 */
export function differences(one, other) {
    const facts = (/** @type {import("./pane.js").Explained} */ {photo, model, summary, options}) => ({
        photo: photo.name,
        model: model.name,
        target: short(summary.target_label),
        "rather than": summary.contrast_label ? short(summary.contrast_label) : "–",
        method: plain(summary.method),
        baseline: plain(summary.baseline ?? "–"),
        ...Object.fromEntries(
            Object.entries(options)
                .filter(
                    ([name]) => !["target_class", "detection", "contrast_class", "method", "baseline"].includes(name),
                )
                .map(([name, value]) => [
                    plain(name),
                    name === "masks"
                        ? `${value.length} painted`
                        : typeof value === "object"
                          ? JSON.stringify(value)
                          : plain(String(value)),
                ]),
        ),
    });
    const [first, second] = [facts(one), facts(other)];
    return [...new Set([...Object.keys(first), ...Object.keys(second)])]
        .filter((name) => first[name] !== second[name])
        .map((name) => ({name, values: [first[name] ?? "default", second[name] ?? "default"]}));
}

/**
 * Pearson's correlation of the attributions of the same segments; null where they are not the same.
 * @param {any[] | undefined} one
 * @param {any[] | undefined} other
 */
export function correlation(one, other) {
    const [first, second] = [one, other].map((rows) => (rows ?? []).filter(({kind}) => kind !== "whole"));
    if (
        first.length < 3 ||
        first.length !== second.length ||
        first.some(({label}, index) => label !== second[index].label)
    )
        return null;
    const [x, y] = [first, second].map((rows) => {
        const mean = rows.reduce((sum, {attribution}) => sum + attribution, 0) / rows.length;
        return rows.map(({attribution}) => attribution - mean);
    });
    const product = (/** @type {number[]} */ a, /** @type {number[]} */ b) =>
        a.reduce((sum, value, index) => sum + value * b[index], 0);
    const size = Math.sqrt(product(x, x) * product(y, y));
    return size > 0 ? product(x, y) / size : null;
}
