"""Shapley values of groups of pixels that are present or absent together.

A group is absent where its pixels show the baseline, in all channels.
"""

from __future__ import annotations

from math import comb

import torch
from torch import Tensor

from imagexplain.attribution.coalitions import MOST_MEMBERS, check_groups, coalition_scores, numbered_coalitions
from imagexplain.attribution.network.forward import isolated, rows_at_once
from imagexplain.attribution.paths.path_integral import Forward
from imagexplain.attribution.perturbation import fill_values, numbered
from imagexplain.attribution.registry import Peer, Workload, register
from imagexplain.attribution.targets import Targets, check, classes_and_scores
from imagexplain.errors import ArgumentError

RANK = 1e-11
"""Singular values of the regression, beside the largest, that count as none. What rounding leaves of the direction that
centring took away grows with the number of coalitions; those of directions that coalitions tell apart are far larger.
"""

MOST_ENUMERATED = max(groups for groups in range(1, 64) if (2**groups - 2) * groups <= MOST_MEMBERS)
"""Largest number of groups all of whose coalitions may be held, however many samples are wanted."""

OPERATIONS_PER_MEMBER = 1000
"""Cost of drawing one group of one coalition, in floating-point operations."""


def _regression_operations(work: Workload) -> float:
    """Operations of drawing coalitions, making half as many equations triangular, and decomposing the triangle."""
    groups = work.groups
    coalitions = min(work.options["samples"], 2**groups - 2) if groups else 0
    return work.draws * (OPERATIONS_PER_MEMBER * coalitions * groups + (coalitions + 20 * groups) * groups**2)


def _most_groups(samples: int) -> int:
    return max(MOST_MEMBERS // samples, MOST_ENUMERATED)


@register(
    family="perturbation",
    forward_passes=lambda work: work.options["samples"] * work.draws,
    operations=_regression_operations,
    peer=Peer("Captum", "KernelShap", "draws differ"),
    least={"samples": 2},
    most_groups=lambda options: _most_groups(options["samples"]),
)
@isolated
def kernel_shap(
    model: Forward,
    images: Tensor,
    targets: Targets = None,
    *,
    groups: Tensor,
    baselines: float | Tensor | None = None,
    samples: int = 256,
    seed: int = 0,
    chunk: int = 64,
) -> Tensor:
    """Shapley value of each group, at each of its pixels, by the weighted least squares of kernel SHAP.

    With all 2^G − 2 coalitions, which are taken where there are no more than ``samples``, the values are exact. Else
    coalitions are drawn from the Shapley kernel, each with its complement (Covert, Lee 2021, arXiv 2012.01536). Either
    way the values sum to f(image) − f(baseline).

    Not Captum's ``KernelShap``: it draws from the global generator, one image after the other, so that draws depend on
    the batch; it only nearly meets the two ends, by weights of 10⁶; and its regression is done in float32.

    Args:
        model: Module or function from (N, C, H, W) to pre-softmax scores (N, classes), each row independent of the
            others.
        images: Images (B, C, H, W) in model-input space.
        targets: Classes to explain: one for all images, one for each, or None for the predicted ones.
        groups: Group numbers (B, H, W) or, for all images, (H, W), int64: pixels of equal number are a group. Any
            numbers will do.
        baselines: Values of absent pixels: a number, a tensor that broadcasts to (B, C, H, W), or None for 0.
        samples: Largest number of coalitions evaluated for each image; at least 2. An odd number is rounded down.
            Coalitions times groups are at most 20 million for each image.
        seed: Seed of each image's own generator; images with equally many groups share their coalitions.
        chunk: Largest number of rows evaluated at once.

    Returns:
        (B, 1, H, W) signed, in units of the score.

    Raises:
        ArgumentError: arguments that do not fit, by name.

    Source: Lundberg, Lee 2017, "A Unified Approach to Interpreting Model Predictions", arXiv 1705.07874, theorem 2.

    Example:
        >>> from torch import allclose, arange, nn, rand
        >>> from imagexplain import kernel_shap
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> image, halves = rand(1, 3, 8, 8), (arange(8) // 4).expand(8, 8)
        >>> left, right = kernel_shap(network, image, targets=3, groups=halves)[0, 0, 0, [0, 4]]
        >>> allclose(left + right, (network(image) - network(0 * image))[0, 3], atol=1e-5)
        True
    """
    if samples < 2:
        raise ArgumentError("samples", f"wanted at least 2, got {samples}")
    check(images, chunk)
    absent, numbers = fill_values("baselines", baselines, images), numbered(groups, images)
    check_groups(numbers, _most_groups(samples), f" with samples={samples}")
    classes, scores = classes_and_scores(model, images, targets, chunk)
    _, absent_scores = classes_and_scores(model, absent, classes, chunk)
    totals = scores.double() - absent_scores.double()
    maps = torch.empty(numbers.shape, dtype=torch.promote_types(images.dtype, torch.float32), device=images.device)
    for b, number in enumerate(numbers):
        coalitions, weights = _coalitions(int(number.max()) + 1, samples, seed)
        parts = coalitions.split(rows_at_once(len(coalitions), chunk, images))
        gain = coalition_scores(model, images[b], absent[b], number, classes[b], parts) - absent_scores[b].cpu()
        values = _shapley_values(*_halved(coalitions, weights, gain, totals[b].cpu()), totals[b].cpu())
        maps[b] = values.to(maps)[number]
    return maps.unsqueeze(1)


def _coalitions(groups: int, samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Coalitions (n, groups), bool, neither empty nor full, and the weights (n,) of the regression, float64."""
    if 2**groups - 2 <= samples:
        members = numbered_coalitions(torch.arange(1, 2**groups - 1), groups)
        kernel = [(groups - 1) / (comb(groups, k) * k * (groups - k)) for k in members.sum(1).tolist()]
        return members, torch.tensor(kernel, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.arange(1, groups, dtype=torch.float64)
    # The kernel summed over all coalitions of a size: that many are drawn of it, each of them equally likely.
    size = 1 + torch.multinomial(1 / (sizes * (groups - sizes)), samples // 2, replacement=True, generator=generator)
    parts = []
    for part in size.split(64):  # a rank takes many times the memory of a member
        ranks = torch.rand(len(part), groups, generator=generator, dtype=torch.float64).argsort(1).argsort(1)
        parts.append(ranks < part.unsqueeze(1))
    members = torch.cat(parts)
    members = torch.stack([members, ~members], dim=1).flatten(0, 1)
    return members, torch.ones(len(members), dtype=torch.float64)


def _shapley_values(coalitions: Tensor, weights: Tensor, gains: Tensor, total: Tensor) -> Tensor:
    """Values φ (G,) with Σφ = total that minimise Σ weight · (gain − Σ_{group in coalition} φ)².

    φ is an equal share of the total and a rest that sums to 0. So does the solution of least norm, for each row of the
    centred coalitions does.
    """
    count, groups = coalitions.shape
    if not (gains.isfinite().all() and total.isfinite()):
        return torch.full((groups,), torch.nan, dtype=torch.float64)
    system = torch.cat([coalitions.double(), gains.unsqueeze(1)], 1)  # (n, G + 1) with the right side
    share = system[:, :groups].mean(1, keepdim=True)
    system[:, :groups] -= share
    system[:, groups:] -= share * total
    system *= weights.sqrt().unsqueeze(1)
    if count > groups + 1:  # the triangle of its QR has the same solution, and far fewer rows
        system = torch.linalg.qr(system, mode="r").R
    rest = torch.linalg.lstsq(system[:, :groups], system[:, groups:], rcond=RANK, driver="gelsd").solution
    return total / groups + rest.squeeze(1)


def _halved(coalitions: Tensor, weights: Tensor, gains: Tensor, total: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows (n, G), weights and gains (n,) of the regression, half of them where coalitions alternate with complements.

    Centred, the two are each other's negatives: the mean of one equation and the other's negative stands for both.
    """
    pairs, complements = coalitions[::2], coalitions[1::2]
    if len(pairs) != len(complements) or not torch.equal(pairs, ~complements):
        return coalitions, weights, gains
    return pairs, weights[::2], (gains[::2] - gains[1::2] + total) / 2
