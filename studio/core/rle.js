// COCO's run-length masks: runs of zeros and ones in turn, zeros first, down the columns; and the outlines of masks.

/**
 * A mask in runs; `counts` is a list of lengths, or text that packs them as pycocotools does.
 * @typedef {Object} Runs
 * @property {[number, number]} size  Height and width.
 * @property {string|number[]} counts
 */

/**
 * The pixels of a mask.
 * @param {Runs} runs
 * @returns {Uint8Array} 0 or 1 for each pixel, row by row.
 * @throws {RangeError} for counts that are no mask of that size.
 */
export function decode(runs) {
    const [height, width] = runs.size;
    const mask = new Uint8Array(height * width);
    forEachSpan(runs, (x, top, bottom) => {
        for (let y = top; y < bottom; y++) mask[y * width + x] = 1;
    });
    return mask;
}

/**
 * The runs of a mask.
 * @param {ArrayLike<number|boolean>} mask  Pixels row by row; all but 0 and false are within.
 * @param {number} height
 * @param {number} width
 * @returns {{size: [number, number], counts: string}}
 */
export function encode(mask, height, width) {
    if (mask.length !== height * width) throw new RangeError(`wanted ${height} × ${width} pixels, got ${mask.length}`);
    const counts = [];
    let length = 0;
    let within = false;
    for (let x = 0; x < width; x++) {
        for (let y = 0, at = x; y < height; y++, at += width) {
            if (Boolean(mask[at]) !== within) {
                counts.push(length);
                length = 0;
                within = !within;
            }
            length++;
        }
    }
    counts.push(length);
    return {size: [height, width], counts: packed(counts)};
}

/**
 * The lengths of the runs, zeros first.
 * @param {Runs} runs
 * @returns {number[]}
 */
export function counts(runs) {
    const [height, width] = runs.size;
    const found = typeof runs.counts === "string" ? unpacked(runs.counts) : runs.counts;
    let total = 0;
    for (const count of found) {
        if (!Number.isSafeInteger(count) || count < 0) throw new RangeError(`wanted run lengths from 0, got ${count}`);
        total += count;
    }
    if (total !== height * width) {
        throw new RangeError(`wanted run lengths that sum to ${height} × ${width}, got ${total}`);
    }
    return found;
}

/**
 * Number of pixels in a mask.
 * @param {Runs} runs
 */
export function area(runs) {
    return counts(runs).reduce((sum, count, index) => sum + (index % 2 ? count : 0), 0);
}

/**
 * The smallest rectangle around a mask: [left, top, right, bottom], null for an empty mask.
 * @param {Runs} runs
 * @returns {[number, number, number, number]|null}
 */
export function bounds(runs) {
    let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
    forEachSpan(runs, (x, first, last) => {
        left = Math.min(left, x);
        right = Math.max(right, x + 1);
        top = Math.min(top, first);
        bottom = Math.max(bottom, last);
    });
    return right < left ? null : [left, top, right, bottom];
}

/**
 * The outline of a mask as the `d` of an SVG path for `fill-rule="evenodd"`, in pixels; "" for an empty mask.
 * @param {ArrayLike<number|boolean>} mask  Pixels row by row.
 * @param {number} height
 * @param {number} width
 */
export function outline(mask, height, width) {
    return outlineOf(encode(mask, height, width));
}

/**
 * The outline of a mask in runs, see {@link outline}; its cost is that of the runs, not of the pixels.
 * @param {Runs} runs
 */
export function outlineOf(runs) {
    const [height, width] = runs.size;
    /** @type {number[][]} */
    const columns = Array.from({length: width}, () => []);
    forEachSpan(runs, (x, top, bottom) => columns[x].push(top, bottom));
    // Edges with the mask on their right, by the vertex where they begin: two at most, where pixels touch at a corner.
    /** @type {Map<number, number[]>} */
    const edges = new Map();
    const stride = width + 1;
    const add = (fromX, fromY, toX, toY) => {
        const from = fromY * stride + fromX;
        const found = edges.get(from);
        if (found) found.push(toY * stride + toX);
        else edges.set(from, [toY * stride + toX]);
    };
    for (let x = 0; x <= width; x++) {
        const left = x > 0 ? columns[x - 1] : [];
        const right = x < width ? columns[x] : [];
        for (let index = 0; index < right.length; index += 2) {
            add(x, right[index], x + 1, right[index]);
            add(x + 1, right[index + 1], x, right[index + 1]);
        }
        forEachDifference(left, right, (top, bottom, inRight) => {
            if (inRight) add(x, bottom, x, top);
            else add(x, top, x, bottom);
        });
    }
    const path = [];
    for (const start of edges.keys()) {
        while (edges.get(start)?.length) path.push(loop(edges, start, stride));
    }
    return path.join("");
}

/**
 * The masks of a label map, one for each label from 0; all below 0 is no mask's.
 * @param {ArrayLike<number>} labels  Labels row by row.
 * @param {number} height
 * @param {number} width
 * @returns {Map<number, {size: [number, number], counts: number[]}>}
 */
export function ofLabels(labels, height, width) {
    /** @type {Map<number, {counts: number[], end: number}>} */
    const found = new Map();
    const close = (label, start, stop) => {
        if (label < 0) return;
        const entry = found.get(label) ?? {counts: [], end: 0};
        if (start === entry.end && entry.counts.length) entry.counts[entry.counts.length - 1] += stop - start;
        else entry.counts.push(start - entry.end, stop - start);
        entry.end = stop;
        found.set(label, entry);
    };
    for (let x = 0; x < width; x++) {
        let start = 0;
        for (let y = 1; y <= height; y++) {
            if (y === height || labels[y * width + x] !== labels[start * width + x]) {
                close(labels[start * width + x], x * height + start, x * height + y);
                start = y;
            }
        }
    }
    return new Map([...found].map(([label, {counts: lengths, end}]) => {
        if (end < height * width) lengths.push(height * width - end);
        return [label, {size: [height, width], counts: lengths}];
    }));
}

/**
 * Call a function with the column, top and bottom (beyond the last) of each vertical span of a mask.
 * @param {Runs} runs
 * @param {(x: number, top: number, bottom: number) => void} visit
 */
function forEachSpan(runs, visit) {
    const height = runs.size[0];
    let at = 0;
    let openX = -1, openTop = 0, openBottom = 0; // a span that runs of no zeros between may lengthen
    const flush = () => { if (openX >= 0) visit(openX, openTop, openBottom); };
    counts(runs).forEach((count, index) => {
        if (index % 2 && count) {
            for (let start = at, end = at + count; start < end;) {
                const x = Math.floor(start / height);
                const stop = Math.min(end, (x + 1) * height);
                const [top, bottom] = [start - x * height, stop - x * height];
                if (x === openX && top === openBottom) {
                    openBottom = bottom;
                } else {
                    flush();
                    [openX, openTop, openBottom] = [x, top, bottom];
                }
                start = stop;
            }
        }
        at += count;
    });
    flush();
}

/**
 * Call a function with each stretch that lies in one of two columns alone; `inRight` tells which.
 * @param {number[]} left  Tops and bottoms of spans, ascending.
 * @param {number[]} right
 * @param {(top: number, bottom: number, inRight: boolean) => void} visit
 */
function forEachDifference(left, right, visit) {
    let [i, j, y] = [0, 0, 0];
    while (i < left.length || j < right.length) {
        const next = Math.min(left[i] ?? Infinity, right[j] ?? Infinity);
        const [inLeft, inRight] = [i % 2 === 1, j % 2 === 1];
        if (inLeft !== inRight && next > y) visit(y, next, inRight);
        if (left[i] === next) i++;
        if (right[j] === next) j++;
        y = next;
    }
}

/**
 * Follow edges from a vertex until they come back to it, and take them out.
 * @param {Map<number, number[]>} edges
 * @param {number} start
 * @param {number} stride
 * @returns {string} The loop as part of a path.
 */
function loop(edges, start, stride) {
    const vertices = [];
    let at = start;
    do {
        vertices.push(at);
        at = /** @type {number} */ (/** @type {number[]} */ (edges.get(at)).pop());
    } while (at !== start);
    const isRow = (a, b) => Math.floor(a / stride) === Math.floor(b / stride);
    const corners = vertices.filter((vertex, index) => {
        const before = vertices.at(index - 1);
        const after = vertices[(index + 1) % vertices.length];
        return isRow(/** @type {number} */ (before), vertex) !== isRow(vertex, after);
    });
    let text = `M${corners[0] % stride} ${Math.floor(corners[0] / stride)}`;
    for (let index = 1; index < corners.length; index++) {
        const [x, y] = [corners[index] % stride, Math.floor(corners[index] / stride)];
        text += isRow(corners[index - 1], corners[index]) ? `H${x}` : `V${y}`;
    }
    return `${text}Z`;
}

/** @param {string} text */
function unpacked(text) {
    /** @type {number[]} */
    const found = [];
    for (let at = 0; at < text.length;) {
        let value = 0;
        let place = 1;
        for (let more = true; more; at++) {
            const digit = text.charCodeAt(at) - 48;
            if (!(digit >= 0 && digit < 64)) throw new RangeError("wanted counts of the characters 0 to o, each whole");
            value += (digit & 31) * place;
            place *= 32;
            more = Boolean(digit & 32);
            if (!more && digit & 16) value -= place;
        }
        found.push(found.length > 2 ? value + found[found.length - 2] : value);
    }
    return found;
}

/** @param {number[]} lengths */
function packed(lengths) {
    let text = "";
    lengths.forEach((length, index) => {
        let value = index > 2 ? length - lengths[index - 2] : length;
        for (let more = true; more;) {
            const digit = value & 31;
            value >>= 5;
            more = value !== (digit & 16 ? -1 : 0);
            text += String.fromCharCode(48 + (more ? digit | 32 : digit));
        }
    });
    return text;
}
