"""Predict: say what served models see in photos.

predict photo.jpg --model bit
predict photos --model bit --model lanet --format csv --out results
predict "photos/**/*.jpg" --model swin --option threshold=0.5 --format jsonl --format png --out results
predict photo.jpg --model captioner --file graph=graph.json

Of one photo the best classes, the instances or the captions are printed; with a format the answer is written, too.
Several photos, a folder, a pattern in quotes, a list of files (.txt, or - for the standard input) are asked about at
once within a bound. The same command again asks only for what is not there.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

from imagexplain.cli.answer_rows import best
from imagexplain.cli.bulk import TABLES, Order
from imagexplain.cli.connection import connect
from imagexplain.cli.explain import add_photos, bulk, is_bulk
from imagexplain.cli.forms import FORMS
from imagexplain.cli.named_options import named_options
from imagexplain.client import ClientError
from imagexplain.client.answers import write
from imagexplain.client.build import from_text
from imagexplain.client.message import JSON
from imagexplain.plain_text import in_file_name
from imagexplain.progress import say, with_progress

OUT = Path("run/predictions")


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_photos(made, OUT, (*FORMS, *TABLES))
    return made


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    given = parser(prog).parse_args(arguments)
    try:
        options = named_options({}, given.option)
        files = {name: Path(file) for name, file in named_options({}, given.file, "file").items()}
        if is_bulk(given):
            forms = tuple(given.format) or ("csv",)
            order = Order("predictions", tuple(given.model), forms, options, files, given.out, None, given.redo)
            return bulk(given, order)
        predict(given, options, files)
    except (ClientError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def predict(given: argparse.Namespace, options: dict[str, str], files: dict[str, Path]) -> None:
    """Print what each model sees in one photo, and write its answers. Raises ClientError or OSError."""
    photo, asked = Path(given.image[0]), {**from_text(options), **files}
    with connect(given) as client:
        for model in given.model:
            ask = partial(client.ask, "predictions", photo, model, options=asked)
            answer = with_progress(f"{model} predicts", partial(ask, accept=JSON))
            say(f"{model}: {best(answer.json())} ({answer.seconds:.2f} s)")
            for form in given.format:
                file = given.out / f"{photo.stem}_{in_file_name(model)}{FORMS[form].suffix}"
                say(f"  {write(file, ask(accept=FORMS[form].accept).body)}")
