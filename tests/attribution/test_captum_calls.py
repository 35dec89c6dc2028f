"""Calls as Captum's users and Captum's own tests make them: the same answers, or errors that name the argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients as Captums
from captum.attr import NoiseTunnel
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor, nn

from imagexplain.attribution import captum_adapter as captum_methods
from imagexplain.attribution.captum_adapter import CAPTUM_RULES
from tests.attribution.inputs import noise
from tests.attribution.models import linear, smooth_network

# Any: like Captum's, attribute returns tensors, tuples or pairs, as its arguments say.
IntegratedGradients: Any = captum_methods.IntegratedGradients
IntegratedDirectionalGradients: Any = captum_methods.IntegratedDirectionalGradients


def near(ours: Tensor, theirs: Tensor, limit: float = 1e-6) -> bool:
    """Captum's nodes and weights are float32."""
    return ours.shape == theirs.shape and bool((ours - theirs).abs().max() <= limit * theirs.abs().max().clamp(min=1))


def both(forward: Callable[..., Tensor], call: dict[str, Any], **made: bool) -> None:
    """Ours and Captum's answers to a call: the same types, shapes and dtypes, and values nearly so."""
    call = {"n_steps": 7, "return_convergence_delta": True} | call
    ours, our_delta = IntegratedGradients(forward, **made).attribute(**call)
    theirs, their_delta = Captums(forward, **made).attribute(**call)
    assert type(ours) is type(theirs)
    for own, other in zip(*((each,) if isinstance(each, Tensor) else each for each in (ours, theirs)), strict=True):
        assert own.dtype == other.dtype and near(own, other)
    assert our_delta.dtype == their_delta.dtype and near(our_delta, their_delta, 1e-5)
    again = IntegratedGradients(forward, **made).compute_convergence_delta(
        ours, call.get("baselines"), call["inputs"], call.get("target"), call.get("additional_forward_args")
    )
    assert near(our_delta, again)


def features(x: Tensor) -> Tensor:
    """(N, 4) scores of (N, ...)."""
    flat = x.reshape(len(x), -1)
    return torch.stack([flat.sin().sum(1), flat.square().sum(1), flat.prod(1), (3 * flat).tanh().sum(1)], 1)


def grid(x: Tensor) -> Tensor:
    """(N, 2, 3) scores."""
    return torch.stack([features(x)[:, :3], features(x)[:, 1:]], 1)


def two(x: Tensor, y: Tensor, factor: Any = 1.0, offset: Any = 0) -> Tensor:
    """One score a row of two inputs and further arguments."""
    return ((x.square() * y.sum(1, keepdim=True)).sin() * factor).flatten(1).sum(1) + offset


@pytest.mark.parametrize("method", sorted(set(CAPTUM_RULES) - {"riemann_trapezoid"}))
@pytest.mark.parametrize("shape", [(2,), (3, 5), (2, 3, 4), (2, 3, 4, 5), (2, 2, 2, 2, 2)])
@pytest.mark.parametrize("multiply_by_inputs", [True, False])
def test_inputs_of_any_number_of_axes(shape: tuple[int, ...], method: str, multiply_by_inputs: bool) -> None:
    call = {"inputs": noise(*shape), "target": 1, "method": method}
    both(features, call, multiply_by_inputs=multiply_by_inputs)


@pytest.mark.parametrize("multiply_by_inputs", [True, False])
def test_whether_inputs_are_multiplied(multiply_by_inputs: bool) -> None:
    network = IntegratedGradients(linear(torch.tensor([1.0, 2.0])), multiply_by_inputs=multiply_by_inputs)
    assert network.multiplies_by_inputs is multiply_by_inputs
    got = network.attribute(torch.tensor([[3.0, 5.0]]), target=0)
    assert got.tolist() == [pytest.approx([3, 10] if multiply_by_inputs else [1, 2])]


@pytest.mark.parametrize("internal_batch_size", [None, 1, 3, 40])
@pytest.mark.parametrize(
    "further",
    [
        None,
        2.0,
        noise(3, 1, seed=4),
        (noise(3, 1, seed=4), 5),
        (noise(3, 1, seed=4), noise(3, seed=5)),
        (torch.tensor(2.0), None),
        ([2, 3], 1),
    ],
)
def test_several_inputs_and_further_arguments(further: object, internal_batch_size: int | None) -> None:
    def forward(x: Tensor, y: Tensor, factor: Any = 1.0, offset: Any = None) -> Tensor:
        return two(x, y, factor[0] if isinstance(factor, list) else factor, 0 if offset is None else offset)

    inputs = (noise(3, 2), noise(3, 4, seed=1))
    baselines = (0.1, noise(1, 4, seed=2))
    call: dict[str, Any] = {"inputs": inputs, "baselines": baselines, "additional_forward_args": further}
    ours = IntegratedGradients(forward).attribute(**call, n_steps=5, internal_batch_size=internal_batch_size)
    theirs = Captums(forward).attribute(**call, n_steps=5)
    assert all(near(*pair) for pair in zip(ours, theirs, strict=True))
    both(forward, call)


def test_inputs_of_several_dtypes() -> None:
    inputs = (noise(2, 3).float(), noise(2, 2, seed=1))
    both(lambda x, y: x.double().square().sum(1) * y.sin().sum(1), {"inputs": inputs})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 5)])
def test_half_precision_is_answered_in_float32(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    seen = set()

    def forward(x: Tensor) -> Tensor:
        seen.add(x.dtype)
        return x.square().flatten(1).sum(1)

    x = noise(*shape).to(dtype)
    got, delta = IntegratedGradients(forward).attribute(x, return_convergence_delta=True)
    assert seen == {dtype} and (got.dtype, delta.dtype) == (torch.float32, torch.float32)
    assert near(got, x.float().square(), 2 * torch.finfo(dtype).eps)
    if len(shape) == 4:
        assert IntegratedDirectionalGradients(forward).attribute(x).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_whole_numbers_are_read_as_floating_point(dtype: torch.dtype) -> None:
    x = torch.tensor([[0, 1, 2], [3, 1, 0]]).to(dtype)
    got, delta = IntegratedGradients(features).attribute(x, 1, target=1, return_convergence_delta=True)
    expected = Captums(features).attribute(x.float(), 1.0, target=1)
    assert near(got, expected) and got.dtype == torch.float32
    assert near(delta, IntegratedGradients(features).compute_convergence_delta(got, 1, x, 1))


@pytest.mark.parametrize(
    ("forward", "target"),
    [
        (features, 2),
        (features, (2,)),
        (features, [0, 3]),
        (features, [(0,), (3,)]),
        (features, torch.tensor(2)),
        (features, torch.tensor([2])),
        (features, torch.tensor([0, 3])),
        (grid, (1, 2)),
        (grid, [(1, 2), (0, 1)]),
        (lambda x: features(x)[:, :1], None),
        (lambda x: features(x)[:, :1], 0),
        (lambda x: features(x)[:, 0], None),
        (lambda x: features(x)[:, :1, None], None),
        (lambda x: features(x)[:, :, None], 3),
    ],
)
def test_targets(forward: Callable[[Tensor], Tensor], target: object) -> None:
    both(forward, {"inputs": noise(2, 3), "target": target, "baselines": 0.3})
    both(forward, {"inputs": noise(2, 3), "target": target, "internal_batch_size": 4})


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (None, r"wanted the class to explain, as the output has the scores \(4,\) of each row, got none"),
        (4, r"wanted 0\.\.3, got \[4\]"),
        (-1, r"wanted 0\.\.3, got \[-1\]"),
        (2**70, "wanted whole numbers or tuples of these, got 1180591620717411303424"),
        ((0, 1), "wanted the class to explain, .* got 2 indices"),
        ([0], "wanted 2, one for each row, got 1"),
        ([0, 1, 2], "wanted 2, one for each row, got 3"),
        (torch.tensor([0, 1, 2]), "wanted 2, one for each row, got 3"),
        (torch.tensor([[0], [1]]), "wanted an index or 2 of them"),
        (1.0, "wanted whole numbers or tuples of these, got 1.0"),
        (torch.tensor([0.0, 1.0]), "wanted whole numbers or tuples of these, got 0.0"),
        (True, "wanted whole numbers or tuples of these, got True"),
        ("cat", "wanted whole numbers or tuples of these, got 'cat'"),
        ([(0,), (0, 1)], "wanted tuples of equally many indices"),
    ],
)
def test_targets_that_do_not_fit(target: object, message: str) -> None:
    """Nor is one that is left out class 0, or for the convergence delta the sum of all classes."""
    x = noise(2, 3)
    for method, inputs in ((IntegratedGradients, x), (IntegratedDirectionalGradients, x[:, None, None])):
        with pytest.raises(ValueError, match=f"^target: {message}"):
            method(features).attribute(inputs, target=target)
    with pytest.raises(ValueError, match=f"^target: {message}"):
        IntegratedGradients(features).compute_convergence_delta(x, None, x, target)


def test_an_output_of_several_axes_wants_as_many_indices() -> None:
    with pytest.raises(ValueError, match=r"^target: wanted a tuple of 2 indices, .* scores \(2, 3\) .* got one index"):
        IntegratedGradients(grid).attribute(noise(2, 3), target=1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"inputs": [noise(2, 3)]}, "inputs: wanted a tensor .* got list"),
        ({"inputs": ()}, "inputs: wanted a tensor"),
        ({"inputs": torch.tensor(1.0)}, "inputs: wanted a tensor"),
        ({"inputs": noise(2, 3).to(torch.complex64)}, "inputs: wanted a tensor .* of real numbers"),
        ({"inputs": noise(0, 3)}, "inputs: wanted at least one row"),
        ({"inputs": (noise(2, 3), noise(3, 3))}, "inputs: wanted at least one row, and as many of each"),
        ({"baselines": lambda x: x}, r"baselines: wanted a number or a tensor .* got function"),
        ({"baselines": np.zeros((2, 3))}, "baselines: wanted a number or a tensor .* got .2, 3. float64"),
        ({"baselines": "black"}, "baselines: wanted a number or a tensor .* got str"),
        ({"baselines": noise(3, 3)}, r"baselines: .* broadcasts to \(2, 3\), got \(3, 3\)"),
        ({"baselines": (0, 0)}, "baselines: wanted 1, one for each input, got 2"),
        ({"additional_forward_args": noise(3)}, r"additional_forward_args: wanted a row for each of 2 inputs"),
        ({"n_steps": 0}, "n_steps: wanted a whole number from 1, got 0"),
        ({"n_steps": 2.5}, "n_steps: wanted a whole number from 1, got 2.5"),
        ({"n_steps": 1, "method": "riemann_trapezoid"}, "n_steps: wanted a whole number from 2, got 1"),
        ({"method": "simpson"}, "method: wanted one of gausslegendre, riemann_middle, .* got 'simpson'"),
        ({"internal_batch_size": 0}, "internal_batch_size: wanted a whole number from 1, got 0"),
    ],
)
def test_arguments_that_do_not_fit(call: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        IntegratedGradients(features).attribute(**({"inputs": noise(2, 3), "target": 0} | call))


@pytest.mark.parametrize("output", [lambda x: x.sum(), lambda x: x[:1], lambda x: {"logits": x}, lambda x: (x, x)])
def test_an_output_without_a_row_for_each_input(output: Callable[[Tensor], Any]) -> None:
    with pytest.raises(ValueError, match=r"^forward_func: wanted a tensor with a row for each of "):
        IntegratedGradients(output).attribute(noise(2, 3), target=0)


@pytest.mark.parametrize("make", [IntegratedGradients, IntegratedDirectionalGradients])
def test_further_arguments_follow_their_rows_through_the_chunks(make: Any) -> None:
    """Each row is scaled by its own factor, which chunks, that cut the rows' paths, must not mix up."""

    def scaled(x: Tensor, factor: Tensor) -> Tensor:
        return x.square().flatten(1).sum(1) * factor

    x, factors = noise(5, 1, 2, 2), torch.tensor([1.0, 10, 100, 1000, 10000], dtype=torch.float64)
    whole = make(scaled).attribute(x, additional_forward_args=factors)
    assert near(whole / factors.view(-1, 1, 1, 1), make(lambda x: x.square().flatten(1).sum(1)).attribute(x), 1e-12)
    for size in (1, 2, 7, 64):
        assert near(make(scaled).attribute(x, additional_forward_args=factors, internal_batch_size=size), whole, 1e-12)


@pytest.mark.parametrize("make", [IntegratedGradients, IntegratedDirectionalGradients])
@pytest.mark.parametrize("as_tuple", [False, True])
@pytest.mark.parametrize("nt_type", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_noise_tunnel(make: Any, as_tuple: bool, nt_type: str) -> None:
    network, x = smooth_network(), noise(2, 3, 8, 8)
    call: dict[str, Any] = {"target": [0, 2], "n_steps": 4, "baselines": noise(2, 3, 8, 8, seed=1)}
    call |= {"nt_type": nt_type, "nt_samples": 3, "nt_samples_batch_size": 2, "return_convergence_delta": True}
    masks = torch.arange(64).view(8, 8).div(16, rounding_mode="floor").expand(2, 1, 8, 8)
    of_groups = {"feature_mask": masks} if make is IntegratedDirectionalGradients else {}
    torch.manual_seed(0)
    got, delta = NoiseTunnel(make(network)).attribute((x,) if as_tuple else x, **call, **of_groups)
    assert isinstance(got, tuple) is as_tuple and delta.shape == (6,)
    got = got[0] if as_tuple else got
    if of_groups:
        assert got.shape == (2, 1, 8, 8) and got.any()
        return
    torch.manual_seed(0)
    expected, expected_delta = NoiseTunnel(Captums(network)).attribute(x, **call)
    assert near(got, expected, 1e-5) and near(delta, expected_delta, 1e-5)


def test_metrics() -> None:
    network, x = smooth_network(), noise(2, 3, 8, 8)
    torch.manual_seed(0)
    ours = sensitivity_max(IntegratedGradients(network).attribute, x, target=1, n_steps=4)
    torch.manual_seed(0)
    assert near(ours, sensitivity_max(Captums(network).attribute, x, target=1, n_steps=4), 1e-4)
    assert sensitivity_max(IntegratedDirectionalGradients(network).attribute, x, target=1, n_steps=4).shape == (2,)

    def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
        noise = 0.1 * torch.ones_like(inputs)
        return noise, inputs - noise

    model = linear(noise(192))
    weights = IntegratedGradients(model, multiply_by_inputs=False).attribute(x, target=1)
    assert infidelity(model, perturb, x, weights, target=1).abs().max() < 1e-20  # exact for a linear model


@pytest.mark.parametrize("wrapped", [torch.jit.script, lambda net: torch.jit.trace(net, noise(2, 3)), nn.DataParallel])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_scripted_traced_and_parallel_networks(wrapped: Callable[[nn.Module], Any]) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    x = noise(2, 3)
    expected = IntegratedGradients(network).attribute(x, target=[0, 1])
    assert near(IntegratedGradients(wrapped(network)).attribute(x, target=[0, 1]), expected, 1e-12)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert not any(module._forward_hooks or module._backward_hooks for module in network.modules())


def test_there_are_no_futures() -> None:
    with pytest.raises(NotImplementedError):
        IntegratedGradients(features).attribute_future()


HALVES = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1]])


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool, torch.float32, torch.float16])
@pytest.mark.parametrize(
    "shaped",
    [
        lambda mask: mask,
        lambda mask: mask[None],
        lambda mask: mask.expand(2, 2, 4),
        lambda mask: mask[None, None],
        lambda mask: mask.expand(1, 3, 2, 4),
        lambda mask: mask.expand(2, 1, 2, 4),
        lambda mask: mask.expand(2, 3, 2, 4),
        lambda mask: mask[:1],
        lambda mask: (mask[None, None],),
    ],
)
def test_feature_masks_of_all_shapes_and_dtypes(shaped: Callable[[Tensor], Any], dtype: torch.dtype) -> None:
    """Two groups of (2, 2) pixels in three channels: Σ IG over each, divided by ‖Δ‖ of it."""
    x, weights = noise(2, 3, 2, 4), noise(24, seed=1)
    method = IntegratedDirectionalGradients(linear(weights))
    got, delta = method.attribute(x, target=0, feature_mask=shaped(HALVES.to(dtype)), return_convergence_delta=True)
    shares = (x * weights.view(3, 2, 4)).sum(1).view(2, 2, 2, 2).sum((1, 3))  # (N, 2 groups)
    norms = x.square().sum(1).view(2, 2, 2, 2).sum((1, 3)).sqrt()
    torch.testing.assert_close(got[:, 0], (shares / norms)[:, None, :].repeat_interleave(2, 2).expand(2, 2, 4))
    again = method.compute_convergence_delta(got, None, x, 0, feature_mask=shaped(HALVES.to(dtype)))
    assert delta.abs().max() < 1e-12 and again.abs().max() < 1e-12


def test_labels_are_but_names() -> None:
    """Labels of any size cost no more memory than small ones, and each image may have its own."""
    x = noise(2, 3, 2, 4)
    method = IntegratedDirectionalGradients(linear(noise(24, seed=1)))
    masks = torch.stack([HALVES, torch.zeros_like(HALVES)])
    expected = method.attribute(x, target=0, feature_mask=masks)
    assert torch.equal(method.attribute(x, target=0, feature_mask=masks * 10**15 + 7), expected)
    for b in range(2):
        torch.testing.assert_close(method.attribute(x[[b]], target=0, feature_mask=masks[b]), expected[[b]])


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.arange(3)[:, None, None].expand(3, 2, 4)[None], "wanted the same groups in all channels"),
        (HALVES + 0.5, "wanted whole numbers"),
        (HALVES * float("nan"), "wanted whole numbers"),
        (HALVES + float("inf"), "wanted whole numbers"),
        (HALVES - 1, "wanted labels from 0, got -1"),
        (HALVES.float() - 1, "wanted labels from 0, got -1"),
        (HALVES.T, r"wanted \(H, W\), \(N, H, W\) or .* for inputs \(2, 3, 2, 4\), got \(4, 2\)"),
        (HALVES.expand(3, 2, 4), r"wanted \(H, W\), .* got \(3, 2, 4\)"),
        (HALVES.expand(2, 2, 2, 4), r"wanted \(H, W\), .* got \(2, 2, 2, 4\)"),
        (HALVES.flatten(), r"wanted \(H, W\), .* got \(8,\)"),
        (HALVES.numpy(), r"wanted \(H, W\), "),
        ((HALVES, HALVES), r"wanted \(H, W\), "),
        (HALVES.to(torch.complex64), r"wanted \(H, W\), "),
    ],
)
def test_feature_masks_that_do_not_fit(mask: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^feature_mask: {message}"):
        IntegratedDirectionalGradients(linear(noise(24))).attribute(noise(2, 3, 2, 4), target=0, feature_mask=mask)


@pytest.mark.parametrize("inputs", [noise(2, 3), (noise(2, 3, 2, 4), noise(2, 3, 2, 4)), noise(2, 3, 4)])
def test_groups_are_of_the_pixels_of_one_image(inputs: object) -> None:
    with pytest.raises(ValueError, match=r"^inputs: wanted one tensor \(N, C, H, W\), as groups are of its pixels"):
        IntegratedDirectionalGradients(lambda *rows: features(rows[0])).attribute(inputs, target=0)


def test_a_directional_gradient_is_along_the_inputs() -> None:
    with pytest.raises(ValueError, match=r"^multiply_by_inputs: wanted True"):
        IntegratedDirectionalGradients(features, multiply_by_inputs=False)
    x = noise(2, 3, 2, 4)
    plain = IntegratedDirectionalGradients(features)
    assert plain.multiplies_by_inputs and plain.has_convergence_delta()
    (as_tuple,) = plain.attribute((x,), target=0, baselines=(0.1,))
    assert torch.equal(as_tuple, plain.attribute(x, target=0, baselines=0.1))
    with pytest.raises(ValueError, match=r"^attributions: wanted directional gradients \(2, 1, 2, 4\)"):
        plain.compute_convergence_delta(x, None, x, 0)
