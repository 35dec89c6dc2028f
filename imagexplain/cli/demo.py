"""Send photos to the served models and write the explanations that come back, by pixel and by segment.

A model of everyday photos gets two of these, the models of the synthetic scenes get a scene; a photo of one's own goes
to all of them but captioners, which want a graph over it: they caption a scene of their own under two.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import skimage
from PIL import Image, ImageDraw, ImageOps

from imagexplain.archive.spec import in_file_name
from imagexplain.checkout import ROOT
from imagexplain.cli import demo_captions
from imagexplain.cli.explain import explain
from imagexplain.client import Client, ClientError
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

PHOTOS = {"cat": "chelsea.png", "coffee": "coffee.png"}
"""Photos that scikit-image ships, both CC0: Chelsea by Stéfan van der Walt, a cup of coffee by Rachel Michetti."""


@dataclass(frozen=True)
class Known:
    """Facts about a served model, by its answer to a scene.

    Attributes:
        name: Name of the model, or name/version.
        finds_instances: It is a segmenter.
        captions: It is a captioner.
        of_scenes: It found shapes of the scenes and nothing else.
    """

    name: str
    finds_instances: bool
    captions: bool
    of_scenes: bool


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


def photos(folder: Path) -> list[Path]:
    """Copy the photos that scikit-image ships; returns the files."""
    found = []
    for name, file in PHOTOS.items():
        source = Path(skimage.__file__).parent / "data" / file
        found.append(Path(shutil.copyfile(source, folder / f"{name}{source.suffix}")))
    return found


def ask(client: Client, models: Sequence[str], scene: Path) -> list[Known]:
    """Ask every model about a scene, to know its kind; the models of photos come first, then the segmenters.

    A graph goes with it, which captioners want and others leave alone.
    """
    found = []
    files = {"graph": demo_captions.whole_photo(scene, scene.parent / "whole_photo.json")}
    for model in models:
        path = f"predictions/{model}"
        answer: dict[str, Any] = client.photo(path, scene, accept="application/json", files=files).json()
        rows = answer.get("detections", answer.get("predictions", []))
        labels = {row["label"] for row in rows}
        of_scenes = bool(labels) and labels <= set(CLASSES)
        found.append(Known(model, "detections" in answer, "graphs" in answer, of_scenes))
    return sorted(found, key=lambda model: (model.of_scenes, not model.finds_instances))


def show(client: Client, photo: Path, models: Sequence[Known], out: Path, *, is_scene: bool) -> Path:
    """Have models explain a photo, and put their pictures side by side.

    A classifier explains by pixel and by segment: by a segmenter's segments where one knows what is in the photo, by
    superpixels else.

    Returns:
        The file of the pictures.
    """
    say(f"\nphoto: {photo}")
    pictures: dict[str, Path] = {}
    segmenters = [model.name for model in models if model.finds_instances and (is_scene or not model.of_scenes)]
    segmenter = segmenters[0].partition("/")[0] if segmenters else ""  # of several versions the newest is asked
    segments = {"segments": segmenter, "fallback": "slic"} if segmenter else {"segments": "slic"}
    maker = f"{segmenter}'s segments" if segmenter else "superpixel"
    for model in models:
        name = model.name
        if model.finds_instances:
            pictures |= _instances(client, photo, model, out)
            continue
        pictures[name] = _picture(explain(client, photo, name, out, {}))
        pictures[f"{name}, by {maker}"] = _picture(explain(client, photo, name, out / "segments", segments))
    sheet = out / f"{photo.stem}_overview.png"
    overview(photo, pictures).save(sheet)
    say(f"side by side: {sheet}")
    return sheet


def _instances(client: Client, photo: Path, model: Known, out: Path) -> dict[str, Path]:
    """The pictures of a segmenter, by their captions."""
    name = model.name
    if not client.photo(f"predictions/{name}", photo, accept="application/json").json()["detections"]:
        known = f", for it knows the {len(CLASSES)} shapes of the scenes alone" if model.of_scenes else ""
        say(f"{name}: finds nothing here{known}")
        return {}
    found = out / f"{photo.stem}_{in_file_name(name)}_instances.png"
    found.write_bytes(client.photo(f"predictions/{name}", photo, accept="image/png").body)
    return {f"{name} finds": found, f"{name}, the surest one": _picture(explain(client, photo, name, out, {}))}


def _picture(files: list[Path]) -> Path:
    return next(file for file in files if file.suffix == ".png")


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__)
    made.add_argument("--image", type=Path, help="any photo, for every model (default: two photos, and a scene)")
    made.add_argument("--run", type=Path, default=ROOT / "run", help="state of the server (default: run)")
    made.add_argument("--out", type=Path, default=OUT, help="directory for the files (default: run/demo)")
    return made


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    given = parser(prog).parse_args(arguments)
    try:
        server = find(given.run.resolve())
        if server is None:
            raise ServerError(f"no server runs with {given.run}: make serve")
        given.out.mkdir(parents=True, exist_ok=True)
        client, drawn = Client(server.inference, headers=server.headers()), draw(given.out)
        models = ask(client, server.models, drawn)
        captioners = [model.name for model in models if model.captions]
        models = [model for model in models if not model.captions]
        if given.image:
            show(client, given.image, models, given.out, is_scene=False)
        else:
            if of_photos := [model for model in models if not model.of_scenes]:
                for photo in photos(given.out):
                    show(client, photo, of_photos, given.out, is_scene=False)
            if of_scenes := [model for model in models if model.of_scenes]:
                show(client, drawn, of_scenes, given.out, is_scene=True)
            if captioners:
                demo_captions.show(client, captioners, given.out)
    except (ClientError, ServerError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    say(f"\nThe server goes on at {server.inference} (key in {server.run}/key_file.json); `make stop` ends it.")
    return 0
