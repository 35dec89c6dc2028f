"""The methods that a model supports: found by a trial of each when its archive is built, read when a worker loads."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from imagexplain.archive.manifest import METHODS_FILE
from imagexplain.archive.spec import ClassifierSpec, SpecError
from imagexplain.attribution import METHODS
from imagexplain.attribution.runner import refusals
from imagexplain.models.example_photo import example_photo
from imagexplain.vision.preprocess import apply
from imagexplain.vision.preprocess_settings import Preprocess


def example_input(model: ClassifierSpec) -> Tensor:
    """(3, H, W), a photo through the classifier's own preprocessing."""
    return apply(Image.fromarray(example_photo()), Preprocess(**model.preprocess.model_dump()))[0]


def find_refusals(
    model: Callable[[Tensor], Tensor], image: Tensor, methods: Iterable[str] | None = None
) -> dict[str, str]:
    """Reasons why a model does not support a method, by the method's name; each is tried once.

    Args:
        model: Network as its authors wrote it, or a function of images: (N, 3, H, W) to scores (N, classes).
        image: (3, H, W) model input, of a photo: in one of a single colour there may be nothing to refuse.
        methods: Names of the methods in question; None for all, those included that lie elsewhere.
    """
    return refusals(model, image[None], METHODS if methods is None else methods)


def write(names: Sequence[str], folder: Path) -> None:
    """Write the file of an archive."""
    (folder / METHODS_FILE).write_text(json.dumps({"supported": names}, indent=2) + "\n", encoding="utf-8")


def read(model_dir: Path) -> tuple[str, ...] | None:
    """Names of the supported methods of an unpacked archive, in order; None where it does not say.

    Raises:
        SpecError: a file that is none of :func:`write`.
    """
    file = model_dir / METHODS_FILE
    if not file.is_file():
        return None
    try:
        names = json.loads(file.read_bytes())["supported"]
        if isinstance(names, list) and all(name in METHODS for name in names):
            return tuple(names)
    except (ValueError, TypeError, KeyError):
        pass
    raise SpecError(f"{file}: supported: wanted a list of methods; build the archive anew")


def load(model_dir: Path, try_all: Callable[[], Collection[str]]) -> tuple[str, ...]:
    """Names of the supported methods of an unpacked archive, in order: as it says, or by trial where it does not say.

    Args:
        model_dir: Folder of the archive.
        try_all: Function that tries all methods and gives those that are refused.

    Raises:
        SpecError: as for :func:`read`.
    """
    names = read(model_dir)
    return supported(try_all()) if names is None else names


def supported(refused: Collection[str]) -> tuple[str, ...]:
    """Names of all methods but those that were refused, in order."""
    return tuple(name for name in sorted(METHODS) if name not in refused)
