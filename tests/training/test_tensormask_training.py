from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open

from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.segmenters import tensormask
from training import train_tensormask
from training.instances import Instances, draw
from training.tensormask_losses import box_loss, class_loss, mask_loss
from training.tensormask_targets import assign, box_deltas, mask_in_window, targets
from training.train_classifier import HELD_OUT_SEED

WEIGHTS = Path(__file__).parents[2] / "archive_specs" / "weights" / "tensormask_scenes.safetensors"
UNIT = torch.tensor([4.0])


def boxes(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def test_a_window_takes_the_object_that_it_contains_and_resembles() -> None:
    window = boxes((0, 0, 44, 44))
    cases = {
        (10, 10, 34, 34): 0,  # centred, 24 long: the window's 44 − 4 ≤ 2 · 24
        (13, 13, 33, 33): 0,  # 20 long, 40 ≤ 40: just
        (13, 13, 32, 33): 0,  # the longer side counts
        (10, 10, 30, 29): 0,  # centre off by (−2, −2.5)
        (0, 0, 44, 44): 0,
        (0, 0, 44, 45): -1,  # sticks out
        (4, 10, 28, 34): -1,  # centre off by 6 > 4
        (15, 15, 34, 34): -1,  # 19 long, 40 > 38
    }
    for box, wanted in cases.items():
        assert assign(boxes(box), window, UNIT, smallest=20).item() == wanted, box


def test_small_objects_train_the_smallest_windows() -> None:
    tiny = boxes((20, 20, 24, 24))
    assert assign(tiny, boxes((0, 0, 44, 44)), UNIT, smallest=40).item() == 0
    assert assign(tiny, boxes((-8, -8, 52, 52)), UNIT, smallest=40).item() == -1


def test_a_window_with_two_objects_takes_none() -> None:
    window = boxes((0, 0, 44, 44), (0, 0, 44, 44), (200, 200, 244, 244))
    pair = boxes((10, 10, 34, 34), (11, 11, 35, 35))
    assert assign(pair, window, UNIT.expand(3), 40).tolist() == [-1, -1, -1]
    assert assign(torch.zeros(0, 4), window, UNIT.expand(3), 40).tolist() == [-1, -1, -1]


def test_box_deltas_by_hand() -> None:
    deltas = box_deltas(boxes((0, 0, 40, 20)), boxes((10, 5, 50, 15)))
    wanted = [1.5 * 10 / 40, 0.0, 0.0, 0.75 * math.log(10 / 20)]
    torch.testing.assert_close(deltas, torch.tensor([wanted]))


def test_targets_of_an_image() -> None:
    windows = boxes((0, 0, 44, 44), (100, 100, 144, 144))
    found = targets(boxes((10, 10, 34, 34)), torch.tensor([7]), windows, UNIT.expand(2), 40)
    assert found.matched.tolist() == [0, -1] and found.classes.tolist() == [7, -1]
    assert found.deltas.shape == (1, 4)


def test_a_window_sees_its_part_of_the_mask() -> None:
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[0, :4, :4] = True
    assert mask_in_window(mask, boxes((0, 0, 8, 8)), 4)[0].int().tolist() == [
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [0] * 4,
        [0] * 4,
    ]
    beyond = mask_in_window(mask, boxes((-8, -8, 8, 8)), 4)[0]
    assert beyond.int().tolist() == [[0] * 4, [0] * 4, [0, 0, 1, 0], [0] * 4]


def test_losses_by_hand() -> None:
    logits = torch.zeros(2, 3)
    one = math.log(2) / 3
    wanted = one * (0.3 + 2 * 0.7) + one * 3 * 0.7
    torch.testing.assert_close(class_loss(logits, torch.tensor([1, -1])), torch.tensor(wanted))
    confident = torch.tensor([[10.0, -10.0, -10.0]])
    assert class_loss(confident, torch.tensor([0])) < 1e-8 < 1 < class_loss(-confident, torch.tensor([0]))
    assert box_loss(torch.tensor([[1.0, -2, 0, 0]]), torch.zeros(1, 4)).item() == 3
    half = torch.zeros(1, 2, 2, dtype=torch.bool)
    half[0, 0] = True
    expected = 2 * math.log(2) * (2 * 1.5 + 2) / 4
    torch.testing.assert_close(mask_loss(torch.zeros(1, 2, 2), half), torch.tensor(expected))


def test_training_lowers_every_loss() -> None:
    scenes = draw(0, 2, processes=1)
    torch.manual_seed(0)
    network = train_tensormask.untrained().train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    seen = []
    for step in range(8):
        generator = torch.Generator().manual_seed(step)
        parts = train_tensormask.losses(network, scenes.images, scenes.owners, scenes.classes, generator)
        optimizer.zero_grad()
        parts.sum().backward()
        optimizer.step()
        seen.append(parts.detach())
    assert torch.stack(seen).isfinite().all()
    assert (seen[-1] < seen[0]).all(), seen


def test_a_scene_without_objects_trains_the_background_only() -> None:
    scenes = draw(0, 1, processes=1)
    nothing = Instances(scenes.images, torch.zeros_like(scenes.owners), torch.full_like(scenes.classes, -1))
    network = train_tensormask.untrained().train()
    generator = torch.Generator().manual_seed(0)
    classes, boxes, masks = train_tensormask.losses(
        network, nothing.images, nothing.owners, nothing.classes, generator
    ).tolist()
    assert classes > 0 and boxes == masks == 0


def test_the_shipped_weights_find_most_objects_of_held_out_scenes() -> None:
    network = tensormask.build(checkpoint.read(WEIGHTS), train_tensormask.SETTINGS)
    scenes = draw(HELD_OUT_SEED, 40, processes=1)
    assert train_tensormask.measured(network, scenes).ap50 >= 0.7


def test_the_shipped_weights_say_what_they_are() -> None:
    report = train_tensormask.Report(**json.loads(WEIGHTS.with_suffix(".json").read_text()))
    with safe_open(WEIGHTS, "pt") as file:
        assert file.metadata() == {name: str(value) for name, value in asdict(report).items()}
        stored = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118 (safe_open is no mapping)
    assert report.parameters == sum(tensor.numel() for tensor in stored)
    assert report.ap50 >= 0.7 and {tensor.dtype for tensor in stored} == {torch.float16}
    assert WEIGHTS.stat().st_size <= 3_000_000
