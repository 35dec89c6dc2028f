"""The recipe of the fine-tuning as arguments of the command line: that of `imagexplain finetune`, but shorter."""

from __future__ import annotations

import argparse
from dataclasses import fields
from typing import Any

from training.finetuning.config import PRECISIONS, FinetuneConfig
from training.finetuning.pipeline import Augmentation

USUAL = FinetuneConfig(epochs=20, warmup_epochs=2)
"""MAE's recipe, for as long as a model that knows its classes already may want."""

HELP = {
    "epochs": "times that the images are gone through",
    "warmup_epochs": "epochs in which the rate rises from 0",
    "batch": "images at once",
    "accumulation": "batches to an update",
    "base_rate": "learning rate for 256 images to an update",
    "rate": "learning rate itself, for any number of images",
    "min_rate": "learning rate at the end",
    "layer_decay": "factor of the rate from block to block",
    "weight_decay": "AdamW's",
    "clip": "norm of the gradient",
    "mixup": "alpha, 0 for none",
    "cutmix": "alpha, 0 for none",
    "smoothing": "of labels",
    "precision": "numbers of the forward pass",
    "seed": "of order, augmentation and draws",
}
"""Settings that have an argument."""


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the recipe."""
    augmentation = Augmentation()
    group = parser.add_argument_group("the recipe")
    for name, words in HELP.items():
        usual = getattr(USUAL, name)
        shown = "none" if usual is None else usual
        group.add_argument(
            f"--{name.replace('_', '-')}",
            type=float if usual is None else type(usual),
            choices=PRECISIONS if name == "precision" else None,
            default=usual,
            help=f"{words} (default: {shown})",
        )
    group.add_argument("--drop-path", type=float, help="stochastic depth (default: 0.1 where the network has any)")
    group.add_argument("--policy", default=augmentation.policy, help=f"augmentation (default: {augmentation.policy})")
    group.add_argument("--erasing", type=float, default=augmentation.erasing, help=f"(default: {augmentation.erasing})")
    group.add_argument("--no-augmentation", action="store_true", help="train on images as the service sees them")


def config_of(given: argparse.Namespace) -> FinetuneConfig:
    """The settings that the arguments name. Raises ArgumentError like the settings themselves."""
    return FinetuneConfig(**{name: getattr(given, name) for name in HELP})


def augmentation_of(given: argparse.Namespace) -> Augmentation | None:
    """The augmentation that the arguments name."""
    return None if given.no_augmentation else Augmentation(given.policy, given.erasing)


def recorded(given: argparse.Namespace) -> dict[str, Any]:
    """All of the recipe as a step's settings are recorded."""
    config = config_of(given)
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    return values | {name: getattr(given, name) for name in ("drop_path", "policy", "erasing", "no_augmentation")}
