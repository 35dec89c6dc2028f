// Numbers as people read them.

const MINUS = "−";

/**
 * A number with three significant digits.
 *
 * @param {number} value
 * @param {{sign?: boolean}} [more] A plus before positive numbers.
 */
export function number(value, {sign = false} = {}) {
    if (!Number.isFinite(value)) return "–";
    const size = Math.abs(value);
    let text =
        size === 0
            ? "0"
            : size >= 1e5 || size < 1e-5
              ? size.toExponential(1)
              : size >= 100
                ? size.toFixed(0)
                : size.toPrecision(size < 0.01 ? 2 : 3);
    text = text.replace("e+", "e").replace("-", MINUS);
    return (value < 0 ? MINUS : sign && value > 0 ? "+" : "") + text;
}

/** A part of a whole, which is neither 0 nor 1 in earnest. @param {number} part */
export function percent(part) {
    if (!Number.isFinite(part)) return "–";
    const size = Math.abs(part) * 100;
    const sign = part < 0 ? MINUS : "";
    if (size > 0 && size < 0.1) return `${sign}< 0.1 %`;
    if (size < 100 && size > 99.9) return `${sign}> 99.9 %`;
    return `${sign}${size >= 100 ? size.toFixed(0) : size.toPrecision(size < 1 ? 1 : size < 10 ? 2 : 3)} %`;
}

/** @param {number} bytes */
export function size(bytes) {
    return bytes < 1000
        ? `${bytes} B`
        : bytes < 1e6
          ? `${(bytes / 1000).toFixed(0)} kB`
          : `${(bytes / 1e6).toFixed(1)} MB`;
}

/** @param {number} count @param {string} one @param {string} [many] */
export const counted = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

/** The service's words, as people write them. @param {string} name */
export const plain = (name) => name.replaceAll("_", " ");

/**
 * The first of a label's synonyms.
 *
 * @param {string} label
 */
export const short = (label) => label.split(",")[0].trim();
