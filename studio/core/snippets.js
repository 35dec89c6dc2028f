// Lines that reproduce an answer, for a shell and for Python. They hold no key: it stands in the variable KEY.

import {encode, texts} from "./options.js";

/**
 * @typedef {Object} Request
 * @property {string} base  Address of the service, such as http://127.0.0.1:8088.
 * @property {import("./document.js").Endpoint} endpoint
 * @property {string} model
 * @property {Record<string, any>} options
 * @property {string} photo  Name of the photo's file.
 * @property {string} [accept]  Media type of the answer.
 * @property {string} [out]  File for the answer, where it is none to print.
 * @property {string} [certificate]  File of a certificate that is not known to the system.
 */

const HEADER_BYTES = 4000;

/**
 * The line of curl.
 * @param {Request} request
 */
export function curl({base, endpoint, model, options, photo, accept, out, certificate}) {
    const {files, others} = parted(options);
    const encoded = encode(others);
    const parts = ["curl -sf"];
    if (certificate) parts.push(`--cacert ${quoted(certificate)}`);
    parts.push(`-H "Authorization: Bearer $KEY"`);
    if (accept) parts.push(`-H ${quoted(`Accept: ${accept}`)}`);
    if (files.length || encoded.length > HEADER_BYTES) {
        parts.push(`-F ${quoted(`image=@${inForm(photo)}`)}`);
        for (const [name, value] of Object.entries(texts(others))) {
            parts.push(`--form-string ${quoted(`${name}=${value}`)}`);
        }
        for (const [name, file] of files) parts.push(`-F ${quoted(`${name}=@${inForm(file)}`)}`);
    } else {
        if (encoded) parts.push(`-H ${quoted(`X-Explain-Options: ${encoded}`)}`);
        parts.push(`-X POST --data-binary ${quoted(`@${photo}`)}`, `-H "Content-Type: application/octet-stream"`);
    }
    parts.push(quoted(`${base}/${endpoint}s/${model}`));
    if (out) parts.push(`-o ${quoted(out)}`);
    return parts.join(" \\\n  ");
}

/**
 * The lines of Python, with the client of the package.
 * @param {Request} request
 */
export function python({base, endpoint, model, options, photo, certificate}) {
    const {files, others} = parted(options);
    const given = Object.entries(others).filter(([, value]) => value !== null && value !== undefined);
    const named = [...given, ...files].map(([name, value]) => `    ${name}=${literal(value)},\n`);
    const settings = certificate ? `, certificate=${literal(certificate)}` : "";
    const verb = endpoint === "prediction" ? "predict" : "explain";
    return [
        "import os",
        "",
        "from imagexplain.client import Client",
        "",
        `client = Client(${literal(base)}, key=os.environ["KEY"]${settings})`,
        `answer = client.${verb}(\n    ${literal(photo)},\n    ${literal(model)},\n${named.join("")})`,
        verb === "predict" ? "print(answer)" : "print(answer.summary)",
        "",
    ].join("\n");
}

/**
 * A word of a shell.
 * @param {string} text
 */
export function quoted(text) {
    return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/**
 * A value as Python writes it.
 * @param {any} value
 * @returns {string}
 */
export function literal(value) {
    if (value === null || value === undefined) return "None";
    if (typeof value === "boolean") return value ? "True" : "False";
    if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
    if (typeof value === "object") {
        return `{${Object.entries(value).map(([name, each]) => `${literal(name)}: ${literal(each)}`).join(", ")}}`;
    }
    // JSON's escapes are Python's, but for what lies beyond 16 bits, which JSON.stringify leaves as it is.
    return JSON.stringify(value);
}

/**
 * The options that are files, by the names of these, and all others.
 * @param {Record<string, any>} options
 */
function parted(options) {
    const entries = Object.entries(options);
    return {
        files: entries.filter(([, value]) => value instanceof Blob).map(([name, file]) => [name, file.name ?? name]),
        others: Object.fromEntries(entries.filter(([, value]) => !(value instanceof Blob))),
    };
}

/**
 * The name of a file as curl's forms take it.
 * @param {string} name
 */
function inForm(name) {
    return /[;,"\\]/.test(name) ? `"${name.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"` : name;
}
