"""The options of a map: a method or a product of two, their options, the layer, and noise to smooth over.

The names and types of options are those of the library's functions, see :mod:`imagexplain.attribution.config`, which
checks their values as it runs; bounds that keep a worker alive are checked here.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from imagexplain.api.options import AMOUNTS, MAX_SEED, QUADRATURES, Amount, Count, PathOptions, amount, choice, switch
from imagexplain.attribution.config import AttributionConfig, Smoothing
from imagexplain.attribution.registry import METHODS
from imagexplain.errors import RequestError, shown, unknown
from imagexplain.limits import Limits

METHODS.load()  # as a worker starts, not in its first request, which may name any method's options

CLIENTS_NAMES: Mapping[str, str] = {"rule": "quadrature"}
"""Options of the library that have another name in requests."""

PLAN_OPTIONS = ("method", "combine", "normalized", "smooth", "layer")
"""Options of a map beside those of its methods."""

PATH = "integrated_gradients"
"""The method whose answers have all that its path gives, group by group."""

MAX_NAME = 500
"""Characters of a layer's name, at most."""

METHOD_COUNTS: Mapping[str, Count] = {
    "steps": Count("max_steps"),
    "samples": Count("max_samples"),
    "permutations": Count("max_steps"),
    "size": Count(),
    "stride": Count(),
    "cells": Count(),
    "comparisons": Count(least=0),
    "least": Count(),
    "layers": Count(least=0),
    "seed": Count(MAX_SEED, least=0),
}
"""Bounds of the methods' options that are whole numbers, by the library's names."""

SMOOTHING_COUNTS: Mapping[str, Count] = {"samples": Count("max_steps"), "seed": METHOD_COUNTS["seed"]}
"""Bounds of the whole numbers of the noise to smooth over."""

SMOOTHING_STD = Amount(10, zero=True)
"""Bounds of its standard deviation, as a fraction of the image's range."""

_TYPES = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


def options_of_methods() -> dict[str, type]:
    """The type of every option of any method, by its name in requests."""
    return {CLIENTS_NAMES.get(name, name): kind for name, kind in METHODS.options.items()}


def is_path(plan: AttributionConfig) -> bool:
    """Tell whether the plan is integrated gradients and nothing else, whose answers have all that their path gives."""
    return plan.methods == (PATH,) and plan.smoothing is None


def plan_options(
    options: Mapping[str, Any], limits: Limits, default: str, path: PathOptions, baseline: str = "zero"
) -> AttributionConfig:
    """The plan of a request.

    Args:
        options: Options of the request, plain values by name.
        limits: Upper bounds.
        default: Method where the client names none.
        path: Steps and quadrature where the client names none, of integrated gradients and of the default method;
            all else is left to the methods' own defaults.
        baseline: Baseline where the client names none, that of the model.

    Raises:
        RequestError: 400 for an unknown method or an option that is malformed or that the method does not take; 413
            for more steps or samples than the limit, or than the method's own.
    """
    methods = _methods(options, default)
    plan = AttributionConfig(
        methods,
        smoothing=_smoothing(options.get("smooth"), limits),
        normalized=_normalized(options.get("normalized"), methods),
    )
    types = METHODS.options
    given = {name: options[said] for name in types if (said := CLIENTS_NAMES.get(name, name)) in options}
    # a path's seed is its baseline's
    allowed = {"steps", "tolerance", "rule", "seed"} if is_path(plan) else set(plan.takes)
    if starts(plan) and baseline_name(plan, options, default, baseline) == "uniform":
        allowed.add("seed")
    layer = options.get("layer")
    for name in (*given, *(("layer",) if layer is not None else ())):
        if name not in allowed:
            taken = sorted(CLIENTS_NAMES.get(other, other) for other in allowed & {*types, "layer"})
            said = CLIENTS_NAMES.get(name, name)
            raise RequestError(400, said, f"{plan.name} does not take it, but {', '.join(taken) or 'no options'}")
    if layer is not None and not (isinstance(layer, str) and 0 < len(layer) <= MAX_NAME):
        raise RequestError(400, "layer", f"wanted the name of one, got {shown(layer)}")
    if is_path(plan):
        return plan
    if PATH in methods or methods == (default,):
        given = {"steps": path.steps, "rule": path.quadrature} | given
    if "rule" in given:
        choice("quadrature", given["rule"], QUADRATURES, path.quadrature)
    for name in given.keys() & AMOUNTS.keys():
        amount(name, given)
    values = {
        name: _value(name, value, types[name], _bounds(name, methods, limits))
        for name, value in given.items()
        if name in plan.takes
    }
    return replace(plan, options=tuple(sorted(values.items())), layer=layer)


def starts(plan: AttributionConfig) -> bool:
    """Tell whether a method has a baseline: a path's start, the look of absent pixels, or references."""
    return not plan.takes.isdisjoint(("baselines", "fill", "references"))


def baseline_name(plan: AttributionConfig, options: Mapping[str, Any], method: str, baseline: str) -> object:
    """The baseline that the client named, or else the default, :func:`usual_baseline`."""
    return options.get("baseline", usual_baseline(plan, method, baseline))


def usual_baseline(plan: AttributionConfig, method: str, baseline: str) -> str:
    """The baseline where the client names none: random ones for references, the image's extremes for methods that
    take these of themselves, else the model's own.

    Random draws share the steps of integrated gradients but multiply the cost of other methods: those that are not the
    model's own method start from black instead.

    Args:
        plan: Plan of the request.
        method: Method where the client names none.
        baseline: Baseline of the model.
    """
    if "references" in plan.takes:
        return "uniform"
    if plan.own_baselines:
        return "extremes"
    own = plan.methods == (method,) and plan.smoothing is None
    return "black" if baseline == "uniform" and not (own or is_path(plan)) else baseline


def _methods(options: Mapping[str, Any], default: str) -> tuple[str, ...]:
    method, both = options.get("method"), options.get("combine")
    if both is None:
        name = default if method is None else method
        if not isinstance(name, str) or name not in METHODS:
            raise RequestError(400, "method", unknown("method", name, sorted(METHODS)))
        return (name,)
    if method is not None:
        raise RequestError(400, "combine", "wanted a method or two to combine, got both")
    if not isinstance(both, Sequence) or isinstance(both, str) or len(both) != 2:
        raise RequestError(400, "combine", f'wanted two methods, such as ["blur_ig", "grad_cam"], got {shown(both)}')
    fine, coarse = both
    for name in both:
        if not isinstance(name, str) or name not in METHODS:
            raise RequestError(400, "combine", unknown("method", name, sorted(METHODS)))
    if not METHODS[coarse].coarse:
        wanted = f"wanted as the second one of {', '.join(name for name in METHODS if METHODS[name].coarse)}"
        raise RequestError(400, "combine", f"{wanted}, got {shown(coarse)}")
    return (fine, coarse)


def _normalized(value: object, methods: tuple[str, ...]) -> bool:
    normalized = switch("normalized", value)
    if value is not None and len(methods) == 1:
        raise RequestError(400, "normalized", f"goes with combine, which multiplies two maps, got {methods[0]} alone")
    return normalized


def _smoothing(value: object, limits: Limits) -> Smoothing | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise RequestError(
            400, "smooth", f'wanted an object such as {{"samples": 25, "std": 0.15}}, got {shown(value)}'
        )
    known = [field.name for field in fields(Smoothing)]
    for name in value:
        if name not in known:
            raise RequestError(400, "smooth", unknown("option", name, known))
    types = METHODS.options
    given = {name: _value(f"smooth.{name}", value[name], types[name]) for name in value}
    for name, bounds in SMOOTHING_COUNTS.items():
        number, most = given.get(name, bounds.least), bounds.upper(limits)
        if number < bounds.least or (most is not None and number > most):
            status = 400 if number < bounds.least else 413
            raise RequestError(status, f"smooth.{name}", f"wanted {bounds.least}..{most}, got {shown(number)}")
    if not SMOOTHING_STD.holds(given.get("std", 0)):
        wanted = f"wanted a fraction of the image's range, 0..{SMOOTHING_STD.most:g}"
        raise RequestError(400, "smooth.std", f"{wanted}, got {given['std']}")
    return Smoothing(**given)


def _bounds(name: str, methods: Sequence[str], limits: Limits) -> tuple[int | None, int | None]:
    """Smallest and largest value of a whole number by the bounds of all and by these methods' own, None for none."""
    least = [METHODS[method].least[name] for method in methods if name in METHODS[method].least]
    most = [METHODS[method].most[name] for method in methods if name in METHODS[method].most]
    if (count := METHOD_COUNTS.get(name)) is not None:
        least.append(count.least)
        if (upper := count.upper(limits)) is not None:
            most.append(upper)
    return max(least, default=None), min(most, default=None)


def _value(field: str, value: object, kind: type, bounds: tuple[int | None, int | None] = (None, None)) -> Any:
    if kind is float and type(value) is int and abs(value) <= sys.float_info.max:
        value = float(value)
    if type(value) is not kind or (isinstance(value, float) and not math.isfinite(value)):
        raise RequestError(400, field, f"wanted {_TYPES[kind]}, got {shown(value)}")
    if isinstance(value, str):
        if len(value) > MAX_NAME:
            raise RequestError(400, field, f"wanted {_TYPES[kind]}, got {len(value)} characters")
        words = METHODS.words.get(field.removeprefix("smooth."), (value,))
        if value not in words:
            raise RequestError(400, field, f"wanted one of {', '.join(words)}, got {shown(value)}")
    if kind is int and isinstance(value, int):
        least, most = bounds
        if least is not None and value < least:
            raise RequestError(400, field, f"wanted at least {least}, got {shown(value)}")
        if most is not None and value > most:
            raise RequestError(413, field, f"wanted at most {most}, got {shown(value)}")
    return value
