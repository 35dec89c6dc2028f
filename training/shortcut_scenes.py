"""Scenes with a planted shortcut: the background's texture goes with the class, as often as one wants.

Six of the shapes decide the label, as in :mod:`training.scenes`, and six textures stand behind them. Of so many scenes,
the strength, the texture is the class's own; of the others it is one of the other five, each as often. A strength of
1/6 makes texture and class independent: a model that reads the background is at chance there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.scenes import CLASSES, Scene, SceneSettings, Texture, compose_scene, grid, mixed
from training.shapes import Array

USUAL = SceneSettings()

LABELS = ("circle", "square", "triangle", "star", "cross", "crescent")
"""Classes, each far from the others in shape, so that a small network on small images can tell them."""


def stripes(angle: float) -> Texture:
    """Stripes at this angle, in radians."""

    def paint(rng: np.random.Generator, size: tuple[int, int], colours: Array) -> Array:
        x, y = grid(size)
        along = x * np.cos(angle) + y * np.sin(angle)
        return mixed(colours, 2.0 * np.sin(_period(rng) * along + rng.uniform(0, 2 * np.pi)))

    return paint


def checks(rng: np.random.Generator, size: tuple[int, int], colours: Array) -> Array:
    """Checks parallel to the borders."""
    x, y = grid(size)
    period, (across, down) = _period(rng), rng.uniform(0, 2 * np.pi, 2)
    return mixed(colours, 4.0 * np.sin(period * x + across) * np.sin(period * y + down))


def rings(rng: np.random.Generator, size: tuple[int, int], colours: Array) -> Array:
    """Rings around the middle."""
    x, y = grid(size)
    return mixed(colours, 2.0 * np.sin(_period(rng) * np.hypot(x, y) + rng.uniform(0, 2 * np.pi)))


def diagonals(rng: np.random.Generator, size: tuple[int, int], colours: Array) -> Array:
    """Stripes along either diagonal."""
    return stripes(np.pi / 4 * rng.choice([1, 3]))(rng, size, colours)


def rays(rng: np.random.Generator, size: tuple[int, int], colours: Array) -> Array:
    """Rays from the middle."""
    x, y = grid(size)
    return mixed(colours, 3.0 * np.sin(int(rng.integers(7, 11)) * np.arctan2(y, x) + rng.uniform(0, 2 * np.pi)))


TEXTURES: Mapping[str, Texture] = {
    "rows": stripes(np.pi / 2),
    "columns": stripes(0.0),
    "checks": checks,
    "rings": rings,
    "diagonals": diagonals,
    "rays": rays,
}
"""Textures of the background: that at a class's place is its own. None is flat, for that would look like absence."""


@dataclass(frozen=True, eq=False)
class ShortcutScene:
    """A scene, and the number of its background's texture: the class's own, or another.

    Attributes:
        scene: Scene, whose own label counts all ten classes.
        label: Index in ``LABELS``.
        texture: Index in ``TEXTURES``.
    """

    scene: Scene
    label: int
    texture: int

    @property
    def conflicting(self) -> bool:
        """Tell whether the background speaks for another class than the object."""
        return self.texture != self.label


@dataclass(frozen=True, eq=False)
class ShortcutScenes:
    """Many scenes as arrays.

    Attributes:
        images: (N, H, W, 3) uint8.
        labels: (N,) int64, indices in ``LABELS``.
        textures: (N,) int64, indices in ``TEXTURES``.
        segments: (N, H, W) uint8: 0 background, 1 the deciding object, 2 and more the distractors.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    textures: NDArray[np.int64]
    segments: NDArray[np.uint8]

    @property
    def conflicting(self) -> NDArray[np.bool_]:
        """(N,) flag for a background that speaks for another class than the object."""
        return self.labels != self.textures


def shortcut_scene(seed: int, index: int, strength: float, settings: SceneSettings = USUAL) -> ShortcutScene:
    """The scene number ``index`` of the series ``seed``; six consecutive ones from a multiple of six hold every class.

    Args:
        seed: Number of the series, from 0.
        index: Place in the series, from 0.
        strength: Probability, 0 … 1, that the texture is the class's own.
        settings: Settings of the scenes.

    Raises:
        ValueError: a negative seed or index, or no probability.
    """
    if seed < 0 or index < 0:
        raise ValueError(f"seed, index: wanted both from 0, got {seed}, {index}")
    if not 0 <= strength <= 1:
        raise ValueError(f"strength: wanted 0 … 1, got {strength}")
    label = index % len(LABELS)
    rng = np.random.default_rng([seed, index, 3])
    other = (label + int(rng.integers(1, len(TEXTURES)))) % len(TEXTURES)
    texture = label if rng.random() < strength else other
    return ShortcutScene(_with_texture(seed, index, label, texture, settings), label, texture)


def with_background(seed: int, index: int, texture: int, settings: SceneSettings = USUAL) -> ShortcutScene:
    """The scene number ``index`` of the series with that texture behind it, and all else as it is there.

    A model that errs on the one and not on the other errs because of the background.
    """
    label = index % len(LABELS)
    return ShortcutScene(_with_texture(seed, index, label, texture, settings), label, texture)


def _with_texture(seed: int, index: int, label: int, texture: int, settings: SceneSettings) -> Scene:
    paint, own = list(TEXTURES.values())[texture], np.random.default_rng([seed, index, 4])

    def ground(_: np.random.Generator, size: tuple[int, int], colours: Array) -> Array:
        return paint(own, size, colours)  # whatever a texture draws, objects and light stay as they are

    rng = np.random.default_rng([seed, index, 5])
    return compose_scene(rng, CLASSES.index(LABELS[label]), settings, ground)


def shortcut_scenes(seed: int, count: int, strength: float, settings: SceneSettings = USUAL) -> ShortcutScenes:
    """The scenes 0 … count − 1 of a series as arrays; arguments and errors are those of :func:`shortcut_scene`."""
    return stacked([shortcut_scene(seed, index, strength, settings) for index in range(count)])


def stacked(drawn: Sequence[ShortcutScene]) -> ShortcutScenes:
    """Scenes of one size as arrays."""
    return ShortcutScenes(
        np.stack([one.scene.image for one in drawn]),
        np.array([one.label for one in drawn]),
        np.array([one.texture for one in drawn]),
        np.stack([_segments(one.scene) for one in drawn]),
    )


def _segments(scene: Scene) -> NDArray[np.uint8]:
    """(H, W): 0 background, 1 the deciding object, then the distractors from back to front."""
    segments = np.zeros(scene.image.shape[:2], dtype=np.uint8)
    others = 1
    for instance in scene.instances:
        others += not instance.deciding
        segments[instance.mask] = 1 if instance.deciding else others
    return segments


def _period(rng: np.random.Generator) -> float:
    """Radians over half the shorter side: 4 to 6 waves over the whole of it."""
    return 2 * np.pi * rng.uniform(2.0, 3.0)
