"""The metrics of a replica as Prometheus reads them, and the file that tells it where."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from imagexplain.cluster.metrics import MetricsServer, MetricsSettings, ScrapedMetrics, declarations, remove_stale
from imagexplain.serving.metrics import Metrics


@pytest.fixture
def settings(tmp_path: Path) -> MetricsSettings:
    return MetricsSettings(targets=tmp_path / "targets")


@pytest.fixture
def sink(settings: MetricsSettings) -> ScrapedMetrics:
    return ScrapedMetrics(declarations(settings.table))


def lines(sink: ScrapedMetrics) -> set[str]:
    registry = CollectorRegistry()
    registry.register(sink)
    return set(generate_latest(registry).decode().splitlines())


def test_names_types_and_labels_are_those_of_the_table(sink: ScrapedMetrics) -> None:
    sink.write("counter", "explain_requests_total", 0, ["small", "prediction", "ok", "1.0"])
    for seconds in (0.25, 11):
        sink.write("histogram", "explain_queue_seconds", seconds, ["small", "explanation", "1.0"])
        sink.write("gauge", "explain_cache_bytes", seconds * 4, ["small", "1.0"])
        sink.write("counter", "explain_groups_sum", 2, ["small", "1.0"])
    sink.write("gauge", "explain_undeclared", 1, [])
    one = 'model_name="small",model_version="1.0"'
    waited = 'kind="explanation",{}model_name="small",model_version="1.0"'
    found = {line.replace(" ", "") for line in lines(sink)}
    assert not [line for line in found if "undeclared" in line]
    assert {
        "#TYPEexplain_requests_totalcounter",
        "#TYPEexplain_queue_secondshistogram",
        "#TYPEexplain_cache_bytesgauge",
        "#TYPEexplain_groups_sumuntyped",
        'explain_requests_total{kind="prediction",model_name="small",model_version="1.0",outcome="ok"}0.0',
        f"explain_cache_bytes{{{one}}}44.0",
        f"explain_groups_sum{{{one}}}4.0",
        f"explain_queue_seconds_sum{{{waited.format('')}}}11.25",
        f"explain_queue_seconds_count{{{waited.format('')}}}2.0",
        *(
            f"explain_queue_seconds_bucket{{{waited.format(f'le={json.dumps(bound)},')}}}{count}"
            for bound, count in (("0.1", 0.0), ("0.25", 1.0), ("10.0", 1.0), ("+Inf", 2.0))
        ),
    } <= found


def test_all_is_there_before_the_first_request(sink: ScrapedMetrics) -> None:
    Metrics(sink, "small", "1.0").prime()
    primed = {line.partition("{")[0] for line in lines(sink) if not line.startswith("#")}
    expected = {name for name, declared in sink.table.items() if declared.metric == "counter"}
    assert expected <= primed
    assert all(line.endswith(" 0.0") for line in lines(sink) if line.startswith("explain_"))


def test_a_target_is_there_as_long_as_its_replica(settings: MetricsSettings, sink: ScrapedMetrics) -> None:
    Metrics(sink, "small", "1.0").prime()
    server = MetricsServer(settings, sink)
    (file,) = settings.targets.iterdir()
    ((target,),) = [group["targets"] for group in json.loads(file.read_text())]
    assert target.startswith("127.0.0.1:")
    url = f"http://{target}/metrics"
    assert "explain_requests_total{" in httpx.get(url, trust_env=False).text
    server.close()
    assert not list(settings.targets.iterdir())
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


def test_the_files_of_killed_replicas_are_removed(settings: MetricsSettings, sink: ScrapedMetrics) -> None:
    server = MetricsServer(settings, sink)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    stale = server.file.with_name(server.file.name.replace(f"-{_pid(server.file)}", f"-{ended.pid}"))
    others = settings.targets / f"other-node-{ended.pid}.json"
    for file in (stale, others):
        file.write_text("[]")
    remove_stale(settings.targets)
    assert set(settings.targets.iterdir()) == {server.file, others}
    server.close()


def _pid(file: Path) -> str:
    return file.stem.rpartition("-")[2]
