"""Small differentiable models whose integrals are known, as (N, C, H, W) -> (N, classes)."""

import torch
from torch import Tensor, nn


def columns(*scores: Tensor) -> Tensor:
    return torch.stack(scores, dim=1)


def linear(weights: Tensor):
    """Class 0 scores w·x, class 1 its negative."""
    return lambda x: columns((x.flatten(1) * weights.to(x)).sum(1), -(x.flatten(1) * weights.to(x)).sum(1))


def product(x: Tensor) -> Tensor:
    """x₁x₂ of a two-pixel image."""
    return columns(x.flatten(1).prod(1))


def cubic(x: Tensor) -> Tensor:
    """Σ x³/3, whose gradient along the path from 0 is α²x²."""
    return columns((x**3 / 3).flatten(1).sum(1))


def smooth_network(dtype: torch.dtype = torch.float64, classes: int = 3) -> nn.Module:
    """A convolutional network without kinks, frozen."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Softplus(),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.Tanh(),
        nn.Flatten(),
        nn.LazyLinear(classes),
    )
    network(torch.zeros(1, 3, 8, 8))
    return network.to(dtype).eval().requires_grad_(False)
