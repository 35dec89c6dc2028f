// Tensors of a safetensors file: https://github.com/huggingface/safetensors#format

/** @typedef {"F64"|"F32"|"F16"|"BF16"|"I64"|"U64"|"I32"|"U32"|"I16"|"U16"|"I8"|"U8"|"BOOL"} DType */

/**
 * A tensor. `F16` and `BF16` are widened to 32 bits; `BOOL` has a byte of 0 or 1 for each value, `I64` and `U64` are
 * BigInt.
 * @typedef {Object} Tensor
 * @property {DType} dtype
 * @property {number[]} shape
 * @property {Float64Array|Float32Array|BigInt64Array|BigUint64Array|Int32Array|Uint32Array|Int16Array|Uint16Array
 *   |Int8Array|Uint8Array} data  Values in row-major order.
 */

/**
 * @typedef {Object} Parsed
 * @property {Record<string, Tensor>} tensors
 * @property {any} result  The plain values that the service puts into the metadata, null where there are none.
 */

const MAX_HEADER = 100_000_000; // bytes, the format's own bound
const LITTLE_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

const TYPES = {
    F64: Float64Array, F32: Float32Array, F16: Uint16Array, BF16: Uint16Array,
    I64: BigInt64Array, U64: BigUint64Array, I32: Int32Array, U32: Uint32Array,
    I16: Int16Array, U16: Uint16Array, I8: Int8Array, U8: Uint8Array, BOOL: Uint8Array,
};

/** Bytes that are no safetensors file; the message says why. */
export class FormatError extends Error {}

/**
 * Read a safetensors file.
 * @param {ArrayBuffer} buffer
 * @returns {Parsed}
 * @throws {FormatError}
 */
export function parse(buffer) {
    if (!LITTLE_ENDIAN) throw new FormatError("wanted a little-endian machine");
    const view = new DataView(buffer);
    if (buffer.byteLength < 8) throw new FormatError(`wanted 8 bytes at least, got ${buffer.byteLength}`);
    const length = Number(view.getBigUint64(0, true));
    if (length > MAX_HEADER || 8 + length > buffer.byteLength) {
        throw new FormatError(`wanted a header within the file, got one of ${length} bytes`);
    }
    const header = parsedJson(new Uint8Array(buffer, 8, length));
    /** @type {Record<string, Tensor>} */
    const tensors = {};
    for (const [name, entry] of Object.entries(header)) {
        if (name !== "__metadata__") tensors[name] = tensorOf(name, entry, buffer, 8 + length);
    }
    const result = header.__metadata__?.result;
    return {tensors, result: result === undefined ? null : JSON.parse(result)};
}

/**
 * The values of a tensor as numbers; 64-bit integers beyond 2^53 lose their last digits.
 * @param {Tensor} tensor
 * @returns {ArrayLike<number>}
 */
export function numbers(tensor) {
    return /** @type {any} */ (tensor.dtype === "I64" || tensor.dtype === "U64"
        ? Float64Array.from(/** @type {any} */ (tensor.data), Number) : tensor.data);
}

/** @param {Uint8Array} bytes */
function parsedJson(bytes) {
    let header;
    try {
        header = JSON.parse(new TextDecoder("utf-8", {fatal: true}).decode(bytes));
    } catch (error) {
        throw new FormatError(`wanted a header of JSON: ${error.message}`);
    }
    if (header === null || typeof header !== "object" || Array.isArray(header)) {
        throw new FormatError("wanted an object as header");
    }
    return header;
}

/**
 * @param {string} name
 * @param {any} entry
 * @param {ArrayBuffer} buffer
 * @param {number} start  Place of the first tensor's first byte.
 * @returns {Tensor}
 */
function tensorOf(name, entry, buffer, start) {
    const {dtype, shape, data_offsets: offsets} = entry ?? {};
    const Type = Object.hasOwn(TYPES, dtype) ? TYPES[dtype] : undefined;
    if (!Type) throw new FormatError(`${name}: wanted a known type, got ${dtype}`);
    if (!areCounts(shape)) throw new FormatError(`${name}: wanted a shape, got ${JSON.stringify(shape)}`);
    if (!areCounts(offsets) || offsets.length !== 2) throw new FormatError(`${name}: wanted two offsets`);
    const count = shape.reduce((product, side) => product * side, 1);
    const [first, last] = offsets;
    if (last - first !== count * Type.BYTES_PER_ELEMENT || start + last > buffer.byteLength) {
        throw new FormatError(`${name}: wanted ${count} values of ${dtype} within the file, got bytes ${first} to ${last}`);
    }
    const place = start + first;
    const data = place % Type.BYTES_PER_ELEMENT
        ? new Type(buffer.slice(place, start + last)) : new Type(buffer, place, count);
    return {dtype, shape, data: dtype === "F16" ? fromHalf(data) : dtype === "BF16" ? fromBrain(data) : data};
}

/** @param {any} value */
function areCounts(value) {
    return Array.isArray(value) && value.every((each) => Number.isSafeInteger(each) && each >= 0);
}

/** @param {Uint16Array} halves */
function fromHalf(halves) {
    return Float32Array.from(halves, (bits) => {
        const sign = bits & 0x8000 ? -1 : 1;
        const exponent = (bits >> 10) & 31;
        const fraction = bits & 1023;
        if (exponent === 31) return fraction ? NaN : sign * Infinity;
        return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
    });
}

/** @param {Uint16Array} brains */
function fromBrain(brains) {
    return new Float32Array(Uint32Array.from(brains, (bits) => bits << 16).buffer);
}
