"""Comparison of two answers to one instance: the largest difference of each field, and ranks of attributions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from imagexplain.agreement.pairing import arranged, feature_pairs, nearest_scores
from imagexplain.agreement.reasons import reasons
from imagexplain.agreement.recorded import VALUES, Answer, Array, Attribution


@dataclass(frozen=True)
class FieldDifference:
    """A field of two answers.

    Attributes:
        field: Name of the field.
        agrees: True where the two are equal within the tolerance.
        largest: Largest absolute difference; None where the two cannot be subtracted.
        relative: The same by the largest magnitude on record.
        rank_correlation: Spearman's correlation of attributions; None for other fields and for constant ones.
        note: Words on what cannot be compared.
    """

    field: str
    agrees: bool
    largest: float | None = None
    relative: float | None = None
    rank_correlation: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Comparison:
    """The answers of two services to one instance.

    Attributes:
        fields: Their fields.
        reasons: Likely reasons of the differences.
    """

    fields: tuple[FieldDifference, ...]
    reasons: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """True where all fields agree."""
        return all(one.agrees for one in self.fields)


def compare(recorded: Answer, ours: Answer, tolerance: float = 1e-3) -> Comparison:
    """Compare a recorded answer with ours.

    Args:
        recorded: Answer of the other service.
        ours: Answer of this service to the same instance.
        tolerance: Difference that counts as none, as a part of the largest magnitude on record; of
            `approximationError`, which is such a part, it is absolute.

    Example:
        >>> from imagexplain.agreement.comparison import compare
        >>> from imagexplain.agreement.recorded import Answer
        >>> recorded = Answer({"": {"0": 0.25, "1": 0.75}})
        >>> found = compare(recorded, Answer({"": {"0": -1.0, "1": 0.0986}}))
        >>> found.agrees, found.reasons[0].split(":")[0]
        (False, 'score')
    """
    if recorded.error or ours.error:
        both = bool(recorded.error) and bool(ours.error)
        note = f"recorded {recorded.error or 'an answer'}, ours {ours.error or 'an answer'}"
        return Comparison((FieldDifference("error", both, note=note),), ())
    fields = [*_scores(recorded, ours, tolerance), *_attributions(recorded, ours, tolerance)]
    agrees = bool(fields) and all(one.agrees for one in fields)
    if not fields:
        fields = [FieldDifference("answer", agrees=False, note="has no field in common")]
    return Comparison(tuple(fields), () if agrees else tuple(reasons(recorded, ours, tolerance)))


def rank_correlation(first: Array, second: Array) -> float | None:
    """Spearman's correlation of two arrays; None where either is constant.

    Example:
        >>> import numpy as np
        >>> from imagexplain.agreement.comparison import rank_correlation
        >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0]))
        1.0
    """
    ranks = [rankdata(one.ravel()) for one in (first, second)]
    centred = [one - one.mean() for one in ranks]
    scale = math.sqrt(float(centred[0] @ centred[0]) * float(centred[1] @ centred[1]))
    return float(np.clip(centred[0] @ centred[1] / scale, -1, 1)) if scale else None


def _scores(recorded: Answer, ours: Answer, tolerance: float) -> Iterator[FieldDifference]:
    for name in recorded.scores:
        field, pair = f"prediction.{name}" if name else "prediction", nearest_scores(recorded, ours, name)
        if pair is None:
            yield FieldDifference(field, agrees=False, note="has no class in common with ours")
        else:
            yield _difference(field, *pair, tolerance)


def _attributions(recorded: Answer, ours: Answer, tolerance: float) -> Iterator[FieldDifference]:
    if len(recorded.attributions) != len(ours.attributions):
        note = f"recorded {len(recorded.attributions)}, ours {len(ours.attributions)}"
        yield FieldDifference("attributions", agrees=False, note=note)
    for place, (old, new) in enumerate(zip(recorded.attributions, ours.attributions, strict=False)):
        yield from _attribution(f"attributions[{place}]", old, new, tolerance)


def _attribution(path: str, old: Attribution, new: Attribution, tolerance: float) -> Iterator[FieldDifference]:
    if old.target is not None and new.target is not None:
        note = "" if old.target == new.target else f"recorded {old.target}, ours {new.target}"
        yield FieldDifference(f"{path}.outputIndex", not note, note=note)
    for name in VALUES:
        if name in old.values and name in new.values:
            given, found = np.array([old.values[name]]), np.array([new.values[name]])
            yield _difference(f"{path}.{name}", given, found, tolerance, scale=1.0 if name == _ERROR else None)
    if old.pictures or new.pictures:
        note = "is a picture: ask both for numbers, without visualization"
        yield FieldDifference(f"{path}.featureAttributions", agrees=False, note=note)
    for name, other in feature_pairs(old, new):
        field = f"{path}.{name}" if name else path
        if other is None:
            yield FieldDifference(field, agrees=False, note="is not among ours")
            continue
        given, found = arranged(old.features[name], new.features[other])
        if given.shape != found.shape:
            note = f"has shape {_shape(old.features[name])}, ours {_shape(new.features[other])}"
            yield FieldDifference(field, agrees=False, note=note)
        else:
            yield _difference(field, given, found, tolerance, ranks=True)


_ERROR = "approximationError"


def _difference(
    field: str, given: Array, found: Array, tolerance: float, *, ranks: bool = False, scale: float | None = None
) -> FieldDifference:
    largest = float(np.abs(given - found).max())
    peak = float(np.abs(given).max()) if scale is None else scale
    relative = largest / peak if peak else (0.0 if largest == 0 else math.inf)
    correlation = rank_correlation(given, found) if ranks and given.size > 1 else None
    return FieldDifference(field, relative <= tolerance, largest, relative, correlation)


def _shape(values: Array) -> str:
    return " × ".join(map(str, values.shape))


__all__ = ["Comparison", "FieldDifference", "compare", "rank_correlation"]
