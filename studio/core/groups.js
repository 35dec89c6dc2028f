// The table of groups: its order, its tree, and the score that it foretells.

/**
 * A row of an answer's `groups`.
 * @typedef {Object} Group
 * @property {string} label
 * @property {"segment"|"rest"|"whole"} kind
 * @property {number|null} attribution
 * @property {number} area
 * @property {number|null} [directional]
 * @property {number|null} [dividend]
 * @property {number|null} [value]
 * @property {number|null} [norm]
 * @property {number|null} [standard_error]
 * @property {number} [parent]
 * @property {import("./rle.js").Runs} [segmentation]
 */

/** @typedef {"ascending"|"descending"} Direction */

/**
 * The rows in the order of a column, and where they stand in the answer. Equal rows keep their order, and those without
 * a number come last, whatever the direction.
 * @template {Group} T
 * @param {T[]} rows
 * @param {keyof T} column
 * @param {Direction} [direction]
 * @returns {{index: number, row: T}[]}
 */
export function sorted(rows, column, direction = "descending") {
    const sign = direction === "ascending" ? 1 : -1;
    const missing = (value) => value === null || value === undefined || Number.isNaN(value);
    return rows.map((row, index) => ({index, row})).sort((a, b) => {
        const [first, second] = [/** @type {any} */ (a.row[column]), /** @type {any} */ (b.row[column])];
        if (missing(first) || missing(second)) return Number(missing(first)) - Number(missing(second));
        if (typeof first === "string") return sign * first.localeCompare(second, "en", {numeric: true});
        return sign * (first - second);
    });
}

/**
 * The signed strengths of the rows in −1…1, by the largest magnitude of all but the whole; 0 where there is no number.
 * @param {Group[]} rows
 * @param {"attribution"|"directional"} [column]
 * @returns {number[]}
 */
export function strengths(rows, column = "attribution") {
    const most = Math.max(0, ...rows.filter((row) => row.kind !== "whole").map((row) => Math.abs(row[column] ?? 0)));
    return rows.map((row) => (most ? Math.max(-1, Math.min(1, (row[column] ?? 0) / most)) : 0));
}

/**
 * The rows by the row of the smallest group around them, −1 for none.
 * @param {Group[]} rows
 * @returns {Map<number, number[]>}
 */
export function children(rows) {
    /** @type {Map<number, number[]>} */
    const found = new Map();
    rows.forEach((row, index) => {
        const parent = row.parent ?? -1;
        found.set(parent, [...(found.get(parent) ?? []), index]);
    });
    return found;
}

/**
 * The part of the score's difference that the union of some groups carries, null where the answer cannot tell.
 *
 * Groups may overlap: their union is summed over the answer's `refinement`, the disjoint parts of them all. Parts know
 * their groups by label, so that groups of one label that overlap with others cannot be told.
 * @param {any} summary  Explanation with `groups`.
 * @param {Iterable<number>} absent  Rows of `groups`.
 * @returns {number|null}
 */
export function carried(summary, absent) {
    /** @type {Group[]} */
    const rows = summary.groups ?? [];
    const chosen = [...new Set(absent)].map((index) => {
        if (!rows[index]) throw new RangeError(`wanted a row of ${rows.length} groups, got ${index}`);
        return rows[index];
    });
    const whole = chosen.find((row) => row.kind === "whole");
    if (whole) return whole.attribution;
    if (chosen.some((row) => row.attribution === null)) return null;
    const sum = (each) => each.reduce((total, one) => total + one.attribution, 0);
    const labels = new Set(chosen.filter((row) => row.kind === "segment").map((row) => row.label));
    const overlap = (summary.refinement ?? []).some(
        (part) => part.segments.filter((label) => labels.has(label)).length > 1);
    if (!overlap) return sum(chosen);
    if (rows.filter((row) => row.kind === "segment" && labels.has(row.label)).length > labels.size) return null;
    const parts = summary.refinement.filter((part) => part.segments.some((label) => labels.has(label)));
    const others = chosen.filter((row) => row.kind !== "segment");
    return [...parts, ...others].some((each) => each.attribution === null) ? null : sum(parts) + sum(others);
}

/**
 * The score that the table foretells when groups are switched off: the score less what they carry.
 *
 * Only methods that share out the score's difference foretell one: those whose answers have a `baseline_score`.
 * @param {any} summary  Explanation with `groups`.
 * @param {Set<number>} absent  Rows of `groups`.
 * @returns {number|null} null where nothing is foretold.
 */
export function foretold(summary, absent) {
    if (summary.score === null || summary.score === undefined || summary.baseline_score === undefined) return null;
    const part = carried(summary, absent);
    return part === null ? null : summary.score - part;
}
