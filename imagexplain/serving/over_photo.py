"""The entries of an answer that place it over the photo: the model's frame, and the groups' masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagexplain.api.request import has_label_map, has_runs
from imagexplain.serving.prepared_request import PreparedRequest
from imagexplain.vision.geometry import Geometry


def frame(geometry: Geometry) -> dict[str, Any]:
    """Sizes (height, width) of the photo and of the model's input, and the part of the photo that this shows."""
    return {"photo": list(geometry.photo), "input": list(geometry.box[2:]), "box": list(geometry.view)}


def photo_masks(result: Mapping[str, Any], sample: PreparedRequest) -> dict[str, Any]:
    """The entries of an explanation whose groups are wanted over the photo: rows with run-length masks, and a map.

    Raises:
        RequestError: 413 for masks of more runs than there may be.
    """
    request, groups = sample.request, sample.over_photo
    found: dict[str, Any] = {}
    if groups is None:
        return found
    if has_runs(request):
        rows = zip(result["groups"], groups.segmentations, strict=True)
        found["groups"] = [row if mask is None else {**row, "segmentation": mask} for row, mask in rows]
    if has_label_map(request):
        found["photo_label_map"] = groups.label_map
    return found
