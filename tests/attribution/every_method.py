"""Options by which every method of the library can be tried on the same small images."""

from __future__ import annotations

from typing import Any

import torch

GROUPS = torch.arange(64).view(8, 8) // 16
OPTIONS: dict[str, dict[str, Any]] = {
    "blur_ig": {"steps": 5, "max_sigma": 3.0},
    "expected_gradients": {"references": torch.zeros(2, 3, 8, 8), "samples": 4},
    "feature_ablation": {"groups": GROUPS},
    "fem": {"deviations": 1.0},
    "gaussian_shap": {"groups": GROUPS, "samples": 6},
    "guided_ig": {"steps": 5},
    "kernel_shap": {"groups": GROUPS},
    "lime": {"groups": GROUPS, "samples": 16},
    "occlusion": {"size": 3, "stride": 2},
    "rise": {"samples": 20, "cells": 3},
    "shapley_sampling": {"groups": GROUPS, "permutations": 3},
    "smoothgrad": {"samples": 4},
    "smoothgrad_cam_plusplus": {"samples": 3},
    "ss_cam": {"samples": 2},
    "xrai": {"segments": [torch.stack([GROUPS.eq(number) for number in range(4)])] * 3, "steps": 5, "least": 1},
}
"""Of each method on three images of 8 × 8 pixels, where its defaults do not do."""

OF_ATTENTION = {"attention_rollout", "attn_lrp", "gradient_rollout", "legrad", "libra_grad", "transformer_attribution"}
"""Methods that need a transformer; all others are tried on a convolutional network."""

OF_TOKEN_ROWS = {"legrad", "libra_grad"}
"""Of these the ones that want blocks which keep one row of tokens, as Swin's do not."""
