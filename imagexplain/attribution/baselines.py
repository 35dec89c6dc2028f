"""Baselines of a path that depend on the image or on chance.

A baseline stands for the absence of evidence. What equals it gets no attribution, whatever it means to the model, so
that no single one is right for every image (Sturmfels, Lundberg, Lee, "Visualizing the Impact of Feature Attribution
Baselines", Distill 2020).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from scipy.fft import next_fast_len
from torch import Tensor

from imagexplain.errors import ArgumentError

PIECE = 2**21
"""Number of values that are transformed at once."""


def image_mean(image: Tensor) -> Tensor:
    """Image of the mean colour: (C, H, W) to (C, H, W), in any space."""
    return image.mean((1, 2), keepdim=True).expand_as(image)


def extremes(image: Tensor) -> Tensor:
    """Images of the least and of the largest value of an image (C, H, W) in every channel: (2, C, H, W)."""
    return torch.stack([end.expand_as(image) for end in (image.amin(), image.amax())])


def blurred(image: Tensor, sigma: float) -> Tensor:
    """Blur an image (C, H, W) by a Gaussian of standard deviation ``sigma`` pixels, its edges continued outwards.

    The kernel is scipy's, cut at 4 σ. It is applied by Fourier transforms, so that the time does not grow with sigma.

    Raises:
        ValueError: sigma is not positive.
    """
    if not sigma > 0:
        raise ArgumentError("sigma", f"wanted a positive number of pixels, got {sigma}")
    values = image.detach().cpu().double()
    for _ in range(2):  # the columns, then the rows
        values = _blurred_rows(values.mT.contiguous(), sigma)
    return values.to(image)


def _blurred_rows(values: Tensor, sigma: float) -> Tensor:
    """Blur (C, H, W) float64 along the last axis.

    Beyond an edge the row continues with the edge's value, whose contribution is that value times the kernel's sum over
    there; so no more of the kernel than the row's own length is transformed.
    """
    width = values.shape[-1]
    offsets = torch.arange(int(4 * sigma + 0.5) + 1, dtype=torch.float64)
    half = torch.exp(-0.5 * (offsets / sigma) ** 2)  # the kernel from its middle on
    half = half / (half[0] + 2 * half[1:].sum())
    tail = F.pad(half.flip(0).cumsum(0).flip(0), (0, width + 1))[1 : width + 1]  # of all offsets above 0 … width − 1
    half = half[:width]
    length = next_fast_len(width + len(half) - 1, real=True)
    kernel = F.pad(half, (0, length - len(half)))
    kernel[length - len(half) + 1 :] += half[1:].flip(0)  # offsets below 0 come round from the end
    response = torch.fft.rfft(kernel)
    rows = values.reshape(-1, width)
    parts = [
        torch.fft.irfft(torch.fft.rfft(part, length) * response, length)[:, :width]
        for part in rows.split(max(1, PIECE // length))
    ]
    return (torch.cat(parts) + rows[:, :1] * tail + rows[:, -1:] * tail.flip(0)).view(values.shape)


def uniform_noise(low: Tensor, high: Tensor, draws: int, seed: int) -> Tensor:
    """Uniform noise (draws, C, H, W): every value between its bounds, all equally likely; equal seeds, equal draws.

    Args:
        low, high: Bounds (C, H, W), say a black and a white photo.
        draws: Number of draws, at least 1. The first draws of a longer series are those of a shorter one.
        seed: Seed of a generator of its own, on the CPU.
    """
    if draws < 1:
        raise ArgumentError("draws", f"wanted at least 1, got {draws}")
    generator = torch.Generator().manual_seed(seed)
    values = low.new_empty((draws, *low.shape))
    for draw in values:  # one at a time, for they are drawn in float64
        noise = torch.rand(low.shape, generator=generator, dtype=torch.float64)
        draw.copy_(torch.lerp(low.double(), high.double(), noise.to(low.device)))
    return values
