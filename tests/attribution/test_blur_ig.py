import re
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from imagexplain.attribution.methods.blur_ig import _blur, _blur_matrices, blur_ig
from imagexplain.attribution.methods.gradient import gradient
from tests.attribution.closeness import close
from tests.attribution.inputs import noise, noise_images
from tests.attribution.models import cubic, linear, smooth_network


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(image, (0, sigma, sigma), mode="constant")


def test_the_blur_is_that_of_scipy_also_on_oblong_images() -> None:
    image = noise(3, 9, 14, seed=1)
    sigmas = [0.0, 0.01, 0.124, 0.125, 0.7, 1.5, 5.0, 50.0]
    got = _blur(image, *_blur_matrices(torch.tensor(sigmas, dtype=torch.float64), (9, 14)))
    for sigma, rows in zip(sigmas, got, strict=True):
        np.testing.assert_allclose(rows, blurred(image.numpy(), sigma), rtol=0, atol=1e-14)


def test_one_step_by_hand() -> None:
    """At σ_0 = 0 the quotient is (G_h x − x)/h, here with h = 1 and one step of Δσ = 2, and ∇ Σ x³/3 = x²."""
    x = noise_images(1)
    expected = -2 * (blurred(x[0].numpy(), 1) - x[0].numpy()) * x[0].numpy() ** 2
    np.testing.assert_allclose(blur_ig(cubic, x, steps=1, max_sigma=2, grad_step=1)[0], expected, rtol=1e-12)


def test_complete_on_a_linear_model() -> None:
    """Σ map = w·(x − G_max x) as steps → ∞. The cut at 4 σ makes the path jump a little at each radius."""
    x = noise_images(1)
    model = linear(noise(3 * 8 * 8, seed=2))
    end = torch.from_numpy(blurred(x[0].numpy(), 2))[None]
    expected = (model(x) - model(end))[0, 0].item()
    got = blur_ig(model, x, 0, steps=1000, max_sigma=2, grad_step=1e-4, chunk=1000).sum().item()
    assert got == pytest.approx(expected, rel=2e-2)


@pytest.mark.parametrize("sqrt", [False, True])
@pytest.mark.parametrize("score", ["logit", "probability"])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_agrees_with_pair(sqrt: bool, score, dtype: torch.dtype, limit: float) -> None:
    """PAIR one step at a time; in larger chunks it takes the last step's Δσ for all of them. Its blur is in float64."""
    pair = import_module("saliency.core")
    network, images, targets = smooth_network(dtype), noise_images(dtype=dtype), [2, 0, 1]
    for image, target, ours in zip(
        images, targets, blur_ig(network, images, targets, steps=11, max_sigma=4, sqrt=sqrt, score=score), strict=True
    ):

        def call(points, call_model_args, expected_keys, target=target):
            rows = torch.from_numpy(points).to(dtype).permute(0, 3, 1, 2)
            model = nn.Sequential(network, nn.Softmax(1)) if score == "probability" else network
            return {pair.INPUT_OUTPUT_GRADIENTS: gradient(model, rows, target).permute(0, 2, 3, 1).numpy()}

        theirs = pair.BlurIG().GetMask(
            image.double().permute(1, 2, 0).numpy(), call, max_sigma=4, steps=11, sqrt=sqrt, batch_size=1
        )
        assert close(ours.double(), torch.from_numpy(theirs).permute(2, 0, 1), limit)


@pytest.mark.parametrize("sqrt", [False, True])
def test_neither_batch_mates_nor_chunk_matter(sqrt: bool) -> None:
    network, images = smooth_network(), noise_images()
    together = blur_ig(network, images, steps=10, max_sigma=5, sqrt=sqrt)
    alone = torch.cat([blur_ig(network, x[None], steps=10, max_sigma=5, sqrt=sqrt) for x in images])
    assert close(together, alone)
    for chunk in (1, 3, 10):
        assert close(blur_ig(network, images, steps=10, max_sigma=5, sqrt=sqrt, chunk=chunk), together)


def test_no_target_is_the_class_of_the_sharp_image() -> None:
    network, images = smooth_network(), noise_images()
    assert torch.equal(blur_ig(network, images, steps=4), blur_ig(network, images, network(images).argmax(1), steps=4))


def test_the_model_is_left_as_it_was() -> None:
    network = smooth_network().requires_grad_().train()
    with torch.no_grad():
        assert not blur_ig(network, noise_images(), steps=2).requires_grad
    assert all(parameter.grad is None for parameter in network.parameters()) and network.training


def test_the_widest_blur() -> None:
    """100 pixels, or ten times the longer side."""
    for x, most in ((noise_images(1), 100), (torch.ones(1, 3, 2, 20).double(), 200)):
        for name in ("max_sigma", "grad_step"):
            given: dict[str, Any] = {name: most}
            assert blur_ig(cubic, x, 0, steps=1, **given).isfinite().all()
            for wider in (most + 1, 1e308, float("inf")):
                with pytest.raises(
                    ValueError, match=rf"^{name}: wanted at most {most} pixels.* got {re.escape(str(wider))}$"
                ):
                    blur_ig(cubic, x, 0, steps=1, **(given | {name: wider}))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"steps": 0}, "steps"),
        ({"max_sigma": 0}, "max_sigma"),
        ({"grad_step": float("nan")}, "grad_step"),
        ({"score": "loss"}, "score"),
        ({"chunk": 0}, "chunk"),
        ({"targets": 3}, "targets"),
        ({"images": noise_images()[0]}, "images"),
    ],
)
def test_what_does_not_fit_names_the_argument(options: dict, named: str) -> None:
    with pytest.raises(ValueError, match=rf"^{named}: "):
        blur_ig(smooth_network(), **({"images": noise_images()} | options))
