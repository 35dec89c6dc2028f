import numpy as np
import pytest
import torch

from imagexplain.attribution.paths.quadrature import RULES, quadrature


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("steps", [2, 3, 15, 50, 1000])
def test_weights_sum_to_one_and_nodes_stay_on_the_path(rule: str, steps: int) -> None:
    q = quadrature(rule, steps)
    assert len(q) == steps
    assert q.weights.sum().item() == pytest.approx(1, abs=1e-13)
    assert q.nodes.min() >= 0 and q.nodes.max() <= 1
    assert torch.all(q.nodes.diff() > 0)


@pytest.mark.parametrize(
    ("rule", "nodes", "weights"),
    [
        ("midpoint", [0.25, 0.75], [0.5, 0.5]),
        ("left", [0, 0.5], [0.5, 0.5]),
        ("right", [0.5, 1], [0.5, 0.5]),
        ("trapezoid", [0, 1], [0.5, 0.5]),
        ("gauss_legendre", [0.5 - 0.5 / 3**0.5, 0.5 + 0.5 / 3**0.5], [0.5, 0.5]),
    ],
)
def test_two_nodes(rule: str, nodes: list[float], weights: list[float]) -> None:
    q = quadrature(rule, 2)
    np.testing.assert_allclose(q.nodes, nodes, atol=1e-15)
    np.testing.assert_allclose(q.weights, weights, atol=1e-15)


def test_gauss_legendre_integrates_the_square_where_a_plain_mean_does_not() -> None:
    for steps in (2, 5, 50):
        q = quadrature("gauss_legendre", steps)
        assert (q.weights * q.nodes**2).sum().item() == pytest.approx(1 / 3, abs=1e-14)
    # The unweighted mean of the same nodes tends to 3/8, as the paper's released code does.
    assert (quadrature("gauss_legendre", 250).nodes ** 2).mean().item() == pytest.approx(3 / 8, abs=5e-4)


@pytest.mark.parametrize(
    ("rule", "steps", "named"), [("simpson", 3, "quadrature"), ("left", 0, "steps"), ("trapezoid", 1, "steps")]
)
def test_what_cannot_be_built_names_the_field(rule: str, steps: int, named: str) -> None:
    with pytest.raises(ValueError, match=rf"^{named}: "):
        quadrature(rule, steps)
