"""Prometheus' files: valid by its own tools, tested, and about metrics that somebody writes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from deploy.grafana.panels import ROWS
from imagexplain.errors import WORDS
from imagexplain.ops.server import ROOT
from imagexplain.serving.metrics import (
    DURATIONS,
    KINDS,
    NEIGHBOUR_OUTCOMES,
    OUTCOMES,
    ExplanationCount,
    Metrics,
    MetricType,
)
from tests.deploy.metric_names import (
    EXPORTED,
    OWN,
    PROMETHEUS,
    appearances,
    declared,
    names_in,
    rules,
)
from tests.deploy.programs import run

TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))


def test_prometheus_takes_the_configuration() -> None:
    said = run("promtool", "check", "config", "--lint-fatal", str(PROMETHEUS / "prometheus.yml"))
    assert "2 rule files found" in said and "FAILED" not in said


def test_alertmanager_takes_the_example() -> None:
    assert "SUCCESS" in run("amtool", "check-config", str(PROMETHEUS / "alertmanager.yml"))


@pytest.mark.parametrize("file", TESTS, ids=lambda path: path.stem)
def test_the_rules_do_what_their_tests_say(file: Path) -> None:
    assert "SUCCESS" in run("promtool", "test", "rules", str(file))


def test_each_alert_is_seen_to_fire_and_to_be_quiet() -> None:
    fired, quiet = set[str](), set[str]()
    for file in TESTS:
        for case in yaml.safe_load(file.read_text())["tests"]:
            for one in case.get("alert_rule_test", ()):
                (fired if one["exp_alerts"] else quiet).add(one["alertname"])
            for one in case.get("promql_expr_test", ()):
                if one["expr"].startswith("ALERTS{"):
                    fired |= {name for name in rules("alerting") if f'alertname="{name}"' in one["expr"]}
                elif one["expr"] == "ALERTS":  # a server in which all is well
                    quiet |= set(rules("alerting"))
    assert fired == quiet == set(rules("alerting"))


def test_each_recorded_value_is_seen() -> None:
    text = "".join(file.read_text() for file in (*TESTS, PROMETHEUS / "alerting_rules.yml"))
    assert not [name for name in rules("recording") if name not in text]


def test_alerts_say_who_is_to_be_told_and_where_to_read() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    for name, rule in rules("alerting").items():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert set(rule["annotations"]) == {"summary", "description"}
        assert f"`{name}`" in page, name


def test_the_scraped_ports_are_the_servers() -> None:
    jobs = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in jobs if "static_configs" in job}
    assert targets == {"torchserve": ["127.0.0.1:8082"], "supervisor": ["127.0.0.1:8085"]}


class Written:
    """A collector that keeps the names under which Prometheus sees what is written."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def write(self, metric: MetricType, name: str, value: float, labels: Sequence[str]) -> None:
        self.names |= appearances(metric, name)


def written() -> set[str]:
    """All that a worker writes."""
    sink = Written()
    metrics = Metrics(sink, "small", "1.0")
    metrics.prime()
    metrics.loaded(1.0)
    for kind in KINDS:
        for stage in ("decode", "attribute", "encode"):
            metrics.stage(stage, kind, 1.0)
        metrics.waited(kind, 1.0)
        metrics.request(kind, "ok", 1.0, 1, 1)
    metrics.explanation(ExplanationCount(1, 0.1, 1, cached=False))
    metrics.memory(1, {"0": 1})
    return sink.names


def read() -> dict[str, set[str]]:
    """The metrics that each rule and each panel reads."""
    found = {name: names_in(rule["expr"]) for kind in ("recording", "alerting") for name, rule in rules(kind).items()}
    for row in ROWS:
        for panel in row.panels:
            found[panel.title] = set().union(*(names_in(series.expression) for series in panel.series))
    return found


def test_what_is_read_is_declared_and_written() -> None:
    ours = {name for name in declared() if name.startswith("explain_")}
    assert written() == ours
    known = declared() | EXPORTED | OWN | set(rules("recording"))
    assert {name: names - known for name, names in read().items() if names - known} == {}


def test_what_is_written_is_read() -> None:
    """A metric that neither a rule nor a panel reads is one that nobody looks at."""
    everything = set().union(*read().values())
    histograms = ("_bucket", "_sum", "_count")
    unread = {name for name in declared() | EXPORTED if name not in everything and not name.endswith(histograms)}
    assert unread == {"explain_relative_residual", "PredictionTime", "QueueTime", "WorkerThreadTime", "WorkerLoadTime",
                      "ts_inference_latency_microseconds"}  # fmt: skip


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ('sum by (a, b) (rate(c_total{d="e", f!~"g|h"}[5m])) / 1e6', {"c_total"}),
        ("model:x:ratio_rate5m > 14.4 * 0.01 and on (le) y offset 10m", {"model:x:ratio_rate5m", "y"}),
        ("histogram_quantile(0.5, sum by (le) (rate(h_bucket[$__rate_interval]))) or vector(0)", {"h_bucket"}),
        ("time() - max by (m) (z > 0)", {"z"}),
        ("absent(up)", {"up"}),
    ],
)
def test_the_names_in_an_expression(expression: str, wanted: set[str]) -> None:
    assert names_in(expression) == wanted


LABELS: dict[str, tuple[tuple[str, ...], ...]] = {
    "outcome": (OUTCOMES, NEIGHBOUR_OUTCOMES, ("hit", "miss")),
    "kind": (KINDS,),
    "duration": ((*DURATIONS, "over_120s"),),
}


def test_rules_ask_for_labels_that_there_are() -> None:
    asked: set[tuple[str, str]] = set()
    texts = [rule["expr"] for kind in ("recording", "alerting") for rule in rules(kind).values()]
    for text in texts:
        for label, pattern in re.findall(r'(outcome|kind|duration)!?=~?"([^"]*)"', text):
            values = [value for group in LABELS[label] for value in group]
            assert [value for value in values if re.fullmatch(pattern, value)], (label, pattern)
            asked.add((label, pattern))
    assert len(asked) == 5 and (WORDS[500], WORDS[503]) == ("internal", "busy")
