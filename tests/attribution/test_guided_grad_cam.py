from importlib import import_module

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from imagexplain.attribution.methods.grad_cam import grad_cam
from imagexplain.attribution.methods.guided_grad_cam import combine, guided_grad_cam
from tests.attribution.networks import assert_untouched, footprint, pictures, tiny_cnn


def test_by_hand() -> None:
    fine = torch.tensor([[[[1.0, -2.0]], [[-3.0, 1.0]]]])
    np.testing.assert_allclose(combine(fine, torch.tensor([[[[2.0, 5.0]]]])).flatten(), [-6, -10])


def test_the_coarse_map_is_resized() -> None:
    fine, coarse = pictures(2, (8, 6)), pictures(2, (2, 3))[:, :1]
    expected = combine(fine, F.interpolate(coarse, (8, 6), mode="bilinear"))
    torch.testing.assert_close(combine(fine, coarse), expected)


def original_product(fine: torch.Tensor, cam: torch.Tensor, epsilon: float) -> torch.Tensor:
    """The wrapper of pytorch_attribution by its formula: what is positive in the largest channel, scaled, times the map
    resized and scaled, scaled again."""

    def scaled(maps: torch.Tensor, by: float) -> torch.Tensor:
        lowest, highest = maps.amin((1, 2, 3), keepdim=True), maps.amax((1, 2, 3), keepdim=True)
        return (maps - lowest) / (highest - lowest + by)

    coarse = F.interpolate(cam, fine.shape[-2:], mode="bilinear", align_corners=False)
    return scaled((scaled(fine.amax(1, keepdim=True).relu(), 0) * scaled(coarse, epsilon)).relu(), epsilon)


def test_normalized_is_the_original_wrappers_formula() -> None:
    """Their 1e-5 in the divisors scales each image's map by a factor a little below 1, and changes nothing else."""
    fine, coarse = pictures(3, (8, 6)), pictures(3, (2, 3))[:, :1].abs() * torch.tensor([1, 5, 0.01]).view(3, 1, 1, 1)
    kept = fine.clone(), coarse.clone()
    got = combine(fine, coarse, normalized=True)
    torch.testing.assert_close(got, original_product(fine, coarse, 0), rtol=1e-12, atol=1e-15)
    theirs = original_product(fine, coarse, 1e-5)
    torch.testing.assert_close(got, theirs / theirs.amax((1, 2, 3), keepdim=True), rtol=1e-12, atol=1e-15)
    assert (got - theirs).abs().max() < 1e-4 < (got - combine(fine, coarse)).abs().max()
    assert torch.equal(fine, kept[0]) and torch.equal(coarse, kept[1])


def test_normalized_by_hand() -> None:
    """Channels (1, 3), (4, −1), (−1, −2): largest 3, 4, −1, scaled ¾, 1, 0; times 1, ½, 0: ¾, ½, 0; scaled 1, ⅔, 0."""
    fine = torch.tensor([[[[1.0, 4.0, -1.0]], [[3.0, -1.0, -2.0]]]])
    got = combine(fine, torch.tensor([[[[6.0, 4.0, 2.0]]]]), normalized=True)
    np.testing.assert_allclose(got.flatten(), [1, 2 / 3, 0], rtol=1e-6)


def test_normalized_without_range_is_zero() -> None:
    zeros = combine(torch.zeros(1, 3, 4, 4), torch.ones(1, 1, 2, 2), normalized=True)
    assert torch.equal(zeros, torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize("shapes", [((2, 3, 4, 4), (1, 1, 4, 4)), ((2, 3, 4, 4), (2, 3, 4, 4)), ((3, 4, 4), (1, 4, 4))])
def test_bad_arguments(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="first_map, second_map: wanted"):
        combine(torch.zeros(shapes[0]), torch.zeros(shapes[1]))


def test_guided_grad_cam_is_the_product() -> None:
    guided_relu = import_module("imagexplain.attribution.methods.guided_backprop")
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
