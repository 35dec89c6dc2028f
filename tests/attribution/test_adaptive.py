import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from imagexplain.attribution.paths.adaptive import AdaptiveIntegral, OutOfTimeError, integrate_adaptive
from imagexplain.attribution.paths.path_integral import integrate, relative_to
from imagexplain.attribution.paths.quadrature import quadrature
from tests.attribution.inputs import noise_image, row_image
from tests.attribution.models import columns, kinked_network, linear, product, smooth_network

PIXELS = torch.eye(2, dtype=torch.bool).view(2, 1, 2)
QUARTERS = torch.zeros(4, 8, 8, dtype=torch.bool)
for quarter in range(4):
    QUARTERS[quarter, 4 * (quarter // 2) :, 4 * (quarter % 2) :][:4, :4] = True
OVERLAPPING = torch.cat([QUARTERS, QUARTERS[:1] | QUARTERS[1:2], QUARTERS[1:2] | QUARTERS[3:4]])


def adaptive_integral_of(
    forward,
    image: Tensor,
    baseline: Tensor | None = None,
    target: int = 0,
    groups: Tensor | None = None,
    tolerance: float = 1e-2,
    **options,
) -> AdaptiveIntegral:
    """The refined integral from a baseline, by default zero, to one image (C, H, W)."""
    baseline = torch.zeros_like(image) if baseline is None else baseline
    options = {"chunk": 16, "most": 1000} | options
    return integrate_adaptive(
        forward, image[None], baseline[None], torch.tensor([target]), [groups], torch.tensor([tolerance]), **options
    )[0]


class Watched:
    """A model that remembers the rows it was asked for."""

    def __init__(self, forward) -> None:
        self.forward = forward
        self.rows: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        self.rows.extend(x.detach())
        return self.forward(x)


def test_a_linear_model_converges_at_once() -> None:
    refined = adaptive_integral_of(linear(torch.tensor([1.0, 2.0])), row_image(1, 1), groups=PIXELS, tolerance=1e-6)
    np.testing.assert_allclose(refined.integral.attribution.flatten(), [1, 2], rtol=1e-14)
    assert refined.converged and refined.integral.evaluations == 5
    assert max(refined.stability, refined.missed, refined.uncertainty) < 1e-14


def test_a_quadratic_model_by_hand() -> None:
    """x₁x₂ at (3, 4): both pixels' shares are 12α, their sum 24α, and the trapezoid rule is exact.

    Over an interval of width h the whole image's share changes by 24h, times h: 1.5 at h = 1/4, 0.375 at h = 1/8. Two
    standard deviations are 2·√(4·1.5²/12) of 12 at first. That is above 0.1, so the first two of four equal intervals,
    which hold half of the squared error, are halved: 2·√((2·1.5² + 4·0.375²)/12) is 0.108 of 12. Then so are the other
    two, which hold most of it: 2·√(8·0.375²/12).
    """
    at_once = adaptive_integral_of(product, row_image(3, 4), groups=PIXELS, tolerance=0.15)
    assert at_once.integral.evaluations == 5
    assert at_once.uncertainty == pytest.approx(2 * math.sqrt(4 * 1.5**2 / 12) / 12)
    refined = adaptive_integral_of(product, row_image(3, 4), groups=PIXELS, tolerance=0.1)
    np.testing.assert_allclose(refined.nodes, np.linspace(0, 1, 9))
    np.testing.assert_allclose(refined.weights, quadrature("trapezoid", 9).weights)
    assert refined.uncertainty == pytest.approx(2 * math.sqrt(8 * 0.375**2 / 12) / 12)
    np.testing.assert_allclose(refined.integral.attribution.flatten(), [6, 6])
    assert refined.converged and refined.stability == 0


def test_one_kink_is_exact_wherever_it_lies() -> None:
    """relu(3x₁ + x₂ − 1.3) at (1, 1): the gradient is 0 up to α = 0.325, then (3, 1), so IG = 0.675·(3, 1).

    On [1/4, 1/2] the score rises by 0.7, and the trapezoid rule says ¼·4/2 = 0.5. The weights lean by 0.2 to the right:
    node 1/2 gets ¼·0.7 = 0.175 from this interval, the length from the kink to it, and 1/8 from the next one.
    """
    refined = adaptive_integral_of(
        lambda x: columns(torch.relu((x.flatten(1) * row_image(3, 1).flatten()).sum(1) - 1.3)),
        row_image(1, 1),
        groups=PIXELS,
        tolerance=0.5,
    )
    assert refined.integral.evaluations == 5
    np.testing.assert_allclose(refined.weights, [0.125, 0.125 + 0.075, 0.175 + 0.125, 0.25, 0.125], rtol=1e-12)
    np.testing.assert_allclose(refined.integral.attribution.flatten(), [2.025, 0.675], rtol=1e-12)
    assert refined.missed == pytest.approx(0.2 / 2.7)  # said of the plain trapezoid rule, not of the answer
    assert abs(refined.integral.residual) < 1e-12


@pytest.mark.parametrize("network", [kinked_network(), smooth_network()], ids=["kinked", "smooth"])
@pytest.mark.parametrize("tolerance", [1e-1, 1e-2, 1e-3])
def test_the_groups_are_within_the_tolerance(network: nn.Module, tolerance: float) -> None:
    for seed in range(4):
        x, baseline = 2 * noise_image(seed), noise_image(seed + 10)
        refined = adaptive_integral_of(network, x, baseline, 1, OVERLAPPING, tolerance)
        (dense,) = integrate(
            network, x[None], baseline[None], torch.tensor([1]), [quadrature("midpoint", 4000)], chunk=500
        )
        shares, expected = (
            (integral.attribution * QUARTERS.unsqueeze(1)).flatten(1).sum(1) for integral in (refined.integral, dense)
        )
        scale = relative_to(dense.score - dense.baseline_score, expected)
        of_groups = (
            OVERLAPPING.flatten(1).double() @ (refined.integral.attribution - dense.attribution).sum(0).flatten()
        )
        assert refined.converged
        assert of_groups.abs().max() / scale <= tolerance
        assert abs(shares.sum() - expected.sum()) / scale <= tolerance


def test_a_score_that_jumps_in_the_first_thousandth_is_followed() -> None:
    """tanh(2000·(3x₁ + x₂)) at (1, 1): the whole score rises below α = 10⁻³; IG = (3/4, 1/4)."""
    weights = row_image(3, 1).flatten()

    def steep(x: Tensor) -> Tensor:
        return columns(torch.tanh(2000 * (x.flatten(1) * weights).sum(1)))

    refined = adaptive_integral_of(steep, row_image(1, 1), groups=PIXELS, tolerance=0.02, most=100)
    assert refined.converged
    np.testing.assert_allclose(refined.integral.attribution.flatten(), [0.75, 0.25], atol=0.02)
    (uniform,) = integrate(
        steep,
        row_image(1, 1)[None],
        row_image(0, 0)[None],
        torch.tensor([0]),
        [quadrature("midpoint", 1000)],
        chunk=500,
    )
    assert uniform.relative_residual > 0.5


def test_no_point_is_evaluated_twice() -> None:
    watched = Watched(kinked_network())
    refined = adaptive_integral_of(watched, noise_image(), groups=QUARTERS, tolerance=3e-3, chunk=7)
    assert len(watched.rows) == refined.integral.evaluations == len(refined.nodes) > 20
    assert len(torch.stack(watched.rows).unique(dim=0)) == len(watched.rows)


def test_weights_are_a_mean_and_nodes_ascend() -> None:
    refined = adaptive_integral_of(kinked_network(), noise_image(), groups=QUARTERS, tolerance=1e-2)
    assert refined.weights.sum().item() == pytest.approx(1, rel=1e-12)
    assert (refined.weights >= 0).all() and (refined.nodes.diff() > 0).all()
    assert refined.nodes[[0, -1]].tolist() == [0, 1]


def test_kept_steps_sum_to_the_mean_gradient() -> None:
    refined = adaptive_integral_of(smooth_network(), noise_image(), noise_image(1), keep_steps=True)
    steps = refined.integral.steps
    assert steps is not None
    total = torch.einsum("n,nchw->chw", steps.weights, steps.gradients)
    torch.testing.assert_close(total, refined.integral.gradient, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(steps.points[0], noise_image(1), rtol=0, atol=0)
    torch.testing.assert_close(steps.points[-1], noise_image(), rtol=0, atol=0)
    assert adaptive_integral_of(smooth_network(), noise_image()).integral.steps is None


def mixed(network: nn.Module, dtype: torch.dtype, which: Sequence[int], chunk: int) -> list[AdaptiveIntegral]:
    """Some of three requests that differ in everything."""
    groups = [QUARTERS, None, OVERLAPPING]
    baselines = [torch.zeros(3, 8, 8, dtype=dtype), noise_image(4, dtype), noise_image(5, dtype)]
    return integrate_adaptive(
        network,
        torch.stack([noise_image(b, dtype) for b in which]),
        torch.stack([baselines[b] for b in which]),
        torch.tensor(which),
        [groups[b] for b in which],
        torch.tensor([1e-1, 1e-2, 3e-3])[which],
        chunk=chunk,
        most=[[400, 30, 200][b] for b in which],
    )


@pytest.mark.parametrize("chunk", [1, 5, 64])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_neither_chunk_nor_batch_mates_matter(dtype: torch.dtype, tolerance: float, chunk: int) -> None:
    network = kinked_network(dtype)
    together = mixed(network, dtype, [0, 1, 2], chunk)
    for b, got in enumerate(together):
        (alone,) = mixed(network, dtype, [b], 16)
        largest = alone.integral.attribution.abs().max()
        assert torch.equal(got.nodes, alone.nodes)
        assert (got.integral.attribution - alone.integral.attribution).abs().max() <= tolerance * largest
        assert got.converged == alone.converged


def test_an_input_equal_to_its_baseline_needs_the_ends_only() -> None:
    refined = adaptive_integral_of(smooth_network(), noise_image(), baseline=noise_image(), groups=QUARTERS)
    assert refined.converged and refined.integral.evaluations == 2
    assert torch.equal(refined.integral.attribution, torch.zeros(3, 8, 8))
    assert (refined.integral.residual, refined.stability, refined.uncertainty) == (0, 0, 0)


@pytest.mark.parametrize(
    ("options", "evaluations"),
    [({"most": 11}, 11), ({"most": 1}, 5), ({"most_bytes": 13 * 3 * 8 * 8 * 8}, 13)],
    ids=["most", "never fewer than the first", "bytes"],
)
def test_a_tolerance_out_of_reach_ends_at_the_cap(options: dict, evaluations: int) -> None:
    refined = adaptive_integral_of(kinked_network(), noise_image(), groups=QUARTERS, tolerance=1e-9, **options)
    assert not refined.converged
    assert refined.integral.evaluations == evaluations
    assert 1e-9 < refined.uncertainty < 1


def test_it_ends_where_nodes_would_coincide() -> None:
    """A step at α = 0.3 has no gradient to find; its interval is halved until float32 can halve it no more."""
    refined = adaptive_integral_of(
        lambda x: columns((x.flatten(1).sum(1) > 0.6).to(x) + 0 * x.flatten(1).sum(1)),
        row_image(1, 1).float(),
        tolerance=0.1,
    )
    assert not refined.converged and refined.missed == pytest.approx(1)
    assert refined.integral.evaluations < 40
    assert refined.nodes.diff().min() >= torch.finfo(torch.float32).eps


def test_values_that_are_not_finite_end_it_and_leave_batch_mates_alone() -> None:
    def broken(x: Tensor) -> Tensor:
        total = x.flatten(1).sum(1)
        return columns(total**2 / 2 + 0 * torch.where(total.isclose(torch.ones(1).to(x)), torch.inf, total))

    inputs = torch.stack([row_image(2, 2), row_image(1.5, 1.5)])  # the first passes the sum 1 at a quarter of its path
    hurt, healthy = integrate_adaptive(
        broken,
        inputs,
        torch.zeros_like(inputs),
        torch.tensor([0, 0]),
        [PIXELS, PIXELS],
        torch.tensor([0.1, 0.1]),
        chunk=4,
        most=100,
    )
    assert not hurt.converged and hurt.integral.evaluations == 5
    assert not math.isfinite(hurt.missed)
    assert healthy.converged
    np.testing.assert_allclose(healthy.integral.attribution.flatten(), [2.25, 2.25])


def stop_after(calls: int):
    left = calls

    def before_chunk(remaining: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OutOfTimeError

    return before_chunk


@pytest.mark.parametrize("evaluations", [5, 6, 7, 8])
def test_out_of_time_answers_with_what_was_reached(evaluations: int) -> None:
    """After the first five nodes, a round halves two intervals (see the quadratic model); the clock stops anywhere."""
    watched = Watched(product)
    stop = stop_after(evaluations)
    refined = adaptive_integral_of(watched, row_image(3, 4), groups=PIXELS, tolerance=1e-3, chunk=1, before_chunk=stop)
    assert not refined.converged
    assert refined.integral.evaluations == len(watched.rows) == evaluations
    np.testing.assert_allclose(refined.integral.attribution.flatten(), [6, 6])


def test_out_of_time_leaves_what_has_converged() -> None:
    inputs = torch.stack([row_image(1, 1), row_image(3, 4)])
    done, open_ = integrate_adaptive(
        product,
        inputs,
        torch.zeros_like(inputs),
        torch.tensor([0, 0]),
        [PIXELS, PIXELS],
        torch.tensor([0.2, 1e-3]),
        chunk=10,
        most=100,
        before_chunk=stop_after(2),
    )
    assert done.converged and done.integral.evaluations == 5
    assert not open_.converged and open_.integral.evaluations == 7


def test_out_of_time_before_there_is_an_answer_goes_on_to_the_caller() -> None:
    with pytest.raises(OutOfTimeError):
        adaptive_integral_of(product, row_image(3, 4), chunk=4, before_chunk=stop_after(1))


def test_another_exception_ends_the_pass() -> None:
    def refuse(remaining: int) -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        adaptive_integral_of(product, row_image(3, 4), before_chunk=refuse)


def test_before_chunk_counts_down_each_round() -> None:
    seen: list[int] = []
    adaptive_integral_of(product, row_image(3, 4), groups=PIXELS, tolerance=0.1, chunk=3, before_chunk=seen.append)
    assert seen == [5, 2, 2, 2]  # five nodes in chunks of three and two, then two and two


def test_half_precision_accumulates_in_float32() -> None:
    x = noise_image(0, torch.bfloat16)
    refined = adaptive_integral_of(smooth_network(torch.bfloat16), x, groups=QUARTERS, tolerance=0.3, most=60)
    exact = adaptive_integral_of(smooth_network(), noise_image(), groups=QUARTERS, tolerance=1e-3).integral.attribution
    assert refined.integral.gradient.dtype == torch.float32
    assert (refined.integral.attribution - exact).abs().max() < 0.05 * exact.abs().max()


def test_the_model_is_left_as_it_was() -> None:
    network = kinked_network().requires_grad_(True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        adaptive_integral_of(network, noise_image(), groups=QUARTERS)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"inputs": torch.zeros(1, 2)}, "inputs"),
        ({"baselines": torch.zeros(2, 1, 1, 2)}, "baselines"),
        ({"targets": torch.tensor([0.5])}, "targets"),
        ({"groups": []}, "groups"),
        ({"groups": [torch.ones(1, 3, 3, dtype=torch.bool)]}, "groups"),
        ({"tolerances": torch.tensor([0.1, 0.1])}, "tolerances"),
        ({"tolerances": torch.tensor([0.0])}, "tolerances"),
        ({"tolerances": torch.tensor([math.nan])}, "tolerances"),
        ({"most": [5, 5]}, "most"),
        ({"keep_steps": [True, True]}, "keep_steps"),
        ({"chunk": 0}, "chunk"),
    ],
)
def test_what_does_not_fit_names_the_argument(change: dict, named: str) -> None:
    arguments = {
        "inputs": torch.zeros(1, 1, 1, 2),
        "baselines": torch.zeros(1, 1, 1, 2),
        "targets": torch.tensor([0]),
        "groups": [None],
        "tolerances": torch.tensor([0.1]),
        "chunk": 2,
        "most": 10,
    } | change
    with pytest.raises(ValueError, match=rf"^{named}: "):
        integrate_adaptive(product, **arguments)
