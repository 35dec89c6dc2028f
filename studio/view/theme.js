// Light or dark: the system's, or the person's for as long as the tab is open.

import {choice, html, newId} from "./dom.js";

const KEPT = "imagexplain.theme";
const dark = matchMedia("(prefers-color-scheme: dark)");

/** The scheme that is shown. @returns {"light" | "dark"} */
export function scheme() {
    const own = document.documentElement.dataset.theme;
    return own === "light" || own === "dark" ? own : dark.matches ? "dark" : "light";
}

/**
 * The switch of the scheme.
 *
 * @param {() => void} changed Called when another scheme is shown.
 */
export function themeSwitch(changed) {
    const kept = sessionStorage.getItem(KEPT) ?? "system";
    const apply = (/** @type {string} */ value) => {
        if (value === "system") delete document.documentElement.dataset.theme;
        else document.documentElement.dataset.theme = value;
        sessionStorage.setItem(KEPT, value);
        changed();
    };
    const id = newId("theme");
    const select = choice(
        [
            {value: "system", label: "System"},
            {value: "light", label: "Light"},
            {value: "dark", label: "Dark"},
        ],
        kept,
        {id, class: "small", onchange: () => apply(select.value)},
    );
    if (kept !== "system") document.documentElement.dataset.theme = kept;
    dark.addEventListener("change", changed);
    return html("span", {class: "tool"}, html("label", {for: id, class: "unseen"}, "Colours of the page"), select);
}
