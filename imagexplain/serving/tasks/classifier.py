"""Classifiers: one row of scores for each photo, all photos of one size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from imagexplain.api.options import ABSENT_OPTIONS
from imagexplain.api.request import Contract, Defaults, Request, contrast_with, resolve_target
from imagexplain.archive.spec import ClassifierSpec
from imagexplain.attribution.runner import FORWARD_SHARE
from imagexplain.serving.cache import Cache
from imagexplain.serving.deadline import Deadline, ema
from imagexplain.serving.over_photo import frame
from imagexplain.serving.path_attribution import predict, prediction_result, scored
from imagexplain.serving.served_model import ServedModel, load
from imagexplain.serving.task import Decoded, ExplainedScore, Payload
from imagexplain.vision.preprocess import ModelInput, preprocess

SCORES_SHARE = 1 / 16
"""Size of the cache of scores, relative to that of explanations."""


def defaults_of(spec: ClassifierSpec) -> Defaults:
    """The options of requests that say nothing of them."""
    return Defaults(**spec.explain.model_dump(), alpha=spec.preprocess.channels == "rgba")


@dataclass
class Classifier:
    """A classifier, the scores of recent photos, and the running estimate of its speed."""

    contract: ClassVar[Contract] = Contract(prediction_options=ABSENT_OPTIONS)
    batched: ClassVar[bool] = True

    model: ServedModel
    defaults: Defaults
    scores: Cache[Tensor]
    seconds_per_point: float

    @classmethod
    def load(cls, model_dir: Path, device: torch.device) -> Classifier:
        """See :func:`imagexplain.serving.served_model.load`."""
        model = load(model_dir, device)
        cache: Cache[Tensor] = Cache(int(model.spec.limits.cache_bytes * SCORES_SHARE))
        return cls(model, defaults_of(model.spec), cache, model.seconds_per_point)

    @property
    def spec(self) -> ClassifierSpec:
        """The archive's resolved spec."""
        return self.model.spec

    def describe(self) -> str:
        """The model, its device and its speed."""
        speed = f"{self.model.chunk} path points at once, {self.seconds_per_point:.4f} s each"
        return f"{self.spec.address} on {self.model.device}: {speed}"

    def preprocess(self, request: Request) -> ModelInput:
        """The photo at the model's size."""
        return preprocess(request.photo, self.model.preprocess)

    def predict(self, batch: Sequence[Decoded], deadline: Deadline) -> list[Tensor]:
        """(classes,) scores of each photo, on the CPU."""
        known = [None if one.fresh else self.scores.get(one.key) for one in batch]
        unknown = [
            one.seen.image[None] if one.images is None else one.images
            for one, scores in zip(batch, known, strict=True)
            if scores is None
        ]
        images = [image for images in unknown for image in images]
        rows: Iterator[Tensor] = iter(predict(self.model, images) if images else ())
        # A mean over the draws is a copy, too: a row would keep the others alive.
        computed = iter([torch.stack([next(rows) for _ in images]).mean(0) for images in unknown])
        found = [next(computed) if scores is None else scores for scores in known]
        for one, before, scores in zip(batch, known, found, strict=True):
            if before is None:
                self.scores.put(one.key, scores)
        return found

    def payload(self, decoded: Decoded, prediction: Tensor, deadline: Deadline) -> Payload:
        """The best classes, and all scores; of a photo without some groups the classes named, and the model's frame."""
        request, result = decoded.request, prediction_result(self.model, prediction)
        if not request.absent:
            return Payload(result)
        named = [target for target in (request.target, *request.targets) if target is not None]
        indices = [resolve_target(target, self.spec.labels) for target in named]
        if request.contrast is not None:
            indices.append(resolve_target(request.contrast, self.spec.labels, "contrast_class"))
        if indices:
            result["targets"] = scored(self.model, prediction, indices)
        if request.segments is not None:  # a fallback's, perhaps, whose rows are others
            result["segments"] = request.segments.name
        return Payload(result | {"absent": list(request.absent), "frame": frame(decoded.seen.geometry)})

    def best(self, prediction: Tensor, count: int) -> list[int]:
        """Indices of the best classes."""
        return prediction.argsort(descending=True, stable=True)[:count].tolist()

    def explained_score(self, decoded: Decoded, prediction: Tensor) -> ExplainedScore:
        """The score of the class that is asked for, or of the predicted one."""
        target, labels = decoded.request.target, self.spec.labels
        index = self.model.head.predicted(prediction) if target is None else resolve_target(target, labels)
        return ExplainedScore(
            self.model, contrast_with(decoded.request, index, labels), prediction, self.seconds_per_point
        )

    def seconds_per_image(self, image: Tensor) -> float:
        """A part of what a point of a path takes; inputs have one size."""
        return FORWARD_SHARE * self.seconds_per_point

    def observe(self, image: Tensor, points: int, seconds: float) -> None:
        """Learn the speed; inputs have one size."""
        self.seconds_per_point = ema(self.seconds_per_point, seconds, points)
