"""Smooth Grad-CAM++: by its formula, and without noise Grad-CAM++."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from imagexplain import grad_cam_plusplus, smoothgrad_cam_plusplus
from imagexplain.attribution.class_activation_maps import shown, weighted
from imagexplain.attribution.methods.smoothgrad import noisy_copies
from imagexplain.attribution.network.layers import scores_and_activation
from imagexplain.errors import ArgumentError
from tests.attribution.networks import assert_untouched, footprint, pictures, resnet, tiny_cnn, vit
from tests.rows import rows_through


@pytest.mark.parametrize(("build", "layer"), [(tiny_cnn, "4"), (vit, "blocks.1.norm1")])
def test_without_noise_it_is_grad_cam_plusplus(build: Any, layer: str) -> None:
    model, images = build(), pictures(2)
    found = smoothgrad_cam_plusplus(model, images, [1, 3], samples=3, std=0.0, layer=layer)
    torch.testing.assert_close(found, grad_cam_plusplus(model, images, [1, 3], layer=layer))


def test_by_its_formula() -> None:
    model, images = resnet(), pictures(1, (64, 48))
    (copies,) = noisy_copies(images[0], 4, 0.2, 7, 8)
    scores, activation = scores_and_activation(model, copies, model.layer3)
    (g,) = torch.autograd.grad(scores[:, 2].sum(), activation)
    clean = scores_and_activation(model, images, model.layer3)[1].detach()
    first, second, third = g.mean(0), (g**2).mean(0), (g**3).mean(0)
    share = second / (2 * second + clean[0].sum((1, 2), keepdim=True) * third)
    expected = shown(weighted(clean, (share * first.relu()).sum((1, 2))[None]), images, upsample=True)
    found = smoothgrad_cam_plusplus(model, images, 2, samples=4, std=0.2, seed=7, layer="layer3")
    torch.testing.assert_close(found, expected)


def test_neither_chunk_nor_batch_mates_matter_and_nothing_stays() -> None:
    model, images = tiny_cnn(), pictures(3, (8, 8))
    before = footprint(model)
    together = smoothgrad_cam_plusplus(model, images, [0, 2, 3], samples=5, layer="4")
    assert_untouched(before, model)
    with rows_through(model) as rows:
        alone = smoothgrad_cam_plusplus(model, images[1:2], 2, samples=5, chunk=2, layer="4")
    assert rows == [1, 2, 2, 1]
    torch.testing.assert_close(together[1:2], alone, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"samples": 0}, "samples: wanted at least 1, got 0"),
        ({"chunk": 0}, "chunk: wanted at least 1, got 0"),
        ({"std": -0.1}, "std: wanted a fraction of the image's range, 0 or more, got -0.1"),
    ],
)
def test_bad_arguments(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        smoothgrad_cam_plusplus(tiny_cnn(), pictures(1, (8, 8)), 0, **options)
