"""Sampled Shapley values: by hand, by their definition, and by Captum with the same orders."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
import torch
from captum.attr import ShapleyValueSampling

from imagexplain.attribution.methods.feature_ablation import feature_ablation
from imagexplain.attribution.methods.kernel_shap import kernel_shap
from imagexplain.attribution.methods.shapley_sampling import _coalitions, _orders, shapley_sampling
from tests.attribution.inputs import noise_images
from tests.attribution.models import linear, product, smooth_network
from tests.rows import rows_through

QUARTERS = torch.arange(64).view(8, 8) // 16


def test_one_order_of_a_product_gives_all_to_the_last_group() -> None:
    x, groups = torch.tensor([[[[3.0, 4.0]]]], dtype=torch.float64), torch.tensor([[0, 1]])
    last = int(_orders(2, 1, 5)[0, 1])
    got = shapley_sampling(product, x, 0, groups=groups, permutations=1, seed=5)
    assert got[0, 0, 0].tolist() == [12.0 if place == last else 0.0 for place in (0, 1)]


def test_many_orders_come_near_the_exact_values() -> None:
    network, x = smooth_network(), noise_images()
    exact = kernel_shap(network, x, 1, groups=QUARTERS)  # of all 14 coalitions
    got = shapley_sampling(network, x, 1, groups=QUARTERS, permutations=400)
    assert (got - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize("permutations", [1, 3])
def test_any_orders_are_exact_on_a_linear_model_and_complete_on_another(permutations: int) -> None:
    weights, x = torch.rand(192, generator=torch.Generator().manual_seed(2)).double(), noise_images()
    got = shapley_sampling(linear(weights), x, 0, groups=QUARTERS, permutations=permutations)
    torch.testing.assert_close(got, feature_ablation(linear(weights), x, 0, groups=QUARTERS), rtol=1e-9, atol=1e-11)
    network = smooth_network()
    values = shapley_sampling(network, x, 1, groups=QUARTERS, permutations=permutations)[:, 0, ::2, 0]  # one of each
    total = (network(x) - network(torch.zeros_like(x)))[:, 1]
    torch.testing.assert_close(values.sum(1), total, rtol=1e-9, atol=1e-11)


def test_the_same_orders_give_what_captum_gives() -> None:
    network, x, baselines = smooth_network(), noise_images(), torch.rand(3, 3, 8, 8).double()
    captum = ShapleyValueSampling(network)

    def generated(features: int, samples: int) -> Iterable[Sequence[int]]:
        return _orders(features, samples, 3).tolist()

    captum.permutation_generator = generated
    expected = captum.attribute(
        x, baselines=baselines, target=[0, 2, 1], feature_mask=QUARTERS.expand(1, 1, 8, 8), n_samples=6
    )
    got = shapley_sampling(network, x, [0, 2, 1], groups=QUARTERS, baselines=baselines, permutations=6, seed=3)
    assert expected.dtype == torch.float32  # whatever the model's is
    torch.testing.assert_close(got.float().expand_as(expected), expected, rtol=1e-5, atol=1e-7)


def test_the_errors_are_those_of_a_mean_over_orders() -> None:
    network, x = smooth_network(), noise_images()
    each = torch.stack(
        [shapley_sampling(network, x, 1, groups=QUARTERS, permutations=1, seed=s)[:, 0, ::2, 0] for s in range(200)]
    )
    told: dict[int, torch.Tensor] = {}
    shapley_sampling(network, x, 1, groups=QUARTERS, permutations=200, observe_covariance=told.__setitem__)
    assert sorted(told) == [0, 1, 2]
    for index, covariance in told.items():
        expected, largest = each[:, index].T.cov() / 200, covariance.abs().max().item()
        torch.testing.assert_close(covariance, expected, rtol=0.5, atol=0.1 * largest)
        assert covariance.sum().abs() < 1e-9 * largest  # the sum of all values is known
    told.clear()
    shapley_sampling(network, x, 1, groups=QUARTERS, permutations=1, observe_covariance=told.__setitem__)
    assert not told


def test_coalitions_grow_by_one_group_of_the_order() -> None:
    (members,) = _coalitions(torch.tensor([[2, 0, 1], [1, 2, 0]]), 64)
    assert members.long().tolist() == [[0, 0, 1], [1, 0, 1], [0, 1, 0], [0, 1, 1]]
    assert [len(part) for part in _coalitions(_orders(5, 3, 0), 5)] == [5, 5, 2]


def test_a_single_group_has_the_whole_difference() -> None:
    network, x = smooth_network(), noise_images()
    one = torch.zeros(8, 8, dtype=torch.int64)
    with rows_through(network) as rows:
        got = shapley_sampling(network, x, 1, groups=one)
    assert sum(rows) == 6
    torch.testing.assert_close(got[:, 0, 0, 0], (network(x) - network(0 * x))[:, 1])


def test_the_first_orders_of_a_longer_series_are_those_of_a_shorter_one() -> None:
    assert torch.equal(_orders(6, 9, 1)[:4], _orders(6, 4, 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"permutations": 0}, "permutations: wanted at least 1, got 0"),
        ({"permutations": 20_000_001}, "groups: wanted at most 0 with permutations=20000001, got 4"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shapley_sampling(smooth_network(), noise_images(), 0, groups=QUARTERS, **options)  # type: ignore[arg-type]
