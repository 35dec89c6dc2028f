"""Where a path starts, when that depends on the image or on chance.

A baseline stands for the absence of evidence. What equals it gets no attribution, whatever it means to the model, so
that no single one is right for every image (Sturmfels, Lundberg, Lee, "Visualizing the Impact of Feature Attribution
Baselines", Distill 2020).
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor


def image_mean(image: Tensor) -> Tensor:
    """The image's mean colour everywhere: (C, H, W) to (C, H, W), in any space."""
    return image.mean((1, 2), keepdim=True).expand_as(image)


def blurred(image: Tensor, sigma: float) -> Tensor:
    """The image (C, H, W) under a Gaussian of standard deviation ``sigma`` pixels; its edge goes on beyond the frame.

    Raises:
        ValueError: sigma is not positive.
    """
    if not sigma > 0:
        raise ValueError(f"sigma: wanted a positive number of pixels, got {sigma}")
    values = ndimage.gaussian_filter(image.detach().cpu().numpy(), (0, sigma, sigma), mode="nearest")
    return torch.from_numpy(np.ascontiguousarray(values)).to(image)


def uniform_noise(low: Tensor, high: Tensor, draws: int, seed: int) -> Tensor:
    """(draws, C, H, W): every value between its bounds, all equally likely; equal seeds give equal draws.

    Args:
        low, high: (C, H, W) bounds, say a black and a white photo.
        draws: at least 1. The first draws of a longer series are those of a shorter one.
        seed: of a generator of its own, on the CPU.
    """
    if draws < 1:
        raise ValueError(f"draws: wanted at least 1, got {draws}")
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand((draws, *low.shape), generator=generator, dtype=torch.float64)
    return torch.lerp(low.double(), high.double(), noise.to(low.device)).to(low.dtype)
