"""Explain a photo: print the prediction and the explanation's summary, write the tensors and the heat map.

explain.py photo.jpg --model lanet
explain.py photo.jpg --model bit --target star --steps 100 --accept application/x-safetensors --out results
explain.py photo.jpg --model lanet --masks masks.json --option segments=slic --option n_segments=30
explain.py photo.jpg --model places/1.0 --model places/2.0 --target kitchen
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from imagexplain.archive.spec import in_file_name
from imagexplain.cli.connection import add_arguments, connect
from imagexplain.client.client import Client, ClientError
from imagexplain.ops.server import ServerError
from imagexplain.plain_text import printable
from imagexplain.progress import say, with_progress

FORMS = {
    "application/json": ".json",
    "application/gzip": ".gzip",
    "image/png": ".png",
    "application/x-safetensors": ".safetensors",
}
ROWS = 10
"""Number of groups in a summary, at most."""
DEFAULT_FORMS = ("application/json", "application/gzip", "image/png")


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
    prediction = with_progress(
        f"{model} predicts", partial(client.photo, f"predictions/{model}", photo, accept="application/json")
    )
    say(f"{model}: {_best(prediction.json())} ({prediction.seconds:.2f} s)")
    written = []
    for form in accept:
        ask = partial(client.photo, f"explanations/{model}", photo, accept=form, options=options, files=files)
        answer = with_progress(f"{model} explains", ask)
        if form == "application/json":
            result = answer.json()
            for one in result.get("explanations", [result]):
                say(_summary(one))
            if accept == DEFAULT_FORMS:
                continue
        file = out / f"{photo.stem}_{in_file_name(model)}{FORMS[form]}"
        file.write_bytes(answer.body)
        written.append(file)
        say(f"  {file} ({len(answer.body) / 1e3:.0f} kB, {answer.seconds:.2f} s)")
    return written


def _best(prediction: dict[str, Any]) -> str:
    """The best classes, or the surest instances."""
    if "detections" in prediction:
        found = prediction["detections"]
        listed = ", ".join(f"{printable(row['label'])} {row['score']:.1%}" for row in found[:5])
        return f"{len(found)} found" + (f": {listed}" if found else "")
    return ", ".join(f"{printable(row['label'])} {_share(row)}" for row in prediction["predictions"][:3])


def _share(row: dict[str, Any]) -> str:
    """A class's probability, or a value."""
    return f"{row['probability']:.1%}" if "probability" in row else f"{row['score']:.4g}"


def _explained(result: dict[str, Any]) -> str:
    """The class that is explained, and the class that it is contrasted with."""
    other = f" rather than {printable(result['contrast_label'])}" if "contrast_label" in result else ""
    return f"  explained: {printable(result['target_label'])}{other}, score {result['score']:.3f}"


def _summary(result: dict[str, Any]) -> str:
    by_path = "residual" in result
    lines = _of_path(result) if by_path else _of_map(result)
    column = "directional" if by_path else "attribution"
    groups = sorted(result.get("groups", []), key=lambda row: -abs(row[column]))
    for row in groups[:ROWS]:
        of_path = f"directional {row['directional']:+8.4f}  dividend {row['dividend']:6.1%}  " if by_path else ""
        lines.append(
            f"    {printable(row['label']):24.24} attribution {row['attribution']:+8.3f}  {of_path}area {row['area']}"
        )
    if len(groups) > ROWS:
        lines.append(f"    and {len(groups) - ROWS} more groups")
    return "\n".join(lines)


def _of_path(result: dict[str, Any]) -> list[str]:
    placed = f"of {result['quadrature']}" if "quadrature" in result else f"for a tolerance of {result['tolerance']:g}"
    return [
        f"{_explained(result)}, baseline {result['baseline_score']:.3f}",
        f"  {result['method']} with {result['steps']} steps {placed}: "
        f"residual {result['residual']:.2e} (relative {result['relative_residual']:.1e})",
    ]


def _of_map(result: dict[str, Any]) -> list[str]:
    options = dict(result["options"]) | ({"layer": result["layer"]} if "layer" in result else {})
    said = ", ".join(f"{name} {value}" for name, value in options.items())
    return [
        _explained(result),
        f"  {result['method']}{f' with {said}' if said else ''}: {result['evaluations']} evaluations",
    ]


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("image", type=Path)
    parser.add_argument(
        "--model", action="append", required=True, help="name, or name/version; may be repeated, to compare"
    )
    parser.add_argument("--target", help="label or index of the class to explain (default: the predicted one)")
    parser.add_argument("--contrast", help="label or index of the class whose score is taken off: why not this one")
    parser.add_argument("--method", help="of attribution, see docs/methods.md (default: the archive's)")
    parser.add_argument("--steps", type=int, help="points on the path (default: the archive's)")
    parser.add_argument("--quadrature", help="gauss_legendre, midpoint, left, right or trapezoid")
    parser.add_argument("--outputs", help="more tensors to return, separated by commas")
    parser.add_argument("--tolerance", help="relative accuracy to refine to, instead of steps")
    parser.add_argument("--baseline", help="where the path starts: zero, black, white, mean, blur, uniform, extremes")
    parser.add_argument("--segments", help="groups to score: slic, grid, or the name of a segmenter")
    parser.add_argument("--masks", type=Path, help="masks to score: COCO run-length masks (.json) or a PNG label map")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="any other option")
    parser.add_argument("--accept", action="append", choices=FORMS, help="form of the answer; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("run/explanations"), help="directory for the files")
    add_arguments(parser)
    given = parser.parse_args(arguments)
    options = {
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
    options = {name: value for name, value in options.items() if value is not None}
    options |= dict(option.partition("=")[::2] for option in given.option)
    files = {"masks": given.masks} if given.masks else None
    forms = tuple(given.accept or DEFAULT_FORMS)
    try:
        client = connect(given)
        for model in given.model:
            explain(client, given.image, model, given.out, options, forms, files)
    except (ClientError, ServerError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
