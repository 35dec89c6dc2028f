"""Build the model archives: each spec in archive_specs/ becomes model_store/<name>.mar.

An archive holds the package, its handlers, the weights as safetensors, the resolved spec and TorchServe's settings; of
a version other than 1.0 it is <name>@<version>.mar. The same inputs give the same bytes; an archive whose inputs have
not changed is not built again.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from imagexplain.archive.build import build_all
from imagexplain.archive.spec import ClassifierSpec, ModelSpec, SpecError
from imagexplain.checkout import ROOT


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("specs", nargs="*", type=Path, help="spec files (default: archive_specs/*.yaml)")
    made.add_argument("--store", type=Path, default=ROOT / "model_store", help="where the archives go")
    made.add_argument("--force", action="store_true", help="build even what is up to date")
    return made


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """Build what the command line names; returns the exit status."""
    options = parser(prog).parse_args(arguments)
    logging.basicConfig(level=logging.WARNING)
    specs = options.specs or sorted((ROOT / "archive_specs").glob("*.yaml"))
    try:
        build_all(specs, options.store, force=options.force, check=check_served)
    except (SpecError, OSError) as error:  # a full disk, or a store that cannot be written
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def check_served(spec: ModelSpec) -> None:
    """Raise SpecError for a spec that its worker would refuse once it starts."""
    if isinstance(spec, ClassifierSpec) and spec.vertex.explanation_spec is not None:
        from imagexplain.serving.protocols.vertex import check_deployed  # which imports torch, and takes seconds

        check_deployed(spec)
