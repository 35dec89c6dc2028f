"""Cheap maps of importance that an explanation has to beat: chance, size, edges, the gradient at the image alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from imagexplain.attribution.paths.path_integral import Forward, score_gradients


def random(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """(H, W) uniform noise."""
    return torch.rand(size, generator=generator, dtype=torch.float64)


def edges(photo: Tensor) -> Tensor:
    """(H, W) magnitude of the Sobel gradient of a photo's brightness, from (3, H, W) RGB of 0 … 1."""
    across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    brightness = F.pad(photo.mean(0)[None, None], (1, 1, 1, 1), mode="replicate")
    return F.conv2d(brightness, torch.stack([across, across.T])[:, None])[0].norm(dim=0).double()


def gradients(forward: Forward, images: Tensor, target: int) -> Mapping[str, Tensor]:
    """Maps (B, H, W) of images (B, C, H, W): |∇f| and x · ∇f, summed over channels, x in model space."""
    _, gradient = score_gradients(forward, images, torch.full((len(images),), target))
    return {
        "gradient": gradient.abs().sum(1).double(),
        "input × gradient": (images * gradient).sum(1).double(),
    }
