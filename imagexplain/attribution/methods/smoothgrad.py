"""Attributions of many noisy copies of an image, taken together: SmoothGrad, its square, and VarGrad."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from imagexplain.attribution.methods.gradient import gradient
from imagexplain.attribution.network.forward import isolated, rows_at_once
from imagexplain.attribution.paths.path_integral import Forward
from imagexplain.attribution.registry import Peer, register
from imagexplain.attribution.targets import Targets, classes_to_explain
from imagexplain.errors import ArgumentError

Method = Callable[[Forward, Tensor, Targets], Tensor]
Statistic = Literal["mean", "square", "variance"]


@isolated
def smooth(
    method: Method,
    model: Forward,
    images: Tensor,
    targets: Targets = None,
    *,
    samples: int = 25,
    std: float = 0.15,
    seed: int = 0,
    statistic: Statistic = "mean",
    chunk: int = 32,
    create_graph: bool = False,
) -> Tensor:
    """Smooth a method's maps: take a statistic of them over noisy copies of each image.

    Every image gets the same standard normal draws, scaled by its own range, so that none depends on its batch mates.

    Args:
        method: Function called as method(model, images, targets); bind its options with functools.partial.
        model: Module or function from (N, C, H, W) to pre-softmax scores (N, classes), each row independent of the
            others.
        images: Images (B, C, H, W) in model-input space.
        targets: Classes to explain: one for all images, one for each, or None for the class predicted without noise.
        samples: Number of noisy copies of each image. No more than a chunk of their maps is held, but with
            ``create_graph``.
        std: Standard deviation of the noise, as a fraction of each image's own max − min; 0 or more.
        seed: Seed of the noise. The first draws of a longer series are those of a shorter one.
        statistic: Statistic of the maps: their "mean", the mean of their "square", or their "variance" (divided by
            ``samples``).
        chunk: Largest number of noisy copies given to the method at once.
        create_graph: Maps stay differentiable, as far as the method itself keeps them so.

    Returns:
        Maps as the method returns them, detached unless ``create_graph``; squared units but for the mean.

    Raises:
        ValueError: samples or chunk below 1, a negative std, an unknown statistic, or what does not fit the model.

    Source: Smilkov et al. 2017, arXiv 1706.03825; square and variance: Hooker et al. 2019, arXiv 1806.10758,
    and Adebayo et al. 2018, arXiv 1810.03292 and 1810.03307.

    Example:
        >>> from torch import nn, rand
        >>> from imagexplain import input_x_gradient, smooth
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> images = rand(2, 3, 8, 8)
        >>> smooth(input_x_gradient, network, images, targets=1, samples=8).shape
        torch.Size([2, 3, 8, 8])
        >>> plain = input_x_gradient(network, images, targets=1)
        >>> smooth(input_x_gradient, network, images, targets=1, std=0).allclose(plain, atol=1e-6)  # no noise
        True
    """
    if samples < 1:
        raise ArgumentError("samples", f"wanted at least 1, got {samples}")
    if not std >= 0:
        raise ArgumentError("std", f"wanted a fraction of the image's range, 0 or more, got {std}")
    if statistic not in get_args(Statistic):
        raise ArgumentError("statistic", f"wanted one of {', '.join(get_args(Statistic))}, got {statistic!r}")
    classes = classes_to_explain(model, images, targets, chunk)
    maps = []
    for image, wanted in zip(images if create_graph else images.detach(), classes, strict=True):
        copies = noisy_copies(image, samples, std, seed, rows_at_once(samples, chunk, images))
        parts = (method(model, rows, wanted.expand(len(rows))) for rows in copies)
        maps.append(_over(parts if create_graph else (part.detach() for part in parts), statistic))
    return torch.stack(maps)


@register(
    family="gradients",
    needs={"gradients"},
    gradient_passes=lambda work: work.options["samples"],
    speckled=True,
    sensitivity=True,
    peer=Peer("Captum", "NoiseTunnel", "draws differ"),
)
@isolated
def smoothgrad(
    model: Forward,
    images: Tensor,
    targets: Targets = None,
    *,
    samples: int = 25,
    std: float = 0.15,
    seed: int = 0,
    statistic: Statistic = "mean",
    chunk: int = 32,
    create_graph: bool = False,
) -> Tensor:
    """SmoothGrad: :func:`smooth` of the plain gradient.

    Arguments, result and errors are those of :func:`smooth`.

    Example:
        >>> from torch import nn, rand
        >>> from imagexplain import smoothgrad
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> images = rand(2, 3, 8, 8)
        >>> maps = smoothgrad(network, images, targets=1, samples=8, seed=3)
        >>> maps.shape, maps.equal(smoothgrad(network, images, targets=1, samples=8, seed=3))
        (torch.Size([2, 3, 8, 8]), True)
    """
    return smooth(
        partial(gradient, create_graph=create_graph),
        model,
        images,
        targets,
        samples=samples,
        std=std,
        seed=seed,
        statistic=statistic,
        chunk=chunk,
        create_graph=create_graph,
    )


def noisy_copies(image: Tensor, samples: int, std: float, seed: int, chunk: int) -> Iterator[Tensor]:
    """Yield the noisy copies of one image, (C, H, W), as (chunk or fewer, C, H, W); the same whatever the chunk."""
    generator = torch.Generator().manual_seed(seed)
    scale = std * (image.max() - image.min())
    for start in range(0, samples, chunk):
        noise = torch.empty(min(chunk, samples - start), *image.shape, dtype=torch.float32)
        for draw in noise:  # one at a time: the draws of a longer tensor need not begin with those of a shorter one
            draw.normal_(generator=generator)
        yield image + scale * noise.to(image)


def _over(parts: Iterable[Tensor], statistic: Statistic) -> Tensor:
    """Statistic over maps that come in parts, (n, ...) each, merged in float64 (Chan, Golub, LeVeque 1979)."""
    count, mean, spread = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for part in parts:
        values = part.double().square() if statistic == "square" else part.double()
        new, own = len(values), values.mean(0)
        if statistic == "variance":
            spread = spread + (values - own).square().sum(0) + (own - mean).square() * (count * new / (count + new))
        mean = mean + (own - mean) * (new / (count + new))
        count += new
    return (spread / count if statistic == "variance" else mean).to(part)
