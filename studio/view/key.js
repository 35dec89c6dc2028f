// The key to the service: given by the person, kept for the tab, and never part of an address.

import {field, html, say} from "./dom.js";

const KEPT = "imagexplain.key";

/** The key, if there is one. @returns {string | null} */
export const key = () => sessionStorage.getItem(KEPT);

/** Take a key out of the address's fragment, `#key=…`, so that neither the history nor a bookmark has it. */
export function takeKeyFromAddress() {
    const fragment = new URLSearchParams(location.hash.slice(1));
    const given = fragment.get("key");
    if (given === null) return;
    if (given) sessionStorage.setItem(KEPT, given);
    history.replaceState(null, "", location.pathname + location.search);
}

/**
 * The dialogue for the key, and the button that opens it.
 *
 * @param {() => void} changed Called with another key in place.
 */
export function keyDialogue(changed) {
    const input = html("input", {type: "password", autocomplete: "off", spellcheck: "false", name: "key"});
    const button = html("button", {type: "button", class: "quiet", "aria-haspopup": "dialog", onclick: open}, "");
    const dialog = html(
        "dialog",
        {class: "dialogue", "aria-labelledby": "key-title"},
        html(
            "form",
            {method: "dialog", onsubmit: store},
            html("h2", {id: "key-title"}, "Key to the service"),
            html(
                "p",
                {},
                "The key that the server’s start prints or its operator gives. It stays in this tab, is sent to ",
                "this server alone, and is forgotten when the tab is closed.",
            ),
            field("Key", input),
            html(
                "div",
                {class: "row end"},
                html("button", {type: "button", class: "quiet", onclick: forget}, "Forget the key"),
                html("button", {type: "button", class: "quiet", onclick: () => dialog.close()}, "Cancel"),
                html("button", {type: "submit", class: "primary"}, "Use it"),
            ),
        ),
    );
    document.body.append(dialog);
    show();

    function show() {
        button.textContent = key() ? "Key given" : "Enter key";
        button.classList.toggle("wanted", !key());
    }
    function open() {
        input.value = "";
        dialog.showModal();
        input.focus();
    }
    function store() {
        if (!input.value.trim()) return;
        sessionStorage.setItem(KEPT, input.value.trim());
        input.value = "";
        show();
        say("The key is kept for this tab.");
        changed();
    }
    function forget() {
        sessionStorage.removeItem(KEPT);
        input.value = "";
        dialog.close();
        show();
        say("The key is forgotten.");
        changed();
    }
    return {button, open};
}
