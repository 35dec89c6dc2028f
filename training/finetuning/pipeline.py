"""Pipeline from a photo to the network's input, for training and for evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, create_transform
from timm.data.auto_augment import AugmentOp, posterize
from torch import Tensor

from imagexplain.errors import ArgumentError
from imagexplain.vision.preprocess import apply
from imagexplain.vision.preprocess_settings import Preprocess

CROP_FRACTION = 0.875
UNCROPPED_FROM = 224
"""Side in pixels above which evaluation resizes photos to the input's own size."""

Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Augmentation:
    """The random changes to a training photo, after a random crop of 8 % to 100 % of it that is mirrored at random.

    Attributes:
        policy: RandAugment or another policy by timm's words; empty for none.
        erasing: Probability that a rectangle is replaced by noise.
    """

    policy: str = "rand-m9-mstd0.5-inc1"
    erasing: float = 0.25


def recipe_preprocess(size: tuple[int, int]) -> Preprocess:
    """Preprocessing of MAE's recipe: ImageNet's mean and standard deviation, the middle of the photo, bicubic.

    Args:
        size: Height and width of the network's input, pixels.
    """
    return Preprocess(
        size=size,
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
        fit="crop",
        crop_fraction=CROP_FRACTION if max(size) <= UNCROPPED_FROM else 1.0,
        interpolation="bicubic",
    )


@dataclass(frozen=True)
class Pipeline:
    """The way of a set's photos to the network.

    Attributes:
        preprocess: Preprocessing as the service does it: its size, mean, standard deviation and filter hold for
            augmented photos too.
        augmentation: Augmentation of training photos; None for photos that come as the service sees them.
    """

    preprocess: Preprocess
    augmentation: Augmentation | None = None

    def transform(self) -> Transform:
        """Transform of upright RGB photos to inputs (C, H, W).

        Raises:
            ArgumentError: augmented photos for a model that takes other inputs than RGB in 0..1.
        """
        if self.augmentation is None:
            return partial(_preprocessed, self.preprocess)
        wanted = {"channels": "rgb", "scale": 1.0, "standardize": False}
        for name, value in wanted.items():
            if (given := getattr(self.preprocess, name)) != value:
                raise ArgumentError("preprocess", f"augmented photos are RGB in 0..1, this model's {name} is {given}")
        augmented: Transform = create_transform(
            input_size=self.preprocess.size,
            is_training=True,
            color_jitter=None,
            auto_augment=self.augmentation.policy or None,
            interpolation=self.preprocess.interpolation,
            re_prob=self.augmentation.erasing,
            re_mode="pixel",
            re_count=1,
            mean=self.preprocess.mean,
            std=self.preprocess.std,
        )
        _mend(augmented)
        return augmented


def _preprocessed(preprocess: Preprocess, photo: Image.Image) -> Tensor:
    return apply(photo, preprocess)[0]


def _mend(transform: Any) -> None:
    """Give timm's policies a posterization that takes all that they ask of it.

    They keep down to 0 bits, of which Pillow made a black image up to version 12; version 13 raises an error.
    """
    for operation in _operations(transform.transforms):
        if operation.aug_fn is posterize:
            operation.aug_fn = _posterize


def _operations(steps: Any) -> Iterator[AugmentOp]:
    for step in steps:
        if isinstance(step, AugmentOp):
            yield step
        elif isinstance(step, list | tuple):
            yield from _operations(step)
        else:
            yield from _operations([getattr(step, "ops", ()), getattr(step, "policy", ())])


def _posterize(photo: Image.Image, bits: int, **options: Any) -> Image.Image:
    black: Image.Image = Image.new(photo.mode, photo.size)
    return posterize(photo, bits, **options) if bits > 0 else black
