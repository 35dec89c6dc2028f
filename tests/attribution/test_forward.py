"""Every method on models, tensors and modes in whatever state a caller may have them."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import imagexplain.attribution as library
from imagexplain.attribution.captum_adapter import IntegratedDirectionalGradients, IntegratedGradients
from imagexplain.attribution.methods.gradient import gradient
from imagexplain.attribution.network.forward import MAX_ITEMS, class_scores, evaluation_mode, modules_of, rows_at_once
from imagexplain.attribution.paths.adaptive import integrate_adaptive
from imagexplain.attribution.paths.path_integral import integrate
from imagexplain.attribution.paths.quadrature import quadrature
from imagexplain.attribution.runner import channels_of
from imagexplain.errors import UnsupportedModelError
from tests.attribution.every_method import OF_ATTENTION, OPTIONS
from tests.attribution.inputs import float_images
from tests.attribution.networks import assert_untouched, footprint, prepared, vit

CLASSES = [2, 0, 1]
Method = Callable[..., Tensor]


def _integrate(model: Any, inputs: Tensor, classes: list[int]) -> Tensor:
    rules = [quadrature("midpoint", 5)] * 3
    found = integrate(model, inputs, torch.zeros_like(inputs), torch.tensor(classes), rules, chunk=4)
    return torch.stack([one.attribution for one in found])


def _refine(model: Any, inputs: Tensor, classes: list[int]) -> Tensor:
    begin, tolerances = torch.zeros_like(inputs), torch.full((3,), 0.1)
    found = integrate_adaptive(model, inputs, begin, torch.tensor(classes), [None] * 3, tolerances, chunk=4, most=9)
    return torch.stack([one.integral.attribution for one in found])


METHODS: dict[str, Method] = {
    **{name: partial(getattr(library, name), **OPTIONS.get(name, {})) for name in library.METHODS},
    "smooth": lambda model, inputs, classes: library.smooth(gradient, model, inputs, classes, samples=3),
    "integrate": _integrate,
    "refine": _refine,
    "captum": lambda model, inputs, classes: IntegratedGradients(model).attribute(inputs, target=classes, n_steps=5),
    "captum_directional": lambda model, inputs, classes: IntegratedDirectionalGradients(model).attribute(
        inputs, target=classes, n_steps=5
    ),
}
BY_MODULE = {name for name in library.METHODS if library.METHODS[name].needs_module}
WITHOUT_GRADIENTS = {
    "ss_cam",
    "fem",
    "kpca_cam",
    "lime",
    "ablation_cam",
    "eigen_cam",
    "feature_ablation",
    "gaussian_shap",
    "kernel_shap",
    "occlusion",
    "rise",
    "score_cam",
    "shapley_sampling",
}
BY_RULES = {"attn_lrp", "libra_grad", "transformer_attribution"}
"""Methods with a backward rule for each function that a network may call."""

every_method = pytest.mark.parametrize("name", METHODS)


class Convolutional(nn.Module):
    """A network that answers otherwise in train(), by batch norms and dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5)]
        self.features = prepared(nn.Sequential(*layers, nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()), torch.float32)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(32, 4)).eval()

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.features(x))
        return scores


def network_for(name: str) -> Any:  # whose parts the tests look into
    """A fresh network with four classes that the method supports, in eval()."""
    if name not in OF_ATTENTION:
        return Convolutional().eval()
    transformer = vit(size=(8, 8), patch_size=2, dtype=torch.float32, drop_rate=0.5, proj_drop_rate=0.5)
    return nn.Sequential(transformer, nn.Linear(5, 4)).eval()


def outcome(name: str, model: Any, inputs: Tensor) -> Tensor | str:
    """The maps, or the message of a ValueError."""
    try:
        return METHODS[name](model, inputs, CLASSES)
    except ValueError as error:
        return str(error)


def assert_same(got: Tensor | str, expected: Tensor | str, limit: float = 0.0) -> None:
    if isinstance(got, str) or isinstance(expected, str):
        assert got == expected
        return
    assert not got.requires_grad and got.dtype == expected.dtype and expected.any()
    assert (got - expected).abs().max() <= limit * expected.abs().max()


class Around(nn.Module):
    """A network behind, or before, a function."""

    def __init__(self, network: nn.Module, before: Any = lambda x: x, after: Any = lambda scores: scores) -> None:
        super().__init__()
        self.network, self.before, self.after = network, before, after

    def forward(self, x: Tensor) -> Any:
        return self.after(self.network(self.before(x)))


def _written(x: Tensor) -> Tensor:
    """A copy's values by way of many operations in place; the shape too changes for a while."""
    return x.unsqueeze_(0).mul_(2).squeeze_(0).sub_(0.9).div_(0.45)


@every_method
@pytest.mark.parametrize("before", [lambda x: x.sub_(0.45).div_(0.225), _written])
def test_a_model_that_writes_into_its_input(name: str, before: Callable[[Tensor], Tensor]) -> None:
    model, inputs = network_for(name), float_images()
    wanted = outcome(name, Around(model, lambda x: (x - 0.45) / 0.225), float_images())
    assert_same(outcome(name, Around(model, before), inputs), wanted, 1e-5)
    assert torch.equal(inputs, float_images())


@every_method
@pytest.mark.parametrize("frozen", [False, True])
def test_a_model_in_training(name: str, frozen: bool) -> None:
    """Also with batch norms in eval() within a model in train(), as in fine-tuning."""
    model = network_for(name)
    wanted = outcome(name, model, float_images())
    model.train()
    for module in model.modules():
        if frozen and isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            module.eval()
    before = footprint(model)
    assert_same(outcome(name, model, float_images()), wanted)
    assert_untouched(before, model)


@every_method
def test_a_model_in_training_behind_a_function(name: str) -> None:
    if name in BY_MODULE:
        assert str(outcome(name, network_for(name).forward, float_images())).startswith("model: wanted a module")
        return
    model = network_for(name)
    wanted = outcome(name, model, float_images())
    before = footprint(model.train())
    for function in (model.forward, lambda x: model(x), partial(_applied, model)):
        assert_same(outcome(name, function, float_images()), wanted)
    assert_untouched(before, model)


def _applied(model: nn.Module, x: Tensor) -> Tensor:
    scores: Tensor = model(x)
    return scores


@every_method
@pytest.mark.parametrize("trainable", [False, True])
def test_parameters_and_their_gradients_are_untouched(name: str, trainable: bool) -> None:
    model = network_for(name).requires_grad_(trainable)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = footprint(model)
    wanted = outcome(name, network_for(name).requires_grad_(not trainable), float_images())
    assert_same(outcome(name, model, float_images()), wanted)
    assert_untouched(before, model)
    assert all(bool((parameter.grad == 1).all()) for parameter in model.parameters() if parameter.grad is not None)


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "enable_grad": torch.enable_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float64 by default": lambda: default_dtype(torch.float64),
}


@every_method
@pytest.mark.parametrize("mode", MODES)
def test_the_callers_mode_does_not_matter(name: str, mode: str) -> None:
    """With autocast, maps are those of the model in its own precision."""
    model = network_for(name)
    inputs, wanted = float_images(), outcome(name, model, float_images())
    with MODES[mode]():
        grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        assert_same(outcome(name, model, inputs), wanted)
        assert_same(outcome(name, model, inputs.clone()), wanted)  # in inference mode, made within it
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == (grad, inference)


def _with_gradient() -> Tensor:
    inputs = float_images().requires_grad_()
    inputs.grad = torch.full_like(inputs, 7.0)
    return inputs


def _inference() -> Tensor:
    with torch.inference_mode():
        return float_images().clone()


STATES: dict[str, Callable[[], Tensor]] = {
    "leaf with a gradient": _with_gradient,
    "not a leaf": lambda: float_images().requires_grad_() * 1,
    "parameter": lambda: nn.Parameter(float_images()),
    "made in inference mode": _inference,
    "channels_last": lambda: float_images().to(memory_format=torch.channels_last),
    "with gaps": lambda: torch.stack([float_images(), float_images()], dim=4)[..., 0],
    "transposed": lambda: float_images().transpose(2, 3).contiguous().transpose(2, 3),
}


@every_method
@pytest.mark.parametrize("state", STATES)
def test_the_images_state_does_not_matter(name: str, state: str) -> None:
    inputs = STATES[state]()
    strides, wanted = inputs.stride(), outcome(name, network_for(name), float_images())
    assert_same(outcome(name, network_for(name), inputs), wanted, 1e-5)
    assert torch.equal(inputs, float_images()) and inputs.stride() == strides
    if inputs.is_leaf and inputs.grad is not None:
        assert bool((inputs.grad == 7).all())


@every_method
def test_expanded_images(name: str) -> None:
    inputs = float_images()[:1].expand(3, -1, -1, -1)
    writing, plain = (Around(network_for(name), before) for before in (lambda x: x.mul_(2), lambda x: x * 2))
    assert_same(outcome(name, writing, inputs), outcome(name, plain, inputs.contiguous()), 1e-5)
    assert torch.equal(inputs[0], float_images()[0])


@every_method
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-4), (torch.bfloat16, 0.3), (torch.float16, 0.1)])
def test_precisions(name: str, dtype: torch.dtype, limit: float) -> None:
    if name == "deep_lift" and dtype != torch.float64:
        return  # what half precision misses of the score is more than it accepts
    wanted = outcome(name, network_for(name), float_images())
    options = {
        key: value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value
        for key, value in OPTIONS.get(name, {}).items()
    }
    method = partial(METHODS[name], **options) if name in library.METHODS else METHODS[name]
    got = method(network_for(name).to(dtype), float_images().to(dtype), CLASSES)
    assert isinstance(wanted, Tensor) and got.isfinite().all()
    assert got.dtype in (dtype, torch.float32)
    assert (got.double() - wanted).abs().mean() <= limit * wanted.abs().mean()


@every_method
def test_images_that_the_model_cannot_take(name: str) -> None:
    assert str(outcome(name, network_for(name).double(), float_images())).startswith(
        "images: wanted torch.float64 like the model's parameters, got torch.float32"
    )
    meta = network_for(name).to("meta")
    assert str(outcome(name, meta, float_images())).startswith(
        "images: wanted them on meta like the model's parameters"
    )


OUTPUT = namedtuple("OUTPUT", "a b")
OUTPUTS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "dict": (lambda scores: {"logits": scores, "aux": scores}, "a dict of logits, aux; wrap the model .*'logits'"),
    "model output": (lambda scores: OrderedDict(logits=scores), "an? OrderedDict of logits; wrap the model"),
    "tuple": (lambda scores: (scores, scores), r"a tuple of Tensor, Tensor; wrap the model .* output\[0\]"),
    "named": (lambda scores: OUTPUT(scores, 1), "a OUTPUT of Tensor, int; wrap the model"),
    "list": (lambda scores: [scores], "a list of Tensor; wrap"),
    "none": (lambda scores: None, "NoneType; wrap"),
    "number": (lambda scores: 1.0, "float; wrap"),
    "array": (lambda scores: scores.detach().numpy(), "ndarray; wrap"),
    "one dimension": (lambda scores: scores[:, 0], r"\(\d+,\) for \d+ images"),
    "three dimensions": (lambda scores: scores.unsqueeze(2), r"\(\d+, 4, 1\) for \d+ images"),
    "another row": (lambda scores: torch.cat([scores, scores[:1]]), r"\(\d+, 4\) for \d+ images"),
    "no class": (lambda scores: scores[:, :0], r"\(\d+, 0\) for \d+ images"),
    "integers": (lambda scores: scores.long(), r"torch.int64"),
    "complex": (lambda scores: scores.to(torch.complex64), r"torch.complex64"),
    "meta": (lambda scores: scores.to("meta"), "them on the meta device"),
}


@every_method
@pytest.mark.parametrize("kind", OUTPUTS)
def test_outputs_that_are_no_scores(name: str, kind: str) -> None:
    if name.startswith("captum") and kind in ("one dimension", "three dimensions"):
        return  # one score for a row, or for a class of it, is enough there
    after, words = OUTPUTS[kind]
    begin = r"model: wanted scores \(B, classes\)"
    if name.startswith("captum") and kind not in ("integers", "complex"):
        none_there = kind == "no class"
        begin = "target: wanted" if none_there else r"forward_func: wanted a tensor with a row for each of \d+ inputs"
        words = "" if none_there else words.removesuffix(r" for \d+ images")
    model = Around(network_for(name), after=after)
    before = footprint(model)
    with pytest.raises(ValueError, match=rf"^{begin}.*, got.* {words}"):
        METHODS[name](model, float_images(), CLASSES)
    assert_untouched(before, model)


@every_method
@pytest.mark.parametrize("how", ["no_grad", "inference_mode", "detached"])
def test_scores_without_a_graph(name: str, how: str) -> None:
    model = network_for(name)
    if how == "detached":
        broken: nn.Module = Around(model, after=lambda scores: scores.detach())
    else:
        broken = Around(model)
        broken.forward = getattr(torch, how)()(broken.forward)  # type: ignore[method-assign]
    if name in WITHOUT_GRADIENTS:
        layer = {"layer": "network.features.5"} if name in BY_MODULE else {}
        METHODS[name](broken, float_images(), CLASSES, **layer)
        return
    with pytest.raises(ValueError, match=r"^model: wanted (scores that autograd knows|a transformer)"):
        METHODS[name](broken, float_images(), CLASSES)
    if name in BY_MODULE - OF_ATTENTION - {"full_grad"}:
        with pytest.raises(ValueError, match=r"^model: wanted scores that autograd knows"):
            METHODS[name](broken, float_images(), CLASSES, layer="network.features.5")


class Reused(nn.Module):
    """Scores in a tensor that the next call overwrites, as a compiled graph's static output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.kept: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        scores = self.network(x)
        kept = self.kept.setdefault(len(x), torch.empty(scores.shape)).detach_()
        return kept.copy_(scores)


@every_method
def test_scores_that_the_next_call_overwrites(name: str) -> None:
    if name in BY_RULES:
        with pytest.raises(UnsupportedModelError, match="copy_"):
            METHODS[name](Reused(network_for(name)), float_images(), CLASSES)
        return
    chunked = {"occlusion", "kernel_shap", "gaussian_shap", "rise", "score_cam", "ablation_cam"}
    options = {"chunk": 1} if name in chunked else {}
    wanted = METHODS[name](network_for(name), float_images(), CLASSES, **options)
    assert_same(METHODS[name](Reused(network_for(name)), float_images(), CLASSES, **options), wanted, 1e-5)


@every_method
def test_scores_that_are_a_part_of_the_input(name: str) -> None:
    if name in BY_MODULE or name == "guided_backprop":
        return  # without layers and ReLUs there is nothing to look at
    flat, copied = (lambda x: x.flatten(1)[:, :4]), (lambda x: x.flatten(1)[:, :4].clone())
    assert_same(outcome(name, flat, float_images()), outcome(name, copied, float_images()))


class Counting(nn.Module):
    """A network that counts its calls in a buffer of the state dict and changes its parts' modes as it runs."""

    calls: Tensor
    mean: Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(3))
        self.flag = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.mean = self.mean * 0.9 + x.detach().mean((0, 2, 3)) * 0.1
        self.flag.train()
        scores: Tensor = self.network(x)
        return scores


@every_method
def test_a_model_that_keeps_state(name: str) -> None:
    model = Counting(network_for(name)).eval()
    before = footprint(model)
    assert_same(outcome(name, model, float_images()), outcome(name, network_for(name), float_images()))
    assert_untouched(before, model)


@every_method
def test_hooks_and_modes_after_a_model_that_raises(name: str) -> None:
    seen: list[int] = []

    def broken(scores: Tensor) -> Tensor:
        raise KeyError("broken")

    model = Around(network_for(name), after=broken).train()
    handle = model.network.register_forward_hook(lambda *_: seen.append(1))
    before = footprint(model)
    with pytest.raises(KeyError, match="broken"):
        METHODS[name](model, float_images(), CLASSES)
    assert_untouched(before, model)
    assert seen and handle.id in model.network._forward_hooks


@every_method
def test_a_model_that_gives_nan_for_one_image(name: str) -> None:
    """The others' maps are as ever, and its own is not made up."""
    model = network_for(name)
    spoilt = float_images()
    spoilt[1, 0, 0, 0] = torch.nan
    wanted, got = METHODS[name](model, float_images(), CLASSES), METHODS[name](model, spoilt, CLASSES)
    assert_same(got[[0, 2]], wanted[[0, 2]], 1e-5)
    assert got[1].isnan().any()


@every_method
@pytest.mark.parametrize("kind", ["parallel", "spectral norm", "without parameters"])
def test_kinds_of_model(name: str, kind: str) -> None:
    model = network_for(name)
    if kind == "parallel":
        assert_same(outcome(name, nn.DataParallel(model), float_images()), outcome(name, model, float_images()))
    elif kind == "spectral norm":
        if name == "full_grad":
            return
        nn.utils.parametrizations.spectral_norm(model[1] if isinstance(model, nn.Sequential) else model.features[0])
        wanted, before = outcome(name, model.eval(), float_images()), footprint(model)
        assert_same(outcome(name, model.train(), float_images()), wanted)
        assert_untouched(before, model.eval())
    elif name not in BY_MODULE and name != "guided_backprop":
        pooled = nn.Sequential(nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        assert_same(outcome(name, pooled.train(), float_images()), outcome(name, pooled.eval(), float_images()))


@pytest.mark.parametrize("name", sorted(set(METHODS) - BY_MODULE - {"guided_backprop", "deep_lift", "lrp"}))
@pytest.mark.parametrize("how", ["script", "trace"])
def test_scripts(name: str, how: str) -> None:
    """Functions that methods replace while a model runs are not seen in a script."""
    model = network_for(name)
    plain = nn.Sequential(model.features, model.head)
    plain.eval()
    script = torch.jit.script(plain) if how == "script" else torch.jit.trace(plain, float_images())
    modes = [module.training for module in script.train().modules()]
    assert_same(outcome(name, script, float_images()), outcome(name, plain, float_images()), 1e-5)
    assert [module.training for module in script.modules()] == modes and any(modes)


def test_a_compiled_model_in_training() -> None:
    model = network_for("gradient").train()
    compiled: Any = torch.compile(model, backend="eager")
    maps = library.gradient(compiled, float_images(), CLASSES)
    assert model.training and compiled.training and model.features[3].training
    assert_same(maps, library.gradient(model.eval(), float_images(), CLASSES), 1e-6)


LEARNT = nn.Sequential(nn.Flatten(), nn.Dropout(0.5))
MANY = [LEARNT]


class Held:
    """A network as an attribute of an object, called or by a method."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def __call__(self, x: Tensor) -> Tensor:
        return self.scores(x)

    def scores(self, x: Tensor) -> Tensor:
        scores: Tensor = self.held(x)
        return scores

    def closure(self) -> Callable[[Tensor], Tensor]:
        return lambda x: self.scores(x)


def _ways(net: nn.Module) -> dict[str, Any]:
    nets = {"a": [net]}

    def by_default(x: Tensor, inner: Any = net) -> Any:
        return inner(x)

    return {
        "itself": net,
        "forward": net.forward,
        "call": net.__call__,
        "partial": partial(_applied, net),
        "partial's name": partial(lambda x, inner: inner(x), inner=net),
        "closure": lambda x: net(x),
        "closure in a closure": lambda x: (lambda y: net(y))(x),
        "containers": lambda x: nets["a"][0](x),
        "default": by_default,
        "object": Held(net),
        "method": Held(net).scores,
        "method's closure": Held(net).closure(),
        "partial in an object": Held(partial(_applied, net)),
        "no_grad": torch.no_grad()(net.forward),
    }


@pytest.mark.parametrize("way", _ways(nn.Identity()))
def test_ways_to_a_module(way: str) -> None:
    net = nn.Sequential(nn.Dropout(), nn.Flatten())
    assert {id(module) for module in modules_of(_ways(net)[way])} == {id(module) for module in net.modules()}


def test_modules_by_global_variables() -> None:
    for function in (lambda x: LEARNT(x), lambda x: [net(x) for net in MANY], lambda x: _by_name(x)):
        assert LEARNT[1] in modules_of(function)


def _by_name(x: Tensor) -> Tensor:
    return LEARNT(x)


def test_nothing_is_looked_for_in_what_cannot_lead_to_a_module() -> None:
    here: list[Any] = [0] * MAX_ITEMS + [LEARNT]
    later: Any

    def unbound(x: Tensor) -> Any:
        return later(x), here

    assert modules_of(unbound) == modules_of(torch.relu) == modules_of(None) == []
    later = LEARNT
    assert LEARNT in modules_of(unbound)
    here.append(here)


def test_a_class_that_does_more_in_train_is_not_asked_to() -> None:
    """Detectors freeze stages in train(), adapters merge weights."""

    class Freezing(nn.Sequential):
        def train(self, mode: bool = True) -> Freezing:
            raise AssertionError("called")

    model = Freezing(nn.Conv2d(3, 2, 3), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with evaluation_mode(list(model.modules())):
        assert not any(module.training for module in model.modules())
    assert all(module.training for module in model.modules())


def test_a_cache_that_the_model_grows_is_left_to_it() -> None:
    class Rotary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.zeros(1), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            self.table = torch.arange(4.0)
            return x.flatten(1)[:, :4] * self.table

    model = Rotary()
    library.gradient(model, float_images(), 1)
    assert model.table.tolist() == [0, 1, 2, 3]


def test_autocast_of_the_models_own_stays() -> None:
    model = network_for("gradient")

    def scores(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            out: Tensor = model(x)
        assert out.dtype == torch.bfloat16
        return out

    with torch.autocast("cpu", torch.bfloat16):
        maps = library.integrated_gradients(scores, float_images(), CLASSES, steps=3)
        assert torch.is_autocast_enabled("cpu")
    assert maps.dtype == torch.float32 and maps.isfinite().all()


def test_a_map_to_train_with_is_differentiable_whatever_the_mode() -> None:
    model = network_for("gradient").requires_grad_().train()
    for mode in (nullcontext, torch.no_grad, torch.inference_mode):
        with mode():
            maps = library.integrated_gradients(model, float_images(), 1, steps=2, create_graph=True)
        assert maps.requires_grad
        maps.square().sum().backward()
        assert model.features[0].weight.grad is not None


def test_nodes_made_in_inference_mode_serve_outside_it() -> None:
    quadrature.cache_clear()
    with torch.inference_mode():
        rule = quadrature("midpoint", 3)
    assert not rule.nodes.is_inference() and not rule.weights.is_inference()


def test_parameters_that_cannot_be_frozen_are_left_alone() -> None:
    plain, derived, lazy = nn.Linear(192, 4), nn.Linear(4, 4), nn.LazyLinear(5)
    factor = torch.ones(4, 4, requires_grad=True)
    parameters: dict[str, Any] = derived._parameters
    parameters["weight"] = factor * 2  # no leaf, as torch.func.functional_call sets them
    flags: list[bool] = []
    plain.register_forward_hook(lambda *_: flags.append(plain.weight.requires_grad or plain.bias.requires_grad))
    assert library.gradient(nn.Sequential(nn.Flatten(), plain, derived, lazy), float_images(), 1).any()
    assert flags == [False] and plain.weight.requires_grad and plain.bias.requires_grad
    assert derived.weight.requires_grad and lazy.weight.requires_grad


def test_parameters_made_in_inference_mode() -> None:
    with torch.inference_mode():
        model = network_for("gradient")
    assert library.occlusion(model, float_images(), 1, size=3, stride=2).any()
    with pytest.raises(ValueError, match=r"^model: wanted parameters that gradients can be taken with"):
        library.gradient(model, float_images(), 1)


@pytest.mark.parametrize("name", library.METHODS)
@pytest.mark.parametrize("given", [torch.zeros(3, 3, 8, 8, dtype=torch.uint8), torch.zeros(3, 8, 8), [[1.0]]])
def test_what_is_no_batch_of_images(name: str, given: Any) -> None:
    with pytest.raises(ValueError, match=r"^images: wanted"):
        METHODS[name](network_for(name), given, CLASSES)


def test_channels_of_a_layer_of_a_model_in_training() -> None:
    model = network_for("grad_cam").train()
    before = footprint(model)
    assert channels_of(model, float_images(), "features.1") == 6
    assert_untouched(before, model)


def test_scores_are_a_copy_of_a_copy() -> None:
    inputs = float_images()
    seen: list[Tensor] = []

    def scores(x: Tensor) -> Tensor:
        seen.append(x)
        return x.flatten(1)

    got = class_scores(scores, inputs)
    assert seen[0].data_ptr() != inputs.data_ptr() and got.data_ptr() != seen[0].data_ptr()
    assert seen[0].stride() == inputs.stride()


class _Unregistered(nn.Module):
    """A network that keeps a norm in a plain list, which torch takes for no part of it, and another in a function."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.norms = [nn.BatchNorm2d(4)]
        last = nn.BatchNorm2d(4)
        self.tail = lambda maps: last(maps)
        self.last = {"norm": [last]}

    def forward(self, images: Tensor) -> Tensor:
        return self.tail(self.norms[0](self.stem(images))).relu().mean((2, 3))


def test_modules_that_a_module_keeps_unregistered_are_found() -> None:
    """Left in train(), they would take their statistics from the chunk, and change them."""
    network = _Unregistered()
    norms = [network.norms[0], network.last["norm"][0]]
    means = [norm.get_buffer("running_mean") for norm in norms]
    assert {*norms, network, network.stem} == set(modules_of(network))
    images = torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    before = [mean.clone() for mean in means]
    expected = library.occlusion(network, images, 0, size=3, stride=3)
    assert all(norm.training for norm in norms)
    for norm in norms:
        norm.eval()
    assert torch.equal(library.occlusion(network, images, 0, size=3, stride=3), expected)
    assert all(map(torch.equal, means, before))


@pytest.mark.parametrize(
    ("count", "chunk", "side", "expected"),
    [(40, 32, 64, 32), (40, 6, 224, 6), (40, 32, 224, 8), (10, 32, 224, 5), (3, 32, 1000, 1), (0, 32, 224, 32)],
)
def test_a_cpu_evaluates_fewer_large_images_at_once(count: int, chunk: int, side: int, expected: int, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert rows_at_once(count, chunk, torch.zeros(1, 3, side, side)) == expected
    assert rows_at_once(count, chunk, torch.zeros(1, 3, side, side, device="meta")) == chunk


@pytest.mark.parametrize("made", [vit, lambda: nn.Sequential(one := nn.ReLU(), nn.Sequential(nn.Tanh(), one))])
def test_modules_are_found_in_the_order_of_torchs_own_search(made: Callable[[], nn.Module]) -> None:
    assert modules_of(model := made()) == list(model.modules())
