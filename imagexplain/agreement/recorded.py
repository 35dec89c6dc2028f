"""Answers on record: lines of JSON in Vertex AI's forms and KServe's V1, ours among them.

A line is the answer to a request (``predictions``, ``explanations``), or that to one instance as batch jobs write it
(``instance``, ``prediction``, ``explanation``, ``error``).

Sources: ``Explanation`` and ``Attribution`` of google.cloud.aiplatform.v1 (``types/explanation.py``), which its clients
write in lowerCamelCase; KServe's *V1 Inference Protocol*, which leaves to models what an explanation is: any fields
that are arrays of numbers count as attributions here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from imagexplain.errors import ArgumentError, shown

Array = NDArray[np.float64]

PICTURE = "b64_jpeg"
"""Key of a feature's attributions that are a picture."""


@dataclass(frozen=True)
class Attribution:
    """Attributions to one class.

    Attributes:
        features: Array of each feature.
        pictures: Names of features whose attributions are a picture.
        values: Numbers beside them, by Vertex AI's names.
        target: Index of the class, where it is told.
    """

    features: Mapping[str, Array] = field(default_factory=dict)
    pictures: tuple[str, ...] = ()
    values: Mapping[str, float] = field(default_factory=dict)
    target: int | None = None


@dataclass(frozen=True)
class Answer:
    """The answer to one instance.

    Attributes:
        scores: Numbers of each class by its id or index, under each name that the prediction has for such; ``""`` for a
            bare list.
        labels: Labels of the classes, where they are told.
        attributions: Explanation of each class that was explained.
        error: Words of the failure; None for an answer.
        key: Digest of the instance, where the line has it.
    """

    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    attributions: tuple[Attribution, ...] = ()
    error: str | None = None
    key: str | None = None


def answers_of(line: str | bytes) -> list[Answer]:
    """The answers in a line, one for each instance.

    Raises:
        ArgumentError: a line that is no answer.

    Example:
        >>> from imagexplain.agreement.recorded import answers_of
        >>> (answer,) = answers_of('{"predictions": [[0.2, 0.8]], "explanations": [[[0.5, -1.0]]]}')
        >>> answer.attributions[0].features[""].shape
        (1, 2)
    """
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ArgumentError("line", f"wanted JSON: {error}") from None
    if not isinstance(found, dict) or not found.keys() & {*_SINGLE, "predictions", "explanations"}:
        wanted = "wanted an object with predictions, explanations, prediction, explanation or error"
        raise ArgumentError("line", f"{wanted}, got {shown(found)}")
    if found.keys() & set(_SINGLE):
        key = digest(found["instance"]) if "instance" in found else None
        return [_answer(found.get("prediction"), found.get("explanation"), found.get("error"), key)]
    predictions, explanations = (_several(found.get(name)) for name in ("predictions", "explanations"))
    count = max(len(predictions), len(explanations))
    if not {len(predictions), len(explanations)} <= {0, count}:
        wanted = "wanted as many predictions as explanations"
        raise ArgumentError("explanations", f"{wanted}, got {len(predictions)} and {len(explanations)}")
    nothing: list[Any] = [None] * count
    return [_answer(*both) for both in zip(predictions or nothing, explanations or nothing, strict=True)]


def digest(instance: Any) -> str:
    """The digest of an instance, whatever the order of its fields."""
    return hashlib.sha256(json.dumps(instance, sort_keys=True).encode()).hexdigest()


_SINGLE = ("prediction", "explanation", "error")


def _several(value: Any) -> list[Any]:
    """The answers to instances; an object is the only one, as some of KServe's explainers have it."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _answer(prediction: Any, explanation: Any, error: Any = None, key: str | None = None) -> Answer:
    if error is not None:
        return Answer(error=error if isinstance(error, str) else json.dumps(error), key=key)
    return Answer(dict(_scores(prediction)), _labels(prediction), tuple(_attributions(explanation)), None, key)


def _labels(prediction: Any) -> dict[str, str]:
    if not isinstance(prediction, dict):
        return {}
    names, ranked = prediction.get("displayNames"), prediction.get("predictions")
    if isinstance(names, list):
        ids = prediction.get("ids", range(len(names)))
        return {str(each): str(name) for each, name in zip(ids, names, strict=False)}
    if _is_ranked(ranked):
        return {str(one["index"]): str(one["label"]) for one in ranked if "label" in one}
    return {}


def _is_ranked(value: Any) -> TypeGuard[list[dict[str, Any]]]:
    """Tell whether a value lists classes as this service does."""
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) and "index" in one for one in value)


def _scores(prediction: Any) -> Iterator[tuple[str, dict[str, float]]]:
    if isinstance(prediction, list):
        values = _array(prediction)
        if values is not None:
            yield "", _by_index(values)
        return
    if not isinstance(prediction, dict):
        return
    names: Any = prediction.get("ids")
    for name, value in prediction.items():
        values = _array(value) if isinstance(value, list) else None
        if values is not None and values.ndim == 1 and name != "ids":
            named = isinstance(names, list) and len(names) == len(values)
            yield name, dict(zip(map(str, names), values.tolist(), strict=True)) if named else _by_index(values)
    ranked = prediction.get("predictions")
    if _is_ranked(ranked):
        for name in ("score", "probability"):
            yield name, {str(one["index"]): float(one[name]) for one in ranked if _is_number(one.get(name))}


def _by_index(values: Array) -> dict[str, float]:
    return {str(index): value for index, value in enumerate(values.ravel().tolist())}


VALUES: Mapping[str, tuple[str, ...]] = {
    "instanceOutputValue": ("instanceOutputValue", "score"),
    "baselineOutputValue": ("baselineOutputValue", "baseline_score"),
    "approximationError": ("approximationError", "relative_residual", "delta", "convergence_delta"),
}
"""Names under which numbers of an attribution stand: Vertex AI's, ours, Captum's."""


def _attributions(explanation: Any) -> Iterator[Attribution]:
    if explanation is None:
        return
    if not isinstance(explanation, dict):
        values = _array(explanation)
        yield Attribution({} if values is None else {"": values})
        return
    listed: Any = explanation.get("attributions")
    if isinstance(listed, list) and listed and isinstance(listed[0], dict):
        yield from (_of_vertex(one) for one in listed)
    elif isinstance(explanation.get("explanations"), list):  # of several classes
        maps = [None] * len(explanation["explanations"]) if listed is None else listed
        for values, one in zip(maps, explanation["explanations"], strict=True):
            yield _of_fields(one if values is None else {**one, "attributions": values})
    else:
        yield _of_fields(explanation)


def _of_vertex(given: dict[str, Any]) -> Attribution:
    features, pictures = {}, []
    for name, value in (given.get("featureAttributions") or {}).items():
        if isinstance(value, dict) and PICTURE in value:
            pictures.append(name)
        elif (values := _array(value)) is not None:
            features[name] = values
    index = given.get("outputIndex")
    target = index[0] if isinstance(index, list) and index else index
    return Attribution(features, tuple(pictures), _values(given), int(target) if _is_number(target) else None)


def _of_fields(given: dict[str, Any]) -> Attribution:
    named = {"attributions": given["attributions"]} if "attributions" in given else given
    features = {name: values for name, value in named.items() if (values := _array(value)) is not None and values.ndim}
    target = given.get("target_class")
    return Attribution(features, (), _values(given), target if isinstance(target, int) else None)


def _values(given: dict[str, Any]) -> dict[str, float]:
    return {name: float(given[own]) for name, names in VALUES.items() for own in names if _is_number(given.get(own))}


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _array(value: Any) -> Array | None:
    """The array of nested lists of numbers of equal lengths; None for anything else."""
    if not isinstance(value, list | int | float) or isinstance(value, bool) or value == []:
        return None
    try:
        found = np.asarray(value)
    except ValueError:
        return None
    return found.astype(np.float64) if found.dtype.kind in "iuf" else None


__all__ = ["VALUES", "Answer", "Array", "Attribution", "answers_of", "digest"]
