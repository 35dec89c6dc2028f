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
    "ablation_cam": "methods.ablation_cam",
    "attention_rollout": "methods.attention_rollout",
    "bag_cam": "methods.bag_cam",
    "blur_ig": "methods.blur_ig",
    "deep_lift": "methods.deep_lift",
    "eigen_cam": "methods.eigen_cam",
    "eigen_grad_cam": "methods.eigen_grad_cam",
    "expected_gradients": "methods.expected_gradients",
    "feature_ablation": "methods.feature_ablation",
    "full_grad": "methods.full_grad",
    "grad_cam": "methods.grad_cam",
    "grad_cam_plusplus": "methods.grad_cam_plusplus",
    "gradient": "methods.gradient",
    "gradient_rollout": "methods.gradient_rollout",
    "guided_backprop": "methods.guided_backprop",
    "guided_grad_cam": "methods.guided_grad_cam",
    "guided_ig": "methods.guided_ig",
    "hires_cam": "methods.hires_cam",
    "idgi": "methods.idgi",
    "input_x_gradient": "methods.input_x_gradient",
    "integrated_gradients": "methods.integrated_gradients",
    "kernel_shap": "methods.kernel_shap",
    "layer_cam": "methods.layer_cam",
    "occlusion": "methods.occlusion",
    "rise": "methods.rise",
    "score_cam": "methods.score_cam",
    "smoothgrad": "methods.smoothgrad",
    "xgrad_cam": "methods.xgrad_cam",
    "xrai": "methods.xrai",
}
"""Every method and the file that has it."""

UTILITIES = {
    "combine": "methods.guided_grad_cam",
    "iou": "postprocess",
    "localize": "postprocess",
    "normalize": "postprocess",
    "smooth": "methods.smoothgrad",
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
