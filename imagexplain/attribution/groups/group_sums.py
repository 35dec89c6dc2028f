"""Sums of gradient · Δ over groups of pixels, for many gradients and many groups at once.

From them follow the shares of groups, and the directional gradient with the absolute value inside the integral,
∫ |∇f(γ(α))·Δ_S| / ‖Δ_S‖ dα ≈ Σ_k w_k |sums[k, S]| / ‖Δ_S‖, which needs the sum at each node of the path before the
integral is taken. Source of the latter: H-Sets' IDG-Vis, CVPR 2026, arXiv 2604.22045.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

import torch
from torch import Tensor

from imagexplain.errors import ArgumentError

Backend = Literal["auto", "torch", "triton"]

TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LEAST_CAPABILITY = (8, 0)  # tensor cores that take float32
BLOCK_ELEMENTS = 2**20  # mask elements that are float64 at once: 8 MiB, whatever the number of groups


@torch.no_grad()
def group_sums(gradients: Tensor, difference: Tensor, masks: Tensor, *, backend: Backend = "auto") -> Tensor:
    """Sums Σ_{p∈S} Σ_c gradient · difference for each gradient and each group S.

    A gradient that is NaN or infinite anywhere makes all sums of its own row so, and of no other row.

    Args:
        gradients: Gradients (N, C, H, W), floating point, in any memory layout.
        difference: Difference Δ = input − baseline (C, H, W), floating point.
        masks: Masks (G, H, W) of the groups, bool, which may overlap.
        backend: Implementation: "torch" runs everywhere; "triton" is one CUDA kernel that reads each gradient once, for
            gradients and differences of at most 32 bits; "auto" takes the kernel where it can run.

    Returns:
        (N, G) in units of the score, float32, or float64 if one of the two is. The kernel accumulates in float32, the
        other form in float64. No graph is recorded.

    Raises:
        ValueError: shapes, dtypes or devices that do not match, or a kernel that is asked for and cannot run.
    """
    _check(gradients, difference, masks)
    if backend not in ("auto", "torch", "triton"):
        raise ArgumentError("backend", f"wanted auto, torch or triton, got {backend}")
    if backend == "triton" or (backend == "auto" and gradients.is_cuda):
        obstacle = _triton_obstacle(gradients, difference)
        if obstacle is None:
            # Triton takes long to import, and need not be there where the plain form serves.
            from imagexplain.attribution.groups.triton_group_sums import triton_group_sums

            return triton_group_sums(gradients, difference, masks)
        if backend == "triton":
            raise ArgumentError("backend", f"wanted triton, {obstacle}")
    return _torch_group_sums(gradients, difference, masks)


def _torch_group_sums(gradients: Tensor, difference: Tensor, masks: Tensor) -> Tensor:
    """Reference implementation: Δ · gradient summed over channels, times the masks, a block of groups at a time."""
    # In float64 the result does not depend on the shape of the matrix product, hence not on N, nor on TF32 settings.
    shares = torch.zeros((len(gradients), *masks.shape[1:]), dtype=torch.float64, device=gradients.device)
    for channel, delta in enumerate(difference):
        shares.addcmul_(gradients[:, channel], delta)
    shares = shares.flatten(1)
    groups_per_block = max(1, BLOCK_ELEMENTS // max(1, shares.shape[1]))
    blocks = masks.flatten(1).split(groups_per_block)
    return torch.cat([shares @ block.double().T for block in blocks], dim=1).to(_result_dtype(gradients, difference))


def _result_dtype(gradients: Tensor, difference: Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(gradients.dtype, difference.dtype), torch.float32)


def _triton_obstacle(gradients: Tensor, difference: Tensor) -> str | None:
    """Reason why the kernel cannot run on these tensors, None if it can."""
    if find_spec("triton") is None:
        return "which is not installed"
    for name, given in (("gradients", gradients), ("difference", difference)):
        if given.dtype not in TRITON_DTYPES:
            return f"which takes float32, bfloat16 and float16, got {name} of {given.dtype}"
    if not gradients.is_cuda or torch.version.hip is not None:
        return f"which needs a GPU of NVIDIA's, got {gradients.device}"
    capability = torch.cuda.get_device_capability(gradients.device)
    if capability < LEAST_CAPABILITY:
        return f"which needs compute capability {LEAST_CAPABILITY}, got {capability}"
    return None


def _check(gradients: Tensor, difference: Tensor, masks: Tensor) -> None:
    if gradients.ndim != 4 or not gradients.is_floating_point():
        raise ArgumentError(
            "gradients", f"wanted (N, C, H, W) floating point, got {tuple(gradients.shape)} {gradients.dtype}"
        )
    if difference.shape != gradients.shape[1:] or not difference.is_floating_point():
        raise ArgumentError(
            "difference",
            f"wanted {tuple(gradients.shape[1:])} floating point, got {tuple(difference.shape)} {difference.dtype}",
        )
    if masks.ndim != 3 or masks.shape[1:] != gradients.shape[2:] or masks.dtype != torch.bool:
        wanted = f"(G, {gradients.shape[2]}, {gradients.shape[3]}) bool"
        raise ArgumentError("masks", f"wanted {wanted}, got {tuple(masks.shape)} {masks.dtype}")
    for name, given in (("difference", difference), ("masks", masks)):
        if given.device != gradients.device:
            raise ArgumentError(name, f"wanted on {gradients.device} like gradients, got {given.device}")
