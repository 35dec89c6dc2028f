"""The loop on scenes with a planted shortcut: which images, chosen how, teach a model to look at the object?

For each seed a small network learns scenes whose background goes with the class nearly always. Its errors on scenes
like those of the pool are found, what drove them is grouped into concepts, and each strategy chooses as many images of
the pool for each class. The network is then trained on, on its training scenes and the chosen ones, and is tested
where background and class are independent. Beside the strategies stand `none`, the same training without further
images, and `ceiling`, with all images of the pool whose background speaks for another class.

imagexplain debug study --out benchmarks/results_debugging.json
imagexplain debug study --print
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from debugging.concept import KEPT_SHARE, concept_of, concepts_of
from debugging.features import scores_and_features
from debugging.finding import segment_records
from debugging.model import DebuggedModel
from debugging.pool import driver, rivals
from debugging.segment_table import drive, entropy, responsible, score_falls
from debugging.selection import active_scores, best, random_scores, similarity_scores
from evaluation.evaluated_model import EvaluatedModel
from evaluation.machine import machine
from imagexplain.attribution.paths.quadrature import quadrature
from imagexplain.checkout import ROOT
from imagexplain.progress import say
from imagexplain.vision.preprocess_settings import Preprocess
from training.finetuning.config import FinetuneConfig
from training.finetuning.labelled_images import Batch, digest
from training.finetuning.trainer import finetune
from training.scenes import SceneSettings
from training.shortcut_scenes import LABELS, TEXTURES, ShortcutScenes, shortcut_scenes, stacked, with_background

RECORD = ROOT / "benchmarks/results_debugging.json"
NONE, CEILING = "none", "ceiling"
STRATEGIES = ("random", "similarity", "active", "concept", "loss")
PARTS = {"train": 0, "found": 1, "pool": 2, "val": 3, "test": 4}
"""Numbers of the series of scenes of one seed."""

DRIVEN = 300
"""Number of test scenes of which it is asked which segment drives the named class."""

CONTROLS = 200
"""Number of scenes, named rightly against their background, of which it is asked which segment is responsible."""

MEAN, STD = 0.5, 0.25
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class StudySettings:
    """Extent of the study.

    Attributes:
        seeds: Number of wrong models.
        size: Side of a scene in pixels.
        strength: Part of the training scenes whose background is their class's own.
        pool_strength: The same of the pool, and of the scenes on which errors are found.
        train: Number of training scenes.
        found: Number of scenes on which errors are found.
        pool: Number of scenes in the pool.
        test: Number of scenes of the test, where background and class are independent.
        chosen: Number of images that a strategy chooses for each class.
        epochs: Number of epochs of the wrong model.
        more: Number of epochs with the chosen images.
        rate: Highest learning rate of the wrong model; half of it afterwards.
        batch: Number of images for one update.
        strategies: Strategies to compare.
    """

    seeds: int = 5
    size: int = 32
    strength: float = 0.97
    pool_strength: float = 0.8
    train: int = 6000
    found: int = 1200
    pool: int = 3000
    test: int = 2400
    chosen: int = 60
    epochs: int = 16
    more: int = 6
    rate: float = 4e-3
    batch: int = 64
    strategies: tuple[str, ...] = STRATEGIES


QUICK = StudySettings(
    seeds=1, train=256, found=60, pool=120, test=120, chosen=5, epochs=2, more=1, strategies=("random", "concept")
)
"""One seed and two strategies in less than a minute, which shows whether everything runs."""


@dataclass(frozen=True, eq=False)
class Mirrored:
    """Scenes in memory for the fine-tuning, each mirrored or not from one epoch to the next.

    Attributes:
        images: Images (N, 3, H, W), as the network takes them.
        labels: Labels (N,).
    """

    images: Tensor
    labels: Tensor

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return LABELS

    def batches(self, order: Sequence[Tensor], seed: int) -> Iterator[Batch]:
        """Yield images, mirrored by chance, and labels by their numbers."""
        mirrored = torch.rand(len(self.labels), generator=torch.Generator().manual_seed(seed)) < 0.5
        for numbers in order:
            images = self.images[numbers]
            yield torch.where(mirrored[numbers][:, None, None, None], images.flip(3), images), self.labels[numbers]

    def fingerprint(self) -> str:
        """Digest of all values."""
        return digest([("images", self.images), ("labels", self.labels)])


@dataclass(frozen=True, eq=False)
class Looked:
    """Scores and features of scenes, one entry each.

    Attributes:
        scores: Scores (N, classes).
        features: Penultimate features (N, K).
    """

    scores: Tensor
    features: Tensor


def inputs(scenes: ShortcutScenes) -> Tensor:
    """Scenes as the network takes them, (N, 3, H, W)."""
    return (torch.from_numpy(scenes.images).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD


def data(scenes: ShortcutScenes, more: tuple[ShortcutScenes, Numbers] | None = None) -> Mirrored:
    """Training images: the scenes, and of others those with these numbers."""
    images, labels = inputs(scenes), torch.from_numpy(scenes.labels)
    if more is not None:
        others, chosen = more
        images = torch.cat([images, inputs(others)[chosen]])
        labels = torch.cat([labels, torch.from_numpy(others.labels)[chosen]])
    return Mirrored(images.contiguous(memory_format=torch.channels_last), labels)


def untrained(seed: int) -> nn.Module:
    """A ResNet-18 of a quarter of the channels, untrained."""
    torch.manual_seed(seed)
    network: nn.Module = timm.create_model(
        "resnet18", num_classes=len(LABELS), channels=[16, 32, 64, 128], output_stride=16
    )
    return network.to(memory_format=torch.channels_last)


def debugged(network: nn.Module, size: int) -> DebuggedModel:
    """The network as the steps of the loop take it."""
    frozen = network.eval().requires_grad_(False)
    preprocess = Preprocess((size, size), mean=(MEAN,) * 3, std=(STD,) * 3)
    served = EvaluatedModel("shortcut", frozen, preprocess, quadrature("gauss_legendre", 20), "black", chunk=64)
    return DebuggedModel(served, LABELS, "mean")


def trained(
    network: nn.Module, images: Mirrored, val: Mirrored, settings: StudySettings, epochs: int, rate: float, seed: int
) -> nn.Module:
    """The network after so many epochs, those of the last one: what ``val`` holds to be best keeps to the shortcut."""
    config = FinetuneConfig(
        epochs=epochs,
        warmup_epochs=min(1.0, epochs / 4),
        batch=settings.batch,
        accumulation=1,
        rate=rate,
        layer_decay=1.0,
        mixup=0.0,
        cutmix=0.0,
        smoothing=0.05,
        seed=seed,
    )
    with tempfile.TemporaryDirectory() as folder:
        result = finetune(network.requires_grad_(True), images, val, config, Path(folder), progress=False)
        network.load_state_dict(torch.load(result.last, weights_only=True)["model"])
    return network.eval()


# The steps of the loop, on scenes in memory


def looked_at(model: DebuggedModel, scenes: ShortcutScenes) -> Looked:
    """Scores and features of all scenes."""
    return Looked(*scores_and_features(model.network, inputs(scenes), 250))


def segments_of(scenes: ShortcutScenes, index: int) -> tuple[Tensor, tuple[str, ...]]:
    """Masks (S, H, W) of a scene's segments, and their names, as a segmenter would have them."""
    found = torch.from_numpy(scenes.segments[index])
    values = found.unique()
    return found == values[:, None, None], tuple(("background", "object", "distractor")[min(int(v), 2)] for v in values)


def find(model: DebuggedModel, scenes: ShortcutScenes, looked: Looked) -> list[dict[str, Any]]:
    """Errors with their segments, in the form of ``errors.json``."""
    images, named = inputs(scenes), looked.scores.argmax(1).tolist()
    errors = []
    for index, (wrong, right) in enumerate(zip(named, scenes.labels.tolist(), strict=True)):
        if wrong == right:
            continue
        masks, labels = segments_of(scenes, index)
        table = model.table(images[index], masks, labels, (wrong, right))
        segments, chosen = segment_records(table), responsible(table)
        features = model.segment_features(images[index], table.masks[chosen]) if chosen else torch.zeros(0)
        for rank, (place, feature) in enumerate(zip(chosen, features, strict=True), 1):
            segments[place] |= {"rank": rank, "feature": feature.tolist(), "crop": ""}
        errors.append(
            {
                "image": str(index),
                "truth": LABELS[right],
                "named": LABELS[wrong],
                "confidence": looked.scores[index].softmax(0)[wrong].item(),
                "feature": looked.features[index].tolist(),
                "segments": segments,
                "of_background": int(scenes.textures[index]) == wrong,
            }
        )
    return errors


def caused_by_background(model: DebuggedModel, series: int, look: SceneSettings, error: Mapping[str, Any]) -> bool:
    """Tell whether the background causes an error of :func:`find` on a scene of the series.

    The background is the named class's own, and of the same scene with each background of neither class the model
    names that class in fewer than half. The right class's own is left out, for it would add what speaks for that.
    """
    if not error["of_background"]:
        return False
    named, right = LABELS.index(error["named"]), LABELS.index(error["truth"])  # numbers of their textures, too
    others = [other for other in range(len(TEXTURES)) if other not in (named, right)]
    scenes = stacked([with_background(series, int(error["image"]), other, look) for other in others])
    return int((looked_at(model, scenes).scores.argmax(1) == named).sum()) < len(others) / 2


def controls(model: DebuggedModel, scenes: ShortcutScenes, looked: Looked) -> list[str | None]:
    """Labels of the segments that come first where the background speaks against the answer; None where none does.

    Asked of the first :data:`CONTROLS` scenes that are named rightly although their background is another class's. The
    named class stands where an error's wrong one does, and its strongest rival where the right one does.
    """
    images, named = inputs(scenes), looked.scores.argmax(1).numpy()
    found = []
    for index in np.flatnonzero((named == scenes.labels) & scenes.conflicting)[:CONTROLS].tolist():
        rival, right = rivals(looked.scores[index], int(scenes.labels[index]))
        table = model.table(images[index], *segments_of(scenes, index), (right, rival))
        found.append(next((table.labels[place] for place in responsible(table)), None))
    return found


def kept_concepts(errors: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    """Concepts of a class's errors that are kept where nobody edits the file, by the segments' labels."""
    found = concepts_of([error for error in errors if error["truth"] == name], by_label=True)
    return [
        {"label": concept.label, "centre": None, "share": found.share(concept)}
        for concept in found.concepts
        if found.share(concept) >= KEPT_SHARE
    ]


def concept_scores(
    model: DebuggedModel, pool: ShortcutScenes, own: Numbers, looked: Looked, concepts: Sequence[Mapping[str, Any]]
) -> NDArray[np.float64]:
    """Scores (n,) of a class's pool images by the strategy ``concept``; NaN where no kept concept drives the image."""
    images, scores = inputs(pool), np.full(len(own), np.nan)
    for place, index in enumerate(own.tolist()):
        masks, labels = segments_of(pool, index)
        start = model.start(images[index])
        falls = score_falls(model.network, images[index], start, masks, 64)
        rival, right = rivals(looked.scores[index], int(pool.labels[index]))
        segment, margin = driver(falls, masks, rival, right)
        feature = np.zeros(1)  # which labels do not need
        if concept_of(labels[segment], feature, concepts) is not None:
            scores[place] = margin
    return scores


def choose(
    strategy: str,
    model: DebuggedModel,
    pool: ShortcutScenes,
    looked: Looked,
    errors: Sequence[Mapping[str, Any]],
    count: int,
    seed: int,
) -> Numbers:
    """Numbers of the pool's images that a strategy chooses, at most ``count`` of each class."""
    chosen = []
    for label, name in enumerate(LABELS):
        own = np.flatnonzero(pool.labels == label)
        features = looked.features[own].double().numpy()
        wrong = [error["feature"] for error in errors if error["truth"] == name]
        if strategy == CEILING:
            chosen.append(own[pool.conflicting[own]])
            continue
        if strategy in ("similarity", "active") and not wrong:
            continue
        mean = np.mean(wrong, axis=0) if wrong else np.zeros(features.shape[1])
        if strategy == "random":
            scores = random_scores(len(own), seed, name)
        elif strategy == "similarity":
            scores = similarity_scores(features, mean)
        elif strategy == "active":
            scores = active_scores(entropy(looked.scores[own]).numpy(), features, mean).score
        elif strategy == "concept":
            scores = concept_scores(model, pool, own, looked, kept_concepts(errors, name))
        else:
            scores = -looked.scores[own].double().log_softmax(1)[:, label].numpy()
        chosen.append(own[best(scores, count)])
    return np.concatenate(chosen) if chosen else np.zeros(0, dtype=np.int64)


def test_scores(model: DebuggedModel, test: ShortcutScenes) -> dict[str, float]:
    """Accuracy on the test, where background and class agree and where not, and where the named class comes from.

    ``background`` is the part of the first :data:`DRIVEN` scenes whose background drives the named class, relative to
    its size, more than any other segment; ``texture`` the part of the conflicting ones that get the background's class.
    """
    looked = looked_at(model, test)
    named, conflicting = looked.scores.argmax(1).numpy(), test.conflicting
    right = named == test.labels
    driven, images = [], inputs(test)
    for index in range(min(DRIVEN, len(right))):
        masks, labels = segments_of(test, index)
        falls = score_falls(model.network, images[index], model.start(images[index]), masks, 64)[:, named[index]]
        shares = masks.flatten(1).double().mean(1)
        driven.append(labels[int(drive(falls, shares).argmax())] == "background")
    return {
        "accuracy": float(right.mean()),
        "aligned": float(right[~conflicting].mean()),
        "conflicting": float(right[conflicting].mean()),
        "texture": float((named == test.textures)[conflicting].mean()),
        "background": float(np.mean(driven)),
    }


def one_seed(settings: StudySettings, seed: int) -> dict[str, Any]:
    """The whole loop with one wrong model."""
    torch.set_num_threads(1)
    begin = time.perf_counter()
    look = SceneSettings(size=(settings.size, settings.size))

    series = {part: 1_000 * (seed + 1) + number for part, number in PARTS.items()}

    def drawn(part: str, count: int, strength: float) -> ShortcutScenes:
        return shortcut_scenes(series[part], count, strength, look)

    train = drawn("train", settings.train, settings.strength)
    found = drawn("found", settings.found, settings.pool_strength)
    pool = drawn("pool", settings.pool, settings.pool_strength)
    test = drawn("test", settings.test, 1 / len(TEXTURES))
    val = data(drawn("val", max(60, settings.test // 10), settings.strength))
    network = trained(untrained(seed), data(train), val, settings, settings.epochs, settings.rate, seed)
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    wrong = debugged(network, settings.size)
    seen, looked = looked_at(wrong, found), looked_at(wrong, pool)
    errors, right = find(wrong, found, seen), controls(wrong, found, seen)
    caused = [error for error in errors if caused_by_background(wrong, series["found"], look, error)]
    culprits = [next((s["label"] for s in error["segments"] if s["rank"] == 1), None) for error in caused]
    first = {
        name: kept[0]["label"] if (kept := sorted(kept_concepts(errors, name), key=lambda one: -one["share"])) else None
        for name in LABELS
    }
    results: dict[str, Any] = {
        "wrong": test_scores(wrong, test),
        "errors": len(errors),
        "of_background": sum(error["of_background"] for error in errors),
        "caused": len(caused),
        "culprit": _part([culprit == "background" for culprit in culprits]),
        "controls": len(right),
        "control_culprit": _part([label == "background" for label in right]),
        "first_concepts": first,
        "named_by_concepts": _part([first[error["truth"]] == "background" for error in caused]),
        "conflicting_in_pool": float(pool.conflicting.mean()),
        "strategies": {},
    }
    for strategy in (NONE, *settings.strategies, CEILING):
        chosen = None
        if strategy != NONE:
            chosen = choose(strategy, wrong, pool, looked, errors, settings.chosen, seed)
        again = untrained(seed)
        again.load_state_dict(weights)
        images = data(train, None if chosen is None else (pool, chosen))
        again = trained(again, images, val, settings, settings.more, settings.rate / 2, seed + 100)
        results["strategies"][strategy] = {
            **test_scores(debugged(again, settings.size), test),
            "images": 0 if chosen is None else len(chosen),
            "found": math.nan if chosen is None or not len(chosen) else float(pool.conflicting[chosen].mean()),
        }
    results["minutes"] = round((time.perf_counter() - begin) / 60, 2)
    return results


def _part(flags: Sequence[bool]) -> float:
    return statistics.fmean(flags) if flags else math.nan


def study(settings: StudySettings, workers: int = 1) -> dict[str, Any]:
    """The study of all seeds, as the JSON file holds it.

    Args:
        settings: Extent of the study.
        workers: Number of processes.
    """
    seeds = range(settings.seeds)
    if workers == 1:
        results = [one_seed(settings, seed) for seed in seeds]
    else:
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            results = list(pool.map(one_seed, [settings] * len(seeds), seeds))
    return {"settings": asdict(settings), "machine": machine(), "seeds": results}


# Tables

T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""97.5 % quantiles of Student's t by degrees of freedom."""


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half of its 95 % interval by Student's t; NaN of one value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, math.nan
    return mean, T_95[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))


def markdown(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the tables."""
    seeds, settings = results["seeds"], results["settings"]

    def mean(field: str) -> float:
        return statistics.fmean(each[field] for each in seeds)

    yield (
        f"{len(seeds)} wrong models of {settings['train']:,} scenes of {settings['size']}×{settings['size']} pixels, "
        f"whose background goes with the class in {settings['strength']:.0%}; a pool of {settings['pool']:,} scenes, "
        f"in {settings['pool_strength']:.0%}; {settings['chosen']} images for each of {len(LABELS)} classes; a test of "
        f"{settings['test']:,} scenes, where they are independent."
    )
    yield ""
    yield (
        f"Of {mean('errors'):.0f} errors a model, {mean('of_background'):.0f} have the background's class, and the "
        f"background causes {mean('caused'):.0f}: with most backgrounds of neither class the answer is another. "
        f"`find` names it first for {mean('culprit'):.1%} of these, `concepts` for {mean('named_by_concepts'):.1%}. "
        f"The control: of {mean('controls'):.0f} scenes a model that are named rightly against their background, it is "
        f"first in {mean('control_culprit'):.1%}."
    )
    yield ""
    yield "± half the 95 % interval over the seeds; differences are of the same seed's models."
    yield ""
    yield (
        "| debug set | images | of them conflicting | test accuracy | above `random` | background agrees | background "
        "conflicts | background drives |"
    )
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    rows = {"(wrong model)": [each["wrong"] for each in seeds]}
    rows |= {name: [each["strategies"][name] for each in seeds] for name in seeds[0]["strategies"]}
    random = rows.get("random")
    for name, own in rows.items():
        cells = [
            f"{statistics.fmean(one['images'] for one in own):.0f}" if "images" in own[0] else "",
            f"{statistics.fmean(one['found'] for one in own):.2f}" if own[0].get("images") else "",
            _with_interval([one["accuracy"] for one in own]),
            ""
            if random is None or name == "random"
            else _with_interval(
                [one["accuracy"] - other["accuracy"] for one, other in zip(own, random, strict=True)], "+"
            ),
            *(
                f"{statistics.fmean(one[field] for one in own):.3f}"
                for field in ("aligned", "conflicting", "background")
            ),
        ]
        yield f"| {name} | " + " | ".join(cells) + " |"


def _with_interval(values: Sequence[float], sign: str = "") -> str:
    mean, half = interval(values)
    return f"{mean:{sign}.3f}" + ("" if math.isnan(half) else f" ± {half:.3f}")


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    usual = StudySettings()
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--seeds", type=int, default=usual.seeds, help=f"wrong models (default: {usual.seeds})")
    made.add_argument("--strength", type=float, default=usual.strength, help=f"(default: {usual.strength})")
    made.add_argument(
        "--chosen", type=int, default=usual.chosen, help=f"images of each class (default: {usual.chosen})"
    )
    made.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    made.add_argument("--quick", action="store_true", help="less than a minute's work that shows whether it runs")
    made.add_argument("--out", type=Path, default=RECORD, help="JSON file to write")
    made.add_argument("--print", action="store_true", help="only print the tables of that file")
    return made


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    given = parser(prog).parse_args(arguments)
    if not given.print:
        settings = StudySettings(seeds=given.seeds, strength=given.strength, chosen=given.chosen)
        results = study(QUICK if given.quick else settings, 1 if given.quick else given.workers)
        given.out.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    if not given.out.exists():
        print(f"error: out: wanted a file of results, got none at {given.out}", file=sys.stderr)
        return 1
    say("\n".join(markdown(json.loads(given.out.read_text("utf-8")))))
    return 0
