// A photo as the person gave it, and as the page shows it.

const SHOWN_SIDE = 2000;
/** Largest side, pixels, of the picture that is drawn; the service gets the file itself. */

/**
 * @typedef {object} Photo
 * @property {Blob} blob The file.
 * @property {string} name
 * @property {number} width Pixels of the upright photo; 0 where the browser cannot read it.
 * @property {number} height
 * @property {string | null} url Address of the picture to draw, upright.
 */

/**
 * Read a photo. A file that the browser cannot read is a photo all the same: the service says what it thinks of it.
 *
 * @param {Blob} blob
 * @param {string} [name]
 * @returns {Promise<Photo>}
 */
export async function readPhoto(blob, name = blob instanceof File ? blob.name : "photo.jpg") {
    let bitmap;
    try {
        bitmap = await createImageBitmap(blob);
    } catch {
        return {blob, name, width: 0, height: 0, url: null};
    }
    const {width, height} = bitmap;
    const scale = Math.min(1, SHOWN_SIDE / Math.max(width, height));
    const canvas = new OffscreenCanvas(Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale)));
    const context = canvas.getContext("2d");
    context?.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    bitmap.close();
    const shown = await canvas.convertToBlob({type: "image/webp", quality: 0.95});
    return {blob, name, width, height, url: URL.createObjectURL(shown)};
}
