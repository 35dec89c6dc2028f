// Panels of which one is shown.

import {html, newId} from "./dom.js";

export class Tabs {
    /**
     * @param {string} label
     * @param {{label: string, content: Node[]}[]} panels
     */
    constructor(label, panels) {
        const ids = panels.map(() => newId("tab"));
        this.tabs = panels.map((panel, index) =>
            html(
                "button",
                {
                    type: "button",
                    role: "tab",
                    id: ids[index],
                    "aria-controls": `${ids[index]}-panel`,
                    onclick: () => this.choose(index),
                },
                panel.label,
            ),
        );
        this.panels = panels.map(({content}, index) =>
            html(
                "div",
                {role: "tabpanel", id: `${ids[index]}-panel`, "aria-labelledby": ids[index], class: "tabpanel"},
                ...content,
            ),
        );
        this.element = html(
            "div",
            {class: "tabs"},
            html("div", {role: "tablist", "aria-label": label, onkeydown: (event) => this._key(event)}, ...this.tabs),
            ...this.panels,
        );
        this.choose(0);
    }

    /** @param {number} chosen */
    choose(chosen) {
        this.chosen = chosen;
        this.tabs.forEach((tab, index) => {
            tab.setAttribute("aria-selected", String(index === chosen));
            tab.tabIndex = index === chosen ? 0 : -1;
            this.panels[index].hidden = index !== chosen;
        });
    }

    /** @param {KeyboardEvent} event */
    _key(event) {
        const last = this.tabs.length - 1;
        const at = this.chosen ?? 0;
        const next = {ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at === 0 ? last : at - 1, Home: 0, End: last}[
            event.key
        ];
        if (next === undefined) return;
        event.preventDefault();
        this.choose(next);
        this.tabs[next].focus();
    }
}
