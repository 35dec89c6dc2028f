"""The protocol of a kind of model whose answer to a photo is scores: all that a worker has to know of classifiers,
segmenters and kinds to come.

A kind is one class. It says which options its requests have, sees a photo as its model does, predicts, and gives the
score that an explanation is of; parsing, admission, attribution, caching and encoding are the worker's
(:mod:`imagexplain.serving.worker`). A kind that answers otherwise, as a captioner does with several graphs and many
words, has a worker of its own (:mod:`imagexplain.serving.request_loop`).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar

import torch
from PIL import Image
from torch import Tensor

from imagexplain.api.request import Contract, Defaults, Request
from imagexplain.archive.spec import ModelSpec
from imagexplain.attribution.differences import Target
from imagexplain.serving.deadline import Deadline
from imagexplain.serving.method_attribution import Inspected
from imagexplain.serving.render import ExplainedInstance
from imagexplain.vision.masks import PhotoMasks
from imagexplain.vision.preprocess import ModelInput

P = TypeVar("P")
"""The prediction for one photo, of whatever type a kind has."""


@dataclass(frozen=True)
class Decoded:
    """A parsed request and its photo as the model sees it.

    Attributes:
        request: Parsed request, with its fallback as its segments where another model found none.
        seen: Model input of its photo.
        key: Digest of the model's input.
        masks: Segments that another model found on the photo.
        fresh: Flag for a request that must not be answered from cached results.
        images: Model inputs (D, C, H, W) to be predicted in the photo's place, one for each draw of what its absent
            groups look like; ``key`` is then their digest.
    """

    request: Request
    seen: ModelInput
    key: bytes
    masks: PhotoMasks | None
    fresh: bool
    images: Tensor | None = None


@dataclass(frozen=True)
class ExplainedScore:
    """The score that an explanation is of.

    Attributes:
        model: Score function, with what is known of it.
        target: Index of the class, or of the two whose scores' difference is explained.
        scores: (classes,) scores of the photo, on the CPU.
        seconds_per_point: Estimate of the time that a point of a path takes.
        masks: Segments that the model itself found on the photo, where the request asks for these.
        key: Part of the cache key beside the request, the photo and the target.
        instance: Instance whose score it is, for the picture.
        result: Entries that this kind adds to the answer.
    """

    model: Inspected
    target: Target
    scores: Tensor
    seconds_per_point: float
    masks: PhotoMasks | None = None
    key: Hashable = None
    instance: ExplainedInstance | None = None
    result: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Payload:
    """A prediction's answer: named tensors and plain values, or a picture."""

    result: Mapping[str, Any]
    picture: Image.Image | None = None


class LoadedModel(Protocol):
    """A model of whatever kind, loaded."""

    @classmethod
    def load(cls, model_dir: Path, device: torch.device) -> Self:
        """The model of an unpacked archive; what this raises is the reason a worker does not come up."""
        ...

    @property
    def spec(self) -> ModelSpec:
        """The archive's resolved spec."""
        ...

    def describe(self) -> str:
        """The model in a line for the log."""
        ...


class Task(LoadedModel, Protocol[P]):
    """A kind of model that answers a photo with scores, and of which one score is explained.

    Attributes:
        contract: Options and answers.
        batched: Flag for photos of one size, so that a batch is computed at once; else one request after the other.
    """

    contract: ClassVar[Contract]
    batched: ClassVar[bool]

    @property
    def defaults(self) -> Defaults:
        """Options of requests that say nothing of them."""
        ...

    def preprocess(self, request: Request) -> ModelInput:
        """A request's photo as the model sees it. Raises RequestError for one that it cannot take."""
        ...

    def predict(self, batch: Sequence[Decoded], deadline: Deadline) -> Sequence[P]:
        """The predictions for photos, cached ones where they are there; for one with ``images`` their mean.

        Raises RequestError once the time is over.
        """
        ...

    def payload(self, decoded: Decoded, prediction: P, deadline: Deadline) -> Payload:
        """The answer of ``/predictions``. Raises RequestError for one that is too large or would take too long."""
        ...

    def best(self, prediction: P, count: int) -> Sequence[int]:
        """Indices of so many of the best classes, or of all where there are fewer, best first."""
        ...

    def explained_score(self, decoded: Decoded, prediction: P) -> ExplainedScore:
        """The score that a request wants explained. Raises RequestError where there is none."""
        ...

    def seconds_per_image(self, image: Tensor) -> float:
        """Estimate of the time that the prediction of a model input like this (C, H, W) takes, where some is absent."""
        ...

    def observe(self, image: Tensor, points: int, seconds: float) -> None:
        """Learn from the time that points of paths took, on model inputs like this (3, H, W)."""
        ...
