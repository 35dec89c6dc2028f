"""Each way in which image processors of transformers prepare photos, on photos of odd sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from imagexplain.vision.preprocess import apply
from imagexplain.vision.preprocess_settings import Preprocess
from tests.wire.photos import noise_photo

transformers = pytest.importorskip("transformers")

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHAPES = [(51, 77), (77, 51), (33, 33), (15, 19), (9, 301)]
FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
BY_TORCH = {"crop_offset": "floor", "resampling": "torch"}
BY_PILLOW = {"crop_offset": "floor", "pad_extra": "before"}
BACKENDS = [("", BY_TORCH), ("Pil", BY_PILLOW)]


def theirs(processor: Any, photo: Image.Image) -> Tensor:
    """Input of a photo by an image processor."""
    values: Tensor = processor(photo, return_tensors="pt")["pixel_values"][0]
    return values


def difference(photo: Image.Image, processor: Any, size: tuple[int, int], **fields: Any) -> float:
    """Largest difference of a photo's inputs, in units of the input: both round to float32, in another order."""
    got, _ = apply(photo, Preprocess(**{"size": size, "mean": MEAN, "std": STD, **fields}))
    wanted = theirs(processor, photo)
    assert got.shape == wanted.shape
    return (got - wanted).abs().max().item()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("suffix", "fields", "interpolation"),
    [
        (suffix, fields, name)
        for suffix, fields in BACKENDS
        for name in FILTERS
        if suffix or name not in ("box", "hamming")  # which torch has not
    ],
)
def test_squashed(shape: tuple[int, int], suffix: str, fields: dict[str, Any], interpolation: str) -> None:
    processor = getattr(transformers, f"ViTImageProcessor{suffix}")(
        size={"height": 32, "width": 30}, resample=FILTERS[interpolation], image_mean=MEAN, image_std=STD
    )
    if suffix == "" and interpolation == "nearest":
        interpolation = "nearest_exact"
    assert difference(noise_photo(*shape), processor, (32, 30), interpolation=interpolation, **fields) <= 1e-6


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shorter", [37, 36, 31, 20])
@pytest.mark.parametrize(("suffix", "fields"), BACKENDS)
def test_shorter_side_and_centre_crop(
    shape: tuple[int, int], shorter: int, suffix: str, fields: dict[str, Any]
) -> None:
    processor = getattr(transformers, f"CLIPImageProcessor{suffix}")(
        size={"shortest_edge": shorter}, crop_size={"height": 32, "width": 29}, image_mean=MEAN, image_std=STD
    )
    fields = {"fit": "crop", "resize": shorter, "interpolation": "bicubic", **fields}
    assert difference(noise_photo(*shape), processor, (32, 29), **fields) <= 1e-6


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("suffix", "fields"), BACKENDS)
def test_a_fraction_of_the_shorter_side(shape: tuple[int, int], suffix: str, fields: dict[str, Any]) -> None:
    processor = getattr(transformers, f"ConvNextImageProcessor{suffix}")(
        size={"shortest_edge": 32}, crop_pct=0.875, image_mean=MEAN, image_std=STD
    )
    fields = {"fit": "crop", "resize": int(32 / 0.875), "interpolation": "bicubic", **fields}
    assert difference(noise_photo(*shape), processor, (32, 32), **fields) <= 1e-6


@pytest.mark.parametrize("suffix", ["", "Pil"])
def test_minus_one_to_one(suffix: str) -> None:
    processor = getattr(transformers, f"EfficientNetImageProcessor{suffix}")(
        size={"height": 32, "width": 32},
        resample=FILTERS["bilinear"],
        rescale_factor=1 / 127.5,
        rescale_offset=True,
        do_normalize=False,
        do_center_crop=False,
        include_top=False,
    )
    fields: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "resampling": "pillow" if suffix else "torch"}
    assert difference(noise_photo(51, 77), processor, (32, 32), **fields) <= 1e-6


@pytest.mark.parametrize(("suffix", "resampling"), [("", "torch"), ("Pil", "pillow")])
def test_values_of_0_to_255(suffix: str, resampling: str) -> None:
    processor = getattr(transformers, f"ViTImageProcessor{suffix}")(
        size={"height": 32, "width": 32}, do_rescale=False, do_normalize=False, resample=FILTERS["bilinear"]
    )
    fields: dict[str, Any] = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "scale": 255.0, "resampling": resampling}
    assert difference(noise_photo(51, 77), processor, (32, 32), **fields) <= 255 * 1e-7


def test_squares_as_they_pad_them() -> None:
    # Pixtral's, Idefics' and others' way: below and to the right, before the values are normalised.
    photo = noise_photo(51, 77)
    resized = photo.resize((32, int(32 * 51 / 77)), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1)
    processor = transformers.ViTImageProcessor(
        do_resize=False, do_pad=True, pad_size={"height": 32, "width": 32}, image_mean=MEAN, image_std=STD
    )
    padded = processor.pad([pixels], pad_size=processor.pad_size)[0]
    wanted = processor.rescale_and_normalize(padded, True, 1 / 255, True, MEAN, STD)
    got, _ = apply(photo, Preprocess((32, 32), MEAN, STD, fit="pad", pad_position="top_left"))
    assert (got - wanted).abs().max() <= 1e-6
