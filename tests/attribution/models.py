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


def _network(seed: int, first: nn.Module, second: nn.Module, classes: int, dtype: torch.dtype) -> nn.Module:
    """Two convolutions of 8 × 8 pixels, each followed by an activation; frozen."""
    torch.manual_seed(seed)
    convolutions = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2)
    network = nn.Sequential(convolutions[0], first, convolutions[1], second, nn.Flatten(), nn.LazyLinear(classes))
    network(torch.zeros(1, 3, 8, 8))
    return network.to(dtype).eval().requires_grad_(False)


def smooth_network(dtype: torch.dtype = torch.float64, classes: int = 3) -> nn.Module:
    """A convolutional network without kinks, frozen."""
    return _network(0, nn.Softplus(), nn.Tanh(), classes, dtype)


def kinked_network(dtype: torch.dtype = torch.float64) -> nn.Module:
    """A convolutional network of ReLUs, frozen."""
    return _network(3, nn.ReLU(), nn.ReLU(), 3, dtype)
