"""Trial of a program before it is served: what was fixed when it was saved may be seen only when it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from imagexplain.errors import ArgumentError
from imagexplain.models.checkpoints.checkpoint import CheckpointError
from imagexplain.models.programs.program import Program

TOLERANCE = 1e-3
"""Difference of two evaluations of one image, relative to the largest score, that is more than rounding."""


@torch.no_grad()
def check(program: Program, image: Tensor, *, on_cpu: bool) -> None:
    """Check that a program gives an image one answer: each time, and whatever other images it is asked with.

    Args:
        program: Program from images to scores (B, classes).
        image: Model input (C, H, W) of a photo.
        on_cpu: Certainty that it will run on a CPU.

    Raises:
        CheckpointError: a program that was saved in training, or for one image at once, or for one device.
    """
    if program.devices and not (on_cpu and program.devices == ("cpu",)):
        named = ", ".join(program.devices)
        wanted = "wanted a program that runs on any device: script it, or trace it without tensors made on a device"
        raise CheckpointError(f"{wanted} (`serving: {{device: cpu}}` serves one for the CPU); given one for {named}")
    other = image.flip(-1) * 0.5
    alone = [_scores(program, one[None]) for one in (image, other)]
    again = _scores(program, image[None])
    if not _equal(again, alone[0]):
        raise CheckpointError(
            "wanted the same scores each time, given others: call the network's eval() and save it anew"
        )
    try:
        together = _scores(program, torch.stack([image, other]))
    except CheckpointError as error:
        raise CheckpointError(f"{ONE} (given two: {error})") from error
    if not _equal(together, torch.cat(alone)):
        raise CheckpointError(f"{ONE}, or its eval() was not called (given two, the scores of each are others)")


ONE = (
    "wanted a program that takes any number of images; if it was traced for one, `arguments: {batch: 1}` asks it for "
    "one after the other"
)


def _scores(program: Callable[[Tensor], Any], images: Tensor) -> Tensor:
    try:
        scores = program(images)
    except ArgumentError:
        raise
    except RuntimeError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise CheckpointError(f"the program fails on a photo: {lines[-1] if lines else error}") from error
    if not isinstance(scores, Tensor):
        raise ArgumentError("head", f"output: wanted scores (B, classes), got a {type(scores).__name__}")
    if len(scores) != len(images):
        raise CheckpointError(f"wanted scores for {len(images)} images, given {list(scores.shape)}")
    return scores


def _equal(given: Tensor, wanted: Tensor) -> bool:
    if given.shape != wanted.shape:
        return False
    return bool((given - wanted).abs().max() <= TOLERANCE * wanted.abs().max())
