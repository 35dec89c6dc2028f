"""Group sums on CUDA in one kernel, written in Triton. Imported only where it runs.

Each program owns a tile of pixels in up to 32 gradients: it reads these once, sums Δ · gradient over channels into
registers, and then lets the masks of all groups stream past. Nothing of size groups × channels × pixels exists.
"""

from __future__ import annotations

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

TILE = 256  # pixels of one program; fewer cost more partial sums, more do not fit in registers
GROUPS = 64  # groups of one matrix product, a multiple of what the tensor cores take
LEAST_ROWS, MOST_ROWS = 16, 32  # gradients of one program: what a matrix product wants at least, what registers hold
# Two stages, so that a program fits in the 99 KB of shared memory that the smaller GPUs have.
SCHEDULE = {"num_warps": 8, "num_stages": 2, "enable_fp_fusion": True}


@triton.jit  # type: ignore[untyped-decorator]
def _partial_sums(  # type: ignore[no-untyped-def]
    gradients,
    difference,
    masks,
    partial,
    count,
    channels,
    pixels,
    groups,
    row_stride,
    channel_stride,
    pixel_stride,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
    GROUPS: tl.constexpr,
):
    tile = tl.program_id(0)
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    places = tile * TILE + tl.arange(0, TILE)
    inside = places < pixels
    wanted = inside[:, None] & (rows < count)[None, :]
    # 64 bits wherever a product may pass 2³¹
    offsets = places.to(tl.int64)[:, None] * pixel_stride + rows.to(tl.int64)[None, :] * row_stride
    shares = tl.full((TILE, ROWS), 0.0, tl.float32)
    for _ in range(channels):
        delta = tl.load(difference + places, mask=inside, other=0.0).to(tl.float32)
        shares += tl.load(gradients + offsets, mask=wanted, other=0.0).to(tl.float32) * delta[:, None]
        difference += pixels
        gradients += channel_stride

    # Tensor cores round float32 to 11 significant bits. Masks are exact in these, and a share is the sum of two such
    # numbers to its last bit or one beside it.
    high = ((shares.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)
    low = shares - high
    for start in range(0, groups, GROUPS):
        names = start + tl.arange(0, GROUPS)
        known = names < groups
        member = tl.load(
            masks + names.to(tl.int64)[:, None] * pixels + places[None, :],
            mask=known[:, None] & inside[None, :],
            other=0,
        ).to(tl.float32)
        sums = tl.dot(member, high, input_precision="tf32")
        sums = tl.dot(member, low, acc=sums, input_precision="tf32")
        cells = (tile.to(tl.int64) * count + rows)[None, :] * groups + names[:, None]
        tl.store(partial + cells, sums, mask=known[:, None] & (rows < count)[None, :])


def triton_group_sums(gradients: Tensor, difference: Tensor, masks: Tensor) -> Tensor:
    """Triton kernel of :func:`imagexplain.attribution.groups.group_sums.group_sums`, which has checked the arguments.

    The sums of the tiles are added in a fixed order, so that equal inputs give equal bits; atomic additions would not.

    Args:
        gradients: Gradients (N, C, H, W), float32, bfloat16 or float16. Contiguous and channels-last tensors, and
            slices of them along N or C, are read where they lie; others are copied.
        difference: Difference Δ (C, H, W) of one of these dtypes.
        masks: Masks (G, H, W), bool, read as they are, a byte a pixel.

    Returns:
        (N, G) float32, accumulated in float32.
    """
    gradients = gradients.flatten(2)  # copies only where pixels do not follow each other at one stride
    count, channels, pixels = gradients.shape
    groups = len(masks)
    if count * channels * pixels * groups == 0:
        return gradients.new_zeros((count, groups), dtype=torch.float32)
    tiles = triton.cdiv(pixels, TILE)
    rows = LEAST_ROWS if count <= LEAST_ROWS else MOST_ROWS
    partial = gradients.new_empty((tiles, count, groups), dtype=torch.float32)
    # Triton launches on the current device, which need not be the tensors' own.
    with torch.cuda.device_of(gradients):
        _partial_sums[(tiles, triton.cdiv(count, rows))](
            gradients,
            difference.contiguous(),
            masks.contiguous().view(torch.uint8),
            partial,
            count,
            channels,
            pixels,
            groups,
            *gradients.stride(),
            ROWS=rows,
            TILE=TILE,
            GROUPS=GROUPS,
            **SCHEDULE,
        )
    return partial.sum(0)
