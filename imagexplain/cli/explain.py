"""Explain photos: of one, print the prediction and the explanation's summary, write the tensors and the heat map.

imagexplain explain photo.jpg --model lanet
imagexplain explain photo.jpg --model bit --target star --steps 100 --accept application/x-safetensors --out results
imagexplain explain photo.jpg --model lanet --masks masks.json --option segments=slic --option n_segments=30
imagexplain explain photo.jpg --model places/1.0 --model places/2.0 --target kitchen

Several photos, a folder, a pattern in quotes, a list of files (.txt, or - for the standard input) are explained at once
within a bound. The answers lie in OUT/MODEL/PHOTO.FORMAT. The same command again asks only for what is not there.

imagexplain explain photos --model bit --segments slic --format csv --format png --out results
imagexplain explain "photos/**/*.jpg" --model bit --model lanet --jobs 8 --out results
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from imagexplain.cli.answer_rows import best, told
from imagexplain.cli.bulk import TABLES, Bulk, Order
from imagexplain.cli.connection import add_arguments, address, connect
from imagexplain.cli.forms import FORMS, SUFFIXES
from imagexplain.cli.named_options import named_options
from imagexplain.cli.photos import gather, is_one
from imagexplain.client import Client, ClientError
from imagexplain.client.build import from_text
from imagexplain.client.message import GZIP, JSON, PNG
from imagexplain.plain_text import in_file_name
from imagexplain.progress import say, with_progress

DEFAULT_FORMS = (JSON, GZIP, PNG)
OF_CAPTIONERS = ("graph", "graphs", "features")
"""Files that a captioner's prediction wants as well."""


def explain(
    client: Client,
    photo: Path,
    model: str,
    out: Path,
    options: dict[str, Any],
    accept: tuple[str, ...] = DEFAULT_FORMS,
    files: dict[str, Path] | None = None,
) -> list[Path]:
    """Ask for a prediction and for the explanation in each form; prints what came, and returns the files written.

    Args:
        model: Name of the model, or name/version.
        options: Options of the explanation, short ones as text.
        files: Options that are files, by name.

    Raises:
        ClientError: the server refused, with its reason.
        OSError: the photo cannot be read or a file not be written.
    """
    out.mkdir(parents=True, exist_ok=True)
    graphs = {name: file for name, file in (files or {}).items() if name in OF_CAPTIONERS}
    predict = partial(client.photo, f"predictions/{model}", photo, accept=JSON, files=graphs)
    prediction = with_progress(f"{model} predicts", predict)
    say(f"{model}: {best(prediction.json())} ({prediction.seconds:.2f} s)")
    written = []
    for form in accept:
        ask = partial(client.photo, f"explanations/{model}", photo, accept=form, options=options, files=files)
        answer = with_progress(f"{model} explains", ask)
        if form == JSON:
            say(told(answer.json()))
            if accept == DEFAULT_FORMS:
                continue
        file = out / f"{photo.stem}_{in_file_name(model)}{SUFFIXES[form]}"
        file.write_bytes(answer.body)
        written.append(file)
        say(f"  {file} ({len(answer.body) / 1e3:.0f} kB, {answer.seconds:.2f} s)")
    return written


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_photos(made, Path("run/explanations"))
    made.add_argument("--target", help="label or index of the class to explain (default: the predicted one)")
    made.add_argument("--contrast", help="label or index of the class whose score is taken off: why not this one")
    made.add_argument("--method", help="of attribution, see docs/methods.md (default: the archive's)")
    made.add_argument("--steps", type=int, help="points on the path (default: the archive's)")
    made.add_argument("--quadrature", help="gauss_legendre, midpoint, left, right or trapezoid")
    made.add_argument("--outputs", help="more tensors to return, separated by commas")
    made.add_argument("--tolerance", help="relative accuracy to refine to, instead of steps")
    made.add_argument("--baseline", help="where the path starts: zero, black, white, mean, blur, uniform, extremes")
    made.add_argument("--segments", help="groups to score: slic, grid, or the name of a segmenter")
    made.add_argument(
        "--masks",
        type=Path,
        help="masks to score: COCO run-length masks (.json), a PNG label map, or a folder with one for each photo",
    )
    made.add_argument(
        "--accept", action="append", choices=SUFFIXES, default=[], help="form of the answer; may be repeated"
    )
    return made


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    given = parser(prog).parse_args(arguments)
    flags = {
        "target_class": given.target,
        "contrast_class": given.contrast,
        "method": given.method,
        "steps": given.steps,
        "tolerance": given.tolerance,
        "quadrature": given.quadrature,
        "baseline": given.baseline,
        "segments": given.segments,
        "outputs": given.outputs,
    }
    try:
        options = named_options(flags, given.option)
        masks = given.masks if given.masks and not given.masks.is_dir() else None
        files = {name: Path(file) for name, file in named_options({"masks": masks}, given.file, "file").items()}
        if is_bulk(given) or (given.masks and given.masks.is_dir()):
            return explain_all(given, options, files)
        media = tuple(FORMS[form].accept.partition(";")[0] for form in given.format)
        forms = tuple(dict.fromkeys((*given.accept, *media))) or DEFAULT_FORMS
        with connect(given) as client:
            for model in given.model:
                explain(client, Path(given.image[0]), model, given.out, from_text(options), forms, files)
    except (ClientError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def explain_all(given: argparse.Namespace, options: dict[str, str], files: dict[str, Path]) -> int:
    """Explain many photos; returns the exit status. Raises ClientError."""
    accepted = (name for name, form in FORMS.items() if form.accept.partition(";")[0] in given.accept)
    forms = tuple(dict.fromkeys((*accepted, *given.format))) or ("json", "gzip", "png")
    masks = given.masks if given.masks and given.masks.is_dir() else None
    order = Order("explanations", tuple(given.model), forms, options, files, given.out, masks, given.redo)
    return bulk(given, order)


def add_photos(parser: argparse.ArgumentParser, out: Path | None, forms: tuple[str, ...] = (*FORMS, "csv")) -> None:
    """Add the arguments of commands that ask models about photos: which, where, how many at once."""
    parser.add_argument("image", nargs="+", help="photo; or a folder, a pattern, a list of files (.txt), - for one")
    parser.add_argument(
        "--model", action="append", required=True, help="name, or name/version; may be repeated, to compare"
    )
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="any other option")
    parser.add_argument(
        "--file", action="append", default=[], metavar="NAME=FILE", help="an option that is a file, such as graph"
    )
    parser.add_argument(
        "--format", action="append", choices=forms, default=[], help="form of the answers by name; may be repeated"
    )
    parser.add_argument("--out", type=Path, default=out, help=f"directory for the files (default: {out or 'none'})")
    parser.add_argument("--jobs", type=int, help="photos under way at once, of several (default: 4)")
    parser.add_argument("--redo", action="store_true", help="ask again for what is done")
    add_arguments(parser)


def is_bulk(given: argparse.Namespace) -> bool:
    """Tell whether the arguments are about several photos, or want what only several have."""
    wants_more = given.jobs is not None or given.redo or any(form in TABLES for form in given.format)
    return wants_more or not is_one(given.image)


def bulk(given: argparse.Namespace, order: Order) -> int:
    """Carry out an order for the photos that the arguments name; returns the exit status. Raises ClientError."""
    jobs = 4 if given.jobs is None else given.jobs
    if jobs < 1:
        raise ValueError(f"jobs: wanted at least 1, got {jobs}")
    photos = gather(given.image, given.out)
    url, key = address(given)
    return Bulk(order, photos, url, key, certificate=given.certificate, connections=jobs).run()
