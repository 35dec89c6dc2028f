"""Folders of images: labelled ones, <folder>/<class>/<image>, and plain ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imagexplain.errors import ArgumentError, RequestError
from imagexplain.limits import Limits
from imagexplain.vision.decode import Photo, decode

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class ImageFolder:
    """Images of a folder, by name.

    Attributes:
        root: The folder.
        names: Paths of the images within it, with forward slashes, sorted by their code points.
        classes: Names of the class folders, sorted; none in a plain folder.
    """

    root: Path
    names: tuple[str, ...]
    classes: tuple[str, ...]

    def file(self, name: str) -> Path:
        """File of an image."""
        return self.root / name

    def label(self, name: str) -> str | None:
        """Class folder of an image; None in a plain folder."""
        return name.partition("/")[0] if self.classes else None


def labelled_folder(root: Path) -> ImageFolder:
    """The images of <root>/<class>/, with every class.

    Raises:
        ArgumentError: no such folder, none within it, or one without an image.
    """
    classes = sorted(path.name for path in root.glob("*") if path.is_dir() and not path.name.startswith("."))
    if not classes:
        raise ArgumentError("folder", f"wanted {root}/<class>/<image>, got no class folder")
    found = {name: _images(root / name) for name in classes}
    empty = [name for name in classes if not found[name]]
    if empty:
        wanted = f"wanted an image ({', '.join(SUFFIXES)}) in each class folder"
        raise ArgumentError("folder", f"{wanted}, got none in {', '.join(str(root / name) for name in empty)}")
    return ImageFolder(root, tuple(sorted(f"{name}/{file}" for name in classes for file in found[name])), (*classes,))


def any_folder(root: Path) -> ImageFolder:
    """The images of a labelled folder, or those of a plain one, which has images and no class folders.

    Raises:
        ArgumentError: neither of both, or both.
    """
    plain = _images(root)
    if not plain:
        return labelled_folder(root)
    if any(_images(path) for path in root.glob("*") if path.is_dir()):
        raise ArgumentError("pool", f"wanted images or class folders of images in {root}, got both")
    return ImageFolder(root, tuple(plain), ())


def read_photo(file: Path) -> Photo:
    """The upright photo in a file, as the service decodes it.

    Raises:
        ArgumentError: it cannot be read, or is no photo; the field is the file's name.
    """
    try:
        return decode(file.read_bytes(), Limits())
    except OSError as error:
        raise ArgumentError(file.name, f"cannot be read: {error.strerror}") from None
    except RequestError as error:
        raise ArgumentError(file.name, error.message) from None


def _images(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
