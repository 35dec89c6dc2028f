// The answer beside the photo: the score, the table of groups, convergence, and what can be kept.

import {Absence} from "./absence.js";
import {ConvergenceView} from "./convergence_view.js";
import {Downloads} from "./downloads.js";
import {html} from "./dom.js";
import {wordsOf} from "./group_shapes.js";
import {GroupTable} from "./group_table.js";
import {number, percent, plain, short} from "./numbers.js";
import {Tabs} from "./tabs.js";

const LARGE = 0.1; // part of the score's difference from which a residual is a caution
const CAUTION =
    "The residual is large: ask for more steps, a tolerance or another baseline before you trust the numbers.";

export class AnswerView {
    /** @param {import("./pane.js").Pane} pane */
    constructor(pane) {
        this.pane = pane;
        this.head = html("div", {class: "head"});
        this.table = new GroupTable(pane);
        this.absence = new Absence(pane);
        this.convergence = new ConvergenceView(pane);
        this.downloads = new Downloads(pane);
        this.tabs = new Tabs(`Parts of answer ${pane.name}`, [
            {label: "Segments", content: [this.absence.element, this.table.element]},
            {label: "Convergence", content: [this.convergence.element]},
            {label: "Keep", content: [this.downloads.element]},
        ]);
        this.body = html("div", {class: "answer-body", hidden: true}, this.head, this.tabs.element);
        this.welcome = html(
            "div",
            {class: "welcome"},
            html("h2", {}, "What decided the answer"),
            html(
                "ol",
                {},
                html("li", {}, "Give a photo."),
                html("li", {}, "Choose the model and the answer to explain."),
                html("li", {}, "Choose the segments to score, and a method."),
                html("li", {}, "Explain, then switch segments off and see what the model says."),
            ),
            html("p", {class: "muted"}, "Nothing leaves this server: the page asks no other address."),
        );
        this.element = html(
            "section",
            {class: "answer", "aria-label": `Numbers of ${pane.name}`},
            this.welcome,
            this.body,
        );
    }

    clear() {
        this.body.hidden = true;
        this.welcome.hidden = false;
        this.absence.clear();
        this.table.clear();
        this.convergence.clear();
    }

    /** @param {import("./pane.js").Explained} explained */
    show(explained) {
        this.body.hidden = false;
        this.welcome.hidden = true;
        this._head(explained);
        this.absence.show(explained);
        this.table.show(explained);
        this.convergence.clear();
        this.downloads.show(explained);
    }

    /** Mark one group in photo and table. @param {number | null} index */
    point(index) {
        const {explained, stage} = this.pane;
        stage.shapes.point(index);
        this.table.point(index);
        stage.tell(
            index === null || !explained
                ? ""
                : wordsOf(explained.summary.groups[index], explained.summary) +
                      (this.absence.off.has(index) ? ", switched off" : ""),
        );
    }

    /** @param {import("./pane.js").Explained} explained */
    _head({summary, seconds}) {
        const {score, baseline, baseline_score: start, residual, contrast_label: contrast} = summary;
        const ranked = summary.top?.find(({index}) => index === summary.target_class);
        const missed = residual === undefined ? 0 : Math.abs(residual / (score - start));
        const facts = [[plain(summary.score_kind ?? "score") + (contrast ? ", difference" : ""), number(score)]];
        if (ranked?.probability !== undefined) facts.push(["probability", percent(ranked.probability)]);
        if (start !== undefined) facts.push([`from ${plain(baseline)}`, number(start)]);
        if (residual !== undefined) facts.push(["residual", `${number(residual)} · ${percent(missed)}`]);
        facts.push(["evaluations", String(summary.evaluations)], ["time", `${seconds.toFixed(2)} s`]);
        const title = contrast
            ? `${short(summary.target_label)} rather than ${short(contrast)}`
            : short(summary.target_label);
        const list = facts.map(([name, value]) => html("div", {}, html("dt", {}, name), html("dd", {}, value)));
        this.head.replaceChildren(
            html("h2", {title: summary.target_label}, title),
            html("p", {class: "muted"}, `${summary.model}, ${plain(summary.method)}`),
            html("dl", {class: "facts"}, ...list),
        );
        if (missed > LARGE) this.head.append(html("p", {class: "caution"}, CAUTION));
    }
}
