"""Shapley values of groups of pixels that are present or absent together, by a Gaussian process over coalitions.

A group is absent where its pixels show the baseline, in all channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from imagexplain.attribution.coalition_design import CANDIDATES, designed_coalitions, drawn_first
from imagexplain.attribution.coalitions import check_groups, coalition_scores
from imagexplain.attribution.gaussian_process_shapley import (
    Prior,
    drawn_coalitions,
    exact_shapley_values,
    prior_of_segments,
    shapley_posterior,
)
from imagexplain.attribution.network.forward import isolated, rows_at_once
from imagexplain.attribution.paths.path_integral import Forward
from imagexplain.attribution.perturbation import fill_values, numbered
from imagexplain.attribution.registry import Workload, register
from imagexplain.attribution.targets import Targets, check, classes_and_scores
from imagexplain.attribution.uncertainty import relative_uncertainty
from imagexplain.errors import ArgumentError

FIRST, GROWTH = 16, 1.5
"""Pairs of coalitions after which a tolerance is first tried, and the growth of their number until the next trial."""

MOST_SAMPLES = 4096
MOST_GROUPS = 256
"""Largest numbers of coalitions and of groups: the regression takes the cube of the one, and memory by the other's."""


def _regression_operations(work: Workload) -> float:
    """Operations of the choice of coalitions, and of the regression, whose weights are searched for."""
    pairs = work.options["samples"] // 2
    choice = (pairs + CANDIDATES) * (pairs**2 + 8 * (pairs + CANDIDATES) * work.groups)
    return work.draws * (choice + 20 * pairs**2 * work.groups + 20 * pairs**3)


@register(
    family="perturbation",
    forward_passes=lambda work: work.options["samples"] * work.draws,
    operations=_regression_operations,
    least={"samples": 2},
    most={"samples": MOST_SAMPLES},
    most_groups=lambda options: MOST_GROUPS,
)
@isolated
def gaussian_shap(
    model: Forward,
    images: Tensor,
    targets: Targets = None,
    *,
    groups: Tensor,
    baselines: float | Tensor | None = None,
    samples: int = 256,
    tolerance: float = 0.0,
    seed: int = 0,
    observe_covariance: Callable[[int, Tensor], None] | None = None,
    chunk: int = 64,
) -> Tensor:
    """Shapley value of each group, at each of its pixels, by the regression of a Gaussian process on coalitions.

    With ``samples`` for all 2^G − 2 coalitions these are :func:`kernel_shap`'s, which are exact. With fewer, half of
    them are drawn, of all sizes, and half chosen for what they will tell, each with its complement; what they leave
    open is filled as segments commonly act: those of like colour alike, in proportion to their squared difference from
    the baseline, and neighbours together. Either way the values sum to f(image) − f(baseline). With a ``tolerance`` no
    more coalitions are evaluated as soon as twice the largest standard error is within it.

    :mod:`imagexplain.attribution.gaussian_process_shapley` has the regression itself,
    :mod:`imagexplain.attribution.coalition_design` the choice.

    Args:
        model: Module or function from (N, C, H, W) to pre-softmax scores (N, classes), each row independent of the
            others.
        images: Images (B, C, H, W) in model-input space.
        targets: Classes to explain: one for all images, one for each, or None for the predicted ones.
        groups: Group numbers (B, H, W) or, for all images, (H, W), int64: pixels of equal number are a group. Any
            numbers will do; at most 256 groups.
        baselines: Values of absent pixels: a number, a tensor that broadcasts to (B, C, H, W), or None for 0.
        samples: Largest number of coalitions evaluated for each image, 2 … 4096. An odd number is rounded down.
        tolerance: Uncertainty, 0 … 1, that is enough: twice the largest standard error of a group, relative to the
            larger of |f(image) − f(baseline)| and the sum of all values' magnitudes. 0 takes all samples.
        seed: Seed of each image's own generator.
        observe_covariance: Function that gets each image's index and the covariance (G, G), float64, of the errors of
            its groups' values, in the order of their numbers; 0 where the values are exact.
        chunk: Largest number of rows evaluated at once.

    Returns:
        (B, 1, H, W) signed, in units of the score.

    Raises:
        ArgumentError: arguments that do not fit, by name.

    Source: this library; the parts it is made of are named in the module of the regression.

    Example:
        >>> from torch import allclose, arange, nn, rand
        >>> from imagexplain import gaussian_shap
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> image, quarters = rand(1, 3, 8, 8), (arange(8) // 2).expand(8, 8)
        >>> values = gaussian_shap(network, image, targets=3, groups=quarters, samples=8)[0, 0, 0, ::2]
        >>> allclose(values.sum(), (network(image) - network(0 * image))[0, 3], atol=1e-5)
        True
    """
    if not 2 <= samples <= MOST_SAMPLES:
        raise ArgumentError("samples", f"wanted 2 … {MOST_SAMPLES}, got {samples}")
    if not 0 <= tolerance <= 1:
        raise ArgumentError("tolerance", f"wanted 0 … 1, got {tolerance}")
    check(images, chunk)
    absent, numbers = fill_values("baselines", baselines, images), numbered(groups, images)
    check_groups(numbers, MOST_GROUPS)
    counts = (numbers.flatten(1).amax(1) + 1).tolist()
    classes, scores = classes_and_scores(model, images, targets, chunk)
    _, absent_scores = classes_and_scores(model, absent, classes, chunk)
    totals = (scores.double() - absent_scores.double()).cpu()
    maps = torch.empty(numbers.shape, dtype=torch.promote_types(images.dtype, torch.float32), device=images.device)
    for b, (number, total) in enumerate(zip(numbers, totals.tolist(), strict=True)):

        def odd_parts(asked: Tensor, b: int = b, number: Tensor = number) -> Tensor:
            both = torch.cat([asked, ~asked])
            parts = both.split(rows_at_once(len(both), chunk, images))
            there, away = coalition_scores(model, images[b], absent[b], number, classes[b], parts).view(2, -1)
            return (there - away) / 2

        prior = prior_of_segments(images[b], absent[b], number)
        drawn = drawn_coalitions(counts[b], CANDIDATES + samples // 2, seed)
        values, covariance = _estimated(drawn, samples // 2, odd_parts, total, prior, tolerance)
        if observe_covariance is not None:
            observe_covariance(b, covariance)
        maps[b] = values.to(maps)[number]
    return maps.unsqueeze(1)


def _estimated(
    drawn: Tensor, count: int, odd_parts: Callable[[Tensor], Tensor], total: float, prior: Prior, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Values (G,) and the covariance (G, G) of their errors, from as many of the coalitions as it takes."""
    most, groups = min(count, len(drawn)), drawn.shape[1]
    odd = torch.zeros(0, dtype=torch.float64)
    end = most if tolerance == 0 else min(FIRST, most)
    coalitions = drawn
    while True:
        if len(odd) <= drawn_first(most) < end:  # only now, for the choice among thousands takes seconds
            coalitions = designed_coalitions(prior, drawn, most)
        odd = torch.cat([odd, odd_parts(coalitions[len(odd) : end])])
        if end == 2 ** (groups - 1) - 1:
            return exact_shapley_values(coalitions, odd, total), torch.zeros(groups, groups, dtype=torch.float64)
        found = shapley_posterior(coalitions[:end], odd, total, prior)
        if end == most or relative_uncertainty(found.values, found.errors, total) <= tolerance:
            return found.values, found.covariance
        end = min(math.ceil(GROWTH * end), most)
