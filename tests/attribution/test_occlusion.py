import pytest
import torch
from captum.attr import Occlusion as CaptumOcclusion
from torch import Tensor, nn

from imagexplain.attribution.methods.occlusion import occlusion
from tests.attribution.inputs import noise_images
from tests.attribution.models import linear, smooth_network
from tests.rows import rows_through


def brute_force(model, image: Tensor, target: int, size: int, stride: int, fill: Tensor) -> Tensor:
    """The definition, one window after the other."""
    height, width = image.shape[1:]
    total, windows = torch.zeros(height, width).to(image), torch.zeros(height, width).to(image)
    score = model(image[None])[0, target]
    for y in range(0, height - size + stride, stride):  # the last window may hang over
        for x in range(0, width - size + stride, stride):
            covered = image.clone()
            covered[:, y : y + size, x : x + size] = fill[:, y : y + size, x : x + size]
            total[y : y + size, x : x + size] += score - model(covered[None])[0, target]
            windows[y : y + size, x : x + size] += 1
    assert (windows > 0).all()
    return total / windows


def test_single_pixels_of_a_linear_model() -> None:
    x = torch.tensor([[[[1.0, -2.0], [3.0, 4.0]]]], dtype=torch.float64)
    weights = torch.tensor([2.0, 3.0, 5.0, 7.0])
    assert occlusion(linear(weights), x, 0, size=1, stride=1)[0, 0].tolist() == [[2, -6], [15, 28]]
    # less the fill of 1, and for the class with the opposite score
    assert occlusion(linear(weights), x, 1, size=1, stride=1, fill=1.0)[0, 0].tolist() == [[0, 9], [-10, -21]]


def test_the_border_is_not_darker() -> None:
    """Ones under weights of one: every 2×2 window costs 4, whichever pixel it covers."""
    x = torch.ones(1, 1, 5, 5, dtype=torch.float64)
    got = occlusion(linear(torch.ones(25)), x, 0, size=2, stride=1)
    torch.testing.assert_close(got, torch.full_like(got, 4.0), rtol=1e-14, atol=0)


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (3, 2), (3, 3), (5, 4), (8, 8), (4, 1)])
def test_agrees_with_the_definition(size: int, stride: int) -> None:
    network, x, fill = smooth_network(), noise_images(), torch.rand(3, 3, 8, 8, dtype=torch.float64)
    got = occlusion(network, x, [0, 2, 1], size=size, stride=stride, fill=fill)
    every = zip(x, [0, 2, 1], fill, strict=True)
    expected = [brute_force(network, one, target, size, stride, f) for one, target, f in every]
    torch.testing.assert_close(got[:, 0], torch.stack(expected), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("size", "stride"), [(3, 2), (5, 4), (4, 1)])
def test_agrees_with_captum(size: int, stride: int) -> None:
    """The same definition; Captum rounds its mean to float32."""
    network, x, fill = smooth_network(), noise_images(), torch.rand(3, 3, 8, 8, dtype=torch.float64)
    expected = CaptumOcclusion(network).attribute(
        x,
        (3, size, size),
        (3, stride, stride),
        baselines=fill,
        target=torch.tensor([0, 2, 1]),
        perturbations_per_eval=4,
    )[:, :1]
    got = occlusion(network, x, [0, 2, 1], size=size, stride=stride, fill=fill)
    assert (got - expected).abs().max() / expected.abs().max() < 1e-6


def test_half_precision_is_summed_in_float32() -> None:
    network, x = smooth_network(torch.bfloat16), noise_images(dtype=torch.bfloat16)
    assert occlusion(network, x, size=3, stride=2).dtype == torch.float32


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 100])
def test_neither_chunk_nor_batch_mates_matter(chunk: int) -> None:
    network, x = smooth_network(), noise_images()
    with rows_through(network) as rows:
        together = occlusion(network, x, size=3, stride=2, chunk=chunk)
    alone = torch.cat([occlusion(network, one[None], size=3, stride=2) for one in x])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)
    assert max(rows) <= chunk


def test_float32_and_no_graph() -> None:
    network, x = smooth_network(torch.float32), noise_images(dtype=torch.float32).requires_grad_()
    got = occlusion(network, x, 0, size=3, stride=2)
    assert got.dtype == torch.float32 and got.shape == (3, 1, 8, 8) and not got.requires_grad
    exact = occlusion(smooth_network(), noise_images(), 0, size=3, stride=2)
    assert (got - exact).abs().max() / exact.abs().max() < 1e-4


def test_the_model_is_left_as_it_was() -> None:
    network = (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).double().eval()
    )
    before = {name: value.clone() for name, value in network.state_dict().items()}
    occlusion(network, noise_images(), size=4, stride=4)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert not any(module.training or module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"images": torch.zeros(3, 8, 8)}, "images"),
        ({"images": torch.zeros(1, 3, 8, 8, dtype=torch.uint8)}, "images"),
        ({"targets": 2}, "targets"),
        ({"targets": [0, 1]}, "targets"),
        ({"size": 9}, "size"),
        ({"size": 0}, "size"),
        ({"stride": 4}, "stride"),
        ({"stride": 0}, "stride"),
        ({"fill": torch.zeros(2, 3, 8, 8)}, "fill"),
        ({"chunk": 0}, "chunk"),
    ],
)
def test_what_does_not_fit_names_the_argument(change: dict, named: str) -> None:
    arguments = {"images": torch.zeros(1, 3, 8, 8), "size": 3, "stride": 2} | change
    with pytest.raises(ValueError, match=rf"^{named}: "):
        occlusion(linear(torch.ones(192)), **arguments)
