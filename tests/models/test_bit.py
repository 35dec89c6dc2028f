import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks import deterministic
from imagexplain import models
from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.classifiers import bit
from tests.models.reference import FIXTURES, distance, explained, gradients, integrated, shapes
from tests.models.same import assert_same_network

NARROW = bit.Size(layers=(1, 2, 1, 1), channels=(128, 256, 384, 512), stem=32)


@pytest.fixture(scope="module")
def tiny() -> nn.Module:
    return models.build("bit", deterministic.state(shapes("bit/tiny_1111_keys.json"))).requires_grad_(False)


@pytest.mark.upstream
def test_logits_equal_upstream(tiny: nn.Module) -> None:
    expected = explained("bit/tiny_1111_det_eval.npz")
    assert distance(tiny(expected.input), expected.output) < 1e-5


@pytest.mark.upstream
def test_logits_of_a_resized_photo_equal_upstream(tiny: nn.Module) -> None:
    photo = Image.fromarray(np.load(FIXTURES / "image48x40.npy")).resize((32, 32), Image.Resampling.BILINEAR)
    image = torch.from_numpy(np.asarray(photo, dtype=np.float32)).permute(2, 0, 1)[None] / 255
    expected = torch.from_numpy(np.load(FIXTURES / "bit/tiny_1111_det_eval_out_image48x40.npy"))
    assert distance(tiny((image - 0.5) / 0.5), expected) < 1e-5


@pytest.mark.upstream
def test_gradients_on_the_path_equal_upstream(tiny: nn.Module) -> None:
    expected = explained("bit/tiny_1111_det_eval.npz")
    grads = gradients(tiny, expected.intermediates)
    for given, wanted in zip(grads, expected.integrated_directional_grads, strict=True):
        assert distance(given, wanted) < 1e-4
    assert distance(integrated(expected, grads), expected.integrated_grads) < 1e-4


@pytest.mark.upstream
@pytest.mark.parametrize(
    ("size", "parameters"), [("tiny_1111", None), ("BiT-S-R50x1", 23_520_842), ("BiT-S-R101x3", 381_851_338)]
)
def test_state_dict_names_equal_upstream(size: str, parameters: int | None) -> None:
    wanted = shapes(f"bit/{size}_keys.json")
    model = models.build("bit", {name: torch.empty(shape, device="meta") for name, shape in wanted.items()})
    assert {bit.original_name(name): tuple(value.shape) for name, value in model.state_dict().items()} == wanted
    assert parameters in (None, sum(parameter.numel() for parameter in model.parameters()))


@pytest.mark.parametrize(("name", "parameters"), [("R50x1", 23_520_842), ("R101x3", 381_851_338)])
def test_sizes(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = bit.bit(*bit.SIZES[name], classes=10)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


def test_every_authors_size_is_there() -> None:
    assert list(bit.SIZES) == ["R50x1", "R50x3", "R101x1", "R101x3", "R152x2", "R152x4"]
    assert bit.SIZES["R152x4"] == ((3, 8, 36, 3), (1024, 2048, 4096, 8192), 256)


def test_export_and_build_of_another_size() -> None:
    torch.manual_seed(0)
    model = bit.bit(*NARROW, classes=7).eval()
    state = bit.export(model)
    assert state["body.block2.unit02.conv2.weight"].shape == (64, 64, 3, 3)
    images = torch.randn(2, 3, 32, 32)
    assert_same_network(models.build("bit", state), model, images)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"layers": (1, 1, 1)}, "layers"),
        ({"layers": (1, 0, 1, 1)}, "layers"),
        ({"channels": (128, 256, 384, 500)}, "channels"),
        ({"stem": 48}, "stem"),
    ],
)
def test_dimensions_that_groups_do_not_divide(changed: dict, field: str) -> None:
    with pytest.raises(ValueError, match=f"{field}: wanted .* given"):
        bit.bit(**NARROW._asdict() | changed, classes=10)


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_convolutions_standardise_as_the_authors_do(scale: float) -> None:
    """Small filters too, where a variance of 1e-8 meets the 1e-10 that is added to it."""
    torch.manual_seed(0)
    conv = bit.bit(*NARROW, classes=2).get_submodule("stem.conv")
    assert isinstance(conv, nn.Conv2d)
    conv.weight.data = scale * torch.randn(32, 3, 7, 7)
    images = torch.randn(1, 3, 16, 16)
    variance, mean = torch.var_mean(conv.weight, (1, 2, 3), correction=0, keepdim=True)
    wanted = torch.conv2d(images, (conv.weight - mean) / torch.sqrt(variance + 1e-10), None, stride=2, padding=3)
    assert distance(conv(images), wanted) < 1e-6


def test_authors_arrays(tmp_path: Path) -> None:
    state = deterministic.state(_shapes(NARROW))
    layout: dict[str, Any] = {_authors_name(name): _hwio(tensor) for name, tensor in state.items()}
    np.savez(tmp_path / "bit.npz", **layout)
    arrays = checkpoint.read(tmp_path / "bit.npz")
    assert arrays["resnet/root_block/standardized_conv2d/kernel"].shape == (7, 7, 3, 32)
    assert arrays["resnet/block1/unit01/a/proj/standardized_conv2d/kernel"].shape == (1, 1, 32, 128)
    exported = bit.export(models.build("bit", arrays))
    assert exported.keys() == state.keys()
    assert all(torch.equal(exported[name], state[name]) for name in state)


def test_unknown_authors_array_is_reported_under_its_own_name() -> None:
    state = deterministic.state(_shapes(NARROW))
    arrays = {_authors_name(name): torch.from_numpy(_hwio(tensor)) for name, tensor in state.items()}
    arrays["resnet/block1/unit01/a/weird/kernel"] = torch.zeros(1)
    with pytest.raises(checkpoint.CheckpointError) as caught:
        models.build("bit", arrays)
    assert caught.value.unexpected == ("resnet/block1/unit01/a/weird/kernel",)


def _shapes(size: bit.Size) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = bit.bit(*size, classes=10)
    return {bit.original_name(name): tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _authors_name(name: str) -> str:
    """By hand, from the layout of the published files."""
    kind = {"weight": "gamma", "bias": "beta"}[name.rpartition(".")[2]]
    match name.split("."):
        case ["root", "conv", _]:
            return "resnet/root_block/standardized_conv2d/kernel"
        case ["head", "gn", _]:
            return f"resnet/group_norm/{kind}"
        case ["head", "conv", last]:
            return f"resnet/head/conv2d/{'kernel' if last == 'weight' else 'bias'}"
        case ["body", block, unit, "downsample", _]:
            return f"resnet/{block}/{unit}/a/proj/standardized_conv2d/kernel"
        case ["body", block, unit, layer, _]:
            part = "abc"[int(re.sub(r"\D", "", layer)) - 1]
            leaf = f"group_norm/{kind}" if layer.startswith("gn") else "standardized_conv2d/kernel"
            return f"resnet/{block}/{unit}/{part}/{leaf}"
    raise AssertionError(name)


def _hwio(tensor: Tensor) -> np.ndarray:
    return (tensor.permute(2, 3, 1, 0) if tensor.ndim == 4 else tensor).numpy()
