"""Precomputed features of a request: one vector of the whole photo, and one of each box."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from imagexplain.api.options import numbers
from imagexplain.errors import RequestError, shown
from imagexplain.vision.decode import from_base64

NEAR = 0.5
"""Distance of two sides, pixels, up to which they are those of one box."""

MAX_REGIONS = 10_000
"""Regions of a request, at most."""

_DIMENSIONS = {"image": 1, "regions": 2, "boxes": 2}


@dataclass(frozen=True, eq=False)
class GivenFeatures:
    """Features as a client sent them, all finite.

    Attributes:
        image: Feature (image,) of the whole photo.
        regions: Features (R, region) of R boxes.
        boxes: Boxes (R, 4), x, y, width and height; None where the features are those of a graph's nodes, in order.
    """

    image: Tensor
    regions: Tensor
    boxes: Tensor | None


def features_of(value: Any) -> GivenFeatures | None:
    """The features: an object of ``image``, ``regions`` and ``boxes``, or a safetensors file of tensors so named.

    Args:
        value: Value of the option, None where there is none: decoded JSON, the file, or the file in base64.

    Raises:
        RequestError: 400 for what is malformed, or holds NaN or infinity, 413 for too many regions.
    """
    if value is None:
        return None
    if isinstance(value, str):
        value = from_base64(value, "features")
    if isinstance(value, bytes):
        try:
            value = safetensors.torch.load(value)
        except (safetensors.SafetensorError, ValueError, KeyError) as error:
            raise RequestError(400, "features", f"wanted a safetensors file, or JSON: {error}") from None
    if not isinstance(value, Mapping):
        raise RequestError(400, "features", f"wanted an object with image and regions, got {shown(value)}")
    for name in value:
        if name not in _DIMENSIONS:
            raise RequestError(400, "features", f"wanted image, regions and boxes alone, got {shown(name)}")
    found = {name: _tensor(name, value[name]) for name in value}
    for name in ("image", "regions"):
        if name not in found:
            raise RequestError(400, f"features.{name}", "is missing")
    boxes, regions = found.get("boxes"), found["regions"]
    if len(regions) > MAX_REGIONS:
        raise RequestError(413, "features.regions", f"wanted at most {MAX_REGIONS:,} regions, got {len(regions):,}")
    if boxes is not None and boxes.shape != (len(regions), 4):
        wanted = f"wanted x, y, width and height of each of the {len(regions)} regions"
        raise RequestError(400, "features.boxes", f"{wanted}, got {list(boxes.shape)}")
    return GivenFeatures(found["image"], regions, boxes)


def rows_of(features: GivenFeatures, boxes: Tensor, field: str) -> Tensor:
    """The features (N, region) of a graph's nodes.

    Args:
        features: Features of the request.
        boxes: Box (N, 4) of each node, x, y, width and height.
        field: Field of the graph, for messages.

    Raises:
        RequestError: 422 for a box without a feature.
    """
    if features.boxes is None:
        if len(features.regions) != len(boxes):
            wanted = f"wanted a row for each of the {len(boxes)} nodes of {field}, or boxes beside the rows"
            raise RequestError(422, "features.regions", f"{wanted}, got {len(features.regions)} rows")
        return features.regions
    distances = (boxes[:, None] - features.boxes[None]).abs().amax(2)  # (N, R)
    nearest, places = distances.min(1)
    if (far := nearest > NEAR).any():
        box = boxes[int(far.nonzero()[0])].tolist()
        wanted = f"wanted a feature for the box {[round(side, 2) for side in box]} of {field}"
        raise RequestError(422, "features.boxes", f"{wanted}, got none within {NEAR:g} pixels of it")
    return features.regions[places]


def _tensor(name: str, value: Any) -> Tensor:
    field = f"features.{name}"
    if not isinstance(value, Tensor):
        value = torch.from_numpy(numbers(field, value, "numbers").astype(np.float64))
    dimensions = _DIMENSIONS[name]
    if value.ndim != dimensions or 0 in value.shape:
        kind = "a row" if dimensions == 1 else "rows"
        raise RequestError(400, field, f"wanted {kind} of numbers, got shape {list(value.shape)}")
    if value.is_complex() or value.dtype == torch.bool:
        raise RequestError(400, field, f"wanted real numbers, got {value.dtype}")
    value = value.float()
    if not value.isfinite().all():
        raise RequestError(400, field, "wanted finite numbers, got NaN or infinity")
    return value
