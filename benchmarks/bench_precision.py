"""The distance of float32 attributions from the float64 truth: of the original's own arithmetic, and of what is served.

Rounding alone moves an attribution little, but a path point that lies within it of a ReLU's kink changes the gradient
there by a step. Which points do so differs from one order of summation to the next, so that one image says nothing of
an implementation: many images are explained, and each way's errors are given as a distribution.

    python -m benchmarks.bench_precision [--models R50x1 bit] [--images 60] [--out benchmarks/results_precision.json]

R50x1 has seeded weights and explains seeded noise in -1..1; `bit` is the demonstration model, on held-out scenes. Both
integrate from a black and from a grey image, at 50 Gauss–Legendre points. The ways, all in float32 on a CPU:

    original    BiT's weights standardised in every pass as its authors' code does, all points at once.
    timm        the same with timm's formulation.
    folded      filters standardised once, in float64.
    served      folded, and specialised to the input's size: what a worker answers with.
    bfloat16    folded, its forward pass under autocast: what `serving: {precision: bfloat16}` gives on a GPU. A CPU's
                kernels round as its own do; they say how large the error is, not which pixels have it.

An error is the largest over the pixels, relative to the largest attribution. "nearer" counts the images on which a way
is at least as near to the truth as the original.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.bench_explanation import STEPS, seeded, standardise_as_authors
from evaluation.machine import machine
from imagexplain import models
from imagexplain.attribution.paths.path_integral import integrate
from imagexplain.attribution.paths.quadrature import quadrature
from imagexplain.models.checkpoints.checkpoint import read
from imagexplain.models.optimize.folding import fold
from imagexplain.models.optimize.precision import Autocast
from imagexplain.models.optimize.specialised_convolutions import specialise
from imagexplain.ops.server import ROOT
from imagexplain.vision.preprocess import apply
from imagexplain.vision.preprocess_settings import Preprocess
from training.scenes import SceneSettings, scene
from training.train_classifier import HELD_OUT_SEED

BASELINES = {"black": -1.0, "grey": 0.0}
CHUNK = 26
ALL = STEPS + 2


def networks(name: str) -> dict[str, tuple[nn.Module, int]]:
    """Each way's frozen network, and the path points that it evaluates at once."""
    if name == "bit":
        base = models.build("bit", read(ROOT / "archive_specs" / "weights" / "bit_scenes.safetensors"))
    else:
        base = seeded(name)
    base.requires_grad_(False)
    authors = copy.deepcopy(base)
    standardise_as_authors(authors)
    folded = fold(base)
    return {
        "original": (authors, ALL),
        "timm": (base, ALL),
        "folded": (folded, CHUNK),
        "bfloat16": (Autocast(folded, torch.bfloat16), CHUNK),
        "served": (specialise(folded, torch.zeros(1, 3, 32, 32)), CHUNK),
    }


def image(name: str, index: int) -> Tensor:
    """(1, 3, 32, 32) one model input."""
    if name != "bit":
        return torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(index)).clamp(-1, 1)
    drawn = Image.fromarray(scene(HELD_OUT_SEED, index, SceneSettings(size=(96, 96))).image)
    return apply(drawn, Preprocess(size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))[0].unsqueeze(0)


def attribution(network: nn.Module, x: Tensor, baseline: float, target: int, chunk: int) -> Tensor:
    """(3, 32, 32) float64 attributions, computed in the dtype of ``x``."""
    rule, start = quadrature("gauss_legendre", STEPS), torch.full_like(x, baseline)
    (integral,) = integrate(network, x, start, torch.tensor([target]), [rule], chunk=chunk)
    return integral.attribution.double()


def bench(name: str, count: int) -> dict[str, Any]:
    """All ways from all baselines over so many images."""
    ways = networks(name)
    exact = copy.deepcopy(ways["original"][0]).double()
    results: dict[str, Any] = {}
    for start, value in BASELINES.items():
        errors: dict[str, list[float]] = {way: [] for way in ways}
        for index in range(count):
            x = image(name, index)
            with torch.no_grad():
                target = int(exact(x.double()).argmax())
            truth = attribution(exact, x.double(), value, target, CHUNK)
            for way, (network, chunk) in ways.items():
                off = (attribution(network, x, value, target, chunk) - truth).abs().max() / truth.abs().max()
                errors[way].append(off.item())
        results[start] = {
            way: {
                "median": statistics.median(values),
                "p90": sorted(values)[int(0.9 * count)],
                "nearer": sum(a <= b for a, b in zip(values, errors["original"], strict=True)),
            }
            for way, values in errors.items()
        }
        print(name, start, json.dumps(results[start]), flush=True)
    return results


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["R50x1", "bit"])
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    found = {name: bench(name, options.images) for name in options.models}
    if options.out:
        results = {"machine": machine(), "steps": STEPS, "images": options.images, "models": found}
        options.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
