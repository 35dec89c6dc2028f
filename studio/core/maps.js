// The map of an explanation, brought to one value for each pixel of the model's input.

import {numbers} from "./safetensors.js";

/**
 * @typedef {Object} HeatMap
 * @property {Float32Array} values  One for each pixel of the model's input, row by row; what is not finite counts as 0.
 * @property {number} height
 * @property {number} width
 */

/** Names under which answers hold the map of pixels. */
export const NAMES = ["integrated_grads", "map"];

/**
 * The map of an explanation, summed over its channels with their signs; null where the tensors have none.
 * @param {Record<string, import("./safetensors.js").Tensor>} tensors
 * @param {number} [place]  Place among several classes, or among the images of the first axis.
 * @returns {HeatMap|null}
 */
export function heatMap(tensors, place = 0) {
    const name = NAMES.find((each) => each in tensors);
    return name === undefined ? null : summed(tensors[name], place);
}

/**
 * Sum a tensor over its channels.
 * @param {import("./safetensors.js").Tensor} tensor  (H, W), (C, H, W) or (N, C, H, W).
 * @param {number} [place]  Place in the first axis of four.
 * @returns {HeatMap}
 */
export function summed(tensor, place = 0) {
    const sides = tensor.shape.length;
    if (sides < 2 || sides > 4) throw new RangeError(`wanted 2 to 4 axes, got ${tensor.shape}`);
    const [height, width] = tensor.shape.slice(-2);
    const channels = sides > 2 ? tensor.shape[sides - 3] : 1;
    const pixels = height * width;
    const all = numbers(tensor);
    const values = new Float32Array(pixels);
    const first = sides === 4 ? place * channels * pixels : 0;
    for (let channel = 0; channel < channels; channel++) {
        for (let pixel = 0; pixel < pixels; pixel++) {
            const value = all[first + channel * pixels + pixel];
            if (Number.isFinite(value)) values[pixel] += value;
        }
    }
    return {values, height, width};
}

/**
 * Smooth a map by a Gaussian; at its edges it is mirrored, so that its sum stays.
 * @param {HeatMap} map
 * @param {number} sigma  Standard deviation in pixels.
 * @returns {HeatMap}
 */
export function smoothed({values, height, width}, sigma) {
    if (!(sigma > 0)) return {values, height, width};
    const radius = Math.ceil(4 * sigma);
    const weights = Array.from({length: 2 * radius + 1}, (_, index) => Math.exp(-0.5 * ((index - radius) / sigma) ** 2));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    const mirrored = (at, side) => {
        const turn = ((at % (2 * side)) + 2 * side) % (2 * side);
        return turn < side ? turn : 2 * side - 1 - turn;
    };
    const along = (source, side, step, others, otherStep) => {
        const found = new Float32Array(source.length);
        for (let other = 0; other < others; other++) {
            for (let at = 0; at < side; at++) {
                let sum = 0;
                for (let offset = -radius; offset <= radius; offset++) {
                    sum += weights[offset + radius] * source[other * otherStep + mirrored(at + offset, side) * step];
                }
                found[other * otherStep + at * step] = sum / total;
            }
        }
        return found;
    };
    return {values: along(along(values, width, 1, height, width), height, width, width, 1), height, width};
}
