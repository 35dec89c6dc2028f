from importlib import import_module

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

from imagexplain.attribution.methods.full_grad import full_grad, full_gradient
from tests.attribution.networks import assert_untouched, footprint, pictures, prepared, resnet, swin, tiny_cnn, vit


def test_by_hand() -> None:
    """relu(w x + b) summed: 2 · 3 − 1 counts, 2 · (−1) − 1 does not."""
    convolution = nn.Conv2d(1, 1, 1).double()
    nn.init.constant_(convolution.weight, 2)
    nn.init.constant_(convolution.bias, -1)  # type: ignore[arg-type]
    model = nn.Sequential(convolution, nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(2, 1).double())
    nn.init.ones_(model[3].weight)  # type: ignore[arg-type]
    nn.init.constant_(model[3].bias, 0.5)  # type: ignore[arg-type]
    image = torch.tensor([[[[3.0, -1.0]]]]).double()
    parts = full_gradient(model, image, 0)
    np.testing.assert_allclose(parts.score, [5.5])
    np.testing.assert_allclose(parts.input.flatten(), [6, 0])
    np.testing.assert_allclose(parts.biases[0].flatten(), [-1, 0])
    np.testing.assert_allclose(parts.biases[1].flatten(), [0.5])
    np.testing.assert_allclose(full_grad(model, image, 0).flatten(), [1 + 1, 0])


@pytest.mark.parametrize(
    "build",
    [
        tiny_cnn,
        resnet,
        lambda: prepared(torchvision.models.resnet18(num_classes=5)),
        lambda: prepared(timm.create_model("resnet18", num_classes=5)),
    ],
)
def test_parts_make_up_the_score(build) -> None:
    model, images = build(), pictures(2, (32, 48))
    before = footprint(model)
    parts = full_gradient(model, images, [1, 3])
    assert_untouched(before, model)
    torch.testing.assert_close(parts.score, model(images)[[0, 1], [1, 3]])
    assert parts.relative_residual.max() < 1e-13
    total = parts.input.flatten(1).sum(1)
    assert ((parts.score - total).abs() > 1e-3 * parts.score.abs()).all()  # biases do count


def test_agrees_with_pytorch_grad_cam() -> None:
    """Whose sum of maps is scaled to 0..1; it resizes in float32, and divides by a channel's range plus 1e-7."""
    peer = import_module("pytorch_grad_cam")
    model, images, classes = tiny_cnn(), pictures(2, (16, 12)), [1, 3]
    model[7].weight *= 1e3
    with peer.FullGrad(model, []) as method:
        expected = method(images.clone(), [lambda scores, index=index: scores[index] for index in classes])
    got = full_grad(model, images, classes).squeeze(1).numpy()
    low, high = got.min((1, 2), keepdims=True), got.max((1, 2), keepdims=True)
    assert np.abs((got - low) / (high - low) - expected.squeeze()).max() < 1e-5


@pytest.mark.parametrize("build", [tiny_cnn, resnet])
def test_batch_equals_one_by_one(build) -> None:
    model, images, classes = build(), pictures(3), [0, 2, 3]
    before = footprint(model)
    together = full_grad(model, images, classes)
    assert_untouched(before, model)
    alone = torch.cat([full_grad(model, images[[b]], classes[b]) for b in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-10)
    assert together.shape == (3, 1, 32, 32) and not together.requires_grad


def test_float32_is_no_reason_to_refuse() -> None:
    model, images = resnet(torch.float32), pictures(2, dtype=torch.float32)
    assert full_gradient(model, images).relative_residual.max() < 1e-5
    assert full_grad(model, images).isfinite().all()


@pytest.mark.parametrize("build", [vit, swin])
def test_transformers_are_refused(build) -> None:
    model = build()
    before = footprint(model)
    with pytest.raises(ValueError, match="model: wanted one whose scores"):
        full_grad(model, pictures(2), 2)
    with pytest.raises(ValueError, match="images: wanted"):
        full_grad(model, pictures(1)[0], 2)
    assert_untouched(before, model)
