"""Masks of a request, in the forms that the service takes."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import msgspec
import numpy as np
from numpy.typing import NDArray

from imagexplain.api.schema import Instance, RunLengths
from imagexplain.client.errors import InputError
from imagexplain.client.photos import read

if TYPE_CHECKING:
    from PIL.Image import Image

RunLengthMask: TypeAlias = Instance | RunLengths | Mapping[str, Any]
"""A mask as COCO's run lengths, or what holds one."""
Masks: TypeAlias = Union[
    str, os.PathLike[str], bytes, "Image", NDArray[Any], Mapping[str, Any], Sequence[RunLengthMask]
]
"""Masks over the upright photo: a file, or its bytes (a PNG whose values are labels, or COCO's run lengths as JSON); an
array (S, H, W) or (H, W) of booleans, or (H, W) of labels; run lengths; or what a segmenter has found."""


def masks_in_json(masks: Masks) -> Any:
    """The masks as a field of JSON.

    Raises:
        InputError: none that the service takes.

    Example:
        >>> import numpy as np
        >>> from imagexplain.client.masks import masks_in_json
        >>> masks_in_json(np.array([[False, True], [False, True]]))
        [{'size': [2, 2], 'counts': [2, 2]}]
    """
    if isinstance(masks, str | os.PathLike):
        masks = read(Path(masks))
    if isinstance(masks, bytes):
        return content_in_json(masks)
    if isinstance(masks, np.ndarray):
        return _of_array(masks)
    if isinstance(masks, Mapping | Sequence):
        return msgspec.to_builtins(masks)
    if hasattr(masks, "save"):
        return _png(np.asarray(masks))
    raise InputError(f"masks: wanted a file, an array or run lengths, got {type(masks).__name__}")


def content_in_json(data: bytes) -> Any:
    """A file's contents as a field of JSON: what its JSON says, or else its bytes in base64."""
    if data[:64].lstrip()[:1] in (b"[", b"{"):
        try:
            return json.loads(data)
        except ValueError as error:
            raise InputError(f"wanted JSON: {error}") from None
    return base64.b64encode(data).decode("ascii")


def run_lengths(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """COCO's run lengths of a mask (H, W): runs of zeros and ones in turn, zeros first, down the columns."""
    flat = mask.ravel(order="F")
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], ends, [flat.size]]))
    first = [0] if flat.size and flat[0] else []
    return {"size": list(mask.shape), "counts": [*first, *counts.tolist()]}


def _of_array(masks: NDArray[Any]) -> Any:
    if masks.dtype == np.bool_ and masks.ndim in (2, 3):
        return [run_lengths(mask) for mask in (masks[None] if masks.ndim == 2 else masks)]
    if np.issubdtype(masks.dtype, np.integer) and masks.ndim == 2:
        return _png(masks)
    wanted = "masks: wanted booleans (S, H, W) or (H, W), or labels (H, W)"
    raise InputError(f"{wanted}, got {masks.dtype} of shape {masks.shape}")


def _png(labels: NDArray[Any]) -> str:
    from PIL import Image

    if labels.ndim != 2 or labels.size == 0 or labels.min() < 0 or labels.max() > 65_535:
        raise InputError(f"masks: wanted labels (H, W) from 0 to 65,535, got an array of shape {labels.shape}")
    file = io.BytesIO()
    Image.fromarray(labels.astype(np.uint8 if labels.max() < 256 else np.uint16)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")
