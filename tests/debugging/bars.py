"""Bars, across or upright, whose colour of the background goes with the class or contradicts it, and a model that
learned the colour."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from imagexplain.models.classifiers import timm_network
from imagexplain.vision.preprocess_settings import Preprocess
from tests.debugging.scene_folder import write_png
from training.finetuning.config import FinetuneConfig
from training.finetuning.image_folder import ImageFolder, list_folder
from training.finetuning.pipeline import Pipeline
from training.finetuning.trainer import finetune

CLASSES = ("upright", "across")
"""Names of the classes by label; their folders are the other way round."""

COLOURS = ((60, 60, 170), (170, 60, 60))
SIZE = 24
NETWORK: tuple[str, dict[str, Any]] = ("resnet18", {"channels": [16, 16, 16, 16], "layers": [1, 1, 1, 1]})
PREPROCESS = Preprocess((SIZE, SIZE), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
CONFIG = FinetuneConfig(
    epochs=4, warmup_epochs=1, batch=16, accumulation=1, rate=5e-3, layer_decay=1.0, mixup=0, cutmix=0, smoothing=0
)


def write_bars(folder: Path, count: int, conflicting: int, seed: int, masks: Path | None = None) -> dict[str, bool]:
    """So many images of each class, the first of them conflicting; returns by name whether they are."""
    random, found = np.random.default_rng(seed), {}
    for label, name in enumerate(CLASSES):
        for number in range(count):
            contradicts = number < conflicting
            pixels = COLOURS[label ^ contradicts] + random.integers(-25, 26, (SIZE, SIZE, 3))
            top, left = random.integers(2, SIZE - 14), random.integers(2, SIZE - 6)
            bar = np.zeros((SIZE, SIZE), dtype=bool)
            bar[top : top + 12, left : left + 4] = True
            bar = bar.T if name == "across" else bar
            pixels[bar] = 225
            file = f"{name}/{number:03d}.png"
            write_png(folder / file, pixels.clip(0, 255).astype(np.uint8))
            if masks is not None:
                write_png(masks / file, bar.astype(np.uint8))
            found[file] = contradicts
    if masks is not None:
        (masks / "labels.json").write_text(json.dumps({"1": "bar"}))
    return found


def write_model(folder: Path, photos: Path, version: str = "1.0") -> Path:
    """A network that was trained on a folder's `train` and `val`, and its spec, which is returned."""
    name, arguments = NETWORK
    torch.manual_seed(0)
    network = timm_network.create(name, {**arguments, "num_classes": len(CLASSES)})
    train, val = (ImageFolder(list_folder(photos / part, CLASSES), Pipeline(PREPROCESS)) for part in ("train", "val"))
    finetune(network, train, val, replace(CONFIG, epochs=3), folder / "run", progress=False)
    spec = {
        "name": "bars",
        "version": version,
        "architecture": f"timm/{name}",
        "arguments": arguments,
        "weights": "run/best.pth",
        "labels": list(CLASSES),
        "preprocess": {"size": [SIZE, SIZE], "mean": [0.5] * 3, "std": [0.5] * 3, "fit": "stretch"},
        "explain": {"steps": 5, "baseline": "black"},
        "limits": {"max_steps": 100},
    }
    (folder / "bars.yaml").write_text(yaml.safe_dump(spec))
    return folder / "bars.yaml"
