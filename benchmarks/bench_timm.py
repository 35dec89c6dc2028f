"""Integrated gradients of timm's networks at full size: ours as served, ours on the plain module, and Captum's.

    python -m benchmarks.bench_timm [--models resnet50 …] [--steps 10 50] [--rounds 5] [--ways served captum …]
                                    [--out benchmarks/results_timm.json]

Weights are seeded and the input is a photo of 224 × 224: neither changes the time. The ways take turns within a round,
in an order drawn for each, as a way may be slower or quicker for the one before it, and ratios are taken within it.
Weights are frozen, for every way alike, and the gradients are of one class.

The ways:
    served          our pass on the network as a worker holds it: optimized, channels last.
    plain           our pass on the module as timm makes it.
    plain_last      the same, module channels last.
    captum          Captum's IntegratedGradients with its convergence delta, which ours always returns, on that module.
    captum_last     the same, module and image channels last.
    captum_folded   the same on the network as a worker holds it: what was optimized is ours.
    no_delta        as captum_last, without the delta.

Captum gets our chunk as its internal_batch_size. The floor is the time of the convolutions' and products' operations,
forward and back, at the rate of a large matrix product.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from captum.attr import IntegratedGradients
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.bench_explanation import matrix_rate
from evaluation.machine import machine
from imagexplain.attribution.paths.path_integral import integrate
from imagexplain.attribution.paths.quadrature import quadrature
from imagexplain.models.classifiers import timm_network
from imagexplain.models.example_photo import example_photo
from imagexplain.models.optimize.any_network import optimize
from imagexplain.serving.allocator import keep_freed_memory
from imagexplain.serving.chunk_size import chunk_size
from imagexplain.vision.preprocess import apply
from imagexplain.vision.preprocess_settings import Preprocess

MODELS = (
    "resnet18",
    "resnet50",
    "tf_efficientnet_lite0",
    "mobilenetv3_large_100",
    "convnext_tiny",
    "vit_tiny_patch16_224",
    "vit_small_patch16_224",
)
TARGET = 3
RIVALS = ("captum", "captum_last")
"""The ways of somebody who has Captum and timm alone."""


def made(name: str) -> tuple[nn.Module, Tensor]:
    """The network with seeded weights, frozen, in ``eval()``, and a photo (1, 3, H, W) as it sees it."""
    torch.manual_seed(0)
    network = timm.create_model(name).eval().requires_grad_(False)
    image, _ = apply(Image.fromarray(example_photo()), Preprocess(**timm_network.preprocess(name, {})))
    return network, image[None]


def ways(name: str, steps: int) -> tuple[dict[str, Callable[[], Any]], int, float]:
    """The calls to time, the chunk, and the operations of one path."""
    network, image = made(name)
    start, targets, rule = torch.zeros_like(image), torch.tensor([TARGET]), quadrature("gauss_legendre", steps)
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    served = optimize(network, image).to(memory_format=torch.channels_last)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image)
    chunk = chunk_size(served, image)

    def ours(model: nn.Module) -> Callable[[], Any]:
        return lambda: integrate(model, image, start, targets, [rule], chunk=chunk)

    def captum(model: nn.Module, layout: torch.memory_format, delta: bool = True) -> Callable[[], Any]:
        ends = [end.to(memory_format=layout) for end in (image, start)]
        return lambda: IntegratedGradients(model).attribute(
            *ends, target=TARGET, n_steps=steps, internal_batch_size=chunk, return_convergence_delta=delta
        )

    calls = {
        "served": ours(served),
        "plain": ours(network),
        "plain_last": ours(last),
        "captum": captum(network, torch.contiguous_format),
        "captum_last": captum(last, torch.channels_last),
        "captum_folded": captum(served, torch.channels_last),
        "no_delta": captum(last, torch.channels_last, delta=False),
    }
    # Every node forward and back, which is as much again for frozen weights, and both ends forward.
    return calls, chunk, (2 * steps + 2) * counter.get_total_flops()


def bench(name: str, steps: int, rounds: int, chosen: Sequence[str] | None = None) -> dict[str, Any]:
    """The chosen ways, or all, on one network."""
    calls, chunk, flops = ways(name, steps)
    calls = {way: call for way, call in calls.items() if chosen is None or way in chosen}
    rows, order = [], random.Random(0)
    for _ in range(rounds + 1):  # the first warms up
        row = {"floor": flops / matrix_rate(repeats=2)}
        for way, call in order.sample(list(calls.items()), len(calls)):
            started = time.perf_counter()
            call()
            row[way] = time.perf_counter() - started
        rows.append({way: row[way] for way in ("floor", *calls)})
    return {"model": name, "steps": steps, "chunk": chunk, **summary(rows[1:])}


def summary(rows: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Medians over the rounds; every ratio is taken within a round, that of the rival to the one that is quicker."""
    seconds = {way: statistics.median(row[way] for row in rows) for way in rows[0]}
    rival = min((way for way in RIVALS if way in seconds), key=lambda way: seconds[way], default="captum")
    ratios = {
        "rival / served": (rival, "served"),
        "captum / plain": ("captum", "plain"),
        "captum_last / plain_last": ("captum_last", "plain_last"),
        "captum_folded / served": ("captum_folded", "served"),
        "delta of captum": ("captum_last", "no_delta"),
        "served / floor": ("served", "floor"),
    }
    return {
        "seconds": {way: round(median, 4) for way, median in seconds.items()},
        **{
            name: round(statistics.median(row[above] / row[below] for row in rows), 3)
            for name, (above, below) in ratios.items()
            if above in seconds and below in seconds
        },
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--steps", nargs="+", type=int, default=[10, 50])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ways", nargs="+", help="those to time, all by default")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    keep_freed_memory()
    results: dict[str, Any] = {"machine": machine(), "models": []}
    for name in options.models:
        for steps in options.steps:
            results["models"].append(bench(name, steps, options.rounds, options.ways))
            print(json.dumps(results["models"][-1], indent=1), flush=True)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
