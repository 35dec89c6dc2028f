"""Compare served models, methods and classes on one photo: a sheet of heat maps side by side, and a table.

compare-served photo.jpg --model bit --model resnet --target star --out sheet.png
compare-served photo.jpg --model vit --method grad_cam --method gradient_rollout --target star --target ring

Each model explains by each method each class; what a model cannot do is told in its place.
"""

from __future__ import annotations

import argparse
import io
import itertools
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from imagexplain.cli.answer_rows import in_short
from imagexplain.cli.connection import add_arguments, connect
from imagexplain.cli.named_options import named_options
from imagexplain.client import Client, ClientError, StatusError
from imagexplain.client.answers import write
from imagexplain.client.build import from_text
from imagexplain.client.message import JSON, PNG
from imagexplain.plain_text import printable
from imagexplain.progress import say, with_progress
from imagexplain.vision.contact_sheet import Tile, contact_sheet, greyed

OUT = Path("run/sheets")
BOX = (320, 320)
"""Width and height of a picture on the sheet, at most, pixels."""
FOOTER = "blue opposes the class, red supports it; each map has a scale of its own"


@dataclass(frozen=True)
class Combination:
    """A model, a method and a class; None for the model's own."""

    model: str
    method: str | None
    target: str | None


@dataclass(frozen=True)
class Compared:
    """A combination, and its map with what was explained, or the server's refusal."""

    combination: Combination
    picture: Image.Image
    result: dict[str, Any]
    refusal: str = ""

    @property
    def name(self) -> str:
        """The method that was used."""
        return str(self.result.get("method") or self.combination.method or "")

    def line(self) -> str:
        """The line of the table."""
        if self.refusal:
            return f"{self.combination.model:16}  {self.name:24}  {printable(self.refusal)}"
        short = in_short(self.result)
        residual = f"  residual {short['relative_residual']:.1%}" if "relative_residual" in short else ""
        cost = f"{self.result['evaluations']} evaluations"
        return (
            f"{self.combination.model:16}  {self.name:24}  {short['answer']:16}  {short['score']:.4g}  {cost}{residual}"
        )

    def tile(self) -> Tile:
        """The tile of the sheet."""
        short = in_short(self.result) if self.result else {}
        note = "" if self.refusal else f"{short['answer']}: {_number(short['score'])}"
        return Tile(self.picture, self.name, printable(note), self.combination.model)


def _number(score: float | None) -> str:
    return "not finite" if score is None else f"{score:.3g}"


def compare(client: Client, photo: Path, combination: Combination, options: dict[str, Any]) -> Compared:
    """Ask for a map and its summary. Raises ClientError, but not for what the model cannot do."""
    given = {**options, "method": combination.method, "target_class": combination.target}
    try:
        result = client.ask("explanations", photo, combination.model, accept=JSON, options=given).json()
        drawn = client.ask("explanations", photo, combination.model, accept=PNG, options={"picture": "plain", **given})
    except StatusError as error:
        if error.status != 422:
            raise
        with Image.open(photo) as plain:
            shown = ImageOps.contain(ImageOps.exif_transpose(plain).convert("RGB"), BOX)
        return Compared(combination, greyed(shown, error.message), {}, error.message)
    with Image.open(io.BytesIO(drawn.body)) as picture:
        return Compared(combination, ImageOps.contain(picture.convert("RGB"), BOX), result)


def compare_all(
    client: Client, photo: Path, combinations: Sequence[Combination], options: dict[str, Any]
) -> list[Compared]:
    """Ask for all combinations, two at once. Raises ClientError."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda each: compare(client, photo, each, options), combinations))


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("image", type=Path)
    made.add_argument("--model", action="append", required=True, help="name, or name/version; may be repeated")
    made.add_argument("--method", action="append", help="of attribution; may be repeated (default: the model's own)")
    made.add_argument("--target", action="append", help="class; may be repeated (default: the predicted one)")
    made.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="any other option")
    made.add_argument("--out", type=Path, help="the PNG file (default: run/sheets/IMAGE_served.png)")
    made.add_argument("--columns", type=int, default=4, help="pictures in a row (default: 4)")
    add_arguments(made)
    return made


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    given = parser(prog).parse_args(arguments)
    combinations = list(
        itertools.starmap(Combination, itertools.product(given.model, given.method or [None], given.target or [None]))
    )
    out = given.out or OUT / f"{given.image.stem}_served.png"
    try:
        options = from_text(named_options({}, given.option))
        with connect(given) as client:
            found = with_progress("comparing", lambda: compare_all(client, given.image, combinations, options))
        sheet = contact_sheet([each.tile() for each in found], given.columns, given.image.name, FOOTER)
        file = io.BytesIO()
        sheet.save(file, "PNG")
        write(out, file.getvalue())
    except (ClientError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for each in found:
        say(each.line())
    say(f"{len(found)} side by side: {out}")
    return int(all(each.refusal for each in found))
