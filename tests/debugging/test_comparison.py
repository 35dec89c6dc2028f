from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from debugging.answers import by_label, parts_by_image
from debugging.comparison import bootstrap_mean, changes, paired_difference, positive_shares


def test_a_resample_of_two_images_has_one_of_three_means() -> None:
    """0 and 1: the mean is 0, 1/2 or 1 with probabilities 1/4, 1/2 and 1/4, so that 95 % take all of it."""
    found = bootstrap_mean(np.array([0.0, 1.0]))
    assert found is not None
    assert (found.value, found.low, found.high, found.images) == (0.5, 0.0, 1.0, 2)


def test_equal_values_have_no_spread_and_no_image_no_mean() -> None:
    found = bootstrap_mean(np.full(7, 0.25))
    assert found is not None and (found.low, found.value, found.high) == (0.25, 0.25, 0.25)
    assert bootstrap_mean(np.array([])) is None


def test_the_interval_of_many_images_is_that_of_the_normal_distribution() -> None:
    """400 images, 3/4 right: 1.96 standard errors of √(3/16 / 400)."""
    found = bootstrap_mean(np.array([1.0, 1.0, 1.0, 0.0] * 100), draws=4000)
    assert found is not None
    error = 1.96 * np.sqrt(3 / 16 / 400)
    assert found.value == 0.75
    assert (found.low, found.high) == pytest.approx((0.75 - error, 0.75 + error), abs=0.006)


def test_the_seed_decides_the_interval() -> None:
    values = np.arange(20.0)
    assert bootstrap_mean(values, 3) == bootstrap_mean(values, 3) != bootstrap_mean(values, 4)


def test_a_difference_is_that_of_the_same_images() -> None:
    """Two models of 1/2 that differ nowhere: paired, nothing is left of the spread of either."""
    before = np.array([0.0, 1.0] * 10)
    found = paired_difference(before, before)
    assert found is not None and (found.value, found.low, found.high) == (0.0, 0.0, 0.0)
    after = np.array([1.0, np.nan, 0.5])
    found = paired_difference(after, np.array([0.5, 0.5, 0.0]))
    assert found is not None and (found.value, found.low, found.high, found.images) == (0.5, 0.5, 0.5, 2)


def test_errors_fixed_and_made_come_by_what_changed_most() -> None:
    before = np.array([False, True, False, True, False, True])
    after = np.array([True, False, True, True, False, False])
    truth_before = np.array([0.4, 0.6, 0.1, 0.9, 0.2, 0.9])
    truth_after = np.array([0.6, 0.4, 0.9, 0.9, 0.3, 0.1])
    found = changes(before, after, truth_before, truth_after)
    assert found.fixed == (2, 0)  # + 0.8 before + 0.2
    assert found.made == (5, 1)  # − 0.8 before − 0.2


def test_shares_are_of_what_is_positive() -> None:
    assert positive_shares([6.0, -1.0, 2.0]) == [0.75, 0.0, 0.25]
    assert positive_shares([-1.0, 0.0]) is None
    assert positive_shares([]) is None


def test_masks_of_one_label_are_one() -> None:
    masks = torch.tensor([[[1, 0, 0]], [[0, 1, 0]], [[0, 0, 1]]], dtype=torch.bool)
    together, names = by_label(masks, ("sky", "dog", "sky"))
    assert names == ("sky", "dog")
    assert together.tolist() == [[[True, False, True]], [[False, True, False]]]
    assert by_label(masks[:0], ())[0].shape == (0, 1, 3)


def test_a_label_that_an_image_lacks_has_no_part_in_it() -> None:
    records: list[dict[str, Any]] = [
        {"segments": {"dog": {"area": 0.25, "drive": 0.8}, "rest": {"area": 0.75, "drive": 0.2}}},
        {"segments": {"rest": {"area": 1.0, "drive": 1.0}}},
        {"segments": {"dog": {"area": 0.5, "drive": None}, "rest": {"area": 0.5, "drive": None}}},
    ]
    assert parts_by_image(records, "dog", "area") == [0.25, 0.0, 0.5]
    drives = parts_by_image(records, "dog", "drive")
    assert drives[:2] == [0.8, 0.0] and np.isnan(drives[2])
