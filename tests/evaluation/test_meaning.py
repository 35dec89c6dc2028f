"""docs/meaning.md against the numbers on record, and these against the code."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from evaluation import meaning
from evaluation.evaluate_meaning import RECORD as FILE
from evaluation.meaning_text import statements
from imagexplain.attribution.differences import contrast
from imagexplain.attribution.paths.path_integral import integrate
from imagexplain.attribution.paths.quadrature import quadrature
from imagexplain.ops.server import ROOT

PAGE = " ".join((ROOT / "docs" / "meaning.md").read_text("utf-8").split())
RECORD: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
SAID = statements(RECORD)
OTHERS = {"0", "1", "2", "4", "8", "300", "800", "700", "600", "95"}
"""Numbers of the page that are no results: sizes of pictures and grids, the reference's gradients, constants."""


@pytest.mark.parametrize("name", SAID)
def test_the_page_says_what_is_on_record(name: str) -> None:
    assert SAID[name] in PAGE


def test_the_page_has_no_other_numbers() -> None:
    rest = PAGE
    for said in sorted(SAID.values(), key=len, reverse=True):
        rest = rest.replace(said, "")
    assert set(re.findall(r"\d+(?:\.\d+)?", rest)) <= OTHERS


def test_formulas_are_those_that_every_renderer_shows() -> None:
    """A forge takes the backslash from escaped punctuation before it sets a formula."""
    text = (ROOT / "docs" / "meaning.md").read_text("utf-8")
    formulas = re.findall(r"\$\$.*?\$\$|\$[^$\n]+\$", text, re.DOTALL)
    assert len(formulas) >= 20 and text.count("$") % 2 == 0
    assert not [formula for formula in formulas if re.search(r"\\[^a-zA-Z]", formula)]


def test_the_cup_is_computed_to_what_is_on_record() -> None:
    near(meaning.completeness(), RECORD["completeness"])
    near(meaning.sizes(), RECORD["sizes"])


def test_what_equals_the_baseline_has_nothing() -> None:
    case, mask = meaning.dark_scene()
    paths = case.paths(case.baselines("black"), 2)
    assert case.model.labels[case.target] == RECORD["blind_spot"]["label"]
    assert not paths.attribution[:, mask].any() and paths.attribution[:, ~mask].abs().sum() > 1


def test_a_contrast_is_a_difference() -> None:
    case = meaning.dark_scene()[0]
    start, other = case.baselines("white"), (case.target + 1) % 10
    one, two = (case.paths(start, 2, target=target).attribution for target in (case.target, other))
    with contrast(case.model.network, [(case.target, other)]) as (forward, columns):
        rules = [quadrature("gauss_legendre", 2)]
        (both,) = integrate(forward, case.image[None], start, torch.as_tensor(columns), rules, chunk=4)
    torch.testing.assert_close(both.attribution, one - two, rtol=1e-3, atol=1e-4)


def near(found: Any, wanted: Any) -> None:
    """Fails unless numbers are within two hundredths of each other, however they are nested."""
    if isinstance(wanted, Mapping):
        assert found.keys() == wanted.keys()
        for key in wanted:
            near(found[key], wanted[key])
    elif isinstance(wanted, list):
        for one, other in zip(found, wanted, strict=True):
            near(one, other)
    else:
        assert found == pytest.approx(wanted, rel=0.02, abs=0.005) if isinstance(wanted, float) else found == wanted
