"""Write the OpenAPI document of the archives in a model store: their endpoints, options, answers and errors.

Its paths name the models, with the version too where a name has several; a name alone means the newest. With --generic
it is that of any server, whose paths take the model's name.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from imagexplain.api.openapi import document
from imagexplain.api.option_schemas import Interface
from imagexplain.checkout import ROOT
from imagexplain.errors import unknown
from imagexplain.ops.store import StoredModel, addressed, stored
from imagexplain.serving.interface import GENERIC, interface_of


def _chosen(models: list[StoredModel], names: Sequence[str]) -> list[StoredModel]:
    """The models of these names, or of names with versions; all, if none is named.

    Raises:
        ValueError: a name that the store does not have, or an empty store.
    """
    if not models:
        raise ValueError("no archive with a spec in the store: build them, or ask for --generic")
    known = set[str]().union(*map(_names, models))
    for name in names:
        if name not in known:
            raise ValueError(unknown("model", name, sorted(known)))
    wanted = set(names or known)
    return [model for model in models if not wanted.isdisjoint(_names(model))]


def _names(model: StoredModel) -> tuple[str, str]:
    return model.spec.name, f"{model.spec.name}/{model.spec.version}"


def interfaces(store: Path, names: Sequence[str] = ()) -> list[Interface]:
    """Interfaces of the models in a store, by the addresses that reach them.

    Args:
        store: Directory of the archives.
        names: Names of models, or names with versions; all, if none is named.

    Raises:
        ValueError: an archive that cannot be read, a name that the store does not have, or an empty store.
    """
    models = addressed(_chosen(stored(store), names))
    return [interface_of(model.spec, address, model.methods) for address, model in models.items()]


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--models", nargs="+", metavar="NAME", help="models of the store (default: all)")
    made.add_argument("--store", type=Path, default=ROOT / "model_store", help="where the archives are")
    made.add_argument("--generic", action="store_true", help="paths with the parameter {model}, and no store")
    made.add_argument("--out", type=Path, help="file to write (default: standard output)")
    return made


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    given = parser(prog).parse_args(arguments)
    try:
        if given.generic:
            made = document(GENERIC, generic=True)
        else:
            made = document(interfaces(given.store, given.models or ()))
        text = json.dumps(made, indent=2, ensure_ascii=False) + "\n"
        if given.out is None:
            print(text, end="")
        else:
            given.out.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
