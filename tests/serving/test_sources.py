"""Classifiers from their users' own code and from saved programs: built, asked, and explained as the network itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torchvision.models import squeezenet1_1

from handlers.classifier import ClassifierHandler
from imagexplain import attribution as library
from imagexplain.vision.preprocess import apply
from tests.serving.asking import ask, explanation, prediction
from tests.serving.sources import LABELS, SIZE, network_of, served, variables, write_code
from tests.tensors import unpacked
from tests.wire.photos import encoded, noise_photo

LOOK_INSIDE = ("grad_cam", "deep_lift", "attention_rollout")
PHOTO = noise_photo(SIZE, SIZE, 3)


def export(network: nn.Module, file: Path, batch: int | None) -> Path:
    shapes = ({0: Dim.DYNAMIC},) if batch is None else None
    program = torch.export.export(network, (torch.rand(batch or 2, 3, SIZE, SIZE),), dynamic_shapes=shapes)
    torch.export.save(program, file)
    return file


def write_onnx(network: nn.Module, file: Path) -> Path:
    pytest.importorskip("onnx2pytorch")
    images = torch.rand(2, 3, SIZE, SIZE)
    torch.onnx.export(network, (images,), file, dynamo=True, dynamic_shapes=({0: Dim("batch")},), verbose=False)
    return file


def own(folder: Path, network: nn.Module, code: Path) -> ClassifierHandler:
    torch.save({"state_dict": network.state_dict()}, folder / "net.pth")
    return served(folder, "module", variables(folder, OWN_MODULE=code, OWN_WEIGHTS=folder / "net.pth"))


def scripted(folder: Path, network: nn.Module, code: Path) -> ClassifierHandler:
    torch.jit.save(torch.jit.script(network), folder / "net.pt")
    return served(folder, "torchscript", variables(folder, PROGRAM_TORCHSCRIPT=folder / "net.pt"))


def exported(folder: Path, network: nn.Module, code: Path) -> ClassifierHandler:
    return served(folder, "exported", variables(folder, PROGRAM_EXPORTED=export(network, folder / "net.pt2", None)))


def exported_for_one(folder: Path, network: nn.Module, code: Path) -> ClassifierHandler:
    return served(folder, "exported", variables(folder, PROGRAM_EXPORTED=export(network, folder / "net.pt2", 1)))


def onnx(folder: Path, network: nn.Module, code: Path) -> ClassifierHandler:
    return served(folder, "onnx", variables(folder, PROGRAM_ONNX=write_onnx(network, folder / "net.onnx")))


SOURCES: dict[str, tuple[Callable[..., ClassifierHandler], tuple[str, ...]]] = {
    "own": (own, ("grad_cam", "deep_lift")),
    "scripted": (scripted, ()),
    "exported": (exported, ("grad_cam",)),
    "exported_for_one": (exported_for_one, ()),
    "onnx": (onnx, ()),
}
"""How the archive of each is built, and the methods of :data:`LOOK_INSIDE` that it supports."""


@pytest.fixture(scope="module", params=SOURCES)
def source(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, ClassifierHandler, nn.Module]:
    """A source's handler, and the network that it was made from."""
    folder = tmp_path_factory.mktemp(request.param)
    code = write_code(folder)
    network = network_of(code)
    return request.param, SOURCES[request.param][0](folder, network, code), network


def answer(handler: ClassifierHandler, headers: dict[str, str]) -> tuple[int, bytes]:
    (body,), context = ask(handler, (headers, encoded(PHOTO)))
    return context.statuses[0], body


def asked(handler: ClassifierHandler, options: str) -> dict[str, Any]:
    status, body = answer(handler, explanation(options, "application/gzip"))
    assert status == 200, body
    return unpacked(body)


def assert_close(given: Tensor, wanted: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(given, wanted, rtol=0, atol=tolerance * float(wanted.abs().max()))


def test_answers_are_the_networks_own(source: tuple[str, ClassifierHandler, nn.Module]) -> None:
    _, handler, network = source
    status, body = answer(handler, prediction("application/json"))
    assert status == 200, body
    found = sorted(json.loads(body)["predictions"], key=lambda row: row["index"])
    image, _ = apply(PHOTO, handler.worker.task.model.preprocess)
    assert [row["label"] for row in found] == list(LABELS)
    assert_close(torch.tensor([row["probability"] for row in found]), network(image[None]).softmax(1)[0])


def test_explanations_are_those_of_the_network_itself(source: tuple[str, ClassifierHandler, nn.Module]) -> None:
    name, handler, network = source
    image = apply(PHOTO, handler.worker.task.model.preprocess)[0][None]
    result = asked(handler, "method=integrated_gradients&target_class=fox&baseline=zero&steps=20")
    wanted = library.integrated_gradients(network, image, [2], steps=20)
    assert_close(result["integrated_grads"].reshape(image.shape), wanted)
    for method, options, given in (
        ("smoothgrad", {"samples": 3, "std": 0.1, "seed": 1}, "samples=3&std=0.1&seed=1"),
        ("occlusion", {"size": 8, "stride": 8}, "size=8&stride=8&baseline=zero"),
        ("rise", {"samples": 20, "cells": 4, "seed": 1}, "samples=20&cells=4&seed=1&baseline=zero"),
    ):
        result = asked(handler, f"method={method}&target_class=fox&{given}")
        wanted = library.METHODS[method].function(network, image, [2], **options)
        assert_close(result["map"].reshape(wanted.shape), wanted, 1e-4)
    if "grad_cam" in SOURCES[name][1]:
        result = asked(handler, "method=grad_cam&target_class=fox&layer=features.4")
        assert_close(result["map"].reshape(1, 1, SIZE, SIZE), library.grad_cam(network, image, [2], layer="features.4"))
        assert handler.worker.task.model.facts.layers[None] == ("features", 16)


@pytest.mark.parametrize("method", LOOK_INSIDE)
def test_methods_that_look_inside_say_why_they_do_not(
    source: tuple[str, ClassifierHandler, nn.Module], method: str
) -> None:
    name, handler, _ = source
    supported = SOURCES[name][1]
    assert (method in handler.worker.task.model.facts.supported_methods) == (method in supported)
    status, body = answer(handler, explanation(f"method={method}"))
    if method in supported:
        assert status == 200, body
        return
    refusal = json.loads(body)
    assert status == 422 and refusal["field"] == "method"
    reason = {
        "own": "wanted a transformer",
        "scripted": "a TorchScript program shows no layers",
        "exported": "an exported program calls torch's operators itself",
        "exported_for_one": "a program that takes one image at once shows no layers",
        "onnx": "the nodes of an ONNX program are no layers",
    }[name]
    assert reason in refusal["message"] or (name == "exported_for_one" and "torch's operators" in refusal["message"])


def test_torchvisions_network_is_served_by_its_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = squeezenet1_1(num_classes=len(LABELS)).eval().requires_grad_(False)
    torch.save(network.state_dict(), tmp_path / "net.pth")
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    environ = {
        "TORCHVISION_MODEL": "torchvision/squeezenet1_1",
        "TORCHVISION_WEIGHTS": str(tmp_path / "net.pth"),
        "TORCHVISION_LABELS": str(tmp_path / "labels.txt"),
    }
    handler = served(tmp_path, "torchvision", environ, preprocess={"size": [64, 64], "resize": 73})
    settings = handler.worker.task.model.preprocess
    assert (settings.resize, settings.crop_offset, settings.mean) == (73, "round", (0.485, 0.456, 0.406))
    image = apply(PHOTO, settings)[0][None]
    status, body = answer(handler, prediction("application/json"))
    assert status == 200, body
    found = sorted(json.loads(body)["predictions"], key=lambda row: row["index"])
    assert_close(torch.tensor([row["probability"] for row in found]), network(image).softmax(1)[0])
    result = asked(handler, "method=integrated_gradients&target_class=fox&baseline=zero&steps=5")
    wanted = library.integrated_gradients(network, image, [2], steps=5)
    assert_close(result["integrated_grads"].reshape(image.shape), wanted, 1e-4)
    result = asked(handler, "method=grad_cam&target_class=fox")
    assert_close(result["map"].reshape(1, 1, 64, 64), library.grad_cam(network, image, [2]), 1e-4)


class Named(nn.Module):
    """A network that returns its scores under a name, beside something else."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"features": images.mean((2, 3)), "logits": self.network(images)}


@pytest.mark.parametrize("batch", [None, 1])
def test_a_program_that_returns_several_things(batch: int | None, tmp_path: Path) -> None:
    network = network_of(write_code(tmp_path))
    export(Named(network).eval(), tmp_path / "net.pt2", batch)
    handler = served(tmp_path, "exported", variables(tmp_path, PROGRAM_EXPORTED=tmp_path / "net.pt2"))
    image = apply(PHOTO, handler.worker.task.model.preprocess)[0][None]
    result = asked(handler, "method=integrated_gradients&target_class=fox&baseline=zero&steps=5")
    wanted = library.integrated_gradients(network, image, [2], steps=5)
    assert_close(result["integrated_grads"].reshape(image.shape), wanted)
