from __future__ import annotations

import torch

from training.average_precision import mask_precision
from training.instances import SETTINGS, altered, boxes_of, draw, masks_of
from training.scenes import scene

SCENES = draw(3, 4, processes=1)


def test_scenes_keep_their_objects() -> None:
    for index in range(len(SCENES)):
        drawn = scene(3, index, SETTINGS)
        masks, classes = masks_of(SCENES.owners[index], SCENES.classes[index])
        objects = [instance for instance in drawn.instances if instance.class_index is not None]
        assert torch.equal(SCENES.images[index], torch.from_numpy(drawn.image))
        assert classes.tolist() == [instance.class_index for instance in objects]
        assert all(torch.equal(mask, torch.from_numpy(o.mask)) for mask, o in zip(masks, objects, strict=True))
        assert boxes_of(masks).tolist() == [list(map(float, o.box)) for o in objects]


def test_altered_scenes_move_image_and_objects_alike() -> None:
    owners = SCENES.owners.repeat(4, 1, 1)
    images = owners[..., None].expand(-1, -1, -1, 3).contiguous()  # pixels that say whose they are
    moved, owners_moved = altered(images, owners, torch.Generator().manual_seed(0))
    assert torch.equal(moved, owners_moved[..., None].expand_as(moved))
    assert not torch.equal(owners_moved, owners)
    colours, _ = altered(SCENES.images, SCENES.owners, torch.Generator().manual_seed(0))
    assert torch.equal(colours.sum(-1).flatten(1).sort().values, SCENES.images.sum(-1).flatten(1).sort().values)


def test_average_precision_of_right_shifted_and_missing_masks() -> None:
    right, shifted, half = [], [], []
    for index in range(len(SCENES)):
        masks, labels = masks_of(SCENES.owners[index], SCENES.classes[index])
        right.append((masks, torch.linspace(0.9, 0.5, len(masks)), labels))
        shifted.append((masks.roll(64, 1), torch.ones(len(masks)), labels))
        half.append((masks[:0], torch.ones(0), labels[:0]) if index % 2 else right[-1])
    assert (mask_precision(right, SCENES).ap, mask_precision(right, SCENES).ap50) == (1, 1)
    assert mask_precision(shifted, SCENES).ap50 < 0.1
    assert 0 < mask_precision(half, SCENES).ap50 < 1
    assert mask_precision([(masks[:0], scores[:0], labels[:0]) for masks, scores, labels in right], SCENES).ap == 0
