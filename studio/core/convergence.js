// How far the residual falls with the evaluations of a path.

/**
 * @typedef {Object} Point
 * @property {number} steps
 * @property {number} evaluations
 * @property {number} residual  Of the score's difference, signed.
 * @property {number} seconds
 * @property {any} summary
 */

/** Points on each path, from coarse to fine. */
export const STEPS = [4, 8, 16, 32, 64, 128];

/**
 * Explain a photo by more and more steps, one request after the other.
 * @param {import("./service.js").Service} service
 * @param {string} model
 * @param {Blob} photo
 * @param {Record<string, any>} options  Those of integrated gradients; `tolerance` and `steps` are left out.
 * @param {{steps?: number[], signal?: AbortSignal}} [asking]
 * @returns {AsyncGenerator<Point>}
 */
export async function* convergence(service, model, photo, options, {steps = STEPS, signal} = {}) {
    const {tolerance: _, steps: __, ...others} = options;
    for (const each of steps) {
        const asked = {...others, method: "integrated_gradients", steps: each};
        const {summary, seconds} = await service.explain(model, photo, asked, {
            accept: "application/json", fresh: true, signal,
        });
        yield {steps: each, evaluations: summary.evaluations, residual: summary.residual, seconds, summary};
    }
}
