"""Attribution methods: pure functions on tensors, which know nothing of HTTP, TorchServe or files.

Every method is a function of this package, ``grad_cam(model, images, targets)``: a model that maps (B, C, H, W) to
pre-softmax scores (B, classes), a batch of images, and the classes to explain: one for all, one for each, or none for
those that the model predicts. It returns maps (B, C, H, W) or (B, 1, H, W), one for each image, which do not depend on
what else is in the batch, and leaves the model as it was. Further options are named.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from imagexplain.attribution.registry import METHODS

UTILITIES = {
    "combine": "methods.guided_grad_cam",
    "contrast": "differences",
    "iou": "postprocess",
    "localize": "postprocess",
    "normalize": "postprocess",
    "smooth": "methods.smoothgrad",
}
"""Functions that work on methods and their maps, by name, each with its module."""

__all__ = ["METHODS", "UTILITIES", *METHODS, *UTILITIES]


def __getattr__(name: str) -> Any:
    """Import a method when it is first named."""
    if name in METHODS:
        return METHODS[name].function
    if name not in UTILITIES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{UTILITIES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *METHODS, *UTILITIES})
