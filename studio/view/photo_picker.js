// Ways to give a photo: drop, paste, file, camera, example.

import {takePhoto} from "./camera.js";
import {html} from "./dom.js";

const EXAMPLES = "examples"; // folder of the photos that come with the studio

export class PhotoPicker {
    /** @param {(blob: Blob, name?: string) => void} given */
    constructor(given) {
        this.given = given;
        this.thumbnail = html("img", {alt: "", class: "thumbnail", hidden: true});
        this.words = html("p", {class: "words"}, "Drop or paste a photo");
        const input = html("input", {
            type: "file",
            accept: "image/jpeg,image/png,image/webp",
            class: "unseen",
            "data-field": "image",
            tabindex: -1,
            "aria-label": "File of the photo",
        });
        input.addEventListener("change", () => {
            if (input.files?.[0]) this.given(input.files[0], input.files[0].name);
            input.value = "";
        });
        this.drop = html(
            "div",
            {class: "drop"},
            this.thumbnail,
            html(
                "div",
                {},
                this.words,
                html(
                    "div",
                    {class: "row"},
                    html("button", {type: "button", class: "small", onclick: () => input.click()}, "Choose a file"),
                    html("button", {type: "button", class: "small", onclick: () => this._camera()}, "Camera"),
                ),
            ),
        );
        this.examples = html("div", {class: "examples", role: "group", "aria-label": "Examples"});
        this.element = html("div", {class: "photo-picker"}, this.drop, input, this.examples);
        acceptDrops(this.drop, given);
        void this._offer();
    }

    /** Offer the photos that come with the studio. */
    async _offer() {
        const answer = await fetch(`${EXAMPLES}/index.json`);
        if (!answer.ok) return;
        this.examples.append(
            ...(await answer.json()).map(({file, label, credit}) =>
                html(
                    "button",
                    {
                        type: "button",
                        class: "example",
                        title: `${label}, by ${credit}`,
                        onclick: () => void this._example(file),
                    },
                    html("img", {src: `${EXAMPLES}/${file}`, alt: label, loading: "lazy"}),
                ),
            ),
        );
    }

    /** @param {import("./photo.js").Photo | null} photo */
    show(photo) {
        this.thumbnail.hidden = !photo?.url;
        if (photo?.url) this.thumbnail.src = photo.url;
        this.words.textContent = !photo
            ? "Drop or paste a photo"
            : photo.width
              ? `${photo.name}, ${photo.width} × ${photo.height}`
              : photo.name;
    }

    async _camera() {
        const photo = await takePhoto();
        if (photo) this.given(photo, photo.name);
    }

    /** @param {string} file */
    async _example(file) {
        const answer = await fetch(`${EXAMPLES}/${file}`);
        if (answer.ok) this.given(await answer.blob(), file);
    }
}

/**
 * Let photos be dropped on an element.
 *
 * @param {HTMLElement} element
 * @param {(blob: Blob, name?: string) => void} given
 */
export function acceptDrops(element, given) {
    element.addEventListener("dragover", (event) => {
        event.preventDefault();
        element.classList.add("over");
    });
    element.addEventListener("dragleave", () => element.classList.remove("over"));
    element.addEventListener("drop", (event) => {
        event.preventDefault();
        element.classList.remove("over");
        const file = event.dataTransfer?.files[0];
        if (file) given(file, file.name);
    });
}

/**
 * Take photos that are pasted into the page, but not text that is pasted into its fields.
 *
 * @param {(blob: Blob, name?: string) => void} given
 */
export function acceptPastes(given) {
    document.addEventListener("paste", (event) => {
        const file = [...(event.clipboardData?.files ?? [])].find(({type}) => type.startsWith("image/"));
        if (!file) return;
        event.preventDefault();
        given(file, "pasted.png");
    });
}
