"""Segments of a photo: superpixels, a grid, or label maps from files or from a segmenter.

A source gives them over the model's input, or says what a request to a server has to hold to get the same there. Label
maps do not overlap: of a segmenter's instances the smaller lies over the larger.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imagexplain.errors import ArgumentError, RequestError
from imagexplain.limits import Limits
from imagexplain.vision.decode import Photo
from imagexplain.vision.mask_crops import stack_full_masks
from imagexplain.vision.masks import parse_masks, to_model
from imagexplain.vision.preprocess import ModelInput
from imagexplain.vision.superpixels import GridSettings, SlicSettings, grid, one_hot, slic

NAMES_FILE = "labels.json"
"""File in a folder of label maps that names their values: ``{"1": "sky", …}``."""


@dataclass(frozen=True, eq=False)
class Segments:
    """Segments of one photo over the model's input.

    Attributes:
        masks: Masks (S, H, W), bool.
        labels: Names (S,).
    """

    masks: Tensor
    labels: tuple[str, ...]


@dataclass(frozen=True)
class SegmentRequest:
    """Segments of one photo as a server is asked for them.

    Attributes:
        fields: Options of the request.
        names: Names of the segments by the names that the answer has; all others keep theirs.
    """

    fields: Mapping[str, Any]
    names: Mapping[str, str] = field(default_factory=dict)


class Segmentation(Protocol):
    """A source of segments."""

    @property
    def named(self) -> bool:
        """Tell whether the names mean something, as a segmenter's do, and a superpixel's do not."""
        ...

    def segments(self, name: str, photo: Photo, seen: ModelInput) -> Segments:
        """Segments of the image of that name in its folder."""
        ...

    def request(self, name: str, photo: Photo) -> SegmentRequest:
        """The same segments as a server is asked for them."""
        ...


@dataclass(frozen=True)
class Superpixels:
    """Superpixels of the picture as the model sees it, as the service makes them."""

    settings: SlicSettings
    named: bool = False

    def segments(self, name: str, photo: Photo, seen: ModelInput) -> Segments:
        """See the protocol."""
        picture = seen.of_photo(seen.preprocess.rgb(seen.image))
        return _numbered("slic", slic(picture, self.settings, Limits().max_groups), seen)

    def request(self, name: str, photo: Photo) -> SegmentRequest:
        """See the protocol."""
        settings = {"n_segments": self.settings.n_segments, "compactness": self.settings.compactness}
        return SegmentRequest({"segments": "slic", **settings})


@dataclass(frozen=True)
class Grid:
    """The cells of a grid over the model's input."""

    settings: GridSettings
    named: bool = False

    def segments(self, name: str, photo: Photo, seen: ModelInput) -> Segments:
        """See the protocol."""
        height, width = seen.of_photo(seen.image).shape[1:]
        return _numbered("grid", grid((height, width), self.settings), seen)

    def request(self, name: str, photo: Photo) -> SegmentRequest:
        """See the protocol."""
        return SegmentRequest({"segments": "grid", "rows": self.settings.rows, "columns": self.settings.columns})


@dataclass(frozen=True)
class LabelMaps:
    """A folder of PNG label maps, <folder>/<class>/<image>.png, of the photos' size; 0 is what no segment covers.

    ``labels.json`` in it names the values: ``{"1": "sky"}``.
    """

    folder: Path

    @cached_property
    def names(self) -> Mapping[str, str]:
        """Names of the values, as far as there are any.

        Raises:
            ArgumentError: a file that does not hold names.
        """
        file = self.folder / NAMES_FILE
        if not file.exists():
            return {}
        try:
            names = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ArgumentError("masks", f"{file}: wanted JSON: {error}") from None
        if not isinstance(names, dict) or not all(isinstance(value, str) and value for value in names.values()):
            raise ArgumentError("masks", f'{file}: wanted names by value, such as {{"1": "sky"}}')
        return names

    @property
    def named(self) -> bool:
        """See the protocol."""
        return bool(self.names)

    def segments(self, name: str, photo: Photo, seen: ModelInput) -> Segments:
        """See the protocol.

        Raises:
            ArgumentError: no label map for the image, or one that does not fit it.
        """
        return _brought(self._read(name), self.names, photo, seen, str(self.folder / name))

    def request(self, name: str, photo: Photo) -> SegmentRequest:
        """See the protocol."""
        return _sent(self._read(name), self.names)

    def _read(self, name: str) -> bytes:
        file = (self.folder / name).with_suffix(".png")
        try:
            return file.read_bytes()
        except OSError as error:
            raise ArgumentError("masks", f"wanted the label map {file}: {error.strerror}") from None


@dataclass(frozen=True)
class Instances:
    """Instances that a segmenter of a server finds in the photo, under their labels.

    Attributes:
        find: Function from a photo to the segmenter's answer as JSON.
    """

    find: Callable[[Photo], Mapping[str, Any]]
    named: bool = True

    def segments(self, name: str, photo: Photo, seen: ModelInput) -> Segments:
        """See the protocol."""
        content, names = self._found(photo)
        return _brought(content, names, photo, seen, name)

    def request(self, name: str, photo: Photo) -> SegmentRequest:
        """See the protocol."""
        return _sent(*self._found(photo))

    def _found(self, photo: Photo) -> tuple[bytes, Mapping[str, str]]:
        found = parse_masks(self.find(photo).get("detections", []), photo.size, Limits())
        masks = stack_full_masks([draw() for draw in found.cut_outs], photo.size)
        names = {str(number): label for number, label in enumerate(found.labels, 1)}
        return label_map(torch.from_numpy(masks)), names


def label_map(masks: Tensor) -> bytes:
    """PNG label map of masks (S, H, W): 1 … S, 0 where there is none; a smaller mask lies over a larger one."""
    order = masks.flatten(1).sum(1).argsort(descending=True, stable=True)
    values = np.zeros(masks.shape[1:], dtype=np.uint16 if len(masks) > 255 else np.uint8)
    for index in order.tolist():
        values[masks[index].numpy()] = index + 1
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def over_photo(masks: Tensor, seen: ModelInput) -> Tensor:
    """Masks (S, H, W) over the model's input as masks over the photo; what the model does not see is in none."""
    return torch.stack([seen.geometry.labels_to_photo(mask.long(), 0) == 1 for mask in masks])


def _numbered(kind: str, labels: Tensor, seen: ModelInput) -> Segments:
    """Segments of labels (h, w) over the input's part that shows the photo."""
    masks = seen.over_padding(one_hot(labels))
    return Segments(masks, tuple(f"{kind} {number}" for number in range(1, len(masks) + 1)))


def _brought(content: bytes, names: Mapping[str, str], photo: Photo, seen: ModelInput, place: str) -> Segments:
    """Segments of a PNG label map over the photo, in the model's frame."""
    try:
        masks = parse_masks(content, photo.size, Limits())
    except RequestError as error:
        raise ArgumentError("masks", f"{place}: {error.message}") from None
    known = _names_in_answers(names)
    return Segments(to_model(masks, seen.geometry).masks, tuple(known.get(label, label) for label in masks.labels))


def _sent(content: bytes, names: Mapping[str, str]) -> SegmentRequest:
    return SegmentRequest({"masks": base64.b64encode(content).decode("ascii")}, _names_in_answers(names))


def _names_in_answers(names: Mapping[str, str]) -> dict[str, str]:
    """Names by the label that a PNG's value has everywhere."""
    return {f"segment {value}": name for value, name in names.items()}
