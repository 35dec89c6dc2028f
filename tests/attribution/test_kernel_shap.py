from itertools import combinations, permutations
from math import factorial

import pytest
import torch
from captum.attr import KernelShap as CaptumKernelShap
from torch import Tensor, nn

from imagexplain.attribution.methods.feature_ablation import feature_ablation
from imagexplain.attribution.methods.kernel_shap import (
    _coalitions,
    _halved,
    _shapley_values,
    kernel_shap,
)
from tests.attribution.inputs import noise, noise_images
from tests.attribution.models import linear, product, smooth_network
from tests.rows import rows_through


def blocks(side: int) -> Tensor:
    """(8, 8) squares of the given side."""
    index = torch.arange(8) // side
    return index.unsqueeze(1) * (8 // side) + index


def scattered(count: int, images: int = 3) -> Tensor:
    return torch.randint(count, (images, 8, 8), generator=torch.Generator().manual_seed(1))


def shapley(model, image: Tensor, baseline: Tensor, target: int, groups: Tensor) -> Tensor:
    """The definition: the mean of what a group adds, over all orders in which the groups may come."""
    ids = groups.unique().tolist()

    def score(present: tuple[int, ...]) -> Tensor:
        mask = torch.isin(groups, torch.tensor(present, dtype=torch.int64))
        return model(torch.where(mask, image, baseline)[None])[0, target]

    scores = {frozenset(present): score(present) for size in range(len(ids) + 1) for present in combinations(ids, size)}
    values = torch.zeros_like(groups, dtype=image.dtype)
    for order in permutations(ids):
        for place, group in enumerate(order):
            gain = scores[frozenset(order[: place + 1])] - scores[frozenset(order[:place])]
            values[groups == group] += gain / factorial(len(ids))
    return values


def test_ablation_of_a_linear_model_by_hand() -> None:
    x = torch.tensor([[[[1.0, -2.0], [3.0, 4.0]]]], dtype=torch.float64)
    weights, groups = torch.tensor([2.0, 3.0, 5.0, 7.0]), torch.tensor([[7, -1], [7, 2]])
    for method in (feature_ablation, kernel_shap):
        got = method(linear(weights), x, 0, groups=groups)
        torch.testing.assert_close(got[0, 0].tolist(), [[17.0, -6.0], [17.0, 28.0]], rtol=1e-14, atol=0)


def test_a_product_is_shared_equally_and_lost_wholly() -> None:
    x, groups = torch.tensor([[[[3.0, 4.0]]]], dtype=torch.float64), torch.tensor([[0, 1]])
    assert feature_ablation(product, x, 0, groups=groups).tolist() == [[[[12, 12]]]]
    torch.testing.assert_close(kernel_shap(product, x, 0, groups=groups).tolist(), [[[[6.0, 6.0]]]])
    torch.testing.assert_close(kernel_shap(product, x, 0, groups=groups, baselines=1.0).tolist(), [[[[5.0, 6.0]]]])


def test_ablation_agrees_with_the_definition() -> None:
    network, x, groups, baselines = smooth_network(), noise_images(), scattered(6), torch.rand(3, 3, 8, 8).double()
    got = feature_ablation(network, x, [0, 2, 1], groups=groups, baselines=baselines)
    for b, target in enumerate([0, 2, 1]):
        for group in groups[b].unique():
            inside = groups[b] == group
            changed = torch.where(inside, baselines[b], x[b])
            drop = network(x[b, None])[0, target] - network(changed[None])[0, target]
            torch.testing.assert_close(got[b, 0][inside], drop.expand(int(inside.sum())), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_all_coalitions_give_the_exact_shapley_values(count: int) -> None:
    network, x, groups, baselines = smooth_network(), noise_images(), scattered(count), torch.rand(3, 3, 8, 8).double()
    got = kernel_shap(network, x, [0, 2, 1], groups=groups, baselines=baselines)
    for b, target in enumerate([0, 2, 1]):
        expected = shapley(network, x[b], baselines[b], target, groups[b])
        assert (got[b, 0] - expected).abs().max() / expected.abs().max() < 1e-11


def test_any_sample_is_exact_on_a_linear_model_and_complete_on_another() -> None:
    weights, x, groups = torch.rand(192, generator=torch.Generator().manual_seed(2)).double(), noise_images(), blocks(2)
    sampled = kernel_shap(linear(weights), x, 0, groups=groups, samples=100)
    torch.testing.assert_close(sampled, feature_ablation(linear(weights), x, 0, groups=groups), rtol=1e-9, atol=1e-11)
    network = smooth_network()
    total = (network(x) - network(torch.zeros_like(x)))[:, 1]
    for samples in (3, 10, 100):  # fewer coalitions than groups, too
        values = kernel_shap(network, x, 1, groups=groups, samples=samples)[:, 0, ::2, ::2]  # one pixel of each block
        torch.testing.assert_close(values.sum((1, 2)), total, rtol=1e-11, atol=1e-12)


def test_samples_come_closer_to_the_exact_values() -> None:
    network, x, groups = smooth_network(), noise_images(1), blocks(4)
    groups = groups * 2 + (torch.arange(8) % 2)  # 8 groups
    exact = kernel_shap(network, x, 0, groups=groups, samples=254)
    errors = [
        torch.stack(
            [(kernel_shap(network, x, 0, groups=groups, samples=n, seed=s) - exact).norm() for s in range(8)]
        ).mean()
        for n in (16, 64, 252)
    ]
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2]
    assert errors[2] < 0.05 * exact.norm()


def test_agrees_with_captum() -> None:
    """Captum draws with replacement where all coalitions would do: on 3 groups its sample is near the exact values."""
    network, x, groups = smooth_network(torch.float32), noise_images(1, torch.float32), scattered(3, 1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = CaptumKernelShap(network).attribute(
            x, target=0, feature_mask=groups.unsqueeze(1), n_samples=20_000, perturbations_per_eval=512
        )[:, :1]
    got = kernel_shap(network, x, 0, groups=groups)
    assert (got - expected).abs().max() / expected.abs().max() < 5e-3


def test_agrees_with_captum_where_a_sample_decides_all() -> None:
    """On a linear model any coalitions that tell the groups apart give the same values."""
    weights, x = torch.rand(192, generator=torch.Generator().manual_seed(2)), noise_images(1, torch.float32)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        expected = CaptumKernelShap(linear(weights)).attribute(
            x, target=0, feature_mask=blocks(2).view(1, 1, 8, 8), n_samples=100, perturbations_per_eval=10
        )[:, :1]
    got = kernel_shap(linear(weights), x, 0, groups=blocks(2), samples=100)
    error = (got - expected).abs().max() / expected.abs().max()
    assert error < 1e-5


@pytest.mark.parametrize("chunk", [1, 2, 5, 100])
@pytest.mark.parametrize("method", [feature_ablation, kernel_shap])
def test_neither_chunk_nor_batch_mates_matter(method, chunk: int) -> None:
    network, x, groups = smooth_network(), noise_images(), scattered(9)
    groups[1] //= 4  # another number of groups
    options = {"samples": 40} if method is kernel_shap else {}
    with rows_through(network) as rows:
        together = method(network, x, groups=groups, chunk=chunk, **options)
    alone = torch.cat([method(network, x[b : b + 1], groups=groups[b], **options) for b in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)
    assert max(rows) <= chunk


def test_the_seed_matters_and_the_global_generator_does_not() -> None:
    network, x = smooth_network(), noise_images(1)

    def values(seed: int) -> Tensor:
        return kernel_shap(network, x, 0, groups=blocks(2), samples=40, seed=seed)

    before = torch.get_rng_state()
    first = values(0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert torch.equal(values(0), first)
    assert not torch.equal(values(1), first)


@pytest.mark.parametrize("method", [feature_ablation, kernel_shap])
def test_the_model_is_left_as_it_was(method) -> None:
    network = (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).double().eval()
    )
    before = {name: value.clone() for name, value in network.state_dict().items()}
    got = method(network, noise_images().requires_grad_(), groups=blocks(4))
    assert got.shape == (3, 1, 8, 8) and not got.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert not any(module.training or module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("method", [feature_ablation, kernel_shap])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"images": torch.zeros(3, 8, 8)}, "images"),
        ({"targets": 2}, "targets"),
        ({"groups": torch.zeros(2, 8, 8).long()}, "groups"),
        ({"groups": torch.zeros(8, 8)}, "groups"),
        ({"baselines": torch.zeros(2, 3, 8, 8)}, "baselines"),
        ({"chunk": 0}, "chunk"),
    ],
)
def test_what_does_not_fit_names_the_argument(method, change: dict, named: str) -> None:
    arguments = {"images": torch.zeros(1, 3, 8, 8), "groups": blocks(4)} | change
    with pytest.raises(ValueError, match=rf"^{named}: "):
        method(linear(torch.ones(192)), **arguments)


def test_no_call_without_rows() -> None:
    """A single group has no coalitions but the empty and the full one."""
    network, x = smooth_network(), noise_images()
    with rows_through(network) as rows:
        got = kernel_shap(network, x, 1, groups=torch.zeros(8, 8, dtype=torch.int64))
    assert rows == [3, 3]
    expected = (network(x) - network(torch.zeros_like(x)))[:, 1].view(3, 1, 1, 1).expand(3, 1, 8, 8)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)


def test_coalitions_times_groups_are_bounded() -> None:
    """64 groups allow 312,500 samples; of two groups there are two coalitions, however many samples are wanted."""
    x, each = torch.zeros(1, 3, 8, 8), torch.arange(64).view(8, 8)
    with pytest.raises(ValueError, match=r"^groups: wanted at most 63 with samples=312501, got 64$"):
        kernel_shap(linear(torch.ones(192)), x, 0, groups=each, samples=312_501)
    assert kernel_shap(linear(torch.ones(192)), x, 0, groups=each % 2, samples=10**12).shape == (1, 1, 8, 8)


def test_coalitions_are_drawn_in_pieces_as_at_once() -> None:
    generator = torch.Generator().manual_seed(3)
    sizes = torch.arange(1, 40, dtype=torch.float64)
    size = 1 + torch.multinomial(1 / (sizes * (40 - sizes)), 150, replacement=True, generator=generator)
    order = torch.rand(150, 40, generator=generator, dtype=torch.float64).argsort(1)
    members, _ = _coalitions(40, 301, 3)
    for row, (first, many) in enumerate(zip(order, size.tolist(), strict=True)):
        assert set(members[2 * row].nonzero().flatten().tolist()) == set(first[:many].tolist())
        assert torch.equal(members[2 * row + 1], ~members[2 * row])


def test_a_single_sample_has_no_complement() -> None:
    with pytest.raises(ValueError, match=r"^samples: "):
        kernel_shap(linear(torch.ones(192)), torch.zeros(1, 3, 8, 8), groups=blocks(4), samples=1)


def test_the_regression_is_that_of_a_triangle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 400 equations on 16 groups, 17 are left; the values are those of all of them."""
    network, x, rows, real = smooth_network(), noise_images(1), [], torch.linalg.lstsq

    def lstsq(matrix: Tensor, side: Tensor, **options: str):
        rows.append(len(matrix))
        return real(matrix, side, **options)

    monkeypatch.setattr(torch.linalg, "lstsq", lstsq)
    got = kernel_shap(network, x, 0, groups=blocks(2), samples=400, seed=1)
    assert rows == [17]
    members, _ = _coalitions(16, 400, 1)
    shown = torch.where(members[:, blocks(2)].unsqueeze(1), x, 0.0)
    nothing = network(torch.zeros_like(x))[:, 0]
    gains, total = network(shown)[:, 0] - nothing, (network(x)[:, 0] - nothing)
    # The last value is what the others leave of the total.
    matrix = members.double()
    rest = real(matrix[:, :-1] - matrix[:, -1:], (gains - matrix[:, -1] * total).unsqueeze(1)).solution[:, 0]
    expected = torch.cat([rest, total - rest.sum()])
    torch.testing.assert_close(got[0, 0, ::2, ::2].flatten(), expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("count", range(10, 16))
def test_the_regression_over_many_coalitions_keeps_its_rank(count: int) -> None:
    """Of the direction that centring takes away, rounding must leave nothing that is solved for."""
    values = noise(count, seed=count)
    for samples in (2**count - 2, 5000):
        coalitions, weights = _coalitions(count, samples, 0)
        gains, total = coalitions.double() @ values, values.sum()
        got = _shapley_values(*_halved(coalitions, weights, gains, total), total)
        torch.testing.assert_close(got, values, rtol=1e-9, atol=1e-9)
