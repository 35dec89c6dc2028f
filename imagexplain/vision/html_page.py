"""Parts of the self-contained pages: their frame, escaped text, and pictures as data."""

from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path

from PIL import Image

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --quiet: #5b6168; --paper: #fbfbfa; --card: #fff; --line: #d9dbde;
  --accent: #a3005f; --bar: #a3005f; --area: #8b929a; }
@media (prefers-color-scheme: dark) { :root { --ink: #eceded; --quiet: #a9afb6; --paper: #17181a; --card: #202225;
  --line: #3a3d42; --accent: #ff7ac2; --bar: #ff7ac2; --area: #80868d; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .25rem; padding-top: 1rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 0; }
p { margin: .35rem 0; max-width: 46rem; }
a { color: var(--accent); }
.quiet { color: var(--quiet); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem 1.1rem;
  margin: 1rem 0; }
.crops { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .8rem; margin: .8rem 0 0;
  padding: 0; list-style: none; }
figure { margin: 0; }
img { display: block; max-width: 100%; border-radius: .3rem; image-rendering: auto; }
.crops img { width: 100%; height: 8.5rem; object-fit: contain; background: var(--paper); }
figcaption { font-size: .8rem; color: var(--quiet); overflow-wrap: anywhere; line-height: 1.35; margin-top: .25rem; }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
"""


def document(title: str, style: str, body: str, script: str = "") -> str:
    """An HTML document that needs no other file, and lets no text within it run."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    code = f"<script>\n{script}</script>\n" if script else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n{body}\n{code}</body>\n</html>\n"
    )


def picture(file: Path, description: str, pixels: int = 256) -> str:
    """An ``img`` of a picture file, as data, at most so many pixels on its longer side."""
    with Image.open(file) as image:
        return embedded(image, description, pixels)


def embedded(image: Image.Image, description: str, pixels: int = 256) -> str:
    """An ``img`` of a picture, as data, at most so many pixels on its longer side."""
    shown = image.convert("RGB")
    shown.thumbnail((pixels, pixels))
    content = io.BytesIO()
    shown.save(content, "WEBP", quality=82, method=4)
    data = base64.b64encode(content.getvalue()).decode("ascii")
    size = f'width="{shown.width}" height="{shown.height}"'
    return f'<img src="data:image/webp;base64,{data}" alt="{escape(description)}" {size}>'


def plural(count: int, noun: str) -> str:
    """A number with its noun."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
