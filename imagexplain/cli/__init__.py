"""The command ``imagexplain``: its subcommands, each a module that is imported once it is asked for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from imagexplain import __version__
from imagexplain.checkout import MARK, ROOT


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        module: Name of the module whose ``main(arguments, prog)`` runs it.
        summary: Line of the help.
        of_checkout: Flag for a command that works on a checkout's files: handlers, archive specs, settings, scenes.
        extra: Name of the distribution's extra that holds what the command imports beside that of "serve".
    """

    module: str
    summary: str
    of_checkout: bool = False
    extra: str = ""


COMMANDS = {
    "serve": Command("imagexplain.cli.serve", "start, stop or show the server of the archives", of_checkout=True),
    "edge": Command("imagexplain.cli.edge", "start, stop or check the front door, and its keys", of_checkout=True),
    "build": Command("imagexplain.cli.build", "build the model archives from their specs", of_checkout=True),
    "check": Command("imagexplain.cli.check", "check a classifier before it is served", of_checkout=True),
    "explain": Command("imagexplain.cli.explain", "explain a photo by a served model"),
    "batch": Command("imagexplain.cli.batch", "explain the images of JSON lines, without a server"),
    "summarize": Command("imagexplain.cli.summarize", "show what a model looks at over a data set", False, "cluster"),
    "key": Command("imagexplain.cli.key", "print a key of the server on this machine"),
    "openapi": Command("imagexplain.cli.openapi", "write the OpenAPI document of the archives"),
    "accuracy": Command("imagexplain.cli.accuracy", "score a served model on a labelled folder"),
    "compare": Command("imagexplain.cli.compare_methods", "draw all methods on one photo by one classifier"),
    "compare-answers": Command("imagexplain.cli.compare_answers", "compare another service's answers with ours"),
    "demo": Command("imagexplain.cli.demo", "explain one scene by every served model", of_checkout=True),
    "prepare-input": Command("imagexplain.cli.prepare_input", "write a photo as the original servers' JSON"),
    "debug": Command("debugging.command", "find errors, what drove them, and images that help", True, "debugging"),
    "evaluate": Command("evaluation.evaluate", "score explanations by groups against ground truth", of_checkout=True),
    "evaluate-methods": Command("evaluation.evaluate_methods", "score the maps of all methods", of_checkout=True),
    "evaluate-photos": Command("evaluation.evaluate_photos", "score explanations on photographs", of_checkout=True),
    "finetune": Command("training.finetuning.command", "fine-tune a classifier on labelled photos", of_checkout=True),
    "train-captioner": Command("training.captioning.command", "train a captioner of scene graphs", True, "captions"),
    "evaluate-captioner": Command("debugging.evaluate_captioner", "score a captioner's captions", True, "captions"),
}


def run(name: str, arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run a subcommand.

    Args:
        name: Key of :data:`COMMANDS`.
        arguments: Command line after the name; that of this process, if not given.
        prog: Name of the program in messages; the process's own, if not given.

    Returns:
        The exit status.
    """
    command = COMMANDS[name]
    if command.of_checkout:
        if not (ROOT / MARK).is_dir():
            print(f"error: {name}: wanted a checkout to work on, got {ROOT}: run it in one", file=sys.stderr)
            return 1
        if str(ROOT) not in sys.path:
            sys.path.append(str(ROOT))
    try:
        module = import_module(command.module)
    except ModuleNotFoundError as error:
        if (error.name or "imagexplain").partition(".")[0] in ("imagexplain", "debugging", "evaluation", "training"):
            raise
        extras = ",".join(filter(None, ("serve", command.extra)))
        wanted = f"wanted {error.name}, which is not installed: pip install 'imagexplain[{extras}]'"
        print(f"error: {name}: {wanted}", file=sys.stderr)
        return 1
    return module.main(arguments, prog) or 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line ``imagexplain COMMAND …``; returns the exit status."""
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        prog="imagexplain",
        description="Explanations of image models: a library of attribution methods, and a service of them.",
        epilog="\n".join(["commands:", *(f"  {name:{width}}  {each.summary}" for name, each in COMMANDS.items())]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"imagexplain {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of the commands below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the command's own; --help tells them")
    given = parser.parse_args(arguments)
    return run(given.command, given.arguments, f"imagexplain {given.command}")
