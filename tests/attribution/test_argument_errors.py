"""The library's errors: typed, with the argument's name, and still ValueErrors of the same words."""

from __future__ import annotations

import ast
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import imagexplain.attribution as library
from imagexplain.errors import ArgumentError, LayerError, UnsupportedModelError

FILES = sorted(Path(library.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("kind", [ArgumentError, UnsupportedModelError, LayerError])
def test_an_error_tells_its_field_and_is_a_value_error(kind: type[ArgumentError]) -> None:
    error = kind("size", "wanted 1..8, the shorter side, got 9")
    assert isinstance(error, ValueError) and isinstance(error, ArgumentError)
    assert str(error) == "size: wanted 1..8, the shorter side, got 9"
    copy = pickle.loads(pickle.dumps(error))  # as between processes of an evaluation
    assert type(copy) is kind and (copy.field, copy.message, str(copy)) == (error.field, error.message, str(error))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_error_of_the_library_is_a_bare_value_error(file: Path) -> None:
    made = {
        f"line {node.lineno}"
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "ValueError"
    }
    assert not made


def test_each_kind_is_raised() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    images = torch.rand(1, 3, 8, 8)
    with pytest.raises(ArgumentError, match=r"^size: wanted 1\.\.8, the image's shorter side, got 9$") as given:
        library.occlusion(model, images, 0, size=9)
    assert given.value.field == "size" and not isinstance(given.value, UnsupportedModelError | LayerError)
    with pytest.raises(LayerError, match=r"^layer: wanted the name of a module") as layer:
        library.grad_cam(model, images, 0, layer="stem")
    assert layer.value.field == "layer" and layer.value.message.startswith("wanted the name of a module")
    with pytest.raises(UnsupportedModelError, match=r"^model: wanted one with ReLUs") as unsupported:
        library.guided_backprop(model, images, 0)
    assert unsupported.value.field == "model"
    with pytest.raises(ArgumentError, match=r"^images: wanted torch\.float64 like the model's parameters") as misfit:
        library.gradient(model.double(), images, 0)
    assert misfit.value.field == "images"


def test_the_errors_import_no_more_than_the_library_needs() -> None:
    program = "import sys, imagexplain.errors; print([n for n in ('torch', 'numpy', 'msgspec') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
