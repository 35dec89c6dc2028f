"""Train the demonstration Cascade Mask R-CNN with mmdet itself and write its weights as float16 safetensors.

    python -m training.train_swin --out archive_specs/weights/swin_scenes.safetensors

The network and its losses are mmdet's, as archive_specs/configs/swin_scenes.py says; the scenes go to disk as COCO
annotations. The average precision that is reported is that of the file as written, on held-out scenes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as run_length
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.segmenters import mmcv_ext, mmdet_segmenter
from training.average_precision import Precision, mask_precision
from training.instances import Instances, boxes_of, draw, masks_of
from training.publish import as_float16, publish
from training.scenes import CLASSES
from training.train_classifier import HELD_OUT_SEED, PROGRESS_SEED
from training.train_tensormask import HELD_OUT, Report

CONFIG = Path(__file__).resolve().parent.parent / "archive_specs" / "configs" / "swin_scenes.py"
PROGRESS = 100
ROIS = 48
"""Number of regions per picture and stage that are trained."""


def export(scenes: Instances, folder: Path) -> None:
    """Write scenes as mmdet reads them: PNG files and one COCO annotation file."""
    folder.mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    height, width = scenes.owners.shape[1:]
    for index in tqdm(range(len(scenes)), desc="writing scenes", unit="scene"):
        name = f"{index:06d}.png"
        Image.fromarray(scenes.images[index].numpy()).save(folder / name, compress_level=1)
        images.append({"id": index, "file_name": name, "height": height, "width": width})
        masks, labels = masks_of(scenes.owners[index], scenes.classes[index])
        for mask, label, box in zip(masks, labels.tolist(), boxes_of(masks).tolist(), strict=True):
            runs = run_length.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": label,
                    "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                    "segmentation": {"size": runs["size"], "counts": runs["counts"].decode()},
                }
            )
    categories = [{"id": index, "name": name} for index, name in enumerate(CLASSES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(content))


def configured(folder: Path, steps: int, batch: int, rate: float, seed: int) -> Any:
    """The served model's configuration with everything that training needs."""
    from mmengine.config import Config

    config = Config.fromfile(CONFIG)
    for stage in config.model.train_cfg.rcnn:
        stage.sampler.num = ROIS
    sides = config.sides
    pipeline = [
        dict(type="LoadImageFromFile"),
        dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
        dict(type="Resize", scale=sides, keep_ratio=True),
        dict(type="RandomFlip", prob=[0.25, 0.25, 0.25], direction=["horizontal", "vertical", "diagonal"]),
        dict(type="PackDetInputs"),
    ]
    dataset = dict(
        type="CocoDataset",
        data_root=str(folder),
        ann_file="annotations.json",
        data_prefix=dict(img=""),
        metainfo=dict(classes=CLASSES),
        filter_cfg=dict(filter_empty_gt=True, min_size=4),
        pipeline=pipeline,
    )
    warm_up = max(1, min(300, steps // 4))
    config.merge_from_dict(
        dict(
            work_dir=str(folder / "work"),
            default_scope="mmdet",
            train_dataloader=dict(
                _delete_=True,
                batch_size=batch,
                num_workers=0,
                sampler=dict(type="InfiniteSampler", shuffle=True, seed=seed),
                dataset=dataset,
            ),
            train_cfg=dict(type="IterBasedTrainLoop", max_iters=steps, val_interval=steps + 1),
            optim_wrapper=dict(
                type="OptimWrapper",
                optimizer=dict(type="AdamW", lr=rate, weight_decay=0.05),
                paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
                clip_grad=dict(max_norm=10.0),
            ),
            param_scheduler=[
                dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=warm_up),
                dict(type="CosineAnnealingLR", by_epoch=False, begin=warm_up, end=steps, eta_min=rate / 100),
            ],
            default_hooks=dict(
                logger=dict(type="LoggerHook", interval=50),
                checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=500, max_keep_ckpts=1),
            ),
            log_processor=dict(by_epoch=False),
            randomness=dict(seed=seed),
            val_dataloader=None,
            val_cfg=None,
            val_evaluator=None,
            test_dataloader=None,
            test_cfg=None,
            test_evaluator=None,
        )
    )
    return config


def measured(segmenter: mmdet_segmenter.MMDetSegmenter, scenes: Instances) -> Precision:
    """The average precision of a segmenter's masks."""
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for image in scenes.images:
        detections = segmenter.segment(image.flip(-1))
        found.append((detections.masks, detections.scores, detections.labels))
    return mask_precision(found, scenes)


def main() -> None:
    """Draw, train, write, read back, and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the safetensors file to write")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--scenes", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="cores to train on")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    mmcv_ext.install()
    from mmengine.runner import Runner

    with tempfile.TemporaryDirectory() as folder:
        scenes = Path(folder) / "scenes"
        export(draw(given.seed, given.scenes), scenes)
        runner = Runner.from_cfg(configured(scenes, given.steps, given.batch, given.rate, given.seed))
        begin = time.perf_counter()
        runner.train()
        minutes = (time.perf_counter() - begin) / 60
    weights = as_float16({name: tensor.detach().cpu() for name, tensor in runner.model.state_dict().items()})
    save_file(weights, given.out)
    served = mmdet_segmenter.build(mmdet_segmenter.resolve(CONFIG), checkpoint.read(given.out))
    print(f"on scenes of training's progress: {measured(served, draw(PROGRESS_SEED, PROGRESS))}")
    precision = measured(served, draw(HELD_OUT_SEED, HELD_OUT))
    report = Report(
        architecture="swin",
        dimensions="Cascade Mask R-CNN of mmdet, 32 to 256 channels, 160×160",
        parameters=sum(tensor.numel() for tensor in weights.values()),
        ap=precision.ap,
        ap50=precision.ap50,
        held_out=HELD_OUT,
        held_out_seed=HELD_OUT_SEED,
        seed=given.seed,
        recipe=f"AdamW, cosine from {given.rate:g}, {given.steps:,} steps of {given.batch}, "
        f"from {given.scenes:,} scenes",
        minutes=round(minutes, 1),
    )
    publish(given.out, weights, asdict(report))
    print(f"{given.out}: mask AP50 {precision.ap50:.3f}, AP {precision.ap:.3f}, {minutes:.1f} minutes of training")


if __name__ == "__main__":
    main()
