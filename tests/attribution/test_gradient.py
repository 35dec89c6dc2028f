import pytest
import torch
from captum.attr import InputXGradient, Saliency
from torch import Tensor, nn

from imagexplain.attribution.methods.gradient import gradient
from imagexplain.attribution.methods.input_x_gradient import input_x_gradient
from tests.attribution.inputs import noise, noise_images, row_batch
from tests.attribution.models import cubic, linear, product, smooth_network

METHODS = [gradient, input_x_gradient]


def test_by_hand() -> None:
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    assert gradient(linear(weights), row_batch(5, 5, 5), 1).flatten().tolist() == [-1, -2, -3]
    assert gradient(product, row_batch(3, 4)).flatten().tolist() == [4, 3]
    assert input_x_gradient(product, row_batch(3, 4)).flatten().tolist() == [12, 12]
    assert input_x_gradient(cubic, row_batch(1, 2)).flatten().tolist() == [1, 8]


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
def test_agrees_with_captum(dtype: torch.dtype, limit: float) -> None:
    network, images, targets = smooth_network(dtype), noise_images(dtype=dtype), torch.tensor([2, 0, 1])
    for ours, theirs in [
        (gradient(network, images, targets), Saliency(network).attribute(images.clone(), target=targets, abs=False)),
        (input_x_gradient(network, images, targets), InputXGradient(network).attribute(images.clone(), target=targets)),
    ]:
        assert (ours - theirs).abs().max() / theirs.abs().max() < limit


@pytest.mark.parametrize("method", METHODS)
def test_batch_mates_do_not_matter(method) -> None:
    network, images = smooth_network(), noise_images()
    alone = torch.cat([method(network, image[None]) for image in images])
    torch.testing.assert_close(method(network, images), alone, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("method", METHODS)
def test_no_target_is_the_predicted_class(method) -> None:
    network, images = smooth_network(), noise_images()
    predicted = network(images).argmax(1)
    assert torch.equal(method(network, images), method(network, images, predicted))
    assert not torch.equal(method(network, images), method(network, images, (predicted + 1) % 3))


@pytest.mark.parametrize("method", METHODS)
def test_differentiable_by_the_images(method) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)).double()
    images = noise_images(2)[..., :4, :4].clone().requires_grad_()

    def attribution(points: Tensor) -> Tensor:
        return method(network, points, 1, create_graph=True)

    assert torch.autograd.gradcheck(attribution, images)
    assert torch.autograd.gradgradcheck(attribution, images)


@pytest.mark.parametrize("method", METHODS)
def test_a_loss_on_the_attribution_trains_the_parameters(method) -> None:
    network, images = smooth_network().requires_grad_(), noise_images()
    weight: Tensor = next(network.parameters())

    def loss() -> Tensor:
        return method(network, images, [0, 1, 2], create_graph=True).square().sum()

    (slope,) = torch.autograd.grad(loss(), weight)
    step = noise(*weight.shape, seed=1)
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            weight.add_(step, alpha=sign * 1e-5)
        ends.append(loss().item())
        with torch.no_grad():
            weight.sub_(step, alpha=sign * 1e-5)
    assert (ends[0] - ends[1]) / 2e-5 == pytest.approx((slope * step).sum().item(), rel=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_detached_and_the_model_and_images_are_left_as_they_were(method) -> None:
    network, images = smooth_network().requires_grad_(), noise_images().requires_grad_()
    with torch.no_grad():
        result = method(network, images)
    assert not result.requires_grad
    assert images.grad is None and all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(result, method(network, images.detach()))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("images", "targets", "named"),
    [
        (torch.zeros(3, 8, 8), 0, "images"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), 0, "images"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.float64), [0], "targets"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.float64), 3, "targets"),
    ],
)
def test_what_does_not_fit_names_the_argument(method, images: Tensor, targets, named: str) -> None:
    with pytest.raises(ValueError, match=rf"^{named}: "):
        method(smooth_network(), images, targets)
