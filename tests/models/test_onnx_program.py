"""ONNX programs of torch's two exporters: scores and gradients of the network itself, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from imagexplain.attribution import grad_cam
from imagexplain.errors import UnsupportedModelError
from imagexplain.models import programs
from imagexplain.models.checkpoints.checkpoint import CheckpointError

pytest.importorskip("onnx2pytorch")

CPU = torch.device("cpu")
SIDE = 16


class Attending(nn.Module):
    """A convolution, and attention over its places; the biases are equal, which the older exporter writes once."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.norm, self.after = nn.LayerNorm(8), nn.LayerNorm(8)
        self.keys, self.values, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 5)
        for layer in (self.keys, self.values):
            nn.init.zeros_(layer.bias)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.norm(self.patches(images).flatten(2).transpose(1, 2))
        weights = (self.keys(tokens) @ tokens.transpose(1, 2)).softmax(-1)
        return self.head(self.after(nn.functional.gelu(weights @ self.values(tokens))).mean(1))


def network() -> nn.Module:
    torch.manual_seed(0)
    return Attending().eval().requires_grad_(False)


def write(folder: Path, model: nn.Module, batch: int = 2, *, new: bool = True, dynamic: bool = True) -> Path:
    file, images = folder / "net.onnx", torch.rand(batch, 3, SIDE, SIDE)
    shapes: dict[str, Any] = {}
    if dynamic:
        shapes = {"dynamic_shapes": ({0: Dim("batch")},)} if new else {"dynamic_axes": {"images": {0: "batch"}}}
    torch.onnx.export(model, (images,), file, dynamo=new, input_names=["images"], verbose=False, **shapes)
    return file


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("new", [True, False])
def test_scores_and_gradients_are_the_networks_own(new: bool, tmp_path: Path) -> None:
    model, program = network(), programs.load("onnx", write(tmp_path, network(), new=new), {}, CPU)
    for count in (1, 3):
        images = torch.rand(count, 3, SIDE, SIDE, requires_grad=True)
        scores, wanted = program(images), model(images)
        torch.testing.assert_close(scores, wanted, rtol=0, atol=1e-5)
        (gradient,) = torch.autograd.grad(scores[:, 2].sum(), images)
        (expected,) = torch.autograd.grad(wanted[:, 2].sum(), images)
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    with pytest.raises(UnsupportedModelError, match="the nodes of an ONNX program are no layers"):
        grad_cam(program, torch.rand(1, 3, SIDE, SIDE), 0)


@pytest.mark.filterwarnings("ignore")
def test_one_image_or_any_number(tmp_path: Path) -> None:
    model, images = network(), torch.rand(3, 3, SIDE, SIDE)
    one = programs.load("onnx", write(tmp_path, model, 1, dynamic=False), {}, CPU)
    assert one.most == 1
    torch.testing.assert_close(one(images), model(images), rtol=0, atol=1e-5)
    with pytest.raises(CheckpointError, match=r"net\.onnx: wanted a program of one image or of any .* of 4 images"):
        programs.load("onnx", write(tmp_path, model, 4, dynamic=False), {}, CPU)


@pytest.mark.filterwarnings("ignore")
def test_weights_beside_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, network())
    beside = tmp_path / "net.onnx.data"
    assert beside.is_file()
    programs.carry(file, tmp_path / programs.FILES["onnx"])
    beside.unlink()
    images = torch.rand(2, 3, SIDE, SIDE)
    carried = programs.load("onnx", tmp_path / programs.FILES["onnx"], {}, CPU)
    torch.testing.assert_close(carried(images), network()(images), rtol=0, atol=1e-5)
    with pytest.raises(CheckpointError, match=r"net\.onnx: wanted an ONNX program with its weights: "):
        programs.load("onnx", file, {}, CPU)
