from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import yaml

from imagexplain.attribution.registry import METHODS
from imagexplain.errors import WORDS, RequestError
from imagexplain.ops.server import ROOT
from imagexplain.serving.metrics import (
    DURATIONS,
    KINDS,
    METHOD_OUTCOMES,
    NEIGHBOUR_OUTCOMES,
    OUTCOMES,
    OVER_LONGEST_BOUND,
    ExplanationCount,
    Metrics,
    MetricType,
    duration_label,
)
from imagexplain.serving.rejection import REASONS, reason
from tests.conftest import Served


@dataclass
class Recorder:
    """Stands for TorchServe's metrics: keeps what is written, and refuses what is not declared."""

    written: list[tuple[str, str, float, tuple[str, ...]]] = field(default_factory=list)

    def write(self, metric: MetricType, name: str, value: float, labels: Sequence[str]) -> None:
        declared = yaml.safe_load((ROOT / "monitoring" / "metrics.yaml").read_text())["model_metrics"]
        (entry,) = [entry for entry in declared[metric] if entry["name"] == name]
        assert len(labels) == len(entry["dimensions"])
        self.written.append((metric, name, value, tuple(labels)))


def test_counters_and_gauges_are_primed_and_histograms_are_not() -> None:
    recorder = Recorder()
    Metrics(recorder, "small", "2.0").prime()
    declared = yaml.safe_load((ROOT / "monitoring" / "metrics.yaml").read_text())["model_metrics"]
    ours = {m["name"] for kind in ("counter", "gauge") for m in declared[kind] if m["name"].startswith("explain_")}
    assert {name for _, name, _, _ in recorder.written} == ours - {"explain_model_load_seconds"}
    assert {value for _, _, value, _ in recorder.written} == {0}
    assert len(recorder.written) == len(set(recorder.written))
    assert ("counter", "explain_requests_total", 0, ("small", "explanation", "ok", "2.0")) in recorder.written


def test_one_explanation_is_counted_once_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagexplain.serving.metrics.time.time", lambda: 1000.12345)
    recorder = Recorder()
    metrics = Metrics(recorder, "small", "2.0")
    metrics.stage("decode", "explanation", 0.25)
    metrics.waited("explanation", 0.5)
    metrics.request("explanation", "ok", 12.0, 1000, 5000)
    metrics.method("xrai", 200)
    metrics.explanation(ExplanationCount(50, 1e-6, groups=7, cached=False))
    assert recorder.written == [
        ("histogram", "explain_decode_seconds", 0.25, ("small", "explanation", "2.0")),
        ("histogram", "explain_queue_seconds", 0.5, ("small", "explanation", "2.0")),
        ("counter", "explain_requests_total", 1, ("small", "explanation", "ok", "2.0")),
        ("counter", "explain_duration_total", 1, ("small", "explanation", "up_to_30s", "2.0")),
        ("histogram", "explain_request_seconds", 12.0, ("small", "explanation", "2.0")),
        ("counter", "explain_request_bytes_sum", 1000, ("small", "2.0")),
        ("counter", "explain_request_bytes_count", 1, ("small", "2.0")),
        ("counter", "explain_response_bytes_sum", 5000, ("small", "2.0")),
        ("counter", "explain_response_bytes_count", 1, ("small", "2.0")),
        ("gauge", "explain_last_answer_timestamp_seconds", 1000.123, ("small", "2.0")),
        ("counter", "explain_requests_by_method_total", 1, ("small", "xrai", "ok", "2.0")),
        ("counter", "explain_evaluations_sum", 50, ("small", "2.0")),
        ("counter", "explain_evaluations_count", 1, ("small", "2.0")),
        ("counter", "explain_groups_sum", 7, ("small", "2.0")),
        ("counter", "explain_groups_count", 1, ("small", "2.0")),
        ("counter", "explain_cache_total", 1, ("small", "miss", "2.0")),
        ("counter", "explain_relative_residual_sum", 1e-6, ("small", "2.0")),
        ("counter", "explain_relative_residual_count", 1, ("small", "2.0")),
        ("gauge", "explain_relative_residual", 1e-6, ("small", "2.0")),
    ]


def test_labels_are_bounded() -> None:
    recorder = Recorder()
    Metrics(recorder, "small", "2.0").request("prediction", "[METRICS]forged", 0.1, 1, 1)
    assert recorder.written[0][3] == ("small", "prediction", "internal", "2.0")
    assert [duration_label(s) for s in (0, 1, 1.01, 120, 121, float("inf"))] == [
        "up_to_1s", "up_to_1s", "up_to_10s", "up_to_120s", OVER_LONGEST_BOUND, OVER_LONGEST_BOUND
    ]  # fmt: skip


def test_methods_are_those_of_the_registry_or_other() -> None:
    recorder = Recorder()
    metrics = Metrics(recorder, "small", "2.0")
    for method, status in (("grad_cam", 200), ("[METRICS]forged", 400), (None, 413), ("grad_cam", 503)):
        metrics.method(method, status)
    assert [labels[1:3] for _, _, _, labels in recorder.written] == [
        ("grad_cam", "ok"), ("other", "refused"), ("other", "refused"), ("grad_cam", "failed")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "field", "wanted"),
    [
        (400, "image", "image"),
        (400, "body", "image"),
        (400, "[METRICS]forged", "options"),
        (400, "features.boxes", "options"),
        (406, "accept", "accept"),
        (413, "body", "size"),
        (413, "masks", "size"),
        (413, "features.regions", "size"),
        (413, "graphs", "size"),
        (413, "steps", "work"),
        (413, "smooth.samples", "work"),
        (415, "image", "image"),
        (422, "target_class", "model"),
        (503, "steps", "time"),
        (503, "segments", "segmenter"),
        (503, "request", "memory"),
        (500, "request", None),
    ],
)
def test_refusals_are_counted_by_reason(status: int, field: str, wanted: str | None) -> None:
    recorder = Recorder()
    Metrics(recorder, "small", "2.0").rejected(RequestError(status, field, "wanted a, got b"))
    counted = [("counter", "explain_rejected_total", 1, ("small", wanted, "2.0"))] if wanted else []
    assert recorder.written == counted


def test_every_refusal_has_a_reason() -> None:
    for status in WORDS:
        found = reason(RequestError(status, "anything", "at all"))
        assert found in REASONS or (status, found) == (500, None)


def test_memory_is_that_of_each_gpu() -> None:
    recorder = Recorder()
    Metrics(recorder, "small", "2.0").memory(1000, {"1": 5000})
    assert recorder.written == [
        ("gauge", "explain_cache_bytes", 1000, ("small", "2.0")),
        ("gauge", "explain_gpu_memory_bytes", 5000, ("small", "1", "2.0")),
    ]


def test_a_refused_request_is_no_answer() -> None:
    recorder = Recorder()
    Metrics(recorder, "small", "2.0").request("prediction", "busy", 0.1, 1, 1)
    assert "explain_last_answer_timestamp_seconds" not in {name for _, name, _, _ in recorder.written}


def test_a_residual_that_is_no_number_is_not_written() -> None:
    recorder = Recorder()
    Metrics(recorder, "small", "2.0").explanation(ExplanationCount(50, float("nan"), groups=0, cached=False))
    assert not [name for _, name, _, _ in recorder.written if "residual" in name]


def test_hits_and_misses_are_told_apart() -> None:
    recorder = Recorder()
    Metrics(recorder, "small", "2.0").explanation(ExplanationCount(0, 0.0, groups=3, cached=True))
    assert ("counter", "explain_cache_total", 1, ("small", "hit", "2.0")) in recorder.written
    assert ("counter", "explain_evaluations_sum", 0, ("small", "2.0")) in recorder.written


@pytest.mark.parametrize("model", ["bit", "lanet"])
def test_a_served_models_metrics_stand_at_0_before_the_first_request(served: Served, model: str) -> None:
    samples = re.findall(rf'^(explain_\w+){{model_name="{model}",(.*?),?}} (\S+)$', served.first_metrics, re.MULTILINE)
    loaded = {float(value) for name, _, value in samples if name == "explain_model_load_seconds"}
    assert len(loaded) == 1 and min(loaded) > 0
    assert {float(value) for name, _, value in samples if name != "explain_model_load_seconds"} == {0.0}
    names = [name for name, _, _ in samples]
    assert names.count("explain_requests_total") == len(KINDS) * len(OUTCOMES)
    assert names.count("explain_duration_total") == len(KINDS) * (len(DURATIONS) + 1)
    assert names.count("explain_requests_by_method_total") == (len(METHODS) + 1) * len(METHOD_OUTCOMES)
    assert names.count("explain_rejected_total") == len(REASONS)
    assert names.count("explain_neighbour_calls_total") == len(NEIGHBOUR_OUTCOMES)
    once = ("evaluations_sum", "relative_residual", "cache_bytes", "gpu_memory_bytes", "last_answer_timestamp_seconds")
    for name in once:
        assert names.count(f"explain_{name}") == 1


def test_torchserves_own_metrics_remain(served: Served) -> None:
    for name in ("ts_inference_requests_total", "Requests5XX", "WorkerLoadTime", "QueueTime"):
        assert f"# TYPE {name} " in served.first_metrics
