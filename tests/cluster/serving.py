"""The Serve config, and a short form of it with small archives."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.torture_cluster.served import CONFIG


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
