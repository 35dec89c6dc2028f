"""A model's score as a game of segments: its value and gradient at coefficients of presence, stored once evaluated."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imagexplain.attribution.paths.path_integral import Forward, score_gradients

Array = NDArray[np.float64]
Answer = TypeVar("Answer")

BATCH = 32


class NotStoredError(Exception):
    """An evaluation that a store lacks and that nobody is to make."""


class Game(Protocol):
    """Score v(z) of partial images whose segment i is present by the coefficient z_i, 0 … 1.

    Attributes:
        players: Number K of segments.
    """

    players: int

    def values(self, coefficients: Array) -> Array:
        """Values (n,) at coefficients (n, K)."""

    def gradients(self, coefficients: Array) -> tuple[Array, Array]:
        """Values (n,) and gradients (n, K) with respect to the coefficients, at coefficients (n, K)."""


class SegmentGame:
    """The score of x(z) = b + z_s (x − b), where s is the segment of each pixel.

    One backward pass holds the derivatives by all coefficients: ∂v/∂z_i = Σ_{p∈S_i} ∇f(x(z))_p Δ_p.

    Args:
        forward: Network from (N, C, H, W) to scores (N, classes).
        image: Image (C, H, W).
        baseline: Baseline (C, H, W), what absence looks like.
        segments: Labels (H, W), int64, 0 … K−1.
        target: Class whose score is explained.
    """

    def __init__(self, forward: Forward, image: Tensor, baseline: Tensor, segments: Tensor, target: int) -> None:
        self.players = int(segments.max()) + 1
        self._forward, self._image, self._baseline = forward, image, baseline
        self._segments, self._target = segments, target

    def values(self, coefficients: Array) -> Array:
        """Values (n,) at coefficients (n, K)."""
        found = []
        with torch.no_grad():
            for part in np.array_split(coefficients, -(-len(coefficients) // BATCH) or 1):
                found.append(self._forward(self._images(part))[:, self._target].double().numpy())
        return np.concatenate(found)

    def gradients(self, coefficients: Array) -> tuple[Array, Array]:
        """Values (n,) and gradients (n, K) with respect to the coefficients, at coefficients (n, K)."""
        values, gradients = [], []
        for part in np.array_split(coefficients, -(-len(coefficients) // BATCH) or 1):
            images = self._images(part)
            scores, slopes = score_gradients(self._forward, images, torch.full((len(images),), self._target))
            shares = (slopes * (self._image - self._baseline)).sum(1).flatten(1).double()  # (n, H·W)
            sums = torch.zeros(len(images), self.players, dtype=torch.float64)
            gradients.append(sums.index_add_(1, self._segments.flatten(), shares).numpy())
            values.append(scores.double().numpy())
        return np.concatenate(values), np.concatenate(gradients)

    def _images(self, coefficients: Array) -> Tensor:
        presence = torch.from_numpy(coefficients).to(self._image.dtype)[:, self._segments]  # (n, H, W)
        return torch.lerp(self._baseline, self._image, presence.unsqueeze(1))


@dataclass(frozen=True)
class Facts:
    """Properties of segments that are known without asking the model.

    Attributes:
        area: Pixels (K,).
        squares: Squared norms ‖Δ_S‖² (K,) of the difference from the baseline.
        borders: Lengths (K, K) of the borders that two segments share, in pixels.
        colours: Mean inputs (K, C).
        inside: Part (K,) of each segment that lies in the deciding object, nan where none is known.
    """

    area: Array
    squares: Array
    borders: Array
    colours: Array
    inside: Array


def facts_of(image: Tensor, baseline: Tensor, segments: Tensor, inside: Array | None = None) -> Facts:
    """Facts of the segments (H, W) of an image (C, H, W)."""
    labels = segments.flatten().numpy()
    count = int(labels.max()) + 1
    area = np.bincount(labels, minlength=count).astype(float)
    weights = (image - baseline).double().square().sum(0).flatten().numpy()
    squares = np.bincount(labels, weights, count).astype(float)
    colours = np.stack([np.bincount(labels, c.double().flatten().numpy(), count) / area for c in image], 1)
    borders = np.zeros((count, count))
    grid = segments.numpy()
    for one, other in ((grid[1:], grid[:-1]), (grid[:, 1:], grid[:, :-1])):
        np.add.at(borders, (one.ravel(), other.ravel()), 1)
        np.add.at(borders, (other.ravel(), one.ravel()), 1)
    np.fill_diagonal(borders, 0)
    return Facts(area, squares, borders, colours, np.full(count, np.nan) if inside is None else inside)


@dataclass
class StoredGame:
    """A game whose evaluations are kept, in memory and, when asked, in a file.

    Attributes:
        players: Number K of segments.
        facts: Properties of the segments.
        file: Place of the store.
        open: Function that makes the game itself, called at the first evaluation that is not in the store.
        seconds: Processor time of the evaluations that were not in the store.
    """

    players: int
    facts: Facts
    file: Path
    open: Callable[[], Game]
    seconds: float = 0.0
    _known: dict[bytes, float] = field(default_factory=dict)
    _slopes: dict[bytes, Array] = field(default_factory=dict)
    _game: Game | None = None
    _news: int = 0

    @classmethod
    def at(cls, file: Path, facts: Facts | None, open: Callable[[], Game]) -> StoredGame:
        """The game in a file, or a new one with these facts."""
        if not file.exists():
            if facts is None:
                raise ValueError(f"file: wanted a stored game, got {file}")
            return cls(len(facts.area), facts, file, open)
        with np.load(file) as held:
            own = Facts(*(held[name] for name in ("area", "squares", "borders", "colours", "inside")))
            points, values = held["points"], held["values"]
            places, slopes = held["places"], held["slopes"]
        game = cls(len(own.area), own, file, open)
        game._known = {row.tobytes(): value for row, value in zip(points, values.tolist(), strict=True)}
        game._slopes = {row.tobytes(): slope for row, slope in zip(places, slopes, strict=True)}
        return game

    def values(self, coefficients: Array) -> Array:
        """Values (n,) at coefficients (n, K)."""
        rows = np.ascontiguousarray(coefficients, np.float32)
        keys = [row.tobytes() for row in rows]
        new = list({key: n for n, key in enumerate(keys) if key not in self._known}.values())
        if new:
            values = self._asked(lambda game: game.values(rows[new].astype(float)))
            self._known.update(zip([keys[n] for n in new], values.tolist(), strict=True))
            self._news += len(new)
        return np.array([self._known[key] for key in keys])

    def gradients(self, coefficients: Array) -> tuple[Array, Array]:
        """Values (n,) and gradients (n, K) with respect to the coefficients, at coefficients (n, K)."""
        rows = np.ascontiguousarray(coefficients, np.float32)
        keys = [row.tobytes() for row in rows]
        new = list({key: n for n, key in enumerate(keys) if key not in self._slopes}.values())
        if new:
            values, slopes = self._asked(lambda game: game.gradients(rows[new].astype(float)))
            for n, value, slope in zip(new, values.tolist(), slopes, strict=True):
                self._known.setdefault(keys[n], value)
                self._slopes[keys[n]] = slope
            self._news += len(new)
        return np.array([self._known[key] for key in keys]), np.array([self._slopes[key] for key in keys])

    def save(self) -> None:
        """Write the store, if there is anything new."""
        if not self._news:
            return

        def points(keys: list[bytes]) -> NDArray[np.float32]:
            return np.frombuffer(b"".join(keys), np.float32).reshape(-1, self.players)

        part = self.file.with_suffix(".part.npz")
        np.savez_compressed(
            part,
            points=points(list(self._known)),
            values=np.array(list(self._known.values())),
            places=points(list(self._slopes)),
            slopes=np.array(list(self._slopes.values())).reshape(-1, self.players),
            **vars(self.facts),
        )
        part.replace(self.file)
        self._news = 0

    def _asked(self, question: Callable[[Game], Answer]) -> Answer:
        begin = time.process_time()
        if self._game is None:
            self._game = self.open()
        answer = question(self._game)
        self.seconds += time.process_time() - begin
        return answer
