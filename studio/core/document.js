// The service's OpenAPI document: its models, and the schemas of their options.

/** @typedef {"classifier"|"segmenter"|"captioner"} Kind */
/** @typedef {"prediction"|"explanation"} Endpoint */

/**
 * A served model.
 * @typedef {Object} Model
 * @property {string} name  Name in addresses, with its version after a slash where it has several.
 * @property {Kind} kind
 * @property {string} description
 * @property {string[]} methods  Names of the methods that it supports.
 * @property {string[]|null} labels  Its classes, by index.
 * @property {string|null} method  The method where a request names none.
 * @property {any} operation  OpenAPI's operation of its explanations.
 */

/**
 * A method of attribution.
 * @typedef {Object} Method
 * @property {string} name
 * @property {string} description
 * @property {string} family
 * @property {boolean} coarse  Whether a fine map may be multiplied with its maps.
 * @property {string[]} own  Names of the options that it reads itself.
 * @property {string[]} options  Names of all options that it takes and others do not.
 * @property {Record<string, any>} defaults  Options where a request says nothing, where they are the method's own.
 * @property {Record<string, number>} minima  Smallest values of options, where the method's own are larger.
 * @property {Record<string, number>} maxima  Largest values of options, where the method's own are smaller.
 * @property {string[]} outputs  Outputs that it alone gives.
 */

/**
 * The models of a document, in its order.
 * @param {any} document
 * @returns {Model[]}
 */
export function models(document) {
    return document.tags.filter((tag) => tag["x-model"]).map((tag) => {
        const about = tag["x-model"];
        return {
            name: tag.name,
            kind: about.kind,
            description: tag.description ?? "",
            methods: about.methods ?? [],
            labels: about.labels ?? null,
            method: schemas(document, tag.name, "explanation").method?.default ?? null,
            operation: document.paths[`/explanations/${tag.name}`].post,
        };
    });
}

/**
 * The model to begin with: the classifier of the most classes, which tells the most photos apart; the first of
 * several such. Where there is no classifier, the first segmenter.
 * @param {Model[]} models
 * @returns {Model|undefined}
 */
export function first(models) {
    const count = (/** @type {Model} */ model) => model.labels?.length ?? 0;
    const classifiers = models.filter(({kind}) => kind === "classifier");
    const most = Math.max(...classifiers.map(count));
    return classifiers.find((model) => count(model) === most) ?? models.find(({kind}) => kind === "segmenter");
}

/**
 * A method as the document describes it.
 * @param {any} document
 * @param {string} name
 * @returns {Method}
 * @throws {RangeError} for one that it does not have.
 */
export function method(document, name) {
    const about = document["x-methods"]?.[name];
    if (!about) throw new RangeError(`unknown method ${name}`);
    return {name, ...about};
}

/**
 * The schemas of the fields of a model's requests in JSON, by name: the photo's and the options'.
 * @param {any} document
 * @param {string} model
 * @param {Endpoint} endpoint
 * @returns {Record<string, any>}
 * @throws {RangeError} for a model that it does not have.
 */
export function schemas(document, model, endpoint) {
    const path = document.paths[`/${endpoint}s/${model}`];
    if (!path) throw new RangeError(`unknown model ${model}`);
    return resolved(document, path.post.requestBody.content["application/json"].schema).properties;
}

/**
 * The media types of a model's answers, the default first.
 * @param {any} document
 * @param {string} model
 * @param {Endpoint} endpoint
 * @returns {string[]}
 */
export function media(document, model, endpoint) {
    return Object.keys(document.paths[`/${endpoint}s/${model}`].post.responses["200"].content);
}

/**
 * A schema, or what its reference names.
 * @param {any} document
 * @param {any} schema
 */
export function resolved(document, schema) {
    if (!schema.$ref) return schema;
    return schema.$ref.slice(2).split("/").reduce((found, part) => found[part], document);
}
