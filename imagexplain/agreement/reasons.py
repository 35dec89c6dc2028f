"""Likely reasons why an answer on record differs from ours: those that the answers themselves give away."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from imagexplain.agreement.pairing import arranged, feature_pairs, nearest_scores, paired_scores
from imagexplain.agreement.recorded import Answer, Array, Attribution

SCORE, BASELINE, ERROR = "instanceOutputValue", "baselineOutputValue", "approximationError"

ROUGHER = 1.25
"""Ratio of two maps' roughness from which one of them counts as smoothed."""

MIN_SIDE = 4
"""Height and width of a map, in elements, whose roughness can be told."""


def reasons(recorded: Answer, ours: Answer, tolerance: float) -> Iterator[str]:
    """Reasons for the differences of two answers, each with its numbers; none where none is known.

    Args:
        recorded: Answer of the other service.
        ours: Answer of this service.
        tolerance: Relative difference that counts as none.
    """
    found: list[str] = []
    if (reason := _of_predictions(recorded, ours, tolerance)) is not None:
        found.append(reason)
    for old, new in zip(recorded.attributions, ours.attributions, strict=False):
        found += _of_attributions(recorded, ours, old, new, tolerance)
    yield from dict.fromkeys(found)


AFTER = "score: the recorded one is after the softmax, ours before it (ours can be: `head: {score: probability}`)"
BEFORE = "score: the recorded one is before the softmax, ours after it (ours can be: `head: {score: logit}`)"


def _of_predictions(recorded: Answer, ours: Answer, tolerance: float) -> str | None:
    for name in recorded.scores:
        nearest = nearest_scores(recorded, ours, name)
        if nearest is None or _near(*nearest, tolerance):
            continue
        for other in ours.scores:
            pair = paired_scores(recorded, ours, name, other)
            if pair is None or len(pair[0]) < 2:
                continue
            if _near(pair[0], softmax(pair[1]), tolerance):
                return AFTER
            if _near(softmax(pair[0]), pair[1], tolerance):
                return BEFORE
        return MODEL
    return None


MODEL = "model: scores of the same image differ: other weights, or another preprocessing (size, crop, mean, std)"


def _of_attributions(
    recorded: Answer, ours: Answer, old: Attribution, new: Attribution, tolerance: float
) -> Iterator[str]:
    if old.target is not None and new.target is not None and old.target != new.target:
        yield f"target: the recorded attribution is of class {old.target}, ours of class {new.target}"
        return
    if not _same(old, new, SCORE, tolerance):
        yield _of_score(recorded, ours, old, new, tolerance)
        return
    if not _same(old, new, BASELINE, tolerance):
        ends = f"{old.values[BASELINE]:g} on record, {new.values[BASELINE]:g} here"
        yield f"baseline: the scores of the image agree, those of the baseline do not ({ends})"
        return
    for name, other in feature_pairs(old, new):
        if other is None:
            continue
        given, found = arranged(old.features[name], new.features[other])
        if given.shape == found.shape and not _near(given, found, tolerance):
            yield from _of_maps(given, found, old, new, tolerance)


def _of_score(recorded: Answer, ours: Answer, old: Attribution, new: Attribution, tolerance: float) -> str:
    given, found = old.values[SCORE], new.values[SCORE]
    if _is_softmax_of(given, ours, new, tolerance):
        return AFTER
    if _is_softmax_of(found, recorded, old, tolerance):
        return BEFORE
    likely = {(True, False): AFTER, (False, True): BEFORE}.get((0 <= given <= 1, 0 <= found <= 1))
    return MODEL if likely is None else f"{likely}, if that of {given if 0 <= given <= 1 else found:g} is a probability"


def _is_softmax_of(value: float, answer: Answer, own: Attribution, tolerance: float) -> bool:
    """Tell whether a value is the softmax of an answer's explained score among all of its scores."""
    for scores in answer.scores.values():
        vector = np.array(list(scores.values()))
        place = int(np.abs(vector - own.values[SCORE]).argmin())
        explained = abs(vector[place] - own.values[SCORE]) <= tolerance * max(1.0, abs(own.values[SCORE]))
        if explained and len(vector) > 1 and abs(softmax(vector)[place] - value) <= tolerance:
            return True
    return False


def _of_maps(given: Array, found: Array, old: Attribution, new: Attribution, tolerance: float) -> Iterator[str]:
    for words, changed in _CHANGES:
        other = changed(found)
        factor = float((given * other).sum() / norm) if (norm := float((other * other).sum())) else 0.0
        if factor and _near(given, factor * other, tolerance):
            if words or factor < 0 or abs(factor - 1) > tolerance:
                yield f"scale: the recorded attributions are {factor:.6g} × {words or 'ours'}"
            return
    errors = [one.values[ERROR] for one in (old, new) if ERROR in one.values]
    if errors and max(map(abs, errors)) > tolerance:
        sides = ((old, "on record"), (new, "here"))
        stated = " and ".join(f"{one.values[ERROR]:.2g} {where}" for one, where in sides if ERROR in one.values)
        yield f"steps: approximationError is {stated}: with more steps both come nearer to the integral"
    if given.ndim >= 2 and min(given.shape[:2]) >= MIN_SIDE:
        rough = [roughness(one) for one in (given, found)]
        if max(rough) > ROUGHER * min(rough):
            smoother = "the recorded map" if rough[0] < rough[1] else "our map"
            stated = f"{rough[0]:.2g} on record, {rough[1]:.2g} here"
            yield f"smoothing: {smoother} is smoother (mean step between neighbours by mean magnitude: {stated})"


_CHANGES = (
    ("", lambda values: values),
    ("what is positive of ours: theirs are clipped at 0", lambda values: values.clip(0)),
    ("the magnitudes of ours", np.abs),
)


def roughness(values: Array) -> float:
    """The mean step between neighbours of a map (H, W, …) by its mean magnitude; 0 for a constant one.

    Example:
        >>> import numpy as np
        >>> from imagexplain.agreement.reasons import roughness
        >>> roughness(np.ones((4, 4)))
        0.0
    """
    steps = [np.abs(np.diff(values, axis=axis)).mean() for axis in (0, 1)]
    size = np.abs(values).mean()
    return float(sum(steps) / 2 / size) if size else 0.0


def softmax(scores: Array) -> Array:
    """The softmax of scores (K,).

    Example:
        >>> import numpy as np
        >>> from imagexplain.agreement.reasons import softmax
        >>> softmax(np.zeros(4)).tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    powers = np.exp(scores - scores.max())
    result: Array = powers / powers.sum()
    return result


def _near(given: Array, found: Array, tolerance: float) -> bool:
    return bool(np.abs(given - found).max() <= tolerance * np.abs(given).max())


def _same(old: Attribution, new: Attribution, name: str, tolerance: float) -> bool:
    """Tell whether a value of both is the same; true where one of them does not have it."""
    if name not in old.values or name not in new.values:
        return True
    return abs(old.values[name] - new.values[name]) <= tolerance * abs(old.values[name])


__all__ = ["reasons", "roughness", "softmax"]
