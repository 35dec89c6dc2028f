"""Records of errors by hand, as `find` writes them, with a crop for each responsible segment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.debugging.scene_folder import write_png


def segment(
    label: str, carried: float, feature: Sequence[float] = (1.0, 0.0), rank: int = 1, area: float = 0.25
) -> dict[str, Any]:
    """A segment whose attribution and fall are equal."""
    return {
        "label": label,
        "rank": rank,
        "area_share": area,
        "wrong": {"attribution": carried, "replaced": carried},
        "feature": list(feature),
        "crop": "crop.png",
        "overview": "crop.png",
        "box": {"x": 1, "y": 2, "w": 3, "h": 4},
    }


def error(image: str, named: str, *segments: dict[str, Any], confidence: float = 0.9) -> dict[str, Any]:
    """An error of the image's class folder."""
    truth = image.partition("/")[0]
    return {
        "image": image,
        "truth": truth,
        "named": named,
        "confidence": confidence,
        "feature": [1.0, 0.0],
        "segments": list(segments),
    }


def content(*errors: dict[str, Any], **means: Sequence[float]) -> dict[str, Any]:
    """The content of ``errors.json``; the means are the classes'."""
    truths = sorted({one["truth"] for one in errors})
    classes = {
        name: {
            "images": 10,
            "errors": sum(one["truth"] == name for one in errors),
            "error_mean": list(means.get(name, [1.0, 0.0])),
        }
        for name in truths
    }
    return {"images": 10 * len(truths), "classes": classes, "skipped": [], "errors": list(errors)}


def write_crop(results: Path) -> None:
    """The picture that all segments share."""
    write_png(results / "crop.png", np.full((16, 16, 3), 90, dtype=np.uint8))
