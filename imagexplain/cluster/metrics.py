"""The metrics of a replica, under the names that a TorchServe worker's have: scraped from the replica itself.

Ray's own metrics cannot start at 0 and have other names, so that alerts and dashboards would want a second version.
Names, labels and types are those of the file that TorchServe reads, ``monitoring/metrics.yaml``. Each replica listens
on a port of its own, and tells Prometheus of it by a file of targets (``file_sd_configs``).
"""

from __future__ import annotations

import json
import os
import socket
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import get_args

import psutil
import yaml
from prometheus_client import CollectorRegistry, Histogram, start_http_server
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from pydantic import BaseModel, ConfigDict

from imagexplain.checkout import ROOT
from imagexplain.serving.metrics import MetricType

BUCKETS = Histogram.DEFAULT_BUCKETS
"""Upper bounds of a histogram's buckets, in seconds: those of Prometheus' clients, and so TorchServe's."""


class MetricsSettings(BaseModel):
    """Settings of a replica's metrics.

    Attributes:
        targets: Folder of the files that tell Prometheus where replicas listen; each node writes its own.
        address: Address to listen on, which Prometheus must reach; the loopback, where it runs on every node.
        table: File that declares the metrics.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    targets: Path
    address: str = "127.0.0.1"
    table: Path = ROOT / "monitoring" / "metrics.yaml"


@dataclass(frozen=True)
class Declaration:
    """A declared metric: its type and the names of its labels, in the order in which they are written."""

    metric: MetricType
    labels: tuple[str, ...]


def declarations(table: Path) -> dict[str, Declaration]:
    """The metrics of models that a file declares, by name.

    Raises:
        OSError: a file that cannot be read.
    """
    declared = yaml.safe_load(table.read_text())["model_metrics"]
    return {
        entry["name"]: Declaration(metric, tuple(entry["dimensions"]))
        for metric in get_args(MetricType)
        for entry in declared.get(metric, ())
    }


@dataclass(eq=False)
class ScrapedMetrics(Collector):
    """A :class:`imagexplain.serving.metrics.MetricSink` that Prometheus reads.

    As in TorchServe, a metric that the table does not declare is dropped.

    Attributes:
        table: Declared metrics, by name.
    """

    table: Mapping[str, Declaration]
    _values: defaultdict[str, dict[tuple[str, ...], float]] = field(default_factory=lambda: defaultdict(dict))
    _observed: defaultdict[str, dict[tuple[str, ...], list[int]]] = field(default_factory=lambda: defaultdict(dict))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def write(self, metric: MetricType, name: str, value: float, labels: Sequence[str]) -> None:
        """Add to a counter, set a gauge, or observe a value for a histogram."""
        if name not in self.table:
            return
        key = tuple(labels)
        with self._lock:
            values = self._values[name]
            values[key] = value if metric == "gauge" else values.get(key, 0.0) + value
            if metric == "histogram":
                self._observed[name].setdefault(key, [0] * len(BUCKETS))[bisect_left(BUCKETS, value)] += 1

    def collect(self) -> Iterator[Metric]:
        """All that was written, as Prometheus' client wants it."""
        with self._lock:
            yield from [self._family(name, values) for name, values in self._values.items()]

    def _family(self, name: str, values: Mapping[tuple[str, ...], float]) -> Metric:
        declared = self.table[name]
        # A counter's name ends in _total, or the client changes it; a sum's or a count's does not.
        known = declared.metric != "counter" or name.endswith("_total")
        family = Metric(name.removesuffix("_total"), name, declared.metric if known else "unknown")
        for key, value in values.items():
            labels = dict(zip(declared.labels, key, strict=True))
            if declared.metric != "histogram":
                family.add_sample(name, labels, value)
                continue
            counts = list(accumulate(self._observed[name][key]))
            for bound, count in zip(BUCKETS, counts, strict=True):
                family.add_sample(f"{name}_bucket", {**labels, "le": floatToGoString(bound)}, count)
            family.add_sample(f"{name}_count", labels, counts[-1])
            family.add_sample(f"{name}_sum", labels, value)
        return family


class MetricsServer:
    """The port at which a replica's metrics are read, and the file that names it, until :meth:`close`."""

    def __init__(self, settings: MetricsSettings, sink: ScrapedMetrics) -> None:
        """Listen on a free port, and write the file.

        Raises:
            OSError: an address that is not this machine's, or a folder that cannot be written.
        """
        registry = CollectorRegistry()
        registry.register(sink)
        settings.targets.mkdir(parents=True, exist_ok=True)
        remove_stale(settings.targets)
        self._server, self._thread = start_http_server(0, settings.address, registry)
        self.file = settings.targets / f"{_prefix()}{os.getpid()}.json"
        target = f"{settings.address}:{self._server.server_port}"
        unread = self.file.with_suffix(".part")  # which Prometheus does not look at
        unread.write_text(json.dumps([{"targets": [target], "labels": {"Hostname": socket.gethostname()}}]))
        unread.replace(self.file)

    def close(self) -> None:
        """Remove the file, and listen no more."""
        self.file.unlink(missing_ok=True)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def remove_stale(targets: Path) -> None:
    """Remove the files of this machine's processes that were killed: they could not do it themselves."""
    for file in targets.glob(f"{_prefix()}*.json"):
        pid = file.stem.removeprefix(_prefix())
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            file.unlink(missing_ok=True)


def _prefix() -> str:
    return f"{socket.gethostname()}-"
