import pytest
import torch
from torch import Tensor, nn

from imagexplain.models.optimize.specialised_convolutions import Pointwise, WindowedConv2d, specialise


def gradient(network: nn.Module, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    output = network(x)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=output.dtype)
    return torch.autograd.grad((output * weights).sum(), x)[0]


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (2, 4), (4, 2), (3, 1), (4, 4), (8, 8)])
@pytest.mark.parametrize("kernel", [1, 3, (1, 3)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_equal_to_the_convolution(
    size: tuple[int, int], kernel: int | tuple[int, int], stride: int, bias: bool
) -> None:
    torch.manual_seed(0)
    padding = 1 if kernel == 3 else (0, 1) if kernel == (1, 3) else 0
    convolution = nn.Conv2d(5, 7, kernel, stride, padding, bias=bias).double().requires_grad_(False)
    x = torch.randn(3, 5, *size, dtype=torch.float64)
    fast = specialise(nn.Sequential(convolution), x[:1])
    torch.testing.assert_close(fast(x), convolution(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient(fast, x), gradient(convolution, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("convolution", "size", "kind"),
    [
        (nn.Conv2d(4, 4, 1), 8, Pointwise),
        (nn.Conv2d(4, 4, 1, stride=2), 8, Pointwise),
        (nn.Conv2d(4, 4, 3, padding=1), 1, WindowedConv2d),
        (nn.Conv2d(4, 4, 3, padding=1), 2, WindowedConv2d),
        (nn.Conv2d(4, 4, 3, stride=2, padding=1), 4, WindowedConv2d),
        (nn.Conv2d(4, 4, 3, padding=1), 4, nn.Conv2d),
        (nn.Conv2d(4, 4, 3, padding=1, groups=4), 1, nn.Conv2d),
        (nn.Conv2d(4, 4, 3, padding=2, dilation=2), 1, nn.Conv2d),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), 2, nn.Conv2d),
        (nn.Conv2d(4, 4, 3, padding="same"), 2, nn.Conv2d),
    ],
)
def test_which_form_is_taken(convolution: nn.Conv2d, size: int, kind: type) -> None:
    fast = specialise(nn.Sequential(convolution.requires_grad_(False)), torch.zeros(1, 4, size, size))
    assert type(fast.get_submodule("0")) is kind


def test_a_window_holds_just_the_taps_on_the_map() -> None:
    on_one_pixel = WindowedConv2d(nn.Conv2d(2, 3, 3, padding=1), (1, 1))
    assert [tuple(weight.shape) for weight in on_one_pixel.weights] == [(3, 2)]  # the centre tap alone
    on_two = WindowedConv2d(nn.Conv2d(2, 3, 3, padding=1), (2, 2))
    assert [tuple(weight.shape) for weight in on_two.weights] == [(12, 8)]  # 4 positions, each seeing all 4 pixels


def test_the_network_given_is_left_as_it_is() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1)).requires_grad_(False)
    specialise(network, torch.zeros(1, 3, 2, 2))
    assert [type(module) for module in network] == [nn.Conv2d, nn.ReLU, nn.Conv2d]
    assert not network[0]._forward_pre_hooks
