"""Plans: every method by its name, with what it takes."""

from __future__ import annotations

import inspect
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import imagexplain.attribution as library
from imagexplain.attribution.config import AttributionConfig, Smoothing
from imagexplain.attribution.registry import INPUTS, LIBRARY_ONLY, METHODS
from imagexplain.attribution.runner import AttributionInputs, channels_of, evaluations, layer_name, refusals, run
from tests.attribution.every_method import OF_ATTENTION
from tests.attribution.inputs import float_images, noise
from tests.attribution.networks import float_cnn
from tests.rows import rows_through

TARGETS = torch.tensor([2, 0, 1])


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return float_cnn()


@pytest.fixture(scope="module")
def transformer() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 2}
    network: nn.Module = timm.create_model("vit_tiny_patch16_224", num_classes=4, **sizes)
    return network.eval()


def maps(
    plan: AttributionConfig, model: nn.Module, material: AttributionInputs | None = None, chunk: int = 5
) -> Tensor:
    return run(plan, model, float_images(), TARGETS, material or AttributionInputs(), chunk=chunk)


WORDS = ("Score", "Scores", "Statistic", "HeadFusion", "Utility", "Kernel", "Composite", "Reading")
"""Types of options that are one of a few words."""


@pytest.mark.parametrize("method", library.METHODS)
def test_every_keyword_of_every_method_is_known(method: str) -> None:
    signature = inspect.signature(getattr(library, method)).parameters.values()
    named = {parameter.name: parameter for parameter in signature if parameter.kind is parameter.KEYWORD_ONLY}
    options = METHODS.options
    assert set(named) <= {*options, *INPUTS, *LIBRARY_ONLY}
    assert set(METHODS[method].parameters) == set(named) - {*LIBRARY_ONLY}
    for name in set(named) & set(options):
        assert type(named[name].default) is options[name]
        assert named[name].annotation in (options[name].__name__, *WORDS)


def test_what_looks_inside_and_what_is_coarse() -> None:
    inside = {name for name in METHODS if METHODS[name].needs_module}
    assert {"grad_cam", "full_grad", "attention_rollout"} <= inside
    assert inside.isdisjoint({"gradient", "rise", "guided_backprop"})
    assert {name for name in METHODS if METHODS[name].coarse} == {
        *("ablation_cam", "attention_rollout", "bag_cam", "eigen_cam", "eigen_grad_cam", "full_grad", "grad_cam"),
        *("legrad", "transformer_attribution"),
        *("grad_cam_plusplus", "gradient_rollout", "hires_cam", "layer_cam", "score_cam", "xgrad_cam"),
        *("finer_cam", "shapley_cam", "ss_cam", "smoothgrad_cam_plusplus", "fem", "kpca_cam"),
    }


def test_a_plan_is_the_method_with_its_options(model: nn.Module) -> None:
    plan = AttributionConfig(("blur_ig",), (("steps", 3), ("max_sigma", 2.0)))
    assert torch.equal(maps(plan, model), library.blur_ig(model, float_images(), TARGETS, steps=3, max_sigma=2.0))
    assert plan.settings() == {"steps": 3, "max_sigma": 2.0, "grad_step": 0.01, "sqrt": False, "score": "logit"}
    layered = AttributionConfig(("layer_cam",), layer="0")
    assert torch.equal(maps(layered, model), library.layer_cam(model, float_images(), TARGETS, layer="0"))


def test_two_methods_get_the_options_that_they_take(model: nn.Module) -> None:
    plan = AttributionConfig(("idgi", "score_cam"), (("steps", 4),), layer="2")
    expected = library.combine(
        library.idgi(model, float_images(), TARGETS, steps=4),
        library.score_cam(model, float_images(), TARGETS, layer="2"),
    )
    assert torch.allclose(maps(plan, model), expected, rtol=1e-5, atol=1e-7)
    scaled = library.combine(
        library.idgi(model, float_images(), TARGETS, steps=4),
        library.score_cam(model, float_images(), TARGETS, layer="2"),
        normalized=True,
    )
    assert torch.allclose(maps(replace(plan, normalized=True), model), scaled, rtol=1e-4, atol=1e-5)
    assert (plan.name, plan.needs_original) == ("idgi × score_cam", True)


def test_maps_are_averaged_over_the_draws(model: nn.Module) -> None:
    draws = torch.rand(2, 3, 3, 8, 8)
    for method, name in (("guided_ig", "baselines"), ("occlusion", "fill")):
        options: dict[str, Any] = {"steps": 4} if method == "guided_ig" else {"size": 3, "stride": 2}
        expected = [
            getattr(library, method)(model, float_images(), TARGETS, **{name: draw}, **options) for draw in draws
        ]
        found = maps(AttributionConfig((method,), tuple(options.items())), model, AttributionInputs(baselines=draws))
        assert torch.allclose(found, torch.stack(expected).mean(0), rtol=1e-4, atol=1e-6)


def test_each_image_has_its_own_references(model: nn.Module) -> None:
    references = torch.rand(4, 3, 3, 8, 8)
    found = maps(
        AttributionConfig(("expected_gradients",), (("samples", 6),)), model, AttributionInputs(baselines=references)
    )
    for b in range(3):
        own = partial(library.expected_gradients, references=references[:, b], samples=6)
        assert torch.allclose(found[b], own(model, float_images()[b : b + 1], TARGETS[b])[0], rtol=1e-4, atol=1e-6)


def test_smoothing_is_the_librarys_with_each_images_own_material(model: nn.Module) -> None:
    groups = torch.stack([torch.arange(64).view(8, 8) // size for size in (8, 16, 32)])
    plan = AttributionConfig(("feature_ablation",), smoothing=Smoothing(samples=3, seed=4))
    found = maps(plan, model, AttributionInputs(groups=groups), chunk=2)
    for b in range(3):
        own = partial(library.feature_ablation, groups=groups[b])
        expected = library.smooth(own, model, float_images()[b : b + 1], TARGETS[b : b + 1], samples=3, seed=4)
        assert torch.allclose(found[b], expected[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["gradient", "grad_cam", "guided_ig", "deep_lift", "smoothgrad"])
def test_no_more_rows_than_a_chunk_at_once(method: str, model: nn.Module) -> None:
    with rows_through(model) as rows:
        parts = maps(AttributionConfig((method,), (("steps", 3),) if method == "guided_ig" else ()), model, chunk=2)
        most = max(rows)
        whole = maps(AttributionConfig((method,), (("steps", 3),) if method == "guided_ig" else ()), model, chunk=8)
    assert most <= 2
    assert torch.allclose(parts, whole, rtol=1e-4, atol=1e-5 * float(whole.abs().max()))


OPTIONS_OF_COST: dict[str, tuple[tuple[str, Any], ...]] = {
    "blur_ig": (("steps", 30),),
    "expected_gradients": (("samples", 30),),
    "gaussian_shap": (("samples", 12),),
    "guided_ig": (("steps", 30),),
    "idgi": (("steps", 30),),
    "integrated_gradients": (("steps", 30),),
    "kernel_shap": (("samples", 30),),
    "lime": (("samples", 30),),
    "occlusion": (("size", 3), ("stride", 1)),
    "rise": (("samples", 60), ("cells", 3)),
    "shapley_sampling": (("permutations", 2),),
    "smoothgrad": (("samples", 30),),
    "smoothgrad_cam_plusplus": (("samples", 30),),
    "ss_cam": (("samples", 3),),
    "xrai": (("steps", 20),),
}


@pytest.mark.parametrize("method", sorted(set(library.METHODS) - OF_ATTENTION))
def test_the_estimate_of_the_cost_is_that_of_the_rows(method: str, model: nn.Module) -> None:
    groups = (torch.arange(64).view(8, 8) // 2)[None]
    plan = AttributionConfig((method,), OPTIONS_OF_COST.get(method, ()))
    material = AttributionInputs(baselines=torch.zeros(1, 1, 3, 8, 8), groups=groups)
    counted: list[float] = [0.0]

    def count(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        counted[0] += len(given[0]) * (1 if torch.is_grad_enabled() else 1 / 3)

    handle = model.register_forward_pre_hook(count)
    try:
        run(plan, model, float_images()[:1], TARGETS[:1], material, chunk=7)
    finally:
        handle.remove()
    estimate = evaluations(plan, (8, 8), draws=1, groups=32, channels=8)
    assert 0.8 * counted[0] - 3 <= estimate <= 1.25 * counted[0] + 5
    smoothed = AttributionConfig((method,), plan.options, smoothing=Smoothing(samples=4))
    assert evaluations(smoothed, (8, 8), draws=1, groups=32, channels=8) == pytest.approx(4 * estimate, abs=4)


def test_layers_by_name(model: nn.Module) -> None:
    assert layer_name(AttributionConfig(("gradient",)), model, float_images()) is None
    assert layer_name(AttributionConfig(("grad_cam",)), model, float_images()) == "4"
    assert layer_name(AttributionConfig(("grad_cam",), layer="0"), model, float_images()) == "0"
    assert (channels_of(model, float_images(), "0"), channels_of(model, float_images(), "4")) == (6, 8)
    with pytest.raises(ValueError, match=r"layer: wanted the name of a module, such as .*, got 'fc'"):
        layer_name(AttributionConfig(("grad_cam",), layer="fc"), model, float_images())


def test_refusals(model: nn.Module, transformer: nn.Module) -> None:
    assert set(refusals(model, float_images(), library.METHODS)) == OF_ATTENTION
    refused = refusals(transformer, noise(3, 3, 16, 16, dtype=torch.float32), library.METHODS)
    assert set(refused) == {"deep_lift", "full_grad", "guided_backprop", "guided_grad_cam", "lrp"}
    assert "ReLU" in refused["guided_backprop"]
    by_function = refusals(lambda rows: model(rows), float_images(), library.METHODS)
    assert by_function["grad_cam"] == "model: grad_cam wants a network to look into, got a function"
    assert set(by_function) == {method for method in library.METHODS if METHODS[method].needs_module}
