"""Archives of a store, by the names of their models."""

from __future__ import annotations

from pathlib import Path

from imagexplain.archive.spec import in_file_name, version_order
from imagexplain.errors import unknown


def archive_of(model: str, store: Path) -> Path:
    """The archive of a file's path, or of a name or a name/version in a store, the newest where it has several.

    Raises:
        ValueError: no such archive.
    """
    if model.endswith(".mar"):
        if not Path(model).is_file():
            raise ValueError(f"{model}: wanted a model archive, got no file")
        return Path(model)
    known = {path.stem: path for path in store.glob("*.mar")}
    name, _, version = model.partition("/")
    wanted = in_file_name(f"{name}/{version}") if version else name
    fitting = {stem: path for stem, path in known.items() if stem == wanted or (not version and _name(stem) == name)}
    if not fitting:
        raise ValueError(unknown("model", model, sorted(known)))
    return fitting[max(fitting, key=lambda stem: version_order(stem.partition("@")[2] or "1.0"))]


def _name(stem: str) -> str:
    return stem.partition("@")[0]
