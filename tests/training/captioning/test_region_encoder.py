from __future__ import annotations

import numpy as np
import pytest
import torch

from imagexplain.models.captioners.region_encoder import CROP, GEOMETRY, RegionEncoder, corners_of, crops, geometry
from imagexplain.vision.scene_graph import Box
from training.captioning.drawn_scenes import draw
from training.captioning.named_scenes import named_scene
from training.captioning.names import COLOURS, SHAPES
from training.captioning.region_encoder import (
    ATTRIBUTES,
    RegionTraining,
    all_regions,
    attribute_accuracy,
    name_numbers,
    object_regions,
    train_region_encoder,
)
from training.captioning.scene_features import encode, load, save
from training.captioning.statements import graph_of

SCENES = list(draw(3, 60))
BOXES = torch.tensor([[10.0, 20.0, 50.0, 40.0], [0.0, 0.0, 160.0, 160.0], [100.0, 100.0, 101.0, 101.0]])


def test_drawn_scenes_are_those_of_the_series_for_any_number_of_processes() -> None:
    for one, other in zip(draw(3, 60, processes=2), SCENES, strict=True):
        assert np.array_equal(one.image, other.image) and one.objects == other.objects
    assert next(draw(3, 1, start=7)).objects == named_scene(3, 7).objects


def test_geometry_by_hand() -> None:
    found = geometry(torch.tensor([[10.0, 20.0, 90.0, 40.0]]), (100, 200))
    assert found[0].tolist() == pytest.approx([-0.25, -0.1, 0.4, 0.1, 0.4, 0.1, 0.2])
    assert found.shape == (1, GEOMETRY)


def test_a_crop_is_a_square_around_its_box() -> None:
    ramp = torch.arange(160.0).expand(3, 160, 160)  # the column's number
    found = crops(ramp, BOXES)
    assert found.shape == (3, 3, CROP, CROP)
    side = 40 * 1.1
    wanted = 30 - side / 2 + (torch.arange(CROP) + 0.5) * side / CROP - 0.5
    assert torch.allclose(found[0, 0, 0], wanted, atol=1e-4)
    assert torch.allclose(found[0, 0], found[0, 0, :1].expand(CROP, CROP), atol=1e-4)


def test_features_have_a_gradient_by_every_pixel_of_their_crop_and_by_no_other() -> None:
    torch.manual_seed(0)
    encoder = RegionEncoder().eval()
    photo = torch.rand(3, 160, 160, requires_grad=True)
    features = encoder(photo, BOXES[:1])
    assert features.shape == (1, encoder.width) == (1, 64 + GEOMETRY)
    features.square().sum().backward()
    assert photo.grad is not None
    touched = photo.grad.abs().sum(0) > 0
    assert touched[9:51, 9:51].all()
    assert not touched[:, 56:].any() and not touched[56:].any()


def test_a_feature_does_not_depend_on_its_neighbours_in_the_batch() -> None:
    torch.manual_seed(0)
    encoder = RegionEncoder().eval()
    photo = torch.rand(3, 160, 160)
    together = encoder(photo, BOXES)
    alone = torch.cat([encoder(photo, box[None]) for box in BOXES])
    assert torch.allclose(together, alone, atol=1e-5)


def test_regions_of_scenes() -> None:
    objects = sum(len(scene.objects) for scene in SCENES)
    regions = object_regions(SCENES)
    assert len(regions) == objects and len(object_regions(SCENES, jittered_by=0)) == 2 * objects
    first = SCENES[0].objects[0]
    assert regions.names[0].tolist() == name_numbers(first)
    assert SHAPES[regions.names[0, 0]] == first.shape and COLOURS[regions.names[0, 1]] == first.colour
    again = object_regions(SCENES, jittered_by=0)
    assert torch.equal(again.crops, object_regions(SCENES, jittered_by=0).crops)
    assert torch.equal(again.crops[: len(SCENES[0].objects)], regions.crops[: len(SCENES[0].objects)])
    everything = all_regions(SCENES)
    assert len(everything) == sum(n * (n + 1) // 2 + 1 for n in (len(scene.objects) for scene in SCENES))
    assert int((everything.names[:, 0] >= 0).sum()) == objects


def test_training_learns_repeats_itself_and_standardises() -> None:
    regions, everything = object_regions(SCENES), all_regions(SCENES[:20])
    config = RegionTraining(steps=40, batch=64, width=16)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    encoder, heads = train_region_encoder(regions, everything, config, progress=False)
    assert torch.equal(torch.random.get_rng_state(), before)
    found = attribute_accuracy(encoder, heads, regions)
    assert found.keys() == ATTRIBUTES.keys()
    assert found["colour"] > 0.6 and found["size"] > 0.6 and found["shape"] > 0.2
    features = encoder.encode(everything.crops.float() / 255, everything.geometry)
    assert features.mean(0).abs().max() < 1e-3
    assert (features.std(0) - 1).abs().max() < 1e-3
    again, _ = train_region_encoder(regions, everything, config, progress=False)
    for one, other in zip(encoder.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_encoded_scenes_hold_the_feature_of_every_node_and_come_back_from_a_file(tmp_path) -> None:
    torch.manual_seed(0)
    encoder = RegionEncoder().eval()
    scene = SCENES[1]
    encoded = encode(encoder, scene)
    graph = graph_of(scene, [(1, 2), (0, 0)], [(1, 0)])
    photo = torch.from_numpy(scene.image).permute(2, 0, 1).float() / 255
    wanted = encoder(photo, corners_of([node.box for node in graph.nodes]))
    assert len(wanted) == 5
    assert torch.allclose(encoded.nodes(graph.nodes), wanted, atol=1e-5)
    assert torch.allclose(encoded.image, encoder(photo, corners_of([Box(0, 0, 160, 160)]))[0], atol=1e-5)
    save(tmp_path / "scenes.pt", [encoded])
    (again,) = load(tmp_path / "scenes.pt")
    assert again.objects == encoded.objects and torch.equal(again.boxes, encoded.boxes)
    assert torch.equal(again.image, encoded.image)
