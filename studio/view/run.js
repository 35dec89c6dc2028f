// A request under way: seconds that pass, and a button that stops it.

import {html, say} from "./dom.js";

export class Run {
    constructor() {
        this.seconds = html("span", {class: "seconds"});
        this.words = html("span", {});
        this.stop = html("button", {type: "button", class: "small", onclick: () => this.controller?.abort()}, "Stop");
        this.bar = html("span", {class: "busy", "aria-hidden": "true"});
        this.element = html(
            "div",
            {class: "run", hidden: true},
            this.bar,
            html("span", {class: "run-words"}, this.words, " ", this.seconds),
            this.stop,
        );
        /** @type {AbortController | null} */
        this.controller = null;
    }

    /** Tell whether a request is under way. */
    get busy() {
        return this.controller !== null;
    }

    /**
     * Do something that takes time; what is under way is stopped first.
     *
     * @template T
     * @param {string} words What is done.
     * @param {(signal: AbortSignal, tell: (words: string) => void) => Promise<T>} task
     * @returns {Promise<T | null>} null where the person stopped it.
     */
    async during(words, task) {
        this.controller?.abort();
        const controller = new AbortController();
        this.controller = controller;
        const began = performance.now();
        const tick = () => {
            this.seconds.textContent = `${((performance.now() - began) / 1000).toFixed(1)} s`;
        };
        const tell = (/** @type {string} */ now) => {
            this.words.textContent = now;
        };
        tell(words);
        tick();
        const timer = setInterval(tick, 100);
        this.element.hidden = false;
        say(words);
        try {
            return await task(controller.signal, tell);
        } catch (error) {
            if (!controller.signal.aborted) throw error;
            if (this.controller === controller) say("Stopped.");
            return null;
        } finally {
            clearInterval(timer);
            if (this.controller === controller) {
                this.controller = null;
                this.element.hidden = true;
            }
        }
    }
}
