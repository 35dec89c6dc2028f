"""Small images and masks: noise, and rows of given pixels."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal noise, the same in every dtype."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def noise_image(seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """An image (3, 8, 8) of noise."""
    return noise(3, 8, 8, seed=seed, dtype=dtype)


def noise_images(count: int = 3, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Images (count, 3, 8, 8) of noise."""
    return noise(count, 3, 8, 8, seed=seed, dtype=dtype)


def uneven_images(count: int = 3, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Up to three images (count, 3, 8, 8) of noise, each of a range of its own."""
    scale = torch.tensor([1.0, 3.0, 0.2], dtype=torch.float64)[:count].view(-1, 1, 1, 1)
    return (noise_images(count, seed=seed) * scale).to(dtype)


def float_images() -> Tensor:
    """Three images (3, 3, 8, 8) of noise in torch's usual dtype, float32."""
    return noise_images(dtype=torch.float32)


def row_image(*values: float) -> Tensor:
    """A grey image (1, 1, W) of one row of pixels."""
    return torch.tensor(values, dtype=torch.float64).view(1, 1, -1)


def row_batch(*values: float) -> Tensor:
    """A batch (1, 1, 1, W) of one grey image of one row of pixels."""
    return row_image(*values).unsqueeze(0)


def row_masks(*rows: str) -> Tensor:
    """One mask (1, W) of a single row of pixels for each text of 0 and 1."""
    return torch.tensor([[[digit == "1" for digit in row]] for row in rows])


@st.composite
def families(draw: st.DrawFn) -> Tensor:
    """Up to eight masks over up to twelve pixels: overlapping, nested, equal and empty ones among them."""
    pixels, count = draw(st.integers(1, 12)), draw(st.integers(0, 8))
    rows = draw(st.lists(st.lists(st.booleans(), min_size=pixels, max_size=pixels), min_size=count, max_size=count))
    return torch.tensor(rows, dtype=torch.bool).view(count, 1, pixels)
