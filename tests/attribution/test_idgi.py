import pytest
import torch
from torch import Tensor

from imagexplain.attribution.methods.idgi import idgi
from tests.attribution.closeness import close
from tests.attribution.inputs import noise_images, row_batch
from tests.attribution.models import columns, linear, product, smooth_network


def test_linear_by_hand() -> None:
    """Gradient (1, 2) everywhere: shares 1/5 and 4/5 of f(x) − f(b) = 11, whatever the image's own values."""
    weights = torch.tensor([1.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(idgi(linear(weights), row_batch(3, 4), 0).flatten(), torch.tensor([2.2, 8.8]).double())


def test_product_by_hand() -> None:
    """x₁x₂ from 0 to (3, 4): in two steps (0, 0), (1.5, 2), (3, 4); scores 0, 3, 12; gradients 0 and (2, 1.5).

    The first step has no direction, the second shares 9 as 4 : 2.25.
    """
    got = idgi(product, row_batch(3, 4), 0, steps=2).flatten()
    torch.testing.assert_close(got, torch.tensor([9 * 4 / 6.25, 9 * 2.25 / 6.25], dtype=torch.float64))


def directly(network, image: Tensor, baseline: Tensor, target: int, steps: int) -> Tensor:
    """One point after the other, as the paper's algorithm has it."""
    total = torch.zeros_like(image)
    for j in range(steps):
        here = (baseline + j / steps * (image - baseline)).requires_grad_()
        there = baseline + (j + 1) / steps * (image - baseline)
        score = network(here[None])[0, target]
        (g,) = torch.autograd.grad(score, here)
        total += g**2 / (g**2).sum() * (network(there[None])[0, target] - score).detach()
    return total


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("steps", [1, 9])
def test_agrees_with_a_direct_loop(dtype: torch.dtype, limit: float, steps: int) -> None:
    images, baselines, targets = noise_images(), noise_images(seed=1), [2, 0, 1]
    got = idgi(smooth_network(dtype), images.to(dtype), targets, baselines=baselines.to(dtype), steps=steps)
    ends = zip(images, baselines, targets, strict=True)
    expected = torch.stack([directly(smooth_network(), x, b, target, steps) for x, b, target in ends])
    assert close(got.double(), expected, limit)


@pytest.mark.parametrize("steps", [1, 2, 33])
def test_complete_with_any_number_of_steps(steps: int) -> None:
    network, images, baselines = smooth_network(), noise_images(), noise_images(seed=1)
    change = (network(images) - network(baselines))[:, 1]
    got = idgi(network, images, 1, baselines=baselines, steps=steps)
    torch.testing.assert_close(got.sum((1, 2, 3)), change, rtol=1e-12, atol=1e-14)


def test_tiny_gradients_keep_their_direction_in_float32() -> None:
    weights = torch.tensor([1e-30, 2e-30])
    got = idgi(linear(weights), torch.tensor([3.0, 4.0]).view(1, 1, 1, 2), 0)
    assert close(got.flatten(), torch.tensor([2.2e-30, 8.8e-30]), 1e-5)


def test_no_gradient_gives_nothing() -> None:
    assert idgi(lambda x: columns(0 * x.sum((1, 2, 3))), noise_images()).count_nonzero() == 0
    assert idgi(smooth_network(), noise_images(), baselines=noise_images()).count_nonzero() == 0


def test_neither_batch_mates_nor_chunk_matter() -> None:
    network, images, baselines = smooth_network(), noise_images(), noise_images(seed=1)
    together = idgi(network, images, baselines=baselines, steps=10)
    alone = [idgi(network, x[None], baselines=b[None], steps=10) for x, b in zip(images, baselines, strict=True)]
    assert close(together, torch.cat(alone))
    for chunk in (1, 3, 10, 11):
        assert close(idgi(network, images, baselines=baselines, steps=10, chunk=chunk), together)


def test_the_model_is_left_as_it_was() -> None:
    network = smooth_network().requires_grad_().train()
    with torch.no_grad():
        assert not idgi(network, noise_images(), steps=2).requires_grad
    assert all(parameter.grad is None for parameter in network.parameters()) and network.training


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"steps": 0}, "steps"),
        ({"chunk": 0}, "chunk"),
        ({"baselines": torch.zeros(1, 1, 1, 2)}, "baselines"),
        ({"targets": 3}, "targets"),
        ({"images": noise_images()[0]}, "images"),
    ],
)
def test_what_does_not_fit_names_the_argument(options: dict, named: str) -> None:
    with pytest.raises(ValueError, match=rf"^{named}: "):
        idgi(smooth_network(), **({"images": noise_images()} | options))
