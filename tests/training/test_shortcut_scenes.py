"""Scenes whose background goes with the class as often as one wants."""

from __future__ import annotations

import numpy as np
import pytest

from training.scenes import CLASSES, SceneSettings
from training.shortcut_scenes import LABELS, TEXTURES, shortcut_scene, shortcut_scenes, stacked, with_background

SMALL = SceneSettings(size=(32, 32))


def test_every_class_has_a_texture_of_its_own() -> None:
    assert len(LABELS) == len(TEXTURES) == 6
    assert set(LABELS) < set(CLASSES)


def test_a_scene_depends_on_seed_index_and_strength_only() -> None:
    forward = [shortcut_scene(3, index, 0.5).scene.image for index in range(8)]
    backward = [shortcut_scene(3, index, 0.5).scene.image for index in reversed(range(8))][::-1]
    assert np.array_equal(forward, backward)
    assert not np.array_equal(forward[0], shortcut_scene(4, 0, 0.5).scene.image)


@pytest.mark.parametrize(("strength", "conflicting"), [(1.0, 0.0), (0.0, 1.0)])
def test_a_background_that_always_or_never_goes_with_the_class(strength: float, conflicting: float) -> None:
    drawn = shortcut_scenes(1, 60, strength, SMALL)
    assert drawn.conflicting.mean() == conflicting
    assert np.bincount(drawn.labels).tolist() == [10] * 6


def test_texture_and_class_are_independent_at_one_sixth() -> None:
    drawn = [shortcut_scene(5, index, 1 / 6) for index in range(1200)]
    table = np.zeros((6, 6))
    for one in drawn:
        table[one.label, one.texture] += 1
    # 200 scenes of each class, a sixth of them, 33, of each texture; five standard deviations are 26.
    assert np.abs(table - 200 / 6).max() < 26


def test_strength_is_the_part_whose_background_is_the_class_own() -> None:
    drawn = [shortcut_scene(7, index, 0.9) for index in range(600)]
    assert np.mean([one.conflicting for one in drawn]) == pytest.approx(0.1, abs=0.05)
    others = {(one.label, one.texture) for one in drawn if one.conflicting}
    assert len({(texture - label) % 6 for label, texture in others}) == 5


def test_segments_are_background_object_and_distractors() -> None:
    drawn = shortcut_scenes(9, 12, 0.5, SMALL)
    for index in range(12):
        scene = shortcut_scene(9, index, 0.5, SMALL).scene
        segments = drawn.segments[index]
        assert np.array_equal(segments == 1, scene.deciding.mask)
        others = [one.mask for one in scene.instances if not one.deciding]
        assert sorted(np.unique(segments)) == list(range(2 + len(others)))
        assert np.array_equal(segments == 0, ~scene.masks.any(0))
        assert scene.label == CLASSES.index(LABELS[drawn.labels[index]])


def test_another_background_leaves_all_else_as_it_is() -> None:
    scene = shortcut_scene(9, 4, 0.5, SMALL)
    others = [with_background(9, 4, texture, SMALL) for texture in range(len(TEXTURES))]
    assert np.array_equal(others[scene.texture].scene.image, scene.scene.image)
    drawn = stacked(others)
    assert drawn.labels.tolist() == [4] * 6 and drawn.textures.tolist() == list(range(6))
    assert (drawn.segments == drawn.segments[0]).all()
    inside = scene.scene.deciding.mask
    for axis in (0, 1):  # a border's pixels show some of the background
        inside = inside & np.roll(inside, 1, axis) & np.roll(inside, -1, axis)
    assert inside.sum() > 20
    assert len({image.tobytes() for image in drawn.images}) == 6
    assert (drawn.images[:, inside] == drawn.images[0, inside]).all()


def test_stripes_lie_as_their_name_says() -> None:
    colours = np.array([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    rows, columns = (TEXTURES[name](np.random.default_rng(0), (32, 32), colours) for name in ("rows", "columns"))
    assert np.allclose(rows, rows[:, :1]) and rows.std() > 0.2
    assert np.allclose(columns, columns[:1]) and columns.std() > 0.2


@pytest.mark.parametrize(
    ("arguments", "field"), [((-1, 0, 0.5), "seed"), ((0, -1, 0.5), "index"), ((0, 0, 1.5), "strength")]
)
def test_refused_numbers(arguments: tuple[int, int, float], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        shortcut_scene(*arguments)
