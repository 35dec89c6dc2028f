// Places in the photo and in the model's input.

/**
 * The part of a photo that a model's input shows, as an answer's `frame` has it.
 * @typedef {Object} Frame
 * @property {[number, number]} photo  Height and width of the upright photo.
 * @property {[number, number]} input  Height and width of the model's input.
 * @property {[number, number, number, number]} box  Left, top, right and bottom in pixels of the photo; beyond it where
 *   the photo was padded.
 */

/** @typedef {[number, number, number, number]} Box  Left, top, right and bottom. */

/**
 * The frame of a model of which nothing is known: the photo, stretched.
 * @param {[number, number]} photo  Height and width.
 * @param {[number, number]} input
 * @returns {Frame}
 */
export function stretched(photo, input) {
    return {photo, input, box: [0, 0, photo[1], photo[0]]};
}

/**
 * The place in the photo of a place in the input.
 * @param {Frame} frame
 * @param {[number, number]} point  x and y in pixels of the input.
 * @returns {[number, number]}
 */
export function toPhoto(frame, [x, y]) {
    const [left, top, right, bottom] = frame.box;
    return [left + x * (right - left) / frame.input[1], top + y * (bottom - top) / frame.input[0]];
}

/**
 * The place in the input of a place in the photo.
 * @param {Frame} frame
 * @param {[number, number]} point  x and y in pixels of the photo.
 * @returns {[number, number]}
 */
export function toInput(frame, [x, y]) {
    const [left, top, right, bottom] = frame.box;
    return [(x - left) * frame.input[1] / (right - left), (y - top) * frame.input[0] / (bottom - top)];
}

/**
 * A box of the input in the photo.
 * @param {Frame} frame
 * @param {Box} box
 * @returns {Box}
 */
export function boxToPhoto(frame, [left, top, right, bottom]) {
    return [...toPhoto(frame, [left, top]), ...toPhoto(frame, [right, bottom])];
}

/**
 * A box of the photo in the input.
 * @param {Frame} frame
 * @param {Box} box
 * @returns {Box}
 */
export function boxToInput(frame, [left, top, right, bottom]) {
    return [...toInput(frame, [left, top]), ...toInput(frame, [right, bottom])];
}

/**
 * The rectangle of the photo that the model sees.
 * @param {Frame} frame
 * @returns {Box}
 */
export function seen(frame) {
    const [left, top, right, bottom] = frame.box;
    const [height, width] = frame.photo;
    return [Math.max(0, left), Math.max(0, top), Math.min(width, right), Math.min(height, bottom)];
}

/**
 * The `d` of an SVG path for `fill-rule="evenodd"` around all of the photo that the model does not see; "" for nothing.
 * @param {Frame} frame
 */
export function unseenPath(frame) {
    const [left, top, right, bottom] = seen(frame);
    const [height, width] = frame.photo;
    if (left <= 0 && top <= 0 && right >= width && bottom >= height) return "";
    return `M0 0H${width}V${height}H0ZM${left} ${top}H${right}V${bottom}H${left}Z`;
}

/**
 * Where an image of the input's pixels lies over the photo, for SVG's `x`, `y`, `width` and `height`.
 * @param {Frame} frame
 */
export function placement(frame) {
    const [left, top, right, bottom] = frame.box;
    return {x: left, y: top, width: right - left, height: bottom - top};
}
