"""The Serve config with small archives, deployed on the tests' cluster as `serve run` does it.

python -m tests.cluster.serving CLUSTER PORT TARGETS NAME=ARCHIVE … serves until its input ends: a process of its own,
for ray.init leaves its marks on one.
"""

from __future__ import annotations

import copy
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
import yaml
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

from imagexplain.ops.server import ROOT

CONFIG = ROOT / "deploy" / "ray" / "serve.yaml"
MAX_START_S = 300.0


def config() -> dict[str, Any]:
    """The config as Ray reads it."""
    content: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    return content


def short(archives: Mapping[str, Path], port: int, targets: Path) -> dict[str, Any]:
    """The config with small archives in the place of some of its own, on a port of the loopback."""
    content = copy.deepcopy(config())
    content["http_options"] |= {"host": "127.0.0.1", "port": port}
    content["applications"] = [app for app in content["applications"] if app["name"] in archives]
    for app in content["applications"]:
        app["args"] = {
            "archive": str(archives[app["name"]]),
            "segmenters": [name for name in app["args"].get("segmenters", ()) if name in archives],
            "metrics": {"targets": str(targets)},
        }
    return content


def deploy(archives: Mapping[str, Path], port: int, targets: Path) -> None:
    """Serve the short form until Serve is shut down; all that `serve run` does with a file."""
    schema = ServeDeploySchema.model_validate(short(archives, port, targets))
    serve.start(proxy_location=schema.proxy_location, http_options=schema.http_options.model_dump())
    client = _get_global_client()
    assert client is not None
    client.deploy_apps(schema)
    ends = time.monotonic() + MAX_START_S
    while statuses() != dict.fromkeys(archives, "RUNNING"):
        assert time.monotonic() < ends, serve.status()
        time.sleep(0.1)


def statuses() -> dict[str, str]:
    """The state of each application; a failure, with Ray's message, is one of the test's."""
    applications = serve.status().applications
    failed = [app.message for app in applications.values() if app.status.value == "DEPLOY_FAILED"]
    assert not failed, failed
    return {name: app.status.value for name, app in applications.items()}


def main(cluster: str, port: str, targets: str, *archives: str) -> None:
    """Serve archives, and say so."""
    ray.init(cluster, log_to_driver=False)
    try:
        named = dict(given.split("=", 1) for given in archives)
        deploy({name: Path(archive) for name, archive in named.items()}, int(port), Path(targets))
        print("serving", flush=True)
        sys.stdin.read()
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
