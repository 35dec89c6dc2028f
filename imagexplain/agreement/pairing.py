"""Parts of two answers that belong together: scores by class, features by name, maps by their axes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from imagexplain.agreement.recorded import Answer, Array, Attribution


def nearest_scores(recorded: Answer, ours: Answer, name: str) -> tuple[Array, Array] | None:
    """Recorded scores (K,) and ours of the same classes; None where no class is in both.

    Ours are those of the same name. Where there are none, they are those that differ least, since each service has
    names of its own.
    """
    names = [name] if name in ours.scores else list(ours.scores)
    pairs = [pair for other in names if (pair := paired_scores(recorded, ours, name, other)) is not None]
    return min(pairs, key=lambda pair: float(np.abs(pair[0] - pair[1]).max()), default=None)


def paired_scores(recorded: Answer, ours: Answer, name: str, other: str) -> tuple[Array, Array] | None:
    """Recorded scores (K,) and ours of one name each, of the classes that both have: by label where both have labels.

    Example:
        >>> from imagexplain.agreement.pairing import paired_scores
        >>> from imagexplain.agreement.recorded import Answer
        >>> recorded = Answer({"": {"0": 0.25, "1": 0.75}})
        >>> [each.shape for each in paired_scores(recorded, Answer({"scores": {"1": 2.0}}), "", "scores")]
        [(1,), (1,)]
    """
    theirs, own = recorded.scores[name], ours.scores[other]
    keys = {key: key for key in own}
    labels = [answer.labels for answer in (recorded, ours)]
    by_label = all(each and len({*each.values()}) == len(each) for each in labels)
    if by_label:
        keys = {label: key for key, label in ours.labels.items() if key in own}
    pairs = [(key, keys.get(recorded.labels.get(key, "") if by_label else key)) for key in theirs]
    both = [(theirs[key], own[found]) for key, found in pairs if found is not None]
    return (np.array([one for one, _ in both]), np.array([one for _, one in both])) if both else None


def feature_pairs(old: Attribution, new: Attribution) -> Iterator[tuple[str, str | None]]:
    """Each recorded feature with ours of the same name; where both have one, its name does not matter."""
    if len(old.features) == len(new.features) == 1:
        yield next(iter(old.features)), next(iter(new.features))
        return
    for name in old.features:
        yield name, name if name in new.features else None


def arranged(given: Array, found: Array) -> tuple[Array, Array]:
    """Two maps with axes of one element left out and channels last, summed where only one of them has channels.

    Example:
        >>> import numpy as np
        >>> from imagexplain.agreement.pairing import arranged
        >>> [each.shape for each in arranged(np.ones((8, 9)), np.ones((3, 8, 9)))]
        [(8, 9), (8, 9)]
    """
    both = [_channels_last(np.squeeze(one)) for one in (given, found)]
    for one, other in ((0, 1), (1, 0)):
        if both[one].ndim == 3 and both[other].ndim == 2 and both[one].shape[:2] == both[other].shape:
            both[one] = both[one].sum(-1)
    return both[0], both[1]


def _channels_last(values: Array) -> Array:
    first = values.ndim == 3 and values.shape[0] in (3, 4) and values.shape[-1] not in (3, 4)
    return np.moveaxis(values, 0, -1) if first else values


__all__ = ["arranged", "feature_pairs", "nearest_scores", "paired_scores"]
