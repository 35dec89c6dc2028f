"""A supervisor in a process of its own, with what it tells."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from prometheus_client.parser import text_string_to_metric_families

from imagexplain.checkout import ROOT
from imagexplain.client.loopback import urlopen
from imagexplain.ops.exporter import EXPORTER_PORT
from imagexplain.ops.server import Server, find


@dataclass
class Supervised:
    """A running ``serve supervise``: its process, its run directory and its first port."""

    process: subprocess.Popen[str]
    store: Path
    run: Path
    port: int

    @property
    def server(self) -> Server:
        """The server of the run directory."""
        found = find(self.run)
        assert found is not None
        return found

    def ask(self, path: str) -> tuple[int, str]:
        """Status and body of one of the exporter's addresses; 0 while nothing listens."""
        try:
            with urlopen(f"http://127.0.0.1:{self.port + EXPORTER_PORT}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def is_ready(self) -> bool:
        """Whether `/readyz` says so."""
        return self.ask("/readyz")[0] == 200

    def unready(self) -> list[str]:
        """The models that `/readyz` names."""
        _, body = self.ask("/readyz")
        about: dict[str, Any] = json.loads(body or "{}")
        return list(about.get("unready", []))

    def metric(self, name: str, **labels: str) -> float | None:
        """The value of a sample, None if there is none."""
        _, text = self.ask("/metrics")
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return float(sample.value)
        return None

    def said(self) -> str:
        """All that the supervisor has printed so far."""
        return (self.run.parent / "said.txt").read_text()


def supervise(store: Path, run: Path, port: int, *options: str) -> Supervised:
    """Start a supervisor; returns at once."""
    command = ["supervise", "--store", str(store), "--run", str(run), "--port", str(port), *options]
    with (run.parent / "said.txt").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "scripts" / "server.py"), *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
    return Supervised(process, store, run, port)
