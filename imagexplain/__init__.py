"""Explanations of image models: a library of attribution methods, and a service of them.

Every attribution method is a function of this package, see :mod:`imagexplain.attribution`:

    from imagexplain import grad_cam, integrated_gradients

    maps = grad_cam(model, images, targets)

Names are imported when they are first used, so that importing the package takes no time; ``__init__.pyi`` declares them
to type checkers.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "ablation_cam",
    "attention_rollout",
    "attn_lrp",
    "bag_cam",
    "blur_ig",
    "combine",
    "contrast",
    "deep_lift",
    "eigen_cam",
    "eigen_grad_cam",
    "expected_gradients",
    "feature_ablation",
    "fem",
    "finer_cam",
    "full_grad",
    "gaussian_shap",
    "grad_cam",
    "grad_cam_plusplus",
    "gradient",
    "gradient_rollout",
    "guided_backprop",
    "guided_grad_cam",
    "guided_ig",
    "hires_cam",
    "idgi",
    "input_x_gradient",
    "integrated_gradients",
    "iou",
    "kernel_shap",
    "kpca_cam",
    "layer_cam",
    "legrad",
    "libra_grad",
    "lime",
    "localize",
    "lrp",
    "normalize",
    "occlusion",
    "rise",
    "score_cam",
    "shapley_cam",
    "shapley_sampling",
    "smooth",
    "smoothgrad",
    "smoothgrad_cam_plusplus",
    "ss_cam",
    "transformer_attribution",
    "xgrad_cam",
    "xrai",
]
"""Public names: the methods, and functions that work on their maps."""


def __getattr__(name: str) -> Any:
    """Import a method when it is first named."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.attribution"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
