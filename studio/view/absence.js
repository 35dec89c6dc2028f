// Segments switched off: the score that the table foretells, and the one that the model then gives.

import {schemas} from "../core/document.js";
import {foretold} from "../core/groups.js";
import {numbers} from "../core/safetensors.js";
import {WITH_SUMMARY} from "../core/service.js";
import {html, say} from "./dom.js";
import {counted, number, short} from "./numbers.js";
import {Run} from "./run.js";

const PATIENCE = 250; // milliseconds after a switch, in which others may follow

export class Absence {
    /** @param {import("./pane.js").Pane} pane */
    constructor(pane) {
        this.pane = pane;
        /** @type {Set<number>} */
        this.off = new Set();
        this.run = new Run();
        this.words = html("p", {class: "absence-words"});
        this.scores = html("div", {class: "scores"});
        this.reset = html(
            "button",
            {type: "button", class: "small", hidden: true, onclick: () => this._change(() => this.off.clear())},
            "All on",
        );
        this.element = html(
            "div",
            {class: "absence", role: "region", "aria-label": `Score of ${pane.name} without segments`},
            html("div", {class: "row spread"}, this.words, this.reset),
            this.scores,
            this.run.element,
        );
    }

    clear() {
        clearTimeout(this.timer);
        this.run.controller?.abort();
        this.off.clear();
        this.scores.replaceChildren();
        this.reset.hidden = true;
        this.explained = null;
    }

    /** @param {import("./pane.js").Explained} explained */
    show(explained) {
        this.clear();
        this.explained = explained;
        this._words();
    }

    /** Tell whether segments can be switched off. */
    get possible() {
        return this.explained?.model.kind === "classifier" && Boolean(this.explained.summary.groups);
    }

    /** @param {number} index */
    toggle(index) {
        if (!this.possible) return;
        this._change(() => (this.off.has(index) ? this.off.delete(index) : this.off.add(index)));
        const label = short(this.explained?.summary.groups[index].label ?? "");
        say(`${label} ${this.off.has(index) ? "off" : "on"}.`);
    }

    /** @param {() => void} change */
    _change(change) {
        change();
        this.pane.stage.shapes.setOff(this.off);
        this.pane.view.table.setOff(this.off);
        this.reset.hidden = this.off.size === 0;
        this._words();
        clearTimeout(this.timer);
        this.run.controller?.abort();
        if (this.off.size === 0) return this.scores.replaceChildren();
        this._draw(null);
        this.timer = setTimeout(() => void this._ask(), PATIENCE);
    }

    _words() {
        const {explained, off} = this;
        if (!explained?.summary.groups) this.words.textContent = "";
        else if (!this.possible) this.words.textContent = "Segments can be switched off for classifiers alone.";
        else
            this.words.textContent = off.size
                ? `Without ${counted(off.size, "segment")}`
                : "Switch segments off, in the photo or by their boxes, to see the score without them.";
    }

    async _ask() {
        const {explained} = this;
        if (!explained) return;
        const {model, photo, options} = explained;
        const known = schemas(this.pane.studio.document, model.name, "prediction");
        const own = Object.fromEntries(Object.entries(options).filter(([name]) => name in known));
        const absent = [...this.off].sort((one, other) => one - other);
        try {
            const answer = await this.run.during("Asking the model …", (signal) =>
                this.pane.studio.service.ask(
                    "prediction",
                    model.name,
                    photo.blob,
                    {...own, absent},
                    {accept: WITH_SUMMARY, signal},
                ),
            );
            if (!answer || explained !== this.explained) return;
            const scores = numbers(answer.tensors.output);
            const {target_class: target, contrast_class: contrast} = explained.summary;
            this._draw(scores[target] - (contrast === undefined || contrast === null ? 0 : scores[contrast]));
        } catch (failure) {
            this.pane.alert.show(failure, () => this._ask());
        }
    }

    /** @param {number | null} asked  Score that the model gave; null while it is asked. */
    _draw(asked) {
        const {summary} = /** @type {import("./pane.js").Explained} */ (this.explained);
        const told = foretold(summary, this.off);
        const all = [summary.score, summary.baseline_score ?? 0, told ?? 0, asked ?? 0, 0];
        const [low, high] = [Math.min(...all), Math.max(...all)];
        const place = (/** @type {number} */ value) => (100 * (value - low)) / (high - low || 1);
        const row = (/** @type {string} */ name, /** @type {number | null} */ value, /** @type {string} */ kind) => {
            const bar = html("span", {class: `score-bar ${kind}`, "aria-hidden": "true"});
            if (value !== null) {
                bar.style.insetInlineStart = `${Math.min(place(0), place(value))}%`;
                bar.style.inlineSize = `${Math.abs(place(value) - place(0))}%`;
            }
            return html(
                "div",
                {class: "score-row"},
                html("span", {class: "score-name"}, name),
                html("span", {class: "score-track"}, bar),
                html("span", {class: "score-value"}, value === null ? "…" : number(value)),
            );
        };
        this.scores.replaceChildren(
            row("whole photo", summary.score, "full"),
            told === null
                ? html("p", {class: "muted small-words"}, "This method foretells no score.")
                : row("foretold", told, "foretold"),
            row("the model says", asked, "asked"),
        );
        this.scores.dataset.asked = asked === null ? "" : String(asked);
        if (asked === null) return;
        if (told !== null) {
            const difference = number(asked - told, {sign: true});
            const words = `The table foretold ${number(told)}, the model says ${number(asked)}: ${difference}.`;
            this.scores.append(html("p", {class: "small-words"}, words));
            say(words);
        } else say(`The model says ${number(asked)}.`);
    }
}
