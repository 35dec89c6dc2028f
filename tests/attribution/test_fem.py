"""FEM: by hand, and how it differs from pytorch-grad-cam's of the same name."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from imagexplain import fem
from imagexplain.attribution.class_activation_maps import shown, weighted
from imagexplain.attribution.network.layers import scores_and_activation
from imagexplain.errors import ArgumentError
from tests.attribution.networks import pictures, resnet, tiny_cnn
from tests.attribution.scaling import scaled


class Itself(nn.Module):
    """The image is the layer's output."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(2, 2, 1, bias=False).double()
        nn.init.dirac_(self.layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).sum((2, 3))


def test_by_hand() -> None:
    """0, 0, 0, 4 has mean 1 and deviation √3; the other channel is the same everywhere."""
    image = torch.tensor([[[[0.0, 0.0, 0.0, 4.0]], [[5.0, 5.0, 5.0, 5.0]]]]).double()
    for deviations, expected in ((1.7, [0, 0, 0, 1]), (1.8, [0, 0, 0, 0]), (0.0, [0, 0, 0, 1])):
        found = fem(Itself(), image, 0, deviations=deviations, layer="layer")
        np.testing.assert_allclose(found.flatten(), expected)


@pytest.mark.parametrize(("value", "side"), [(0.1, 7), (0.123, 14), (0.3, 8), (0.7, 20)])
def test_equal_values_whose_mean_rounds_below_them_show_nothing(value: float, side: int) -> None:
    images = torch.full((1, 2, side, side), value)
    assert not fem(Itself().float(), images, 0, layer="layer").any()


def test_the_peer_has_the_same_masks_and_other_weights() -> None:
    model, images = resnet(), pictures(2, (64, 48))
    with import_module("pytorch_grad_cam").FEM(model, [model.layer2]) as peer:
        expected = peer(images.clone(), None)
    _, activation = scores_and_activation(model, images, model.layer2)
    activation = activation.detach()
    limit = activation.mean((2, 3)) + 2 * activation.std((2, 3), correction=0)
    masks = (activation > limit[..., None, None]).double()
    theirs = shown(weighted(activation, masks.mean((2, 3))), images, upsample=True)
    assert np.abs(scaled(theirs.squeeze(1).numpy()) - scaled(expected)).max() < 2e-6
    ours = fem(model, images, 0, layer="layer2")
    torch.testing.assert_close(ours, shown(weighted(masks, activation.mean((2, 3))), images, upsample=True))
    assert np.abs(scaled(ours.squeeze(1).numpy()) - scaled(expected)).max() > 0.1


def test_bad_arguments() -> None:
    with pytest.raises(ArgumentError, match="deviations: wanted a number of at least 0, got -1"):
        fem(tiny_cnn(), pictures(1, (8, 8)), 0, deviations=-1.0)
    with pytest.raises(ValueError, match="targets: wanted classes"):
        fem(tiny_cnn(), pictures(1, (8, 8)), 4)
