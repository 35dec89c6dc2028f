"""COCO's average precision of instance masks, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as run_length
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from training.instances import Instances, masks_of


@dataclass(frozen=True)
class Precision:
    """Averages over classes, in [0, 1].

    Attributes:
        ap: Average precision over the overlaps .50, .55 … .95 that count as found.
        ap50: Average precision at an overlap of one half.
    """

    ap: float
    ap50: float


def mask_precision(found: Sequence[tuple[Tensor, Tensor, Tensor]], truth: Instances) -> Precision:
    """The average precision of masks.

    Args:
        found: Masks (N, H, W) bool, scores (N,) and labels (N,) int64 of each scene.
        truth: Scenes with their instances.
    """
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image, (masks, scores, labels) in enumerate(found):
        for mask, label in zip(*masks_of(truth.owners[image], truth.classes[image]), strict=True):
            area = int(mask.sum())
            annotations.append({**_entry(image, mask, label), "id": len(annotations) + 1, "area": area, "iscrowd": 0})
        results += [
            {**_entry(image, mask, label), "score": float(score)}
            for mask, score, label in zip(masks, scores, labels, strict=True)
        ]
    if not results:
        return Precision(0.0, 0.0)
    height, width = truth.owners.shape[1:]
    categories = sorted({annotation["category_id"] for annotation in annotations})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": image, "height": height, "width": width} for image in range(len(found))],
            "annotations": annotations,
            "categories": [{"id": category} for category in categories],
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return Precision(float(evaluation.stats[0]), float(evaluation.stats[1]))


def _entry(image: int, mask: Tensor, label: Tensor) -> dict[str, Any]:
    runs = run_length.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
    return {"image_id": image, "category_id": int(label), "segmentation": runs}
