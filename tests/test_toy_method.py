"""A method of one file, served, costed, refused, drawn, evaluated and listed with no word of it anywhere else."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import imagexplain.attribution as library
from evaluation.entries import Entry, entries_of, supported
from evaluation.evaluate_methods import evaluate
from evaluation.evaluated_model import EvaluatedModel
from imagexplain.archive.spec import SegmenterSpec
from imagexplain.attribution.config import AttributionConfig
from imagexplain.attribution.registry import METHODS, Method, register
from imagexplain.attribution.runner import evaluations, refusals, seconds_beside
from imagexplain.checkout import ROOT
from imagexplain.cli import compare_methods, list_methods
from imagexplain.models import CheckpointError
from imagexplain.vision.preprocess import apply
from tests.evaluation.subjects import DRAWN, FEW, SEED, convolutional_subject
from tests.pages import blocks
from tests.serving.asking import explain_one, noise_png
from tests.serving.handlers import classifier_of, write_timm

NAME = "fading"
FILE = "tests.toy_method"


@pytest.fixture(autouse=True)
def toy() -> Iterator[Method]:
    """The method, as long as a test runs."""
    assert NAME not in METHODS
    import_module(FILE)
    yield METHODS[NAME]
    del METHODS._records[NAME]
    del sys.modules[FILE]


def test_it_is_a_method_of_the_library(toy: Method) -> None:
    assert library.__getattr__(NAME) is toy.function and NAME in dir(library) and NAME in list(library.METHODS)
    assert toy.options == {"levels": 4} and METHODS.options["levels"] is int


def test_it_is_served(toy: Method, tmp_path: Path) -> None:
    handler = classifier_of(write_timm(tmp_path, "resnet"))
    status, answer = explain_one(handler, f"method={NAME}&levels=3&target_class=2&baseline=black", "application/gzip")
    assert status == 200, answer
    assert answer["method"] == NAME and answer["options"] == {"levels": 3} and answer["baseline"] == "black"
    assert answer["evaluations"] == 5  # its three levels, the image and the baseline
    image, _ = apply(Image.open(io.BytesIO(noise_png())), handler.worker.task.model.preprocess)
    expected = toy.function(
        handler.worker.task.model.original_network(),
        image[None],
        2,
        levels=3,
        baselines=torch.full_like(image[None], -1),
    )
    assert torch.allclose(answer["map"], expected, rtol=1e-4, atol=1e-6)
    status, both = explain_one(handler, f"combine=gradient,{NAME}&levels=2")
    assert status == 200 and both["method"] == f"gradient × {NAME}"


def test_it_costs_what_it_says(tmp_path: Path) -> None:
    plan = AttributionConfig((NAME,), (("levels", 30),))
    assert evaluations(plan, (8, 8), draws=2) == 22  # 60 forward passes count as 20, and 2 for the image's own
    assert seconds_beside(plan, (10, 20)) == pytest.approx(6000e-10)
    handler = classifier_of(write_timm(tmp_path, "resnet"))
    status, answer = explain_one(handler, f"method={NAME}&levels=1000000000")
    assert (status, answer["field"]) == (413, "method") and "got 333333336 points" in answer["message"]


def test_it_is_refused_where_it_must_be(tmp_path: Path) -> None:
    handler = classifier_of(write_timm(tmp_path, "vit"))
    status, answer = explain_one(handler, f"method={NAME}")
    assert (status, answer["field"]) == (422, "method")
    assert f"{NAME} is not supported by this model: wanted one with ReLUs" in answer["message"]
    assert NAME not in answer["message"].rpartition("Those that are: ")[2].split(", ")
    status, answer = explain_one(handler, "method=guided_grad_cam")
    assert NAME not in answer["message"].rpartition("Those that are: ")[2].split(", ")
    network, image = handler.worker.task.model.original_network(), torch.rand(1, 3, 32, 32)
    assert NAME in refusals(network, image, METHODS) and NAME in refusals(lambda rows: network(rows), image, [NAME])
    (tmp_path / "resnet").mkdir()
    handler = classifier_of(write_timm(tmp_path / "resnet", "resnet"))
    for options, field in ((f"method={NAME}&levels=0", "levels"), (f"method={NAME}&levels=2.5", "levels")):
        assert [(400, field)] == [(status, answer["field"]) for status, answer in [explain_one(handler, options)]]
    status, answer = explain_one(handler, "method=gradient&levels=3")
    assert (status, answer["field"], answer["message"]) == (400, "levels", "gradient does not take it, but no options")
    status, answer = explain_one(handler, "method=guided_grad_cam")
    assert status == 200, answer


def test_a_segmenter_cannot_have_it_as_its_method() -> None:
    spec = {"name": "instances", "labels": ("star",), "handler": "segmenter"}
    with pytest.raises(ValueError, match=f"wants a method that takes any function of images.*got {NAME}"):
        SegmenterSpec.model_validate(spec | {"explain": {"method": NAME}})


def test_it_is_drawn(tmp_path: Path) -> None:
    handler = classifier_of(write_timm(tmp_path, "resnet"))
    status, body = explain_one(handler, f"method={NAME}", "image/png")
    assert status == 200
    with Image.open(io.BytesIO(body)) as picture:
        assert picture.format == "PNG" and min(picture.size) > 0
    assert compare_methods.named(None)[NAME] == "perturbation"
    assert list(compare_methods.named([f"gradient*{NAME}"])) == [f"gradient*{NAME}"]


def test_it_is_evaluated() -> None:
    model: EvaluatedModel = convolutional_subject()
    entries: list[Entry] = [entry for entry in entries_of([NAME]) if entry.name == NAME]
    (kept,), refused = supported(entries, model.network, torch.rand(1, 3, 32, 32))
    assert refused == {} and kept.channels == "sum" and NAME in {entry.name for entry in entries_of()}
    results = evaluate([model], [kept], SEED, DRAWN, FEW, randomized=1, noisy=1, workers=1)
    assert "IoU" in results["models"]["toy"]["metrics"][NAME]


def test_it_is_listed(toy: Method) -> None:
    row = next(line for line in list_methods.listing().splitlines() if f"`{NAME}`" in line)
    assert row == f"| `{NAME}` | perturbation | module | `levels`, baseline | at least 0 |  |"


def test_what_does_not_fit_is_refused() -> None:
    def gradient(model: object, images: object, targets: object = None) -> None: ...
    def dotted(model: object, images: object, targets: object = None, *, levels: float = 1.0) -> None: ...
    def pointed(model: object, images: object, targets: object = None, *, at: object = None) -> None: ...

    with pytest.raises(ValueError, match="name: wanted one that no method has, got 'gradient'"):
        register(family="gradients")(gradient)
    with pytest.raises(ValueError, match=r"levels: wanted int, as in fading, got 1\.0 in dotted"):
        register(family="gradients")(dotted)
    with pytest.raises(ValueError, match="at: wanted a default of a plain type, got None in pointed"):
        register(family="gradients")(pointed)
    with pytest.raises(ValueError, match=r"family: wanted one of gradients, .*, got 'others'"):
        register(family="others")(dotted)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"needs: wanted some of gradients, .*, got luck"):
        register(family="paths", needs=["luck"])(dotted)  # type: ignore[list-item]
    assert "dotted" not in METHODS and METHODS["gradient"].function is not gradient
    with pytest.raises(KeyError):
        METHODS["dotted"]


def test_the_page_on_extending_has_it_as_it_is() -> None:
    (method, architecture) = (
        block.code for block in blocks(ROOT / "docs" / "extending.md") if block.language == "python"
    )
    assert method == (ROOT / "tests" / "toy_method.py").read_text("utf-8")
    names: dict[str, Any] = {}
    exec(compile(architecture, "extending.md", "exec"), names)
    network = names["Stack"]([4, 6], 3).eval()
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(names["build"](network.state_dict())(images), network(images))
    with pytest.raises(CheckpointError, match=r"0\.0\.bias"):
        names["build"]({name: value for name, value in network.state_dict().items() if name != "0.0.bias"})
