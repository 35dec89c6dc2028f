"""LIME: the regression by hand and by scikit-learn's ridge, which is the authors', and what it is on linear models."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from imagexplain.attribution.methods.feature_ablation import feature_ablation
from imagexplain.attribution.methods.lime import _coalitions, _coefficients, lime
from tests.attribution.inputs import noise_images
from tests.attribution.models import linear, smooth_network
from tests.rows import rows_through

QUARTERS = torch.arange(64).view(8, 8) // 16


def test_one_group_by_hand() -> None:
    """Scores 3 with it and 1 without, of weights 1 and e^(−1/2w²): their spread about the weighted mean, and λ."""
    coalitions, scores = torch.tensor([[True], [False]]), torch.tensor([3.0, 1.0], dtype=torch.float64)
    assert _coefficients(coalitions, scores, 0.5, 0.0).item() == pytest.approx(2)
    other = np.exp(-2)
    spread = other / (1 + other)
    assert _coefficients(coalitions, scores, 0.5, 0.3).item() == pytest.approx(2 * spread / (spread + 0.3))


@pytest.mark.parametrize("ridge", [1.0, 0.01])
def test_the_regression_is_scikit_learns(ridge: float) -> None:
    coalitions = _coalitions(9, 60, 4)
    scores = torch.randn(60, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert coalitions[0].all() and 0.4 < coalitions.double().mean() < 0.6
    distance = 1 - (coalitions.double().mean(1)).sqrt()  # of cosines with all ones
    weights = torch.exp(-(distance**2) / 0.25**2).sqrt()
    fitted = Ridge(alpha=ridge).fit(coalitions.double(), scores, sample_weight=weights)
    np.testing.assert_allclose(_coefficients(coalitions, scores, 0.25, ridge), fitted.coef_, rtol=1e-9, atol=1e-12)


def test_exact_on_a_linear_model_without_a_penalty() -> None:
    weights, x = torch.rand(192, generator=torch.Generator().manual_seed(2)).double(), noise_images()
    got = lime(linear(weights), x, 0, groups=QUARTERS, ridge=0.0, scores="logits", samples=12)
    torch.testing.assert_close(got, feature_ablation(linear(weights), x, 0, groups=QUARTERS), rtol=1e-9, atol=1e-11)


def test_probabilities_are_the_softmax_of_all_scores() -> None:
    network, x = smooth_network(), noise_images()

    def logarithm(images: torch.Tensor) -> torch.Tensor:
        return network(images).softmax(1)

    options: dict[str, Any] = {"groups": QUARTERS, "samples": 20}
    got = lime(network, x, [0, 2, 1], **options)
    torch.testing.assert_close(got, lime(logarithm, x, [0, 2, 1], scores="logits", **options))


@pytest.mark.parametrize("chunk", [1, 7])
def test_neither_chunk_nor_batch_mates_matter(chunk: int) -> None:
    network, x, baselines = smooth_network(), noise_images(), torch.rand(3, 3, 8, 8).double()
    together = lime(network, x, [0, 2, 1], groups=QUARTERS, baselines=baselines, samples=20)
    alone = lime(network, x[1:2], 2, groups=QUARTERS, baselines=baselines[1:2], samples=20, chunk=chunk)
    torch.testing.assert_close(together[1:2], alone, rtol=1e-10, atol=1e-14)


def test_the_image_is_one_of_the_samples() -> None:
    network = smooth_network()
    with rows_through(network) as rows:
        lime(network, noise_images(), 1, groups=QUARTERS, samples=20, chunk=8)
    assert rows == [8, 8, 4] * 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"samples": 1}, "samples: wanted at least 2, got 1"),
        ({"kernel_width": 0.0}, "kernel_width: wanted a number above 0, got 0.0"),
        ({"ridge": -1.0}, "ridge: wanted a number of at least 0, got -1.0"),
        ({"scores": "odds"}, "scores: wanted probabilities or logits, got 'odds'"),
        ({"samples": 20_000_001}, "groups: wanted at most 0 with samples=20000001, got 4"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        lime(smooth_network(), noise_images(), 0, groups=QUARTERS, **options)
