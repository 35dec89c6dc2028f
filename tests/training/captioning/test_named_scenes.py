from __future__ import annotations

import itertools

import numpy as np
import pytest

from imagexplain.errors import ArgumentError
from imagexplain.vision.scene_graph import Box
from training.captioning.named_scenes import FEWEST, MOST, SIDE, NamedObject, named_scene, relations
from training.captioning.names import (
    COLOUR_SPREAD,
    COLOURS,
    PALETTE,
    RELATIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    second_tone,
    textured,
)

SCENES = [named_scene(7, index) for index in range(60)]
OBJECTS = [one for scene in SCENES for one in scene.objects]
PAIRS = [pair for scene in SCENES for pair in itertools.permutations(scene.objects, 2)]


ORIGIN = Box(0, 0, 10, 10)


def named(size: str = "small", colour: str = "red", box: Box = ORIGIN) -> NamedObject:
    return NamedObject("circle", colour, "plain", size, box)


def test_a_scene_depends_on_seed_and_index_only() -> None:
    again = [named_scene(7, index) for index in reversed(range(5))][::-1]
    for one, other in zip(SCENES, again, strict=False):
        assert np.array_equal(one.image, other.image) and one.objects == other.objects
    assert SCENES[0].objects != SCENES[1].objects
    assert named_scene(8, 0).objects != SCENES[0].objects


@pytest.mark.parametrize("at", [(-1, 0), (0, -1)])
def test_refuses_negative_numbers(at: tuple[int, int]) -> None:
    with pytest.raises(ArgumentError, match="wanted a number from 0, got -1"):
        named_scene(*at)


def test_every_name_and_number_of_objects_comes_up() -> None:
    assert {len(scene.objects) for scene in SCENES} == set(range(FEWEST, MOST + 1))
    assert {one.shape for one in OBJECTS} == set(SHAPES) and len(SHAPES) == 10
    assert {one.colour for one in OBJECTS} == set(COLOURS) and len(COLOURS) == 8
    assert {one.texture for one in OBJECTS} == set(TEXTURES) and len(TEXTURES) == 4
    assert {one.size for one in OBJECTS} == set(SIZES) and len(SIZES) == 2
    assert {name for pair in PAIRS for name in relations(*pair)[:1]} == set(RELATIONS)


def test_boxes_lie_within_and_apart_but_for_their_corners() -> None:
    for scene in SCENES:
        for one in scene.objects:
            left, top, right, bottom = one.box.corners
            assert 0 <= left < right <= SIDE and 0 <= top < bottom <= SIDE
        for one, other in itertools.combinations(scene.objects, 2):
            reach = np.hypot(*np.subtract(one.centre, other.centre))
            assert reach > 10


def test_sizes_have_a_gap_in_the_boxes_too() -> None:
    sides = {
        size: [max(one.box.width, one.box.height) for one in OBJECTS if one.size == size] for size in ("small", "large")
    }
    assert max(sides["small"]) + 3 <= min(sides["large"])


def test_one_axis_is_clearly_the_longer() -> None:
    for one, other in PAIRS:
        across, down = np.abs(np.subtract(one.centre, other.centre))
        assert abs(across - down) >= 5


def test_colours_are_far_apart_and_seen_as_named() -> None:
    for first, second in itertools.combinations(PALETTE.values(), 2):
        assert np.linalg.norm(np.subtract(first, second)) >= 0.4 > 4 * COLOUR_SPREAD
    palette = np.array(list(PALETTE.values()))
    checked = 0
    for scene in SCENES:
        for one in scene.objects:
            if one.texture != "plain" or one.shape in ("ring", "crescent"):
                continue
            x, y = map(int, one.centre)
            seen = scene.image[y - 1 : y + 2, x - 1 : x + 2].mean((0, 1)) / 255
            assert COLOURS[np.linalg.norm(palette - seen, axis=1).argmin()] == one.colour
            checked += 1
    assert checked > 20


def test_textures_contrast_and_leave_the_colour_at_least_half() -> None:
    v, u = np.mgrid[-1:1:200j, -1:1:200j]
    for name in TEXTURES:
        for colour in map(np.array, PALETTE.values()):
            assert np.linalg.norm(second_tone(colour) - colour) > 0.65
            painted = textured(name, colour, u, v)
            own = np.linalg.norm(painted - colour, axis=2) < np.linalg.norm(painted - second_tone(colour), axis=2)
            assert own.mean() >= 0.495, name
            assert (name == "plain") == bool(own.all())


def test_relations_in_order_of_preference() -> None:
    assert relations(named(), named(box=Box(50, 20, 10, 10))) == ("same colour as", "left of")
    assert relations(named(box=Box(50, 20, 10, 10)), named("large", "blue", Box(0, 0, 20, 20))) == (
        "smaller than",
        "right of",
    )
    assert relations(named(), named(colour="blue", box=Box(20, 21, 10, 10))) == ("above",)
    assert relations(named(box=Box(20, 21, 10, 10)), named(colour="blue")) == ("below",)


def test_relations_of_a_pair_are_each_others_converse() -> None:
    converse = dict(
        [("bigger than", "smaller than"), ("left of", "right of"), ("above", "below"), ("same colour as",) * 2]
    )
    converse |= {other: one for one, other in converse.items()}
    for one, other in PAIRS:
        assert relations(other, one) == tuple(converse[name] for name in relations(one, other))
