"""Contrast: a difference of two classes' scores, against cases by hand and a wrapped forward."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from captum.attr import IntegratedGradients
from torch import Tensor, nn

import imagexplain
from imagexplain import contrast
from imagexplain.attribution import METHODS
from imagexplain.attribution.differences import score_of
from imagexplain.errors import ArgumentError
from tests.attribution.every_method import OPTIONS
from tests.attribution.inputs import noise_images, uneven_images
from tests.attribution.networks import assert_untouched, footprint, pictures, resnet, tiny_cnn, vit

PAIRS = [(3, 1), (0, 2), (1, 0)]

LINEAR_IN_THE_SCORE = (
    *("gradient", "input_x_gradient", "integrated_gradients", "smoothgrad", "expected_gradients", "deep_lift"),
    *("blur_ig", "occlusion", "kernel_shap", "shapley_sampling", "feature_ablation", "rise", "lime"),
)
"""Methods whose map of a difference is the difference of the maps."""


def test_a_linear_model_by_hand() -> None:
    """f = W·x: the attribution of z₂ − z₀ is (W₂ − W₀)·x, pixel by pixel."""
    weights = torch.tensor([[1.0, 2.0, 0.0], [0.0, -1.0, 4.0], [3.0, 5.0, -7.0]], dtype=torch.float64)
    image = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64).view(1, 1, 1, 3)

    def network(images: Tensor) -> Tensor:
        return images.flatten(1) @ weights.T

    with contrast(network, [(2, 0)]) as (differences, columns):
        found = imagexplain.integrated_gradients(differences, image, targets=columns, steps=3)
        scores = differences(image)
    assert found.flatten().tolist() == pytest.approx([2 * 1.0, 3 * -2.0, -7 * 0.5])
    assert scores.tolist() == [[pytest.approx(found.sum().item())]]


@pytest.mark.parametrize("name", LINEAR_IN_THE_SCORE)
def test_maps_of_differences_are_differences_of_maps(name: str) -> None:
    network, images = tiny_cnn(), uneven_images()
    method, options = METHODS[name].function, dict(OPTIONS.get(name, {}))
    if name in ("rise", "lime"):
        options["scores"] = "logits"
    before = footprint(network)
    with contrast(network, PAIRS) as (differences, columns):
        found = method(differences, images, columns, **options)
    assert_untouched(before, network)
    first, second = (method(network, images, [pair[side] for pair in PAIRS], **options) for side in (0, 1))
    torch.testing.assert_close(found, first - second)


@pytest.mark.parametrize(
    ("name", "make"),
    [("grad_cam", resnet), ("layer_cam", resnet), ("gradient_rollout", vit), ("libra_grad", vit), ("legrad", vit)],
)
def test_methods_that_look_inside(name: str, make: Callable[[], nn.Module]) -> None:
    """A head of one class whose weights are the difference of two gives the difference as a score of its own."""
    network, images = make(), pictures(2)
    classifier = network.get_classifier()  # type: ignore[operator]
    with contrast(network, [(3, 1)] * 2) as (differences, columns):
        found = METHODS[name].function(differences, images, columns)
    for tensor in (classifier.weight, classifier.bias):
        tensor[0] = tensor[3] - tensor[1]
    torch.testing.assert_close(found, METHODS[name].function(network, images, 0))


def test_captums_integrated_gradients_of_a_wrapped_forward() -> None:
    network, images = tiny_cnn(), noise_images()
    with contrast(network, PAIRS) as (differences, columns):
        found = imagexplain.integrated_gradients(differences, images, columns, steps=20, rule="midpoint")
    for place, (first, second) in enumerate(PAIRS):
        captum = IntegratedGradients(lambda rows, i=first, j=second: network(rows)[:, i] - network(rows)[:, j])
        image = images[place : place + 1]
        wanted = captum.attribute(image, n_steps=20, method="riemann_middle")
        torch.testing.assert_close(found[place : place + 1], wanted)


def test_a_class_alone_beside_pairs_has_its_own_score() -> None:
    network, images = tiny_cnn(), noise_images(2)
    with contrast(network, [2, (1, 2)]) as (differences, columns):
        scores, found = differences(images), imagexplain.gradient(differences, images, columns)
    plain = network(images)
    assert scores[:, 0].equal(plain[:, 2]) and scores[:, 1].equal(plain[:, 1] - plain[:, 2])
    assert found[:1].equal(imagexplain.gradient(network, images[:1], 2))
    assert score_of(plain[0], 2) == plain[0, 2].item()
    assert score_of(plain[0], (1, 2)) == scores[0, 1].item()


def test_a_network_is_left_as_it_was_when_something_fails() -> None:
    network = tiny_cnn()
    with pytest.raises(RuntimeError, match="on the way"), contrast(network, [(0, 1)]):
        raise RuntimeError("on the way")
    assert network(noise_images(1)).shape == (1, 4)


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([], "wanted at least one pair of classes, got none"),
        ([(1, 1)], "wanted two different classes, got 1 twice"),
        ([(1, 2, 3)], r"wanted two class indices, or one alone, got \(1, 2, 3\)"),
        ([("cat", "dog")], "wanted two class indices"),
        ([(0, 4)], r"wanted classes 0..3, got \[0, 4\]"),
        ([(-1, 0)], r"wanted classes 0..3, got \[-1, 0\]"),
    ],
)
def test_pairs_that_are_none(pairs: list[tuple[int, int]], words: str) -> None:
    with pytest.raises(ArgumentError, match=words), contrast(tiny_cnn(), pairs) as (differences, _):
        differences(noise_images(1))
