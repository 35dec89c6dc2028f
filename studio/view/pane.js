// One photo, its settings, and the answer to them.

import {Alert} from "./alert.js";
import {AnswerView} from "./answer_view.js";
import {html, say} from "./dom.js";
import {counted, number, short} from "./numbers.js";
import {readPhoto} from "./photo.js";
import {Run} from "./run.js";
import {Settings} from "./settings.js";
import {Stage} from "./stage.js";

/**
 * An explanation with the request that it answers.
 * @typedef {Object} Explained
 * @property {import("../core/document.js").Model} model
 * @property {import("./photo.js").Photo} photo
 * @property {Record<string, any>} options
 * @property {any} summary
 * @property {Record<string, any>} tensors
 * @property {number} seconds
 * @property {Uint8Array} bytes
 */

const narrow = matchMedia("(width < 820px)"); // where the answer lies below the settings

export class Pane {
    /**
     * @param {string} name  A letter.
     * @param {import("./studio.js").Studio} studio
     */
    constructor(name, studio) {
        this.name = name;
        this.studio = studio;
        /** @type {import("./photo.js").Photo | null} */
        this.photo = null;
        /** @type {Explained | null} */
        this.explained = null;
        this.settings = new Settings(this);
        this.run = new Run();
        this.looking = new Run();
        this.alert = new Alert(this.settings.element, () => studio.askForKey());
        this.stage = new Stage(this);
        this.settings.painting.resumed = () => this.stage.showPainting(true);
        this.view = new AnswerView(this);
        this.heading = html("h2", {class: "pane-name"});
        this.stale = html("p", {class: "stale", hidden: true}, "The settings have changed since this answer.");
        this.settings.footer.append(this.looking.element, this.run.element);
        this.element = html(
            "article",
            {class: "pane", "aria-label": `Answer ${name}`},
            html("div", {class: "pane-stage"}, this.heading, this.alert.element, this.stage.element, this.stale),
            this.view.element,
        );
    }

    /**
     * @param {Blob} blob
     * @param {string} [name]
     */
    async givePhoto(blob, name) {
        this.settings.followPhoto(false);
        await this.showPhoto(await readPhoto(blob, name));
        this.studio.photoGiven(this);
    }

    /** @param {import("./photo.js").Photo} photo */
    async showPhoto(photo) {
        this.photo = photo;
        this.settings.photo.show(photo);
        this.settings.painting.setPhoto(photo);
        this.forget();
        this.stage.showPhoto(photo);
        await this.look();
    }

    /** Take the answer off the page: it was another photo's or model's. */
    forget() {
        this.run.controller?.abort();
        this.explained = null;
        this.alert.clear();
        this.stale.hidden = true;
        this.view.clear();
        this.stage.clear();
        this.studio.answered();
    }

    /** Ask for the best classes, or the instances. */
    async look() {
        const {model} = this.settings;
        if (!this.photo || !model || model.kind === "captioner") return;
        const {blob} = this.photo;
        this.alert.clear();
        this.settings.target.wait("Asking for the prediction …");
        try {
            const said = await this.looking.during("Predicting …", (signal) =>
                this.studio.service.predict(model.name, blob, {}, {signal}),
            );
            if (!said && this.looking.busy) return; // another prediction is waited for
            if (!said) return this.settings.target.wait("No prediction was made.");
            if (said.predictions) this.settings.target.offerClasses(said.predictions, model.labels);
            else this.settings.target.offerInstances(said.detections ?? [], model.labels);
        } catch (failure) {
            this.settings.target.wait("There is no prediction.");
            this.alert.show(failure, () => this.look());
        }
    }

    /** Ask for the explanation. */
    async explain() {
        const {
            photo,
            settings: {model},
        } = this;
        if (!model) return this.alert.show({message: "No model is served that can be explained here."});
        if (!photo) return this.alert.show({message: "Give a photo first.", field: "image"});
        const options = this.settings.options;
        this.alert.clear();
        try {
            const answer = await this.run.during("Explaining …", (signal) =>
                this.studio.service.explain(model.name, photo.blob, asked(options), {signal}),
            );
            if (!answer) return;
            this.explained = {...answer, model, photo, options};
            this.stale.hidden = true;
            this.settings.painting.active = false;
            this.stage.showPainting(false);
            this.stage.showAnswer(this.explained);
            this.view.show(this.explained);
            this.stage.tell("");
            this.studio.answered();
            if (narrow.matches) this.element.scrollIntoView();
            const {summary, seconds} = answer;
            say(
                `Explained in ${seconds.toFixed(1)} seconds: ${short(summary.target_label)}, ` +
                    `score ${number(summary.score)}, ${counted((summary.groups?.length ?? 1) - 1, "segment")}.`,
            );
        } catch (failure) {
            this.alert.show(failure, () => this.explain());
        }
    }

    /** The settings are others now. */
    changed() {
        this.stage.showPainting(this.settings.painting.active);
        this.stale.hidden = !this.explained;
    }
}

/**
 * The options of a request with those that the page needs of the answer.
 * @param {Record<string, any>} options
 */
export function asked(options) {
    return options.segments || options.masks ? {...options, outputs: ["photo_masks"]} : options;
}
