from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import GradientAttribution
from captum.attr import IntegratedGradients as CaptumIntegratedGradients

from imagexplain.attribution import captum_adapter as captum_methods
from imagexplain.attribution.groups.directional import directional_gradients
from tests.attribution.inputs import noise_images
from tests.attribution.models import cubic, linear, product, smooth_network

# Any: like Captum's, attribute returns a tensor or a pair of them, as its arguments say.
IntegratedGradients: Any = captum_methods.IntegratedGradients
IntegratedDirectionalGradients: Any = captum_methods.IntegratedDirectionalGradients


def test_same_call_as_captum() -> None:
    network, x = smooth_network(), noise_images(2)
    call = {
        "baselines": noise_images(2).flip(0),
        "target": [0, 2],
        "n_steps": 10,
        "internal_batch_size": 4,
        "return_convergence_delta": True,
    }
    expected, expected_delta = CaptumIntegratedGradients(network).attribute(x, **call)
    got, delta = IntegratedGradients(network).attribute(x, **call)
    assert (got - expected).abs().max() / expected.abs().max() < 1e-6
    np.testing.assert_allclose(delta, expected_delta, atol=1e-6)
    assert isinstance(IntegratedGradients(network), GradientAttribution)


@pytest.mark.parametrize("baseline", [None, 0, 0.5, torch.full((1, 3, 8, 8), 0.5)])
def test_baselines_as_captum_takes_them(baseline) -> None:
    network, x = smooth_network(), noise_images(2)
    expected = CaptumIntegratedGradients(network).attribute(x, baselines=baseline, target=1, n_steps=5)
    got = IntegratedGradients(network).attribute(x, baselines=baseline, target=1, n_steps=5)
    assert (got - expected).abs().max() / expected.abs().max() < 1e-6


def test_one_score_a_row_and_further_arguments() -> None:
    x = torch.ones(1, 1, 1, 3, dtype=torch.float64)
    got = IntegratedGradients(lambda rows, factor: factor * rows.flatten(1).sum(1)).attribute(
        x, additional_forward_args=2.0
    )
    np.testing.assert_allclose(got.flatten(), [2, 2, 2])


def test_the_trapezoid_is_corrected() -> None:
    x = torch.ones(1, 1, 1, 3)
    model = linear(torch.tensor([1.0, 2.0, 3.0]))
    assert CaptumIntegratedGradients(model).attribute(x, target=0, method="riemann_trapezoid").sum() == pytest.approx(
        5.88
    )
    assert IntegratedGradients(model).attribute(x, target=0, method="riemann_trapezoid").sum() == pytest.approx(6)


@pytest.mark.parametrize(
    ("segments", "expected"),
    [
        ([0, 0, 1], [3 / 2**0.5, 3]),  # groups {1, 2} and {3} of w = (1, 2, 3): 2.12132, 3
        ([0, 0, 0], [6 / 3**0.5]),  # the whole image: 3.46410
        ([0, 1, 2], [1, 2, 3]),
    ],
)
def test_golden_directional_gradients_of_a_linear_model(segments: list[int], expected: list[float]) -> None:
    x = torch.ones(1, 1, 1, 3, dtype=torch.float64)
    mask = torch.tensor([segments])
    got = IntegratedDirectionalGradients(linear(torch.tensor([1.0, 2.0, 3.0]))).attribute(
        x, target=0, feature_mask=mask
    )
    np.testing.assert_allclose(got.flatten(), np.array(expected)[segments])


def test_golden_directional_gradients_of_a_product() -> None:
    x = torch.tensor([3.0, 4.0], dtype=torch.float64).view(1, 1, 1, 2)
    method = IntegratedDirectionalGradients(product)
    np.testing.assert_allclose(method.attribute(x).flatten(), [2, 1.5])
    np.testing.assert_allclose(
        method.attribute(x, feature_mask=torch.zeros(1, 2, dtype=torch.int64)).flatten(), [2.4, 2.4]
    )


def test_golden_quadrature_weights() -> None:
    got = IntegratedDirectionalGradients(cubic).attribute(torch.ones(1, 1, 1, 1, dtype=torch.float64), n_steps=5)
    assert got.item() == pytest.approx(1 / 3, abs=1e-14)


def test_a_partition_adds_up_to_the_score_difference() -> None:
    network, x = smooth_network(), noise_images(1)
    segments = torch.arange(64).view(8, 8) // 16
    integral = IntegratedGradients(network)._integrate(x, None, 1, None, 30, "gausslegendre", None)[0]
    directional = directional_gradients(integral.attribution, integral.difference, segments)
    norms = torch.stack([integral.difference[:, segments == s].norm() for s in range(4)])
    total = integral.score - integral.baseline_score
    assert (norms * directional).sum().item() == pytest.approx(total, rel=1e-11)


def test_groups_without_difference_are_zero() -> None:
    difference = torch.tensor([[[0.0, 2.0]]])
    got = directional_gradients(difference * torch.tensor([[[5.0, 1.0]]]), difference, torch.tensor([[0, 1]]))
    np.testing.assert_allclose(got, [0, 1])


def test_errors_name_the_argument() -> None:
    with pytest.raises(ValueError, match=r"^inputs: "):
        IntegratedGradients(product).attribute([torch.zeros(1, 1, 1, 2)])
    with pytest.raises(ValueError, match=r"^segments: wanted \(1, 2\), got \(3,\)"):
        directional_gradients(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2), torch.zeros(3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"^segments: wanted labels from 0, got -1"):
        directional_gradients(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2), torch.tensor([[0, -1]]))
