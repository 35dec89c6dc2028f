import pytest
import torch
import torchvision
from torch import Tensor, nn

from imagexplain.attribution.network.layers import layer_named, output_replaced
from imagexplain.attribution.network.partial_forward import split_at
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
from tests.rows import rows_through


def constantly(value: Tensor):
    return lambda _: value


@pytest.mark.parametrize(
    ("build", "layer", "size"),
    [
        (tiny_cnn, "3", (8, 8)),
        (resnet, "layer4", (64, 64)),
        (resnet, "layer2.0.bn1", (64, 64)),  # a shortcut leads around it
        (lambda: prepared(torchvision.models.resnet18(num_classes=5)), "layer3.1", (64, 64)),
        (lambda: prepared(LaNet(4, 3, 5)), "cells.1", (32, 32)),  # the next cell reads the one before, too
        (vit, "blocks.1.norm1", (32, 32)),
        (vit, "blocks.1.attn.proj", (32, 32)),
        (swin, "layers.1.blocks.0.norm2", (32, 32)),
        (swin, "layers.1.blocks.1.attn.proj", (32, 32)),
    ],
)
@pytest.mark.parametrize("count", [1, 2])
def test_the_rest_is_that_of_a_full_pass(build, layer: str, size: tuple[int, int], count: int) -> None:
    model, images = build(), pictures(count, size)
    module = layer_named(model, layer)
    before = footprint(model)
    rest = split_at(model, images, module)
    assert_untouched(before, model)
    assert rest.resumes
    torch.testing.assert_close(rest.scores, model(images), rtol=0, atol=0)
    if len(rest.activation) != count:
        return  # windows, which are rows of their own: found equal above, and refused by the methods
    for owner in (torch.arange(5) % count, torch.full((3,), count - 1)):
        replacement = torch.randn_like(rest.activation[owner])
        with output_replaced(module, constantly(replacement)):
            expected = model(images[owner])
        got = rest.run(owner, replacement)
        assert_untouched(before, model)
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def test_other_parts_of_a_tuple_stay() -> None:
    model, images = torchvision_vit(), pictures(2)
    module = layer_named(model, "encoder.layers.encoder_layer_0.self_attention")
    rest = split_at(model, images, module)
    assert rest.resumes
    zeros = torch.zeros_like(rest.activation)
    with output_replaced(module, lambda _: zeros):
        expected = model(images)
    assert (expected - rest.scores).abs().min() > 1e-3
    torch.testing.assert_close(rest.run(torch.arange(2), zeros), expected)


def test_earlier_modules_do_not_run_again() -> None:
    model, images = resnet(), pictures(2, (64, 64))
    rest = split_at(model, images, model.layer4)
    before, within, after = model.layer3[0].conv1, model.layer4[0], model.global_pool
    with rows_through(before) as earlier, rows_through(within) as inner, rows_through(after) as outer:
        rest.run(torch.tensor([1, 1, 0]), rest.activation[[1, 1, 0]])
    assert earlier == [] and inner == [] and outer == [3]


def test_rows_of_one_image_are_not_copied_unless_the_model_writes_into_them() -> None:
    class Writing(nn.Module):
        def __init__(self, writes: bool) -> None:
            super().__init__()
            self.first, self.second, self.third = (nn.Conv2d(3, 4, 1) for _ in range(3))
            self.writes, self.strides = writes, 0

        def forward(self, x: Tensor) -> Tensor:
            first = self.first(x)
            self.strides = first.stride(0)
            first = first.add_(self.second(x)) if self.writes else first + self.second(x)
            return (first * self.third(x)).mean((2, 3))

    for writes in (False, True):
        torch.manual_seed(0)
        model, images = prepared(Writing(writes)), pictures(2, (4, 4))
        rest = split_at(model, images, model.third)
        assert rest.resumes
        for owner in (torch.tensor([1, 1]), torch.tensor([1, 1, 0])):
            again = [rest.run(owner, rest.activation[owner]) for _ in range(2)]
            assert (model.strides == 0) == (not writes and len(owner) == 2)
            torch.testing.assert_close(again[0], model(images[owner]))
            torch.testing.assert_close(again[1], again[0], rtol=0, atol=0)


def test_a_module_whose_output_is_not_its_result_runs_again() -> None:
    class Aside(nn.Module):
        """The ReLU works in place, and what it returns is not used."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.relu, self.second = nn.Conv2d(3, 4, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x) * 1
            self.relu(x)
            return (self.second(x) + x.sum(1, keepdim=True)).mean((2, 3))

    torch.manual_seed(0)
    model, images = prepared(Aside()), pictures(2, (4, 4))
    before = footprint(model)
    rest = split_at(model, images, model.second)
    assert not rest.resumes
    assert_untouched(before, model)
    owner = torch.tensor([1, 0, 1])
    torch.testing.assert_close(rest.run(owner, rest.activation[owner]), model(images[owner]))


def test_an_instances_own_forward_comes_back() -> None:
    model, images = tiny_cnn(), pictures(1, (8, 8))
    own = model[0].forward
    model[0].forward = own
    rest = split_at(model, images, model[3])
    assert rest.resumes and vars(model[0])["forward"] is own and "forward" not in vars(model[1])
