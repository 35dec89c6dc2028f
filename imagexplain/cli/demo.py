"""Send one photo to every served model and write the explanations that come back, by pixel and by segment."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from imagexplain.checkout import ROOT
from imagexplain.cli.explain import explain
from imagexplain.client.client import Client, ClientError
from imagexplain.ops.server import ServerError, find
from imagexplain.progress import say
from imagexplain.vision.figure import INK
from imagexplain.vision.lettering import drawable, fitted, font, write
from training.scenes import CLASSES, SceneSettings, scene

OUT = ROOT / "run" / "demo"
SIZE = (360, 480)  # H, W
SEED, INDEX = 7, 15
PANEL = 640  # pixels, the longer side of a picture on the overview, at most
MARGIN = 30
GAP = 16
COLUMNS = 3


def draw(folder: Path) -> Path:
    """Draw the demonstration's scene, one that no model was trained on; returns its file."""
    example = scene(SEED, INDEX, SceneSettings(size=SIZE))
    path = folder / f"scene_{CLASSES[example.label]}.png"
    Image.fromarray(example.image).save(path)
    return path


def overview(photo: Path, pictures: dict[str, Path]) -> Image.Image:
    """The photo and what was drawn over it side by side, each under its name."""
    panels = []
    for name, file in {"photo": photo, **pictures}.items():
        with Image.open(file) as picture:
            panel = ImageOps.exif_transpose(picture).convert("RGB")
        if max(panel.size) > PANEL:  # letters are sharpest as they are
            panel = ImageOps.contain(panel, (PANEL, PANEL), Image.Resampling.LANCZOS)
        panels.append((name, panel))
    columns, width = min(COLUMNS, len(panels)), max(panel.width for _, panel in panels)
    tops, bottom = [], 0
    for first in range(0, len(panels), columns):
        tops.append(bottom)
        bottom += MARGIN + max(panel.height for _, panel in panels[first : first + columns]) + GAP
    sheet = Image.new("RGB", (columns * (width + GAP) - GAP, bottom - GAP), "white")
    face, draw = font(17, bold=True), ImageDraw.Draw(sheet)
    for place, (name, panel) in enumerate(panels):
        left, top = place % columns * (width + GAP), tops[place // columns]
        write(draw, (left + 13, top + 22), fitted(drawable(name), face, width - 13), face, INK, anchor="ls")
        sheet.paste(panel, (left, top + MARGIN))
    return sheet


def finds_instances(client: Client, photo: Path, model: str) -> bool:
    """Tell whether the model is a segmenter."""
    return "detections" in client.photo(f"predictions/{model}", photo, accept="application/json").json()


def _picture(files: list[Path]) -> Path:
    return next(file for file in files if file.suffix == ".png")


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument("--image", type=Path, help="any photo (default: a synthetic scene, drawn now)")
    parser.add_argument("--run", type=Path, default=ROOT / "run", help="state of the server (default: run)")
    parser.add_argument("--out", type=Path, default=OUT, help="directory for the files (default: run/demo)")
    given = parser.parse_args(arguments)
    try:
        server = find(given.run.resolve())
        if server is None:
            raise ServerError(f"no server runs with {given.run}: make serve")
        given.out.mkdir(parents=True, exist_ok=True)
        photo = given.image or draw(given.out)
        say(f"photo: {photo}")
        client = Client(server.inference, server.headers())
        pictures: dict[str, Path] = {}
        segmenters = [model for model in server.models if finds_instances(client, photo, model)]
        for model in segmenters:
            found = given.out / f"{photo.stem}_{model}_instances.png"
            found.write_bytes(client.photo(f"predictions/{model}", photo, accept="image/png").body)
            pictures[f"{model} finds"] = found
            if client.photo(f"predictions/{model}", photo, accept="application/json").json()["detections"]:
                pictures[f"{model}, the surest one"] = _picture(explain(client, photo, model, given.out, {}))
        for model in server.models:
            if model in segmenters:
                continue
            pictures[model] = _picture(explain(client, photo, model, given.out, {}))
            segments = {"segments": segmenters[0], "fallback": "slic"} if segmenters else {"segments": "slic"}
            by_segment = explain(client, photo, model, given.out / "segments", segments)
            maker = f"{segmenters[0]}'s segments" if segmenters else "superpixel"
            pictures[f"{model}, by {maker}"] = _picture(by_segment)
        sheet = given.out / f"{photo.stem}_overview.png"
        overview(photo, pictures).save(sheet)
        say(f"side by side: {sheet}")
    except (ClientError, ServerError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    say(f"\nThe server goes on at {server.inference} (key in {server.run}/key_file.json); `make stop` ends it.")
    return 0
