from importlib import import_module

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from skimage import segmentation
from torch import Tensor, nn

from imagexplain.attribution.methods import xrai as regions
from imagexplain.attribution.methods.integrated_gradients import integrated_gradients
from imagexplain.attribution.methods.xrai import overlapping_segments, xrai
from tests.attribution.inputs import noise, noise_images
from tests.attribution.models import linear, smooth_network


def random_segments(count: int, side: int, seed: int) -> Tensor:
    """(count, side, side) overlapping rectangles."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.randint(side, (count, 2, 2), generator=generator).sort(2).values
    pixels = torch.arange(side)
    inside = (pixels >= corners[..., :1]) & (pixels <= corners[..., 1:])  # (count, 2, side)
    return inside[:, 0].unsqueeze(2) & inside[:, 1].unsqueeze(1)


def photo(side: int, seed: int = 0) -> NDArray[np.uint8]:
    """A picture with edges: coloured discs on a slope, and some noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    picture = np.stack([x, y, 1 - x], axis=2)
    for _ in range(4):
        centre, radius = random.uniform(0.2, 0.8, 2), random.uniform(0.1, 0.3)
        picture[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2] = random.uniform(size=3)
    return (255 * np.clip(picture + random.normal(0, 0.02, picture.shape), 0, 1)).astype(np.uint8)


class Quadratic(nn.Module):
    """Score Σ w x² + v x, whose gradient is linear along a path, so that both packages' quadratures are exact."""

    def __init__(self, features: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(features)
        self.square, self.linear = (torch.randn(features, generator=generator).double() for _ in range(2))

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        return (self.square * flat**2 + self.linear * flat).sum(1, keepdim=True)


def pair_xrai(picture: Tensor, attribution: Tensor, segments: list[NDArray[np.bool_]] | None, least: int) -> NDArray:
    pair = import_module("saliency.core")
    parameters = pair.XRAIParameters()
    parameters.experimental_params["min_pixel_diff"] = least
    return pair.XRAI().GetMask(
        picture.permute(1, 2, 0).numpy(),
        None,
        base_attribution=attribution.permute(1, 2, 0).numpy(),
        segments=segments,
        extra_parameters=parameters,
    )


def test_by_hand() -> None:
    """Columns of 4, 1, 3, −2; the first two segments overlap, and nothing reaches the last pixel."""
    attributions = torch.tensor([[[[4.0, 1.0, 3.0, -2.0]]]], dtype=torch.float64)
    segments = torch.tensor([[[1, 1, 0, 0]], [[0, 1, 1, 0]]]).bool()
    got = xrai(linear(torch.ones(4)), attributions, attributions=attributions, segments=[segments], least=1)
    assert got.flatten().tolist() == [2.5, 2.5, 3, -2]
    # Two new pixels are wanted: what the second segment would add is left over.
    got = xrai(linear(torch.ones(4)), attributions, attributions=attributions, segments=[segments], least=2)
    assert got.flatten().tolist() == [2.5, 2.5, 0.5, 0.5]


@pytest.mark.parametrize("least", [1, 10, 1000])
def test_the_map_keeps_the_sum(least: int) -> None:
    x, segments = noise_images(2), [random_segments(5, 8, seed) for seed in range(2)]
    got = xrai(linear(torch.ones(1)), x, attributions=x, segments=segments, least=least)
    torch.testing.assert_close(got.sum((1, 2, 3)), x.amax(1).sum((1, 2)), rtol=1e-12, atol=1e-12)


def test_channels_by_their_maximum() -> None:
    attributions = torch.tensor([[[[1.0, -3.0]], [[-5.0, -1.0]]]])
    segments = torch.tensor([[[True, False]], [[False, True]]])
    got = xrai(linear(torch.ones(4)), attributions, attributions=attributions, segments=[segments], least=1)
    assert got.tolist() == [[[[1, -1]]]]


@pytest.mark.upstream
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("least", [1, 20])
def test_agrees_with_pair_on_the_same_segments(seed: int, least: int) -> None:
    x, segments = noise(2, 3, 24, 24), [random_segments(40, 24, seed), random_segments(25, 24, seed + 100)]
    attributions = noise(2, 3, 24, 24, seed=seed)
    got = xrai(linear(torch.ones(1)), x, attributions=attributions, segments=segments, least=least)
    for b in range(2):
        expected = pair_xrai(x[b], attributions[b], list(segments[b].numpy()), least)
        assert np.abs(got[b, 0].numpy() - expected).max() / np.abs(expected).max() < 1e-12


@pytest.mark.upstream
@pytest.mark.parametrize("side", [24, 40])
def test_agrees_with_pair_on_the_segments_themselves(side: int) -> None:
    picture = photo(side)
    pair = import_module("saliency.core.xrai")
    expected = np.stack([mask for mask in pair._get_segments_felzenszwalb(picture) if mask.any()])
    got = overlapping_segments(picture)
    assert len(got) > 12
    np.testing.assert_array_equal(got, expected)


@pytest.mark.upstream
def test_agrees_with_pair_from_the_picture_on() -> None:
    picture = torch.from_numpy(photo(40, seed=1))
    x = picture.permute(2, 0, 1).double()
    attribution = noise(3, 40, 40)
    got = xrai(linear(torch.ones(1)), x[None] / 51 - 2, attributions=attribution[None], pictures=picture[None])
    expected = pair_xrai(x, attribution, None, 50)
    assert np.abs(got[0, 0].numpy() - expected).max() / np.abs(expected).max() < 1e-12
    without = xrai(linear(torch.ones(1)), x[None], attributions=attribution[None])  # segments of the input itself
    torch.testing.assert_close(without, got, rtol=1e-12, atol=1e-14)


def test_the_default_attribution_is_the_mean_over_two_baselines() -> None:
    """Σ over both paths of a linear model: w (x − (min + max) / 2), one pixel a segment."""
    x, weights = noise_images(1)[:, :1], torch.rand(64, generator=torch.Generator().manual_seed(3)).double()
    segments = torch.eye(64).bool().view(64, 8, 8)
    got = xrai(linear(weights), x, 0, segments=[segments], least=1, steps=2)
    expected = weights.view(8, 8) * (x[0, 0] - (x.min() + x.max()) / 2)
    torch.testing.assert_close(got[0, 0], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.upstream
@pytest.mark.parametrize("count", [None, 1, 3])
def test_agrees_with_pair_from_given_baselines_on(count: int | None) -> None:
    pair, x = import_module("saliency.core"), noise(2, 3, 24, 24)
    network = Quadratic(x[0].numel())
    segments = [random_segments(40, 24, seed) for seed in range(2)]
    starts = None if count is None else noise(count, 2, 3, 24, 24, seed=9)
    got = xrai(network, x, 0, baselines=starts, segments=segments, least=20, steps=20)

    def gradients(rows: NDArray[np.float64], *_: object, **__: object) -> dict[str, NDArray[np.float64]]:
        images = torch.from_numpy(np.asarray(rows)).permute(0, 3, 1, 2)
        own = 2 * network.square.view(3, 24, 24) * images + network.linear.view(3, 24, 24)
        return {pair.INPUT_OUTPUT_GRADIENTS: own.permute(0, 2, 3, 1).numpy()}

    parameters = pair.XRAIParameters(steps=20)
    parameters.experimental_params["min_pixel_diff"] = 20
    for b in range(2):
        expected = pair.XRAI().GetMask(
            x[b].permute(1, 2, 0).numpy(),
            gradients,
            baselines=None if starts is None else [start[b].permute(1, 2, 0).numpy() for start in starts],
            segments=list(segments[b].numpy()),
            extra_parameters=parameters,
        )
        # Their gradients are summed in float32.
        assert np.abs(got[b, 0].numpy() - expected).max() / np.abs(expected).max() < 1e-6


def test_baselines_are_averaged_before_regions_are_made() -> None:
    network, x, starts = smooth_network(), noise_images(2), noise(3, 2, 3, 8, 8, seed=4)
    segments = [random_segments(9, 8, seed) for seed in range(2)]
    seen: list[Tensor] = []
    got = xrai(network, x, 1, baselines=starts, segments=segments, least=1, steps=4, observe=seen.append)
    each = [integrated_gradients(network, x, 1, baselines=start, steps=4) for start in starts]
    torch.testing.assert_close(seen[0], torch.stack(each).mean(0), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        got, xrai(network, x, attributions=seen[0], segments=segments, least=1), rtol=1e-12, atol=1e-14
    )
    one = xrai(network, x, 1, baselines=starts[0], segments=segments, least=1, steps=4)
    torch.testing.assert_close(one, xrai(network, x, 1, baselines=starts[:1], segments=segments, least=1, steps=4))


def test_segments_are_widened_as_on_the_whole_picture(monkeypatch) -> None:
    """Also at the frame and where a segment is in two parts: each box is widened as the picture would be."""
    labels = np.zeros((224, 224), dtype=int)
    labels[:20, 200:], labels[60:110, 60:160], labels[100:, 20:30], labels[150:, 180:] = 1, 2, 3, 1
    monkeypatch.setattr(segmentation, "felzenszwalb", lambda picture, **settings: labels)
    got = overlapping_segments(photo(224))
    expected = [distance_transform_edt(labels != part) <= 5 for part in range(4)]
    np.testing.assert_array_equal(got, np.stack(expected * 6))


def test_a_large_region_joins_in_pieces(monkeypatch) -> None:
    x, segments = noise_images(2), [random_segments(20, 8, seed) for seed in range(2)]
    whole = xrai(linear(torch.ones(1)), x, attributions=x, segments=segments, least=1)
    monkeypatch.setattr(regions, "PIECE", 3)
    pieces = xrai(linear(torch.ones(1)), x, attributions=x, segments=segments, least=1)
    torch.testing.assert_close(pieces, whole, rtol=1e-12, atol=1e-14)


def test_large_images_need_segments_of_their_own() -> None:
    x = torch.zeros(1, 1, 2**11 + 1, 2**10)
    with pytest.raises(ValueError, match=r"^images: wanted at most 2097152 pixels each, or segments, got 2049 × 1024$"):
        xrai(linear(torch.ones(1)), x, 0)
    own = torch.ones(1, 2**11 + 1, 2**10, dtype=torch.bool)
    assert xrai(linear(torch.ones(1)), x, 0, attributions=x + 1, segments=[own]).eq(1).all()


def test_segments_that_take_too_much_memory(monkeypatch) -> None:
    flat = np.full((16, 16, 3), 7, dtype=np.uint8)
    monkeypatch.setattr(regions, "MOST_BYTES", 6 * 16 * 16)
    assert len(overlapping_segments(flat)) == 6
    monkeypatch.setattr(regions, "MOST_BYTES", 6 * 16 * 16 - 1)
    with pytest.raises(ValueError, match=r"^images: wanted segments of 1535 pixels in all at most, got 6 × 16 × 16$"):
        overlapping_segments(flat)


def test_a_picture_without_edges_is_one_segment() -> None:
    masks = overlapping_segments(np.full((16, 16, 3), 7, dtype=np.uint8))
    assert masks.shape == (6, 16, 16) and masks.all()


@pytest.mark.parametrize("chunk", [1, 7, 200])
def test_neither_chunk_nor_batch_mates_matter(chunk: int) -> None:
    network, x = smooth_network(), noise_images(3)
    segments = [random_segments(20, 8, seed) for seed in range(3)]
    together = xrai(network, x, segments=segments, least=2, steps=8, chunk=chunk)
    alone = torch.cat([xrai(network, x[b : b + 1], segments=segments[b : b + 1], least=2, steps=8) for b in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)


def test_the_model_is_left_as_it_was() -> None:
    network = (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).double().eval()
    )
    before = {name: value.clone() for name, value in network.state_dict().items()}
    got = xrai(network, noise_images(2).requires_grad_(), steps=3)
    assert got.shape == (2, 1, 8, 8) and not got.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert not any(module.training or module._forward_hooks for module in network.modules())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"images": torch.zeros(3, 8, 8)}, "images"),
        ({"targets": 2}, "targets"),
        ({"attributions": torch.zeros(1, 2, 8, 8)}, "attributions"),
        ({"attributions": torch.full((1, 3, 8, 8), torch.nan)}, "attributions"),
        ({"segments": []}, "segments"),
        ({"segments": [torch.zeros(2, 8, 8)]}, "segments"),
        ({"segments": [torch.zeros(2, 8, 9).bool()]}, "segments"),
        ({"pictures": torch.zeros(1, 8, 8, 3)}, "pictures"),
        ({"pictures": torch.zeros(1, 3, 8, 8, dtype=torch.uint8)}, "pictures"),
        ({"baselines": torch.zeros(1, 3, 8, 9)}, "baselines"),
        ({"baselines": torch.zeros(0, 1, 3, 8, 8)}, "baselines"),
        ({"baselines": torch.zeros(1, 3, 8, 8), "attributions": torch.zeros(1, 3, 8, 8)}, "baselines"),
        ({"least": 0}, "least"),
        ({"steps": 0}, "steps"),
        ({"chunk": 0}, "chunk"),
    ],
)
def test_what_does_not_fit_names_the_argument(change: dict, named: str) -> None:
    arguments = {"images": torch.zeros(1, 3, 8, 8)} | change
    with pytest.raises(ValueError, match=rf"^{named}: "):
        xrai(linear(torch.ones(192)), **arguments)
