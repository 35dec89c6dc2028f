"""ROAD, remove and debias: the answer as the pixels that score high, or low, are filled in from those that stay.

What is removed is not replaced by a colour, whose outline would tell the network which pixels a map thought of, but by
the solution of equations in which each removed pixel is the weighted mean of its eight neighbours, with a little noise.

Source: Rong, Leemann, Borisov, Kasneci, Kasneci, "A Consistent and Efficient Evaluation Strategy for Attribution
Methods", ICML 2022, arXiv 2202.00449, section 5; the authors' github.com/tleemann/road_evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import spsolve
from torch import Tensor

from imagexplain.attribution.paths.path_integral import Forward
from imagexplain.errors import ArgumentError

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of the pixels that are removed, the paper's."""

NOISE = 0.01
"""Standard deviation of the noise on a pixel that is filled in, in model space; the authors'."""

BESIDE, DIAGONAL = 1 / 6, 1 / 12
"""Weights of the neighbours that share a side, and of those that share a corner."""


@dataclass(frozen=True)
class Road:
    """Mean probability of a class over the shares removed, 0 … 1.

    Attributes:
        most: Mean where the highest pixels go first; lower is better.
        least: Mean where the lowest go first; higher is better.
    """

    most: float
    least: float

    @property
    def combined(self) -> float:
        """Half of the difference, −0.5 … 0.5, of which nobody has to know how hard the photo is. Higher is better."""
        return (self.least - self.most) / 2


def road(
    forward: Forward,
    image: Tensor,
    label: int,
    values: Tensor,
    generator: torch.Generator,
    *,
    shares: Sequence[float] = SHARES,
    noise: float = NOISE,
    chunk: int = 16,
) -> Road:
    """ROAD of a map in both orders.

    Args:
        forward: Function from images (N, C, H, W) to scores (N, classes).
        image: Image (C, H, W) in model-input space.
        label: Class whose softmax probability is followed.
        values: Map (H, W). Of equal values the first pixel is the higher one.
        generator: Generator of the noise.
        shares: Shares of the pixels that are removed, each above 0 and below 1.
        noise: Standard deviation of the noise.
        chunk: Largest number of images evaluated at once.

    Raises:
        ArgumentError: a share that leaves nothing, or takes nothing.
    """
    order = values.flatten().argsort(descending=True, stable=True)
    filled = []
    for going in (order, order.flip(0)):
        for share in shares:
            count = round(share * len(order))
            if not 0 < count < len(order):
                raise ArgumentError("shares", f"wanted 1 to {len(order) - 1} of {len(order)} pixels, got {share}")
            removed = torch.zeros(len(order), dtype=torch.bool)
            removed[going[:count]] = True
            filled.append(impute(image, removed.view(values.shape), noise, generator))
    with torch.no_grad():
        scores = torch.cat([forward(rows) for rows in torch.stack(filled).split(chunk)])
    most, least = scores.double().softmax(1)[:, label].view(2, -1).mean(1).tolist()
    return Road(most, least)


def impute(image: Tensor, removed: Tensor, noise: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
    """Image (C, H, W) whose removed pixels (H, W), bool, are the weighted means of their neighbours, and noise.

    At the image's edge the neighbours that there are count. Removed pixels without any way to one that stays are 0.
    """
    height, width = removed.shape
    unknown = removed.flatten().nonzero()[:, 0]
    if not len(unknown):
        return image.clone()
    number = torch.full((height * width,), -1)
    number[unknown] = torch.arange(len(unknown))
    row, column = unknown // width, unknown % width
    known = image.flatten(1).double()
    right = torch.zeros(len(unknown), len(image), dtype=torch.float64)
    weight_of_all = torch.zeros(len(unknown), dtype=torch.float64)
    entries: list[tuple[Tensor, Tensor, float]] = []
    for down, across in ((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)):
        weight = BESIDE if down == 0 or across == 0 else DIAGONAL
        y, x = row + down, column + across
        inside = ((y >= 0) & (y < height) & (x >= 0) & (x < width)).nonzero()[:, 0]
        neighbour = y[inside] * width + x[inside]
        weight_of_all[inside] += weight
        stays = number[neighbour] < 0
        right[inside[stays]] += weight * known[:, neighbour[stays]].T
        entries.append((inside[~stays], number[neighbour[~stays]], -weight))
    rows = torch.cat([torch.arange(len(unknown)), *(at for at, _, _ in entries)])
    columns = torch.cat([torch.arange(len(unknown)), *(to for _, to, _ in entries)])
    values = torch.cat([weight_of_all, *(torch.full((len(at),), value).double() for at, _, value in entries)])
    system = coo_matrix((values.numpy(), (rows.numpy(), columns.numpy())), shape=(len(unknown), len(unknown))).tocsc()
    solved = torch.from_numpy(np.reshape(spsolve(system, right.numpy()), right.shape))
    if noise:
        solved = solved + noise * torch.randn(solved.shape, generator=generator, dtype=torch.float64)
    result = image.flatten(1).clone()
    result[:, unknown] = solved.T.to(image)
    return result.view_as(image)
