"""Metrics for operators: thin writes to those that `monitoring/metrics.yaml` declares.

Only fixed words and numbers are written here, never text that a client sent: TorchServe passes metrics on through the
worker's standard output, one line per write.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from imagexplain.attribution.registry import METHODS
from imagexplain.errors import WORDS, RequestError
from imagexplain.serving.rejection import REASONS, reason

Kind = Literal["prediction", "explanation"]
Stage = Literal["decode", "attribute", "encode"]
NeighbourOutcome = Literal["ok", "refused", "failed", "no_answer", "not_asked"]
"""Fate of a question to a segmenter next door: answered; a photo that it cannot take; an error or no connection; no
answer in time; not put at all, since it did not answer lately or asks another one itself."""

KINDS: tuple[Kind, ...] = ("prediction", "explanation")
OUTCOMES = ("ok", *WORDS.values())
# TorchServe's histograms end at 10 seconds, so slower requests are counted by these bounds (seconds) as well.
DURATIONS = {"up_to_1s": 1.0, "up_to_10s": 10.0, "up_to_30s": 30.0, "up_to_60s": 60.0, "up_to_120s": 120.0}
OVER_LONGEST_BOUND = "over_120s"
CACHE = ("hit", "miss")
OTHER_METHOD = "other"
"""Label of an explanation whose method is none of the registry's: a product of two, or refused before it was read."""
METHOD_OUTCOMES = ("ok", "refused", "failed")
NEIGHBOUR_OUTCOMES: tuple[NeighbourOutcome, ...] = ("ok", "refused", "failed", "no_answer", "not_asked")
NO_GPU = "none"


MetricType = Literal["counter", "gauge", "histogram"]


class MetricSink(Protocol):
    """A collector of metrics."""

    def write(self, metric: MetricType, name: str, value: float, labels: Sequence[str]) -> None:
        """Add to a counter, set a gauge, or observe a value for a histogram."""


class NoMetrics:
    """A sink for the metrics of a worker that nobody watches."""

    def write(self, metric: MetricType, name: str, value: float, labels: Sequence[str]) -> None:
        """See :class:`MetricSink`."""


@dataclass(frozen=True)
class ExplanationCount:
    """The counted cost of one explanation.

    Attributes:
        evaluations: Number of the model's evaluations for it: path points, or those of a map; 0 where it was cached.
        relative_residual: Relative size of the residual (>= 0); None for a map, which has none.
        groups: Number of groups that were scored.
        cached: Flag for an explanation from the cache.
    """

    evaluations: int
    relative_residual: float | None
    groups: int
    cached: bool


def duration_label(seconds: float) -> str:
    """The bounded label of a duration: each request falls under exactly one."""
    return next((label for label, bound in DURATIONS.items() if seconds <= bound), OVER_LONGEST_BOUND)


@dataclass(frozen=True)
class Metrics:
    """The metrics of one served model, of one of its versions."""

    sink: MetricSink
    model_name: str
    model_version: str

    def prime(self) -> None:
        """Set every counter and gauge to 0 before the first request; histograms have no such write.

        The time that loading took is written once it is known, and never as 0: where it changes, a worker was started
        anew.
        """
        for kind in KINDS:
            for outcome in OUTCOMES:
                self._count("explain_requests_total", 0, kind, outcome)
            for label in (*DURATIONS, OVER_LONGEST_BOUND):
                self._count("explain_duration_total", 0, kind, label)
        for method in (*METHODS, OTHER_METHOD):
            for outcome in METHOD_OUTCOMES:
                self._count("explain_requests_by_method_total", 0, method, outcome)
        for rejected in REASONS:
            self._count("explain_rejected_total", 0, rejected)
        for asked in NEIGHBOUR_OUTCOMES:
            self._count("explain_neighbour_calls_total", 0, asked)
        for known in CACHE:
            self._count("explain_cache_total", 0, known)
        for name in ("evaluations", "groups", "request_bytes", "response_bytes", "relative_residual"):
            self._count(f"explain_{name}_sum", 0)
            self._count(f"explain_{name}_count", 0)
        for name in ("relative_residual", "cache_bytes", "last_answer_timestamp_seconds"):
            self._write("gauge", f"explain_{name}", 0)
        self._write("gauge", "explain_gpu_memory_bytes", 0, NO_GPU)

    def loaded(self, seconds: float) -> None:
        """Set the time that loading the model took."""
        self._write("gauge", "explain_model_load_seconds", seconds)

    def stage(self, stage: Stage, kind: Kind, seconds: float) -> None:
        """Observe the seconds that one stage of one request took."""
        self._write("histogram", f"explain_{stage}_seconds", seconds, kind)

    def request(self, kind: Kind, outcome: str, seconds: float, request_bytes: int, response_bytes: int) -> None:
        """Count one answered request; an outcome that is not one of OUTCOMES counts as internal."""
        self._count("explain_requests_total", 1, kind, outcome if outcome in OUTCOMES else "internal")
        self._count("explain_duration_total", 1, kind, duration_label(seconds))
        self._write("histogram", "explain_request_seconds", seconds, kind)
        self._sum("request_bytes", request_bytes)
        self._sum("response_bytes", response_bytes)
        if outcome == OUTCOMES[0]:
            self._write("gauge", "explain_last_answer_timestamp_seconds", round(time.time(), 3))

    def waited(self, kind: Kind, seconds: float) -> None:
        """Observe the seconds that a request waited before this worker got it."""
        self._write("histogram", "explain_queue_seconds", seconds, kind)

    def method(self, method: str | None, status: int) -> None:
        """Count an explanation by its method; one that is not in the registry, or not known, counts as other."""
        outcome = METHOD_OUTCOMES[0 if status < 400 else 1 if status < 500 else 2]
        known = OTHER_METHOD if method is None or method not in METHODS else method
        self._count("explain_requests_by_method_total", 1, known, outcome)

    def rejected(self, failure: RequestError) -> None:
        """Count a refused request by its reason; a fault of the server's own is none."""
        why = reason(failure)
        if why is not None:
            self._count("explain_rejected_total", 1, why)

    def neighbour(self, outcome: NeighbourOutcome) -> None:
        """Count a question to a segmenter next door."""
        self._count("explain_neighbour_calls_total", 1, outcome)

    def memory(self, cache_bytes: int, gpu_bytes: Mapping[str, int]) -> None:
        """Set the bytes that this worker's caches hold, and those that it holds on its GPU, by the GPU's number."""
        self._write("gauge", "explain_cache_bytes", cache_bytes)
        for gpu, held in gpu_bytes.items():
            self._write("gauge", "explain_gpu_memory_bytes", held, gpu)

    def explanation(self, count: ExplanationCount) -> None:
        """Count the cost of one explanation."""
        self._sum("evaluations", count.evaluations)
        self._sum("groups", count.groups)
        self._count("explain_cache_total", 1, CACHE[0] if count.cached else CACHE[1])
        if count.relative_residual is not None and math.isfinite(count.relative_residual):
            self._sum("relative_residual", abs(count.relative_residual))
            self._write("gauge", "explain_relative_residual", abs(count.relative_residual))

    def _sum(self, name: str, value: float) -> None:
        self._count(f"explain_{name}_sum", value)
        self._count(f"explain_{name}_count", 1)

    def _count(self, name: str, value: float, *labels: str) -> None:
        self._write("counter", name, value, *labels)

    def _write(self, metric: MetricType, name: str, value: float, *labels: str) -> None:
        self.sink.write(metric, name, value, [self.model_name, *labels, self.model_version])
