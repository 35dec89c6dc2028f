"""Masks that a client sends over its photo, and their way into the model's frame.

Three forms: COCO run-length masks, a PNG label map, nested lists of booleans. All are in the coordinates of the upright
photo and have its size. They are brought into the model's frame one by one, so that hundreds of masks of a large photo
never stand in memory together.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngImageFile
from scipy import ndimage
from torch import Tensor

from handlers.cut_out import CutOut
from handlers.wire import rle
from handlers.wire.errors import RequestError, shown
from handlers.wire.geometry import Geometry, Size
from handlers.wire.image import from_base64
from handlers.wire.limits import Limits

THRESHOLD = 0.5
"""A pixel of the model's frame belongs to a mask that covers at least this part of it."""

_LABEL_MODES = ("1", "L", "P", "I;16", "I")
_LABELS = ("label", "category_name", "name")
_LONGEST_LABEL = 200


@dataclass(frozen=True, eq=False)
class PhotoMasks:
    """Masks over an upright photo.

    Attributes:
        size: the photo's (height, width).
        labels: one for each mask.
        cut_outs: make the masks, one at a time.
    """

    size: Size
    labels: tuple[str, ...]
    cut_outs: tuple[Callable[[], CutOut], ...]


@dataclass(frozen=True, eq=False)
class ModelMasks:
    """Masks over a model's input.

    Attributes:
        masks: (S, H, W) bool, empty for a mask that lies outside the frame or is empty itself.
        labels: one for each mask.
        cropped: (S,) float64, the part of each mask's area that lies outside the frame; 0 for an empty mask.
        rescued: labels of masks that cover no pixel by the threshold and keep the one that they cover best.
    """

    masks: Tensor
    labels: tuple[str, ...]
    cropped: Tensor
    rescued: tuple[str, ...]


def parse_masks(value: object, photo: Size, limits: Limits) -> PhotoMasks:
    """The masks in an option's value.

    Args:
        value: a list of COCO masks (``{"size", "counts"}``, or an annotation that holds one as ``segmentation``, with
            an optional ``label``, ``category_name`` or ``name``); a PNG as bytes or base64 text, whose values are
            labels and 0 the background; nested lists (S, H, W) or (H, W) of booleans or of 0 and 1. An empty list is no
            masks: what a segmenter that found nothing says.
        photo: (height, width) of the upright photo.
        limits: bounds pixels and masks.

    Raises:
        RequestError: 400 for what cannot be read, 413 for too many, 422 for masks of another size than the photo.
    """
    if isinstance(value, str):
        value = from_base64(value, "masks")
    if isinstance(value, bytes):
        return _label_map(value, photo, limits)
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list | tuple):
        wanted = "wanted COCO run-length masks, a PNG label map or nested lists of booleans"
        raise RequestError(400, "masks", f"{wanted}, got {shown(value)}")
    if not value:
        return PhotoMasks(photo, (), ())
    if isinstance(value[0], Mapping):
        return _coco(value, photo, limits)
    return _array(value, photo, limits)


def of_cut_outs(cut_outs: Sequence[CutOut], size: Size, labels: Sequence[str]) -> PhotoMasks:
    """Masks that are cut out already, over a photo of that height and width."""

    def kept(cut_out: CutOut) -> Callable[[], CutOut]:
        return lambda: cut_out

    return PhotoMasks(size, tuple(labels), tuple(map(kept, cut_outs)))


def to_model(masks: PhotoMasks, geometry: Geometry) -> ModelMasks:
    """Each mask in the model's frame, by the part of each pixel's square that it covers.

    A mask with any area in the frame keeps at least the pixel that it covers best, so that no small object is lost.
    """
    height, width = geometry.box[2:]
    found = torch.zeros(len(masks.labels), height, width, dtype=torch.bool)
    cropped = torch.zeros(len(masks.labels), dtype=torch.float64)
    rescued = []
    pixel_area = (geometry.photo[0] / geometry.resized[0]) * (geometry.photo[1] / geometry.resized[1])
    for index, make in enumerate(masks.cut_outs):
        cut_out = make()
        area = float(cut_out.mask.sum())
        if area == 0:
            continue
        coverage = geometry.coverage(cut_out.mask, cut_out.corner)
        cropped[index] = max(0.0, 1 - coverage.sum().item() * pixel_area / area)
        found[index] = coverage >= THRESHOLD - 1e-9
        if not found[index].any() and coverage.max() > 0:
            found[index].view(-1)[coverage.argmax()] = True
            rescued.append(masks.labels[index])
    cropped[cropped < 1e-9] = 0  # rounding
    return ModelMasks(found, masks.labels, cropped, tuple(rescued))


def _coco(entries: Sequence[object], photo: Size, limits: Limits) -> PhotoMasks:
    _check_count(len(entries), limits)
    labels, makers = [], []
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, Mapping):
            raise RequestError(400, "masks", f"wanted a run-length mask as entry {number}, got {shown(entry)}")
        runs = entry.get("segmentation", entry)
        if not isinstance(runs, Mapping):
            wanted = f"wanted a run-length mask (size, counts) in entry {number}, polygons are not read"
            raise RequestError(400, "masks", f"{wanted}, got {shown(runs)}")
        mask = rle.read(runs)
        _check_size(mask.size, photo)
        labels.append(_label(entry, number))
        makers.append(partial(_from_runs, mask))
    return PhotoMasks(photo, tuple(labels), tuple(makers))


def _from_runs(runs: rle.Runs) -> CutOut:
    columns, first = runs.cut_out()
    return CutOut(columns, (0, first))


def _label(entry: Mapping[str, Any], number: int) -> str:
    given = next((entry[name] for name in _LABELS if name in entry), None)
    if given is None:
        return f"segment {number}"
    if not isinstance(given, str) or not 0 < len(given) <= _LONGEST_LABEL:
        wanted = f"wanted a label of 1 to {_LONGEST_LABEL} characters in entry {number}"
        raise RequestError(400, "masks", f"{wanted}, got {shown(given)}")
    return given


def _label_map(data: bytes, photo: Size, limits: Limits) -> PhotoMasks:
    wanted = "wanted a PNG label map (grey or palette, 8 or 16 bits)"
    try:
        file = PngImageFile(io.BytesIO(data))
    except Exception as error:
        raise RequestError(400, "masks", f"{wanted}: {error}") from None
    if file.mode not in _LABEL_MODES:
        raise RequestError(400, "masks", f"{wanted}, got mode {file.mode}")
    _check_size(file.size[::-1], photo)  # before anything is decoded; the photo's own size is within the limits
    try:
        labels = np.asarray(file).astype(np.int32)
    except Exception as error:
        raise RequestError(400, "masks", f"{wanted} that can be decoded: {error}") from None
    values = np.unique(labels)
    values = values[values > 0]
    _check_count(len(values), limits)
    dense = np.searchsorted(values, labels) + 1  # find_objects makes an entry for every value up to the largest
    dense[labels == 0] = 0
    boxes = ndimage.find_objects(dense.astype(np.int32))
    makers = tuple(partial(_from_labels, labels, int(value), box) for value, box in zip(values, boxes, strict=True))
    return PhotoMasks(photo, tuple(f"segment {value}" for value in values), makers)


def _from_labels(labels: NDArray[np.int32], value: int, box: tuple[slice, slice]) -> CutOut:
    return CutOut(labels[box] == value, (box[0].start, box[1].start))


def _array(nested: Sequence[Any], photo: Size, limits: Limits) -> PhotoMasks:
    wanted = "wanted masks as nested lists (masks, rows, columns) of booleans"
    try:
        array = np.array(nested)
    except (ValueError, TypeError, OverflowError):
        raise RequestError(400, "masks", f"{wanted}, got a ragged list") from None
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or array.dtype.kind not in "bi":
        raise RequestError(400, "masks", f"{wanted}, got shape {array.shape} of {array.dtype}")
    if array.dtype.kind == "i" and (array.min(initial=0) < 0 or array.max(initial=0) > 1):
        raise RequestError(400, "masks", f"{wanted} or of 0 and 1, got {array.max(initial=0)}")
    _check_count(len(array), limits)
    _check_size((array.shape[1], array.shape[2]), photo)
    cut_outs = [CutOut(mask, (0, 0)) for mask in array.astype(np.bool_)]
    return of_cut_outs(cut_outs, photo, [f"segment {number}" for number in range(1, len(array) + 1)])


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.max_groups:
        raise RequestError(413, "masks", f"wanted at most {limits.max_groups} masks, got {count}")


def _check_size(size: Size, photo: Size) -> None:
    if tuple(size) != tuple(photo):
        wanted = f"wanted masks of the upright photo's {photo[0]} rows and {photo[1]} columns"
        raise RequestError(422, "masks", f"{wanted}, got {size[0]} and {size[1]}")
