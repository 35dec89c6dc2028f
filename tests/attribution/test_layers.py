from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn

from imagexplain.attribution.network.layers import chosen_layer, default_layer, layer_named, scores_and_activation
from imagexplain.models.classifiers.bit import bit
from imagexplain.models.classifiers.lanet import LaNet
from tests.attribution.networks import (
    assert_untouched,
    footprint,
    pictures,
    prepared,
    resnet,
    swin,
    tiny_cnn,
    torchvision_vit,
    vit,
)


def name_of(model: nn.Module, module: nn.Module) -> str:
    return next(name for name, other in model.named_modules() if other is module)


def torchvision_swin() -> nn.Module:
    return prepared(torchvision.models.SwinTransformer([4, 4], 12, [1, 2], [2, 4], [4, 4], num_classes=5))


def test_layers_by_name() -> None:
    model = resnet()
    assert layer_named(model, "layer4.0") is model.layer4[0]
    with pytest.raises(ValueError, match=r"such as layer4.*got 'layer44'"):
        layer_named(model, "layer44")
    with pytest.raises(ValueError, match="layer: wanted the name"):
        layer_named(model, "")


def stated_size(model: nn.Module) -> bool:
    """Transformers take images of one size; 64 pixels leave a convolutional network more than one place."""
    return hasattr(model, "patch_embed") or hasattr(model, "conv_proj")


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (tiny_cnn, "4"),
        (resnet, "layer4"),
        (lambda: prepared(torchvision.models.resnet18(num_classes=5)), "layer4"),
        (lambda: prepared(bit((1, 1, 1, 1), (128, 128, 128, 128), 32, 5)), "norm"),
        (lambda: prepared(LaNet(4, 3, 5)), "cells.2"),
        (vit, "blocks.1.norm1"),
        (lambda: vit(class_token=True, reg_tokens=4), "blocks.1.norm1"),
        (lambda: vit("avg"), "blocks"),
        (swin, "norm"),
        (torchvision_vit, "encoder.layers.encoder_layer_1.ln_1"),
        (torchvision_swin, "permute"),
    ],
)
def test_default_layer(build, expected: str) -> None:
    model = build()
    images = pictures(1, (32, 32) if stated_size(model) else (64, 64))
    before = footprint(model)
    assert name_of(model, default_layer(model, images)) == expected
    assert_untouched(before, model)


def test_default_layer_is_left_as_it_was_in_training() -> None:
    model = resnet().train()
    model.layer1.eval()
    before = footprint(model)
    default_layer(model, pictures(1, (64, 64)))
    assert_untouched(before, model)


@pytest.mark.parametrize(("build", "later"), [(resnet, "fc"), (vit, "blocks.1.attn")])
def test_the_search_for_the_default_layer_goes_back_no_further(build: Callable[[], nn.Module], later: str) -> None:
    model = build()
    went_back: list[str] = []

    def watch(module: nn.Module, _: object, output: Tensor) -> None:
        name = name_of(model, module)
        output.register_hook(lambda gradient: went_back.append(name))

    for module in (model.get_submodule(later), next(model.children())):
        module.register_forward_hook(watch)
    default_layer(model, pictures(1, (32, 32) if stated_size(model) else (64, 64)))
    assert set(went_back) == {later}


def test_no_default_layer_without_places() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).double()
    before = footprint(model)
    with pytest.raises(ValueError, match="none was found"):
        default_layer(model, pictures(1, (2, 2)))
    assert_untouched(before, model)


def test_activation_is_the_layers_own_output() -> None:
    model, images = tiny_cnn(), pictures(2, (8, 8))
    scores, activation = scores_and_activation(model, images, model[3])
    expected = model[3](model[2](model[1](model[0](images))))
    assert (expected < 0).any()  # which the ReLU in place would have overwritten
    torch.testing.assert_close(activation.detach(), expected, rtol=0, atol=0)
    torch.testing.assert_close(scores.detach(), model(images), rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(scores[:, 1].sum(), activation)
    torch.testing.assert_close(gradient, (expected > 0) * model[7].weight[1].view(1, -1, 1, 1) / 16)


def test_first_part_of_a_tuple() -> None:
    model, images = torchvision_vit(), pictures(2)
    _, activation = scores_and_activation(
        model, images, layer_named(model, "encoder.layers.encoder_layer_0.self_attention")
    )
    assert activation.shape == (2, 17, 24)


def test_layers_that_cannot_be_captured() -> None:
    shared = nn.ReLU()
    twice = nn.Sequential(nn.Conv2d(3, 3, 1), shared, nn.Conv2d(3, 3, 1), shared, nn.Flatten()).double()
    before = footprint(twice)
    with pytest.raises(ValueError, match="ran 2 times"):
        scores_and_activation(twice, pictures(1, (4, 4)), shared)
    assert_untouched(before, twice)
    with pytest.raises(ValueError, match="another Conv2d"):
        chosen_layer(twice, pictures(1, (4, 4)), nn.Conv2d(3, 3, 1))
    with pytest.raises(ValueError, match="images: wanted"):
        chosen_layer(twice, pictures(1, (4, 4))[0], "0")
    with pytest.raises(ValueError, match="model: wanted a module"):
        chosen_layer(lambda x: x, pictures(1), "0")  # type: ignore[arg-type]


def test_hook_is_removed_when_the_model_fails() -> None:
    class Failing(nn.Module):
        def forward(self, x):
            raise RuntimeError("broken")

    model = nn.Sequential(nn.Conv2d(3, 3, 1), Failing()).double()
    before = footprint(model)
    with pytest.raises(RuntimeError, match="broken"):
        scores_and_activation(model, pictures(1, (4, 4)), model[0])
    with pytest.raises(RuntimeError, match="broken"):
        default_layer(model, pictures(1, (4, 4)))
    assert_untouched(before, model)
