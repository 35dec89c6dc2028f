"""Shapley values of groups of pixels by random orders in which they appear.

A group is absent where its pixels show the baseline, in all channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from imagexplain.attribution.coalitions import MOST_MEMBERS, check_groups, coalition_scores
from imagexplain.attribution.network.forward import isolated, rows_at_once
from imagexplain.attribution.paths.path_integral import Forward
from imagexplain.attribution.perturbation import fill_values, numbered
from imagexplain.attribution.registry import Peer, Workload, register
from imagexplain.attribution.targets import Targets, check, classes_and_scores
from imagexplain.errors import ArgumentError


def _coalitions_evaluated(work: Workload) -> float:
    return work.draws * work.options["permutations"] * max(work.groups - 1, 0)


@register(
    family="perturbation",
    forward_passes=_coalitions_evaluated,
    peer=Peer("Captum", "ShapleyValueSampling", "draws differ"),
    most_groups=lambda options: MOST_MEMBERS // options["permutations"],
)
@isolated
def shapley_sampling(
    model: Forward,
    images: Tensor,
    targets: Targets = None,
    *,
    groups: Tensor,
    baselines: float | Tensor | None = None,
    permutations: int = 10,
    seed: int = 0,
    observe_covariance: Callable[[int, Tensor], None] | None = None,
    chunk: int = 64,
) -> Tensor:
    """Shapley value of each group, at each of its pixels: the mean of what it adds when groups appear in random order.

    Unbiased, and however few the orders, the values sum to f(image) − f(baseline). Each order costs an evaluation for
    each group but the last, whose score is the image's.

    Not Captum's ``ShapleyValueSampling``: it draws from the global generator, one order for the whole batch.

    Args:
        model: Module or function from (N, C, H, W) to pre-softmax scores (N, classes), each row independent of the
            others.
        images: Images (B, C, H, W) in model-input space.
        targets: Classes to explain: one for all images, one for each, or None for the predicted ones.
        groups: Group numbers (B, H, W) or, for all images, (H, W), int64: pixels of equal number are a group. Any
            numbers will do.
        baselines: Values of absent pixels: a number, a tensor that broadcasts to (B, C, H, W), or None for 0.
        permutations: Number of orders drawn for each image, at least 1. Orders times groups are at most 20 million.
        seed: Seed of each image's own generator; images with equally many groups share their orders, and the first
            orders of a longer series are those of a shorter one.
        observe_covariance: Function that gets each image's index and the covariance (G, G), float64, of the errors of
            its groups' values, in the order of their numbers, from the spread over the orders; of one alone it is not
            called.
        chunk: Largest number of rows evaluated at once.

    Returns:
        (B, 1, H, W) signed, in units of the score.

    Raises:
        ArgumentError: arguments that do not fit, by name.

    Source: Castro, Gómez, Tejada 2009, "Polynomial calculation of the Shapley value based on sampling"; as in
    Štrumbelj, Kononenko 2010, and Maleki et al. 2013, arXiv 1306.4265.

    Example:
        >>> from torch import allclose, arange, nn, rand
        >>> from imagexplain import shapley_sampling
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> image, halves = rand(1, 3, 8, 8), (arange(8) // 4).expand(8, 8)
        >>> left, right = shapley_sampling(network, image, targets=3, groups=halves)[0, 0, 0, [0, 4]]
        >>> allclose(left + right, (network(image) - network(0 * image))[0, 3], atol=1e-5)
        True
    """
    if permutations < 1:
        raise ArgumentError("permutations", f"wanted at least 1, got {permutations}")
    check(images, chunk)
    absent, numbers = fill_values("baselines", baselines, images), numbered(groups, images)
    check_groups(numbers, MOST_MEMBERS // permutations, f" with permutations={permutations}")
    classes, scores = classes_and_scores(model, images, targets, chunk)
    _, absent_scores = classes_and_scores(model, absent, classes, chunk)
    maps = torch.empty(numbers.shape, dtype=torch.promote_types(images.dtype, torch.float32), device=images.device)
    for b, number in enumerate(numbers):
        orders = _orders(int(number.max()) + 1, permutations, seed)
        parts = _coalitions(orders, rows_at_once(permutations * int(number.max()), chunk, images))
        between = coalition_scores(model, images[b], absent[b], number, classes[b], parts)
        first, last = (end[b].double().cpu().expand(permutations, 1) for end in (absent_scores, scores))
        along = torch.cat([first, between.view(permutations, -1), last], 1)  # (P, G + 1), from nothing to all
        gains = torch.zeros(orders.shape, dtype=torch.float64).scatter_(1, orders, along.diff(dim=1))
        if observe_covariance is not None and permutations > 1:
            observe_covariance(b, torch.atleast_2d(gains.T.cov()) / permutations)
        maps[b] = gains.mean(0).to(maps)[number]
    return maps.unsqueeze(1)


def _orders(groups: int, permutations: int, seed: int) -> Tensor:
    """Orders (P, G), int64, of the groups."""
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randperm(groups, generator=generator) for _ in range(permutations)])


def _coalitions(orders: Tensor, chunk: int) -> Iterator[Tensor]:
    """Yield the coalitions (n, G), bool, n at most ``chunk``, that orders (P, G) pass between nothing and all."""
    permutations, groups = orders.shape
    ranks = orders.argsort(1)  # of each group in each order
    for places in torch.arange(permutations * (groups - 1)).split(chunk):
        order, present = places // (groups - 1), places % (groups - 1) + 1
        yield ranks[order] < present.unsqueeze(1)
