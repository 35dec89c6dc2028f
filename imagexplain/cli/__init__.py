"""The command ``imagexplain``: its subcommands, each a module that is imported once it is asked for."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
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


GROUPS: Mapping[str, Mapping[str, Command]] = {
    "serving": {
        "serve": Command("imagexplain.cli.serve", "start, stop or show the server of the archives", of_checkout=True),
        "edge": Command("imagexplain.cli.edge", "start, stop or check the front door, and its keys", of_checkout=True),
        "studio": Command("imagexplain.cli.studio", "open the page on which people ask the models", True, "studio"),
        "doctor": Command("imagexplain.cli.doctor", "check this machine, the archives and the server"),
        "key": Command("imagexplain.cli.key", "print a key of the server on this machine"),
        "openapi": Command("imagexplain.cli.openapi", "write the OpenAPI document of the archives"),
    },
    "asking a server": {
        "models": Command("imagexplain.cli.models", "list the served models", extra="client"),
        "methods": Command(
            "imagexplain.cli.methods", "list the methods, or those that a model supports", extra="client"
        ),
        "predict": Command("imagexplain.cli.predict", "say what served models see in photos", extra="client"),
        "explain": Command("imagexplain.cli.explain", "explain photos by served models", extra="client"),
        "compare-served": Command(
            "imagexplain.cli.compare_served", "draw served models' maps side by side", extra="client"
        ),
        "accuracy": Command("imagexplain.cli.accuracy", "score a served model on a labelled folder", extra="client"),
        "demo": Command("imagexplain.cli.demo", "explain photos and a scene by every served model", True, "client"),
        "compare-answers": Command("imagexplain.cli.compare_answers", "compare another service's answers with ours"),
        "prepare-input": Command("imagexplain.cli.prepare_input", "write a photo as the original servers' JSON"),
    },
    "models, without a server": {
        "check": Command("imagexplain.cli.check", "check a classifier before it is served", of_checkout=True),
        "build": Command("imagexplain.cli.build", "build the model archives from their specs", of_checkout=True),
        "batch": Command("imagexplain.cli.batch", "explain the images of a data set, or of JSON lines"),
        "summarize": Command(
            "imagexplain.cli.summarize", "show what a model looks at over a data set", extra="cluster"
        ),
        "compare": Command("imagexplain.cli.compare_methods", "draw all methods on one photo by one classifier"),
        "finetune": Command("training.finetuning.command", "fine-tune a classifier on labelled photos", True),
        "train-captioner": Command(
            "training.captioning.command", "train a captioner of scene graphs", True, "captions"
        ),
    },
    "studies": {
        "debug": Command(
            "debugging.command", "find errors, what drove them, and images that help", True, "client,debugging"
        ),
        "evaluate": Command("evaluation.evaluate", "score explanations by groups against ground truth", True),
        "evaluate-methods": Command("evaluation.evaluate_methods", "score the maps of all methods", True),
        "evaluate-photos": Command("evaluation.evaluate_photos", "score explanations on photographs", True),
        "evaluate-captioner": Command("debugging.evaluate_captioner", "score a captioner's captions", True, "captions"),
    },
    "the shell": {
        "completion": Command("imagexplain.cli.completion", "print what completes these commands", extra="client"),
    },
}
"""Subcommands by what they are for, in the order of the help."""

COMMANDS: Mapping[str, Command] = {name: each for group in GROUPS.values() for name, each in group.items()}


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
    if "_ARGCOMPLETE" in os.environ:  # a shell asks for words, and only for those
        from imagexplain.cli.completion import answer

        answer()
    parser = argparse.ArgumentParser(
        prog="imagexplain",
        description="Explanations of image models: a library of attribution methods, and a service of them.",
        epilog=_listing(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"imagexplain {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of the commands below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the command's own; --help tells them")
    given = parser.parse_args(arguments)
    return run(given.command, given.arguments, f"imagexplain {given.command}")


def _listing() -> str:
    """Lines of the help with the commands, group by group."""
    width = max(map(len, COMMANDS))
    return "\n\n".join(
        "\n".join([f"{group}:", *(f"  {name:{width}}  {each.summary}" for name, each in commands.items())])
        for group, commands in GROUPS.items()
    )
