from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from imagexplain.errors import RequestError
from imagexplain.vision.geometry import Geometry, Kernel, fit
from imagexplain.vision.preprocess import apply
from imagexplain.vision.preprocess_settings import Preprocess
from tests.wire.photos import noise_photo

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


@pytest.mark.parametrize("size", [(32, 32), (24, 40), (48, 40)])
@pytest.mark.parametrize("shape", [(48, 40), (480, 640), (7, 9), (1, 1), (1, 300), (32, 32)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_stretch_is_torchvision_bit_for_bit(
    size: tuple[int, int], shape: tuple[int, int], interpolation: Literal["bilinear", "bicubic"]
) -> None:
    mode = transforms.InterpolationMode(interpolation)
    theirs = transforms.Compose([transforms.Resize(size, mode), transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    ours, geometry = apply(noise_photo(*shape), Preprocess(size, MEAN, STD, interpolation=interpolation))
    assert ours.dtype == torch.float32
    assert ours.is_contiguous()
    assert torch.equal(ours, theirs(noise_photo(*shape)))
    assert geometry == Geometry(shape, size, (0, 0, *size))


@pytest.mark.parametrize("shape", [(480, 640), (641, 427), (33, 35), (300, 301), (50, 4000)])
@pytest.mark.parametrize(("side", "fraction"), [(32, 1.0), (32, 0.875), (224, 0.9)])
def test_square_crop_is_torchvision_bit_for_bit(shape: tuple[int, int], side: int, fraction: float) -> None:
    mode = transforms.InterpolationMode.BICUBIC
    theirs = transforms.Compose(
        [
            transforms.Resize(int(side / fraction), mode),
            transforms.CenterCrop(side),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    wanted = Preprocess((side, side), MEAN, STD, fit="crop", crop_fraction=fraction, interpolation="bicubic")
    assert torch.equal(apply(noise_photo(*shape), wanted)[0], theirs(noise_photo(*shape)))


def test_crop_geometry_by_hand() -> None:
    # 100 × 200 to a height of 10 / 0.5 = 20: 20 × 40, and the middle 10 × 10 of it.
    assert fit((100, 200), Preprocess((10, 10), MEAN, STD, fit="crop", crop_fraction=0.5)) == Geometry(
        (100, 200), (20, 40), (5, 15, 10, 10)
    )
    # A wide crop of a tall photo is limited by its width.
    assert fit((200, 100), Preprocess((10, 20), MEAN, STD, fit="crop")) == Geometry(
        (200, 100), (40, 20), (15, 0, 10, 20)
    )


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 64), st.integers(1, 64), st.floats(0.3, 1.0))
def test_the_crop_lies_within(height: int, width: int, h: int, w: int, fraction: float) -> None:
    assume(max(height, width) <= 100 * min(height, width))
    geometry = fit((height, width), Preprocess((h, w), MEAN, STD, fit="crop", crop_fraction=fraction))
    top, left, box_height, box_width = geometry.box
    assert (box_height, box_width) == (h, w)
    assert top >= 0
    assert left >= 0
    assert top + h <= geometry.resized[0]
    assert left + w <= geometry.resized[1]


def test_a_thread_of_a_photo_cannot_be_cropped() -> None:
    with pytest.raises(RequestError, match="1001 × 10"):
        apply(noise_photo(10, 1001), Preprocess((32, 32), MEAN, STD, fit="crop"))


def test_the_photo_stays_as_it_was() -> None:
    image = noise_photo(20, 30)
    before = image.tobytes()
    apply(image, Preprocess((20, 30), MEAN, STD))
    assert image.tobytes() == before


def test_only_rgb() -> None:
    with pytest.raises(ValueError, match="mode L"):
        apply(noise_photo(4, 4).convert("L"), Preprocess((4, 4), MEAN, STD))


@pytest.mark.parametrize(
    ("settings_", "field"),
    [
        ({"size": (0, 4)}, "size"),
        ({"std": (1, 0, 1)}, "std"),
        ({"fit": "cover"}, "fit"),
        ({"crop_fraction": 0}, "crop_fraction"),
        ({"interpolation": "cubic"}, "interpolation"),
    ],
)
def test_bad_settings_name_the_field(settings_: dict[str, object], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        Preprocess(**{"size": (4, 4), "mean": MEAN, "std": STD, **settings_})  # type: ignore[arg-type]


# The way back


def test_bilinear_is_torch_interpolate() -> None:
    values = torch.randn(6, 8, dtype=torch.float64)  # so that rounding is ours alone
    ours = Geometry((30, 44), (6, 8), (0, 0, 6, 8)).to_photo(values)
    theirs = torch.nn.functional.interpolate(values[None, None], size=(30, 44), mode="bilinear", align_corners=False)
    assert (ours - theirs[0, 0]).abs().max() <= 1e-6 * values.abs().max()


@pytest.mark.parametrize("kernel", ["bilinear", "bspline"])
@pytest.mark.parametrize("shape", [(30, 44), (6, 8), (3, 5), (1, 1)])
def test_a_constant_stays_constant(kernel: Kernel, shape: tuple[int, int]) -> None:
    drawn = Geometry(shape, (6, 8), (0, 0, 6, 8)).to_photo(torch.full((6, 8), 2.5), kernel)
    assert drawn.shape == shape
    assert torch.allclose(drawn, torch.tensor(2.5))


def test_identity() -> None:
    values = torch.randn(5, 7)
    assert torch.allclose(Geometry((5, 7), (5, 7), (0, 0, 5, 7)).to_photo(values), values, atol=1e-7)


def test_outside_the_crop_is_zero() -> None:
    # The photo is 4 × 8, resized to 2 × 4, of which the middle 2 × 2 is the model's: the photo's columns 2 … 5.
    drawn = Geometry((4, 8), (2, 4), (0, 1, 2, 2)).to_photo(torch.ones(2, 2))
    expected = torch.zeros(4, 8)
    expected[:, 2:6] = 1
    assert torch.equal(drawn, expected)


def test_a_mark_returns_to_its_place() -> None:
    # A white square in a crop comes back where it stood in the photo.
    pixels = np.zeros((120, 240, 3), dtype=np.uint8)
    pixels[40:60, 100:130] = 255
    values, geometry = apply(Image.fromarray(pixels), Preprocess((48, 48), (0, 0, 0), (1, 1, 1), fit="crop"))
    drawn = geometry.to_photo(values.mean(dim=0))
    rows, columns = torch.meshgrid(torch.arange(120) + 0.5, torch.arange(240) + 0.5, indexing="ij")
    assert (drawn * rows).sum() / drawn.sum() == pytest.approx(50, abs=0.2)
    assert (drawn * columns).sum() / drawn.sum() == pytest.approx(115, abs=0.2)


@settings(max_examples=30)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 20), st.integers(1, 20))
def test_bspline_never_overshoots(height: int, width: int, h: int, w: int) -> None:
    values = torch.rand(h, w, generator=torch.Generator().manual_seed(h * 100 + w))
    drawn = Geometry((height, width), (h, w), (0, 0, h, w)).to_photo(values, "bspline")
    assert drawn.min() >= values.min() - 1e-5
    assert drawn.max() <= values.max() + 1e-5


def test_a_map_needs_two_dimensions() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4, 4\)"):
        Geometry((4, 4), (4, 4), (0, 0, 4, 4)).to_photo(torch.zeros(3, 4, 4))


def test_a_grey_photo_in_model_space() -> None:
    preprocess = Preprocess((2, 3), (0.5, 0.4, 0.3), (0.5, 0.2, 0.1))
    black, white = preprocess.grey(0), preprocess.grey(1)
    assert black.shape == (3, 2, 3)
    torch.testing.assert_close(black[:, 0, 0], torch.tensor([-1.0, -2.0, -3.0]))
    torch.testing.assert_close(white[:, 1, 2], torch.tensor([1.0, 3.0, 7.0]))
    for value, grey in ((0, black), (255, white)):
        photo = Image.new("RGB", (5, 4), (value, value, value))
        torch.testing.assert_close(apply(photo, preprocess)[0], grey)
