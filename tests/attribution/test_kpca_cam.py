"""KPCA-CAM: scikit-learn's kernel PCA through pytorch-grad-cam, and Eigen-CAM as its linear case."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
import torch

from imagexplain import eigen_cam, kpca_cam
from imagexplain.attribution.methods.kpca_cam import Kernel
from imagexplain.attribution.network.layers import layer_named, scores_and_activation
from imagexplain.attribution.principal_component import first_kernel_component
from imagexplain.errors import ArgumentError, LayerError
from tests.attribution.inputs import noise
from tests.attribution.networks import pictures, resnet, tiny_cnn, to_maps, vit


@pytest.mark.parametrize(("build", "layer"), [(tiny_cnn, "4"), (resnet, "layer2"), (vit, "blocks.1.norm1")])
def test_agrees_with_pytorch_grad_cam_but_for_the_sign(build, layer: str) -> None:
    peer = import_module("pytorch_grad_cam.utils.svd_on_activations").get_2d_projection_kernel
    model, images = build(), pictures(2)
    _, activation = scores_and_activation(model, images, layer_named(model, layer))
    maps = to_maps(activation, images.shape).detach()
    kernels: tuple[tuple[Kernel, float | None], ...] = (("sigmoid", None), ("rbf", 0.3))
    for kernel, scale in kernels:
        expected = torch.from_numpy(peer(maps.numpy(), kernel, scale)).double()
        found = first_kernel_component(maps, kernel, scale or 1 / maps.shape[1])[:, 0]
        for own, theirs in zip(found, expected, strict=True):
            sign = (own * theirs).sum().sign()
            assert (own - sign * theirs).abs().max() < 1e-6 * theirs.abs().max()
        shown = kpca_cam(model, images, 2, kernel=kernel, kernel_scale=scale or 0.0, layer=layer, upsample=False)
        torch.testing.assert_close(shown, found.relu().unsqueeze(1))


def test_the_linear_kernel_is_eigen_cam() -> None:
    model, images = resnet(), pictures(2, (64, 48))
    found = kpca_cam(model, images, 0, kernel="linear", layer="layer3")
    expected = eigen_cam(model, images, 0, layer="layer3")
    assert (found - expected).abs().max() < 1e-9 * expected.max()


@pytest.mark.parametrize("scale", [1e-12, 1e9])
def test_the_linear_kernel_knows_no_scale(scale: float) -> None:
    maps = noise(2, 4, 5, 3)
    torch.testing.assert_close(
        first_kernel_component(scale * maps, "linear", 1.0) / scale, first_kernel_component(maps, "linear", 1.0)
    )
    assert not first_kernel_component(torch.full((1, 4, 7, 7), scale * 0.1), "linear", 1.0).any()


def test_equal_places_and_a_batch_one_by_one() -> None:
    assert not first_kernel_component(torch.ones(2, 4, 3, 3), "sigmoid", 0.25).any()
    maps = noise(3, 4, 5, 2)
    together = first_kernel_component(maps, "rbf", 0.25)
    alone = torch.cat([first_kernel_component(one, "rbf", 0.25) for one in maps.split(1)])
    np.testing.assert_allclose(together, alone, rtol=1e-9, atol=1e-12)


def test_what_does_not_fit_is_refused() -> None:
    model, images = tiny_cnn(), pictures(1, (8, 8))
    with pytest.raises(ArgumentError, match="kernel: wanted sigmoid, rbf or linear, got 'cosine'"):
        kpca_cam(model, images, 0, kernel="cosine")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="kernel_scale: wanted a number of at least 0, got -1"):
        kpca_cam(model, images, 0, kernel_scale=-1.0)
    with pytest.raises(ValueError, match="targets: wanted classes"):
        kpca_cam(model, images, 4)
    with pytest.raises(LayerError, match="layer: wanted one with at most 2500 places, got 3600"):
        kpca_cam(model, pictures(1, (60, 60)), 0, layer="0")
