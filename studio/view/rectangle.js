// A rectangle that is laid over the photo by the arrow keys, for who paints without a pointer.

import {html, say} from "./dom.js";

const STEP = 0.02; // how far an arrow key moves or sizes it, as a part of the photo's side
const DIRECTIONS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

/** @typedef {{x: number, y: number, w: number, h: number}} Place  Parts of the photo's sides. */

export class Rectangle {
    /**
     * @param {(place: Place) => void} painted  Called when the person wants it painted.
     * @param {() => void} left  Called when the person leaves it.
     */
    constructor(painted, left) {
        this.painted = painted;
        this.left = left;
        /** @type {Place} */
        this.place = {x: 0.3, y: 0.3, w: 0.4, h: 0.4};
        this.element = html("div", {
            class: "rectangle",
            role: "application",
            tabindex: 0,
            hidden: true,
            "aria-roledescription": "rectangle",
            onkeydown: (/** @type {KeyboardEvent} */ event) => this._key(event),
        });
    }

    /** Show it, and take the keys. */
    start() {
        this.element.hidden = false;
        this._show();
        this.element.focus();
    }

    /** @param {KeyboardEvent} event */
    _key(event) {
        const direction = DIRECTIONS[event.key];
        if (!direction && event.key !== "Enter" && event.key !== "Escape") return;
        event.preventDefault();
        if (direction) {
            this._move(direction, event.shiftKey);
            say(this._show());
        } else if (event.key === "Enter") {
            this.painted(this.place);
        } else {
            this.element.hidden = true;
            this.left();
        }
    }

    /**
     * @param {number[]} direction
     * @param {boolean} sizes  Whether its size changes, not its place.
     */
    _move([right, down], sizes) {
        const {place} = this;
        const within = (/** @type {number} */ value, /** @type {number} */ least, /** @type {number} */ most) =>
            Math.min(most, Math.max(least, value));
        if (sizes) {
            place.w = within(place.w + right * STEP, STEP, 1 - place.x);
            place.h = within(place.h + down * STEP, STEP, 1 - place.y);
        } else {
            place.x = within(place.x + right * STEP, 0, 1 - place.w);
            place.y = within(place.y + down * STEP, 0, 1 - place.h);
        }
    }

    /** Draw it. @returns {string} Its place in words. */
    _show() {
        const {x, y, w, h} = this.place;
        const [left, top, width, height] = [x, y, w, h].map((part) => Math.round(100 * part));
        const sides = {left: x, top: y, width: w, height: h};
        for (const [side, part] of Object.entries(sides)) this.element.style[side] = `${(100 * part).toFixed(2)}%`;
        const words = `Rectangle, left ${left}, top ${top}, width ${width}, height ${height} percent`;
        const keys = "Arrow keys move it, Shift and arrow keys size it, Enter paints it, Escape leaves it.";
        this.element.setAttribute("aria-label", `${words}. ${keys}`);
        return words;
    }
}
