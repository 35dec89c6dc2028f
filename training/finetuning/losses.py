"""Training losses, and the mixing of batches that goes with them."""

from __future__ import annotations

from collections.abc import Callable

from timm.data import Mixup
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn

from imagexplain.errors import ArgumentError
from training.finetuning.config import FinetuneConfig

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Images (B, 3, H, W) and labels (B,) to mixed images and soft targets (B, classes)."""


def mixing(config: FinetuneConfig, classes: int) -> Mix | None:
    """Mixing of a batch's images and labels; it draws from NumPy's generator. None where nothing is mixed."""
    if not config.mixes:
        return None
    mixed: Mix = Mixup(
        mixup_alpha=config.mixup,
        cutmix_alpha=config.cutmix,
        prob=config.mix_probability,
        switch_prob=config.switch_probability,
        mode="batch",
        label_smoothing=config.smoothing,
        num_classes=classes,
    )
    return mixed


def training_loss(config: FinetuneConfig, soft_labels: bool) -> nn.Module:
    """Loss of logits (B, classes) and labels.

    It is the cross-entropy with soft targets where batches are mixed or labels are soft already, else with smoothed
    labels.

    Args:
        config: Settings of the run.
        soft_labels: Flag for images whose labels are probabilities (N, classes).

    Raises:
        ArgumentError: soft labels that would be mixed.
    """
    if soft_labels and config.mixes:
        raise ArgumentError("mixup", "wanted 0, and cutmix 0, for labels that are probabilities, got another")
    loss: nn.Module
    if soft_labels or config.mixes:
        loss = SoftTargetCrossEntropy()
    elif config.smoothing:
        loss = LabelSmoothingCrossEntropy(config.smoothing)
    else:
        loss = nn.CrossEntropyLoss()
    return loss
