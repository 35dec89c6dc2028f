"""Debug a classifier by its explanations: from its errors to what drove them, and to a model that is compared with it.

imagexplain debug find photos/val results --model vit
imagexplain debug concepts results
imagexplain debug select results photos/pool --strategy concept
imagexplain debug annotate results
imagexplain debug split tasks.json captions --split val_sub
imagexplain debug train results photos --sets concept random
imagexplain debug report results photos/test
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class Step:
    """A step of debugging.

    Attributes:
        module: Name of the module whose ``main(arguments, prog)`` runs it.
        summary: Line of the help.
    """

    module: str
    summary: str


STEPS = {
    "find": Step("debugging.find", "find errors, and the segments that drove them"),
    "concepts": Step("debugging.concepts", "group those segments into concepts, to read and to edit"),
    "select": Step("debugging.select", "choose images of a pool, or write prompts"),
    "annotate": Step("debugging.annotate", "ask people about segments, and read their answers"),
    "split": Step("debugging.easy_split", "leave images that people found hard out of a captioner's split"),
    "train": Step("debugging.train", "fine-tune with each debug set, and without any"),
    "report": Step("debugging.report", "compare the models on images that none of them has seen"),
    "study": Step("debugging.shortcut_study", "compare the strategies on scenes with a planted shortcut"),
}
"""Steps in their order."""


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command, which leaves a step's own arguments to the step."""
    width = max(map(len, STEPS))
    made = argparse.ArgumentParser(
        prog=prog,
        description=__doc__,
        epilog="\n".join(["steps:", *(f"  {name:{width}}  {each.summary}" for name, each in STEPS.items())]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("step", choices=STEPS, metavar="STEP", help="one of the steps below")
    made.add_argument("arguments", nargs=argparse.REMAINDER, help="the step's own; --help tells them")
    return made


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    made = parser(prog)
    given = made.parse_args(arguments)
    module = import_module(STEPS[given.step].module)
    from imagexplain.client import ClientError
    from imagexplain.errors import RequestError
    from imagexplain.ops.server import ServerError

    try:
        status: int = module.main(given.arguments, f"{made.prog} {given.step}")
    except (ClientError, ServerError, RequestError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "sklearn":
            raise
        wanted = "wanted scikit-learn, which is not installed: pip install 'imagexplain[debugging]'"
        print(f"error: {given.step}: {wanted}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: run it again to go on", file=sys.stderr)
        return 130
    return status
