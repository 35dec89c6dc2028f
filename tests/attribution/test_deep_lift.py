from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from captum.attr import DeepLift
from torch import Tensor, nn

from imagexplain.attribution.methods.deep_lift import deep_lift
from imagexplain.attribution.methods.gradient import gradient
from tests.attribution.closeness import close
from tests.attribution.inputs import noise_images
from tests.attribution.networks import Call

pytestmark = pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")


CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "nn.ReLU in place": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu, in place by name": lambda x: F.relu(input=x, inplace=True),
    "F.relu, in place, result unused": lambda x: (F.relu(x, True), x)[1],
    "torch.relu": torch.relu,
    "Tensor.relu_": lambda x: x.relu_(),
    "by steps": lambda x: F.relu(F.relu(x)),
}
MIDDLES: dict[str, Callable[[], list]] = {
    "relu": lambda: [nn.ReLU()],
    "relu in place": lambda: [nn.BatchNorm2d(6), nn.ReLU(inplace=True)],
    "softplus": lambda: [nn.Softplus()],
    "gelu": lambda: [nn.GELU()],
    "silu": lambda: [nn.SiLU(inplace=True)],
    "pool behind relu": lambda: [nn.ReLU(), nn.MaxPool2d(2)],
    "stem of a ResNet": lambda: [nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)],
    "module used twice": lambda: [relu := nn.ReLU(), nn.Conv2d(6, 6, 1), relu],
    "overwritten afterwards": lambda: [nn.ReLU(), Call(lambda x: x.mul_(2))],
}


def with_middle(middle: str, call: Callable[[Tensor], Tensor] | None = None) -> nn.Sequential:
    """A network around one of the middles, or around a call in its place."""
    torch.manual_seed(0)
    layers: list[nn.Module] = MIDDLES[middle]() if call is None else [Call(call)]
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), *layers, nn.Conv2d(6, 4, 3), nn.Tanh(), nn.Flatten(), nn.LazyLinear(3)
    )
    model(torch.zeros(1, 3, 8, 8))
    return model.double().eval()


class Rectifier(nn.Module):
    """relu(w · x) of two pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x.flatten(1) @ x.new_tensor([[1.0], [-2.0]]) - 1)


def test_by_hand() -> None:
    """relu(x₁ − 2x₂ − 1) is 0 at (0, 0) and 2 at (5, 1): the ratio is 2/3 of the 3 that x₁ − 2x₂ changed by."""
    x = torch.tensor([5.0, 1.0], dtype=torch.float64).view(1, 1, 1, 2)
    got = deep_lift(Rectifier(), x).flatten()
    torch.testing.assert_close(got, torch.tensor([5 * 2 / 3, -2 * 2 / 3], dtype=torch.float64))


@pytest.mark.parametrize("middle", ["relu", "relu in place", "softplus"])
def test_agrees_with_captum(middle: str) -> None:
    model, images, baselines, targets = (
        with_middle(middle),
        noise_images(),
        noise_images(seed=1),
        torch.tensor([2, 0, 1]),
    )
    expected = DeepLift(model).attribute(images.clone(), baselines, target=targets).detach()
    assert close(deep_lift(model, images, targets, baselines=baselines), expected)
    assert not close(gradient(model, images, targets) * (images - baselines), expected, 0.1)


def test_agrees_with_captum_on_a_pool_of_windows_side_by_side() -> None:
    """Next to another non-linearity, and where windows overlap, Captum's maps miss the score's difference."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(54, 3)).double()
    expected = DeepLift(model).attribute(noise_images(), noise_images(seed=1), target=1).detach()
    assert close(deep_lift(model, noise_images(), 1, baselines=noise_images(seed=1)), expected)


def test_a_maximum_by_hand() -> None:
    """max is 5 at (5, 2) and 3 at (1, 3): the gain of 2 goes to the first value. Back again, the loss does too."""
    x, b = (torch.tensor(values).double().view(1, 1, 1, 2) for values in ([5.0, 2.0], [1.0, 3.0]))
    assert deep_lift(lambda rows: F.max_pool2d(rows, (1, 2)).flatten(1), x, baselines=b).flatten().tolist() == [2, 0]
    assert deep_lift(lambda rows: F.max_pool2d(rows, (1, 2)).flatten(1), b, baselines=x).flatten().tolist() == [-2, 0]


@pytest.mark.parametrize("middle", MIDDLES)
def test_complete(middle: str) -> None:
    model, images, baselines, targets = (
        with_middle(middle),
        noise_images(),
        noise_images(seed=1),
        torch.tensor([2, 0, 1]),
    )
    change = (model(images) - model(baselines)).gather(1, targets[:, None])[:, 0].detach()
    got = deep_lift(model, images, targets, baselines=baselines)
    torch.testing.assert_close(got.sum((1, 2, 3)), change, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("call", CALLS)
def test_modules_functions_and_methods_are_alike(call: str) -> None:
    images, baselines = noise_images(), noise_images(seed=1)
    expected = deep_lift(with_middle("relu"), images, 1, baselines=baselines)
    assert close(deep_lift(with_middle("relu", CALLS[call]), images, 1, baselines=baselines), expected)


@pytest.mark.parametrize("middle", MIDDLES)
def test_batch_mates_do_not_matter(middle: str) -> None:
    model, images, baselines = with_middle(middle), noise_images(), noise_images(seed=1)
    images[0, :, :4], baselines[0, :, :4] = 0, 0  # where nothing changes, the rules fall back on the gradient
    together = deep_lift(model, images, baselines=baselines)
    alone = [deep_lift(model, x[None], baselines=b[None]) for x, b in zip(images, baselines, strict=True)]
    assert close(together, torch.cat(alone))
    assert torch.equal(together, deep_lift(model, images, model(images).argmax(1), baselines=baselines))


def test_float32_agrees_with_float64_and_without_baselines_it_is_zeros() -> None:
    exact = deep_lift(with_middle("relu"), noise_images(), 1, baselines=torch.zeros(3, 3, 8, 8, dtype=torch.float64))
    got = deep_lift(with_middle("relu").float(), noise_images(dtype=torch.float32), 1)
    assert got.dtype == torch.float32 and close(got.double(), exact, 1e-4)


@pytest.mark.parametrize("function", [lambda x: x.softmax(1), lambda x: x * x, lambda x: F.layer_norm(x, x.shape[1:])])
def test_a_model_without_rules_is_refused(function) -> None:
    with pytest.raises(ValueError, match=r"^model: wanted only non-linearities"):
        deep_lift(with_middle("relu", function), 3 * noise_images())


def test_the_model_is_left_as_it_was_also_after_an_error() -> None:
    model, images = with_middle("relu in place"), noise_images()
    before = [dict(vars(module)) for module in model.modules()]
    plain = gradient(model, images, 0)
    with torch.no_grad():
        assert not deep_lift(model, images, 0).requires_grad
    with pytest.raises(RuntimeError):
        deep_lift(model, torch.zeros(1, 4, 8, 8, dtype=torch.float64))
    assert [dict(vars(module)) for module in model.modules()] == before
    assert torch.equal(gradient(model, images, 0), plain)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not torch.overrides._get_current_function_mode_stack()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"baselines": torch.zeros(1, 1, 1, 2)}, "baselines"),
        ({"targets": 3}, "targets"),
        ({"images": noise_images()[0]}, "images"),
    ],
)
def test_what_does_not_fit_names_the_argument(options: dict, named: str) -> None:
    with pytest.raises(ValueError, match=rf"^{named}: "):
        deep_lift(**({"model": with_middle("relu"), "images": noise_images()} | options))


@pytest.mark.parametrize("other", [F.gelu, lambda x: x, lambda x: F.relu(x[:, :2]), lambda x: F.relu(F.relu(x))])
def test_a_model_that_goes_another_way_for_the_images_is_refused(other: Callable[[Tensor], Tensor]) -> None:
    model = Call(lambda x: (other(x) if x.any() else F.relu(x)).flatten(1)[:, :4])
    with pytest.raises(ValueError, match=r"^model: wanted one that calls the same functions"):
        deep_lift(model, noise_images(), 0)
