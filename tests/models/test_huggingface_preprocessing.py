"""Preprocessing of transformers' folders: equal to what its own image processors make of photos of odd sizes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import AutoImageProcessor

from imagexplain.models.checkpoints.state_dict import CheckpointError
from imagexplain.models.classifiers import huggingface_preprocessing
from imagexplain.vision.preprocess import apply
from imagexplain.vision.preprocess_settings import Preprocess

SIZES = ((301, 257), (97, 213), (33, 21), (225, 224))
"""Widths and heights of photos: shrunk, enlarged, and on either side of a rounding."""

PROCESSORS: list[tuple[str, dict[str, Any]]] = [
    ("ViT", {}),
    (
        "ViT",
        {
            "size": {"height": 95, "width": 130},
            "resample": 1,
            "image_mean": [0.1, 0.2, 0.3],
            "image_std": [0.3, 0.2, 0.1],
        },
    ),
    ("ViT", {"resample": 0, "do_normalize": False}),
    ("ViT", {"do_rescale": False, "image_mean": [100.0, 110.0, 120.0], "image_std": [50.0, 60.0, 70.0]}),
    ("ViT", {"rescale_factor": 1 / 127.5}),
    ("ViT", {"size": {"shortest_edge": 101}, "do_center_crop": True, "crop_size": {"height": 96, "width": 81}}),
    ("DeiT", {}),
    ("ConvNext", {"size": {"shortest_edge": 224}}),
    ("ConvNext", {"size": {"shortest_edge": 127}, "crop_pct": 0.95}),
    ("ConvNext", {}),
    ("Beit", {"do_center_crop": True, "size": {"height": 256, "width": 256}}),
    ("MobileViT", {"size": {"shortest_edge": 288}}),
    ("MobileViT", {}),  # whose crop is larger than what it resizes to
    ("MobileViT", {"do_flip_channel_order": False, "crop_size": {"height": 223, "width": 301}}),
    ("MobileNetV1", {}),
    ("MobileNetV2", {}),
    ("EfficientNet", {}),
    (
        "EfficientNet",
        {"rescale_offset": True, "rescale_factor": 1 / 127.5, "include_top": False, "do_center_crop": True},
    ),
    ("EfficientNet", {"rescale_offset": True, "do_normalize": False, "resample": 0}),
    ("Levit", {}),
    ("Levit", {"size": {"height": 240, "width": 230}}),
    ("PoolFormer", {}),
    ("PoolFormer", {"size": {"height": 230, "width": 240}}),
    ("Segformer", {}),
    ("Siglip", {}),
    ("CLIP", {}),
    ("Bit", {}),
    ("Pvt", {}),
]


def photo(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def assert_same_as_the_librarys(processor: Any, fields: dict[str, Any]) -> None:
    for size in SIZES:
        image = photo(*size)
        expected = processor(image, return_tensors="pt").pixel_values[0].float()
        found, _ = apply(image, Preprocess(**fields))
        assert found.shape == expected.shape
        assert torch.allclose(found, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max())), size


@pytest.mark.parametrize("library", ["", "Pil"], ids=["torchvision", "pillow"])
@pytest.mark.parametrize(("name", "settings"), PROCESSORS)
def test_photos_are_prepared_as_by_the_library(name: str, settings: dict[str, Any], library: str) -> None:
    processor = getattr(transformers, f"{name}ImageProcessor{library}")(**settings)
    assert_same_as_the_librarys(processor, huggingface_preprocessing.fields_of(processor))


@pytest.mark.parametrize("code", [4, 5])
def test_filters_that_only_pillow_has(code: int) -> None:
    processor = transformers.ViTImageProcessorPil(resample=code)
    assert_same_as_the_librarys(processor, huggingface_preprocessing.fields_of(processor))
    with pytest.raises(ValueError, match=r"^resample: wanted a filter that torchvision has"):
        huggingface_preprocessing.fields_of(transformers.ViTImageProcessor(resample=code))


def write(folder: Path, content: dict[str, Any], name: str = "preprocessor_config.json") -> Path:
    (folder / name).write_text(json.dumps(content))
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))
    return folder


@pytest.mark.parametrize(
    "content",
    [
        {"feature_extractor_type": "ViTFeatureExtractor", "size": 96, "resample": 2, "do_resize": True},
        {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 160, "crop_pct": 0.875},
        {"feature_extractor_type": "CLIPFeatureExtractor", "size": 96, "crop_size": 90, "resample": 3},
        {"image_processor_type": "ViTImageProcessorFast", "size": {"height": 96, "width": 64}, "resample": 3},
        {"image_processor_type": "ViTImageProcessor", "image_mean": [0.4, 0.5, 0.6], "do_convert_rgb": True},
        {"size": 64},
    ],
)
def test_files_of_older_versions(content: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path, content)
    processor = AutoImageProcessor.from_pretrained(tmp_path, local_files_only=True)
    fields = huggingface_preprocessing.preprocess(tmp_path)
    assert fields["resampling"] == "torch" and processor.backend == "torchvision"
    assert_same_as_the_librarys(processor, fields)


def test_a_file_that_holds_other_processors_too(tmp_path: Path) -> None:
    content = {
        "image_processor": {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": 99},
            "crop_size": {"height": 80, "width": 80},
        },
        "processor_class": "CLIPProcessor",
    }
    write(tmp_path, content, "processor_config.json")
    fields = huggingface_preprocessing.preprocess(tmp_path)
    assert (fields["size"], fields["resize"], fields["fit"]) == ((80, 80), 99, "crop")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"image_processor_type": "ViTImageProcessor", "do_resize": False}, "do_resize: wanted true"),
        ({"image_processor_type": "ViTImageProcessor", "size": {"shortest_edge": 9}}, "do_center_crop: wanted true"),
        (
            {"image_processor_type": "ViTImageProcessor", "size": {"shortest_edge": 9, "longest_edge": 12}},
            "size: longest_edge: wanted height and width, or shortest_edge alone",
        ),
        (
            {"image_processor_type": "ConvNextImageProcessor", "size": {"height": 9, "width": 9}},
            "size: wanted shortest",
        ),
        (
            {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 99}}
            | {"do_center_crop": True, "crop_size": {"height": 80, "width": 80}},
            r"crop_size: wanted \(99, 99\), to which `size` cuts photos already, got \(80, 80\)",
        ),
        ({"image_processor_type": "ViTImageProcessor", "do_pad": True}, "do_pad: wanted false"),
        ({"image_processor_type": "ViTImageProcessor", "image_std": [0.5, 0.5]}, "image_std: wanted a number for each"),
        ({"image_processor_type": "ViTImageProcessor", "image_std": [0.5, 0.5, 0]}, "image_std: wanted positive"),
        ({"image_processor_type": "ViTImageProcessor", "rescale_factor": 0}, "rescale_factor: wanted positive"),
        ({"image_processor_type": "ViTImageProcessor", "resample": 17}, "resample: wanted one of 0, 1, 2, 3, 4, 5"),
        ({"image_processor_type": "ViTImageProcessor", "size": "large"}, "no image processor: "),
        ({"image_processor_type": "NoImageProcessor"}, "no image processor: "),
        (
            {"image_processor_type": "DonutImageProcessor"},
            "image_processor_type: wanted one whose steps are known: .*got Donut",
        ),
        (
            {"auto_map": {"AutoImageProcessor": "own.Processor"}},
            "auto_map: wanted an image processor of transformers' own",
        ),
    ],
)
def test_what_cannot_be_followed(content: dict[str, Any], message: str, tmp_path: Path) -> None:
    write(tmp_path, content)
    with pytest.raises(CheckpointError, match=f"^preprocessor_config.json: {message}"):
        huggingface_preprocessing.preprocess(tmp_path)


def test_a_folder_without_the_file(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=re.escape("preprocessor_config.json: no such file in the folder, which has no files")
    ):
        huggingface_preprocessing.preprocess(tmp_path)
