"""Folders as transformers' own save_pretrained writes them: tiny classifiers of many families, with seeded weights."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

CLASSES = 5
NAMES = {0: "cat", 1: "crane", 2: "dog", 3: "crane", 4: "owl"}
"""Names of the classes, of which one repeats, as in published folders."""

_VIT = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
_PATCHES = {"image_size": 32, "patch_size": 8}
_SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 12, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4}
_STAGES = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViTForImageClassification", _VIT | _PATCHES),
    "deit": ("DeiTForImageClassification", _VIT | _PATCHES),
    "deit_distilled": ("DeiTForImageClassificationWithTeacher", _VIT | _PATCHES),
    "swin": ("SwinForImageClassification", _SWIN),
    "swinv2": ("Swinv2ForImageClassification", _SWIN),
    "convnext": ("ConvNextForImageClassification", _STAGES),
    "convnextv2": ("ConvNextV2ForImageClassification", _STAGES),
    "dinov2": ("Dinov2ForImageClassification", _VIT | _PATCHES),
    "dinov2_with_registers": (
        "Dinov2WithRegistersForImageClassification",
        _VIT | _PATCHES | {"num_register_tokens": 3},
    ),
    "beit": ("BeitForImageClassification", _VIT | _PATCHES),
    "data2vec-vision": ("Data2VecVisionForImageClassification", _VIT | _PATCHES),
    "resnet": ("ResNetForImageClassification", _STAGES | {"embedding_size": 8}),
    "regnet": ("RegNetForImageClassification", _STAGES | {"embedding_size": 8, "groups_width": 4}),
    "bit": (
        "BitForImageClassification",
        {"hidden_sizes": [16, 32], "depths": [1, 1], "embedding_size": 8, "num_groups": 4},
    ),
    "mobilevit": (
        "MobileViTForImageClassification",
        {"hidden_sizes": [16, 16, 16], "neck_hidden_sizes": [8, 8, 8, 8, 16, 16, 16], "num_attention_heads": 2},
    ),
    "mobilevitv2": ("MobileViTV2ForImageClassification", {"width_multiplier": 0.25, "n_attn_blocks": [1, 1, 1]}),
    "mobilenet_v1": ("MobileNetV1ForImageClassification", {"depth_multiplier": 0.25, "min_depth": 4}),
    "mobilenet_v2": ("MobileNetV2ForImageClassification", {"depth_multiplier": 0.25}),
    "efficientnet": (
        "EfficientNetForImageClassification",
        {"width_coefficient": 0.25, "depth_coefficient": 0.2, "hidden_dim": 320, "image_size": 64},
    ),
    "pvt": (
        "PvtForImageClassification",
        {
            "image_size": 32,
            "hidden_sizes": [8, 8, 16, 16],
            "depths": [1, 1, 1, 1],
            "sequence_reduction_ratios": [2, 1, 1, 1],
        }
        | {"num_attention_heads": [1, 1, 2, 2], "patch_sizes": [4, 2, 2, 1], "strides": [4, 2, 2, 1]},
    ),
    "pvt_v2": (
        "PvtV2ForImageClassification",
        {"image_size": 64, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]},
    ),
    "levit": (
        "LevitForImageClassificationWithTeacher",
        {"image_size": 64, "hidden_sizes": [16, 24, 32], "num_attention_heads": [2, 2, 2], "depths": [1, 1, 1]}
        | {"key_dim": [8, 8, 8]},
    ),
    "poolformer": ("PoolFormerForImageClassification", _STAGES),
    "segformer": (
        "SegformerForImageClassification",
        {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]},
    ),
    "focalnet": (
        "FocalNetForImageClassification",
        {"image_size": 32, "embed_dim": 8, "depths": [1, 1], "hidden_sizes": [8, 16]},
    ),
    "siglip": (
        "SiglipForImageClassification",
        {"vision_config": _VIT | _PATCHES, "text_config": _VIT | {"vocab_size": 32}},
    ),
    "clip": (
        "CLIPForImageClassification",
        {"vision_config": _VIT | _PATCHES, "text_config": _VIT | {"vocab_size": 32}},
    ),
}
"""Class and configuration of each family."""


def network(family: str, **config: Any) -> Any:
    """A seeded network of transformers' in eval(), whose statistics and biases are not 0 and 1."""
    name, values = FAMILIES[family]
    transformers = importlib.import_module("transformers")
    kind = getattr(transformers, name)
    torch.manual_seed(0)
    made = kind(kind.config_class(**{"num_labels": CLASSES, "id2label": NAMES, **values, **config}))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return made.eval()


def side(family: str) -> int:
    """Side of the family's images, pixels."""
    config = FAMILIES[family][1]
    return config.get("vision_config", config).get("image_size", 64)


def images(family: str, count: int = 2) -> Tensor:
    """Images (count, 3, side, side) of noise."""
    return torch.rand(count, 3, side(family), side(family), generator=torch.Generator().manual_seed(1))


def write(folder: Path, family: str, **config: Any) -> Any:
    """Write the folder of a family; returns the network that was written."""
    made = network(family, **config)
    made.save_pretrained(folder)
    return made
