// The options of requests as controls of a page, made from the OpenAPI document, and their encoding.

import {method as methodOf, models, schemas} from "./document.js";

/**
 * A control for an option.
 *
 * Kinds beside those of plain values: `class` is a label or an index of one, `classes` one of them or a list; `choices`
 * several of a few words, `file` the bytes of a file, `object` one of `fields`, `json` anything else.
 * @typedef {Object} Control
 * @property {string} name
 * @property {"number"|"integer"|"choice"|"boolean"|"text"|"class"|"classes"|"choices"|"pair"|"file"|"object"|"json"} kind
 * @property {string} part  Part of the request: target, method, path, baseline, groups, segmenter, picture, answer or
 *   graph.
 * @property {number} [minimum]
 * @property {number} [maximum]
 * @property {boolean} [exclusive]  Whether `minimum` itself is too small.
 * @property {string[]} [choices]  Of a pair, those of the first.
 * @property {string[]} [seconds]  Of a pair, the choices of the second.
 * @property {Control[]} [fields]  Of an object.
 * @property {any} default  The value where the request says nothing; null for none.
 * @property {string} help
 * @property {{option: string, values?: any[], not?: any[]}|null} needs  The choice without which it means nothing.
 */

const PHOTO = ["image", "img_data"];

/**
 * The controls for a model's requests by a method.
 * @param {any} document  OpenAPI document.
 * @param {string} model
 * @param {string|[string, string]|null} method  A method, two to combine, or null for the model's own.
 * @param {import("./document.js").Endpoint} [endpoint]
 * @returns {Control[]} All options that go with the method, in the document's order, but `method` and `combine`.
 */
export function controls(document, model, method, endpoint = "explanation") {
    const found = schemas(document, model, endpoint);
    const own = found.method?.default;
    const names = method === null ? (own ? [own] : []) : [method].flat();
    const all = Object.values(document["x-methods"] ?? {}).flatMap((each) => each.options);
    const taken = names.flatMap((name) => methodOf(document, name).options);
    const combined = names.length > 1;
    const about = models(document).find((each) => each.name === model);
    const ownOptions = names.flatMap((name) => methodOf(document, name).own);
    const defaults = Object.assign({}, ...names.map((name) => methodOf(document, name).defaults));
    const start = document.tags.find((tag) => tag.name === model)?.["x-model"]?.baselines?.[names[0]];
    if (start && !combined) defaults.baseline = start;
    return Object.entries(found)
        .filter(([name]) => !PHOTO.includes(name) && name !== "method" && name !== "combine")
        .filter(([name]) => names.length === 0 || !all.includes(name) || taken.includes(name))
        .filter(([name]) => name !== "normalized" || combined)
        .map(([name, schema]) => {
            const control = controlOf(name, schema);
            if (name in defaults) control.default = defaults[name];
            const bounds = (kind) => names.map((each) => methodOf(document, each)[kind][name]).filter((own) => own !== undefined);
            const [minima, maxima] = [bounds("minima"), bounds("maxima")];
            if (minima.length) control.minimum = Math.max(control.minimum ?? -Infinity, ...minima);
            if (maxima.length) control.maximum = Math.min(control.maximum ?? Infinity, ...maxima);
            if (ownOptions.includes(name)) control.needs = null;
            const told = names.map((each) => helpOf(schema.description ?? "", each)).filter(Boolean);
            if (told.length) control.help = told.join(" ");
            if (name === "outputs") control.choices = outputs(document, names, control.choices ?? []);
            if (name === "segments") {
                const segmenters = models(document).filter((each) => each.kind === "segmenter");
                control.kind = "choice";
                control.choices = [...(found.fallback?.enum ?? []).filter((each) => each !== null),
                    ...new Set(segmenters.map((each) => each.name.split("/")[0]))];
            }
            if (["class", "classes"].includes(control.kind) && about?.labels) control.choices = about.labels;
            return control;
        });
}

/**
 * The outputs that answers by some methods may have.
 * @param {any} document
 * @param {string[]} methods  Those of the request.
 * @param {string[]} all
 */
function outputs(document, methods, all) {
    const particular = Object.values(document["x-methods"] ?? {}).flatMap((each) => each.outputs);
    const given = methods.length === 1 ? methodOf(document, methods[0]).outputs : [];
    return all.filter((name) => !particular.includes(name) || given.includes(name));
}

/**
 * Tell whether an option means something beside the others.
 * @param {Control} control
 * @param {Record<string, any>} values  Options of the request.
 * @param {Control[]} all  Controls of the request.
 */
export function applies(control, values, all) {
    if (!control.needs) return true;
    const {option, values: wanted, not: unwanted} = control.needs;
    const owner = all.find((each) => each.name === option);
    const value = values[option] ?? owner?.default ?? null;
    if (wanted) return wanted.includes(value);
    return value !== null && !(unwanted ?? []).includes(value);
}

/**
 * What is wrong with a value, "" for nothing. The service checks more.
 * @param {Control} control
 * @param {any} value
 */
export function fault(control, value) {
    const {name, kind, minimum, maximum, exclusive, choices} = control;
    if (kind === "number" || kind === "integer") {
        const number = typeof value === "string" && value.trim() === "" ? NaN : Number(value);
        if (!Number.isFinite(number)) return `${name}: wanted a number`;
        if (kind === "integer" && !Number.isInteger(number)) return `${name}: wanted a whole number`;
        if (minimum !== undefined && (exclusive ? number <= minimum : number < minimum)) {
            return `${name}: wanted ${exclusive ? "more than" : "at least"} ${minimum}`;
        }
        if (maximum !== undefined && number > maximum) return `${name}: wanted at most ${maximum}`;
    }
    if (kind === "choice" && !choices?.includes(value)) return `${name}: wanted one of ${choices?.join(", ")}`;
    return "";
}

/**
 * Options as text, by name, as they stand in a form, in a query or in a header.
 * @param {Record<string, any>} values  null and undefined count as not given.
 * @returns {Record<string, string>}
 */
export function texts(values) {
    const given = Object.entries(values).filter(([, value]) => value !== null && value !== undefined);
    return Object.fromEntries(given.map(([name, value]) => [name, text(name, value)]));
}

/**
 * Options form-encoded, in ASCII, as the header `X-Explain-Options` and a query have them.
 * @param {Record<string, any>} values
 */
export function encode(values) {
    return new URLSearchParams(texts(values)).toString();
}

/**
 * The options of a form-encoded text, as text; the service reads them as {@link encode}'s values.
 * @param {string} encoded
 * @returns {Record<string, string>}
 */
export function decode(encoded) {
    return Object.fromEntries(new URLSearchParams(encoded));
}

/**
 * @param {string} name
 * @param {any} value
 */
function text(name, value) {
    if (Array.isArray(value) && (name === "outputs" || name === "absent")) return value.join(",");
    return typeof value === "object" ? JSON.stringify(value) : String(value);
}

/**
 * @param {string} name
 * @param {any} schema
 * @returns {Control}
 */
function controlOf(name, schema) {
    const types = [schema.type ?? []].flat();
    /** @type {Control} */
    const control = {
        name,
        kind: "json",
        part: schema["x-part"] ?? "other",
        default: schema.default ?? null,
        help: (schema.description ?? "").split("\n- ")[0].trim(),
        needs: schema["x-needs"] ?? null,
    };
    for (const [from, to] of [["minimum", "minimum"], ["exclusiveMinimum", "minimum"], ["maximum", "maximum"]]) {
        if (schema[from] !== undefined) control[to] = schema[from];
    }
    if (schema.exclusiveMinimum !== undefined) control.exclusive = true;
    if (schema.enum) {
        control.kind = "choice";
        control.choices = schema.enum.filter((each) => each !== null);
    } else if (types.includes("integer") || types.includes("number")) {
        control.kind = types.includes("integer") ? "integer" : "number";
    } else if (types.includes("boolean")) {
        control.kind = "boolean";
    } else if (types.includes("string")) {
        control.kind = schema.contentEncoding ? "file" : "text";
    } else if (isClass(schema.anyOf)) {
        control.kind = schema.anyOf.some((each) => each.type === "array") ? "classes" : "class";
    } else if (schema.prefixItems) {
        control.kind = "pair";
        [control.choices, control.seconds] = schema.prefixItems.map((each) => each.enum);
    } else if (types.includes("array") && schema.items?.enum) {
        control.kind = "choices";
        control.choices = schema.items.enum;
    } else if (types.includes("object") && schema.properties) {
        control.kind = "object";
        control.fields = Object.entries(schema.properties).map(([field, each]) => controlOf(field, each));
    }
    return control;
}

/** @param {any[]|undefined} forms */
function isClass(forms) {
    return forms?.[0]?.type === "string" && forms[0].maxLength !== undefined && forms[1]?.type === "integer";
}

/**
 * What a description says of one method, in a line "- `method`: …".
 * @param {string} description
 * @param {string} method
 */
function helpOf(description, method) {
    const line = description.split("\n").find((each) => each.startsWith(`- \`${method}\`: `));
    return line ? line.slice(`- \`${method}\`: `.length).replace(/ ?Default: .*\.$/, "").trim() : "";
}
