"""Expected gradients: integrated gradients averaged over many baselines, by chance."""

from __future__ import annotations

import torch
from torch import Tensor

from imagexplain.attribution.network.forward import isolated, rows_at_once
from imagexplain.attribution.paths.path_integral import Forward, score_gradients
from imagexplain.attribution.registry import Peer, register
from imagexplain.attribution.targets import Targets, check, classes_to_explain
from imagexplain.errors import ArgumentError


@register(
    family="paths",
    needs={"gradients"},
    gradient_passes=lambda work: work.options["samples"],
    speckled=True,
    peer=Peer("Captum", "GradientShap", "draws differ"),
)
@isolated
def expected_gradients(
    model: Forward,
    images: Tensor,
    targets: Targets = None,
    *,
    references: Tensor,
    samples: int = 200,
    seed: int = 0,
    chunk: int = 32,
    create_graph: bool = False,
) -> Tensor:
    """Expected gradients: the mean of (x − b) ⊙ ∇f(b + α(x − b)) over references b and α in [0, 1), drawn together.

    Every image gets the same draws, so that none depends on its batch mates.

    Args:
        model: Module or function from (N, C, H, W) to pre-softmax scores (N, classes), each row independent of the
            others.
        images: Images (B, C, H, W) in model-input space.
        targets: Classes to explain: one for all images, one for each, or None for the predicted ones.
        references: Baselines (N, C, H, W) with which the image is compared, say photos of the training set; all equally
            likely, drawn with replacement.
        samples: Number of draws; the error falls with their square root.
        seed: Seed of the draws.
        chunk: Largest number of points evaluated at once.
        create_graph: Maps stay differentiable, with respect to the model's parameters and to images that require a
            gradient, so that they can be part of a training loss.

    Returns:
        (B, C, H, W), signed, in units of the score. Its sum tends to f(x) − mean f(b).

    Raises:
        ValueError: references of another shape than the images or none, samples or chunk below 1, or what does not
            fit the model.

    Source: Erion et al. 2021, arXiv 1906.10670. Own, because Captum's GradientShap takes its draws from
    NumPy's and torch's global generators, row by row, so that a map depends on its batch mates.

    Example:
        >>> from torch import nn, rand
        >>> from imagexplain import expected_gradients
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> images, photos = rand(2, 3, 8, 8), rand(10, 3, 8, 8)
        >>> expected_gradients(network, images, targets=[1, 4], references=photos, samples=20).shape
        torch.Size([2, 3, 8, 8])
    """
    if samples < 1:
        raise ArgumentError("samples", f"wanted at least 1, got {samples}")
    check(images, chunk)
    if references.shape[1:] != images.shape[1:] or len(references) == 0:
        raise ArgumentError(
            "references", f"wanted (N, {', '.join(map(str, images.shape[1:]))}), got {tuple(references.shape)}"
        )
    classes = classes_to_explain(model, images, targets, chunk)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(references), (samples,), generator=generator).to(references.device)
    alpha = torch.rand(samples, 1, 1, 1, generator=generator, dtype=torch.float64).to(images.detach())

    ends = images if create_graph else images.detach()
    total = torch.zeros_like(images.detach(), dtype=torch.promote_types(images.dtype, torch.float32))
    rows = rows_at_once(samples, chunk, images)
    for which, share in zip(drawn.split(rows), alpha.split(rows), strict=True):
        begin = references.detach()[which].to(images)  # (chunk, C, H, W)
        for b, image in enumerate(ends):
            points, wanted = torch.lerp(begin, image, share), classes[b].expand(len(begin))
            _, gradients = score_gradients(model, points, wanted, create_graph=create_graph)
            total[b] += ((image - begin) * gradients).sum(0)
    return (total / samples).to(images.dtype)
