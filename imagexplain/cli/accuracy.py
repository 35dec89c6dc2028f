"""Score a served model on a labelled folder, <folder>/<class>/<image>: print the accuracy and a table per class.

accuracy.py cifar10/test --model lanet
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from imagexplain.cli.connection import add_arguments, connect
from imagexplain.cli.photos import SUFFIXES
from imagexplain.client import Client, ClientError
from imagexplain.ops.server import ServerError
from imagexplain.progress import say


@dataclass(frozen=True)
class Scored:
    """The result for one image: its folder's class, the classes that the model named, best first, or the fault."""

    image: Path
    truth: str
    named: tuple[str, ...] = ()
    fault: str = ""

    @property
    def right(self) -> bool:
        """Tell whether the best class is the folder's."""
        return self.named[:1] == (self.truth,)


def labelled(folder: Path) -> list[Path]:
    """The images of a labelled folder, sorted. Raises ClientError when there are none."""
    images = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in SUFFIXES)
    if not images:
        raise ClientError(f"no images: wanted {folder}/<class>/<image>, with one of {', '.join(sorted(SUFFIXES))}")
    return images


def score(client: Client, image: Path, model: str) -> Scored:
    """Ask the served model for the classes of one image."""
    truth = image.parent.name
    try:
        predictions = client.photo(f"predictions/{model}", image, accept="application/json").json()["predictions"]
    except ClientError as error:
        return Scored(image, truth, fault=str(error))
    return Scored(image, truth, tuple(item["label"] for item in predictions))


def report(scores: list[Scored]) -> Iterator[str]:
    """The lines of the result: a table by class, what went wrong, and the accuracy over all images that were sent."""
    by_class: dict[str, list[Scored]] = defaultdict(list)
    for scored in scores:
        by_class[scored.truth].append(scored)
    width = max(len("class"), *map(len, by_class))
    yield f"{'class':{width}}  images   right  accuracy  most often mistaken for"
    for truth, group in sorted(by_class.items()):
        right = sum(scored.right for scored in group)
        wrong = Counter(scored.named[0] for scored in group if scored.named and not scored.right).most_common(1)
        mistaken = f"{wrong[0][0]} ({wrong[0][1]})" if wrong else ""
        yield f"{truth:{width}}  {len(group):6d}  {right:6d}  {right / len(group):8.2%}  {mistaken}".rstrip()
    known = {label for scored in scores for label in scored.named}
    for truth in sorted(set(by_class) - known):
        yield f"warning: no answer names {truth!r}: is it a label of this model?"
    faults = [scored for scored in scores if scored.fault]
    for scored in faults[:5]:
        yield f"no answer for {scored.image}: {scored.fault}"
    right = sum(scored.right for scored in scores)
    without = f", {len(faults)} without an answer" if faults else ""
    yield f"accuracy {right / len(scores):.2%} ({right} of {len(scores)}{without})"


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("folder", type=Path)
    made.add_argument("--model", required=True, help="name, or name/version")
    made.add_argument("--connections", type=int, default=8, help="requests under way at once (default: 8)")
    add_arguments(made)
    return made


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    given = parser(prog).parse_args(arguments)
    try:
        images = labelled(given.folder)
        with connect(given) as client, ThreadPoolExecutor(given.connections) as pool:
            answers = pool.map(lambda image: score(client, image, given.model), images)
            scores = list(tqdm(answers, total=len(images), unit=" images"))
    except (ClientError, ServerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    say("\n".join(report(scores)))
    return int(any(scored.fault for scored in scores))
