from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients as CaptumIntegratedGradients
from torch import Tensor, nn

from imagexplain.attribution.paths import path_integral
from imagexplain.attribution.paths.path_integral import PathIntegral, integrate
from imagexplain.attribution.paths.quadrature import quadrature
from tests.attribution.inputs import noise_image, row_image
from tests.attribution.integrals import integral_of
from tests.attribution.models import columns, cubic, linear, product, smooth_network


def test_linear_model_by_hand() -> None:
    integral = integral_of(linear(torch.tensor([1.0, 2.0, 3.0])), row_image(1, 1, 1), steps=1)
    np.testing.assert_allclose(integral.attribution.flatten(), [1, 2, 3])
    assert (integral.score, integral.baseline_score, integral.residual) == (6, 0, 0)


def test_product_by_hand() -> None:
    integral = integral_of(product, row_image(3, 4), steps=1)  # the gradient (4α, 3α) averages to (2, 1.5)
    np.testing.assert_allclose(integral.gradient.flatten(), [2, 1.5])
    np.testing.assert_allclose(integral.attribution.flatten(), [6, 6])


@pytest.mark.parametrize("steps", [2, 5, 50])
def test_cubic_needs_the_quadrature_weights(steps: int) -> None:
    integral = integral_of(cubic, row_image(1, 2), steps=steps, keep_steps=True)
    np.testing.assert_allclose(integral.attribution.flatten(), [1 / 3, 8 / 3], rtol=1e-13)
    assert integral.steps is not None
    plain_mean = integral.steps.gradients.mean(0).flatten()
    assert abs(plain_mean[0].item() - 1 / 3) > (0.02 if steps > 2 else -1)  # n = 2 has equal weights


def test_input_equal_to_baseline_is_all_zero() -> None:
    integral = integral_of(smooth_network(), noise_image(), baseline=noise_image())
    assert torch.equal(integral.attribution, torch.zeros(3, 8, 8))
    assert integral.residual == 0 and integral.relative_residual == 0


def test_negated_score_negates_the_attribution() -> None:
    network = smooth_network()
    there, back = integral_of(network, noise_image()), integral_of(lambda x: -network(x), noise_image())
    assert torch.equal(there.attribution, -back.attribution)


def test_complete_on_a_smooth_model() -> None:
    integral = integral_of(smooth_network(), noise_image(), baseline=noise_image(1), steps=30)
    assert integral.relative_residual < 1e-12


def test_agrees_with_an_independent_quadrature() -> None:
    network, x = smooth_network(), noise_image()
    # Clenshaw–Curtis: the gradient interpolated at Chebyshev points and its interpolant integrated exactly.
    nodes = np.polynomial.chebyshev.chebpts1(60)
    points = (torch.from_numpy((nodes + 1) / 2).view(-1, 1, 1, 1) * x).requires_grad_()
    (gradients,) = torch.autograd.grad(network(points)[:, 1].sum(), points)
    antiderivative = np.polynomial.chebyshev.chebint(
        np.polynomial.chebyshev.chebfit(nodes, gradients.flatten(1).numpy(), 59)
    )
    mean = np.polynomial.chebyshev.chebval([-1.0, 1.0], antiderivative)
    expected = x.numpy().ravel() * (mean[:, 1] - mean[:, 0]) / 2
    got = integral_of(network, x, target=1, steps=40).attribution.flatten().numpy()
    assert np.abs(got - expected).max() / np.abs(expected).max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("rule", "captum_rule"),
    [
        ("gauss_legendre", "gausslegendre"),
        ("midpoint", "riemann_middle"),
        ("left", "riemann_left"),
        ("right", "riemann_right"),
    ],
)
def test_agrees_with_captum(rule: str, captum_rule: str, dtype: torch.dtype) -> None:
    network, x, baseline = smooth_network(dtype), noise_image(0, dtype), noise_image(1, dtype)
    expected, delta = CaptumIntegratedGradients(network).attribute(
        x[None], baseline[None], target=2, n_steps=20, method=captum_rule, return_convergence_delta=True
    )
    integral = integral_of(network, x, baseline, target=2, steps=20, rule=rule)
    # Captum casts its weights to float32 even for float64 models.
    assert (integral.attribution - expected[0]).abs().max() / expected.abs().max() < 1e-6
    assert -integral.residual == pytest.approx(delta.item(), abs=3e-6)


def mixed_batch(network: nn.Module, chunk: int) -> list[PathIntegral]:
    inputs, baselines = (
        torch.stack([noise_image(0), noise_image(1), noise_image(2)]),
        torch.stack([noise_image(3), noise_image(4), torch.zeros(3, 8, 8)]),
    )
    rules = [quadrature("gauss_legendre", 7), quadrature("left", 1), quadrature("trapezoid", 12)]
    return integrate(
        network, inputs, baselines, torch.tensor([0, 2, 1]), rules, chunk=chunk, keep_steps=[True, False, True]
    )


@pytest.fixture(params=["along", "apart"])
def ends(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The place where the ends of paths are scored: along with the nodes, or in passes of their own."""
    monkeypatch.setattr(path_integral, "MIN_PIXELS_APART", {"along": 8 * 8 + 1, "apart": 8 * 8}[request.param])
    return str(request.param)


def test_ends_apart_are_scored_without_gradients(ends: str) -> None:
    """Of a path with 7 nodes 9 points have a gradient, or 7 and 2 have none."""
    network, seen = smooth_network(), list[tuple[int, bool]]()

    def forward(rows: Tensor) -> Tensor:
        seen.append((len(rows), torch.is_grad_enabled()))
        scores: Tensor = network(rows)
        return scores

    integral = integral_of(forward, noise_image(), steps=7, keep_steps=True, chunk=9)
    assert seen == {"along": [(9, True)], "apart": [(7, True), (2, False)]}[ends]
    assert abs(integral.residual) < 1e-3 and integral.evaluations == 7
    assert integral.score == pytest.approx(network(noise_image()[None])[0, 0].item(), rel=1e-12)
    assert integral.steps is not None and len(integral.steps.gradients) == len(integral.steps.points) == 7


@pytest.mark.parametrize("chunk", [1, 3, 7, 20, 64])
@pytest.mark.usefixtures("ends")
def test_neither_chunk_nor_batch_mates_matter(chunk: int) -> None:
    network = smooth_network()
    together = mixed_batch(network, chunk)
    alone = [
        integral_of(network, noise_image(0), noise_image(3), 0, 7, "gauss_legendre", keep_steps=True, chunk=7),
        integral_of(network, noise_image(1), noise_image(4), 2, 1, "left", chunk=1),
        integral_of(network, noise_image(2), None, 1, 12, "trapezoid", keep_steps=True, chunk=12),
    ]
    for a, b in zip(together, alone, strict=True):
        assert (a.attribution - b.attribution).abs().max() <= 1e-10 * b.attribution.abs().max()
        assert a.score == pytest.approx(b.score, rel=1e-10)
        assert a.evaluations == b.evaluations
        assert (a.steps is None) == (b.steps is None)
        if a.steps and b.steps:
            torch.testing.assert_close(a.steps.gradients, b.steps.gradients, rtol=1e-10, atol=1e-12)
            torch.testing.assert_close(a.steps.points, b.steps.points, rtol=0, atol=0)


def test_kept_steps_sum_to_the_mean_gradient() -> None:
    integral = integral_of(smooth_network(), noise_image(), steps=9, keep_steps=True, chunk=4)
    assert integral.steps is not None
    total = (integral.steps.weights.view(-1, 1, 1, 1) * integral.steps.gradients).sum(0)
    torch.testing.assert_close(total, integral.gradient, rtol=1e-12, atol=1e-14)


def test_half_precision_accumulates_in_float32() -> None:
    assert integral_of(smooth_network(torch.bfloat16), noise_image(0, torch.bfloat16)).gradient.dtype == torch.float32


def test_the_model_is_left_as_it_was() -> None:
    network = (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).double().eval()
    )
    before = {name: value.clone() for name, value in network.state_dict().items()}
    integral_of(network, noise_image())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert not any(module.training for module in network.modules())


def test_runs_inside_no_grad() -> None:
    with torch.no_grad():
        assert integral_of(product, row_image(3, 4)).attribution.sum() == pytest.approx(12)


def test_before_chunk_counts_down_and_can_end_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    integral_of(product, row_image(3, 4), steps=5, chunk=2, before_chunk=seen.append)
    assert seen == [7, 5, 3, 1]  # five steps and both ends, two at a time
    monkeypatch.setattr(path_integral, "MIN_PIXELS_APART", 1)
    seen.clear()
    integral_of(product, row_image(3, 4), steps=5, chunk=2, before_chunk=seen.append)
    assert seen == [7, 5, 3, 2]  # five steps in pieces of 2, 2 and 1, then both ends

    def refuse(remaining: int) -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        integral_of(product, row_image(3, 4), before_chunk=refuse)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"inputs": torch.zeros(3, 8, 8)}, "inputs"),
        ({"baselines": torch.zeros(2, 3, 8, 8)}, "baselines"),
        ({"targets": torch.tensor([0, 1])}, "targets"),
        ({"targets": torch.tensor([0.5])}, "targets"),
        ({"rules": []}, "rules"),
        ({"keep_steps": [True, False]}, "keep_steps"),
        ({"chunk": 0}, "chunk"),
    ],
)
def test_what_does_not_fit_names_the_argument(change: dict, named: str) -> None:
    arguments = {
        "inputs": torch.zeros(1, 3, 8, 8),
        "baselines": torch.zeros(1, 3, 8, 8),
        "targets": torch.tensor([0]),
        "rules": [quadrature("left", 2)],
        "chunk": 2,
    } | change
    with pytest.raises(ValueError, match=rf"^{named}: "):
        integrate(product, **arguments)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's record of the peak")
def test_memory_depends_on_the_chunk_and_not_on_the_steps() -> None:
    """A point of 3×256×256 takes 0.8 MB; 1,000 of them would take 0.8 GB, and twice that with their gradients."""
    x = torch.rand(3, 256, 256)

    def peak(steps: int) -> float:
        Path("/proc/self/clear_refs").write_text("5")
        integral_of(lambda rows: columns(rows.square().sum((1, 2, 3))), x, steps=steps, chunk=8, rule="midpoint")
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1e3  # MB

    peak(50)
    short, long = peak(50), peak(1000)
    assert long - short < 75  # a tenth of the points that are more
