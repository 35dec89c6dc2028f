import pytest
import torch
import torch.nn.functional as F
from captum.attr import GuidedBackprop
from torch import Tensor, nn

from imagexplain.attribution.methods.gradient import gradient
from imagexplain.attribution.methods.guided_backprop import guided_backprop
from tests.attribution.closeness import close
from tests.attribution.inputs import noise_images
from tests.attribution.models import columns, smooth_network


class Network(nn.Module):
    """Two convolutions, each followed by the given ReLU."""

    def __init__(self, relu, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.second, self.head = nn.Conv2d(6, 6, 3, stride=2), nn.Linear(24, 3)
        self.relus = nn.ModuleList([relu(), relu()]) if isinstance(relu, type) else [relu, relu]
        self.to(dtype).eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relus[0](self.norm(self.first(x)))
        return self.head(self.relus[1](self.second(x)).flatten(1))


class InPlace(nn.ReLU):
    def __init__(self) -> None:
        super().__init__(inplace=True)


def result_unused(x: Tensor) -> Tensor:
    F.relu(x, inplace=True)
    return x


CALLS = {
    "nn.ReLU": nn.ReLU,
    "nn.ReLU in place": InPlace,
    "F.relu": F.relu,
    "F.relu, in place by name": lambda x: F.relu(input=x, inplace=True),
    "F.relu, in place by position": lambda x: F.relu(x, True),
    "F.relu, in place, result unused": result_unused,
    "F.relu_": F.relu_,
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "Tensor.relu": lambda x: x.relu(),
    "Tensor.relu_": lambda x: x.relu_(),
}


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
@pytest.mark.parametrize("call", CALLS)
def test_agrees_with_captum_on_modules_out_of_place(call: str, dtype: torch.dtype, limit: float) -> None:
    images, targets = noise_images(dtype=dtype), torch.tensor([2, 0, 1])
    expected = GuidedBackprop(Network(nn.ReLU, dtype)).attribute(images.clone(), target=targets)
    assert not close(gradient(Network(nn.ReLU, dtype), images, targets), expected, 0.1)
    assert close(guided_backprop(Network(CALLS[call], dtype), images, targets), expected, limit)


def test_by_hand() -> None:
    """−relu(x) + 2 relu(−x) + 3 relu(x) of (2, −1): what comes back to a ReLU is −1, 2 and 3; −1 is dropped."""

    def model(x: Tensor) -> Tensor:
        return columns((-F.relu(x) + 2 * F.relu(-x) + 3 * F.relu(x)).sum((1, 2, 3)))

    x = torch.tensor([2.0, -1.0], dtype=torch.float64).view(1, 1, 1, 2)
    assert gradient(model, x).flatten().tolist() == [2, -2]
    assert guided_backprop(model, x).flatten().tolist() == [3, -2]


@pytest.mark.parametrize(
    "relu6",
    [
        nn.ReLU6(),
        F.relu6,
        lambda x: nn.ReLU6(inplace=True)(x.clone()),
        lambda x: F.relu6(x.clone(), inplace=True),
        lambda x: F.hardtanh(input=x, min_val=0.0, max_val=6.0),
        lambda x: F.hardtanh(x.clone(), 0, 6, True),
    ],
    ids=["nn.ReLU6", "F.relu6", "in place", "F.relu6 in place", "by name", "by position"],
)
def test_relu6_by_hand(relu6) -> None:
    """As above, but at 7 it is at its bound, where nothing comes back."""

    def model(x: Tensor) -> Tensor:
        return columns((-relu6(x) + 2 * relu6(-x) + 3 * relu6(x)).sum((1, 2, 3)))

    x = torch.tensor([7.0, 2.0, -1.0], dtype=torch.float64).view(1, 1, 1, 3)
    assert gradient(model, x).flatten().tolist() == [0, 2, -2]
    assert guided_backprop(model, x).flatten().tolist() == [0, 3, -2]


def test_a_hard_tanh_is_no_relu() -> None:
    with pytest.raises(ValueError, match=r"^model: .*no meaning"):
        guided_backprop(lambda x: columns(F.hardtanh(x).sum((1, 2, 3))), noise_images())


def test_no_relu_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^model: .*no meaning"):
        guided_backprop(smooth_network(), noise_images())


def test_batch_mates_do_not_matter_and_no_target_is_the_prediction() -> None:
    network, images = Network(nn.ReLU), noise_images()
    together = guided_backprop(network, images)
    assert close(together, torch.cat([guided_backprop(network, x[None]) for x in images]))
    assert torch.equal(together, guided_backprop(network, images, network(images).argmax(1)))


@pytest.mark.parametrize("relu", [nn.ReLU, InPlace])
def test_the_model_is_left_as_it_was_also_after_an_error(relu) -> None:
    network, images = Network(relu), noise_images()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    plain = gradient(network, images, 0)
    with torch.no_grad():
        assert not guided_backprop(network, images, 0).requires_grad
    with pytest.raises(ValueError, match=r"^targets: "):
        guided_backprop(network, images, 7)
    assert torch.equal(gradient(network, images, 0), plain)  # ReLU is itself again
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(module._forward_hooks or module._backward_hooks for module in network.modules())
    assert not torch.overrides._get_current_function_mode_stack()


def test_bad_images() -> None:
    with pytest.raises(ValueError, match=r"^images: "):
        guided_backprop(Network(nn.ReLU), noise_images()[0])
