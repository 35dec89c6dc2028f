import math
from importlib import import_module

import numpy as np
import pytest
import torch
from torch import Tensor

from imagexplain.attribution.methods.gradient import gradient
from imagexplain.attribution.methods.guided_ig import TOLERANCE, _advance, guided_ig
from imagexplain.attribution.paths.path_integral import integrate
from imagexplain.attribution.paths.quadrature import quadrature
from tests.attribution.closeness import close
from tests.attribution.inputs import row_batch, uneven_images
from tests.attribution.models import columns, linear, smooth_network
from tests.rows import rows_through


@pytest.fixture
def pair(monkeypatch):
    """PAIR's package, which calls NumPy's quantile by an argument's old name."""
    quantile = np.quantile
    monkeypatch.setattr(
        np, "quantile", lambda values, share, interpolation: quantile(values, share, method=interpolation)
    )
    return import_module("saliency.core")


def test_by_hand() -> None:
    """x² + y from 0 to (1, 1) in two unbounded steps: at (0, 0) the gradient is (0, 1), so x goes first, all the way.

    That is step 1's whole budget, at gradient (0, 1). Step 2 moves y at gradient (2, 1).
    """

    def model(points: Tensor) -> Tensor:
        x, y = points.flatten(1).T
        return columns(x**2 + y)

    assert guided_ig(model, row_batch(1, 1), 0, steps=2, fraction=0, max_dist=1).flatten().tolist() == [0, 1]
    # Three steps: x to 2/3 at 0, then x to 1 and y to 1/3 at (4/3, 1): y first, as the smaller, then x is not needed.
    got = guided_ig(model, row_batch(1, 1), 0, steps=3, fraction=0, max_dist=1)
    np.testing.assert_allclose(got.flatten(), [1 / 3 * 4 / 3, 1], rtol=1e-12)


@pytest.mark.parametrize("max_dist", [0.0, 0.02, 0.3, 1.0])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.25, 1.0])
def test_agrees_with_pair(max_dist: float, fraction: float, pair) -> None:
    network, images, baselines, targets = smooth_network(), uneven_images(), uneven_images(seed=1), [2, 0, 1]
    baselines[:, :, :2] = images[:, :, :2]  # values that have nowhere to go
    got = guided_ig(network, images, targets, baselines=baselines, steps=12, fraction=fraction, max_dist=max_dist)
    for image, baseline, target, ours in zip(images, baselines, targets, got, strict=True):

        def call(points, call_model_args, expected_keys, target=target):
            return {pair.INPUT_OUTPUT_GRADIENTS: gradient(network, torch.from_numpy(points), target).numpy()}

        theirs = pair.GuidedIG().GetMask(
            image.numpy(), call, x_baseline=baseline.numpy(), x_steps=12, fraction=fraction, max_dist=max_dist
        )
        assert close(ours, torch.from_numpy(theirs))


def test_agrees_with_pair_on_a_float32_model(pair) -> None:
    network, images = smooth_network(torch.float32), uneven_images(1, torch.float32)

    def call(points, call_model_args, expected_keys):
        return {pair.INPUT_OUTPUT_GRADIENTS: gradient(network, torch.from_numpy(points).float(), 1).numpy()}

    theirs = pair.GuidedIG().GetMask(images[0].numpy(), call, x_steps=20)
    assert close(guided_ig(network, images, 1, steps=20)[0].double(), torch.from_numpy(theirs), 1e-5)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_no_distance_is_integrated_gradients_by_the_left_rule(dtype: torch.dtype, limit: float) -> None:
    network, images = smooth_network(dtype), uneven_images(dtype=dtype)
    rules = [quadrature("left", 16)] * 3
    straight = integrate(network, images, torch.zeros_like(images), torch.tensor([1, 1, 1]), rules, chunk=18)
    expected = torch.stack([path.attribution for path in straight])
    assert close(guided_ig(network, images, 1, steps=16, max_dist=0), expected, limit)


def test_complete_in_the_limit() -> None:
    network, images = smooth_network(), uneven_images()
    change = (network(images) - network(torch.zeros_like(images)))[:, 1]
    errors = [
        (guided_ig(network, images, 1, steps=steps).sum((1, 2, 3)) - change).abs().max().item() for steps in (10, 200)
    ]
    assert errors[1] < 0.02 * change.abs().max() and errors[1] < errors[0] / 5


def test_batch_mates_do_not_matter() -> None:
    network, images, baselines = smooth_network(), uneven_images(), uneven_images(seed=1)
    together = guided_ig(network, images, baselines=baselines, steps=10)
    alone = [guided_ig(network, x[None], baselines=b[None], steps=10) for x, b in zip(images, baselines, strict=True)]
    assert close(together, torch.cat(alone))


def test_ends_whatever_the_values() -> None:
    images = torch.cat([torch.zeros(1, 3, 8, 8), 1e-30 * torch.ones(1, 3, 8, 8), 1e6 * uneven_images(1, torch.float32)])
    got = guided_ig(smooth_network(torch.float32), images, steps=5, fraction=0)
    assert got[0].count_nonzero() == 0 and got.isfinite().all()
    flat = guided_ig(lambda x: columns(0 * x.sum((1, 2, 3))), uneven_images(), 0, steps=3)  # all gradients are equal
    assert flat.count_nonzero() == 0


def round_by_round(alpha, size, length, straight: float, fraction: float, max_dist: float) -> Tensor:
    """One path's step as the method states it: the lowest free values together, again and again."""
    low, high = max(straight - max_dist, 0.0), min(straight + max_dist, 1.0)
    alpha, total = alpha.clamp(min=low), length.sum()
    lowest = math.floor(fraction * (len(alpha) - 1)) + 1
    while (alpha < high).any():
        excess = (length * (1 - alpha)).sum() - total * (1 - straight)
        if excess <= TOLERANCE * total:
            break
        free = alpha < high
        left = size[free].sort().values
        chosen = free & (size <= left[min(lowest, len(left)) - 1])
        gain = (length * (high - alpha))[chosen].sum()
        alpha = torch.where(chosen, torch.lerp(alpha, torch.full_like(alpha, high), min(1, excess / gain)), alpha)
    return alpha


@pytest.mark.parametrize("levels", [1, 4, 1000])
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.6, 1.0])
def test_a_step_is_that_of_rounds_also_among_equals(fraction: float, levels: int) -> None:
    """With few levels of |gradient| most values have equals, which move together."""
    generator = torch.Generator().manual_seed(levels)
    length = torch.rand(20, 30, generator=generator, dtype=torch.float64)
    length[:, ::7] = 0
    alpha = (length == 0).double()
    for step in range(1, 6):
        size = torch.randint(levels, (20, 30), generator=generator).double()
        moved = _advance(alpha, size, length, length.sum(1, keepdim=True), step / 5, fraction, 0.3)
        expected = torch.stack(
            [round_by_round(*row, step / 5, fraction, 0.3) for row in zip(alpha, size, length, strict=True)]
        )
        torch.testing.assert_close(moved, expected, rtol=0, atol=1e-12)
        alpha = moved


def test_one_value_at_a_time_is_not_a_round_for_each() -> None:
    """On a linear model every path gives w · x. Rounds over 200,000 values would take hours."""
    x = torch.rand(1, 1, 400, 500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weights = torch.rand(200_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    got = guided_ig(linear(weights), x, 0, steps=3, fraction=0, max_dist=1)
    torch.testing.assert_close(got.flatten(), weights * x.flatten(), rtol=1e-12, atol=1e-12)


def test_the_model_is_left_as_it_was() -> None:
    network = smooth_network().requires_grad_().train()
    with torch.no_grad():
        assert not guided_ig(network, uneven_images(), steps=2).requires_grad
    assert all(parameter.grad is None for parameter in network.parameters()) and network.training


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"steps": 0}, "steps"),
        ({"fraction": 1.1}, "fraction"),
        ({"max_dist": -0.1}, "max_dist"),
        ({"baselines": torch.zeros(1, 1, 1, 2)}, "baselines"),
        ({"targets": 3}, "targets"),
        ({"images": uneven_images()[0]}, "images"),
    ],
)
def test_what_does_not_fit_names_the_argument(options: dict, named: str) -> None:
    with pytest.raises(ValueError, match=rf"^{named}: "):
        guided_ig(smooth_network(), **({"images": uneven_images()} | options))


def test_each_image_goes_through_the_model_alone() -> None:
    """Rounding in a batched kernel could tip the choice of the values that move first."""
    network = smooth_network()
    with rows_through(network) as rows:
        guided_ig(network, uneven_images(), 1, steps=4)
    assert rows == [1] * 12
