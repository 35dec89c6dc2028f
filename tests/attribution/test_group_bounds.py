"""Bounds of methods on groups: told before the model is asked anything, and the same as admission knows them by."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import imagexplain.attribution as library
from imagexplain.attribution.coalitions import MOST_MEMBERS
from imagexplain.attribution.config import AttributionConfig
from imagexplain.attribution.methods.kernel_shap import MOST_ENUMERATED
from imagexplain.attribution.registry import METHODS
from imagexplain.attribution.runner import most_groups
from imagexplain.errors import ArgumentError

BOUNDS = {
    "gaussian_shap": ({}, 256),
    "kernel_shap": ({"samples": 80_000}, 250),
    "lime": ({"samples": 80_000}, 250),
    "shapley_sampling": ({"permutations": 80_000}, 250),
}
"""Options of each method that has a bound, and the bound."""


def test_these_are_all() -> None:
    assert set(BOUNDS) == {name for name, method in METHODS.items() if method.most_groups is not None}


@pytest.mark.parametrize("method", BOUNDS)
@pytest.mark.parametrize("targets", [None, 0])
def test_more_groups_are_refused_before_the_first_evaluation(method: str, targets: int | None) -> None:
    options, most = BOUNDS[method]
    assert most_groups(AttributionConfig((method,), tuple(options.items()))) == most
    groups = torch.arange(1, 2 * 17 * 17 + 1, 2).view(17, 17).clamp(max=2 * most + 1)  # one more than that
    assert len(groups.unique()) == most + 1

    def model(_: Tensor) -> Any:
        raise AssertionError("this evaluation was to be refused first")

    with pytest.raises(ArgumentError, match=rf"^groups: wanted at most {most}.*, got {most + 1}$"):
        getattr(library, method)(model, torch.zeros(1, 3, 17, 17), targets, groups=groups, **options)


def test_all_coalitions_of_few_groups_may_be_held_however_many_samples_are_wanted() -> None:
    assert (2**MOST_ENUMERATED - 2) * MOST_ENUMERATED <= MOST_MEMBERS
    assert (2 ** (MOST_ENUMERATED + 1) - 2) * (MOST_ENUMERATED + 1) > MOST_MEMBERS
    assert most_groups(AttributionConfig(("kernel_shap",), (("samples", 10**12),))) == MOST_ENUMERATED == 19


def test_the_bound_of_a_plan() -> None:
    assert most_groups(AttributionConfig(("gradient",))) is None
    assert most_groups(AttributionConfig(("kernel_shap",))) == MOST_MEMBERS // 256
    assert most_groups(AttributionConfig(("gaussian_shap", "grad_cam"))) == 256
