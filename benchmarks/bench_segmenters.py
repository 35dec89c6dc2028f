"""The full-size segmenters against the packages that they come from, and what is done to their masks afterwards.

Each way of finding instances runs in a process of its own, so that its peak memory is its own; the ways of one model
follow each other round by round, and ratios are taken within a round. Weights are made from their names and photos
from a seed, so that there is nothing to download; how many instances are found says nothing of the models.

    python -m benchmarks.bench_segmenters [--rounds 3] [--size 800 1067] [--out benchmarks/results_segmenters.json]

TensorMask, R50-FPN, at --size, without a resize:
    ours            imagexplain.models.segmenters.tensormask.
    detectron2      detectron2's network with our SwapAlign2Nat, evaluated everywhere: upstream's own has no CPU.
Cascade Mask R-CNN with Swin-T, its test pipeline at 1333×800 included:
    ours            mmdet's network through imagexplain.models.segmenters.mmdet_segmenter, with torchvision's operators.
    mmdet           mmdet's own way, with the same operators.
    mmdet_compiled  mmdet's own way with a compiled mmcv.
A row whose package is not installed says so. Seconds drift on a shared machine, so that the cascade's ways also take
turns within one process, each call compared with ours of the same turn; there ours is timed at a threshold of one half
too, where masks are made of the surer instances only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco
from torch import Tensor

from benchmarks.bench_explanation import resident_bytes
from benchmarks.deterministic import reference_cascade, reference_tensormask
from evaluation.machine import machine
from imagexplain.models.segmenters import mmcv_ext, mmdet_segmenter, tensormask
from imagexplain.models.segmenters.mask_pasting import paste_masks
from imagexplain.models.segmenters.tensormask import TensorMaskSettings
from imagexplain.vision import rle
from imagexplain.vision.mask_crops import stack_full_masks

WAYS = {"TensorMask": ("ours", "detectron2"), "Swin": ("ours", "mmdet", "mmdet_compiled")}
SWIN_CONFIG = Path(__file__).parents[1] / "archive_specs" / "configs" / "cascade_mask_rcnn_swin_tiny.py"
SWIN_PHOTO = (427, 640)
THRESHOLD = 0.05
MASKS = 100
REPEATS = 3


class MissingError(Exception):
    """A package that a way needs, and that is not installed."""


Call = Callable[[], Any]


def photo(size: tuple[int, int]) -> NDArray[np.uint8]:
    """A seeded photo (H, W, 3) of soft blobs."""
    coarse = np.random.default_rng(0).integers(0, 256, (size[0] // 40 + 1, size[1] // 40 + 1, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))


def tensor_mask(way: str, size: tuple[int, int]) -> Call:
    """One photo through TensorMask."""
    settings = TensorMaskSettings()
    image = tensormask.normalised(torch.tensor(photo(size)).permute(2, 0, 1)[None].float(), settings)
    if way == "ours":
        network = tensormask.build(reference_tensormask(), settings).requires_grad_(False)
        return lambda: tensormask.detect(network, image, size, THRESHOLD)
    from imagexplain.models.segmenters import detectron2_tensormask

    try:
        upstream = detectron2_tensormask.build(reference_tensormask(), settings)
    except ImportError as error:
        raise MissingError(f"detectron2 with projects/TensorMask is not installed: {error}") from error
    return lambda: detectron2_tensormask.detect(upstream, image, size, THRESHOLD)


def swin_config() -> dict[str, Any]:
    """The cascade's configuration as an archive gives it back."""
    config: dict[str, Any] = json.loads(json.dumps(mmdet_segmenter.resolve(SWIN_CONFIG)))
    return config


def swin(way: str) -> Call:
    """One photo through the cascade, from its pixels on."""
    if way != "mmdet_compiled":
        sys.modules[mmcv_ext.NAME] = mmcv_ext._module()  # even where a compiled one is installed
    elif mmcv_ext.install():
        raise MissingError("a compiled mmcv is not installed")
    config = swin_config()
    segmenter = mmdet_segmenter.build(config, reference_cascade())
    pixels = photo(SWIN_PHOTO)
    predict = segmenter.predict if way == "ours" else torch.no_grad()(segmenter._predict)
    return lambda: predict(segmenter.preprocess(pixels), THRESHOLD)


def run_one(model: str, way: str, size: tuple[int, int], repeats: int) -> dict[str, Any]:
    """Median seconds, peak memory of this process since loading, and what was found."""
    try:
        call = tensor_mask(way, size) if model == "TensorMask" else swin(way)
    except MissingError as error:
        return {"missing": str(error)}
    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here, not from loading
    found, seconds = timed(call, repeats)
    peak = resident_bytes("VmHWM")
    return {
        "seconds": seconds,
        "gigabytes": (peak - before) / 1e9,
        "process_gigabytes": peak / 1e9,  # weights and interpreter included; since loading
        "found": {
            "labels": found.labels.tolist(),
            "boxes": found.boxes.tolist(),
            "areas": found.masks.sum((1, 2)).tolist(),
        },
    }


def timed(call: Call, repeats: int) -> tuple[Any, float]:
    """The result of a first call, which warms up, and the median seconds of some more."""
    result = call()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return result, statistics.median(seconds)


def in_turns(rounds: int) -> dict[str, Any]:
    """Seconds of the cascade's ways, one call of each in turn, the operators exchanged between the calls."""
    compiled = None if mmcv_ext.install() else import_module(mmcv_ext.NAME)
    operators = mmcv_ext._module()
    config = swin_config()
    segmenter = mmdet_segmenter.build(config, reference_cascade())
    pixels, predict = photo(SWIN_PHOTO), torch.no_grad()(segmenter._predict)
    ways: dict[str, tuple[Any, Call]] = {
        "ours": (operators, lambda: segmenter.segment(pixels, THRESHOLD)),
        "ours, threshold 0.5": (operators, lambda: segmenter.segment(pixels, 0.5)),
        "mmdet": (operators, lambda: predict(segmenter.preprocess(pixels), THRESHOLD)),
        "mmdet_compiled": (compiled, lambda: predict(segmenter.preprocess(pixels), THRESHOLD)),
    }
    seconds: dict[str, list[float]] = {way: [] for way, (extension, _) in ways.items() if extension is not None}
    for turn in range(rounds + 1):  # the first warms up
        for way, row in seconds.items():
            extension, call = ways[way]
            for user in ("mmcv.ops.nms", "mmcv.ops.roi_align"):
                vars(sys.modules[user])["ext_module"] = extension
            started = time.perf_counter()
            call()
            row.append(time.perf_counter() - started)
        print(f"turn {turn}/{rounds}: { {way: round(row[-1], 2) for way, row in seconds.items()} }", file=sys.stderr)
    timed_turns = {way: row[1:] for way, row in seconds.items()}
    ratios = {way: [a / b for a, b in zip(row, timed_turns["ours"], strict=True)] for way, row in timed_turns.items()}
    return {
        "turns": rounds,
        "seconds": {way: statistics.median(row) for way, row in timed_turns.items()},
        "times ours": {way: statistics.median(row) for way, row in ratios.items()},
        "range": {way: [min(row), max(row)] for way, row in ratios.items()},
    }


def masks_afterwards(size: tuple[int, int]) -> dict[str, Any]:
    """Seconds to paste a hundred masks into a photo, and to write them in runs, by us and by others."""
    generator = torch.Generator().manual_seed(0)
    limit = torch.tensor([size[1], size[0]])
    corner = torch.rand(MASKS, 2, generator=generator) * limit * 0.8
    sides = (0.02 + 0.5 * torch.rand(MASKS, 2, generator=generator)) * limit
    boxes = torch.cat([corner, corner + sides], dim=1)
    coarse = torch.rand(MASKS, 1, 5, 5, generator=generator)
    masks = torch.nn.functional.interpolate(coarse, size=(28, 28), mode="bicubic").clamp(0, 1)[:, 0]
    cut_outs = paste_masks(masks, boxes, size)
    arrays = stack_full_masks(cut_outs, size)
    ways: dict[str, Call] = {
        "paste, ours": lambda: paste_masks(masks, boxes, size),
        "paste, ours, over whole photos": lambda: stack_full_masks(paste_masks(masks, boxes, size), size),
        "paste, mmdet": lambda: paste_by_mmdet(masks, boxes, size),
        "paste, detectron2": lambda: paste_by_detectron2(masks, boxes, size),
        "runs, ours": lambda: [rle.write(cut_out.mask, cut_out.corner, size) for cut_out in cut_outs],
        "runs, pycocotools": lambda: coco.encode(np.asfortranarray(arrays.transpose(1, 2, 0), dtype=np.uint8)),
    }
    rows: dict[str, Any] = {"masks": MASKS, "size": size, "set pixels": int(arrays.sum())}
    for name, call in ways.items():
        try:
            _, rows[name] = timed(call, REPEATS)
        except ImportError as error:
            rows[name] = f"not installed: {error}"
    return rows


def paste_by_mmdet(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks pasted one by one, as mmdet's mask head does on a CPU."""
    mmcv_ext.install()
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

    photo = torch.zeros(len(masks), *size, dtype=torch.bool)
    for index in range(len(masks)):
        part = slice(index, index + 1)
        values, where = _do_paste_mask(masks[part, None], boxes[part], *size, skip_empty=True)
        photo[(part, *where)] = values >= 0.5
    return photo


def paste_by_detectron2(masks: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Masks pasted by detectron2's own function."""
    from detectron2.layers import paste_masks_in_image

    pasted: Tensor = paste_masks_in_image(masks, boxes, size, 0.5)
    return pasted


def child(model: str, way: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one way in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bench_segmenters", "--child", model, way]
    command += ["--size", *map(str, options.size), "--repeats", str(options.repeats)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{model} {way}: exit {done.returncode}\n{done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def bench(model: str, options: argparse.Namespace) -> dict[str, Any]:
    """All ways of one model, round by round, each compared with ours."""
    missing: dict[str, str] = {}
    rounds = []
    agreement: dict[str, Any] = {}
    for number in range(options.rounds):
        row: dict[str, dict[str, Any]] = {}
        for way in WAYS[model]:
            if way in missing:
                continue
            print(f"{model} round {number + 1}/{options.rounds}: {way} …", end=" ", file=sys.stderr, flush=True)
            result = child(model, way, options)
            if "missing" in result:
                missing[way] = result["missing"]
                print(missing[way], file=sys.stderr, flush=True)
                continue
            row[way] = result
            print(f"{result['seconds']:.2f} s, {result['gigabytes']:.2f} GB", file=sys.stderr, flush=True)
        agreement = {way: compared(row["ours"]["found"], result["found"]) for way, result in row.items()}
        rounds.append({way: {key: result[key] for key in result if key != "found"} for way, result in row.items()})
    ways = [way for way in WAYS[model] if way not in missing]
    median = statistics.median
    return {
        "model": model,
        "missing": missing,
        "rounds": rounds,
        "summary": {
            "seconds": {way: median(row[way]["seconds"] for row in rounds) for way in ways},
            "gigabytes": {way: median(row[way]["gigabytes"] for row in rounds) for way in ways},
            "process_gigabytes": {way: median(row[way]["process_gigabytes"] for row in rounds) for way in ways},
            "times ours": {way: median(row[way]["seconds"] / row["ours"]["seconds"] for row in rounds) for way in ways},
            "found": agreement,
        },
    }


def compared(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """The number of instances, and their distance from ours."""
    if ours["labels"] != theirs["labels"]:
        return {"count": len(theirs["labels"]), "same labels": False}
    boxes = np.abs(np.subtract(ours["boxes"], theirs["boxes"])).max(initial=0.0)
    areas = np.abs(np.subtract(ours["areas"], theirs["areas"])).max(initial=0)
    return {
        "count": len(theirs["labels"]),
        "same labels": True,
        "boxes within": float(boxes),  # pixels
        "areas within": int(areas),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=list(WAYS), choices=WAYS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=6, help="of the cascade's ways within one process")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="calls per round, after one that warms up")
    parser.add_argument("--size", nargs=2, type=int, default=[800, 1067], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", nargs=2, metavar=("MODEL", "WAY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = (options.size[0], options.size[1])
    if options.child:
        model, way = options.child
        print(json.dumps(run_one(model, way, size, options.repeats)))
        return
    results: dict[str, Any] = {"machine": machine(), "size": size, "models": [], "masks": masks_afterwards(size)}
    print(json.dumps(results["masks"], indent=2), flush=True)
    for model in options.models:
        results["models"].append(bench(model, options))
        shown = {key: results["models"][-1][key] for key in ("model", "missing", "summary")}
        print(json.dumps(shown, indent=2), flush=True)
    if "Swin" in options.models:
        results["in turns"] = in_turns(options.turns)
        print(json.dumps(results["in turns"], indent=2), flush=True)
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
