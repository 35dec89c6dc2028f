"""Results of further methods beside those of a file, if their controls show that all was measured alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from evaluation.entries import CONTROLS
from evaluation.metrics import CPU_TIME


def check_same(before: Mapping[str, Any], found: Mapping[str, Any], *parts: str) -> None:
    """Check that two results have the same conditions.

    Raises:
        ValueError: a part that differs, by name.
    """
    for part in parts:
        if before[part] != found[part]:
            raise ValueError(f"add: wanted a file of the same {part}, {found[part]}, got {before[part]}")


def with_methods(before: dict[str, Any], found: Mapping[str, Any], machine: Mapping[str, Any], of: str) -> Any:
    """The results of a file with those of further methods, and the machine that these ran on.

    Args:
        before: Results of the file, with plans, metrics, failures and refusals by method.
        found: Results of the methods and of the controls.
        machine: Machine of these.
        of: Name of what was explained, for the error.

    Raises:
        ValueError: controls whose scores are not those of the file, so that nothing compares.
    """
    for control in CONTROLS:
        scores, others = (one["metrics"][control] for one in (before, found))
        if not all(_agree(scores[metric], others.get(metric)) for metric in scores if metric != CPU_TIME.name):
            raise ValueError(f"add: wanted the file's scores of {control} by {of}, got others")
    new = [entry for entry in found["plans"] if entry not in CONTROLS]
    return {
        **before,
        **{part: {**before[part], **found[part]} for part in ("not_supported", "refused")},
        **{
            part: {**before[part], **{entry: found[part][entry] for entry in new if entry in found[part]}}
            for part in ("plans", "metrics")
        },
        "fails": [
            *(entry for entry in before["fails"] if entry not in new),
            *(one for one in found["fails"] if one in new),
        ],
        "added": {**before.get("added", {}), **dict.fromkeys(new, machine)},
    }


def _agree(score: Mapping[str, float], other: Mapping[str, float] | None) -> bool:
    """Tell whether two means are the same but for another machine's rounding."""
    return other is not None and math.isclose(score["mean"], other["mean"], rel_tol=1e-3, abs_tol=1e-3)
