"""What a segmenter's handler knows of one request; TorchServe wants a handler's module to hold one class only."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from imagexplain.archive.spec import SegmenterSpec
from imagexplain.attribution.paths.path_integral import Forward
from imagexplain.serving.model_facts import Findings
from imagexplain.serving.prepared_request import Sample
from imagexplain.vision.detections import Detections


@dataclass(frozen=True)
class ExplainedScore:
    """The class scores of one instance as a model of their own."""

    spec: SegmenterSpec
    network: Forward
    device: torch.device
    chunk: int
    findings: Findings = field(default_factory=Findings)

    def plain(self) -> Forward:
        """What methods may look into: nothing but a function."""
        return self.network


@dataclass(frozen=True)
class Job:
    """A decoded request.

    Attributes:
        sample: in the model's frame.
        found: the instances.
        scores: (classes,) of the instance to be explained, None for a prediction.
        instance: its index.
    """

    sample: Sample
    found: Detections
    scores: Tensor | None = None
    instance: int | None = None
