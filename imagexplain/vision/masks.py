"""Masks that a client sends over its photo, and their way into the model's frame.

Three forms: COCO run-length masks, a PNG label map, nested lists of booleans. All are in the coordinates of the upright
photo and have its size. None is ever drawn at that size: a mask is its runs, whose number is limited, so that what it
costs to bring hundreds of masks of a large photo into the model's frame is limited, too.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from PIL.PngImagePlugin import PngImageFile
from torch import Tensor

from imagexplain.errors import RequestError, shown
from imagexplain.limits import Limits
from imagexplain.vision import rle
from imagexplain.vision.decode import from_base64, split_profile
from imagexplain.vision.geometry import Geometry
from imagexplain.vision.mask_crops import CroppedMask
from imagexplain.vision.preprocess_fields import Size
from imagexplain.vision.rectangles import Rectangles, of_labels, of_mask

THRESHOLD = 0.5
"""Part of a pixel of the model's frame that a mask must cover at least for the pixel to belong to it."""

_LABEL_MODES = ("1", "L", "P", "I;16", "I")
_LABELS = ("label", "category_name", "name")
MAX_LABEL = 200


class Shape(Protocol):
    """Mask in whatever form it came."""

    def rectangles(self) -> Rectangles:
        """Mask as rectangles over the photo."""
        ...


@dataclass(frozen=True, eq=False)
class PhotoMasks:
    """Masks over an upright photo.

    Attributes:
        size: Height and width of the photo.
        labels: Names, one for each mask.
        shapes: Masks in the form in which they came.
    """

    size: Size
    labels: tuple[str, ...]
    shapes: tuple[Shape, ...]

    @property
    def cut_outs(self) -> tuple[Callable[[], CroppedMask], ...]:
        """Functions that draw the masks, one at a time."""
        return tuple(partial(drawn, shape) for shape in self.shapes)


@dataclass(frozen=True, eq=False)
class ModelMasks:
    """Masks over a model's input.

    Attributes:
        masks: Masks (S, H, W), bool, empty for a mask that lies outside the frame or is empty itself.
        labels: Names, one for each mask.
        cropped: Part (S,), float64, of each mask's area that lies outside the frame, exactly 0 or 1 where none or all
            of it does; 0 for an empty mask.
        rescued: Names of masks that cover no pixel by the threshold and keep the one that they cover best.
    """

    masks: Tensor
    labels: tuple[str, ...]
    cropped: Tensor
    rescued: tuple[str, ...]


def parse_masks(value: object, photo: Size, limits: Limits) -> PhotoMasks:
    """Parse the masks in an option's value.

    Args:
        value: List of COCO masks (``{"size", "counts"}``, or an annotation that holds one as ``segmentation``, with an
            optional ``label``, ``category_name`` or ``name``); a PNG as bytes or base64 text, whose values are labels
            and 0 the background; nested lists (S, H, W) or (H, W) of booleans or of 0 and 1. An empty list is no masks:
            what a segmenter that found nothing says.
        photo: Height and width of the upright photo.
        limits: Limits of pixels and masks.

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


def drawn(shape: Shape) -> CroppedMask:
    """Draw a mask, unless it is drawn already."""
    return shape.cut_out if isinstance(shape, Drawn) else shape.rectangles().cut_out()


def of_cut_outs(cut_outs: Sequence[CroppedMask], size: Size, labels: Sequence[str]) -> PhotoMasks:
    """Masks that are cut out already, over a photo of that height and width."""

    return PhotoMasks(size, tuple(labels), tuple(map(Drawn, cut_outs)))


def to_model(masks: PhotoMasks, geometry: Geometry, before_mask: Callable[[], None] | None = None) -> ModelMasks:
    """Bring each mask into the model's frame, by the part of each pixel's square that it covers.

    A mask with any area in the frame keeps at least the pixel that it covers best (of equally good ones the first), so
    that no small object is lost.

    Args:
        masks: Masks over the photo.
        geometry: Map from the photo to the model's input.
        before_mask: Callback before each of them; what it raises ends the work.
    """
    height, width = geometry.box[2:]
    found = np.zeros((len(masks.labels), height, width), dtype=np.bool_)
    cropped = np.zeros(len(masks.labels))
    rescued = []
    least = math.ceil(THRESHOLD * geometry.pixel)
    for index, shape in enumerate(masks.shapes):
        if before_mask is not None:
            before_mask()
        mask = shape.rectangles()
        areas, (top, left) = geometry.areas(mask)
        inside, area = int(areas.sum()), mask.area * geometry.resized[0] * geometry.resized[1]
        if area == 0:
            continue
        cropped[index] = (area - inside) / area
        if inside == 0:
            continue
        covered = areas >= least
        if not covered.any():
            covered.flat[areas.argmax()] = True
            rescued.append(masks.labels[index])
        found[index, top : top + covered.shape[0], left : left + covered.shape[1]] = covered
    return ModelMasks(torch.from_numpy(found), masks.labels, torch.from_numpy(cropped), tuple(rescued))


@dataclass(frozen=True, eq=False)
class Drawn:
    """Mask that has been drawn already."""

    cut_out: CroppedMask

    def rectangles(self) -> Rectangles:
        """Runs of the mask."""
        return of_mask(self.cut_out.mask, self.cut_out.corner)


@dataclass(frozen=True, eq=False)
class Kept:
    """Mask whose rectangles are known."""

    known: Rectangles

    def rectangles(self) -> Rectangles:
        """Rectangles of the mask."""
        return self.known


def _coco(entries: Sequence[object], photo: Size, limits: Limits) -> PhotoMasks:
    _check_count(len(entries), limits)
    labels: list[str] = []
    shapes: list[rle.Runs] = []
    left = limits.max_runs
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, Mapping):
            raise RequestError(400, "masks", f"wanted a run-length mask as entry {number}, got {shown(entry)}")
        runs = entry.get("segmentation", entry)
        if not isinstance(runs, Mapping):
            wanted = f"wanted a run-length mask (size, counts) in entry {number}, polygons are not read"
            raise RequestError(400, "masks", f"{wanted}, got {shown(runs)}")
        mask = rle.read(runs, photo=photo, most=left)
        left -= len(mask.counts)
        labels.append(_label(entry, number))
        shapes.append(mask)
    return PhotoMasks(photo, tuple(labels), tuple(shapes))


def _label(entry: Mapping[str, Any], number: int) -> str:
    given = next((entry[name] for name in _LABELS if name in entry), None)
    if given is None:
        return f"segment {number}"
    if not isinstance(given, str) or not 0 < len(given) <= MAX_LABEL:
        wanted = f"wanted a label of 1 to {MAX_LABEL} characters in entry {number}"
        raise RequestError(400, "masks", f"{wanted}, got {shown(given)}")
    return given


def _label_map(data: bytes, photo: Size, limits: Limits) -> PhotoMasks:
    wanted = "wanted a PNG label map (grey or palette, 8 or 16 bits)"
    data, _ = split_profile(data, "masks")  # labels are no colours
    try:
        file = PngImageFile(io.BytesIO(data))
    except Exception as error:
        raise RequestError(400, "masks", f"{wanted}: {error}") from None
    if file.mode not in _LABEL_MODES:
        raise RequestError(400, "masks", f"{wanted}, got mode {file.mode}")
    _check_size(file.size[::-1], photo)  # before anything is decoded; the photo's own size is within the limits
    try:
        labels = np.asarray(file)
    except Exception as error:
        raise RequestError(400, "masks", f"{wanted} that can be decoded: {error}") from None
    strips, values = of_labels(labels.view(np.uint8) if labels.dtype == np.bool_ else labels, most=limits.max_runs)
    _check_runs(len(strips), limits)
    order = np.argsort(values, kind="stable")
    present, first = np.unique(values[order], return_index=True)
    _check_count(len(present), limits)
    shapes = tuple(Kept(strips.where(own)) for own in np.split(order, first[1:])) if len(present) else ()
    return PhotoMasks(photo, tuple(f"segment {value}" for value in present), shapes)


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
    shapes, left = [], limits.max_runs
    for mask in array:
        strips, _ = of_labels(mask.astype(np.uint8), most=left)
        left -= len(strips)
        _check_runs(limits.max_runs - left, limits)
        shapes.append(Kept(strips))
    return PhotoMasks(photo, tuple(f"segment {number}" for number in range(1, len(array) + 1)), tuple(shapes))


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.max_groups:
        raise RequestError(413, "masks", f"wanted at most {limits.max_groups} masks, got {count}")


def _check_runs(runs: int, limits: Limits) -> None:
    if runs > limits.max_runs:
        raise RequestError(413, "masks", f"wanted masks of at most {limits.max_runs:,} runs in all, got more")


def _check_size(size: Size, photo: Size) -> None:
    if tuple(size) != tuple(photo):
        wanted = f"wanted masks of the upright photo's {photo[0]} rows and {photo[1]} columns"
        raise RequestError(422, "masks", f"{wanted}, got {size[0]} and {size[1]}")
