"""Write the OpenAPI document of the archives in a model store: their endpoints, options, answers and errors.

Its paths name the models, with the version too where a name has several; a name alone means the newest. With --generic
it is that of any server, whose paths take the model's name.
"""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
from collections import Counter
from pathlib import Path

from pydantic import ValidationError

from imagexplain.api.openapi import document
from imagexplain.archive.spec import SPEC_FILE, ModelSpec, version_order
from imagexplain.checkout import ROOT
from imagexplain.errors import unknown
from imagexplain.ops.check_archive import SPECS
from imagexplain.serving.interface import GENERIC, interface_of


def specs_of(store: Path) -> list[ModelSpec]:
    """The specs of the archives in a store that carry one, by name, the newest version first.

    Raises:
        ValueError: an archive that cannot be read, or whose spec is another version's of this package.
    """
    found = []
    for path in sorted(store.glob("*.mar")):
        try:
            with zipfile.ZipFile(path) as content:
                if SPEC_FILE not in content.namelist():
                    continue  # another's archive, of which nothing is known
                text = content.read(SPEC_FILE)
            found.append(SPECS[json.loads(text)["handler"]].model_validate_json(text))
        except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValidationError, ValueError) as error:
            raise ValueError(f"{path}: {SPEC_FILE} cannot be read: {error}; build the archive anew") from None
    newest_first = sorted(found, key=lambda spec: version_order(spec.version), reverse=True)
    return sorted(newest_first, key=lambda spec: spec.name)


def addressed(specs: list[ModelSpec]) -> dict[str, ModelSpec]:
    """The specs by the addresses that reach them: a name, and of several versions of a name each with its version."""
    versions = Counter(spec.name for spec in specs)
    found: dict[str, ModelSpec] = {}
    for spec in specs:
        found.setdefault(spec.name, spec)
        if versions[spec.name] > 1:
            found[f"{spec.name}/{spec.version}"] = spec
    return found


def chosen(specs: list[ModelSpec], names: list[str] | None) -> list[ModelSpec]:
    """The specs of these names, or of names with versions; all, if none is named.

    Raises:
        ValueError: a name that the store does not have, or an empty store.
    """
    if not specs:
        raise ValueError("no archive with a spec in the store: build them, or ask for --generic")
    known = {spec.name for spec in specs} | {f"{spec.name}/{spec.version}" for spec in specs}
    for name in names or ():
        if name not in known:
            raise ValueError(unknown("model", name, sorted(known)))
    wanted = set(names or known)
    return [spec for spec in specs if not wanted.isdisjoint((spec.name, f"{spec.name}/{spec.version}"))]


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", metavar="NAME", help="models of the store (default: all)")
    parser.add_argument("--store", type=Path, default=ROOT / "model_store", help="where the archives are")
    parser.add_argument("--generic", action="store_true", help="paths with the parameter {model}, and no store")
    parser.add_argument("--out", type=Path, help="file to write (default: standard output)")
    given = parser.parse_args(arguments)
    try:
        if given.generic:
            made = document(GENERIC, generic=True)
        else:
            models = addressed(chosen(specs_of(given.store), given.models))
            made = document([interface_of(spec, address) for address, spec in models.items()])
        text = json.dumps(made, indent=2, ensure_ascii=False) + "\n"
        if given.out is None:
            print(text, end="")
        else:
            given.out.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
