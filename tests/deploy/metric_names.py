"""The names of metrics: those in PromQL, and those that somebody writes."""

from __future__ import annotations

import re
from typing import Any

import yaml

from imagexplain.ops.server import ROOT

PROMETHEUS = ROOT / "deploy" / "prometheus"

EXPORTED = {
    "imagexplain_model_ready",
    "imagexplain_workers",
    "imagexplain_restarts_total",
    "imagexplain_frontend_up",
    "imagexplain_model_load_seconds",
    "imagexplain_build_info",
    "imagexplain_workers_ended_total",
    "imagexplain_state_free_bytes",
}
"""Metrics of the supervisor."""

OWN = {"up", "ALERTS"}
"""Metrics of Prometheus' own."""

_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"' + r"|'(?:[^'\\]|\\.)*'")
_BRACED = re.compile(r"\{[^}]*\}|\[[^\]]*\]")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_NAME = re.compile(r"(?<![\w.:])([a-zA-Z_:][\w:]*)(?!\s*\(|[\w:])")
_WORDS = {"and", "or", "unless", "offset", "bool", "inf", "nan"}


def names_in(expression: str) -> set[str]:
    """The metrics that an expression reads."""
    bare = expression
    for pattern in (_STRINGS, _BRACED, _GROUPING):
        bare = pattern.sub(" ", bare)
    return {name for name in _NAME.findall(bare) if name.lower() not in _WORDS}


def rules(kind: str) -> dict[str, dict[str, Any]]:
    """The rules of a file, "recording" or "alerting", by name."""
    groups = yaml.safe_load((PROMETHEUS / f"{kind}_rules.yml").read_text())["groups"]
    return {rule.get("record") or rule["alert"]: rule for group in groups for rule in group["rules"]}


def declared() -> set[str]:
    """The names under which what metrics.yaml declares appears."""
    content = yaml.safe_load((ROOT / "monitoring" / "metrics.yaml").read_text())
    found = set()
    for section in ("ts_metrics", "model_metrics"):
        for metric, entries in content[section].items():
            for entry in entries:
                found |= appearances(metric, entry["name"])
    return found


def appearances(metric: str, name: str) -> set[str]:
    """The names of a metric's series: those of a histogram are three."""
    return {f"{name}_{part}" for part in ("bucket", "sum", "count")} if metric == "histogram" else {name}
