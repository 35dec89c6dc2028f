"""Names of what is in a scene: shapes, colours, textures, sizes, and relations, such that a person agrees.

Colours are far apart, and each varies little. A texture's second tone is white on a dark colour and near black on a
light one; it covers half of the object, or less, so that the colour stays its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from training.scenes import mixed
from training.shapes import CLASS_SHAPES, Array

SHAPES: tuple[str, ...] = tuple(CLASS_SHAPES)

PALETTE: Mapping[str, tuple[float, float, float]] = {
    "red": (0.82, 0.10, 0.12),
    "orange": (1.00, 0.50, 0.05),
    "yellow": (0.97, 0.92, 0.15),
    "green": (0.12, 0.55, 0.20),
    "cyan": (0.20, 0.85, 0.88),
    "blue": (0.12, 0.22, 0.78),
    "purple": (0.48, 0.12, 0.62),
    "pink": (1.00, 0.60, 0.78),
}
"""Colours by name, RGB of 0 … 1: any two are at least 0.4 apart."""

COLOUR_SPREAD = 0.04
"""Largest deviation of an object's colour from its name's, per channel."""

COLOURS: tuple[str, ...] = tuple(PALETTE)

SIZES: Mapping[str, tuple[float, float]] = {"small": (0.20, 0.23), "large": (0.38, 0.42)}
"""Least and largest diameter of the circumscribed circle, as part of the image's side, by name: in the gap between
them even the box of a lying diamond, whose side is 0.7 of that, has room."""

SAME_COLOUR = "same colour as"
BIGGER, SMALLER = "bigger than", "smaller than"
LEFT, RIGHT = "left of", "right of"
ABOVE, BELOW = "above", "below"
RELATIONS: tuple[str, ...] = (SAME_COLOUR, BIGGER, SMALLER, LEFT, RIGHT, ABOVE, BELOW)
"""Relations of a subject to an object."""

_LIGHT = 0.45
"""Luminance from which a colour is light."""


def _plain(u: Array, v: Array) -> Array:
    return np.full_like(u, -1.0)


def _striped(u: Array, v: Array) -> Array:
    return 3.0 * np.sin(2 * np.pi * 4.25 * u)


def _checked(u: Array, v: Array) -> Array:
    return 5.0 * np.sin(2 * np.pi * 2.75 * u) * np.sin(2 * np.pi * 2.75 * v)


def _dotted(u: Array, v: Array) -> Array:
    spacing, radius = 0.22, 0.068
    middle = np.hypot((u + spacing / 2) % spacing - spacing / 2, (v + spacing / 2) % spacing - spacing / 2)
    return (radius - middle) * 50.0


TEXTURES: Mapping[str, Callable[[Array, Array], Array]] = {
    "plain": _plain,
    "striped": _striped,
    "checked": _checked,
    "dotted": _dotted,
}
"""Function by name from places (H, W) in diameters of the object, along and across, to the share of the second tone,
−1 or less for none of it and 1 or more for it alone."""


def colour_near(rng: np.random.Generator, name: str) -> Array:
    """(3,) a colour of that name, RGB of 0 … 1."""
    return np.clip(np.array(PALETTE[name]) + rng.uniform(-COLOUR_SPREAD, COLOUR_SPREAD, 3), 0.0, 1.0)


def second_tone(colour: Array) -> Array:
    """(3,) tone of a texture's figures on a colour (3,): white on a dark one, a tenth of it on a light one."""
    luminance = float(colour @ np.array([0.299, 0.587, 0.114]))
    return colour * 0.1 if luminance > _LIGHT else np.full(3, 0.97)


def textured(texture: str, colour: Array, u: Array, v: Array) -> Array:
    """(H, W, 3) a colour (3,) with a texture, at places (H, W) in diameters of the object from its middle."""
    return mixed(np.stack([colour, second_tone(colour)]), TEXTURES[texture](u, v))
