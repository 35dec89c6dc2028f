from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from imagexplain.attribution.paths.adaptive import OutOfTimeError, integrate_adaptive, integrate_targets_adaptive
from imagexplain.attribution.paths.path_integral import integrate
from imagexplain.attribution.paths.quadrature import quadrature
from imagexplain.attribution.paths.several_targets import integrate_targets
from imagexplain.errors import ArgumentError
from tests.attribution.closeness import close
from tests.attribution.inputs import noise_image
from tests.attribution.models import smooth_network
from tests.attribution.networks import tiny_cnn

TARGETS = torch.tensor([2, 0, 2])
MASKS = torch.zeros(2, 8, 8, dtype=torch.bool)
MASKS[0, :4] = True
MASKS[1, :, 2:6] = True


class Counted:
    """A model that counts the rows it was asked for."""

    def __init__(self, forward: nn.Module) -> None:
        self.forward = forward
        self.rows = 0

    def __call__(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        return self.forward(x)


@pytest.mark.parametrize("chunk", [1, 3, 50])
def test_the_same_as_a_path_for_each(chunk: int) -> None:
    model, image = tiny_cnn(), noise_image(8)
    rule, baseline = quadrature("gauss_legendre", 7), torch.zeros_like(image)
    counted = Counted(model)
    found = integrate_targets(counted, image, baseline, TARGETS, rule, chunk=chunk, groups=MASKS)
    assert counted.rows == 7 + 2
    inputs, baselines = image.expand(3, *image.shape), baseline.expand(3, *image.shape)
    wanted = integrate(model, inputs, baselines, TARGETS, [rule] * 3, chunk=chunk, groups=[MASKS] * 3)
    for one, other in zip(found, wanted, strict=True):
        assert close(one.gradient, other.gradient)
        assert (one.score, one.baseline_score) == pytest.approx((other.score, other.baseline_score), rel=1e-12)
        assert one.evaluations == 7 and one.residual == pytest.approx(other.residual, abs=1e-12)
        assert one.absolute is not None and other.absolute is not None
        assert close(one.absolute, other.absolute)


@pytest.mark.parametrize("chunk", [2, 16])
def test_refined_the_same_as_a_path_for_each(chunk: int) -> None:
    model, image = smooth_network(), noise_image(8)
    baseline, counted = torch.zeros_like(image), Counted(smooth_network())
    found = integrate_targets_adaptive(counted, image, baseline, TARGETS, MASKS, 1e-3, chunk=chunk, most=300)
    wanted = integrate_adaptive(
        model,
        image.expand(3, *image.shape),
        baseline.expand(3, *image.shape),
        TARGETS,
        [MASKS] * 3,
        torch.full((3,), 1e-3),
        chunk=chunk,
        most=300,
    )
    for one, other in zip(found, wanted, strict=True):
        assert one.converged and torch.equal(one.nodes, other.nodes)
        assert close(one.integral.gradient, other.integral.gradient)
    every = torch.cat([one.nodes for one in found])
    assert len(every.unique()) <= counted.rows < len(every) / 2


def test_what_is_reached_when_time_is_out() -> None:
    calls = 0

    def before(remaining: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise OutOfTimeError

    image = noise_image(8)
    zero = torch.zeros_like(image)
    options: dict[str, Any] = {"chunk": 50, "most": 500, "before_chunk": before}
    found = integrate_targets_adaptive(smooth_network(), image, zero, TARGETS, None, 1e-9, **options)
    assert not any(one.converged for one in found)
    with pytest.raises(OutOfTimeError):
        integrate_targets_adaptive(smooth_network(), image, zero, TARGETS, None, 1e-9, **options)


def test_a_score_that_is_not_a_number_has_no_gradient() -> None:
    """A ReLU lets no NaN back: the gradient, zero, would pass for one."""

    def model(x: Tensor) -> Tensor:
        total = x.flatten(1).sum(1)
        return torch.stack([total, (total + torch.nan).relu()], 1)

    image = torch.ones(1, 2, 2)
    rule = quadrature("midpoint", 2)
    one, other = integrate_targets(model, image, torch.zeros_like(image), torch.tensor([0, 1]), rule, chunk=8)
    assert torch.equal(one.gradient, image) and one.residual == 0
    assert other.gradient.isnan().all()


def test_arguments() -> None:
    image, rule = noise_image(8), quadrature("midpoint", 2)
    zero = torch.zeros_like(image)
    for targets, field in ((torch.tensor([9]), "targets"), (torch.tensor([]), "targets"), (torch.tensor(1), "targets")):
        with pytest.raises(ArgumentError, match=f"^{field}: wanted"):
            integrate_targets(tiny_cnn(), image, zero, targets, rule, chunk=8)
    with pytest.raises(ArgumentError, match="image: wanted"):
        integrate_targets(tiny_cnn(), image[0], zero, TARGETS, rule, chunk=8)
    with pytest.raises(ArgumentError, match="baselines: wanted"):
        integrate_targets(tiny_cnn(), image, zero[:2], TARGETS, rule, chunk=8)
    with pytest.raises(ArgumentError, match="chunk: wanted"):
        integrate_targets(tiny_cnn(), image, zero, TARGETS, rule, chunk=0)
    with pytest.raises(ArgumentError, match="groups: wanted"):
        integrate_targets_adaptive(tiny_cnn(), image, zero, TARGETS, MASKS[:, :3], 1e-2, chunk=8, most=9)
    with pytest.raises(ArgumentError, match="tolerances: wanted"):
        integrate_targets_adaptive(tiny_cnn(), image, zero, TARGETS, MASKS, 0.0, chunk=8, most=9)
