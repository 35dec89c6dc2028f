"""Sums of gradient · Δ over groups of pixels: ours against the ways one would write at first.

    python -m benchmarks.bench_group_sums [--sizes 32 224] [--out FILE]

The ways:
    ours       the plain PyTorch form of group_sums.
    einsum     one torch.einsum over gradients, Δ and masks, which are all floating point at once.
    numpy      the products once, then for each group a boolean index and a sum.

On a GPU the Triton kernel comes on top, and the plain form and einsum run there. Its bytes are those of gradients, Δ,
masks and result, each once; `share` is their rate relative to a large copy on the device, which reads and writes. The
inputs rotate through more memory than the second-level cache holds, and a CUDA graph replays the calls, so that neither
the cache nor the time of a launch from Python flatters or hides anything. `call_ms` is one call with its launches.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from evaluation.machine import machine
from imagexplain.attribution.groups.group_sums import group_sums

CHANNELS = 3
COUNTS = (1, 8, 50)
GROUPS = (1, 10, 100, 500)
DTYPES = (torch.float32, torch.bfloat16)

Example = tuple[Tensor, Tensor, Tensor]


def example(count: int, size: int, groups: int) -> Example:
    """Seeded gradients, Δ, and overlapping rectangles of a ninth of the image each on average."""
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(count, CHANNELS, size, size, generator=generator)
    difference = torch.randn(CHANNELS, size, size, generator=generator)
    ends = (torch.rand(groups, 4, generator=generator) * (size + 1)).long()
    top, bottom = ends[:, :2].sort(1).values.view(-1, 2, 1, 1).unbind(1)
    left, right = ends[:, 2:].sort(1).values.view(-1, 2, 1, 1).unbind(1)
    rows, columns = torch.arange(size).view(1, -1, 1), torch.arange(size).view(1, 1, -1)
    return gradients, difference, (top <= rows) & (rows < bottom) & (left <= columns) & (columns < right)


def by_einsum(gradients: Tensor, difference: Tensor, masks: Tensor) -> Tensor:
    """The sums by one einsum over everything at once."""
    return torch.einsum("nchw,chw,ghw->ng", gradients, difference, masks.to(gradients.dtype))


def by_numpy(gradients: Tensor, difference: Tensor, masks: Tensor) -> Tensor:
    """The sums by NumPy, group by group."""
    products = gradients.numpy() * difference.numpy()
    return torch.stack([torch.from_numpy(products[:, :, mask].sum((1, 2))) for mask in masks.numpy()], dim=1)


def milliseconds(call: Callable[[], object], budget: float = 1.0) -> float:
    """Median over at least three calls after a first, and more within a budget of seconds."""
    call()
    times: list[float] = []
    while len(times) < 3 or (sum(times) < budget and len(times) < 50):
        started = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)


def on_cpu(count: int, size: int, groups: int) -> dict[str, object]:
    """Times of the three ways in float32, and how far ours is from float64."""
    given = example(count, size, groups)
    gradients, difference, masks = given
    wanted = group_sums(gradients.double(), difference.double(), masks)
    scale = group_sums(gradients.double().abs(), difference.double().abs(), masks).clamp_min(1e-30)
    ways: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]]
    ways = {"ours": group_sums, "einsum": by_einsum, "numpy": by_numpy}
    return {
        "size": size,
        "gradients": count,
        "groups": groups,
        "ms": {name: milliseconds(partial(way, *given)) for name, way in ways.items()},
        "error": {name: ((way(*given) - wanted).abs() / scale).max().item() for name, way in ways.items()},
    }


def on_gpu(count: int, size: int, groups: int, dtype: torch.dtype, copy_rate: float) -> dict[str, object]:
    """Times of kernel, plain form and einsum, and the kernel's rate as a share of a copy's."""
    gradients, difference, masks = example(count, size, groups)
    given = (gradients.cuda().to(dtype), difference.cuda().to(dtype), masks.cuda())
    moved = sum(tensor.nbytes for tensor in given) + 4 * count * groups
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    sets = [given, *((*(tensor.clone() for tensor in given),) for _ in range(min(100, 3 * cache // moved)))]
    replay = graph_milliseconds(lambda: [group_sums(*one, backend="triton") for one in sets]) / len(sets)
    return {
        "size": size,
        "gradients": count,
        "groups": groups,
        "dtype": str(dtype),
        "megabytes": moved / 1e6,
        "ms": {
            "triton": replay,
            "triton_call": milliseconds(lambda: group_sums(*given, backend="triton")),
            "torch_call": milliseconds(lambda: group_sums(*given, backend="torch")),
            "einsum_call": milliseconds(lambda: by_einsum(*given)),
        },
        "share": moved / (replay / 1000) / copy_rate,
    }


def graph_milliseconds(call: Callable[[], object], replays: int = 20) -> float:
    """Median time on the device of what a call launches."""
    call()  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    times = []
    for _ in range(replays + 2):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times[2:])


def copy_bytes_per_second(size: int = 2**30) -> float:
    """Bytes read and written by a copy on the device, per second."""
    source = torch.ones(size, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * size / (graph_milliseconds(lambda: target.copy_(source)) / 1000)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[32, 224])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results: dict[str, object] = {"machine": machine()}
    results["cpu"] = [on_cpu(count, size, groups) for size, count, groups in product(options.sizes, COUNTS, GROUPS)]
    if torch.cuda.is_available():
        rate = copy_bytes_per_second()
        results["gpu"] = {
            "device": torch.cuda.get_device_name(),
            "copy_gigabytes_per_second": rate / 1e9,
            "cases": [on_gpu(*case, rate) for case in gpu_cases(options.sizes)],
        }
    text = json.dumps(results, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


def gpu_cases(sizes: list[int]) -> list[tuple[int, int, int, torch.dtype]]:
    """Cases as (gradients, size, groups, dtype)."""
    return [(count, size, groups, dtype) for size, count, groups, dtype in product(sizes, COUNTS, GROUPS, DTYPES)]


if __name__ == "__main__":
    main()
