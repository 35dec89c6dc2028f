"""Finding a classifier's spec by its name or its file."""

from __future__ import annotations

from pathlib import Path

from imagexplain.archive.spec import ClassifierFile, ClassifierSpec, ResolvedArchive, load, select
from imagexplain.errors import unknown


def find_classifier(model: str, specs: Path) -> ResolvedArchive:
    """The classifier of that name in a folder of specs, or of that name/version, or that of a spec file.

    Of several versions the newest is meant where none is named.

    Args:
        model: Name, or path of a ``.yaml`` file.
        specs: Folder of the specs.

    Raises:
        ValueError: no such classifier, or a spec that cannot be used.
    """
    if model.endswith((".yaml", ".yml")):
        paths = [Path(model)]
    else:
        known = {path: load(path) for path in sorted(specs.glob("*.yaml"))}
        classifiers = {path: spec for path, spec in known.items() if isinstance(spec, ClassifierFile)}
        paths = [path for path, spec in classifiers.items() if model in (spec.name, f"{spec.name}/{spec.version}")]
        if not paths:
            raise ValueError(unknown("classifier", model, sorted({spec.name for spec in classifiers.values()})))
    found = select(paths)
    if not found:
        raise ValueError(f"{paths[0]}: weights: the environment variable that names them is not set")
    if not isinstance(found[-1].model, ClassifierSpec):
        raise ValueError(f"{paths[0]}: wanted a classifier, got a {found[-1].model.handler}")
    return found[-1]
