// The page: its panes, the service that they ask, and the switches of the whole.

import {Service} from "../core/service.js";
import {Alert} from "./alert.js";
import {comparison} from "./comparison.js";
import {html, say, segmented} from "./dom.js";
import {key, keyDialogue, takeKeyFromAddress} from "./key.js";
import {Pane} from "./pane.js";
import {acceptPastes} from "./photo_picker.js";
import {themeSwitch} from "./theme.js";

export class Studio {
    constructor() {
        takeKeyFromAddress();
        this.service = new Service({key: key() ?? ""});
        /** @type {any} */
        this.document = null;
        /** @type {import("../core/document.js").Model[]} */
        this.models = [];
        this.isComparing = false;
        const dialogue = keyDialogue(() => {
            this.service.key = key() ?? "";
            void this.connect();
        });
        this.askForKey = dialogue.open;
        this.settingsPlace = place("settings");
        this.answersPlace = place("answers");
        this.notices = new Alert(document.body, dialogue.open);
        place("notices").append(this.notices.element);
        this.said = html("div", {hidden: true});
        this.panes = [new Pane("A", this)];
        this.compare = html(
            "button",
            {type: "button", class: "quiet", "aria-pressed": "false", onclick: () => this._toggle()},
            "Compare",
        );
        place("tools").append(
            this.compare,
            dialogue.button,
            themeSwitch(() => this.panes.forEach((pane) => pane.stage.repaint())),
        );
        this.current = 0;
        this._arrange();
        acceptPastes((blob, name) => void this.panes[this.current].givePhoto(blob, name));
    }

    /** Read what is served. */
    async connect() {
        this.notices.clear();
        if (!key()) {
            this.notices.show({
                message: "The studio wants the key to the service: the address that its start prints has it.",
                keyless: true,
            });
        }
        try {
            this.document = await this.service.document();
            this.models = await this.service.models();
        } catch (failure) {
            this.notices.show(failure, () => this.connect());
            return;
        }
        for (const pane of this.panes) pane.settings.offer(this.document, this.models);
    }

    /** The photo of a pane is another now. @param {Pane} given */
    photoGiven(given) {
        if (given !== this.panes[0] || !given.photo) return;
        for (const pane of this.panes.slice(1)) if (pane.settings.follows) void pane.showPhoto(given.photo);
    }

    /** A pane wants, or no longer wants, the photo of A. @param {Pane} pane */
    samePhoto(pane) {
        const {photo} = this.panes[0];
        if (pane.settings.follows && photo) void pane.showPhoto(photo);
    }

    /** An answer has come or gone. */
    answered() {
        if (!this.isComparing) return;
        this.said.replaceChildren(comparison(this.panes[0].explained, this.panes[1].explained));
    }

    _toggle() {
        this.isComparing = !this.isComparing;
        if (this.isComparing && this.panes.length === 1) {
            const pane = new Pane("B", this);
            this.panes.push(pane);
            if (this.document) {
                pane.settings.offer(this.document, this.models);
                pane.settings.copy(this.panes[0].settings);
            }
            this.samePhoto(pane);
        }
        this.current = this.isComparing ? 1 : 0;
        this._arrange();
        this.answered();
        say(this.isComparing ? "Two answers side by side. The settings are those of B." : "One answer.");
    }

    _arrange() {
        const shown = this.isComparing ? this.panes : this.panes.slice(0, 1);
        document.body.classList.toggle("comparing", this.isComparing);
        this.compare.setAttribute("aria-pressed", String(this.isComparing));
        this.said.hidden = !this.isComparing;
        const letters = this.isComparing
            ? [
                  segmented(
                      "Settings of",
                      shown.map(({name}, index) => ({value: String(index), label: `Settings of ${name}`})),
                      String(this.current),
                      (value) => {
                          this.current = Number(value);
                          this._show();
                      },
                  ),
              ]
            : [];
        this.letters = letters;
        this.settingsPlace.replaceChildren(...letters, ...shown.map(({settings}) => settings.element));
        this.answersPlace.replaceChildren(this.said, ...shown.map(({element}) => element));
        for (const {heading, name} of shown) heading.textContent = this.isComparing ? name : "";
        this._show();
    }

    _show() {
        this.panes.forEach(({settings}, index) => {
            settings.element.hidden = index !== this.current;
        });
    }
}

/** @param {string} id @returns {HTMLElement} */
function place(id) {
    return /** @type {HTMLElement} */ (document.getElementById(id));
}
