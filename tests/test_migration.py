"""docs/migration.md against the code: every call of ours that it names exists, and does what it says."""

from __future__ import annotations

import ast
import inspect
import re
from typing import Any
from urllib.parse import quote

import pytest
import torch

import imagexplain.attribution as library
from imagexplain.api.request import parse
from imagexplain.attribution import captum_adapter as captum_methods
from imagexplain.attribution.postprocess import normalize
from imagexplain.ops.server import ROOT
from tests.pages import rows
from tests.wire.photos import png

PAGE = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
THEIRS, CAPTUMS = PAGE.split("\n## Captum\n")
FORMULAS, OPTIONS, NAMES = re.split("\n### (?:Options|Names)\n", THEIRS)
NAMES = NAMES.partition("\n### ")[0]
ORIGINALS = re.findall(
    r"\w+",
    """
    VanillaGradient IntegratedGradients BlurIG GuidedIG GuidedBackProp Occlusion GradCAM GradCAMPlusPlus XGradCAM
    HiResCAM LayerCAM BagCAM EigenCAM EigenGradCAM ScoreCAM AblationCAM FullGrad GuidedGradCAM CombinedWrapper
    get_mask get_smoothed_mask batch_size target_layer target_class reshape_transform get_reshape_transform remove_hooks
    process normalize_saliency visualize_single_saliency ratio_channels_to_ablate
    """,
)


CALLS = [
    call
    for row in (*rows(FORMULAS.partition("### Formulas that differ")[2]), *rows(NAMES))
    for cell in row[1:]
    for call in re.findall(r"`(\w+\(.*\))`", cell)
]
REQUESTS = [re.sub("`", "", row[3]) for row in rows(FORMULAS.partition("### Formulas that differ")[2])[1:] if row[3]]


def test_every_name_of_the_original_has_a_row() -> None:
    listed = set(re.findall(r"\w+", " ".join(row[0] for row in rows(NAMES))))
    assert set(ORIGINALS) <= listed


@pytest.mark.parametrize("text", CALLS)
def test_every_call_of_ours_fits_its_function(text: str) -> None:
    call: Any = ast.parse(text, mode="eval").body
    parameters = inspect.signature(getattr(library, call.func.id)).parameters
    positional = [name for name, each in parameters.items() if each.kind is not each.KEYWORD_ONLY]
    assert [argument.id for argument in call.args] == positional[: len(call.args)]
    for keyword in call.keywords:
        default, value = parameters[keyword.arg].default, ast.literal_eval(keyword.value)
        assert default is None or isinstance(value, type(default)) or (type(default), type(value)) == (float, int)


@pytest.mark.parametrize("text", REQUESTS)
def test_every_request_is_understood(text: str) -> None:
    options = "&".join(f"{name}={quote(value)}" for name, value in (part.split("=", 1) for part in text.split("&")))
    headers = {"content-type": "image/png", "x-explain-options": options}
    plan = parse({"body": png()}, headers, kind="explanation").plan
    assert plan.normalized or plan.options == (("score", "probability"),) or plan.smoothing is not None


def test_every_option_of_ours_is_the_functions_with_their_default() -> None:
    """But for those that are said to differ: a default, or another name for it."""
    table = rows(OPTIONS)[1:]
    assert len(table) >= 15
    for function, theirs, ours, note in table:
        parameters = inspect.signature(getattr(library, function.strip("`"))).parameters
        named = re.findall(r"`(\w+)`", ours)
        assert set(named) <= set(parameters), function
        for option, default in re.findall(r"`(\w+)=([^`\"]+)`", theirs):
            if option in named:
                usual = parameters[option].default
                assert usual == ast.literal_eval(default) or f"{usual} " in note, (function, option)
    assert inspect.signature(library.occlusion).parameters["stride"].default == 8


def test_there_are_calls_and_requests() -> None:
    assert len(CALLS) >= 25 and len(REQUESTS) == 3


def test_the_example_runs_and_is_what_the_original_computes() -> None:
    torch.manual_seed(0)
    (program,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(program, "migration.md", "exec"), names)
    assert names["both"].shape == (2, 1, 64, 64) and names["both"].amax((1, 2, 3)).tolist() == [1, 1]
    assert names["squares"].min() >= 0 and names["picture"].max() == 1


def test_normalize_by_the_largest_channel_is_the_original() -> None:
    """Largest channel, what is positive, (v − min) / (max − min) of each image."""
    maps = torch.randn(4, 3, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    largest = maps.amax(1, keepdim=True).relu()
    low, high = largest.amin((2, 3), keepdim=True), largest.amax((2, 3), keepdim=True)
    torch.testing.assert_close(normalize(maps, channels="max"), (largest - low) / (high - low), rtol=1e-13, atol=0)


def test_every_argument_of_the_captum_interface_has_a_row() -> None:
    listed = {name for row in rows(CAPTUMS)[1:] for name in re.findall(r"`(\w+)`", row[0])}
    wanted = set(inspect.signature(captum_methods.IntegratedDirectionalGradients.attribute).parameters) - {"self"}
    assert listed == wanted | {"multiply_by_inputs"}


def test_the_page_is_found() -> None:
    assert "(migration.md)" in (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
