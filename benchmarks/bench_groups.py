"""The cost of a table of groups, against Captum's ways to score the segments of one image.

Each model explains one image on segments of a partition (pixels dealt out in blocks of rows, so that any number of
groups is possible): the demonstration models a held-out scene, R50x1 at full size, with seeded weights, a random image.
The ways:

    plain         integrated gradients alone, our pass.
    table         the same pass and the full table: every column, and the disjoint parts.
    captum_numpy  Captum's IntegratedGradients with its convergence delta, then np.add.at over the segments.
    ablation      Captum's FeatureAblation on the same segments.
    kernel_shap   Captum's KernelShap on the same segments, with as many samples as our path has points.

"table / plain" sets the whole of "table" against the pass in that same call, so that a machine whose speed drifts does
no harm to a difference of a few percent.

Evaluations count forward passes of one image; a gradient counts as three of them. Errors of the attributions are the
largest over the groups against 2,000 midpoints, relative to the larger of |f(x) − f(b)| and Σ|ig_S|. Ablation and
KernelShap estimate another quantity, so that theirs say how far the quantities are apart, not how good they are.

    python -m benchmarks.bench_groups [--groups 1 10 100 500] [--rounds 5] [--out benchmarks/results_groups.json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captum.attr import FeatureAblation, IntegratedGradients, KernelShap
from PIL import Image
from torch import Tensor, nn

from benchmarks.bench_explanation import image, seeded
from evaluation.machine import machine
from imagexplain.archive.build import ROOT, build_all
from imagexplain.attribution.groups.directional import group_scores
from imagexplain.attribution.groups.families import family
from imagexplain.attribution.paths.path_integral import PathIntegral, integrate, relative_to
from imagexplain.attribution.paths.quadrature import Quadrature, quadrature
from imagexplain.models.optimize.folding import fold
from imagexplain.models.optimize.specialised_convolutions import specialise
from imagexplain.serving import served_model
from imagexplain.serving.allocator import keep_freed_memory
from imagexplain.serving.chunk_size import chunk_size
from imagexplain.vision.preprocess import apply
from training.scenes import SceneSettings, scene
from training.train_classifier import HELD_OUT_SEED

STEPS = 50
GRADIENT = 3
"""Number of forward passes that a gradient counts as."""

PAUSE = 0.2
"""Seconds before each way: after a linear regression OpenBLAS's threads spin for a while, in the next one's time."""


def partition(groups: int, size: tuple[int, int]) -> Tensor:
    """(H, W) int64: pixels in reading order, cut into so many runs of nearly equal length."""
    count = size[0] * size[1]
    return (torch.arange(count) * groups // count).view(size)


@dataclass(frozen=True)
class BenchedModel:
    """A model, and the image that it explains.

    Attributes:
        network: Network as served.
        x, start: (1, 3, H, W) input and baseline.
        chunk: Number of path points evaluated at once.
    """

    network: nn.Module
    x: Tensor
    start: Tensor
    chunk: int

    def run(self, target: int, rule: Quadrature) -> PathIntegral:
        """Our pass."""
        targets = torch.tensor([target])
        return integrate(self.network, self.x, self.start, targets, [rule], chunk=self.chunk)[0]


def demonstration(name: str) -> BenchedModel:
    """A demonstration model as a worker holds it, and a held-out scene."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        build_all([ROOT / "archive_specs" / f"{name}.yaml"], store, environ={})
        with zipfile.ZipFile(store / f"{name}.mar") as archive:
            archive.extractall(store / name)
        model = served_model.load(store / name, torch.device("cpu"))
    picture = scene(HELD_OUT_SEED, 0, SceneSettings(size=(96, 96))).image
    x, _ = apply(Image.fromarray(picture), model.preprocess)
    return BenchedModel(model.network, x.unsqueeze(0), model.preprocess.grey(0.0).unsqueeze(0), model.chunk)


def full_size(name: str) -> BenchedModel:
    """A model at full size with seeded weights, folded and specialised."""
    x = image()
    network = specialise(fold(seeded(name)), x)
    return BenchedModel(network, x, torch.zeros_like(x), chunk_size(network, x))


def table(integral: PathIntegral, labels: Tensor, groups: int) -> Tensor:
    """(G,) attributions, after everything an answer says of groups has been computed, the masks' family included."""
    masks = labels == torch.arange(groups).view(-1, 1, 1)
    groups_of = family(masks, [str(index) for index in range(groups)])
    scores = group_scores(integral.attribution, integral.difference, groups_of)
    groups_of.parts.sums(integral.attribution)
    return scores.attribution[:groups]


def bench(benched: BenchedModel, counts: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """All ways on each number of groups."""
    with torch.no_grad():
        target = int(benched.network(benched.x).argmax())
    reference = benched.run(target, quadrature("midpoint", 2000))
    return [_bench(benched, target, reference, groups, rounds) for groups in counts]


def _bench(benched: BenchedModel, target: int, reference: PathIntegral, groups: int, rounds: int) -> dict[str, Any]:
    """All ways on one number of groups: medians of seconds, and ratios taken within a round."""
    network, x, start, chunk = benched.network, benched.x, benched.start, benched.chunk
    height, width = x.shape[-2:]
    labels = partition(groups, (height, width))
    rule = quadrature("gauss_legendre", STEPS)
    feature_mask = labels.expand(1, 3, -1, -1)
    of_table: list[float] = []

    def ours() -> Tensor:
        integral = benched.run(target, rule)
        started = time.perf_counter()
        found = table(integral, labels, groups)
        of_table.append(time.perf_counter() - started)
        return found

    def captum_numpy() -> Tensor:
        attribution, _ = IntegratedGradients(network).attribute(
            x, start, target=target, n_steps=STEPS, internal_batch_size=chunk, return_convergence_delta=True
        )
        sums = np.zeros(groups)
        np.add.at(sums, labels.numpy(), attribution[0].sum(0).numpy())
        return torch.from_numpy(sums)

    def per_group(attribution: Tensor) -> Tensor:
        first = [int((labels.flatten() == group).nonzero()[0]) for group in range(groups)]
        return attribution[0, 0].flatten()[first].double()

    def ablation() -> Tensor:
        per_evaluation = min(chunk, groups)
        return per_group(
            FeatureAblation(network).attribute(
                x, start, target=target, feature_mask=feature_mask, perturbations_per_eval=per_evaluation
            )
        )

    def kernel_shap() -> Tensor:
        return per_group(
            KernelShap(network).attribute(
                x, start, target=target, feature_mask=feature_mask, n_samples=GRADIENT * STEPS
            )
        )

    ways: dict[str, tuple[Callable[[], Any], int]] = {
        "plain": (lambda: benched.run(target, rule), GRADIENT * STEPS + 2),
        "table": (ours, GRADIENT * STEPS + 2),
        "captum_numpy": (captum_numpy, GRADIENT * STEPS + 2),
        "ablation": (ablation, groups + 1),
        "kernel_shap": (kernel_shap, GRADIENT * STEPS),
    }
    if groups == 1:
        del ways["kernel_shap"]  # which needs two
    exact = table(reference, labels, groups)
    scale = relative_to(reference.score - reference.baseline_score, exact)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    errors: dict[str, float] = {}
    for _ in range(rounds + 1):  # the first round warms up
        for way, (work, _) in ways.items():
            time.sleep(PAUSE)
            started = time.perf_counter()
            found = work()
            seconds[way].append(time.perf_counter() - started)
            if way != "plain":
                errors[way] = ((found - exact).abs().max() / scale).item()

    def ratio(above: Sequence[float], below: Sequence[float]) -> float:
        return statistics.median(a / b for a, b in zip(above[1:], below[1:], strict=True))

    passes = [whole - part for whole, part in zip(seconds["table"], of_table, strict=True)]
    return {
        "groups": groups,
        "seconds": {way: statistics.median(values[1:]) for way, values in seconds.items()},
        "evaluations": {way: count for way, (_, count) in ways.items()},
        "error": errors,
        "table_ms": 1000 * statistics.median(of_table[1:]),
        "table / plain": ratio(seconds["table"], passes),
        "captum_numpy / table": ratio(seconds["captum_numpy"], seconds["table"]),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["bit", "lanet", "R50x1"])
    parser.add_argument("--groups", nargs="+", type=int, default=[1, 10, 100, 500])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    keep_freed_memory()
    results: dict[str, Any] = {"machine": machine(), "steps": STEPS, "models": {}}
    for name in options.models:
        benched = demonstration(name) if name in ("bit", "lanet") else full_size(name)
        results["models"][name] = bench(benched, options.groups, options.rounds)
        for row in results["models"][name]:
            print(name, json.dumps(row), flush=True)
        if options.out:
            options.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
