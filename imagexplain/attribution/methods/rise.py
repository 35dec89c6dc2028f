"""RISE: the mean score of randomly masked images, over the masks that show a pixel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from imagexplain.attribution.network.forward import isolated, rows_at_once, scores_of_copy
from imagexplain.attribution.paths.path_integral import Forward
from imagexplain.attribution.perturbation import fill_values
from imagexplain.attribution.registry import register
from imagexplain.attribution.targets import Targets, check, classes_to_explain, target_scores
from imagexplain.errors import ArgumentError

Scores = Literal["probabilities", "logits"]


@register(family="perturbation", forward_passes=lambda work: work.options["samples"] * work.draws, centred=True)
@isolated
def rise(
    model: Forward,
    images: Tensor,
    targets: Targets = None,
    *,
    samples: int = 4000,
    cells: int = 8,
    keep: float = 0.5,
    seed: int = 0,
    scores: Scores = "probabilities",
    baselines: float | Tensor | None = None,
    chunk: int = 64,
) -> Tensor:
    """RISE: the mean score over random masks, each weighted by how much it shows of the pixel.

    A mask is a grid of cells that are on with probability ``keep``, enlarged bilinearly and shifted at random.

    The sum of scores is divided by the sum of the masks at the pixel, Σ f(mᵢ⊙x) mᵢ / Σ mᵢ, which estimates the
    paper's E[f | pixel is shown]. The paper divides by its expectation, samples · keep: the same for many samples, but
    a score that no mask changes would then show as noise, and logits may have any such offset. A pixel that no mask
    shows gets 0.

    Args:
        model: Module or function from (N, C, H, W) to pre-softmax scores (N, classes), each row independent of the
            others.
        images: Images (B, C, H, W) in model-input space.
        targets: Classes to explain: one for all images, one for each, or None for the predicted ones.
        samples: Number of masks of each image; the paper takes 4,000 for VGG16 and 8,000 for ResNet50.
        cells: Number of cells along the grid's side, at most H and W.
        keep: Probability in (0, 1] that a cell is on.
        seed: Seed of each image's own generator; images of equal size share their masks.
        scores: Scores to average: "probabilities" for the softmax, as in the paper, "logits" for the score itself.
        baselines: Values of hidden pixels: a number, a tensor that broadcasts to (B, C, H, W), or None for 0.
        chunk: Largest number of rows evaluated at once.

    Returns:
        (B, 1, H, W), in units of the score: not signed evidence, but larger where showing a pixel raises the score.

    Raises:
        ArgumentError: arguments that do not fit, by name.

    Source: Petsiuk, Das, Saenko 2018, arXiv 1806.07421, sections 3.1 and 3.2.

    Example:
        >>> from torch import nn, rand
        >>> from imagexplain import rise
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> maps = rise(network, rand(2, 3, 8, 8), targets=[1, 4], samples=100, cells=4)
        >>> maps.shape, 0 <= maps.min().item() <= maps.max().item() <= 1  # probabilities
        (torch.Size([2, 1, 8, 8]), True)
    """
    check(images, chunk)
    hidden = fill_values("baselines", baselines, images)
    height, width = images.shape[2:]
    _check(min(height, width), samples, cells, keep, scores)
    classes = classes_to_explain(model, images, targets, chunk)
    accumulate = torch.promote_types(images.dtype, torch.float32)
    total = torch.zeros(len(images), height, width, dtype=accumulate, device=images.device)
    shown = torch.zeros_like(total[:1])
    with torch.no_grad():
        for grids, shifts in _draws(height, width, samples, cells, keep, seed, rows_at_once(samples, chunk, images)):
            masks = _masks(grids.to(images.device, accumulate), shifts, height, width)  # (chunk, H, W)
            shown += masks.sum(0)
            for b, (image, absent, target) in enumerate(zip(images, hidden, classes, strict=True)):
                rows = torch.lerp(absent, image, masks.unsqueeze(1).to(images.dtype))
                values = scores_of_copy(model, rows)
                if scores == "probabilities":
                    values = values.to(accumulate).softmax(1)
                shares = target_scores(values, target.expand(len(rows))).to(accumulate)
                total[b] += torch.tensordot(shares, masks, dims=1)
    return (total / torch.where(shown > 0, shown, 1)).unsqueeze(1)


def _draws(
    height: int, width: int, samples: int, cells: int, keep: float, seed: int, chunk: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (chunk, cells, cells) bool grids and (chunk, 2) shifts down and to the right, each less than a cell.

    They are the same whatever the chunk: numbers drawn in pieces are those drawn at once, all grids' before all
    shifts'. So as not to hold the grids, they are drawn twice, the first time only to come to the shifts.
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(samples):
        torch.rand(cells, cells, generator=generator, dtype=torch.float64)
    shifts = [torch.randint(-(-side // cells), (samples,), generator=generator) for side in (height, width)]
    generator.manual_seed(seed)
    for part in torch.stack(shifts, dim=1).split(chunk):
        yield torch.rand(len(part), cells, cells, generator=generator, dtype=torch.float64) < keep, part


def _masks(grids: Tensor, shifts: Tensor, height: int, width: int) -> Tensor:
    """Masks (N, H, W) in 0..1: the grids enlarged by one cell more than the image needs, cut out at their shifts."""
    cells = grids.shape[1]
    sides = [(cells + 1) * -(-side // cells) for side in (height, width)]
    large = F.interpolate(grids.unsqueeze(1), size=sides, mode="bilinear", align_corners=False).squeeze(1)
    cuts = zip(large, shifts.tolist(), strict=True)
    return torch.stack([mask[top : top + height, left : left + width] for mask, (top, left) in cuts])


def _check(side: int, samples: int, cells: int, keep: float, scores: str) -> None:
    if samples < 1:
        raise ArgumentError("samples", f"wanted at least 1, got {samples}")
    if not 1 <= cells <= side:
        raise ArgumentError("cells", f"wanted 1..{side}, the image's shorter side, got {cells}")
    if not 0 < keep <= 1:
        raise ArgumentError("keep", f"wanted a probability in (0, 1], got {keep}")
    if scores not in ("probabilities", "logits"):
        raise ArgumentError("scores", f"wanted probabilities or logits, got {scores!r}")
