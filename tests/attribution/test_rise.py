import pytest
import torch
from torch import Tensor, nn

from imagexplain.attribution.methods.rise import Scores, _draws, _masks, rise
from tests.attribution.inputs import noise_images
from tests.attribution.models import columns, linear, smooth_network
from tests.rows import rows_through


def all_masks(samples: int, cells: int, keep: float, seed: int = 0, side: int = 8) -> Tensor:
    ((grids, shifts),) = _draws(side, side, samples, cells, keep, seed, samples)
    return _masks(grids.double(), shifts, side, side)


def test_masks_by_hand() -> None:
    """A 2×2 grid on 2×4 pixels becomes 3×6, bilinear between the cells' centres and constant outside of them."""
    grid = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]], dtype=torch.float64)
    # centres of six pixels at (i + ½)/3 − ½ cells: −⅓, 0, ⅓, ⅔, 1, 1⅓
    expected = torch.tensor([1, 1, 2 / 3, 1 / 3, 0, 0], dtype=torch.float64)
    for shift in (0, 1):
        got = _masks(grid, torch.tensor([[0, shift]]), 2, 4)
        torch.testing.assert_close(got, expected[shift : shift + 4].expand(1, 2, 4), rtol=1e-14, atol=1e-15)


def test_masks_keep_their_share_everywhere() -> None:
    """Every pixel is shown with the probability of a cell, borders included: weights of the enlargement sum to 1."""
    masks = all_masks(10_000, 4, 0.3)
    assert masks.min() >= 0 and masks.max() <= 1
    assert (masks.mean(0) - 0.3).abs().max() < 5 * (0.21 / 10_000) ** 0.5  # at most the variance of a coin


def test_each_shift_is_drawn() -> None:
    ((_, shifts),) = _draws(9, 16, 2000, 4, 0.5, 0, 2000)
    assert shifts[:, 0].unique().tolist() == [0, 1, 2]  # cells of 3 × 4 pixels
    assert shifts[:, 1].unique().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("chunk", [1, 3, 50])
def test_draws_in_pieces_are_those_at_once(chunk: int) -> None:
    generator = torch.Generator().manual_seed(4)
    grids = torch.rand(50, 5, 5, generator=generator, dtype=torch.float64) < 0.3
    shifts = torch.stack([torch.randint(cell, (50,), generator=generator) for cell in (2, 4)], dim=1)
    pieces = list(_draws(9, 16, 50, 5, 0.3, 4, chunk))
    assert max(len(part) for part, _ in pieces) == chunk
    assert torch.equal(torch.cat([part for part, _ in pieces]), grids)
    assert torch.equal(torch.cat([part for _, part in pieces]), shifts)


def test_one_cell_shows_all_or_nothing() -> None:
    """Where a pixel is shown, so is the whole image: E[f | shown] is f(x), to the last digit."""
    network, x = smooth_network(), noise_images()
    got = rise(network, x, [0, 2, 1], samples=50, cells=1, scores="logits")
    expected = network(x)[range(3), [0, 2, 1]].view(3, 1, 1, 1).expand(3, 1, 8, 8)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("keep", [1e-12, 1.0])
def test_no_mask_shows_anything_or_all_show_all(keep: float) -> None:
    network, x = smooth_network(), noise_images()
    expected = network(x)[:, :1] if keep == 1 else torch.zeros(3, 1)
    got = rise(network, x, 0, samples=4, keep=keep, scores="logits")
    torch.testing.assert_close(got, expected.view(3, 1, 1, 1).expand(3, 1, 8, 8).double(), rtol=1e-12, atol=0)


def test_a_constant_score_is_not_noise() -> None:
    got = rise(lambda x: columns(torch.full_like(x[:, 0, 0, 0], 7)), noise_images(), 0, samples=30, scores="logits")
    torch.testing.assert_close(got, torch.full_like(got, 7), rtol=1e-13, atol=0)


def test_linear_model_against_the_expectation() -> None:
    """E[f m_q] / E[m_q] = Σ_p w_p x_p E[m_p m_q] / keep, moments from other draws, within 5 standard errors."""
    x, weights = noise_images(1)[:, :1], torch.rand(64, generator=torch.Generator().manual_seed(3)).double()
    others, samples = all_masks(40_000, 4, 0.5, seed=1).flatten(1), 5_000
    values = others @ (weights * x.flatten())
    expected = values @ others / len(others) / 0.5
    spread = ((values.unsqueeze(1) - expected) * others).std(0) / 0.5
    got = rise(linear(weights), x, 0, samples=samples, cells=4, scores="logits", chunk=1000).flatten()
    errors = (got - expected).abs() / (spread * (1 / samples + 1 / len(others)) ** 0.5)
    assert errors.max() < 5
    assert spread.max() / samples**0.5 < 0.1 * expected.std()  # so the errors are small beside the map itself


def test_the_pixel_that_counts_stands_out() -> None:
    weights = torch.zeros(64).double()
    weights[8 * 5 + 2] = 1.0
    got = rise(linear(weights), torch.ones(1, 1, 8, 8).double(), 0, samples=2000, scores="logits")[0, 0]
    assert got.flatten().argmax() == 8 * 5 + 2
    assert got[0, 7] == pytest.approx(
        0.5, abs=0.05
    )  # far away: half of the masks show the pixel, whatever else they do


def test_probabilities_and_baselines_by_hand() -> None:
    """Every row is softmax(f) or f of a known image, weighted by its mask."""
    network, x, baseline = smooth_network(), noise_images(1), torch.rand(1, 3, 8, 8).double()
    masks = all_masks(10, 4, 0.5)
    rows = masks.unsqueeze(1) * x + (1 - masks.unsqueeze(1)) * baseline
    options: tuple[Scores, ...] = ("logits", "probabilities")
    for scores, values in zip(options, (network(rows)[:, 1], network(rows).softmax(1)[:, 1]), strict=True):
        expected = (values.view(-1, 1, 1) * masks).sum(0) / masks.sum(0)
        got = rise(network, x, 1, samples=10, cells=4, scores=scores, baselines=baseline)
        torch.testing.assert_close(got[0, 0], expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("chunk", [1, 2, 7, 100])
def test_neither_chunk_nor_batch_mates_matter(chunk: int) -> None:
    network, x = smooth_network(), noise_images()
    with rows_through(network) as rows:
        together = rise(network, x, samples=20, chunk=chunk)
    alone = torch.cat([rise(network, one[None], samples=20) for one in x])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)
    assert max(rows) <= chunk


def test_the_seed_matters_and_the_global_generator_does_not() -> None:
    network, x = smooth_network(), noise_images(1)
    before = torch.get_rng_state()
    first = rise(network, x, samples=20)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert torch.equal(rise(network, x, samples=20), first)
    assert not torch.equal(rise(network, x, samples=20, seed=1), first)


def test_half_precision_is_summed_in_float32() -> None:
    got = rise(smooth_network(torch.bfloat16), noise_images(dtype=torch.bfloat16), 0, samples=20)
    exact = rise(smooth_network(), noise_images(), 0, samples=20)
    assert got.dtype == torch.float32
    assert (got - exact).abs().max() / exact.abs().max() < 0.02


def test_the_model_is_left_as_it_was() -> None:
    network = (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).double().eval()
    )
    before = {name: value.clone() for name, value in network.state_dict().items()}
    got = rise(network, noise_images().requires_grad_(), samples=5)
    assert got.shape == (3, 1, 8, 8) and not got.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert not any(module.training or module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"images": torch.zeros(3, 8, 8)}, "images"),
        ({"targets": 2}, "targets"),
        ({"samples": 0}, "samples"),
        ({"cells": 0}, "cells"),
        ({"cells": 9}, "cells"),
        ({"keep": 0.0}, "keep"),
        ({"keep": 1.5}, "keep"),
        ({"scores": "softmax"}, "scores"),
        ({"baselines": torch.zeros(2, 3, 8, 8)}, "baselines"),
        ({"chunk": 0}, "chunk"),
    ],
)
def test_what_does_not_fit_names_the_argument(change: dict, named: str) -> None:
    arguments = {"images": torch.zeros(1, 3, 8, 8), "samples": 4} | change
    with pytest.raises(ValueError, match=rf"^{named}: "):
        rise(linear(torch.ones(192)), **arguments)
