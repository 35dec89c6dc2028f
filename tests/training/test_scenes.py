import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from training.scenes import CLASSES, DISTRACTORS, Scene, SceneSettings, scene, scenes

SIZES = [(32, 32), (64, 64), (48, 40), (224, 160)]
CROWD = SceneSettings(size=(96, 128), objects=(2, 5), distractors=(2, 5))


def same(first: Scene, second: Scene) -> bool:
    return (
        first.label == second.label
        and np.array_equal(first.image, second.image)
        and np.array_equal(first.masks, second.masks)
        and [instance.kind for instance in first.instances] == [instance.kind for instance in second.instances]
    )


def test_the_ten_classes() -> None:
    assert len(CLASSES) == 10
    assert not set(CLASSES) & set(DISTRACTORS)


def test_a_scene_depends_on_seed_and_index_only() -> None:
    forward = [scene(3, index) for index in range(12)]
    backward = [scene(3, index) for index in reversed(range(12))][::-1]
    assert all(map(same, forward, backward))
    assert not any(same(one, other) for one, other in itertools.combinations(forward, 2))
    assert not same(scene(3, 0), scene(4, 0))


def test_scenes_are_those_of_scene() -> None:
    images, labels = scenes(5, 7, 4)
    assert images.shape == (4, 32, 32, 3)
    assert (images.dtype, labels.dtype) == (np.dtype(np.uint8), np.dtype(np.int64))
    for offset in range(4):
        assert np.array_equal(images[offset], scene(5, 7 + offset).image)
        assert labels[offset] == scene(5, 7 + offset).label


def test_ten_consecutive_scenes_hold_every_class_once() -> None:
    labels = np.array([scene(2, index).label for index in range(40)]).reshape(4, 10)
    assert np.array_equal(np.sort(labels, axis=1), np.tile(np.arange(10), (4, 1)))
    assert len({tuple(block) for block in labels}) == 4


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("objects", [(1, 1), (2, 4)])
def test_masks_boxes_and_label_agree(size: tuple[int, int], objects: tuple[int, int]) -> None:
    settings = SceneSettings(size=size, objects=objects)
    for index in range(10):
        drawn = scene(1, index, settings)
        assert drawn.image.shape == (*size, 3)
        assert drawn.image.dtype == np.uint8
        assert drawn.masks.shape == (len(drawn.instances), *size)
        assert drawn.masks.sum(axis=0).max() == 1
        assert [instance.deciding for instance in drawn.instances].count(True) == 1
        assert drawn.deciding.kind == CLASSES[drawn.label]
        assert drawn.deciding.class_index == drawn.label
        for instance, box in zip(drawn.instances, drawn.boxes, strict=True):
            x0, y0, x1, y1 = box
            assert instance.mask[y0:y1, x0:x1].sum() == instance.mask.sum() > 0
            for border in (
                instance.mask[y0, :],
                instance.mask[y1 - 1, :],
                instance.mask[:, x0],
                instance.mask[:, x1 - 1],
            ):
                assert border.any()
            assert (instance.class_index is None) == (instance.kind in DISTRACTORS)


@pytest.mark.parametrize("settings", [SceneSettings(), CROWD, SceneSettings(distractors=(6, 9), visible=0.97)])
def test_class_objects_stay_visible(settings: SceneSettings) -> None:
    for index in range(30):
        for instance in scene(8, index, settings).instances:
            if instance.class_index is not None:
                assert instance.visible >= settings.visible


def test_the_deciding_object_is_wholly_in_the_frame_and_of_the_wanted_extent() -> None:
    settings = SceneSettings(size=(64, 80), distractors=(0, 0))
    for index in range(40):
        (alone,) = scene(9, index, settings).instances
        assert alone.visible == 1
        x0, y0, x1, y1 = alone.box
        longer = max(x1 - x0, y1 - y0)
        assert 0.5 * 64 * 0.7 - 2 <= longer <= 0.75 * 64 + 2


def test_of_several_class_objects_the_deciding_one_is_the_largest() -> None:
    """Shapes fill their circle differently, so circles are compared with circles, and so on."""
    compared = 0
    for index in range(60):
        drawn = scene(10, index, CROWD)
        for instance in drawn.instances:
            if instance.class_index == drawn.label and not instance.deciding:
                compared += 1
                assert instance.mask.sum() < 0.8 * drawn.deciding.mask.sum()
    assert compared > 5


def test_the_mask_is_where_the_object_is_painted() -> None:
    """Without noise and distractors the colour jumps at the mask's border and nowhere within it."""
    settings = SceneSettings(size=(96, 96), distractors=(0, 0), noise=0.0, contrast=0.5)
    for index in range(10):
        drawn = scene(11, index, settings)
        mask = drawn.deciding.mask
        inside, outside = drawn.image[eroded(mask)].astype(float), drawn.image[eroded(~mask)].astype(float)
        centre = inside.mean(axis=0)
        assert np.linalg.norm(inside - centre, axis=1).mean() < 0.5 * np.linalg.norm(outside - centre, axis=1).mean()


def eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    kept = mask.copy()
    for axis, step in itertools.product((0, 1), (-1, 1)):
        kept &= np.roll(mask, step, axis)
    return kept


def test_colours_tell_nothing_about_the_class() -> None:
    """One-way analysis of variance: F of (9, 390) degrees of freedom exceeds 3.2 by chance once in a thousand."""
    drawn = [scene(12, index) for index in range(400)]
    labels = np.array([one.label for one in drawn])
    for colours in (
        np.array([one.image[one.deciding.mask].mean(axis=0) for one in drawn]),
        np.array([one.image[~one.deciding.mask].mean(axis=0) for one in drawn]),
    ):
        groups = np.stack([colours[labels == label] for label in range(10)])  # (10, 40, 3)
        means = groups.mean(axis=1)
        between = 40 * ((means - colours.mean(axis=0)) ** 2).sum(axis=0) / 9
        within = ((groups - means[:, None]) ** 2).sum(axis=(0, 1)) / 390
        assert (between / within).max() < 3.2


def test_the_number_of_distractors_tells_nothing_about_the_class() -> None:
    drawn = [scene(13, index, SceneSettings(distractors=(0, 3))) for index in range(400)]
    counts = np.array([len(one.instances) for one in drawn], dtype=float)
    labels = np.array([one.label for one in drawn])
    means = np.array([counts[labels == label].mean() for label in range(10)])
    assert np.abs(means - counts.mean()).max() < 4 * counts.std() / np.sqrt(40)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("size", (31, 64)),
        ("objects", (0, 1)),
        ("objects", (3, 2)),
        ("distractors", (2, 1)),
        ("extent", (0.0, 0.5)),
        ("distractor_extent", (0.5, 0.4)),
        ("visible", 1.0),
    ],
)
def test_settings_without_a_scene_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        SceneSettings(**{field: value})  # type: ignore[arg-type]


def test_negative_seeds_and_indices_are_refused() -> None:
    with pytest.raises(ValueError, match="index"):
        scene(0, -1)
    with pytest.raises(ValueError, match="seed"):
        scene(-1, 0)
