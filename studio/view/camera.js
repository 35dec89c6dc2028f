// A photo from the camera.

import {html} from "./dom.js";

/**
 * Take a photo in a dialogue.
 *
 * @returns {Promise<File | null>} The photo, or null where the person changed their mind.
 */
export function takePhoto() {
    const video = html("video", {
        autoplay: true,
        muted: true,
        playsinline: true,
        "aria-label": "Picture of the camera",
    });
    const words = html("p", {role: "status"}, "Waiting for the camera …");
    const shoot = html("button", {type: "button", class: "primary", disabled: true}, "Take the photo");
    const cancel = html("button", {type: "button", class: "quiet"}, "Cancel");
    const dialog = html(
        "dialog",
        {class: "dialogue wide", "aria-label": "Camera"},
        video,
        words,
        html("div", {class: "row end"}, cancel, shoot),
    );
    document.body.append(dialog);
    dialog.showModal();

    return new Promise((resolve) => {
        /** @type {MediaStream | null} */
        let stream = null;
        /** @type {File | null} */
        let taken = null;
        dialog.addEventListener("close", () => {
            stream?.getTracks().forEach((track) => track.stop());
            dialog.remove();
            resolve(taken);
        });
        cancel.addEventListener("click", () => dialog.close());
        shoot.addEventListener("click", async () => {
            const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
            canvas.getContext("2d")?.drawImage(video, 0, 0);
            taken = new File([await canvas.convertToBlob({type: "image/jpeg", quality: 0.95})], "camera.jpg", {
                type: "image/jpeg",
            });
            dialog.close();
        });
        const asked = navigator.mediaDevices?.getUserMedia({video: {facingMode: "environment"}});
        if (!asked) {
            words.textContent =
                "This browser gives no camera to this address: it wants https, or this machine’s own 127.0.0.1.";
            return;
        }
        asked.then(
            (given) => {
                if (!dialog.open) return given.getTracks().forEach((track) => track.stop());
                stream = given;
                video.srcObject = given;
                words.textContent = "";
                shoot.disabled = false;
                shoot.focus();
            },
            (refusal) => {
                words.textContent = `The camera gives no picture: ${refusal.message}`;
            },
        );
    });
}
