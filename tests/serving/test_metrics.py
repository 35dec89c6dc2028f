from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import yaml

from imagexplain.ops.server import ROOT
from imagexplain.serving.metrics import (
    DURATIONS,
    KINDS,
    OUTCOMES,
    OVER_LONGEST_BOUND,
    ExplanationCount,
    Metrics,
    MetricType,
    duration_label,
)
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
    assert {name for _, name, _, _ in recorder.written} == ours
    assert {value for _, _, value, _ in recorder.written} == {0}
    assert len(recorder.written) == len(set(recorder.written))
    assert ("counter", "explain_requests_total", 0, ("small", "explanation", "ok", "2.0")) in recorder.written


def test_one_explanation_is_counted_once_everywhere() -> None:
    recorder = Recorder()
    metrics = Metrics(recorder, "small", "2.0")
    metrics.stage("decode", "explanation", 0.25)
    metrics.request("explanation", "ok", 12.0, 1000, 5000)
    metrics.explanation(ExplanationCount(50, 1e-6, groups=7, cached=False))
    assert recorder.written == [
        ("histogram", "explain_decode_seconds", 0.25, ("small", "explanation", "2.0")),
        ("counter", "explain_requests_total", 1, ("small", "explanation", "ok", "2.0")),
        ("counter", "explain_duration_total", 1, ("small", "explanation", "up_to_30s", "2.0")),
        ("counter", "explain_request_bytes_sum", 1000, ("small", "2.0")),
        ("counter", "explain_request_bytes_count", 1, ("small", "2.0")),
        ("counter", "explain_response_bytes_sum", 5000, ("small", "2.0")),
        ("counter", "explain_response_bytes_count", 1, ("small", "2.0")),
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
    assert {float(value) for _, _, value in samples} == {0.0}
    names = [name for name, _, _ in samples]
    assert names.count("explain_requests_total") == len(KINDS) * len(OUTCOMES)
    assert names.count("explain_duration_total") == len(KINDS) * (len(DURATIONS) + 1)
    for name in ("explain_evaluations_sum", "explain_evaluations_count", "explain_relative_residual"):
        assert names.count(name) == 1


def test_torchserves_own_metrics_remain(served: Served) -> None:
    for name in ("ts_inference_requests_total", "Requests5XX", "WorkerLoadTime", "QueueTime"):
        assert f"# TYPE {name} " in served.first_metrics
