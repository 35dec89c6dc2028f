"""Relations of options, as the OpenAPI document has them, held to what the parser takes and refuses."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest

from imagexplain.api import request
from imagexplain.api.method_options import CLIENTS_NAMES, METHOD_COUNTS
from imagexplain.api.openapi import document
from imagexplain.api.option_relations import baselines, methods, needs_of, part_of
from imagexplain.api.option_schemas import Interface
from imagexplain.api.request import Defaults
from imagexplain.attribution.registry import METHODS
from imagexplain.errors import RequestError
from imagexplain.serving.interface import GENERIC
from tests.wire.photos import png

PHOTO = base64.b64encode(png(8, 8)).decode()
KNOWN = methods()
PARTICULAR = sorted({name for about in KNOWN.values() for name in about["options"]})
"""Options that some methods take and others do not."""

VALUES: Mapping[str, Mapping[str, Any]] = {
    "layer": {"layer": "layer4"},
    "tolerance": {"tolerance": 0.1},
    "quadrature": {"quadrature": "left"},
    "pixels": {"pixels": True},
    "baseline": {"baseline": "black"},
    "blur": {"baseline": "blur", "blur": 0.2},
    "draws": {"baseline": "uniform", "draws": 2},
    "baseline_image": {"baseline": "image", "baseline_image": PHOTO},
    "baseline_tensor": {"baseline": "tensor", "baseline_tensor": [[[0.0]], [[0.0]], [[0.0]]]},
}
"""Options that have no default of a method's, each with its company."""


def refused(fields: Mapping[str, Any], model: Interface = GENERIC[0]) -> str:
    """Field that the parser of explanations refuses, "" for none."""
    assert isinstance(model.defaults, Defaults)
    body = json.dumps({"image": PHOTO, **fields}).encode()
    headers = {"accept": "application/json"}
    try:
        request.parse({"body": body}, headers, kind="explanation", defaults=model.defaults, contract=model.contract)
    except RequestError as error:
        return error.field
    return ""


@pytest.mark.parametrize("method", METHODS)
def test_a_method_takes_the_options_that_are_said_to_go_with_it(method: str) -> None:
    about = KNOWN[method]
    usual = {name: value for each in KNOWN.values() for name, value in each["defaults"].items() if name in each["own"]}
    for name in PARTICULAR:
        if name in about["own"] and method != "integrated_gradients":
            given: Mapping[str, Any] = {name: about["defaults"][name]}
        elif name == "seed":
            given = {"baseline": "uniform", "seed": 1}
        else:
            given = VALUES.get(name) or {name: usual.get(name, 5)}
        found = refused({"method": method, "picture": "plain", **given})
        assert bool(found) == (name not in about["options"]), (name, found)


def test_the_smallest_values_that_are_a_methods_own() -> None:
    found = {name: about["minima"] for name, about in KNOWN.items() if about["minima"]}
    assert found == {name: {"samples": 2} for name in ("gaussian_shap", "kernel_shap", "lime")}
    for first in ({"method": "lime"}, {"combine": ["lime", "grad_cam"]}):
        assert refused({**first, "samples": 2}) == "" and refused({**first, "samples": 1}) == "samples"
    assert refused({"method": "rise", "samples": 1}) == ""


def test_the_largest_values_that_are_a_methods_own() -> None:
    found = {name: about["maxima"] for name, about in KNOWN.items() if about["maxima"]}
    assert found == {"gaussian_shap": {"samples": 4096, "n_segments": 256}}
    for first in ({"method": "gaussian_shap"}, {"combine": ["gaussian_shap", "grad_cam"]}):
        assert refused({**first, "samples": 4096}) == "" and refused({**first, "samples": 4097}) == "samples"
    assert refused({"method": "kernel_shap", "samples": 4097}) == ""


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.function.__module__[:4] == "imag"])
def test_whole_numbers_have_bounds_and_words_are_few(name: str) -> None:
    method = METHODS[name]
    for option, default in method.options.items():
        assert type(default) is not int or option in METHOD_COUNTS
        assert type(default) is not str or option in method.words or CLIENTS_NAMES.get(option) == "quadrature"


@pytest.mark.parametrize("name", GENERIC[0].options("explanation"))
def test_an_option_is_refused_without_what_it_needs(name: str) -> None:
    needs = needs_of(name)
    if needs is None or name == "seed":  # several methods have a seed of their own
        return
    value = VALUES.get(name, {}).get(name, {"fallback": "slic", "normalized": True}.get(name, 1))
    assert refused(
        {name: value, "segments": "slic"} if needs["option"] == "segments" and "not" in needs else {name: value}
    )
    for wanted in needs.get("values", ["swin"] if needs["option"] == "segments" else [["blur_ig", "grad_cam"]]):
        beside = {"rows": {"columns": 1}, "columns": {"rows": 1}}.get(name, {})
        assert refused({needs["option"]: wanted, name: value, **beside}) == ""


def test_every_option_belongs_to_a_part() -> None:
    for model in GENERIC:
        for endpoint in ("prediction", "explanation"):
            for name in model.options(endpoint):
                assert part_of(name, captioner=model.kind == "captioner") != "other", name


def test_outputs_of_one_method_alone_are_refused_for_others() -> None:
    for name in KNOWN["integrated_gradients"]["outputs"]:
        assert refused({"method": "rise", "outputs": [name]}) == "outputs"
    assert not any(about["outputs"] for name, about in KNOWN.items() if name != "integrated_gradients")


def test_baselines_of_methods() -> None:
    assert baselines(["deep_lift", "integrated_gradients", "rise"], Defaults(baseline="uniform")) == {
        "deep_lift": "black",
        "rise": "black",
    }
    assert baselines(["deep_lift", "expected_gradients"], Defaults()) == {"expected_gradients": "uniform"}


def test_a_thousand_classes_are_cheap() -> None:
    labels = tuple(f"class {index}, of which there are many" for index in range(1000))
    with_labels = len(json.dumps(document([Interface("imagenet", "classifier", labels=labels)])))
    without = len(json.dumps(document([Interface("imagenet", "classifier")])))
    assert with_labels - without < 60 * len(labels)
