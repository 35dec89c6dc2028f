"""The explanation kernel against Captum and against the original servers' procedure, on full-size models.

Each way of explaining runs in a process of its own, so that its peak memory is its own; the ways of one model follow
each other round by round, and ratios are taken within a round, so that a machine whose speed drifts does no harm.

    python -m benchmarks.bench_explanation [--models R50x1 R101x3 LaNet] [--rounds 3] [--out benchmarks/results.json]

The ways:
    original   Captum's IntegratedGradients on the unfolded, unfrozen model, then a second pass that keeps the gradient
               at every step, as the original servers did (LaNet in train mode, as they left it).
    authors    the same, with BiT's weights standardised as its authors' code does, by var_mean, and as the original
               servers therefore did; timm's formulation, which `original` has, is faster.
    captum     Captum's IntegratedGradients alone, on the folded, frozen model.
    captum_delta   the same with its convergence delta, which ours always returns.
    folded     our pass on that same folded model: the method without the specialised convolutions.
    ours       our pass on the folded and specialised model, per-step gradients kept, with the allocator's settings of
               a worker: what the service answers with.
    ours_ig    the same, integrated gradients alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from timm.layers import StdConv2d
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from evaluation.machine import machine
from imagexplain.attribution.paths.path_integral import integrate
from imagexplain.attribution.paths.quadrature import quadrature
from imagexplain.models.classifiers import bit, lanet
from imagexplain.models.optimize.folding import fold
from imagexplain.models.optimize.specialised_convolutions import specialise
from imagexplain.serving.allocator import keep_freed_memory
from imagexplain.serving.chunk_size import chunk_size

STEPS = 50
TARGET = 3
WAYS = ("authors", "original", "captum", "captum_delta", "folded", "ours", "ours_ig")


def seeded(name: str) -> nn.Module:
    """The named architecture at full size, with seeded weights, in ``eval()``."""
    torch.manual_seed(0)
    if name != "LaNet":
        return bit.bit(*bit.SIZES[name], classes=10).eval()
    network = lanet.LaNet(channels=128, layers=24, classes=10, auxiliary=True)
    calibrate(network)
    return network.eval()


def calibrate(network: nn.Module) -> None:
    """Set batch-norm statistics from one random batch; with those of initialisation, activations overflow."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    network.train()
    with torch.no_grad():
        network(torch.randn(8, 3, 32, 32))


def standardise_as_authors(network: nn.Module) -> None:
    """Let each weight-standardised convolution compute (w − mean) / sqrt(var + ε) as BiT's authors wrote it."""

    def forward(self: StdConv2d, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, correction=0)
        return self._conv_forward(x, (self.weight - mean) / torch.sqrt(variance + self.eps), self.bias)

    for module in network.modules():
        if isinstance(module, StdConv2d):
            module.forward = MethodType(forward, module)


def image() -> Tensor:
    """A seeded model input, (1, 3, 32, 32)."""
    return torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def original(network: nn.Module, x: Tensor) -> Tensor:
    """The two passes of the original servers, each over all steps at once."""
    from captum.attr import IntegratedGradients

    def scores(rows: Tensor) -> Tensor:
        output = network(rows)
        return output[0] if isinstance(output, tuple) else output

    network.eval()
    scores(x)
    network.train()
    points = torch.cat([alpha * x for alpha in quadrature("gauss_legendre", STEPS).nodes.float()]).requires_grad_()
    torch.autograd.grad(torch.unbind(scores(points)[:, TARGET]), points)
    return IntegratedGradients(scores).attribute(x, x * 0, target=TARGET, n_steps=STEPS)


def captum(network: nn.Module, x: Tensor, chunk: int, delta: bool) -> object:
    """Captum's IntegratedGradients, called as its documentation does."""
    from captum.attr import IntegratedGradients

    return IntegratedGradients(network).attribute(
        x, x * 0, target=TARGET, n_steps=STEPS, internal_batch_size=chunk, return_convergence_delta=delta
    )


def ours(network: nn.Module, x: Tensor, chunk: int, keep_steps: bool) -> Tensor:
    """Our one pass."""
    rule = quadrature("gauss_legendre", STEPS)
    targets = torch.tensor([TARGET])
    (integral,) = integrate(network, x, torch.zeros_like(x), targets, [rule], chunk=chunk, keep_steps=keep_steps)
    return integral.attribution.unsqueeze(0)


def prepared(name: str, way: str) -> tuple[Callable[[], object], int]:
    """The thing to time, and the chunk it uses."""
    network, x = seeded(name), image()
    if way in ("authors", "original"):
        if isinstance(network, lanet.LaNet):
            network.drop_path_prob = 0.1
        if way == "authors":
            standardise_as_authors(network)
        return lambda: original(network, x), STEPS
    network = fold(network)
    chunk = chunk_size(network, x)
    if way.startswith("captum"):
        return lambda: captum(network, x, chunk, way == "captum_delta"), chunk
    if way == "folded":
        return lambda: ours(network, x, chunk, False), chunk
    keep_freed_memory()
    network = specialise(network, x)
    chunk = chunk_size(network, x)
    return lambda: ours(network, x, chunk, way == "ours"), chunk


def run_one(name: str, way: str, repeats: int) -> dict[str, float]:
    """Median seconds, and the peak memory of this process since loading, alone and above what it held then."""
    call, chunk = prepared(name, way)
    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here, not from loading
    seconds = []
    for repeat in range(repeats + (repeats > 1)):
        started = time.perf_counter()
        call()
        if repeat or repeats == 1:  # the first of several warms up
            seconds.append(time.perf_counter() - started)
    peak = resident_bytes("VmHWM")
    return {
        "seconds": statistics.median(seconds),
        "gigabytes": (peak - before) / 1e9,
        "process_gigabytes": peak / 1e9,  # weights and interpreter included; since loading
        "chunk": chunk,
    }


def resident_bytes(which: str) -> int:
    """Memory of this process in RAM, now (VmRSS) or at its peak (VmHWM)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith(which)))


def matrix_rate(size: int = 2048, repeats: int = 5) -> float:
    """FLOP/s of a large float32 matrix product, the best of a few."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    best = float("inf")
    for _ in range(repeats + 1):
        started = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def pass_flops(name: str) -> int:
    """FLOP of one pass by the folded model's own convolutions: forward, and as much again backward to the input."""
    network = fold(seeded(name))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(image())
    return STEPS * 2 * counter.get_total_flops()


KINDS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm"),
    "convolutions": ("aten::mkldnn_convolution", "aten::convolution_backward"),
    "group norm": ("aten::native_group_norm", "aten::native_group_norm_backward"),
    "ReLU": ("aten::clamp_min", "aten::clamp_min_", "aten::threshold_backward"),
    "max pooling": ("aten::max_pool2d_with_indices", "aten::max_pool2d_with_indices_backward"),
    "sums, copies, fills": ("aten::add", "aten::add_", "aten::copy_", "aten::fill_", "aten::cat", "aten::index_add_"),
}


def profile(name: str) -> dict[str, float]:
    """The part of the service's pass that each kind of operator takes by itself, in percent."""
    call, _ = prepared(name, "ours_ig")
    call()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as record:
        call()
    took = {event.key: event.self_cpu_time_total for event in record.key_averages()}
    shares = {kind: sum(took.get(key, 0.0) for key in keys) for kind, keys in KINDS.items()}
    total = sum(took.values())
    shares["everything else"] = total - sum(shares.values())
    return {kind: round(100 * share / total, 1) for kind, share in shares.items()}


def child(name: str, way: str, repeats: int) -> dict[str, float]:
    """Run one way in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.bench_explanation", "--child", name, way, "--repeats", str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{name} {way}: exit {done.returncode}\n{done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def bench(name: str, rounds: int, ways: tuple[str, ...]) -> dict[str, Any]:
    """All ways of one model, round by round."""
    ways = tuple(way for way in ways if way != "authors" or name != "LaNet")  # LaNet has one formulation only
    slow = name == "LaNet"  # its original procedure takes a minute or more, once
    flops = pass_flops(name)
    rows = []
    for number in range(rounds):
        row: dict[str, dict[str, float]] = {}
        rate = matrix_rate()
        for way in ways:
            print(f"{name} round {number + 1}/{rounds}: {way} …", end=" ", file=sys.stderr, flush=True)
            row[way] = child(name, way, 1 if slow and way == "original" else 2 if slow or name != "R50x1" else 5)
            print(f"{row[way]['seconds']:.2f} s, {row[way]['gigabytes']:.2f} GB", file=sys.stderr, flush=True)
        rate = (rate + matrix_rate()) / 2
        rows.append({"ways": row, "gflops": rate / 1e9, "floor_seconds": flops / rate})
    return {"model": name, "gflop": flops / 1e9, "rounds": rows, "summary": summary(rows, ways)}


def summary(rows: list[dict[str, Any]], ways: tuple[str, ...]) -> dict[str, Any]:
    """Medians over the rounds; every ratio is taken within a round."""
    median = statistics.median

    def ratio(a: str, b: str) -> float | None:
        return (
            median(row["ways"][a]["seconds"] / row["ways"][b]["seconds"] for row in rows)
            if {a, b} <= set(ways)
            else None
        )

    return {
        "seconds": {way: median(row["ways"][way]["seconds"] for row in rows) for way in ways},
        "gigabytes": {way: median(row["ways"][way]["gigabytes"] for row in rows) for way in ways},
        "authors / ours": ratio("authors", "ours"),
        "original / ours": ratio("original", "ours"),
        "captum / ours_ig": ratio("captum", "ours_ig"),
        "captum / folded": ratio("captum", "folded"),
        "captum_delta / folded": ratio("captum_delta", "folded"),
        "ours / floor": median(row["ways"]["ours"]["seconds"] / row["floor_seconds"] for row in rows),
        "gflops": median(row["gflops"] for row in rows),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["R50x1", "R101x3", "LaNet"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--profile", action="store_true", help="show where the time of our pass goes, and end")
    parser.add_argument("--child", nargs=2, metavar=("MODEL", "WAY"), help=argparse.SUPPRESS)
    parser.add_argument("--repeats", type=int, default=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, way = options.child
        print(json.dumps(run_one(name, way, options.repeats)))
        return
    if options.profile:
        for name in options.models:
            print(json.dumps({"model": name, "percent": profile(name)}), flush=True)
        return
    results: dict[str, Any] = {"machine": machine(), "steps": STEPS, "models": []}
    for name in options.models:
        result = bench(name, 1 if name == "LaNet" else options.rounds, tuple(options.ways))
        results["models"].append(result)
        print(
            json.dumps({"model": name, "gflop": round(result["gflop"], 1), **result["summary"]}, indent=2), flush=True
        )
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
