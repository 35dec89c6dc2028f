"""Scenes whose objects can be named: by shape, colour, texture and size, and by their relations to one another.

Two to five objects of the ten shapes stand apart before a greyish background. All that is said of them is true by
construction, and with a margin: colours are far apart (:mod:`training.captioning.names`), no size lies between small
and large, and between any two objects one axis is clearly the longer one, by which the one is left, right, above or
below.

A scene depends on the seed and its index only, never on which scenes were drawn before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imagexplain.errors import ArgumentError
from imagexplain.vision.scene_graph import Box
from training.captioning.names import (
    ABOVE,
    BELOW,
    BIGGER,
    COLOURS,
    LEFT,
    RIGHT,
    SAME_COLOUR,
    SHAPES,
    SIZES,
    SMALLER,
    TEXTURES,
    colour_near,
    textured,
)
from training.scenes import Layer, any_texture, box_around, composed, exposed, free_centre
from training.shapes import CLASS_SHAPES, Array, coverage, place

SIDE = 160
"""Height and width of a scene, pixels."""

FEWEST, MOST = 2, 5
"""Numbers of objects; the first two always find a place."""

_ATTEMPTS = 60
_GAP = 3.0  # pixels between the circles around two objects
_AXIS_MARGIN = 8.0  # pixels by which one axis of two objects' distance is the longer
_REPEATED = 0.15  # probability of a colour that another object of the scene has
_NOISE = 0.02


@dataclass(frozen=True)
class NamedObject:
    """An object with its names.

    Attributes:
        shape: One of :data:`~training.captioning.names.SHAPES`.
        colour: One of :data:`~training.captioning.names.COLOURS`.
        texture: One of :data:`~training.captioning.names.TEXTURES`.
        size: One of :data:`~training.captioning.names.SIZES`.
        box: Box around its pixels.
    """

    shape: str
    colour: str
    texture: str
    size: str
    box: Box

    @property
    def centre(self) -> tuple[float, float]:
        """Centre (x, y) of the box, pixels."""
        left, top, right, bottom = self.box.corners
        return (left + right) / 2, (top + bottom) / 2


@dataclass(frozen=True, eq=False)
class NamedScene:
    """An image and its objects.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        objects: Objects, in the order in which they were drawn.
    """

    image: NDArray[np.uint8]
    objects: tuple[NamedObject, ...]


def named_scene(seed: int, index: int) -> NamedScene:
    """The scene number ``index`` of the endless series ``seed``.

    Args:
        seed: Number of the series, from 0.
        index: Place in the series, from 0.

    Raises:
        ArgumentError: a negative seed or index.
    """
    for field, value in (("seed", seed), ("index", index)):
        if value < 0:
            raise ArgumentError(field, f"wanted a number from 0, got {value}")
    rng = np.random.default_rng([seed, index, 6])
    greys = rng.uniform(0.35, 0.7, (2, 1)) + rng.uniform(-0.04, 0.04, (2, 3))
    ground = any_texture(rng, (SIDE, SIDE), greys)
    layers: list[Layer] = []
    objects: list[NamedObject] = []
    circles: list[tuple[float, float, float]] = []
    for _ in range(int(rng.integers(FEWEST, MOST + 1))):
        _add_object(rng, layers, objects, circles)
    image = exposed(rng, composed(ground, layers), _NOISE, exposure=(0.92, 1.05), slope=0.08)
    return NamedScene(image, tuple(objects))


def relations(subject: NamedObject, other: NamedObject) -> tuple[str, ...]:
    """All relations that hold of a subject to another object, in the order in which one of them is preferred.

    Example:
        >>> from imagexplain.vision.scene_graph import Box
        >>> from training.captioning.named_scenes import NamedObject, relations
        >>> circle = NamedObject("circle", "red", "plain", "large", Box(10, 10, 40, 40))
        >>> star = NamedObject("star", "blue", "dotted", "small", Box(90, 20, 20, 20))
        >>> relations(circle, star)
        ('bigger than', 'left of')
    """
    found = [SAME_COLOUR] if subject.colour == other.colour else []
    if subject.size != other.size:
        found.append(BIGGER if subject.size == "large" else SMALLER)
    (x0, y0), (x1, y1) = subject.centre, other.centre
    if abs(x1 - x0) > abs(y1 - y0):
        found.append(LEFT if x0 < x1 else RIGHT)
    elif y0 != y1:
        found.append(ABOVE if y0 < y1 else BELOW)
    return tuple(found)


def _add_object(
    rng: np.random.Generator,
    layers: list[Layer],
    objects: list[NamedObject],
    circles: list[tuple[float, float, float]],
) -> None:
    """Add an object where it stands apart from the others, if a place for it is found."""
    names = list(SIZES)
    size, shape = names[rng.integers(len(names))], SHAPES[rng.integers(len(SHAPES))]
    texture = list(TEXTURES)[rng.integers(len(TEXTURES))]
    repeated = bool(objects) and rng.random() < _REPEATED
    colour = objects[rng.integers(len(objects))].colour if repeated else COLOURS[rng.integers(len(COLOURS))]
    paint_colour = colour_near(rng, colour)
    radius = SIDE * rng.uniform(*SIZES[size]) / 2
    outline, angle, turn = CLASS_SHAPES[shape](rng), rng.uniform(0.0, 2 * np.pi), rng.uniform(0.0, 2 * np.pi)
    for _ in range(_ATTEMPTS):
        x, y = free_centre(rng, (SIDE, SIDE), margin=radius + 1)
        apart = all(np.hypot(x - a, y - b) >= radius + other + _GAP for a, b, other in circles)
        placed = place(outline, (x, y), radius, angle)
        points = np.concatenate(placed)
        centre = (points.min(axis=0) + points.max(axis=0)) / 2
        if apart and all(_is_clear(centre, other) for other in objects):
            break
    else:
        return
    cover = coverage(placed, (SIDE, SIDE))
    left, top, right, bottom = box_around(cover >= 0.5)
    layers.append(Layer(shape, False, cover, _paint(texture, paint_colour, (x, y), radius, turn)))
    objects.append(NamedObject(shape, colour, texture, size, Box(left, top, right - left, bottom - top)))
    circles.append((x, y, radius))


def _is_clear(centre: Array, other: NamedObject) -> bool:
    """Tell whether one axis of the distance between a centre (2,) and another object is clearly the longer."""
    across, down = np.abs(centre - np.array(other.centre))
    return bool(abs(across - down) >= _AXIS_MARGIN)


def _paint(texture: str, colour: Array, centre: tuple[float, float], radius: float, turn: float) -> Array:
    """(H, W, 3) an object's colour and texture, whose axes are turned by some radians."""
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    x, y = (x - centre[0]) / (2 * radius), (y - centre[1]) / (2 * radius)
    return textured(texture, colour, x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn))
