"""Relations of options: the part of a request that each belongs to, its company, and the methods that it goes with.

The OpenAPI document carries them as extensions (`x-part`, `x-needs`, `x-methods`), of which pages make controls.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from imagexplain.api.method_options import CLIENTS_NAMES, PATH, PLAN_OPTIONS, options_of_methods, usual_baseline
from imagexplain.api.options import (
    ABSENT,
    BASELINE_OPTIONS,
    CAPTION_COUNTS,
    GRAPH_OPTIONS,
    GROUP_OPTIONS,
    OWNERS,
    PATH_OPTIONS,
    PICTURE_OPTIONS,
    SEGMENTS,
)
from imagexplain.api.request import OUTPUTS, PHOTO_MASKS, PHOTO_RUNS, REFERENCES, Defaults
from imagexplain.attribution.config import AttributionConfig
from imagexplain.attribution.registry import METHODS, Method
from imagexplain.limits import Limits

PARTS: Mapping[str, tuple[str, ...]] = {
    "target": ("target_class", "top_k", "contrast_class", "detection"),
    "method": PLAN_OPTIONS,
    "path": PATH_OPTIONS,
    "baseline": BASELINE_OPTIONS,
    "groups": (*(name for name in GROUP_OPTIONS if name != "threshold"), ABSENT),
    "segmenter": ("threshold",),
    "picture": PICTURE_OPTIONS,
    "answer": ("outputs",),
    "graph": GRAPH_OPTIONS,
    "captions": (*CAPTION_COUNTS, "caption", "words", "score", "map"),
}
"""Options by the part of a request that they belong to; those of methods alone belong to the method."""

_PART_OF = {name: part for part, names in PARTS.items() for name in names}


def part_of(name: str, *, captioner: bool = False) -> str:
    """The part of a request that an option belongs to.

    Args:
        name: Name of the option.
        captioner: Flag for a captioner's, some of which have the names of methods' options.
    """
    if name == "score" and not captioner:
        return "method"
    return _PART_OF.get(name, "method" if name in options_of_methods() else "other")


def needs_of(name: str, *, thresholds: bool = False) -> dict[str, Any] | None:
    """The choice without which an option means nothing: the other option, with the values that do or do not count.

    Args:
        name: Name of the option.
        thresholds: Flag for a model that has a threshold of its own.
    """
    if name in OWNERS:
        owner, value = OWNERS[name]
        return {"option": owner, "values": [value]}
    if name == "fallback" or (name == "threshold" and not thresholds):
        return {"option": "segments", "not": list(SEGMENTS)}
    return {"option": "combine"} if name == "normalized" else None


def methods() -> dict[str, dict[str, Any]]:
    """All methods by name.

    Each has its description, family and coarseness, its own options, all those that it takes and others do not, the
    defaults that are not the model's, the smallest and the largest values that are not those of all, and the outputs
    that it alone gives.
    """
    return {name: _described(method) for name, method in METHODS.items()}


def baselines(names: Iterable[str], defaults: Defaults) -> dict[str, str]:
    """The baseline of each method where a request names none, where it is not the model's own.

    Args:
        names: Names of methods.
        defaults: Options of the model where a request says nothing.
    """
    found = {name: usual_baseline(AttributionConfig((name,)), defaults.method, defaults.baseline) for name in names}
    return {name: baseline for name, baseline in found.items() if baseline != defaults.baseline}


def _described(method: Method) -> dict[str, Any]:
    inputs = method.parameters.keys() - method.options.keys()
    options = [CLIENTS_NAMES.get(name, name) for name in method.options]
    if "layer" in inputs:
        options.append("layer")
    if not inputs.isdisjoint(("baselines", "fill", "references")):
        options += [name for name in BASELINE_OPTIONS if name not in options]
    if method.name == PATH:
        options += [name for name in ("tolerance", "pixels") if name not in options]
    defaults = {CLIENTS_NAMES.get(name, name): value for name, value in method.options.items()}
    if method.name == PATH:
        defaults = {}  # the model's spec has them
    if "references" in inputs:
        defaults |= {"baseline": "uniform", "draws": REFERENCES}
    if "groups" in inputs:
        defaults["segments"] = "slic"
    text = inspect.getdoc(method.function) or ""
    return {
        "description": " ".join(text.split("\n\n")[0].split()),
        "family": method.family,
        "coarse": method.coarse,
        "own": [CLIENTS_NAMES.get(name, name) for name in method.options],
        "options": options,
        "defaults": defaults,
        "minima": {CLIENTS_NAMES.get(name, name): least for name, least in method.least.items()},
        "maxima": _maxima(method),
        "outputs": [name for name in OUTPUTS if method.name == PATH and name not in (PHOTO_MASKS, PHOTO_RUNS)],
    }


def _maxima(method: Method) -> dict[str, int]:
    """Largest values of options by the method's own bounds; segments count where any more are too many for it."""
    maxima = {CLIENTS_NAMES.get(name, name): most for name, most in method.most.items()}
    if method.most_groups is not None and (groups := method.most_groups(method.options)) < Limits().max_groups:
        maxima["n_segments"] = groups
    return maxima
