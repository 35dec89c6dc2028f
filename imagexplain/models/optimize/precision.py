"""Lower precision of a network on a GPU, for speed: what it costs in attributions is the operator's to weigh."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Precision = Literal["float32", "tf32", "bfloat16"]


class Autocast(nn.Module):
    """Network whose forward pass runs under autocast; images and scores are float32.

    Attribution methods switch autocast off around the network, not within it.

    Args:
        network: Network from images (B, C, H, W) to scores (B, classes).
        dtype: Type of the convolutions and matrix products.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, images: Tensor) -> Tensor:
        """Scores (B, classes), float32."""
        with torch.autocast(images.device.type, self.dtype):
            scores: Tensor = self.network(images)
        return scores.float()


def with_precision(network: nn.Module, precision: Precision, device: torch.device) -> nn.Module:
    """Let a network compute in a lower precision, where it runs on a GPU; on a CPU it stays as it is.

    With ``tf32``, convolutions and matrix products of the whole process have 10 bits of mantissa. The default is not
    cuDNN's own, which takes TF32 for convolutions: attributions would be off by 1e-3.
    """
    if device.type != "cuda":
        return network
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    return Autocast(network, torch.bfloat16) if precision == "bfloat16" else network
