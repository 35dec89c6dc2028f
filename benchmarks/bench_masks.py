"""Many masks over a large photo: the cost to bring them to a model, to answer with them, and to draw them.

Each way runs in a process of its own, so that its peak memory is its own; it is counted above what the process held
before, the masks' own parts and the photo apart. Seconds are medians of ``--repeats`` calls after one that warms up.

    python -m benchmarks.bench_masks [--repeats 5] [--out benchmarks/results_masks.json]

The ways:
    gzip, json, draw   100 instances over a photo of 12 megapixels: the answer's bytes, and its picture.
    to_model           500 run-length masks over a photo of 7,000 × 7,000, brought to a 224 × 224 input.
    table              the disjoint parts of 100 overlapping masks over a 224 × 224 input, and their full table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from benchmarks.bench_explanation import resident_bytes
from evaluation.machine import machine
from imagexplain.api.request import GZIP, JSON
from imagexplain.api.response import encode
from imagexplain.attribution.groups.directional import group_scores
from imagexplain.attribution.groups.families import family
from imagexplain.limits import Limits
from imagexplain.models.segmenters.mask_pasting import paste_masks
from imagexplain.vision import rle
from imagexplain.vision.detections import Detections
from imagexplain.vision.instance_overlay import drawn
from imagexplain.vision.masks import parse_masks, to_model
from imagexplain.vision.preprocess import apply
from imagexplain.vision.preprocess_settings import Preprocess

PHOTO = (3024, 4032)
LARGE = (7000, 7000)
INPUT = (224, 224)
WAYS = ("gzip", "json", "draw", "to_model", "table")


def instances(count: int, size: tuple[int, int], seed: int = 0) -> Detections:
    """Seeded blobs anywhere on a photo (height, width), each a fiftieth to a half of its sides."""
    generator = torch.Generator().manual_seed(seed)
    limit = torch.tensor([size[1], size[0]])
    corner = torch.rand(count, 2, generator=generator) * limit * 0.8
    boxes = torch.cat([corner, corner + (0.02 + 0.5 * torch.rand(count, 2, generator=generator)) * limit], dim=1)
    coarse = torch.rand(count, 1, 5, 5, generator=generator)
    masks = torch.nn.functional.interpolate(coarse, size=(28, 28), mode="bicubic").clamp(0, 1)[:, 0]  # (N, 28, 28)
    scores = torch.linspace(0.99, 0.5, count)
    labels = torch.zeros(count, dtype=torch.int64)
    return Detections(boxes, scores, labels, tuple(paste_masks(masks, boxes, size)), size, torch.zeros(count, 4))


def run_lengths(found: Detections) -> list[dict[str, Any]]:
    """The instances as COCO writes them, labelled."""
    return [
        {"label": f"{index}", "segmentation": rle.write(cut_out.mask, cut_out.corner, found.size)}
        for index, cut_out in enumerate(found.cut_outs)
    ]


def work(way: str) -> Callable[[], object]:
    """The thing to time."""
    if way in ("gzip", "json", "draw"):
        found = instances(100, PHOTO)
        photo = Image.new("RGB", PHOTO[::-1], (90, 120, 150))
        if way == "draw":
            return lambda: drawn(photo, found, ["thing"], "segmenter")
        if way == "gzip":
            return lambda: encode({"pred_masks": found.masks}, GZIP, max_bytes=2**30)
        return lambda: encode({"detections": run_lengths(found)}, JSON, max_bytes=2**30)
    if way == "to_model":
        # a hundred at a time, for of more on such a photo a segmenter would run out of its room
        parts = (run_lengths(instances(100, LARGE, seed)) for seed in range(5))
        sent = [{**one, "label": f"{index}"} for index, one in enumerate(chain.from_iterable(parts))]
        settings = Preprocess(size=INPUT, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        _, geometry = apply(Image.new("RGB", LARGE[::-1]), settings)
        return lambda: to_model(parse_masks(sent, LARGE, Limits()), geometry)
    found = instances(100, INPUT)
    attribution = torch.randn(3, *INPUT, generator=torch.Generator().manual_seed(0))
    names, masks = [f"{index}" for index in range(100)], found.masks

    def table() -> Tensor:
        groups = family(masks, names)
        groups.parts.sums(attribution)
        return group_scores(attribution, attribution, groups).dividend

    return table


def run_one(way: str, repeats: int) -> dict[str, float]:
    """Median seconds, and the peak memory above what this process held before, in gigabytes."""
    call = work(way)
    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return {"seconds": statistics.median(seconds[1:]), "gigabytes": (resident_bytes("VmHWM") - before) / 1e9}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(run_one(options.child, options.repeats)))
        return
    results: dict[str, Any] = {"machine": machine(), "ways": {}}
    for way in WAYS:
        command = [sys.executable, "-m", "benchmarks.bench_masks", "--child", way, "--repeats", str(options.repeats)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        results["ways"][way] = json.loads(done.stdout.splitlines()[-1])
        print(way, results["ways"][way], flush=True)
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
