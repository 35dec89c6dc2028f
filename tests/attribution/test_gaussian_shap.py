"""The method that scores groups by a Gaussian process: exact where all coalitions are evaluated, complete elsewhere."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from imagexplain.attribution.gaussian_process_shapley import prior_of_segments, segment_prior
from imagexplain.attribution.methods.gaussian_shap import gaussian_shap
from imagexplain.attribution.methods.kernel_shap import kernel_shap
from imagexplain.attribution.uncertainty import relative_uncertainty, standard_errors
from imagexplain.errors import ArgumentError
from tests.attribution.inputs import noise_images
from tests.attribution.models import smooth_network
from tests.rows import rows_through

SQUARES = torch.arange(64).view(8, 8) // 16 * 4 + torch.arange(8) // 2
"""Sixteen groups."""


def test_all_coalitions_give_the_exact_values() -> None:
    network, images, groups = smooth_network(), noise_images(), SQUARES // 4
    exact = kernel_shap(network, images, [0, 2, 1], groups=groups, baselines=0.25)
    torch.testing.assert_close(gaussian_shap(network, images, [0, 2, 1], groups=groups, baselines=0.25), exact)


@pytest.mark.parametrize("samples", [2, 5, 40])
def test_the_values_sum_to_the_difference_and_cost_no_more_than_was_allowed(samples: int) -> None:
    network, images = smooth_network(), noise_images()
    with rows_through(network) as rows:
        values = gaussian_shap(network, images, 1, groups=SQUARES, samples=samples)[:, 0, ::2, ::2]
    assert sum(rows) == len(images) * (samples // 2 * 2 + 2)
    total = (network(images) - network(torch.zeros_like(images)))[:, 1]
    torch.testing.assert_close(values.sum((1, 2)), total, rtol=1e-9, atol=1e-11)


def test_more_samples_come_nearer() -> None:
    network, images = smooth_network(), noise_images()
    exact = kernel_shap(network, images, 1, groups=SQUARES, samples=2**16)
    few, many = (
        (gaussian_shap(network, images, 1, groups=SQUARES, samples=samples) - exact).norm().item()
        for samples in (10, 400)
    )
    assert many < 0.3 * few


def test_an_image_does_not_depend_on_its_batch_and_numbers_may_be_any() -> None:
    network, images = smooth_network(), noise_images()
    together = gaussian_shap(network, images, 1, groups=SQUARES, samples=30, chunk=7)
    alone = gaussian_shap(network, images[1:2], 1, groups=5 + 3 * SQUARES, samples=30)
    torch.testing.assert_close(together[1:2], alone, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("tolerance", [0.3, 0.05])
def test_a_tolerance_ends_the_drawing_as_soon_as_the_errors_are_within_it(tolerance: float) -> None:
    network, images = smooth_network(), noise_images()[:1]
    told: dict[int, torch.Tensor] = {}
    exact = kernel_shap(network, images, 1, groups=SQUARES, samples=2**16)[0, 0, ::2, ::2].flatten()
    given = {"groups": SQUARES, "samples": 1200, "tolerance": tolerance, "observe_covariance": told.__setitem__}
    with rows_through(network) as rows:
        values = gaussian_shap(network, images, 1, **given)[0, 0, ::2, ::2].flatten()  # type: ignore[arg-type]
    taken = sum(rows) - 2
    uncertainty = relative_uncertainty(values, standard_errors(told[0]), values.sum().item())
    assert uncertainty <= tolerance and 32 <= taken < 1200
    assert (values - exact).abs().max() <= 1.5 * tolerance * exact.abs().sum()
    early = standard_errors(told[0])
    gaussian_shap(network, images, 1, **given | {"tolerance": 0.0})  # type: ignore[arg-type]
    assert standard_errors(told[0]).max() < early.max()


def test_a_tolerance_that_is_not_met_takes_all_samples_and_with_all_coalitions_is_exact() -> None:
    network, images = smooth_network(), noise_images()
    told: dict[int, torch.Tensor] = {}
    given = {"tolerance": 1e-9, "observe_covariance": told.__setitem__}
    with rows_through(network) as rows:
        gaussian_shap(network, images, 1, groups=SQUARES, samples=100, **given)  # type: ignore[arg-type]
    assert sum(rows) == len(images) * (100 + 2) and sorted(told) == [0, 1, 2]
    groups = SQUARES // 2
    exact = kernel_shap(network, images, 1, groups=groups)
    found = gaussian_shap(network, images, 1, groups=groups, **given)  # type: ignore[arg-type]
    torch.testing.assert_close(found, exact)
    assert all(not covariance.any() for covariance in told.values())


@pytest.mark.parametrize("groups", [torch.zeros(8, 8).long(), SQUARES // 8])
def test_one_or_two_groups(groups: torch.Tensor) -> None:
    network, images = smooth_network(), noise_images()
    exact = kernel_shap(network, images, 1, groups=groups)
    torch.testing.assert_close(gaussian_shap(network, images, 1, groups=groups, tolerance=0.1), exact)


@pytest.mark.parametrize("lit", [1, 2, 3])
def test_of_an_image_nearly_all_baseline_a_few_cells_have_it_all(lit: int) -> None:
    groups = torch.arange(14).div(2, rounding_mode="floor").view(-1, 1) * 7 + torch.arange(14) // 2  # 7 × 7 cells
    images = torch.where(groups < lit, 1.0, 0.0).expand(1, 3, 14, 14).clone()
    network = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.Softplus(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    few = groups.clamp(max=lit)
    exact = kernel_shap(network, images, 1, groups=few)
    found = gaussian_shap(network, images, 1, groups=groups, samples=60)
    torch.testing.assert_close(found, exact, rtol=1e-2, atol=1e-2 * exact.abs().max().item())


def test_couplings_stay_below_1_however_much_a_segment_differs() -> None:
    prior = segment_prior(torch.tensor([1.0, *[1e-12] * 200]), torch.rand(201, 3), torch.eye(201))
    signs = torch.where(torch.rand(5, 201) < 0.5, 1.0, -1.0).double()
    for part in (prior.gram(signs, signs), prior.cross(signs), prior.covariance()):
        assert part.isfinite().all()


def test_what_is_known_of_segments() -> None:
    image, segments = torch.ones(3, 2, 3), torch.tensor([[0, 0, 2], [1, 1, 2]])
    prior = prior_of_segments(image, 0 * image, segments)
    own = prior.kernels[0].covariance().diagonal() / 4
    torch.testing.assert_close(own, torch.full((3,), 1 / 3, dtype=torch.float64))
    image = torch.ones(3, 2, 4)
    apart = prior_of_segments(image, 0 * image, torch.arange(4).expand(2, 4)).kernels[-1].covariance()
    assert apart[0, 3] == 0 < apart[0, 1]  # no segment touches both 0 and 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 1}, "samples: wanted 2 … 4096, got 1"),
        ({"tolerance": -0.1}, "tolerance: wanted 0 … 1, got -0.1"),
        ({"samples": 5000}, "samples: wanted 2 … 4096, got 5000"),
        ({"groups": torch.arange(17 * 17).view(17, 17)}, "groups: wanted at most 256, got 289"),
    ],
)
def test_arguments_that_do_not_fit_are_named(options: dict[str, object], message: str) -> None:
    images = torch.zeros(1, 3, 17, 17).double()
    with pytest.raises(ArgumentError, match=message):
        gaussian_shap(nn.Flatten(), images, 0, **{"groups": torch.zeros(17, 17).long(), **options})  # type: ignore[arg-type]
