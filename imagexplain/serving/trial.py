"""A trial of an archive before it is served: a photo is answered as a worker would, and its cost is measured."""

from __future__ import annotations

import json
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from imagexplain.archive.spec import ClassifierSpec
from imagexplain.errors import ArgumentError
from imagexplain.serving.messages import RawRequest
from imagexplain.serving.metrics import NoMetrics
from imagexplain.serving.tasks.classifier import Classifier
from imagexplain.serving.worker import Worker

SMALL_RESIDUAL = 0.05
"""Share of the score's difference from the baseline's that a path's residual may have in :attr:`Trial.enough_steps`."""

MAX_SEARCH_SECONDS = 60.0
"""Time of one explanation, after which no larger number of steps is tried."""


@dataclass(frozen=True)
class Trial:
    """Outcome of a trial.

    Attributes:
        spec: Resolved spec of the archive.
        prediction: Answer of the prediction.
        explanation: Answer of an explanation by path, without its tensors, with the spec's options.
        prediction_s: Seconds that the prediction took, once the model was loaded.
        explanation_s: Seconds that the explanation took.
        peak_mib: Largest memory of this process so far, MiB, the libraries' own included.
        residuals: Relative residuals from a black baseline, by the number of steps: twice as many each time, until one
            is at most :data:`SMALL_RESIDUAL`.
    """

    spec: ClassifierSpec
    prediction: dict[str, Any]
    explanation: dict[str, Any]
    prediction_s: float
    explanation_s: float
    peak_mib: int
    residuals: dict[int, float] = field(default_factory=dict)

    @property
    def enough_steps(self) -> int | None:
        """Number of steps that is enough for a small residual; None where none that was tried is."""
        return next((steps for steps, own in self.residuals.items() if own <= SMALL_RESIDUAL), None)


def try_out(archive: Path, photo: bytes) -> Trial:
    """Load an unpacked archive of a classifier on the CPU and let it answer.

    Args:
        archive: Folder of the unpacked archive.
        photo: Encoded photo.

    Raises:
        ArgumentError: the model refuses the photo or the explanation, with its reason.
        SpecError, CheckpointError: an archive that does not hold what it should.
    """
    task = Classifier.load(archive, torch.device("cpu"))
    worker = Worker.start(task, archive, NoMetrics())
    prediction, prediction_s = _asked(worker, photo, "prediction", "")
    explanation, explanation_s = _asked(worker, photo, "explanation", "method=integrated_gradients")
    residuals: dict[int, float] = {}
    steps, seconds = 4, 0.0
    while steps <= task.spec.limits.max_steps and seconds < MAX_SEARCH_SECONDS:
        try:
            own, seconds = _asked(
                worker, photo, "explanation", f"method=integrated_gradients&baseline=black&steps={steps}"
            )
        except ArgumentError:  # there would not be the time for it in a request
            break
        residuals[steps] = abs(own["residual"]) / max(abs(own["score"] - own["baseline_score"]), 1e-12)
        if residuals[steps] <= SMALL_RESIDUAL:
            break
        steps *= 2
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return Trial(task.spec, prediction, explanation, prediction_s, explanation_s, peak, residuals)


def _asked(worker: Worker[Classifier], photo: bytes, kind: str, options: str) -> tuple[dict[str, Any], float]:
    headers = {"accept": "application/json", "cache-control": "no-cache", "x-explain-options": options}
    started = time.perf_counter()
    (response,) = worker.handle([RawRequest({"body": photo}, headers, cast(Any, kind))])
    seconds = time.perf_counter() - started
    answer: dict[str, Any] = json.loads(response.body)
    if response.status != 200:
        raise ArgumentError(str(answer.get("field", kind)), str(answer.get("message", answer)))
    return answer, seconds
