"""The numbers of a report: of each model its accuracy, changes of answers, and where its scores come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from debugging.answers import MEASURES, parts_by_image
from debugging.comparison import (
    CONFIDENCE,
    DRAWS,
    Changes,
    Estimate,
    Flags,
    Vector,
    bootstrap_mean,
    changes,
    paired_difference,
)
from debugging.debug_sets import NONE, ORIGINAL
from debugging.images import ImageFolder
from imagexplain.vision.html_page import plural

COLUMNS = ("model", "measure", "of", "value", "low", "high", "images")
"""Columns of ``report.csv``."""

HOLDS, BREAKS = "shortcut holds", "shortcut breaks"

Lines = Mapping[str, Mapping[str, Any]]
"""Entries by image."""


@dataclass(frozen=True, eq=False)
class Compared:
    """The answers of one model.

    Attributes:
        right: Right answers (N,).
        truth: Probability (N,) of the true class.
        segments: Records of the segments of some images, the same for all models.
    """

    right: Flags
    truth: Vector
    segments: Sequence[Mapping[str, Any]]


def content_of(
    names: Sequence[str],
    folder: ImageFolder,
    compared: Mapping[str, Compared],
    entries: Mapping[str, Lines],
    conflicting: Mapping[str, bool] | None,
    seed: int,
) -> dict[str, Any]:
    """The content of ``report.json``.

    Args:
        names: Images (N,) that every model could see.
        folder: Their folder.
        compared: Answers of each model on them.
        entries: Records of each model on all images of the folder.
        conflicting: Flags of images that contradict the shortcut; None where nobody says.
        seed: Seed of the resamples.
    """
    subsets: dict[str, Flags] = {}
    if conflicting is not None:
        for subset, flag in ((HOLDS, False), (BREAKS, True)):
            subsets[subset] = np.array([conflicting.get(name) is flag for name in names])
    first = next(iter(entries.values()))
    return {
        "images": len(names),
        "skipped": [{"image": name, "reason": entry["skipped"]} for name, entry in first.items() if "skipped" in entry],
        "unmarked": None if conflicting is None else sum(name not in conflicting for name in names),
        "explained": len(next(iter(compared.values())).segments),
        "confidence": CONFIDENCE,
        "resamples": DRAWS,
        "seed": seed,
        "models": {name: _judged(name, names, folder, compared, subsets, seed) for name in compared},
    }


def _judged(
    name: str,
    names: Sequence[str],
    folder: ImageFolder,
    compared: Mapping[str, Compared],
    subsets: Mapping[str, Flags],
    seed: int,
) -> dict[str, Any]:
    """All numbers of one model."""
    own, original, none = compared[name], compared[ORIGINAL], compared[NONE]
    moved = changes(original.right, own.right, original.truth, own.truth)
    against = changes(none.right, own.right, none.truth, own.truth)
    labels = np.array([folder.label(image) for image in names])
    everywhere = np.ones(len(names), dtype=np.bool_)
    return {
        "accuracy": {
            subset: {
                "accuracy": _plain(bootstrap_mean(own.right[where].astype(np.float64), seed)),
                "to_none": None if own is none else _difference(own, none, where, seed),
                "to_original": None if own is original else _difference(own, original, where, seed),
            }
            for subset, where in {"all": everywhere, **subsets}.items()
        },
        "classes": {
            label: {"images": int((labels == label).sum()), "right": int(own.right[labels == label].sum())}
            for label in folder.classes
        },
        "fixed": [names[index] for index in moved.fixed],
        "made": [names[index] for index in moved.made],
        "to_none": _counts(against),
        "segments": _segments(own, original, none, seed),
    }


def _segments(own: Compared, original: Compared, none: Compared, seed: int) -> dict[str, Any]:
    """Mean parts of each measure by label, and their differences."""
    labels = sorted({label for entry in own.segments for label in entry["segments"]})
    found: dict[str, Any] = {}
    for label in labels:
        found[label] = {}
        for measure in MEASURES:
            mine, first, control = (
                np.array(parts_by_image(one.segments, label, measure), dtype=np.float64)
                for one in (own, original, none)
            )
            found[label][measure] = {"share": _plain(bootstrap_mean(mine[np.isfinite(mine)], seed))}
            if measure == "area":
                continue
            if own is not none:
                found[label][measure]["to_none"] = _plain(paired_difference(mine, control, seed))
            if own is not original:
                found[label][measure]["to_original"] = _plain(paired_difference(mine, first, seed))
    return found


def rows(content: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of ``report.csv``: one for each number, with its interval where it has one."""
    for model, found in content["models"].items():
        for subset, numbers in found["accuracy"].items():
            for measure, estimate in numbers.items():
                if estimate is None:
                    continue
                yield _row(model, measure if measure == "accuracy" else f"accuracy_{measure}", subset, estimate)
        for label, counts in found["classes"].items():
            share = counts["right"] / counts["images"] if counts["images"] else ""  # none of its images can be read
            yield _row(model, "accuracy", f"class {label}", {"value": share, "images": counts["images"]})
        for measure in ("fixed", "made"):
            yield _row(model, measure, ORIGINAL, {"value": len(found[measure]), "images": content["images"]})
            yield _row(model, measure, NONE, {"value": found["to_none"][measure], "images": content["images"]})
        for label, measures in found["segments"].items():
            for measure, numbers in measures.items():
                for kind, estimate in numbers.items():
                    yield _row(model, measure if kind == "share" else f"{measure}_{kind}", f"segment {label}", estimate)


def lines_of(content: Mapping[str, Any]) -> list[str]:
    """Lines for a person: accuracy of each model, and its errors fixed and made."""
    width = max(map(len, content["models"]))
    lines = [f"{content['images']} images, {len(content['skipped'])} skipped"]
    if content["unmarked"]:
        lines.append(f"{plural(content['unmarked'], 'image')} not said to be conflicting or not")
    for name, found in content["models"].items():
        numbers = found["accuracy"]["all"]
        line = f"  {name:{width}}  {_percent(numbers['accuracy'])}"
        if name not in (ORIGINAL, NONE):
            line += f", {_points(numbers['to_none'])} points to {NONE}"
        if name != ORIGINAL:
            line += f"; {len(found['fixed'])} errors fixed, {len(found['made'])} made"
        lines.append(line)
    return lines


def _row(model: str, measure: str, of: str, estimate: Mapping[str, Any] | None) -> dict[str, Any]:
    found = estimate or {}
    numbers = {name: found.get(name, "") for name in ("value", "low", "high", "images")}
    return {"model": model, "measure": measure, "of": of, **numbers}


def _difference(own: Compared, other: Compared, where: Flags, seed: int) -> dict[str, Any] | None:
    return _plain(paired_difference(own.right[where].astype(np.float64), other.right[where].astype(np.float64), seed))


def _plain(estimate: Estimate | None) -> dict[str, Any] | None:
    return None if estimate is None else asdict(estimate)


def _counts(found: Changes) -> dict[str, int]:
    return {"fixed": len(found.fixed), "made": len(found.made)}


def _percent(estimate: Mapping[str, float]) -> str:
    return f"{estimate['value']:.2%} ({estimate['low']:.2%} … {estimate['high']:.2%})"


def _points(estimate: Mapping[str, float]) -> str:
    return f"{100 * estimate['value']:+.2f} ({100 * estimate['low']:+.2f} … {100 * estimate['high']:+.2f})"
