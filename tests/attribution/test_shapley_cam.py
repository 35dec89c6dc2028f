"""ShapleyCAM: by hand, and the author's own in pytorch-grad-cam."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from imagexplain import contrast, shapley_cam
from imagexplain.attribution import METHODS
from imagexplain.attribution.class_activation_maps import weighted
from imagexplain.attribution.network.layers import layer_named, output_replaced
from imagexplain.errors import ArgumentError
from tests.attribution.networks import assert_untouched, footprint, pictures, resnet, swin, tiny_cnn, to_maps, vit
from tests.attribution.scaling import scaled


class Squared(nn.Module):
    """The image is the layer's output; the score is that of a polynomial of its sum, the other class's is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 1, 1, bias=False).double()
        nn.init.ones_(self.layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        total = self.layer(x).sum((1, 2, 3))
        return torch.stack([total**2 + total, 0 * total], 1)


def test_by_hand() -> None:
    """s² + s, s = 1 + 2: G = 2s + 1 = 7 everywhere, H·A = 2s = 6, so that the weight is 4, and 12 the score."""
    image = torch.tensor([[[[1.0, 2.0]]]]).double()
    got = shapley_cam(Squared(), image, 0, utility="score", layer="layer")
    np.testing.assert_allclose(got.flatten(), [4, 8], rtol=1e-12)
    assert got.sum().item() == pytest.approx(Squared()(image)[0, 0].item())


def test_the_residual_softmax_by_hand() -> None:
    """A linear score y and 0: u = 2y − log(1 + eʸ), u' = 2 − σ, u'' = −σ(1 − σ), so that A's factor is u' − ½u''y."""

    class Linear(Squared):
        def forward(self, x: Tensor) -> Tensor:
            total = self.layer(x).sum((1, 2, 3))
            return torch.stack([total, 0 * total], 1)

    image = torch.tensor([[[[0.25, 0.5]]]]).double()
    y = 0.75
    share = 1 / (1 + np.exp(-y))
    weight = 2 - share + share * (1 - share) * y / 2
    got = shapley_cam(Linear(), image, 0, layer="layer")
    np.testing.assert_allclose(got.flatten(), [0.25 * weight, 0.5 * weight], rtol=1e-12)


@pytest.mark.parametrize(("build", "layer", "size"), [(tiny_cnn, "1", (16, 12)), (resnet, "layer3", (64, 48))])
def test_agrees_with_pytorch_grad_cam(build: Any, layer: str, size: tuple[int, int]) -> None:
    """Whose weighted sum knows no tokens, and which cannot let go of gradients that are views."""
    package, targets = import_module("pytorch_grad_cam"), import_module("pytorch_grad_cam.utils.model_targets")
    model, image = build(), pictures(1, size)
    target = layer_named(model, layer)
    for utility, kind in (("rest", targets.ClassifierOutputReST), ("score", targets.ClassifierOutputTarget)):
        method = package.ShapleyCAM(model, [target], reshape_transform=lambda output: to_maps(output, image.shape))
        try:
            expected = method(image.clone().requires_grad_(), [kind(3)])
        finally:
            for handle in method.activations_and_grads.handles:
                handle.remove()
            method.activations_and_grads.gradients = []
        got = shapley_cam(model, image, 3, layer=target, utility=utility).squeeze(1).numpy()  # type: ignore[arg-type]
        assert np.abs(scaled(got) - scaled(expected)).max() < 2e-6


@pytest.mark.parametrize(("build", "layer"), [(vit, "blocks.0"), (swin, "layers.0")])
def test_the_hessians_product_is_the_change_of_the_gradient(build: Any, layer: str) -> None:
    """H·A is the derivative of the gradient at (1 + h)A by h, fused attention or not."""
    model, image = build(), pictures(1)
    module, step = layer_named(model, layer), 1e-4

    def gradient(factor: float) -> tuple[Tensor, Tensor]:
        seen: list[Tensor] = []

        def replacement(output: Tensor) -> Tensor:
            seen.append((output * factor).detach().requires_grad_())
            return seen[0]

        with output_replaced(module, replacement):
            scores = model(image)
        (found,) = torch.autograd.grad(scores[0, 3] + scores.log_softmax(1)[0, 3], seen)
        return found, seen[0].detach()

    (more, _), (less, _), (here, activation) = gradient(1 + step), gradient(1 - step), gradient(1)
    weights = to_maps(here - (more - less) / (4 * step), image.shape).mean((2, 3))
    expected = weighted(to_maps(activation, image.shape), weights).relu()
    got = shapley_cam(model, image, 3, layer=layer, upsample=False)
    assert (got - expected).abs().max() < 1e-6 * expected.max()


def test_a_difference_of_two_classes_by_its_score() -> None:
    """Whose Hessian is 0 behind the last stage."""
    model, images = tiny_cnn(), pictures(2, (8, 8))
    with contrast(model, [(3, 1), (0, 2)]) as (differences, columns):
        found, expected = (
            METHODS[name].function(differences, images, columns, layer="4", **options)
            for name, options in (("shapley_cam", {"utility": "score"}), ("grad_cam", {}))
        )
        torch.testing.assert_close(found, expected)


def test_an_unknown_utility_and_nothing_stays() -> None:
    model = vit(dtype=torch.float32)
    before = footprint(model)
    with pytest.raises(ArgumentError, match="utility: wanted rest or score, got 'loss'"):
        shapley_cam(model, pictures(1, dtype=torch.float32), 0, utility="loss")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="targets: wanted classes"):
        shapley_cam(model, pictures(1, dtype=torch.float32), 9)
    assert_untouched(before, model)
