from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from imagexplain.attribution.baselines import blurred, image_mean, uniform_noise
from tests.attribution.inputs import noise


def test_image_mean_by_hand() -> None:
    image = torch.tensor([[[1.0, 3.0]], [[0.0, -4.0]]])
    assert image_mean(image).tolist() == [[[2, 2]], [[-2, -2]]]


def test_blur_keeps_a_plain_image_and_spreads_a_point() -> None:
    assert torch.allclose(blurred(torch.full((3, 5, 4), 0.25), 2.0), torch.full((3, 5, 4), 0.25))
    point = torch.zeros(2, 21, 21, dtype=torch.float64)
    point[0, 10, 10] = 1
    spread = blurred(point, 1.5)
    assert spread[1].abs().sum() == 0  # channels do not mix
    assert spread.sum().item() == pytest.approx(1)
    # A Gaussian: one standard deviation off, along a row, the value falls to exp(−1/2) of the centre's.
    assert (spread[0, 10, 13] / spread[0, 10, 10]).item() == pytest.approx(torch.tensor(-2.0).exp().item(), rel=1e-6)


def test_uniform_noise_is_seeded_bounded_and_uniform() -> None:
    low, high = torch.tensor([-1.0, 2.0]).view(2, 1, 1).expand(2, 50, 50), torch.full((2, 50, 50), 3.0)
    noise = uniform_noise(low, high, 4, seed=7)
    assert noise.shape == (4, 2, 50, 50) and noise.dtype == torch.float32
    assert torch.equal(noise, uniform_noise(low, high, 4, seed=7))
    assert torch.equal(noise[:2], uniform_noise(low, high, 2, seed=7))
    assert not torch.equal(noise, uniform_noise(low, high, 4, seed=8))
    assert bool(((noise >= low) & (noise <= high)).all())
    # 10,000 values each of U(−1, 3) and U(2, 3): means 1 and 2.5, standard deviations 4/√12 and 1/√12.
    means, spreads = noise.mean((0, 2, 3)), noise.std((0, 2, 3))
    assert means.tolist() == pytest.approx([1, 2.5], abs=0.06)
    assert spreads.tolist() == pytest.approx([4 / 12**0.5, 1 / 12**0.5], rel=0.03)


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match=r"sigma: wanted a positive number of pixels, got 0"):
        blurred(torch.zeros(1, 2, 2), 0)
    with pytest.raises(ValueError, match=r"draws: wanted at least 1, got 0"):
        uniform_noise(torch.zeros(1, 2, 2), torch.ones(1, 2, 2), 0, seed=0)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 4), (21, 30)])
@pytest.mark.parametrize("sigma", [0.1, 0.6, 3.0, 7.3, 500.0])
def test_blur_is_scipys(size: tuple[int, int], sigma: float) -> None:
    image = noise(2, *size)
    expected = ndimage.gaussian_filter(image.numpy(), (0, sigma, sigma), mode="nearest")
    np.testing.assert_allclose(blurred(image, sigma).numpy(), expected, rtol=0, atol=1e-14)


def test_no_more_of_the_kernel_than_the_image_is_transformed(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths, real = [], torch.fft.rfft

    def rfft(values: torch.Tensor, length: int | None = None) -> torch.Tensor:
        lengths.append(length or values.shape[-1])
        return real(values, length)

    monkeypatch.setattr(torch.fft, "rfft", rfft)
    blurred(torch.rand(1, 64, 64), 10_000)
    assert lengths and max(lengths) <= 128
