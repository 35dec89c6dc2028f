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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from imagexplain.api.openapi import document
from imagexplain.api.option_schemas import Interface
from imagexplain.archive.spec import SPEC_FILE, ModelSpec, version_order
from imagexplain.archive.supported_methods import METHODS_FILE, parsed
from imagexplain.checkout import ROOT
from imagexplain.errors import unknown
from imagexplain.ops.check_archive import SPECS
from imagexplain.serving.interface import GENERIC, interface_of


@dataclass(frozen=True)
class Archived:
    """Spec and methods of an archive.

    Attributes:
        spec: Resolved spec.
        methods: Names of the methods that the model supports; None where the archive does not say.
    """

    spec: ModelSpec
    methods: tuple[str, ...] | None


def interfaces(store: Path, names: Sequence[str] = ()) -> list[Interface]:
    """The interfaces of the archives in a store, at the addresses that reach them.

    That is a name, and of several versions of a name each with its version.

    Args:
        store: Directory of the archives.
        names: Names of models, or names with versions; all, if none is named.

    Raises:
        ValueError: an archive that cannot be read, a name that the store does not have, or an empty store.
    """
    archives = _chosen(_archives(store), names)
    versions = Counter(archive.spec.name for archive in archives)
    found: dict[str, Archived] = {}
    for archive in archives:
        found.setdefault(archive.spec.name, archive)
        if versions[archive.spec.name] > 1:
            found[f"{archive.spec.name}/{archive.spec.version}"] = archive
    return [interface_of(archive.spec, address, archive.methods) for address, archive in found.items()]


def _archives(store: Path) -> list[Archived]:
    """The archives in a store that carry a spec, by name, the newest version first."""
    found = []
    for path in sorted(store.glob("*.mar")):
        try:
            with zipfile.ZipFile(path) as content:
                names = content.namelist()
                if SPEC_FILE not in names:
                    continue  # another's archive, of which nothing is known
                text = content.read(SPEC_FILE)
                methods = parsed(content.read(METHODS_FILE), path) if METHODS_FILE in names else None
            found.append(Archived(SPECS[json.loads(text)["handler"]].model_validate_json(text), methods))
        except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValidationError, ValueError) as error:
            raise ValueError(f"{path}: {SPEC_FILE} cannot be read: {error}; build the archive anew") from None
    newest_first = sorted(found, key=lambda archive: version_order(archive.spec.version), reverse=True)
    return sorted(newest_first, key=lambda archive: archive.spec.name)


def _chosen(archives: list[Archived], names: Sequence[str]) -> list[Archived]:
    """The archives of these names, or of names with versions; all, if none is named."""
    if not archives:
        raise ValueError("no archive with a spec in the store: build them, or ask for --generic")
    own = [{archive.spec.name, f"{archive.spec.name}/{archive.spec.version}"} for archive in archives]
    known = set().union(*own)
    for name in names:
        if name not in known:
            raise ValueError(unknown("model", name, sorted(known)))
    wanted = set(names or known)
    return [archive for archive, named in zip(archives, own, strict=True) if wanted & named]


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
