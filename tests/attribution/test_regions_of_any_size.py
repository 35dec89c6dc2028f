"""XRAI's segments on pictures of any size: those of the whole picture, or a refusal before the model runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from skimage import segmentation
from skimage.transform import resize
from torch import Tensor

from imagexplain.attribution.methods import xrai as regions
from imagexplain.attribution.methods.xrai import SIDE, overlapping_segments, xrai
from tests.attribution.models import linear

SIZES = ((1, 1), (1, 2), (2, 1), (1, 300), (300, 1), (3, 5), (11, 12), (9, 500), (223, 225), (224, 224), (300, 230))


def patches(seed: int) -> NDArray[np.int64]:
    """(SIDE, SIDE) labels: Voronoi cells of a few points, and crumbs of one of them all over."""
    random = np.random.default_rng(seed)
    points = random.uniform(0, SIDE, (7, 2))
    place = np.stack([*np.mgrid[:SIDE, :SIDE]], axis=2)
    labels = np.linalg.norm(place[:, :, None] - points, axis=3).argmin(2)
    labels[random.random((SIDE, SIDE)) < 0.002] = 6
    return labels


@pytest.mark.parametrize("size", SIZES)
def test_segments_are_those_of_the_whole_picture_widened(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part drawn at the picture's size, with all pixels at most five away; those not seen are left out."""
    labels = patches(size[0])
    monkeypatch.setattr(segmentation, "felzenszwalb", lambda picture, **settings: labels)
    drawn = resize(labels, size, order=0, mode="constant", preserve_range=True, anti_aliasing=False).astype(int)
    expected = [distance_transform_edt(np.pad(drawn != part, 9, constant_values=True)) <= 5 for part in range(7)]
    cut = [part[9 : 9 + size[0], 9 : 9 + size[1]] for part in expected]
    kept = [part for number, part in enumerate(cut) if (drawn == number).any()]
    got = overlapping_segments(np.zeros((*size, 3), dtype=np.uint8))
    np.testing.assert_array_equal(got, np.stack(kept * 6))


@pytest.mark.parametrize("size", SIZES)
def test_a_map_of_any_size_keeps_the_sum(size: tuple[int, int]) -> None:
    """Σ w (x − (least + largest value) / 2) of a linear model."""
    x = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weights = torch.rand(size[0] * size[1], generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    got = xrai(linear(weights), x, 0, steps=2)
    assert got.shape == (1, 1, *size)
    expected = (weights * (x.flatten() - (x.min() + x.max()) / 2)).sum()
    torch.testing.assert_close(got.sum(), expected, rtol=1e-10, atol=1e-12)


def never(x: Tensor) -> Tensor:
    raise AssertionError("the model was called")


def test_too_many_segments_are_refused_before_the_model_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    flat = torch.ones(2, 3, 16, 16)
    monkeypatch.setattr(regions, "MOST_BYTES", 6 * 16 * 16 - 1)
    with pytest.raises(ValueError, match=r"^images: wanted segments of 1535 pixels in all at most, got 6 × 16 × 16$"):
        xrai(never, flat, 0)


def test_too_many_segments_are_refused_before_any_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        raise AssertionError("a segment was drawn")

    monkeypatch.setattr(regions, "MOST_BYTES", 6 * 16 * 16 - 1)
    monkeypatch.setattr(regions, "_dilated", drawn)
    with pytest.raises(ValueError, match=r"^images: wanted segments"):
        overlapping_segments(np.full((16, 16, 3), 7, dtype=np.uint8))


@pytest.mark.parametrize("size", [(2**11 + 1, 2**10), (1, 2**21 + 1)])
def test_large_pictures_are_refused_before_the_model_runs(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"^images: wanted at most 2097152 pixels each, or segments, got {size[0]}"):
        xrai(never, torch.zeros(1, 1, *size), 0)
