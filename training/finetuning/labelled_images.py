"""Labelled images as the training asks for them, and those that lie in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from imagexplain.errors import ArgumentError

Batch = tuple[Tensor, Tensor]
"""Images (B, 3, H, W) as the network takes them, and their labels (B,) or (B, classes)."""


class LabelledImages(Protocol):
    """A set of images with labels."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by label."""

    @property
    def labels(self) -> Tensor:
        """Labels of all images: (N,) int64, or probabilities (N, classes)."""

    def batches(self, order: Sequence[Tensor], seed: int) -> Iterator[Batch]:
        """Yield the batches of images with these numbers, each (B,).

        Args:
            order: Numbers of each batch's images.
            seed: Seed of augmentations. An image's are the same in any batch and any process.
        """

    def fingerprint(self) -> str:
        """Text that tells other images or labels from these."""


@dataclass(frozen=True, eq=False)
class TensorImages:
    """Images in memory, which go to the network as they are.

    Attributes:
        images: Images (N, 3, H, W), normalised as the network takes them.
        labels: Labels (N,) int64, or probabilities (N, classes).
        classes: Names of the classes, by label.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or len(self.images) != len(self.labels):
            given = f"{list(self.images.shape)} with {len(self.labels)} labels"
            raise ArgumentError("images", f"wanted (N, channels, height, width) and as many labels, got {given}")

    def batches(self, order: Sequence[Tensor], seed: int) -> Iterator[Batch]:
        """Yield images and labels by their numbers."""
        for numbers in order:
            yield self.images[numbers], self.labels[numbers]

    def fingerprint(self) -> str:
        """Digest of all values."""
        return digest([("images", self.images), ("labels", self.labels)])


def check_sets(train: LabelledImages, val: LabelledImages) -> None:
    """Check that both sets have images of the same classes, of every one of them.

    Raises:
        ArgumentError: says which class is missing, and where.
    """
    if train.classes != val.classes:
        raise ArgumentError("val", f"wanted the classes of train, {list(train.classes)}, got {list(val.classes)}")
    if val.labels.ndim != 1:
        raise ArgumentError("val", f"wanted one label for each image, got probabilities {list(val.labels.shape)}")
    for name, images in (("train", train), ("val", val)):
        count, labels = len(images.classes), images.labels
        if labels.ndim == 2:
            if labels.shape[1] != count:
                raise ArgumentError(name, f"wanted probabilities of {count} classes, got {labels.shape[1]}")
            continue
        if labels.dtype != torch.int64 or labels.ndim != 1:
            raise ArgumentError(name, f"wanted labels (N,) int64, got {list(labels.shape)} {labels.dtype}")
        odd = labels[(labels < 0) | (labels >= count)]
        if len(odd):
            raise ArgumentError(name, f"wanted labels 0 … {count - 1}, got {int(odd[0])}")
        images_of = torch.bincount(labels, minlength=count)
        missing = [images.classes[label] for label in (images_of == 0).nonzero().flatten().tolist()]
        if missing:
            raise ArgumentError(name, f"wanted images of every class, got none of {', '.join(missing)}")


def digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Digest of named tensors' types, shapes and values, in hexadecimal digits."""
    found = hashlib.sha256()
    for name, tensor in tensors:
        found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
