"""Each way of preparing photos against the library that has it, on photos of odd sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor
from torchvision import transforms as v1
from torchvision.transforms import InterpolationMode, v2

from imagexplain.models.classifiers import timm_network
from imagexplain.vision.preprocess import apply
from imagexplain.vision.preprocess_settings import Preprocess
from tests.wire.photos import noise_photo

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHAPES = [(51, 77), (77, 51), (33, 33), (15, 19), (9, 301)]
PILLOW = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
TORCH = ("nearest", "nearest_exact", "bilinear", "bicubic", "lanczos")

Transform = Callable[[Any], Tensor]


def ours(photo: Image.Image, size: tuple[int, int] = (32, 32), **fields: Any) -> Tensor:
    """Input of a photo, by ImageNet's mean and std where nothing else is said."""
    return apply(photo, Preprocess(**{"size": size, "mean": MEAN, "std": STD, **fields}))[0]


def of_torchvision(*steps: Any) -> Transform:
    """Pipeline of torchvision's first transforms, on Pillow's images."""
    whole: Transform = v1.Compose([*steps, v1.ToTensor(), v1.Normalize(MEAN, STD)])
    return whole


def of_tensors(*steps: Any, floating: bool = False) -> Transform:
    """Pipeline of torchvision's second transforms, on tensors of 8 bits or of floating point."""
    to_float = [v2.ToDtype(torch.float32, scale=True)]
    first, last = (to_float, []) if floating else ([], to_float)
    whole: Transform = v2.Compose([v2.PILToTensor(), *first, *steps, *last, v2.Normalize(MEAN, STD)])
    return whole


def mode_of(interpolation: str) -> InterpolationMode:
    """torchvision's name of a filter."""
    return InterpolationMode(interpolation.replace("_", "-"))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("interpolation", PILLOW)
def test_shorter_side_and_centre_crop(shape: tuple[int, int], interpolation: str) -> None:
    theirs = of_torchvision(v1.Resize(37, mode_of(interpolation)), v1.CenterCrop((32, 30)))
    photo = noise_photo(*shape)
    got = ours(photo, (32, 30), fit="crop", resize=37, interpolation=interpolation)
    assert torch.equal(got, theirs(photo))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("resize", [20, 31, (20, 45), (45, 21)])
def test_a_crop_that_is_larger_than_the_photo_is_padded(shape: tuple[int, int], resize: int | tuple[int, int]) -> None:
    theirs = of_torchvision(v1.Resize(resize), v1.CenterCrop((32, 29)))
    photo = noise_photo(*shape)
    assert torch.equal(ours(photo, (32, 29), fit="crop", resize=resize), theirs(photo))


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if max(shape) < 300])
@pytest.mark.parametrize(("resize", "longer"), [(30, 41), (None, 41), (None, 32), (None, 23)])
def test_longer_side(shape: tuple[int, int], resize: int | None, longer: int) -> None:
    theirs = of_tensors(v2.Resize(resize, max_size=longer), v2.CenterCrop(32))
    photo = noise_photo(*shape)
    got = ours(photo, fit="crop", resize=resize, longer=longer, resampling="torch")
    assert torch.equal(got, theirs(photo))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("interpolation", "antialias"),
    [(name, widened) for name in TORCH for widened in (True, False) if widened or name != "lanczos"],
)
@pytest.mark.parametrize("floating", [False, True])
def test_tensors(shape: tuple[int, int], interpolation: str, antialias: bool, floating: bool) -> None:
    resize = v2.Resize(37, mode_of(interpolation), antialias=antialias)
    theirs = of_tensors(resize, v2.CenterCrop(32), floating=floating)
    photo, by = noise_photo(*shape), "torch_float" if floating else "torch"
    got = ours(photo, fit="crop", resize=37, interpolation=interpolation, antialias=antialias, resampling=by)
    assert torch.equal(got, theirs(photo))


@pytest.mark.parametrize("antialias", [True, False])
def test_8_bits_are_rounded(antialias: bool) -> None:
    # Two pixels, one above the other, become one of mean 1.5: 2 on 8 bits, and 1.5 in floating point.
    photo = Image.fromarray(np.array([[1, 1], [2, 2]], dtype=np.uint8)[..., None].repeat(3, 2))
    settings: dict[str, Any] = {"size": (1, 2), "mean": (0.0,) * 3, "std": (1.0,) * 3, "antialias": antialias}
    assert ours(photo, resampling="torch", **settings).mul(255).round(decimals=4).unique().tolist() == [2]
    assert ours(photo, resampling="torch_float", **settings).mul(255).mean().item() == pytest.approx(1.5)


@pytest.mark.parametrize("shape", SHAPES)
def test_stretched_tensors(shape: tuple[int, int]) -> None:
    theirs = of_tensors(v2.Resize((24, 40), antialias=False))
    photo = noise_photo(*shape)
    assert torch.equal(ours(photo, (24, 40), resampling="torch", antialias=False), theirs(photo))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", ["reflect", "edge"])
def test_padding_by_the_photo_itself(shape: tuple[int, int], mode: str) -> None:
    photo = noise_photo(*shape)
    got, geometry = apply(photo, Preprocess((32, 31), MEAN, STD, fit="pad", pad_mode=mode))  # type: ignore[arg-type]
    height, width = geometry.resized
    down, across = 32 - height, 31 - width
    pixels = np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR))
    sides = ((down // 2, down - down // 2), (across // 2, across - across // 2), (0, 0))
    padded = Image.fromarray(np.pad(pixels, sides, mode=mode))  # type: ignore[call-overload]
    assert torch.equal(got, of_torchvision()(padded))
    if mode == "reflect" and down < height and across < width:  # torchvision mirrors once
        theirs = v1.Pad((across // 2, down // 2, across - across // 2, down - down // 2), padding_mode="reflect")
        assert torch.equal(got, of_torchvision(theirs)(Image.fromarray(pixels)))


@pytest.mark.parametrize("shape", SHAPES)
def test_letterbox_at_the_corner(shape: tuple[int, int]) -> None:
    photo = noise_photo(*shape)
    got = ours(photo, fit="pad", pad_position="top_left", pad_value=(10.0, 20.0, 30.0))
    longer = max(shape)
    sides = [max(1, int(32 * side / longer)) for side in shape]
    whole = Image.new("RGB", (32, 32), (10, 20, 30))
    whole.paste(photo.resize((sides[1], sides[0]), Image.Resampling.BILINEAR), (0, 0))
    assert torch.equal(got, of_torchvision()(whole))


@pytest.mark.parametrize("shape", SHAPES[:4])
def test_padded_tensors(shape: tuple[int, int]) -> None:
    photo = noise_photo(*shape)
    got, geometry = apply(photo, Preprocess((32, 31), MEAN, STD, fit="pad", pad_value=114.0, resampling="torch"))
    down, across = 32 - geometry.resized[0], 31 - geometry.resized[1]
    sides = [across // 2, down // 2, across - across // 2, down - down // 2]
    assert torch.equal(got, of_tensors(v2.Resize(geometry.resized), v2.Pad(sides, fill=114))(photo))


@pytest.mark.parametrize("shape", SHAPES)
def test_letterbox_of_opencv(shape: tuple[int, int]) -> None:
    """As YOLO's; OpenCV rounds its weights, so that a value of 0..255 may be the next one."""
    photo, ratio = noise_photo(*shape), min(64 / side for side in shape)
    height, width = (round(side * ratio) for side in shape)
    resized = cv2.resize(np.asarray(photo), (width, height), interpolation=cv2.INTER_LINEAR)
    down, across = (64 - height) / 2, (64 - width) / 2
    sides = round(down - 0.1), round(down + 0.1), round(across - 0.1), round(across + 0.1)
    theirs = cv2.copyMakeBorder(resized, *sides, cv2.BORDER_CONSTANT, value=(114, 114, 114))
    fields = {"pad_value": 114, "resampling": "torch", "antialias": False, "resize_rounding": "round", "scale": 255.0}
    got = ours(photo, (64, 64), fit="pad", mean=(0.0,) * 3, std=(1.0,) * 3, **fields)
    assert (got - torch.from_numpy(theirs).permute(2, 0, 1)).abs().max() <= 1 + 1e-4


# Channels and values


@pytest.mark.parametrize("shape", SHAPES)
def test_grey(shape: tuple[int, int]) -> None:
    theirs = v1.Compose([v1.Grayscale(), v1.Resize((28, 28)), v1.ToTensor(), v1.Normalize((0.1307,), (0.3081,))])
    photo = noise_photo(*shape)
    assert torch.equal(ours(photo, (28, 28), channels="grey", mean=(0.1307,), std=(0.3081,)), theirs(photo))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("transparent", [False, True])
def test_alpha(shape: tuple[int, int], transparent: bool) -> None:
    photo = noise_photo(*shape)
    if transparent:
        photo.putalpha(noise_photo(*shape, seed=1).getchannel("R"))
    mean, std = (*MEAN, 0.5), (*STD, 0.25)
    theirs = v1.Compose([v1.Resize(35), v1.CenterCrop(32), v1.ToTensor(), v1.Normalize(mean, std)])
    got = ours(photo, fit="crop", resize=35, channels="rgba", mean=mean, std=std)
    assert torch.equal(got, theirs(photo.convert("RGBA")))


@pytest.mark.parametrize("shape", SHAPES)
def test_bgr_of_0_to_255(shape: tuple[int, int]) -> None:
    # As Caffe's networks take them.
    mean, photo = (103.939, 116.779, 123.68), noise_photo(*shape)
    pixels = np.asarray(photo.resize((32, 32), Image.Resampling.BILINEAR), dtype=np.float32)[..., ::-1]
    theirs = torch.from_numpy(pixels - np.array(mean, dtype=np.float32)).permute(2, 0, 1)
    got = ours(photo, channels="bgr", scale=255.0, mean=mean, std=(1.0, 1.0, 1.0))
    assert (got - theirs).abs().max() <= 255 * 1e-7


@pytest.mark.parametrize("shape", SHAPES)
def test_minus_one_to_one(shape: tuple[int, int]) -> None:
    photo = noise_photo(*shape)
    pixels = np.asarray(photo.resize((32, 32), Image.Resampling.BILINEAR), dtype=np.float64) / 127.5 - 1
    got = ours(photo, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert (got - torch.from_numpy(pixels).permute(2, 0, 1)).abs().max() <= 1e-6


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1.0, 255.0])
@pytest.mark.parametrize("flat", [False, True])
def test_tensorflow_standardises_each_image(shape: tuple[int, int], scale: float, flat: bool) -> None:
    photo = Image.new("RGB", shape[::-1], (70, 71, 72)) if flat else noise_photo(*shape)
    pixels = np.asarray(photo.resize((32, 32), Image.Resampling.BILINEAR), dtype=np.float64) * (scale / 255)
    # "adjusted_stddev = max(stddev, 1.0/sqrt(N))" (tf.image.per_image_standardization)
    theirs = (pixels - pixels.mean()) / max(pixels.std(), 1 / np.sqrt(pixels.size))
    got = ours(photo, mean=(0.0,) * 3, std=(1.0,) * 3, scale=scale, standardize=True)
    assert (got - torch.from_numpy(theirs).permute(2, 0, 1)).abs().max() <= 2e-6


def test_each_channel_by_itself() -> None:
    photo = noise_photo(51, 77)
    values = ours(photo, mean=(0.0,) * 3, std=(1.0,) * 3)
    wanted = torch.nn.functional.instance_norm(values[None].double(), eps=0.0)[0]
    got = ours(photo, mean=(0.0,) * 3, std=(1.0,) * 3, standardize="channel")
    assert (got - wanted).abs().max() <= 2e-6


# Whole pipelines of timm


@pytest.mark.parametrize("shape", [(301, 419), (419, 301), (101, 999), (64, 64)])
@pytest.mark.parametrize(
    "name",
    [
        "deepseek_vit_412m.deepseek_v4_flash_vision_exp",  # padded by its mean
        "dm_nfnet_f1.dm_in1k",  # squashed, then cropped
        "vit_base_patch16_clip_384.openai_ft_in12k_in1k",
        "vit_base_patch16_siglip_224.webli",
        "mobilenetv3_small_100.lamb_in1k",
    ],
)
def test_timm(name: str, shape: tuple[int, int]) -> None:
    with torch.device("meta"):
        config = resolve_model_data_config(timm.create_model(name))
    photo = noise_photo(*shape)
    theirs = create_transform(**config, is_training=False)(photo)
    assert torch.equal(apply(photo, Preprocess(**timm_network.preprocess(name, {})))[0], theirs)


@pytest.mark.parametrize("shape", [(301, 419), (419, 301), (101, 999), (50, 50)])
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("fraction", [1.0, 0.875])
def test_timm_of_any_size(shape: tuple[int, int], crop_mode: str, fraction: float) -> None:
    config = {
        "input_size": (3, 96, 70),
        "crop_mode": crop_mode,
        "crop_pct": fraction,
        "interpolation": "bicubic",
        "mean": MEAN,
        "std": STD,
    }
    photo = noise_photo(*shape)
    theirs = create_transform(**config, is_training=False)(photo)
    fields = timm_network.fields_of(config)
    assert torch.equal(apply(photo, Preprocess(**fields))[0], theirs)
