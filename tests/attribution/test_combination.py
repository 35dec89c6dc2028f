from importlib import import_module

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from handlers.attribution.cam import grad_cam
from handlers.attribution.combination import combine, guided_grad_cam
from tests.attribution.networks import assert_untouched, footprint, pictures, tiny_cnn


def test_by_hand() -> None:
    fine = torch.tensor([[[[1.0, -2.0]], [[-3.0, 1.0]]]])
    np.testing.assert_allclose(combine(fine, torch.tensor([[[[2.0, 5.0]]]])).flatten(), [-6, -10])


def test_the_coarse_map_is_resized() -> None:
    fine, coarse = pictures(2, (8, 6)), pictures(2, (2, 3))[:, :1]
    expected = combine(fine, F.interpolate(coarse, (8, 6), mode="bilinear"))
    torch.testing.assert_close(combine(fine, coarse), expected)


@pytest.mark.parametrize("shapes", [((2, 3, 4, 4), (1, 1, 4, 4)), ((2, 3, 4, 4), (2, 3, 4, 4)), ((3, 4, 4), (1, 4, 4))])
def test_bad_arguments(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="first_map, second_map: wanted"):
        combine(torch.zeros(shapes[0]), torch.zeros(shapes[1]))


def test_guided_grad_cam_is_the_product() -> None:
    guided_relu = import_module("handlers.attribution.guided_relu")
    model, images, classes = tiny_cnn(), pictures(3, (8, 8)), [0, 2, 3]
    before = footprint(model)
    together = guided_grad_cam(model, images, classes, layer="4")
    assert_untouched(before, model)
    fine = guided_relu.guided_backprop(model, images, classes)
    torch.testing.assert_close(together, combine(fine, grad_cam(model, images, classes, layer="4")))
    alone = torch.cat([guided_grad_cam(model, images[[b]], classes[b], layer="4") for b in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-14)


def test_guided_grad_cam_agrees_with_captum() -> None:
    """Captum keeps the channels."""
    from captum.attr import GuidedGradCam

    model, images = tiny_cnn(), pictures(2, (8, 8))
    expected = GuidedGradCam(model.requires_grad_(True), model[4]).attribute(
        images.clone().requires_grad_(), target=2, interpolate_mode="bilinear"
    )
    expected = expected.gather(1, expected.abs().argmax(1, keepdim=True))
    got = guided_grad_cam(model, images, 2, layer="4")
    assert (got - expected).abs().max() / expected.abs().max() < 1e-10
