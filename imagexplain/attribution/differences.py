"""Contrast: the difference of two classes' scores in place of a score, why this class and not that one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from imagexplain.attribution.paths.path_integral import Forward
from imagexplain.attribution.targets import check_classes
from imagexplain.errors import ArgumentError

Target = int | tuple[int, int]
"""A class whose score is explained, or two, for the first one's score less the second one's."""

OF_ONE_SCORE: Mapping[str, str | int] = {"scores": "logits", "score": "logit", "utility": "score", "comparisons": 0}
"""Options of methods that else take a softmax of all scores, each with the value for which they take one alone."""


@contextmanager
def contrast(model: Forward, pairs: Sequence[Target]) -> Iterator[tuple[Forward, Tensor]]:
    """Let a model give differences of scores: within the block, one column zᵢ − zⱼ for each pair of classes.

    Any method explains such a column as it does a class, with the column as its target. A map is then of the
    difference: of a method that is linear in the score, it is the difference of the two maps; path integrals sum to it.
    Methods that take a softmax of all scores have none here unless their options are those of :data:`OF_ONE_SCORE`. A
    method that looks at a layer is best given its name, for the default is found by the scores.

    Args:
        model: Module or function from (N, C, H, W) to scores (N, classes).
        pairs: Classes (i, j) of each column, or a class alone for its own score.

    Yields:
        The model with the columns for scores, and their indices (pairs,), int64, as targets of as many images; one
        index goes for all.

    Raises:
        ArgumentError: no pairs, one of a class with itself, or a class that the model does not have.

    Example:
        >>> from torch import allclose, nn, rand
        >>> from imagexplain import contrast, integrated_gradients
        >>> network, images = nn.Sequential(nn.Flatten(), nn.Linear(48, 5)), rand(2, 3, 4, 4)
        >>> with contrast(network, [(3, 1), (0, 4)]) as (differences, columns):
        ...     maps = integrated_gradients(differences, images, targets=columns)
        >>> scores, start = network(images), network(0 * images)
        >>> gained = (scores - start)[[0, 1], [3, 0]] - (scores - start)[[0, 1], [1, 4]]
        >>> allclose(maps.sum((1, 2, 3)), gained, atol=1e-5)
        True
    """
    first, second, lone = _columns(pairs)

    def differences(scores: Any) -> Any:
        if not isinstance(scores, Tensor) or scores.ndim != 2:
            return scores  # which the method that called the model refuses
        check_classes(scores, torch.cat([first, second]))
        own = scores.index_select(1, first.to(scores.device))
        other = scores.index_select(1, second.to(scores.device))
        return own - other.masked_fill(lone.to(scores.device), 0)

    columns = torch.arange(len(pairs))
    if isinstance(model, nn.Module):
        handle = model.register_forward_hook(lambda module, given, scores: differences(scores))
        try:
            yield cast(Forward, model), columns
        finally:
            handle.remove()
        return
    yield lambda images: differences(model(images)), columns


def score_of(scores: Tensor, target: Target) -> float:
    """The score, or the difference of two, of an image's scores (classes,)."""
    if isinstance(target, int):
        return scores[target].item()
    return (scores[target[0]] - scores[target[1]]).item()


def _columns(pairs: Sequence[Target]) -> tuple[Tensor, Tensor, Tensor]:
    """First and second class of each column, int64, and whether there is only the first, bool."""
    if not len(pairs):
        raise ArgumentError("pairs", "wanted at least one pair of classes, got none")
    both = [(pair, pair) if isinstance(pair, int) else tuple(pair) for pair in pairs]
    for pair, found in zip(pairs, both, strict=True):
        if len(found) != 2 or not all(isinstance(one, int) for one in found):
            raise ArgumentError("pairs", f"wanted two class indices, or one alone, got {pair!r}")
        if not isinstance(pair, int) and found[0] == found[1]:
            raise ArgumentError("pairs", f"wanted two different classes, got {found[0]} twice")
    first, second = torch.tensor(both).unbind(1)
    return first, second, torch.tensor([isinstance(pair, int) for pair in pairs])
