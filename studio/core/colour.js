// Diverging colour scales. Each arm is a straight line in CIELAB from a neutral middle: lightness and chroma change in
// proportion to the magnitude, so that equal differences look equal, and both signs have the same lightness. The hues of
// a pair stay apart for every kind of colour blindness, which the tests simulate.

/** @typedef {"light"|"dark"} Scheme  Page of light or dark background. */
/** @typedef {"red-blue"|"orange-blue"|"green-purple"} Scale  The hue that supports, and the hue that opposes. */
/** @typedef {[number, number, number]} Rgb  Red, green and blue, 0…255. */

/** @type {Record<Scale, [number, number]>} Hue angles in CIELAB, in degrees. */
const HUES = {"red-blue": [30, 282], "orange-blue": [60, 282], "green-purple": [140, 320]};

/** @type {Record<Scheme, {middle: number, end: number, chroma: number}>} Lightness at 0 and at ±1, chroma at ±1. */
const ARMS = {light: {middle: 97, end: 40, chroma: 54}, dark: {middle: 14, end: 65, chroma: 54}};

const WHITE = [0.95047, 1, 1.08883]; // D65

/** The scales, the usual one first. @type {Scale[]} */
export const SCALES = /** @type {Scale[]} */ (Object.keys(HUES));

/**
 * The colour of a signed value.
 * @param {number} value  From −1, which opposes, to 1, which supports; what lies beyond is clipped.
 * @param {Scheme} [scheme]
 * @param {Scale} [scale]
 * @returns {Rgb}
 */
export function diverging(value, scheme = "light", scale = "red-blue") {
    const {middle, end, chroma} = ARMS[scheme];
    const magnitude = Math.min(1, Math.abs(value)) || 0;
    const hue = HUES[scale][value < 0 ? 1 : 0] * Math.PI / 180;
    return rgb(
        middle + (end - middle) * magnitude,
        chroma * magnitude * Math.cos(hue),
        chroma * magnitude * Math.sin(hue));
}

/**
 * A colour as CSS and SVG write it.
 * @param {Rgb} colour
 */
export function css([red, green, blue]) {
    return `rgb(${red} ${green} ${blue})`;
}

/**
 * Colours at equal distances from −1 to 1, for a key.
 * @param {number} count  2 at least.
 * @param {Scheme} [scheme]
 * @param {Scale} [scale]
 * @returns {{value: number, colour: Rgb}[]}
 */
export function key(count, scheme = "light", scale = "red-blue") {
    return Array.from({length: count}, (_, index) => {
        const value = 2 * index / (count - 1) - 1;
        return {value, colour: diverging(value, scheme, scale)};
    });
}

/**
 * Black or white, whichever is read better on a colour.
 * @param {Rgb} colour
 * @returns {Rgb}
 */
export function ink(colour) {
    const [red, green, blue] = colour.map(linear);
    const luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    return luminance > 0.179 ? [0, 0, 0] : [255, 255, 255];
}

/**
 * The magnitude at which a map reaches full colour: the percentile of those of its values that are not 0, so that a few
 * extreme pixels do not pale the rest; 0 for a map of zeros.
 * @param {ArrayLike<number>} map
 * @param {number} [percentile]
 */
export function limit(map, percentile = 99.5) {
    const magnitudes = Float64Array.from(map, Math.abs).filter((value) => value > 0 && value < Infinity).sort();
    if (magnitudes.length === 0) return 0;
    const place = percentile / 100 * (magnitudes.length - 1);
    const [low, high] = [magnitudes[Math.floor(place)], magnitudes[Math.ceil(place)]];
    return low + (high - low) * (place - Math.floor(place));
}

/**
 * @typedef {Object} Paint
 * @property {Scale} [scale]
 * @property {Scheme} [scheme]
 * @property {number} [opacity]  From 0 to 1.
 * @property {number} [limit]  Magnitude of full colour; {@link limit} of the map, if not given.
 * @property {boolean} [fade]  Opacity in proportion to the magnitude, so that the photo is seen where nothing is.
 */

/**
 * The pixels of a heat map. Values that are no numbers are transparent.
 * @param {ArrayLike<number>} map  Values row by row.
 * @param {number} height
 * @param {number} width
 * @param {Paint} [paint]
 * @returns {ImageData}
 */
export function paint(map, height, width, {scale, scheme, opacity = 1, limit: full, fade = false} = {}) {
    const most = full ?? limit(map);
    const palette = Array.from({length: 2 * LEVELS + 1}, (_, index) => diverging(index / LEVELS - 1, scheme, scale));
    const image = new ImageData(width, height);
    for (let index = 0; index < height * width; index++) {
        if (Number.isNaN(map[index])) continue;
        const value = most ? Math.max(-1, Math.min(1, map[index] / most)) : 0;
        image.data.set(palette[Math.round(value * LEVELS) + LEVELS], 4 * index);
        image.data[4 * index + 3] = Math.round(255 * opacity * (fade ? Math.abs(value) : 1));
    }
    return image;
}

const LEVELS = 127; // shades of each sign

/**
 * A colour of CIELAB in sRGB.
 * @param {number} lightness
 * @param {number} a
 * @param {number} b
 * @returns {Rgb}
 */
function rgb(lightness, a, b) {
    const y = (lightness + 16) / 116;
    const [X, Y, Z] = [y + a / 500, y, y - b / 200].map(
        (value, index) => WHITE[index] * (value > 6 / 29 ? value ** 3 : 3 * (6 / 29) ** 2 * (value - 4 / 29)));
    return [
        encoded(3.2404542 * X - 1.5371385 * Y - 0.4985314 * Z),
        encoded(-0.9692660 * X + 1.8760108 * Y + 0.0415560 * Z),
        encoded(0.0556434 * X - 0.2040259 * Y + 1.0572252 * Z),
    ];
}

/** @param {number} value  Linear light, 0…1. */
function encoded(value) {
    const level = value <= 0.0031308 ? 12.92 * value : 1.055 * value ** (1 / 2.4) - 0.055;
    return Math.round(255 * Math.max(0, Math.min(1, level)));
}

/** @param {number} level  0…255. */
function linear(level) {
    return level <= 0.04045 * 255 ? level / 255 / 12.92 : ((level / 255 + 0.055) / 1.055) ** 2.4;
}
