"""Groups of pixels: the family over which importance is shared out, and the disjoint pieces of overlapping masks.

Groups are masks over the model's input; a group holds its pixels in every channel.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor

from imagexplain.errors import ArgumentError

Kind = Literal["segment", "rest", "whole"]

REST = "rest"
WHOLE = "whole image"


@dataclass(frozen=True)
class DisjointParts:
    """The coarsest partition of the image in which every mask is a union of parts.

    Attributes:
        atoms: Part 0 … A−1 that each pixel lies in, (H, W) int64.
        members: Membership (A, S), bool: the masks that contain each part.
    """

    atoms: Tensor
    members: Tensor

    def sums(self, values: Tensor) -> Tensor:
        """Sums (..., A), float64, of maps (..., C, H, W) over channels and each part; together they are the total."""
        pixels = values.to(self.atoms.device, torch.float64).sum(-3).flatten(-2)  # (..., H·W)
        sums = pixels.new_zeros(*pixels.shape[:-1], len(self.members))
        return sums.index_add_(-1, self.atoms.flatten(), pixels)

    @property
    def area(self) -> Tensor:
        """Number of pixels of each part, (A,) int64."""
        return torch.bincount(self.atoms.flatten(), minlength=len(self.members))

    @cached_property
    def incidence(self) -> Tensor:
        """Incidence matrix (A, S), float64, 1 where a part lies in a mask.

        Sums over parts times this are sums over masks.
        """
        return self.members.double()


@dataclass(frozen=True)
class Family:
    """Family M of groups of one image, as the paper calls it.

    Attributes:
        masks: Masks (G, H, W), bool; no two are equal, none is empty. Segments in the order given, the rest, the whole
            image.
        labels: Names (G,) of the groups.
        kinds: Kinds (G,) of the groups: segment, rest or whole image.
        parts: Disjoint parts of the masks.
        pixels: Single pixels as further groups of the family; these have no row in ``masks``.
        dropped: Names of the segments that were empty.
        merged: Pairs (name, name of the group with the same mask), one for each segment that was not kept.
        origins: Index (G,) of each group among the segments that were given, with the rest and the whole after them.
    """

    masks: Tensor
    labels: tuple[str, ...]
    kinds: tuple[Kind, ...]
    parts: DisjointParts
    pixels: bool = False
    dropped: tuple[str, ...] = ()
    merged: tuple[tuple[str, str], ...] = ()
    origins: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.masks)

    @cached_property
    def area(self) -> Tensor:
        """Number of pixels of each group, (G,) int64."""
        return (self.parts.area.double() @ self.parts.incidence).long()


def family(segments: Tensor, labels: Sequence[str], *, pixels: bool = False, most_parts: int | None = None) -> Family:
    """Build the family of an image: its segments, the rest of the image, and the whole image.

    A hierarchy is given by its masks alone: a segment that contains others is their coarser node.

    Args:
        segments: Masks (S, H, W), bool, which may overlap, nest, repeat or be empty.
        labels: Names (S,) of the segments.
        pixels: Single pixels as further groups of the family.
        most_parts: Largest number of disjoint parts; any, if not given.

    Raises:
        ValueError: no pixels, masks that are not (S, H, W) bool, more parts, or another number of labels.

    Example:
        >>> from torch import arange
        >>> from imagexplain.attribution.groups.families import family
        >>> left = (arange(8) < 4).expand(1, 8, 8)
        >>> groups = family(left, ["left"])
        >>> groups.labels, groups.area.tolist()
        (('left', 'rest', 'whole image'), [32, 32, 64])
    """
    _check(segments)
    if len(labels) != len(segments):
        raise ArgumentError("labels", f"wanted one for each of {len(segments)} segments, got {len(labels)}")
    parts = disjoint_parts(segments, most_parts)
    inside = parts.members.cpu().numpy()  # (A, S)
    covered = inside.any(1)
    rest = ~covered & covered.any()  # of nothing at all the rest is the whole image, which is there anyway
    members = np.column_stack([inside, rest, np.ones_like(rest)])
    names = [*labels, REST, WHOLE]
    segment: Kind = "segment"
    kinds: tuple[Kind, ...] = (*(segment for _ in labels), "rest", "whole")
    kept: dict[bytes, int] = {}
    dropped, merged = [], []
    empty = bytes(len(members))
    for index, key in enumerate(_row_keys(members.T)):  # masks of the same parts are equal
        if key == empty:
            if kinds[index] == "segment":
                dropped.append(names[index])
        elif (first := kept.setdefault(key, index)) != index:
            merged.append((names[index], names[first]))
    rows = list(kept.values())
    kept_members = torch.from_numpy(members.take(rows, axis=1)).to(segments.device)
    own = bisect_left(rows, len(segments))  # the rest and the whole follow, where they are kept
    masks = segments if own == len(segments) else segments[rows[:own]]
    masks = torch.cat([masks, kept_members[:, own:].T[:, parts.atoms]])
    return Family(
        masks=masks,
        labels=tuple(names[row] for row in rows),
        kinds=tuple(kinds[row] for row in rows),
        parts=DisjointParts(parts.atoms, kept_members),
        pixels=pixels,
        dropped=tuple(dropped),
        merged=tuple(merged),
        origins=tuple(rows),
    )


def containment(family: Family) -> Tensor:
    """Containment (G, G), bool: True where group S (row) contains group T (column); every group contains itself."""
    inside = family.parts.members.float()  # (A, G); counts below 2²⁴ are exact
    shared = inside.T @ inside  # (G, G): number of parts that two groups have in common
    return shared == shared.diagonal()  # all parts of T lie in S


def parents(family: Family) -> Tensor:
    """Smallest other group that contains each group, (G,) int64; the earlier of two equally small, −1 for none."""
    area = family.area
    above = containment(family).fill_diagonal_(False).T  # (G, G): row T, column S ⊃ T
    smallest = torch.where(above, area, area.max() + 1).argmin(1)
    return torch.where(above.any(1), smallest, -1)


def disjoint_parts(masks: Tensor, most: int | None = None) -> DisjointParts:
    """The disjoint parts of masks (S, H, W) bool that may overlap, in the order in which the image shows them.

    Raises:
        ValueError: no pixels, masks that are not (S, H, W) bool, or more than ``most`` parts.
    """
    _check(masks)
    height, width = masks.shape[1:]
    if len(masks) == 0:
        return DisjointParts(torch.zeros(height, width, dtype=torch.int64), torch.zeros(1, 0, dtype=torch.bool))
    pixels = masks.flatten(1).cpu().numpy()  # (S, H·W)
    starts = np.empty(pixels.shape[1], np.bool_)  # of runs: pixels in a row mostly lie in the same masks
    starts[0], starts[1:] = True, (pixels[:, 1:] != pixels[:, :-1]).any(0)
    ranks: dict[bytes, int] = {}
    part = [ranks.setdefault(key, len(ranks)) for key in _row_keys(pixels[:, starts].T)]
    if most is not None and len(ranks) > most:
        raise ArgumentError("masks", f"wanted ones that part the image into at most {most:,} parts, got {len(ranks):,}")
    atoms = torch.from_numpy(np.array(part)[starts.cumsum() - 1])
    members = torch.from_numpy(np.frombuffer(bytearray().join(ranks), np.bool_).reshape(len(ranks), -1))
    return DisjointParts(atoms.view(height, width).to(masks.device), members.to(masks.device))


def _row_keys(rows: np.ndarray) -> list[bytes]:
    """Bytes of each row of a matrix (N, M) bool, equal for equal rows."""
    rows = np.ascontiguousarray(rows)
    return cast("list[bytes]", rows.view(np.dtype((np.void, rows.shape[1]))).ravel().tolist())


def _check(masks: Tensor) -> None:
    if masks.ndim != 3 or masks.dtype != torch.bool:
        raise ArgumentError("masks", f"wanted (S, H, W) bool, got {tuple(masks.shape)} {masks.dtype}")
    if masks.shape[1] * masks.shape[2] == 0:
        raise ArgumentError("masks", f"wanted at least one pixel, got {masks.shape[1]}×{masks.shape[2]}")
