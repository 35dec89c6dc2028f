"""Scenes as cases, partitions with their truth, and the cheap maps."""

import numpy as np
import pytest
import torch
from torch import nn

from evaluation import controls
from evaluation.cases import SCENES, case
from evaluation.methods import OURS, ours
from evaluation.methods import controls as control_scores
from evaluation.partition import by_objects, by_superpixels, partition
from evaluation.randomization import randomize_parameters
from imagexplain.vision.superpixels import SlicSettings
from tests.evaluation.subjects import PREPROCESS
from training.scenes import SceneSettings, scene


def test_partition_by_hand() -> None:
    """Group 0 has two pixels, one of them inside; group 1 one, inside; the rest one, outside."""
    groups = partition(torch.tensor([[0, 0], [1, 2]]), ("a", "b", "rest"), torch.tensor([[False, True], [True, False]]))
    assert groups.inside.tolist() == [0.5, 1, 0]
    assert groups.objects.tolist() == [True, True, False]
    assert groups.area.tolist() == [2, 1, 1]
    assert groups.sums(torch.tensor([[1.0, 2.0], [3.0, 4.0]])).tolist() == [3, 3, 4]
    assert groups.masks.sum(0).eq(1).all()
    with pytest.raises(ValueError, match="segments: wanted pixels of each of 3 groups"):
        partition(torch.zeros(2, 2, dtype=torch.int64), ("a", "b", "c"), torch.ones(2, 2, dtype=torch.bool))


def test_objects_are_the_instances_and_the_rest() -> None:
    drawn = scene(7, 3)
    groups = by_objects(drawn)
    assert torch.equal(groups.masks[groups.objects], torch.from_numpy(drawn.masks))
    deciding = [instance.deciding for instance in drawn.instances].index(True)
    assert groups.inside.tolist() == [float(index == deciding) for index in range(len(groups))]
    assert groups.names[-1] == "rest"


def test_superpixels_cover_the_image_and_know_the_truth() -> None:
    drawn = scene(7, 3)
    deciding = torch.from_numpy(drawn.deciding.mask)
    photo = torch.from_numpy(drawn.image).permute(2, 0, 1) / 255
    groups = by_superpixels(photo, deciding, SlicSettings(20))
    assert 12 <= len(groups) <= 28
    assert groups.area.sum() == 32 * 32
    assert (groups.inside * groups.area).sum().item() == pytest.approx(deciding.sum().item())


def test_a_case_is_the_scene_as_the_model_sees_it() -> None:
    drawn, found = scene(7, 3), case(7, 3, SceneSettings(), PREPROCESS)
    np.testing.assert_allclose(found.image, (drawn.image.transpose(2, 0, 1) / 255 - 0.5) / 0.5, atol=1e-6)
    assert found.label == drawn.label
    assert set(found.partitions) == {"objects", "superpixels"}
    with pytest.raises(ValueError, match="size: wanted the model's"):
        case(7, 3, SceneSettings(size=(48, 48)), PREPROCESS)


def test_area_gives_the_deciding_object_away_in_standard_scenes_only() -> None:
    def largest(name: str) -> float:
        drawn = [scene(7, index, SCENES[name]) for index in range(30)]
        return float(np.mean([one.deciding.mask.sum() == one.masks.sum((1, 2)).max() for one in drawn]))

    assert largest("standard") > 0.95
    assert largest("crowded") < 0.85


def test_our_scores_by_hand() -> None:
    """Attribution (3, 4, −1, 2), Δ = 1 everywhere, groups {0}, {1, 2}, rest {3}: ig = 3, 3, 2; IDG = 3, 3/√2, 2.

    The whole image has IDG 8/2 = 4, so the dividends are IDG / (5 + 3/√2 + 4); with pixels 3 + 4 + 1 + 2 join the sum,
    less the pixels that are groups already (3 and 2), and v({1, 2}) = (3/√2 + 4 + 1) / sum.
    """
    groups = partition(torch.tensor([[0, 1], [1, 2]]), ("a", "b", "rest"), torch.ones(2, 2, dtype=torch.bool))
    attribution = torch.tensor([[[3.0, 4.0], [-1.0, 2.0]]])
    found = ours(attribution, torch.ones_like(attribution), groups)
    assert tuple(found) == OURS
    root = 2**0.5
    total = 3 + 3 / root + 2 + 4
    np.testing.assert_allclose(found["ig"], [3, 3, 2])
    np.testing.assert_allclose(found["directional"], [3, 3 / root, 2])
    np.testing.assert_allclose(found["dividend"], np.array([3, 3 / root, 2]) / total)
    np.testing.assert_allclose(found["value"], found["dividend"])
    with_pixels = np.array([3, 3 / root + 5, 2]) / (total + 5)
    np.testing.assert_allclose(found["value with pixels"], with_pixels)


def test_scores_of_controls_by_hand() -> None:
    groups = partition(torch.tensor([[0, 1, 1]]), ("a", "b"), torch.tensor([[True, False, False]]))
    maps = {name: torch.tensor([[1.0, 2.0, 4.0]]) for name in ("edges", "gradient", "input × gradient")}
    found = control_scores(maps, groups, torch.Generator().manual_seed(0))
    assert found["area"].tolist() == [1, 2]
    assert found["edges"].tolist() == [1, 6]
    assert found["gradient per pixel"].tolist() == [1, 3]


def test_edges_of_a_step() -> None:
    """Black on the left, white on the right: (1 + 2 + 1) / 8 on both sides of the step, 0 elsewhere, borders too."""
    photo = torch.zeros(3, 4, 6)
    photo[..., 3:] = 1
    wanted = [[0, 0, 0.5, 0.5, 0, 0]] * 4
    np.testing.assert_allclose(controls.edges(photo), wanted, atol=1e-6)
    np.testing.assert_allclose(controls.edges(photo.transpose(1, 2)), np.transpose(wanted), atol=1e-6)


def test_gradient_maps_of_a_linear_model() -> None:
    weights = torch.tensor([[1.0, -2.0], [3.0, -4.0]])  # (channel, pixel)
    images = torch.full((1, 2, 1, 2), 2.0)
    found = controls.gradients(lambda x: (x.flatten(1) @ weights.flatten()).unsqueeze(1), images, 0)
    np.testing.assert_allclose(found["gradient"], [[[4, 6]]])
    np.testing.assert_allclose(found["input × gradient"], [[[8, -12]]])


def test_randomized_weights_are_the_same_numbers_elsewhere() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)).requires_grad_(False)
    before = [weights.clone() for weights in network.parameters()]
    other = randomize_parameters(network, seed=0)
    for weights, kept, drawn in zip(network.parameters(), before, other.parameters(), strict=True):
        assert torch.equal(weights, kept)
        assert not torch.equal(weights, drawn)
        assert torch.equal(weights.flatten().sort().values, drawn.flatten().sort().values)
