"""The training of the demonstration cascade: its scenes as COCO files, a few steps of mmdet, the shipped weights."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pycocotools.coco import COCO
from safetensors import safe_open

from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.segmenters import mmcv_ext, mmdet_segmenter
from training import train_swin
from training.instances import draw, masks_of
from training.train_classifier import HELD_OUT_SEED
from training.train_tensormask import Report

WEIGHTS = Path(__file__).parents[2] / "archive_specs" / "weights" / "swin_scenes.safetensors"


def test_scenes_as_coco_files(tmp_path: Path) -> None:
    scenes = draw(5, 3, processes=1)
    train_swin.export(scenes, tmp_path / "scenes")
    coco = COCO(tmp_path / "scenes" / "annotations.json")
    assert sorted(coco.imgs) == [0, 1, 2]
    for index, about in coco.imgs.items():
        with Image.open(tmp_path / "scenes" / about["file_name"]) as picture:
            assert np.array_equal(np.asarray(picture), scenes.images[index].numpy())
        masks, labels = masks_of(scenes.owners[index], scenes.classes[index])
        rows = coco.loadAnns(coco.getAnnIds(index))
        assert [row["category_id"] for row in rows] == labels.tolist() and rows
        for row, mask in zip(rows, masks.numpy(), strict=True):
            assert np.array_equal(coco.annToMask(row).astype(bool), mask)
            left, top, width, height = row["bbox"]
            inside = mask[int(top) : int(top + height), int(left) : int(left + width)]
            assert inside.sum() == mask.sum() and inside[[0, -1]].any(1).all() and inside[:, [0, -1]].any(0).all()


def test_a_few_steps_lower_the_loss(tmp_path: Path) -> None:
    mmcv_ext.install()
    from mmengine.runner import Runner

    train_swin.export(draw(5, 4, processes=1), tmp_path / "scenes")
    runner = Runner.from_cfg(train_swin.configured(tmp_path / "scenes", 8, 2, 5e-4, 0))
    runner.train()
    losses = runner.message_hub.get_scalar("train/loss").data[0]
    assert len(losses) == 8 and np.isfinite(losses).all()
    assert np.mean(losses[-2:]) < np.mean(losses[:2])


def test_the_shipped_weights_find_most_objects_of_held_out_scenes() -> None:
    segmenter = mmdet_segmenter.build(mmdet_segmenter.resolve(train_swin.CONFIG), checkpoint.read(WEIGHTS))
    assert train_swin.measured(segmenter, draw(HELD_OUT_SEED, 40, processes=1)).ap50 >= 0.5


def test_the_shipped_weights_say_what_they_are() -> None:
    report = Report(**json.loads(WEIGHTS.with_suffix(".json").read_text()))
    with safe_open(WEIGHTS, "pt") as file:
        assert file.metadata() == {name: str(value) for name, value in asdict(report).items()}
        stored = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118 (safe_open is no mapping)
    assert report.parameters == sum(tensor.numel() for tensor in stored)
    assert report.ap50 >= 0.5 and torch.float16 in {tensor.dtype for tensor in stored}
    assert WEIGHTS.stat().st_size <= 9_000_000
