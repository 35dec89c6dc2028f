"""Finer-CAM: which classes it compares with, by hand, and pytorch-grad-cam's, which is as the authors' code."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch

from imagexplain import contrast, finer_cam
from imagexplain.attribution import METHODS
from imagexplain.attribution.methods.finer_cam import _difference
from imagexplain.attribution.network.layers import layer_named
from imagexplain.errors import ArgumentError
from tests.attribution.networks import pictures, resnet, swin, tiny_cnn, to_maps, vit
from tests.attribution.scaling import scaled


def test_the_nearest_scores_by_hand() -> None:
    """Of 5, 4, 7, 1 the nearest to 5 are 4 and 7, whose probabilities are as 1 to e³."""
    scores = torch.tensor([[5.0, 4.0, 7.0, 1.0]], dtype=torch.float64)
    share = 1 / (1 + np.exp(3.0))
    for strength in (1.0, 0.5):
        expected = share * (5 - 4 * strength) + (1 - share) * (5 - 7 * strength)
        assert _difference(scores, 0, comparisons=2, strength=strength).item() == pytest.approx(expected)
    assert _difference(scores, 0, comparisons=0, strength=1.0).item() == 5


def test_more_comparisons_than_classes_are_all_others_and_equal_scores_no_class_itself() -> None:
    scores = torch.tensor([[2.0, 2.0, 2.0]], dtype=torch.float64)
    assert _difference(scores, 1, comparisons=9, strength=0.0).item() == pytest.approx(2)
    assert _difference(scores, 1, comparisons=9, strength=1.0).item() == pytest.approx(0)
    assert _difference(scores[:, :1], 0, comparisons=3, strength=1.0).item() == 2


@pytest.mark.parametrize(
    ("build", "layer", "size"),
    [
        (tiny_cnn, "4", (16, 12)),
        (resnet, "layer3", (64, 48)),
        (vit, "blocks.1.norm1", (32, 32)),
        (swin, "norm", (32, 32)),
    ],
)
def test_agrees_with_pytorch_grad_cam(build: Any, layer: str, size: tuple[int, int]) -> None:
    peer = import_module("pytorch_grad_cam").FinerCAM
    model, image = build(), pictures(1, size)
    target = layer_named(model, layer)
    for strength in (1.0, 0.6):
        with peer(model, [target], reshape_transform=lambda output: to_maps(output, image.shape)) as method:
            expected = method(image.clone().requires_grad_(), target_idx=3, alpha=strength)
        got = finer_cam(model, image, 3, layer=target, strength=strength).squeeze(1).numpy()
        assert np.abs(scaled(got) - scaled(expected)).max() < 2e-6


def test_a_difference_of_two_classes_is_compared_with_no_other() -> None:
    model, images = tiny_cnn(), pictures(2, (8, 8))
    with contrast(model, [(3, 1), (0, 2)]) as (differences, columns):
        found, expected = (
            METHODS[name].function(differences, images, columns, layer="4", **options)
            for name, options in (("finer_cam", {"comparisons": 0}), ("grad_cam", {}))
        )
        assert found.equal(expected)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"comparisons": -1}, "comparisons: wanted at least 0, got -1"),
        ({"strength": -0.5}, "strength: wanted a number of at least 0, got -0.5"),
        ({"strength": float("nan")}, "strength: wanted a number of at least 0, got nan"),
    ],
)
def test_bad_arguments(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        finer_cam(tiny_cnn(), pictures(1, (8, 8)), 0, **options)
