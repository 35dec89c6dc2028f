from functools import partial
from importlib import import_module
from weakref import ref

import numpy as np
import pytest
import torch
from captum.attr import NoiseTunnel, Saliency
from torch import Tensor

from imagexplain.attribution.methods.gradient import gradient
from imagexplain.attribution.methods.input_x_gradient import input_x_gradient
from imagexplain.attribution.methods.smoothgrad import Statistic, smooth, smoothgrad
from tests.attribution.closeness import close
from tests.attribution.inputs import uneven_images
from tests.attribution.models import cubic, smooth_network

STATISTICS: list[Statistic] = ["mean", "square", "variance"]


def draws(samples: int, seed: int = 0, shape: tuple[int, ...] = (3, 8, 8)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randn(shape, generator=generator) for _ in range(samples)]).double()


def test_by_hand() -> None:
    """Σ x³/3 has the gradient x², here of x + 0.5 · 2 · ε: the range of (1, 3) is 2."""
    x = torch.tensor([1.0, 3.0], dtype=torch.float64).view(1, 1, 1, 2)
    squares = (x + 0.5 * 2 * draws(4, 7, (1, 1, 2))).square()
    mean = squares.mean(0)
    by_hand = [mean, (squares**2).mean(0), ((squares - mean) ** 2).sum(0) / 4]
    for statistic, values in zip(STATISTICS, by_hand, strict=True):
        got = smoothgrad(cubic, x, samples=4, std=0.5, seed=7, statistic=statistic)
        torch.testing.assert_close(got[0], values, rtol=1e-13, atol=0)


def test_without_noise_it_is_the_method_itself() -> None:
    network, images = smooth_network(), uneven_images()
    assert close(smoothgrad(network, images, samples=3, std=0), gradient(network, images))
    assert close(
        smooth(input_x_gradient, network, images, samples=2, std=0, statistic="square"),
        input_x_gradient(network, images).square(),
    )


@pytest.mark.parametrize(("statistic", "magnitude"), [("mean", False), ("square", True)])
def test_agrees_with_pair_given_the_same_noise(statistic, magnitude: bool, monkeypatch) -> None:
    """PAIR adds up in float32, and its model is called on one image, channels last."""
    pair = import_module("saliency.core")
    network, images = smooth_network(), uneven_images()
    noise = iter(draws(5).permute(0, 2, 3, 1).numpy())
    monkeypatch.setattr(np.random, "normal", lambda mean, std, shape: std * next(noise))

    def call(points, call_model_args, expected_keys):
        points = torch.from_numpy(points).permute(0, 3, 1, 2)
        return {pair.INPUT_OUTPUT_GRADIENTS: gradient(network, points, 1).permute(0, 2, 3, 1).numpy()}

    expected = pair.GradientSaliency().GetSmoothedMask(
        images[1].permute(1, 2, 0).numpy(), call, stdev_spread=0.15, nsamples=5, magnitude=magnitude
    )
    got = smoothgrad(network, images, 1, samples=5, statistic=statistic)[1].permute(1, 2, 0).numpy()
    assert np.abs(got - expected).max() / np.abs(expected).max() < 1e-6


@pytest.mark.parametrize(
    ("statistic", "theirs"), [("mean", "smoothgrad"), ("square", "smoothgrad_sq"), ("variance", "vargrad")]
)
def test_agrees_with_captum_given_the_same_noise(statistic, theirs: str, monkeypatch) -> None:
    """Captum takes the standard deviation in units of the input, rounded to float32, and draws all noise at once."""
    network, image = smooth_network(), uneven_images()[1:2]
    std = 0.15 * (image.max() - image.min()).item()
    monkeypatch.setattr(torch, "normal", lambda mean, scale: mean + scale * draws(6).reshape(scale.shape))
    tunnel = NoiseTunnel(Saliency(network))
    expected = tunnel.attribute(image.clone(), nt_type=theirs, nt_samples=6, stdevs=std, target=2, abs=False)
    assert close(smoothgrad(network, image, 2, samples=6, statistic=statistic), expected, 1e-6)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_neither_batch_mates_nor_chunk_matter(statistic) -> None:
    network, images = smooth_network(), uneven_images()
    together = smoothgrad(network, images, samples=7, statistic=statistic)
    alone = torch.cat([smoothgrad(network, x[None], samples=7, statistic=statistic) for x in images])
    assert close(together, alone)
    for chunk in (1, 3, 7):
        assert close(smoothgrad(network, images, samples=7, statistic=statistic, chunk=chunk), together)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_maps_are_not_held(statistic) -> None:
    """Two chunks at most, the one before and its successor, however many there are."""
    maps: list[ref[Tensor]] = []
    alive: list[int] = []

    def method(model, images: Tensor, targets) -> Tensor:
        alive.append(sum(each() is not None for each in maps))
        result = gradient(model, images, targets)
        maps.append(ref(result))
        return result

    smooth(method, smooth_network(), uneven_images(2), 0, samples=9, chunk=2, statistic=statistic)
    assert len(alive) == 10 and max(alive) <= 1


def test_a_small_variance_about_a_large_mean() -> None:
    """Maps of 10⁸ + ε: the mean of squares less the square of the mean would keep no digit."""

    def method(model, images: Tensor, targets) -> Tensor:
        return 1e8 + images

    image = torch.tensor([-1.0, 1.0], dtype=torch.float64).view(1, 1, 1, 2)
    got = smooth(method, cubic, image, 0, samples=50, std=0.005, statistic="variance", chunk=3)
    expected = (0.01 * draws(50, 0, (1, 1, 2))).var(0, correction=0)
    torch.testing.assert_close(got[0], expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_the_graph_runs_through_all_chunks(statistic) -> None:
    """Σ x³/3 has the gradient x², so that the statistics are polynomials of the noisy copies."""
    x = torch.tensor([1.0, 3.0], dtype=torch.float64).view(1, 1, 1, 2).requires_grad_()
    got = smoothgrad(cubic, x, 0, samples=7, std=0.3, chunk=2, statistic=statistic, create_graph=True)
    maps = (x + 0.3 * (x.max() - x.min()) * draws(7, 0, (1, 1, 2))).square()
    by_hand = {"mean": maps.mean(0), "square": maps.square().mean(0), "variance": maps.var(0, correction=0)}[statistic]
    weights = torch.tensor([2.0, -1.0], dtype=torch.float64)
    (ours,), (theirs,) = (torch.autograd.grad((weights * each).sum(), x) for each in (got, by_hand))
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=0)


def test_no_target_is_the_class_of_the_clean_image() -> None:
    network, images = smooth_network(), uneven_images()
    predicted = network(images).argmax(1)
    spread = 2 * (images[0].max() - images[0].min()) * draws(9)
    assert len(network(images[0] + spread).argmax(1).unique()) > 1  # the noise does change the prediction
    assert torch.equal(
        smoothgrad(network, images, std=2, samples=9), smoothgrad(network, images, predicted, std=2, samples=9)
    )


def test_options_of_the_method_are_bound_and_seeds_differ() -> None:
    network, images = smooth_network(), uneven_images()
    nested = partial(smooth, gradient, samples=2, seed=3)
    assert smooth(nested, network, images, samples=2, chunk=1).shape == images.shape
    assert not close(smoothgrad(network, images, seed=1), smoothgrad(network, images, seed=2))


def test_detached_and_the_model_is_left_as_it_was() -> None:
    network = smooth_network().requires_grad_().train()
    with torch.no_grad():
        assert not smoothgrad(network, uneven_images(), samples=2).requires_grad
    assert all(parameter.grad is None for parameter in network.parameters()) and network.training


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"samples": 0}, "samples"),
        ({"std": -0.1}, "std"),
        ({"std": float("nan")}, "std"),
        ({"chunk": 0}, "chunk"),
        ({"statistic": "median"}, "statistic"),
        ({"targets": 3}, "targets"),
        ({"images": uneven_images()[0]}, "images"),
    ],
)
def test_what_does_not_fit_names_the_argument(options: dict, named: str) -> None:
    with pytest.raises(ValueError, match=rf"^{named}: "):
        smoothgrad(smooth_network(), **({"images": uneven_images()} | options))
