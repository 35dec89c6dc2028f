"""Saved programs: what is refused, and why, and what is evaluated in turns."""

from __future__ import annotations

import copy
import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from imagexplain import attribution as library
from imagexplain.errors import ArgumentError, UnsupportedModelError
from imagexplain.models import programs
from imagexplain.models.checkpoints.checkpoint import CheckpointError
from imagexplain.models.programs import exported, trial
from imagexplain.models.programs.program import Program

CPU = torch.device("cpu")
SIDE = 16


class Flattening(nn.Module):
    """A small network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4 * 14 * 14, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.conv(images).relu().flatten(1))


class Fixed(Flattening):
    """A network whose code fixes the number of images when it is traced."""

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.conv(images).relu().reshape(int(images.shape[0]), -1))


class OnDevice(Flattening):
    """A network that makes a tensor on a device of its own."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + torch.ones(5, device="cpu")


def network(kind: type[nn.Module] = Flattening) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval().requires_grad_(False)


def traced(folder: Path, model: nn.Module, batch: int = 1) -> Path:
    with torch.no_grad():
        torch.jit.save(torch.jit.trace(model, torch.rand(batch, 3, SIDE, SIDE), check_trace=False), folder / "net.pt")
    return folder / "net.pt"


def export(folder: Path, model: nn.Module, batch: int, shapes: Any = None) -> Path:
    given = (torch.rand(batch, 3, SIDE, SIDE),)
    torch.export.save(torch.export.export(model, given, dynamic_shapes=shapes), folder / "net.pt2")
    return folder / "net.pt2"


def tried(program: Program, on_cpu: bool = False) -> None:
    trial.check(program, torch.rand(3, SIDE, SIDE), on_cpu=on_cpu)


def test_a_program_for_one_image_is_asked_in_turns(tmp_path: Path) -> None:
    model, images = network(Fixed), torch.rand(3, 3, SIDE, SIDE)
    file = traced(tmp_path, model)
    with pytest.raises(CheckpointError, match=r"if it was traced for one, `arguments: {batch: 1}` asks it"):
        tried(programs.load("torchscript", file, {}, CPU))
    program = programs.load("torchscript", file, {"batch": 1}, CPU)
    tried(program)
    torch.testing.assert_close(program(images), model(images))
    one = programs.load("exported", export(tmp_path, model, 1), {}, CPU)
    tried(one)
    torch.testing.assert_close(one(images), model(images))
    with pytest.raises(UnsupportedModelError, match="a program that takes one image at once shows no layers"):
        library.grad_cam(one, images, 0)


def test_a_largest_number_of_images(tmp_path: Path) -> None:
    model, images = network(), torch.rand(5, 3, SIDE, SIDE)
    program = programs.load("exported", export(tmp_path, model, 2, ({0: Dim("batch", max=2)},)), {}, CPU)
    assert program.most == 2
    torch.testing.assert_close(program(images), model(images))


@pytest.mark.parametrize(("batch", "shapes"), [(4, None), (4, ({0: Dim("batch", min=4, max=64)},))])
def test_a_program_for_several_images_alone(batch: int, shapes: Any, tmp_path: Path) -> None:
    wanted = r"net\.pt2: wanted a program of one image or of any number: .*; given one of 4 to (4|64) images at once"
    with pytest.raises(CheckpointError, match=wanted):
        programs.load("exported", export(tmp_path, network(), batch, shapes), {}, CPU)


def test_another_size(tmp_path: Path) -> None:
    program = programs.load("exported", export(tmp_path, network(), 1), {}, CPU)
    with pytest.raises(ArgumentError, match=r"^preprocess: size: wanted \[16, 16\], for which .*, given \[20, 20\]"):
        program(torch.rand(1, 3, 20, 20))


def test_a_program_that_names_a_device(tmp_path: Path) -> None:
    program = programs.load("torchscript", traced(tmp_path, network(OnDevice), 2), {}, CPU)
    with pytest.raises(CheckpointError, match=r"runs on any device: script it, .*; given one for cpu"):
        tried(program)
    tried(program, on_cpu=True)


def test_an_exported_program_is_moved(tmp_path: Path) -> None:
    """By torch's own pass, the tensors that it makes too."""
    program = exported._load(export(tmp_path, network(OnDevice), 2, ({0: Dim.DYNAMIC},)))
    assert exported._moved(program, CPU) is program
    moved = exported._moved(program, torch.device("meta"))
    made = [node.kwargs["device"] for node in moved.graph.nodes if "device" in node.kwargs]
    assert made and {str(device) for device in made} == {"meta"}
    assert {str(tensor.device) for tensor in moved.state_dict.values()} == {"meta"}


def test_a_program_that_was_saved_in_training(tmp_path: Path) -> None:
    dropout = nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.Linear(3 * SIDE**2, 5)).train()
    with pytest.raises(CheckpointError, match=r"wanted the same scores each time, .* eval\(\)"):
        tried(programs.load("exported", export(tmp_path, dropout, 2, ({0: Dim.DYNAMIC},)), {}, CPU))
    norm = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.Flatten(), nn.Linear(3 * SIDE**2, 5)).train()
    with pytest.raises(CheckpointError, match=r"or its eval\(\) was not called"):
        tried(programs.load("torchscript", traced(tmp_path, norm, 2), {}, CPU))


def test_layers_of_an_exported_program_have_their_names(tmp_path: Path) -> None:
    model, images = network(), torch.rand(2, 3, SIDE, SIDE)
    program = programs.load("exported", export(tmp_path, model, 2, ({0: Dim.DYNAMIC},)), {}, CPU)
    assert {"conv", "fc"} <= {name for name, _ in program.named_modules()}
    wanted = library.layer_cam(model, images, [1, 2], layer="conv")
    torch.testing.assert_close(library.layer_cam(program, images, [1, 2], layer="conv"), wanted)
    quick = program.quick()
    assert quick is not program and type(quick.program) is not type(program.program)
    weights, same = dict(program.named_parameters()), dict(quick.named_parameters())
    assert {name: weight.data_ptr() for name, weight in weights.items()} == {
        name: weight.data_ptr() for name, weight in same.items()
    }
    torch.testing.assert_close(quick(images), model(images))


@pytest.mark.parametrize("method", ["grad_cam", "full_grad", "deep_lift", "guided_backprop", "attention_rollout"])
def test_a_scripted_module_says_why_it_cannot_be_looked_into(method: str) -> None:
    script = torch.jit.script(network())
    with pytest.raises(UnsupportedModelError, match="a TorchScript program shows no layers"):
        library.METHODS[method].function(script, torch.rand(1, 3, SIDE, SIDE), 0)


@pytest.mark.parametrize("kind", ["torchscript", "exported", "onnx"])
def test_files_that_are_no_programs(kind: str, tmp_path: Path) -> None:
    if kind == "onnx":
        pytest.importorskip("onnx")
    weights, text = tmp_path / "weights.pt", tmp_path / "text.pt"
    torch.save(network().state_dict(), weights)
    text.write_text("no program")
    for file in (weights, text):
        with pytest.raises(CheckpointError, match=rf"^{file.name}: wanted "):
            programs.load(kind, file, {}, CPU)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"depth": 3}, "a program takes batch alone, given depth"), ({"batch": 4}, "batch: wanted 1, .* given 4")],
)
def test_arguments_that_no_program_takes(arguments: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=f"^arguments: {message}"):
        programs.load("torchscript", tmp_path / "net.pt", arguments, CPU)


class Harmful:
    """An object whose unpickling would write a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.file,)


def rewritten(path: Path, change: Callable[[str, bytes], tuple[str, bytes]]) -> Path:
    """The file with other records."""
    changed = path.with_name(f"changed{path.suffix}")
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(changed, "w") as after:
        for name in before.namelist():
            after.writestr(*change(name, before.read(name)))
    return changed


def test_pickles_in_an_exported_program_are_not_run(tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    content = io.BytesIO()
    torch.save((Harmful(touched),), content)
    file = export(tmp_path, network(), 1)
    harmful = rewritten(
        file, lambda name, body: (name, content.getvalue() if name.endswith("sample_inputs/model.pt") else body)
    )
    with pytest.raises(CheckpointError, match=r"sample_inputs/model\.pt: wanted a pickle of tensors alone"):
        programs.load("exported", harmful, {}, CPU)
    opaque = rewritten(
        file,
        lambda name, body: (
            (name.replace("weight_0", "opaque_obj_0"), pickle.dumps(Harmful(touched)))
            if name.endswith("weight_0")
            else (name, body)
        ),
    )
    with pytest.raises(CheckpointError, match=r"given one with a pickled object, .*opaque_obj_0"):
        programs.load("exported", opaque, {}, CPU)
    assert not touched.exists()


def test_outputs_of_several_parts(tmp_path: Path) -> None:
    class Parts(nn.Module):
        def forward(self, images: Tensor) -> dict[str, Any]:
            scores = images.mean((2, 3))
            return {"logits": scores, "parts": (scores, scores + 1)}

    program = programs.load("exported", export(tmp_path, Parts(), 1), {}, CPU)
    images = torch.rand(3, 3, SIDE, SIDE)
    found = program(images)
    torch.testing.assert_close(found["logits"], images.mean((2, 3)))
    torch.testing.assert_close(found["parts"][1], images.mean((2, 3)) + 1)


def test_a_copy_shares_nothing_that_matters(tmp_path: Path) -> None:
    program = programs.load("torchscript", traced(tmp_path, network(), 2), {"batch": 1}, CPU)
    images = torch.rand(1, 3, SIDE, SIDE)
    torch.testing.assert_close(copy.deepcopy(program)(images), program(images))
