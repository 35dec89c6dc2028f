"""Attribution methods: pure functions on tensors, which know nothing of HTTP, TorchServe or files.

Every method is a function of this package, ``grad_cam(model, images, targets)``: a model that maps (B, C, H, W) to
pre-softmax scores (B, classes), a batch of images, and the classes to explain: one for all, one for each, or none for
those that the model predicts. It returns maps (B, C, H, W) or (B, 1, H, W), one for each image, which do not depend on
what else is in the batch, and leaves the model as it was. Further options are named.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

METHODS = {
    "ablation_cam": "ablated_channels",
    "attention_rollout": "attention",
    "bag_cam": "cam",
    "blur_ig": "blur_path",
    "deep_lift": "deep_lift_rules",
    "eigen_cam": "cam",
    "eigen_grad_cam": "cam",
    "expected_gradients": "expected",
    "feature_ablation": "feature_groups",
    "full_grad": "full_gradient",
    "grad_cam": "cam",
    "grad_cam_plusplus": "cam",
    "gradient": "gradients",
    "gradient_rollout": "attention",
    "guided_backprop": "guided_relu",
    "guided_grad_cam": "combination",
    "guided_ig": "guided_path",
    "hires_cam": "cam",
    "idgi": "important_directions",
    "input_x_gradient": "gradients",
    "integrated_gradients": "integrated",
    "kernel_shap": "feature_groups",
    "layer_cam": "cam",
    "occlusion": "occluded",
    "rise": "random_masks",
    "score_cam": "masked_scores",
    "smoothgrad": "noise",
    "xgrad_cam": "cam",
    "xrai": "regions",
}
"""Every method and the file that has it."""

UTILITIES = {
    "combine": "combination",
    "iou": "maps",
    "localize": "maps",
    "normalize": "maps",
    "smooth": "noise",
}
"""What is done with methods and their maps."""

_FILES = METHODS | UTILITIES
__all__ = ["METHODS", "UTILITIES", *_FILES]


def __getattr__(name: str) -> Any:
    """Imports a method when it is first named: some bring libraries that take seconds."""
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FILES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
