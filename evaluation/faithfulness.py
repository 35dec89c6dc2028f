"""Captum's infidelity and max-sensitivity, for scores of groups.

Source: Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", arXiv 1901.09392.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from captum.metrics import infidelity as captum_infidelity
from captum.metrics import sensitivity_max
from torch import Tensor

from evaluation.coalition_game import CoalitionGame


def removals(groups: int, samples: int, generator: torch.Generator) -> Tensor:
    """(samples, G) bool: random groups to take away, as many as a uniform draw of 1 … G says."""
    counts = torch.randint(1, groups + 1, (samples, 1), generator=generator)
    return torch.rand(samples, groups, generator=generator).argsort(1) < counts


def infidelity(game: CoalitionGame, scores: Tensor, removed: Tensor, *, scaled: bool) -> float:
    """The error of the scores as predictions of what taking groups away costs. Lower is better, 0 is perfect.

    The mean over the removals R of (Σ_{g∈R} s_g − (f(x) − f(x without R)))², relative to the mean of the squared costs,
    which is what scores of 0 get. 0 where nothing costs anything and nothing was predicted.

    Args:
        game: Game of the image.
        scores: (G,) scores of the groups.
        removed: (N, G) bool, the groups of each removal.
        scaled: Flag that multiplies the scores by the factor that suits them best, Captum's ``normalize``: at most 1
            then. For scores that are not in units of the model's.
    """

    def forward(present: Tensor) -> Tensor:
        return game.scores(present > 0.5)

    def take_away(present: Tensor) -> tuple[Tensor, Tensor]:
        taken = removed.to(present)
        return taken, present - taken

    def measured(given: Tensor, normalize: bool) -> float:
        everyone = torch.ones(1, game.groups, dtype=torch.float64)
        return float(
            captum_infidelity(
                forward,
                take_away,
                everyone,
                given.double().unsqueeze(0),
                n_perturb_samples=len(removed),
                normalize=normalize,
            )
        )

    nothing = measured(torch.zeros_like(scores), normalize=False)
    error = measured(scores, scaled and bool(scores.any()))
    return error / nothing if nothing > 0 else error


def sensitivity(explain: Callable[[Tensor], Tensor], image: Tensor, radius: float, samples: int, seed: int) -> float:
    """The largest relative change of the scores under small changes of the image. Lower is better.

    Args:
        explain: Function from images (B, C, H, W) to scores (B, G).
        image: (C, H, W) model input.
        radius: Radius of the uniform noise on each value, in model space.
        samples: Number of noisy images.
        seed: Seed of the noise, so that all methods see the same images.
    """

    def noisy(images: Tensor, radius: float) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return images + radius * (2 * torch.rand(images.shape, generator=generator) - 1)

    change = sensitivity_max(
        lambda images: (explain(images[0] if isinstance(images, tuple) else images),),  # Captum wants a tuple back
        image.unsqueeze(0),
        perturb_func=noisy,
        perturb_radius=radius,
        n_perturb_samples=samples,
    )
    return float(change)
