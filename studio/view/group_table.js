// The table of groups.

import {sorted} from "../core/groups.js";
import {html} from "./dom.js";
import {number, percent, short} from "./numbers.js";

const COLUMNS = [
    {name: "label", title: "Segment", help: "Label of the segment."},
    {
        name: "attribution",
        title: "Attribution",
        help: "Signed part of the score’s difference that the segment carries.",
    },
    {
        name: "directional",
        title: "Per change",
        help: "Directional gradient: attribution by the distance from the baseline; compares large and small segments.",
    },
    {name: "value", title: "Value", help: "The dividends of all groups within it, itself included."},
];

export class GroupTable {
    /** @param {import("./pane.js").Pane} pane */
    constructor(pane) {
        this.pane = pane;
        this.column = "attribution";
        /** @type {import("../core/groups.js").Direction} */
        this.direction = "descending";
        this.element = html("div", {
            class: "table-place",
            tabindex: 0,
            role: "region",
            "aria-label": `Table of segments of ${pane.name}`,
        });
        /** @type {Map<number, HTMLTableRowElement>} */
        this.rows = new Map();
    }

    clear() {
        this.element.replaceChildren();
        this.rows.clear();
    }

    /** @param {import("./pane.js").Explained} explained */
    show(explained) {
        this.explained = explained;
        this.draw();
    }

    draw() {
        this.clear();
        const {
            explained,
            pane: {stage, view},
        } = this;
        const groups = explained?.summary.groups;
        if (!groups) {
            this.element.append(
                html("p", {class: "muted"}, "No segments were asked for: the heat map has each pixel’s part."),
            );
            return;
        }
        const columns = COLUMNS.filter(
            ({name}) => name === "label" || groups.some((row) => row[name] !== undefined && row[name] !== null),
        );
        const body = html("tbody", {});
        const ordered = sorted(
            groups.filter(({kind}) => kind !== "whole"),
            /** @type {any} */ (this.column),
            this.direction,
        );
        for (const {row} of ordered) {
            const index = groups.indexOf(row);
            const on = html("input", {
                type: "checkbox",
                checked: !view.absence.off.has(index),
                disabled: !view.absence.possible,
                "aria-label": `${short(row.label)} on`,
                onchange: () => view.absence.toggle(index),
                onfocus: () => view.point(index),
                onblur: () => view.point(null),
            });
            const line = html(
                "tr",
                {
                    "data-group": index,
                    class: view.absence.off.has(index) ? "off" : "",
                    onpointerenter: () => view.point(index),
                    onpointerleave: () => view.point(null),
                },
                html("td", {class: "on"}, on),
                this._cell(row, index, "label"),
                this._cell(row, index, "bar"),
                ...columns.slice(1).map(({name}) => this._cell(row, index, name)),
            );
            this.rows.set(index, line);
            body.append(line);
        }
        const measure = stage.shapes.measure === "directional" ? "directional gradient" : "attribution";
        const measured = columns.filter(({name}) => name === "attribution" || name === "directional");
        this.element.append(
            html(
                "table",
                {class: "groups"},
                html("caption", {class: "unseen"}, "Segments with the part of the score that each carries"),
                html(
                    "thead",
                    {},
                    html(
                        "tr",
                        {},
                        html("th", {scope: "col", class: "on"}, html("span", {class: "unseen"}, "On")),
                        this._header(columns[0]),
                        html("td", {class: "barred", "aria-hidden": "true"}),
                        ...columns.slice(1).map((column) => this._header(column)),
                    ),
                ),
                body,
            ),
        );
        if (measured.length > 1)
            this.element.append(
                html(
                    "p",
                    {class: "muted small-words"},
                    `Colours and bars show the ${measure}; sort by the other to show that.`,
                ),
            );
    }

    /** Mark the row of a group. @param {number | null} pointed */
    point(pointed) {
        for (const [index, row] of this.rows) row.classList.toggle("pointed", index === pointed);
    }

    /** @param {Set<number>} off */
    setOff(off) {
        for (const [index, row] of this.rows) {
            row.classList.toggle("off", off.has(index));
            const box = row.querySelector("input");
            if (box) box.checked = !off.has(index);
        }
    }

    /** @param {{name: string, title: string, help: string}} column */
    _header({name, title, help}) {
        const sort = this.column === name ? this.direction : "none";
        const arrow = sort === "none" ? "" : sort === "descending" ? " ▾" : " ▴";
        return html(
            "th",
            {scope: "col", class: name, "aria-sort": sort},
            html(
                "button",
                {type: "button", title: help, onclick: () => this._sort(name)},
                title,
                html("span", {"aria-hidden": "true"}, arrow),
            ),
        );
    }

    /** @param {string} name */
    _sort(name) {
        this.direction =
            this.column === name && this.direction === "descending"
                ? "ascending"
                : this.column === name || name !== "label"
                  ? "descending"
                  : "ascending";
        this.column = name;
        if (name === "attribution" || name === "directional") {
            this.pane.stage.shapes.measure = name;
            this.pane.stage.repaint();
        }
        this.draw();
        const header = this.element.querySelector(`th.${name} button`);
        header?.focus();
    }

    /** @param {any} row @param {number} index @param {string} name */
    _cell(row, index, name) {
        const {shapes} = this.pane.stage;
        if (name === "label") {
            const swatch = html("span", {class: "swatch", "aria-hidden": "true"});
            swatch.style.background = shapes.colourOf(index);
            return html("th", {scope: "row", class: "label", title: row.label}, swatch, short(row.label));
        }
        if (name === "value") return html("td", {class: "value"}, percent(row.value ?? NaN));
        if (name !== "bar") {
            const error = name === "attribution" ? (row.standard_error ?? null) : null;
            const spread = error === null ? "" : html("span", {class: "muted"}, ` ± ${number(error)}`);
            return html("td", {class: name}, number(row[name] ?? NaN, {sign: true}), spread);
        }
        const part = shapes.most ? (row[shapes.measure] ?? 0) / shapes.most : 0;
        const bar = html("span", {class: part < 0 ? "bar opposes" : "bar supports", "aria-hidden": "true"});
        bar.style.inlineSize = `${50 * Math.abs(part)}%`;
        bar.style.background = shapes.colourOf(index);
        return html("td", {class: "barred", "aria-hidden": "true"}, html("span", {class: "bars"}, bar));
    }
}
