"""A Prometheus with the repository's configuration, its targets and intervals exchanged."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from deploy.grafana.draw import ask
from tests.deploy.metric_names import PROMETHEUS
from tests.deploy.programs import program
from tests.waiting import until

Result = list[dict[str, Any]]


@contextmanager
def prometheus(folder: Path, targets: Mapping[str, str]) -> Iterator[str]:
    """The base address of a Prometheus that scrapes each job's target every second.

    Args:
        folder: Empty folder for its configuration and data.
        targets: Host and port of each job; those that are not named are left out.
    """
    settings = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    del settings["alerting"]
    settings["scrape_configs"] = [job for job in settings["scrape_configs"] if job["job_name"] in targets]
    for job in settings["scrape_configs"]:
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    for name in settings["rule_files"]:
        shutil.copy(PROMETHEUS / name, folder / name)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    address = f"127.0.0.1:{free_port()}"
    command = [
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with (folder / "log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            until(lambda: all_up(f"http://{address}", len(targets)))
            yield f"http://{address}"
        except AssertionError as error:
            error.add_note((folder / "log").read_text()[-2000:])
            raise
        finally:
            process.terminate()


def all_up(address: str, count: int) -> bool:
    """Tell whether so many targets answer."""
    return [one["value"][1] for one in query(address, "up")] == ["1"] * count


def query(address: str, expression: str) -> Result:
    """The instant result of an expression; nothing while Prometheus starts."""
    try:
        return ask(address, "query", query=expression)
    except ConnectionError:
        return []
    except OSError as error:
        if isinstance(getattr(error, "reason", None), ConnectionError) or getattr(error, "code", 0) == 503:
            return []
        raise


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
