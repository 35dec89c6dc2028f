from math import ceil

import numpy as np
import pytest
import torch
from torch import Tensor

from imagexplain.models.segmenters.swap_align2nat import PADDING, covered, masks_at, swap_align2nat
from tests.models.reference import FIXTURES

CASES = range(6)


def _case(index: int) -> tuple[int, dict[str, Tensor]]:
    """λ, and upstream's input x, output y, output gradient gy and input gradient gx."""
    with np.load(FIXTURES / "tensormask/swap_align2nat.npz") as arrays:
        tensors = {name: torch.from_numpy(arrays[f"case{index}_{name}"]) for name in ("x", "y", "gy", "gx")}
        return int(arrays[f"case{index}_cfg"][3]), tensors


def _by_definition(x: Tensor, lambda_: int) -> Tensor:
    """The operator as the paper states it, value by value, for one picture (1, V·V, H, W) in float64."""
    size = round(x.shape[1] ** 0.5)
    height, width = x.shape[2:]
    grid = x[0].reshape(size, size, height, width)
    length = lambda_ * size

    def value(v: int, u: int, y: int, x: int) -> float:
        inside = 0 <= v < size and 0 <= u < size and 0 <= y < height and 0 <= x < width
        return float(grid[v, u, y, x]) if inside else PADDING

    def taps(position: float) -> list[tuple[int, float]]:
        low = int(np.floor(position))
        return [(low, 1 - (position - low)), (low + 1, position - low)]

    out = torch.zeros(length, length, ceil(height / lambda_), ceil(width / lambda_), dtype=torch.float64)
    for v, u, y, x_ in np.ndindex(*out.shape):
        out[v, u, y, x_] = sum(
            a * b * c * d * value(i, j, k, m)
            for i, a in taps((v + 0.5) / lambda_ - 0.5)
            for j, b in taps((u + 0.5) / lambda_ - 0.5)
            for k, c in taps(lambda_ * y + v + 0.5 - length / 2)
            for m, d in taps(lambda_ * x_ + u + 0.5 - length / 2)
        )
    return out.flatten(0, 1)[None]


def _everywhere(y: Tensor) -> Tensor:
    """All windows (L, 3) of an output (N, C, H, W)."""
    return torch.cartesian_prod(*(torch.arange(y.shape[dim]) for dim in (0, 2, 3)))


@pytest.mark.upstream
@pytest.mark.parametrize("index", CASES)
def test_values_and_gradients_equal_upstream(index: int) -> None:
    """To 1e-6 of values up to 6."""
    lambda_, case = _case(index)
    x = case["x"].requires_grad_()
    y = swap_align2nat(x, lambda_)
    (gradient,) = torch.autograd.grad(y, x, case["gy"])
    assert y.shape == case["y"].shape
    assert (y - case["y"]).abs().max() < 2e-6
    assert (gradient - case["gx"]).abs().max() < 1e-6


@pytest.mark.upstream
@pytest.mark.parametrize("index", CASES)
def test_chosen_windows_equal_upstream(index: int) -> None:
    lambda_, case = _case(index)
    masks = masks_at(case["x"], lambda_, _everywhere(case["y"]))
    assert (masks.flatten(1).T.reshape(case["y"].shape) - case["y"]).abs().max() < 2e-6


@pytest.mark.parametrize(("size", "lambda_"), [(2, 1), (3, 1), (2, 2), (3, 2), (1, 4), (3, 4)])
def test_the_definition(size: int, lambda_: int) -> None:
    x = torch.randn(1, size * size, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(swap_align2nat(x, lambda_), _by_definition(x, lambda_), atol=1e-12)


def test_by_hand() -> None:
    """One line of two positions, masks of one pixel, λ = 2: each output pixel averages what lies around its corner."""
    x = torch.tensor([[[[1.0, 2.0]]]])
    outside = PADDING
    # Pixel (v, u) of window 0 lies at (v − ½, u − ½), its grid at v/2 − ¼: a quarter of it is padding along each axis.
    corner = (outside + outside + outside + 1) / 4
    edge = (outside + outside + 1 + 2) / 4
    wanted = [[9 / 16 * value + 7 / 16 * outside for value in row] for row in ((corner, edge), (corner, edge))]
    assert torch.allclose(swap_align2nat(x, 2)[0, :, 0, 0].reshape(2, 2), torch.tensor(wanted))


def test_lambda_1_is_a_shift_of_each_channel() -> None:
    x = torch.randn(1, 9, 4, 5, generator=torch.Generator().manual_seed(0))
    y = swap_align2nat(x, 1)
    assert torch.equal(y[0, 4], x[0, 4])
    assert torch.equal(y[0, 0, 1:, 1:], x[0, 0, :-1, :-1])
    assert y[0, 0, 0].eq(PADDING).all() and y[0, 0, :, 0].eq(PADDING).all()


@pytest.mark.parametrize(("size", "lambda_"), [(2, 1), (3, 1), (2, 2), (3, 2)])
def test_gradients_of_both_forms(size: int, lambda_: int) -> None:
    x = torch.randn(2, size * size, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x.requires_grad_()
    locations = torch.tensor([[1, 0, 1], [0, 1, 0], [1, 0, 1]])
    assert torch.autograd.gradcheck(lambda x: swap_align2nat(x, lambda_), x)
    assert torch.autograd.gradcheck(lambda x: masks_at(x, lambda_, locations), x)


@pytest.mark.parametrize(("size", "lambda_"), [(3, 1), (4, 1), (3, 2), (3, 4)])
def test_a_crop_of_what_the_windows_cover_is_enough(size: int, lambda_: int) -> None:
    x = torch.randn(2, size * size, 40, 30, generator=torch.Generator().manual_seed(0))
    everywhere = swap_align2nat(x, lambda_)
    for location in ([0, 0], [5, 3], [everywhere.shape[2] - 1, everywhere.shape[3] - 1]):
        locations = torch.tensor([[1, *location]])
        top, left, bottom, right = covered(lambda_, size, locations, (40, 30))
        mask = masks_at(x[:, :, top:bottom, left:right], lambda_, locations, (top, left))
        assert torch.allclose(mask.flatten(), everywhere[1, :, location[0], location[1]], atol=1e-5)
    middle = torch.tensor([[0, 5, 3]])
    assert covered(lambda_, size, middle, (99, 99)) == (
        5 * lambda_ - lambda_ * size // 2,
        3 * lambda_ - lambda_ * size // 2,
        5 * lambda_ - lambda_ * size // 2 + lambda_ * size + 1,
        3 * lambda_ - lambda_ * size // 2 + lambda_ * size + 1,
    )


@pytest.mark.parametrize(("size", "lambda_"), [(3, 1), (4, 1), (3, 2)])
def test_the_memory_layout_does_not_matter(size: int, lambda_: int) -> None:
    x = torch.randn(2, size * size, 6, 7, generator=torch.Generator().manual_seed(0))
    turned = x.contiguous(memory_format=torch.channels_last)
    y = swap_align2nat(x, lambda_)
    assert torch.allclose(swap_align2nat(turned, lambda_), y, atol=1e-6)
    masks = masks_at(turned, lambda_, _everywhere(y))
    wanted = y.permute(0, 2, 3, 1).reshape(masks.shape)
    assert torch.allclose(masks, wanted, atol=1e-6)


def test_no_windows_and_one_position() -> None:
    x = torch.zeros(1, 9, 1, 1)
    assert masks_at(x, 2, torch.zeros(0, 3, dtype=torch.int64)).shape == (0, 6, 6)
    assert swap_align2nat(x, 4).shape == (1, 144, 1, 1)


@pytest.mark.parametrize(
    ("shape", "lambda_", "message"),
    [
        ((1, 8, 2, 2), 1, r"x: wanted \(N, V·V, H, W\), given \(1, 8, 2, 2\)"),
        ((9, 2, 2), 1, r"x: wanted \(N, V·V, H, W\), given"),
        ((1, 9, 2, 2), 0, "lambda_: wanted at least 1, given 0"),
    ],
)
def test_bad_arguments(shape: tuple[int, ...], lambda_: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        swap_align2nat(torch.zeros(shape), lambda_)
    with pytest.raises(ValueError, match=message):
        masks_at(torch.zeros(shape), lambda_, torch.zeros(1, 3, dtype=torch.int64))
