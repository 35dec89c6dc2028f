"""What a table of groups costs, against Captum's ways to score the segments of one image.

Each model explains one held-out scene from its default baseline, on segments of a partition (pixels dealt out in blocks
of rows, so that any number of groups is possible). The ways:

    plain         integrated gradients alone, our pass.
    table         the same pass and the full table: every column, and the disjoint parts.
    captum_numpy  Captum's IntegratedGradients with its convergence delta, then np.add.at over the segments.
    ablation      Captum's FeatureAblation on the same segments.
    kernel_shap   Captum's KernelShap on the same segments, with as many samples as our path has points.

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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from captum.attr import FeatureAblation, IntegratedGradients, KernelShap
from PIL import Image
from torch import Tensor

from benchmarks.bench_explanation import machine
from handlers import served_model
from handlers.attribution.directional import group_scores
from handlers.attribution.groups import family
from handlers.attribution.path import PathIntegral, integrate, relative_to
from handlers.attribution.quadrature import Quadrature, quadrature
from handlers.served_model import ServedModel
from handlers.wire.geometry import apply
from scripts.build_archives import ROOT, build_all
from training.scenes import SceneSettings, scene

STEPS = 50
GRADIENT = 3
"""Forward passes that a gradient counts as."""


def partition(groups: int, size: tuple[int, int]) -> Tensor:
    """(H, W) int64: pixels in reading order, cut into so many runs of nearly equal length."""
    count = size[0] * size[1]
    return (torch.arange(count) * groups // count).view(size)


def scene_input(model: ServedModel, index: int = 0) -> Tensor:
    """A scene of the training distribution, as the model's input (1, 3, H, W)."""
    picture = scene(1, index, SceneSettings(size=(96, 96))).image
    return apply(Image.fromarray(picture), model.preprocess)[0].unsqueeze(0)


def path(model: ServedModel, x: Tensor, start: Tensor, target: int, rule: Quadrature) -> PathIntegral:
    """Our pass."""
    return integrate(model.network, x, start, torch.tensor([target]), [rule], chunk=model.chunk)[0]


def table(integral: PathIntegral, labels: Tensor, groups: int) -> Tensor:
    """(G,) attributions, after everything an answer says of groups has been computed, the masks' family included."""
    masks = labels == torch.arange(groups).view(-1, 1, 1)
    groups_of = family(masks, [str(index) for index in range(groups)])
    scores = group_scores(integral.attribution, integral.difference, groups_of)
    groups_of.parts.sums(integral.attribution)
    return scores.attribution[:groups]


def bench(model: ServedModel, groups: int, rounds: int) -> dict[str, Any]:
    """All ways on one number of groups; seconds are medians, ratios are taken within a round."""
    x = scene_input(model)
    start = model.preprocess.grey(0.0).unsqueeze(0)
    with torch.no_grad():
        target = int(model.network(x).argmax())
    labels = partition(groups, model.preprocess.size)
    rule = quadrature("gauss_legendre", STEPS)
    feature_mask = labels.expand(1, 3, -1, -1)

    def captum_numpy() -> Tensor:
        attribution, _ = IntegratedGradients(model.network).attribute(
            x, start, target=target, n_steps=STEPS, internal_batch_size=model.chunk, return_convergence_delta=True
        )
        sums = np.zeros(groups)
        np.add.at(sums, labels.numpy(), attribution[0].sum(0).numpy())
        return torch.from_numpy(sums)

    def per_group(attribution: Tensor) -> Tensor:
        first = [int((labels.flatten() == group).nonzero()[0]) for group in range(groups)]
        return attribution[0, 0].flatten()[first].double()

    ways: dict[str, tuple[Callable[[], Any], int]] = {
        "plain": (lambda: path(model, x, start, target, rule), GRADIENT * STEPS + 2),
        "table": (lambda: table(path(model, x, start, target, rule), labels, groups), GRADIENT * STEPS + 2),
        "captum_numpy": (captum_numpy, GRADIENT * STEPS + 2),
        "ablation": (
            lambda: per_group(
                FeatureAblation(model.network).attribute(
                    x, start, target=target, feature_mask=feature_mask, perturbations_per_eval=min(model.chunk, groups)
                )
            ),
            groups + 1,
        ),
        "kernel_shap": (
            lambda: per_group(
                KernelShap(model.network).attribute(
                    x, start, target=target, feature_mask=feature_mask, n_samples=GRADIENT * STEPS
                )
            ),
            GRADIENT * STEPS,
        ),
    }
    if groups == 1:
        del ways["kernel_shap"]  # which needs two
    reference = path(model, x, start, target, quadrature("midpoint", 2000))
    exact = table(reference, labels, groups)
    scale = relative_to(reference.score - reference.baseline_score, exact)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    errors: dict[str, float] = {}
    for number in range(rounds + 1):
        for way, (work, _) in ways.items():
            started = time.perf_counter()
            found = work()
            if number:  # the first round warms up
                seconds[way].append(time.perf_counter() - started)
            if way != "plain":
                errors[way] = ((found - exact).abs().max() / scale).item()
    return {
        "groups": groups,
        "seconds": {way: statistics.median(values) for way, values in seconds.items()},
        "evaluations": {way: count for way, (_, count) in ways.items()},
        "error": errors,
        "table / plain": statistics.median(a / b for a, b in zip(seconds["table"], seconds["plain"], strict=True)),
        "captum_numpy / table": statistics.median(
            a / b for a, b in zip(seconds["captum_numpy"], seconds["table"], strict=True)
        ),
    }


def loaded(name: str) -> ServedModel:
    """A demonstration model as a worker holds it."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        build_all(sorted((ROOT / "archive_specs").glob("*.yaml")), store, environ={})
        with zipfile.ZipFile(store / f"{name}.mar") as archive:
            archive.extractall(store / name)
        return served_model.load(store / name, torch.device("cpu"))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["bit", "lanet"])
    parser.add_argument("--groups", nargs="+", type=int, default=[1, 10, 100, 500])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results: dict[str, Any] = {"machine": machine(), "steps": STEPS, "models": {}}
    for name in options.models:
        model = loaded(name)
        results["models"][name] = [bench(model, groups, options.rounds) for groups in options.groups]
        for row in results["models"][name]:
            print(name, json.dumps(row), flush=True)
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
