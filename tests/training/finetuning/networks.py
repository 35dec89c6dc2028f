"""Small networks and images for the fine-tuning."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import timm
import torch
from torch import nn

from training.finetuning.config import FinetuneConfig
from training.finetuning.labelled_images import TensorImages

TINY: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
"""Arguments of a ViT of timm that takes milliseconds."""

CLASSES = ("dark", "light", "middle")

PLAIN = FinetuneConfig(
    epochs=3, warmup_epochs=1, batch=4, accumulation=2, rate=1e-2, mixup=0, cutmix=0, smoothing=0, weight_decay=0.01
)
"""Settings without mixing."""

MIXED = replace(PLAIN, mixup=0.8, cutmix=1.0, smoothing=0.1)


def tiny_vit(classes: int = len(CLASSES), seed: int = 0, **arguments: Any) -> nn.Module:
    """The network of :data:`TINY`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network: nn.Module = timm.create_model(
            "vit_tiny_patch16_224", num_classes=classes, weight_init="", **TINY | arguments
        )
    return network


def tiny_cnn(seed: int = 0) -> nn.Module:
    """A network that is none of timm's: a convolution, a batch norm, dropout and a classifier."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, len(CLASSES)),
        )


def brightness(count: int, size: int = 32, seed: int = 0) -> TensorImages:
    """Noise around one of three brightnesses, which is the class; the classes take turns."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(CLASSES)
    levels = torch.tensor([-1.0, 1.0, 0.0])[labels]
    images = levels[:, None, None, None] + 0.5 * torch.randn(count, 3, size, size, generator=generator)
    return TensorImages(images, labels, CLASSES)
