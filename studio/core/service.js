// The service: its document, predictions and explanations, by HTTP from the page's own origin.

import * as openapi from "./document.js";
import {encode, texts} from "./options.js";
import {parse} from "./safetensors.js";

/** Media types of answers. */
export const JSON_MEDIA = "application/json";
export const GZIP = "application/gzip";
export const PNG = "image/png";
export const SAFETENSORS = "application/x-safetensors";
export const WITH_SUMMARY = `${SAFETENSORS}; summary=true`;

const HEADER_BYTES = 4000; // of options in the header; longer ones go into the body

/**
 * An answer that is no success, in the service's own words; status 0 where there was none.
 */
export class ServiceError extends Error {
    /**
     * @param {number} status
     * @param {string} field  Part of the request at fault.
     * @param {string} message
     * @param {{retryAfter?: number|null, id?: string|null, word?: string, body?: any}} [more]
     */
    constructor(status, field, message, {retryAfter = null, id = null, word = "", body = null} = {}) {
        super(message);
        this.name = "ServiceError";
        this.status = status;
        this.field = field;
        /** Seconds after which to come back, null where the service does not say. */
        this.retryAfter = retryAfter;
        /** Id of the request, by which its line in the logs is found. */
        this.id = id;
        /** Status as a short word. */
        this.word = word;
        /** The whole error, as JSON has it. */
        this.body = body;
    }
}

/**
 * An answer.
 * @typedef {Object} Answer
 * @property {any} summary  All that JSON has; null for pictures and gzip.
 * @property {Record<string, import("./safetensors.js").Tensor>} tensors
 * @property {number} seconds  Time from the request to the last byte.
 * @property {Uint8Array} bytes  The body as it came, to be saved.
 * @property {string} media
 * @property {string|null} id  Id of the request.
 */

/**
 * @typedef {Object} Asking
 * @property {AbortSignal} [signal]
 * @property {string} [accept]  Media type of the answer.
 * @property {boolean} [fresh]  Compute anew what is cached.
 * @property {(received: number, total: number|null) => void} [progress]  Called with the bytes of the answer so far.
 */

export class Service {
    /**
     * @param {{base?: string, key?: string, fetch?: typeof fetch}} [settings]  Address before `/openapi.json`, by
     *   default the page's own origin, and the key of the client.
     */
    constructor({base = "", key = "", fetch: ask = (...given) => fetch(...given)} = {}) {
        this.base = base.replace(/\/$/, "");
        this.key = key;
        this._fetch = ask;
        /** @type {Promise<any>|null} */
        this._document = null;
    }

    /**
     * The OpenAPI document, asked for once; a failure is not kept.
     * @param {{signal?: AbortSignal}} [asking]
     * @returns {Promise<any>}
     */
    document({signal} = {}) {
        this._document ??= this._get("/openapi.json", signal).catch((error) => {
            this._document = null;
            throw error;
        });
        return this._document;
    }

    /** The served models. @returns {Promise<import("./document.js").Model[]>} */
    async models() {
        return openapi.models(await this.document());
    }

    /**
     * The state of each model, as `/readyz` tells it, ready or not.
     * @param {{signal?: AbortSignal}} [asking]
     * @returns {Promise<{ready: boolean, models: Record<string, string>, unready: string[]}>}
     */
    async readiness({signal} = {}) {
        try {
            return await this._get("/readyz", signal);
        } catch (error) {
            if (error.status === 503 && error.body?.models) return error.body;
            throw error;
        }
    }

    /**
     * What a model says of a photo.
     * @param {string} model
     * @param {Blob} photo
     * @param {Record<string, any>} [options]
     * @param {Asking} [asking]
     * @returns {Promise<any>} The answer in JSON.
     */
    async predict(model, photo, options = {}, asking = {}) {
        return (await this.ask("prediction", model, photo, options, {accept: JSON_MEDIA, ...asking})).summary;
    }

    /**
     * What decided the answer of a model.
     * @param {string} model
     * @param {Blob} photo
     * @param {Record<string, any>} [options]
     * @param {Asking} [asking]
     * @returns {Promise<Answer>} By default with tensors and summary.
     */
    explain(model, photo, options = {}, asking = {}) {
        return this.ask("explanation", model, photo, options, {accept: WITH_SUMMARY, ...asking});
    }

    /**
     * @param {import("./document.js").Endpoint} endpoint
     * @param {string} model
     * @param {Blob} photo
     * @param {Record<string, any>} options
     * @param {Asking} asking
     * @returns {Promise<Answer>}
     * @throws {ServiceError}
     */
    async ask(endpoint, model, photo, options, {signal, accept = "*/*", fresh = false, progress} = {}) {
        const started = performance.now();
        const {body, headers} = request(photo, options);
        headers.Accept = accept;
        if (fresh) headers["Cache-Control"] = "no-cache";
        const response = await this._send(`/${endpoint}s/${model}`, {method: "POST", body, headers, signal});
        const bytes = await received(response, progress);
        const media = (response.headers.get("Content-Type") ?? "").split(";")[0].trim();
        const about = {bytes, media, seconds: (performance.now() - started) / 1000, id: idOf(response)};
        if (media === SAFETENSORS) {
            const {tensors, result} = parse(bytes.buffer);
            return {...about, summary: result, tensors};
        }
        const summary = media === JSON_MEDIA ? JSON.parse(new TextDecoder().decode(bytes)) : null;
        return {...about, summary, tensors: {}};
    }

    /**
     * @param {string} path
     * @param {AbortSignal} [signal]
     */
    async _get(path, signal) {
        return (await this._send(path, {headers: {}, signal})).json();
    }

    /**
     * @param {string} path
     * @param {RequestInit & {headers: Record<string, string>}} settings
     * @returns {Promise<Response>} One of success.
     */
    async _send(path, {headers, ...settings}) {
        if (this.key) headers.Authorization = `Bearer ${this.key}`;
        let response;
        try {
            response = await this._fetch(this.base + path, {...settings, headers, credentials: "omit", redirect: "error"});
        } catch (error) {
            if (error.name === "AbortError" || error.name === "TimeoutError") throw error;
            throw new ServiceError(0, "server", "the server does not answer");
        }
        if (!response.ok) throw await refusal(response);
        return response;
    }
}

/**
 * Body and headers of a request: short options beside the photo in a header, long ones and files with it in a form.
 * @param {Blob} photo
 * @param {Record<string, any>} options
 * @returns {{body: BodyInit, headers: Record<string, string>}}
 */
export function request(photo, options) {
    const files = Object.entries(options).filter(([, value]) => value instanceof Blob);
    const others = Object.fromEntries(Object.entries(options).filter(([, value]) => !(value instanceof Blob)));
    const encoded = encode(others);
    if (files.length === 0 && encoded.length <= HEADER_BYTES) {
        /** @type {Record<string, string>} */
        const headers = {"Content-Type": photo.type || "application/octet-stream"};
        if (encoded) headers["X-Explain-Options"] = encoded;
        return {body: photo, headers};
    }
    const form = new FormData();
    form.set("image", photo, "image");
    for (const [name, value] of Object.entries(texts(others))) form.set(name, value);
    for (const [name, file] of files) form.set(name, /** @type {Blob} */ (file), name);
    return {body: form, headers: {}};
}

/**
 * @param {Response} response
 * @param {Asking["progress"]} progress
 */
async function received(response, progress) {
    if (!progress || !response.body) return new Uint8Array(await response.arrayBuffer());
    const length = response.headers.get("Content-Length");
    const total = length ? Number(length) : null;
    const chunks = [];
    let count = 0;
    for (const reader = response.body.getReader();;) {
        const {done, value} = await reader.read();
        if (done) break;
        chunks.push(value);
        count += value.length;
        progress(count, total);
    }
    return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

/** @param {Response} response */
async function refusal(response) {
    const after = Number(response.headers.get("Retry-After") ?? NaN);
    const more = {retryAfter: Number.isFinite(after) ? after : null, id: idOf(response)};
    let body = null;
    try {
        body = await response.json();
    } catch {
        // not the service's own
    }
    const message = body?.message ?? `${response.status} ${response.statusText}`.trim();
    return new ServiceError(response.status, body?.field ?? "server", message, {...more, word: body?.error ?? "", body});
}

/** @param {Response} response */
function idOf(response) {
    return response.headers.get("X-Request-Id") ?? response.headers.get("X-Correlation-Id");
}
