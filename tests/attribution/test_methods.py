"""What all methods of the package have in common."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from captum.attr import IntegratedGradients
from torch import Tensor, nn

import imagexplain.attribution as library
from tests.attribution.every_method import OF_ATTENTION, OPTIONS
from tests.attribution.inputs import float_images
from tests.attribution.models import smooth_network
from tests.attribution.networks import float_cnn, vit
from tests.rows import rows_through


@pytest.fixture(scope="module")
def models() -> dict[bool, nn.Module]:
    """Whether the method is one of attention, and a network for it, with four classes."""
    transformer = nn.Sequential(vit(size=(8, 8), patch_size=2, dtype=torch.float32), nn.Linear(5, 4))
    return {False: float_cnn(), True: transformer}


@pytest.mark.parametrize("name", library.METHODS)
def test_every_method_on_one_network(name: str, models: dict[bool, nn.Module]) -> None:
    model = models[name in OF_ATTENTION]
    method = partial(getattr(library, name), **OPTIONS.get(name, {}))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    maps = method(model, float_images(), [2, 0, 1])
    assert maps.shape in ((3, 3, 8, 8), (3, 1, 8, 8)) and not maps.requires_grad
    assert maps.isfinite().all() and maps.any()
    alone = torch.cat([_alone(name, model, index, target) for index, target in enumerate((2, 0, 1))])
    assert torch.allclose(maps, alone, atol=1e-5 * float(maps.abs().max()), rtol=1e-4)
    predicted = model(float_images()).argmax(1)
    assert torch.equal(method(model, float_images()), method(model, float_images(), predicted))
    assert torch.equal(method(model, float_images(), 2), method(model, float_images(), torch.tensor([2, 2, 2])))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def _alone(name: str, model: nn.Module, index: int, target: int) -> Tensor:
    options = dict(OPTIONS.get(name, {}))
    if "segments" in options:
        options["segments"] = options["segments"][:1]
    maps: Tensor = getattr(library, name)(model, float_images()[index : index + 1], target, **options)
    return maps


@pytest.mark.parametrize("name", library.METHODS)
def test_classes_that_are_none(name: str, models: dict[bool, nn.Module]) -> None:
    model = models[name in OF_ATTENTION]
    method = partial(getattr(library, name), **OPTIONS.get(name, {}))
    with pytest.raises(ValueError, match=r"targets: wanted classes 0\.\.3, got"):
        method(model, float_images(), 4)
    with pytest.raises(ValueError, match="targets: wanted 3, one for each image, got 2"):
        method(model, float_images(), [1, 2])


@pytest.mark.parametrize("name", library.METHODS)
def test_given_classes_cost_no_evaluation(name: str, models: dict[bool, nn.Module]) -> None:
    """Where the images' own scores are a part of the method, they are evaluated anyway."""
    model = models[name in OF_ATTENTION]
    method = partial(getattr(library, name), **OPTIONS.get(name, {}))
    with rows_through(model) as rows:
        method(model, float_images(), [2, 0, 1])
        given = sum(rows)
        rows.clear()
        method(model, float_images())
    own_scores = {
        "ablation_cam",
        "fem",
        "full_grad",
        "gaussian_shap",
        "lrp",
        "gradient",
        "guided_backprop",
        "input_x_gradient",
        "kernel_shap",
        "occlusion",
        "shapley_sampling",
        *OF_ATTENTION,
        *(other for other in library.METHODS if "_cam" in other),
    }
    assert sum(rows) - given == (0 if name in own_scores else 3)


TOO_LARGE: dict[str, dict[str, Any]] = {
    "blur_ig": {"max_sigma": 101.0, "grad_step": 101.0},
    "occlusion": {"size": 9, "stride": 4},
    "rise": {"cells": 9},
}
"""Values that are too large for images of 8 × 8 pixels."""


def unfit(name: str) -> Iterator[tuple[str, Any]]:
    """Yield values that no image fits, of each argument of a method that is not a class or a number of rows."""
    for argument, parameter in inspect.signature(getattr(library, name)).parameters.items():
        words = library.METHODS[name].words
        if argument in ("baselines", "fill", "references", "pictures", "attributions"):
            yield argument, torch.zeros(3, 3, 9, 8)
        elif argument in ("groups", "segments"):
            yield argument, torch.zeros(3, 9, 8, dtype=torch.int64)
        elif argument == "layer":
            yield argument, "nowhere"
        elif argument in words:
            yield argument, "nothing"
        elif type(parameter.default) is float:
            yield from ((argument, number) for number in (-1.0, float("nan")))
        elif type(parameter.default) is int and argument != "seed":
            yield argument, -1
    yield from TOO_LARGE.get(name, {}).items()


@pytest.mark.parametrize("name", library.METHODS)
def test_arguments_are_checked_before_the_model_runs(name: str, models: dict[bool, nn.Module]) -> None:
    model, options = models[name in OF_ATTENTION], OPTIONS.get(name, {})
    for argument, value in unfit(name):
        with rows_through(model) as rows, pytest.raises(ValueError, match=f"^{argument}: "):
            getattr(library, name)(model, float_images(), **{**options, argument: value})
        assert not rows, (argument, value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("blur_ig", 5),
        ("deep_lift", 2),
        ("expected_gradients", 4),
        ("feature_ablation", 5),
        ("guided_ig", 5),
        ("idgi", 51),
        ("integrated_gradients", 50),
        ("rise", 20),
        ("smoothgrad", 4),
        ("xrai", 10),
    ],
)
def test_rows_evaluated_for_each_image(name: str, expected: int, models: dict[bool, nn.Module]) -> None:
    model = models[False]
    with rows_through(model) as rows:
        getattr(library, name)(model, float_images(), 2, **OPTIONS.get(name, {}))
    assert sum(rows) == 3 * expected


def test_integrated_gradients_equal_captums() -> None:
    network, inputs = smooth_network(), float_images().double()
    begin = torch.full_like(inputs, 0.3)
    ours = library.integrated_gradients(network, inputs, 1, baselines=begin, steps=7, chunk=4)
    captums = IntegratedGradients(network).attribute(inputs, begin, 1, n_steps=7)
    assert torch.allclose(ours, captums, rtol=1e-5, atol=1e-8)  # whose nodes and weights are float32


def test_the_package_names_what_it_has() -> None:
    assert set(library.METHODS) <= set(dir(library))
    with pytest.raises(AttributeError, match="no attribute 'gradcam'"):
        library.gradcam  # type: ignore[attr-defined]  # noqa: B018


def test_a_method_is_imported_when_it_is_named() -> None:
    """Captum and scikit-image take seconds, which a worker that needs neither is spared."""
    program = (
        "import sys, imagexplain.attribution as library; library.gradient;"
        "print([name for name in ('captum', 'skimage') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
