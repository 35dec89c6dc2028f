import copy

import pytest
import torch
from timm.layers import StdConv2d
from torch import nn

from benchmarks import deterministic
from imagexplain import models
from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.classifiers import lanet
from imagexplain.models.head import Head, attach
from imagexplain.models.optimize.folded_lanet import EvenAndOdd, RectifiedStack
from imagexplain.models.optimize.folding import fold
from tests.models.reference import EXPLAINED, FIXTURES, distance, explained, gradients, integrated, shapes


def build(architecture: str) -> nn.Module:
    if architecture == "bit":
        return models.build("bit", deterministic.state(shapes("bit/tiny_1111_keys.json")))
    return models.build("lanet", checkpoint.read(FIXTURES / "lanet/C8_L4_calib.pth"))


both = pytest.mark.parametrize("architecture", ["bit", "lanet"])


@both
def test_outputs_and_gradients_stay_equal_in_float64(architecture: str) -> None:
    model = build(architecture).double()
    folded = fold(model)
    images = explained(EXPLAINED[architecture]).intermediates[::5].double()
    assert distance(folded(images), model(images)) < 1e-10
    assert distance(gradients(folded, images), gradients(model, images)) < 1e-10


@both
def test_outputs_and_gradients_stay_equal_in_float32(architecture: str) -> None:
    """But for points on a ReLU's kink, where one-sided derivatives differ: seen at 3 of LaNet's 50, none of BiT's."""
    model = build(architecture)
    folded = fold(model)
    expected = explained(EXPLAINED[architecture])
    images = expected.intermediates
    assert distance(folded(images), model(images)) < 1e-5
    given, wanted = gradients(folded, images), gradients(model, images)
    errors = sorted(map(distance, given, wanted))
    assert errors[40] < 1e-5
    assert errors[-1] < 0.1
    error = (integrated(expected, given) - integrated(expected, wanted)).abs().max()
    assert error < 1e-4 * integrated(expected, wanted).abs().sum()


@both
def test_a_head_is_the_folded_models_too(architecture: str) -> None:
    model, images = build(architecture), explained(EXPLAINED[architecture]).intermediates[:3]
    plain = fold(model)(images)
    assert fold(attach(model, Head(temperature=2.0)))(images).equal(plain / 2)


@both
@pytest.mark.upstream
def test_upstream_is_reproduced_by_the_folded_model(architecture: str) -> None:
    expected = explained(EXPLAINED[architecture])
    folded = fold(build(architecture))
    assert distance(folded(expected.input), expected.output) < 1e-5
    error = (integrated(expected, gradients(folded, expected.intermediates)) - expected.integrated_grads).abs().max()
    assert error < 1e-4 * expected.integrated_grads.abs().sum()


@both
def test_the_model_stays_as_it_was(architecture: str) -> None:
    model = build(architecture).train()
    before = copy.deepcopy(model.state_dict())
    fold(model)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@both
def test_nothing_is_left_to_recompute(architecture: str) -> None:
    folded = fold(build(architecture).train())
    left = (StdConv2d, lanet.StandardisedConv2d, nn.BatchNorm2d, lanet.AuxiliaryHead)
    assert not [name for name, module in folded.named_modules() if isinstance(module, left)]
    assert not [name for name, module in folded.named_modules() if module.training]
    assert not [name for name, parameter in folded.named_parameters() if parameter.requires_grad]
    assert not list(folded.buffers())


@both
def test_folding_twice_changes_nothing(architecture: str) -> None:
    once = fold(build(architecture))
    twice = fold(once)
    assert once.state_dict().keys() == twice.state_dict().keys()
    assert all(torch.equal(tensor, once.state_dict()[name]) for name, tensor in twice.state_dict().items())


def test_a_convolution_and_its_batch_norm_by_hand() -> None:
    """W = 2, b = 1; γ = 3, β = 4, μ = 5, σ² = 16 (ε = 0): s = 3/4, so that W' = 1.5 and b' = 0.75·1 + 4 − 3.75 = 1."""
    conv, norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0)
    values = {"weight": 3.0, "bias": 4.0, "running_mean": 5.0, "running_var": 16.0}
    norm.load_state_dict({name: torch.tensor([value]) for name, value in values.items()}, strict=False)
    nn.init.constant_(conv.weight, 2)
    nn.init.constant_(conv.bias, 1)  # type: ignore[arg-type]
    folded = fold(nn.Sequential(conv, norm, nn.ReLU()))
    assert [type(layer) for layer in folded.children()] == [nn.Conv2d, nn.ReLU]
    assert {name: tensor.item() for name, tensor in folded.state_dict().items()} == {"0.weight": 1.5, "0.bias": 1.0}


def test_a_batch_norm_after_something_else_stays() -> None:
    folded = fold(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.BatchNorm2d(1)))
    assert [type(layer) for layer in folded.children()] == [nn.Conv2d, nn.ReLU, nn.BatchNorm2d]


def test_separable_convolutions_stay_two() -> None:
    operation = fold(build("lanet")).get_submodule("cells.0.operations.2")
    layers = [layer for layer in operation.modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.groups == layer.in_channels for layer in layers] == [True, False, True, False]
    assert [layer.bias is not None for layer in layers] == [False, True, False, True]


def test_a_folded_lanet_rectifies_each_map_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upstream's cell rectifies 10 times its width in 16 places; here a state or an output is rectified once."""
    folded = fold(build("lanet"))
    seen: list[int] = []
    real = torch.relu

    def counted(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.data_ptr())
        return real(x)

    monkeypatch.setattr("imagexplain.models.optimize.folded_lanet.F.relu", counted)
    with torch.no_grad():
        folded.get_submodule("cells.0")(torch.zeros(1, 8, 32, 32), torch.zeros(1, 8, 32, 32))
    # One of state 1, shared by three separable convolutions, one of state 4, and one within each of the four.
    assert len(seen) == 6


@pytest.mark.parametrize("seed", range(3))
def test_own_backward_passes_are_the_gradients_of_their_forward_passes(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = [
        torch.randn(2, channels, 4, 6, generator=generator, dtype=torch.float64, requires_grad=True)
        for channels in (3, 1, 2)
    ]
    assert torch.autograd.gradcheck(RectifiedStack.apply, maps)
    assert torch.autograd.gradcheck(EvenAndOdd.apply, maps[:1])


def test_even_and_odd_pixels_by_hand() -> None:
    even, odd = EvenAndOdd.apply(torch.arange(16.0).view(1, 1, 4, 4))
    assert (even.flatten().tolist(), odd.flatten().tolist()) == ([0, 2, 8, 10], [5, 7, 13, 15])
