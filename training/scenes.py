"""Synthetic scenes: one object of ten classes of shape decides the label, in front of texture and among distractors.

The label is decided by construction: exactly one object of a scene is the deciding one, and its shape is the class.
Everything else that varies (colours, texture, light, size, place, rotation, number and kind of distractors) is drawn
without looking at the class, and no distractor has a shape of the ten. So the pixels of that object are the evidence,
and its mask is the truth that an explanation can be scored against. For the same reason objects cast no shadow: it
would show the shape outside the mask.

What makes the task unambiguous: the circumscribed circle of a class object lies wholly in the frame, at least
`SceneSettings.visible` of its area is in front of everything else, its colour keeps a distance from the background's
and the distractors' wherever one of several tries allows it, and of several class objects the deciding one is the
largest by a quarter.

A scene depends on the seed, its index and the settings only, never on which scenes were drawn before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from training.shapes import CLASS_SHAPES, DISTRACTOR_SHAPES, Array, coverage, place

CLASSES: tuple[str, ...] = tuple(CLASS_SHAPES)
DISTRACTORS: tuple[str, ...] = tuple(DISTRACTOR_SHAPES)

Texture = Callable[[np.random.Generator, tuple[int, int], Array], Array]
"""Function of a generator, a size (H, W) and two colours (2, 3) that paints a background (H, W, 3), RGB of 0 … 1."""

ATTEMPTS = 8  # places tried for an object that would hide another, before it goes behind or is left out
CANDIDATES = 16  # colours tried for one that is far from the others


@dataclass(frozen=True)
class SceneSettings:
    """The look of scenes; lengths are diameters of the circumscribed circle, as fractions of the shorter side.

    Attributes:
        size: (H, W) in pixels, at least 32 each.
        objects: Fewest and most class objects; one of them decides. One that finds no free place is left out.
        extent: Least and largest size of the deciding object; of n class objects each is smaller by √n, to share the
            room.
        distractors: Fewest and most objects outside the ten classes.
        distractor_extent: Least and largest size of a distractor.
        visible: Guaranteed visible part of every class object's area, at least a half.
        contrast: Wanted distance between the colours of a class object and of what surrounds it, in RGB of 0 … 1.
        noise: Largest standard deviation of the pixel noise, in RGB of 0 … 1.
        textured: Flag for objects with a texture, rather than of one colour.
    """

    size: tuple[int, int] = (32, 32)
    objects: tuple[int, int] = (1, 1)
    extent: tuple[float, float] = (0.5, 0.75)
    distractors: tuple[int, int] = (1, 3)
    distractor_extent: tuple[float, float] = (0.18, 0.36)
    visible: float = 0.92
    contrast: float = 0.4
    noise: float = 0.03
    textured: bool = True

    def __post_init__(self) -> None:
        """Refuse settings that have no scene.

        Raises:
            ValueError: naming the field, what was wanted and what was given.
        """
        if min(self.size) < 32:
            raise ValueError(f"size: wanted at least 32×32 pixels, got {self.size[0]}×{self.size[1]}")
        if not 1 <= self.objects[0] <= self.objects[1]:
            raise ValueError(f"objects: wanted 1 ≤ fewest ≤ most, got {self.objects}")
        if not 0 <= self.distractors[0] <= self.distractors[1]:
            raise ValueError(f"distractors: wanted 0 ≤ fewest ≤ most, got {self.distractors}")
        for field in ("extent", "distractor_extent"):
            low, high = getattr(self, field)
            if not 0 < low <= high <= 1:
                raise ValueError(f"{field}: wanted 0 < shortest ≤ longest ≤ 1, got {(low, high)}")
        if not 0.5 <= self.visible < 1:
            raise ValueError(f"visible: wanted 0.5 ≤ visible < 1, got {self.visible}")


@dataclass(frozen=True, eq=False)
class Instance:
    """One object of a scene, as far as it can be seen.

    Attributes:
        kind: One of CLASSES or of DISTRACTORS.
        deciding: Flag for the object that decides the label.
        mask: (H, W) bool, the pixels of which it visibly covers at least half.
        box: x0, y0, x1, y1 around the mask in pixels, the ends exclusive; all 0 for an empty mask.
        visible: Part of its area inside the frame that nothing hides, 0 … 1.
    """

    kind: str
    deciding: bool
    mask: NDArray[np.bool_]
    box: tuple[int, int, int, int]
    visible: float

    @property
    def class_index(self) -> int | None:
        """Index in CLASSES, None for a distractor."""
        return CLASSES.index(self.kind) if self.kind in CLASSES else None


@dataclass(frozen=True, eq=False)
class Scene:
    """An image with its label and the objects in it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        label: Index in CLASSES of the deciding object's shape.
        instances: Objects from back to front, those of which no pixel shows left out.
    """

    image: NDArray[np.uint8]
    label: int
    instances: tuple[Instance, ...]

    @property
    def masks(self) -> NDArray[np.bool_]:
        """(N, H, W) bool, the masks of the instances in their order; no pixel belongs to two."""
        return np.stack([instance.mask for instance in self.instances])

    @property
    def boxes(self) -> NDArray[np.int64]:
        """(N, 4) x0, y0, x1, y1 in pixels, the ends exclusive, in the instances' order."""
        return np.array([instance.box for instance in self.instances], dtype=np.int64)

    @property
    def deciding(self) -> Instance:
        """The object whose shape is the label."""
        return next(instance for instance in self.instances if instance.deciding)


@dataclass(frozen=True, eq=False)
class Layer:
    """An object on its way into the picture.

    Attributes:
        kind: Shape.
        deciding: Flag for the object that decides the label.
        cover: (H, W) of 0 … 1, what it covers of each pixel.
        paint: (H, W, 3) colours that it is painted with, RGB of 0 … 1.
    """

    kind: str
    deciding: bool
    cover: Array
    paint: Array


def scene(seed: int, index: int, settings: SceneSettings = SceneSettings()) -> Scene:
    """The scene number `index` of the endless series `seed`.

    Args:
        seed: Number of the series, from 0.
        index: Place in the series, from 0; every ten consecutive scenes from a multiple of ten hold every class once.
        settings: Settings of the scenes.

    Returns:
        The same scene for the same arguments, in any order of calls.

    Raises:
        ValueError: a negative seed or index.
    """
    if seed < 0 or index < 0:
        raise ValueError(f"seed, index: wanted both from 0, got {seed}, {index}")
    block, place_in_block = divmod(index, len(CLASSES))
    label = int(np.random.default_rng([seed, block, 1]).permutation(len(CLASSES))[place_in_block])
    return compose_scene(np.random.default_rng([seed, index, 2]), label, settings)


def compose_scene(
    rng: np.random.Generator, label: int, settings: SceneSettings, texture: Texture | None = None
) -> Scene:
    """Compose a scene of a class: background, class objects, distractors, light.

    Args:
        rng: Generator of all that varies.
        label: Index in CLASSES of the deciding object's shape.
        settings: Settings of the scenes.
        texture: Texture of the background, by default any.
    """
    ground_colours = _ground_colours(rng)
    ground = (texture or any_texture)(rng, settings.size, ground_colours)
    layers = _class_layers(rng, label, ground_colours, settings)
    layers = _with_distractors(rng, layers, settings)
    image = exposed(rng, composed(ground, layers), settings.noise)
    return Scene(image, label, _instances(layers))


def scenes(
    seed: int,
    start: int,
    count: int,
    settings: SceneSettings = SceneSettings(),
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The images (count, H, W, 3) uint8 and labels (count,) int64 of the scenes start … start + count − 1.

    Raises:
        ValueError: a negative seed or start.
    """
    images = np.empty((count, *settings.size, 3), dtype=np.uint8)
    labels = np.empty(count, dtype=np.int64)
    for offset in range(count):
        drawn = scene(seed, start + offset, settings)
        images[offset], labels[offset] = drawn.image, drawn.label
    return images, labels


# Objects


def _class_layers(rng: np.random.Generator, label: int, ground: Array, settings: SceneSettings) -> list[Layer]:
    """The class objects from back to front; the deciding one is the largest, and every one keeps its visible part."""
    side = min(settings.size)
    count = int(rng.integers(settings.objects[0], settings.objects[1] + 1))
    longest = rng.uniform(*settings.extent) / np.sqrt(count)
    layers: list[Layer] = []
    for number in range(count):
        deciding = number == 0
        kind = CLASSES[label if deciding else int(rng.integers(len(CLASSES)))]
        extent = longest if deciding else longest * rng.uniform(0.6, 0.8)
        paint = _paint(rng, settings, ground)
        for _ in range(ATTEMPTS):
            centre = free_centre(rng, settings.size, margin=side * extent / 2)
            outline = CLASS_SHAPES[kind](rng)
            cover = coverage(place(outline, centre, side * extent / 2, rng.uniform(0.0, 2 * np.pi)), settings.size)
            layer = Layer(kind, deciding, cover, paint)
            if _all_visible([*layers, layer], settings.visible):
                layers.append(layer)
                break
    return layers


def _with_distractors(rng: np.random.Generator, layers: list[Layer], settings: SceneSettings) -> list[Layer]:
    """The layers with distractors among them: one in front where it hides too little to matter, else one behind."""
    side = min(settings.size)
    objects = np.array([layer.paint.mean(axis=(0, 1)) for layer in layers])
    for _ in range(int(rng.integers(settings.distractors[0], settings.distractors[1] + 1))):
        kind = DISTRACTORS[int(rng.integers(len(DISTRACTORS)))]
        radius = side * rng.uniform(*settings.distractor_extent) / 2
        centre = free_centre(rng, settings.size, margin=radius / 2)
        outline = DISTRACTOR_SHAPES[kind](rng)
        cover = coverage(place(outline, centre, radius, rng.uniform(0.0, 2 * np.pi)), settings.size)
        paint = _paint(rng, settings, objects)
        layer = Layer(kind, False, cover, paint)
        in_front = [*layers, layer]
        layers = in_front if _all_visible(in_front, settings.visible) else [layer, *layers]
    return layers


def free_centre(rng: np.random.Generator, size: tuple[int, int], margin: float) -> tuple[float, float]:
    """x, y at least `margin` pixels from every border."""
    height, width = size
    return float(rng.uniform(margin, width - margin)), float(rng.uniform(margin, height - margin))


def _seen(layers: list[Layer]) -> list[Array]:
    """(H, W) of 0 … 1 for each layer: what it covers of each pixel and nothing in front of it hides."""
    free = np.ones_like(layers[0].cover)
    seen = []
    for layer in reversed(layers):
        seen.append(layer.cover * free)
        free = free * (1 - layer.cover)
    return seen[::-1]


def _all_visible(layers: list[Layer], wanted: float) -> bool:
    """Tell whether every class object shows at least the wanted part of its area."""
    return all(
        seen.sum() >= wanted * layer.cover.sum()
        for layer, seen in zip(layers, _seen(layers), strict=True)
        if layer.kind in CLASSES
    )


def _instances(layers: list[Layer]) -> tuple[Instance, ...]:
    instances = []
    for layer, seen in zip(layers, _seen(layers), strict=True):
        mask = seen >= 0.5
        if mask.any():
            visible = float(seen.sum() / layer.cover.sum())
            instances.append(Instance(layer.kind, layer.deciding, mask, box_around(mask), visible))
    return tuple(instances)


def box_around(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 around the true pixels of a mask (H, W), of which there is one; the ends exclusive."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


# Colour, texture, light


def _hues(rng: np.random.Generator, count: int) -> Array:
    """(count, 3) colours in RGB of 0 … 1: any hue, from pale to strong, from dim to bright."""
    hue, saturation, value = rng.uniform([[0.0], [0.15], [0.2]], [[6.0], [0.9], [1.0]], (3, count))
    wheel = np.abs((hue[:, None] + [0.0, 4.0, 2.0]) % 6.0 - 3.0) - 1.0
    return value[:, None] * (1 - saturation[:, None] * (1 - np.clip(wheel, 0.0, 1.0)))


def _colour(rng: np.random.Generator, others: Array, contrast: float) -> Array:
    """(3,) the first of some colours that is at least `contrast` from all the others (N, 3), else the farthest."""
    candidates = _hues(rng, CANDIDATES)
    nearest = np.linalg.norm(candidates[:, None] - others, axis=2).min(axis=1)
    far = nearest >= contrast
    return candidates[np.argmax(far) if far.any() else np.argmax(nearest)]


def _ground_colours(rng: np.random.Generator) -> Array:
    """(2, 3) the two colours of the background, near each other so that objects stand out from both."""
    first, second = _hues(rng, 2)
    towards = second - first
    reach = rng.uniform(0.12, 0.4) / max(float(np.linalg.norm(towards)), 1e-6)
    return np.stack([first, first + towards * min(reach, 1.0)])


def _paint(rng: np.random.Generator, settings: SceneSettings, others: Array) -> Array:
    """(H, W, 3) colour of an object, far from those of the others (N, 3), and its texture."""
    colour = _colour(rng, others, settings.contrast)
    if not settings.textured:
        return np.broadcast_to(colour, (*settings.size, 3))
    return any_texture(rng, settings.size, _shades(rng, colour))


def _shades(rng: np.random.Generator, colour: Array) -> Array:
    """(2, 3) a darker and a lighter shade of an object's colour."""
    return np.clip(colour * (1 + rng.uniform(0.03, 0.15) * np.array([[-1.0], [1.0]])), 0.0, 1.0)


def any_texture(rng: np.random.Generator, size: tuple[int, int], colours: Array) -> Array:
    """(H, W, 3) two colours (2, 3) mixed by a gradient, stripes, checks or smooth noise."""
    x, y = grid(size)
    angle, phase = rng.uniform(0.0, 2 * np.pi, 2)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    period = 2 * np.pi * rng.uniform(2.0, 4.5)  # 4 to 9 waves over the shorter side
    pattern = rng.integers(4)
    if pattern == 0:
        mix = along
    elif pattern == 1:
        mix = 1.5 * np.sin(period * along + phase)
    elif pattern == 2:
        mix = 3.0 * np.sin(period * along + phase) * np.sin(period * across + phase)
    else:
        mix = smooth_noise(rng, size)
    return mixed(colours, mix)


def mixed(colours: Array, mix: Array) -> Array:
    """(H, W, 3) two colours (2, 3) mixed: the first at −1 and below, the second from 1 on."""
    weight = np.clip(0.5 + 0.5 * mix, 0.0, 1.0)[..., None]
    return colours[0] + weight * (colours[1] - colours[0])


def smooth_noise(rng: np.random.Generator, size: tuple[int, int]) -> Array:
    """(H, W) about −1 … 1: a coarse grid of random values, interpolated smoothly."""
    cells = int(rng.integers(3, 12))
    knots = rng.uniform(-1.2, 1.2, (cells + 1, cells + 1))
    rows, columns = (_spline(length, cells) for length in size)
    return rows @ knots @ columns.T


@lru_cache(maxsize=256)
def _spline(length: int, cells: int) -> Array:
    """(length, cells + 1) weights that interpolate cells + 1 values over `length` pixels without kinks."""
    position = (np.arange(length) + 0.5) / length * cells
    cell = np.minimum(position.astype(np.int64), cells - 1)
    t = position - cell
    t = t * t * (3 - 2 * t)
    weights = np.zeros((length, cells + 1))
    weights[np.arange(length), cell] = 1 - t
    weights[np.arange(length), cell + 1] = t
    return weights


@lru_cache(maxsize=64)
def grid(size: tuple[int, int]) -> tuple[Array, Array]:
    """(H, W) x and y of the pixel centres from the middle, the shorter side being 2 long."""
    height, width = size
    scale = 2 / min(size)
    y, x = np.meshgrid(
        (np.arange(height) + 0.5 - height / 2) * scale, (np.arange(width) + 0.5 - width / 2) * scale, indexing="ij"
    )
    return x, y


def composed(ground: Array, layers: list[Layer]) -> Array:
    """(H, W, 3) the layers painted over the ground, from back to front."""
    image = ground
    for layer in layers:
        image = image + layer.cover[..., None] * (layer.paint - image)
    return image


def exposed(
    rng: np.random.Generator,
    image: Array,
    noise: float,
    exposure: tuple[float, float] = (0.85, 1.1),
    slope: float = 0.2,
) -> NDArray[np.uint8]:
    """Expose a picture: light from one side, pixel noise, and 8 bits per channel.

    Args:
        rng: Generator of the light and the noise.
        image: (H, W, 3) RGB of 0 … 1.
        noise: Largest standard deviation of the noise.
        exposure: Least and largest factor of the light in the middle.
        slope: Largest part by which the light changes from the middle to the side where it comes from.
    """
    x, y = grid((image.shape[0], image.shape[1]))
    angle = rng.uniform(0.0, 2 * np.pi)
    light = rng.uniform(*exposure) * (1 + rng.uniform(0.0, slope) * (x * np.cos(angle) + y * np.sin(angle)))
    grain = rng.standard_normal(image.shape) * rng.uniform(0.0, noise)
    return np.clip(np.rint((image * light[..., None] + grain) * 255), 0, 255).astype(np.uint8)
