"""A store's archives by the names of their models, and the models as these describe them: nothing is unpacked."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from imagexplain.archive.manifest import METHODS_FILE
from imagexplain.archive.spec import SPEC_FILE, ModelSpec, in_file_name, version_order
from imagexplain.errors import unknown
from imagexplain.ops.check_archive import SPECS


@dataclass(frozen=True)
class StoredModel:
    """A model of a store.

    Attributes:
        spec: Spec that its archive carries.
        methods: Names of the supported methods; None where the archive does not say.
    """

    spec: ModelSpec
    methods: tuple[str, ...] | None


def stored(store: Path) -> list[StoredModel]:
    """The models of a store whose archives carry a spec, by name, the newest version first.

    Raises:
        ValueError: an archive that cannot be read, or whose spec is another version's of this package.
    """
    found = []
    for path in sorted(store.glob("*.mar")):
        try:
            with zipfile.ZipFile(path) as content:
                files = set(content.namelist())
                if SPEC_FILE not in files:
                    continue  # another's archive, of which nothing is known
                text = content.read(SPEC_FILE)
                spec = SPECS[json.loads(text)["handler"]].model_validate_json(text)
                methods = tuple(json.loads(content.read(METHODS_FILE))["supported"]) if METHODS_FILE in files else None
            found.append(StoredModel(spec, methods))
        except (OSError, zipfile.BadZipFile, KeyError, TypeError, ValidationError, ValueError) as error:
            raise ValueError(f"{path}: {SPEC_FILE} cannot be read: {error}; build the archive anew") from None
    newest_first = sorted(found, key=lambda model: version_order(model.spec.version), reverse=True)
    return sorted(newest_first, key=lambda model: model.spec.name)


def addressed(models: Sequence[StoredModel]) -> dict[str, StoredModel]:
    """The models by the addresses that reach them: a name, and of several versions of a name each with its version."""
    versions = Counter(model.spec.name for model in models)
    found: dict[str, StoredModel] = {}
    for model in models:
        found.setdefault(model.spec.name, model)
        if versions[model.spec.name] > 1:
            found[f"{model.spec.name}/{model.spec.version}"] = model
    return found


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
