"""Fine-tune a classifier of timm on a folder of labelled photos, by MAE's recipe, and keep its best epoch.

The folder holds train/<class>/… and val/<class>/…; RUN gets best.pth, last.pth, labels.json, epochs.jsonl, and
archive.yaml, by which the best epoch is served. The same command again goes on where a run was interrupted.

finetune.py photos --out run --weights mae_pretrain_vit_base.pth
torchrun --nproc-per-node 4 scripts/finetune.py photos --out run --weights mae_pretrain_vit_base.pth --precision float16
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from imagexplain.errors import ArgumentError
from imagexplain.models.checkpoints.checkpoint import CheckpointError
from imagexplain.models.classifiers import timm_network
from imagexplain.progress import say
from imagexplain.vision.preprocess_settings import Preprocess
from training.finetuning.config import PRECISIONS, FinetuneConfig
from training.finetuning.image_folder import ImageFolder, Listing, find_faults, list_folder, refuse
from training.finetuning.interruption import STOPPED, until_interrupted
from training.finetuning.pipeline import Augmentation, Pipeline, recipe_preprocess
from training.finetuning.processes import Processes, joined, local_device
from training.finetuning.randomness import private_randomness, seed_all
from training.finetuning.run_folder import BEST, LABELS, NonFiniteError
from training.finetuning.start import Start, starting_network
from training.finetuning.trainer import FinetuneResult, finetune
from training.finetuning.whole_files import write_text

CHECKED = "checked.json"
SPEC = "archive.yaml"


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    usual, augmentation = FinetuneConfig(), Augmentation()
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("photos", type=Path, help="folder with train/<class>/ and val/<class>/")
    made.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of the run")

    network = made.add_argument_group("the network")
    network.add_argument("--model", default="vit_base_patch16_224", help="its name in timm (default: %(default)s)")
    network.add_argument("--arguments", type=json.loads, default={}, metavar="JSON", help="of timm.create_model")
    network.add_argument("--pooling", choices=("token", "avg"), help="feature of a ViT (default: timm's)")
    network.add_argument("--weights", type=Path, metavar="FILE", help="a checkpoint, with or without its classifier")
    network.add_argument("--drop-path", type=float, default=0.1, help="stochastic depth (default: %(default)s)")

    images = made.add_argument_group("the photos")
    images.add_argument(
        "--more", type=Path, action="append", default=[], metavar="DIR", help="folder <class>/ of more to train on"
    )
    images.add_argument("--size", type=int, help="height and width of the input (default: the model's)")
    images.add_argument(
        "--preprocess",
        choices=("imagenet", "timm"),
        default="imagenet",
        help="mean, standard deviation and crop: of the recipe, or those that timm has for the model",
    )
    images.add_argument("--policy", default=augmentation.policy, help="augmentation (default: %(default)s)")
    images.add_argument("--erasing", type=float, default=augmentation.erasing, help="(default: %(default)s)")
    images.add_argument("--no-augmentation", action="store_true", help="train on photos as the service sees them")
    images.add_argument("--skip-faulty", action="store_true", help="leave out, and name, photos that cannot be read")
    images.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="(default: cores)")

    recipe = made.add_argument_group("the recipe")
    recipe.add_argument("--epochs", type=int, default=usual.epochs, help="(default: %(default)s)")
    recipe.add_argument("--warmup-epochs", type=float, default=usual.warmup_epochs, help="(default: %(default)s)")
    recipe.add_argument("--batch", type=int, default=usual.batch, help="photos at once (default: %(default)s)")
    recipe.add_argument(
        "--accumulation", type=int, default=usual.accumulation, help="batches to an update (default: %(default)s)"
    )
    recipe.add_argument(
        "--base-rate", type=float, default=usual.base_rate, help="for 256 photos to an update (default: %(default)s)"
    )
    recipe.add_argument("--rate", type=float, help="learning rate itself, for any number of photos")
    recipe.add_argument("--min-rate", type=float, default=usual.min_rate, help="(default: %(default)s)")
    recipe.add_argument("--layer-decay", type=float, default=usual.layer_decay, help="(default: %(default)s)")
    recipe.add_argument("--weight-decay", type=float, default=usual.weight_decay, help="(default: %(default)s)")
    recipe.add_argument("--clip", type=float, help="norm of the gradient (default: no clipping)")
    recipe.add_argument("--mixup", type=float, default=usual.mixup, help="(default: %(default)s)")
    recipe.add_argument("--cutmix", type=float, default=usual.cutmix, help="(default: %(default)s)")
    recipe.add_argument("--smoothing", type=float, default=usual.smoothing, help="of labels (default: %(default)s)")
    recipe.add_argument("--precision", choices=PRECISIONS, default=usual.precision, help="(default: %(default)s)")
    recipe.add_argument("--seed", type=int, default=usual.seed, help="(default: %(default)s)")
    recipe.add_argument("--save-every", type=int, default=0, metavar="STEPS", help="(default: at ends of epochs)")
    return made


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    given = parser(prog).parse_args(arguments)
    try:
        config = _config(given)
        device = local_device()
        with joined(device) as processes, until_interrupted() as stop:
            result = _run(given, config, device, processes, stop)
            if processes.is_first:
                _tell(result, given.out)
    except (ValueError, CheckpointError, NonFiniteError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0 if result.finished else STOPPED


def _config(given: argparse.Namespace) -> FinetuneConfig:
    return FinetuneConfig(
        epochs=given.epochs,
        warmup_epochs=given.warmup_epochs,
        batch=given.batch,
        accumulation=given.accumulation,
        base_rate=given.base_rate,
        rate=given.rate,
        min_rate=given.min_rate,
        layer_decay=given.layer_decay,
        weight_decay=given.weight_decay,
        clip=given.clip,
        mixup=given.mixup,
        cutmix=given.cutmix,
        smoothing=given.smoothing,
        precision=given.precision,
        seed=given.seed,
    )


def _run(
    given: argparse.Namespace,
    config: FinetuneConfig,
    device: torch.device,
    processes: Processes,
    stop: Callable[[], bool],
) -> FinetuneResult:
    listed = processes.from_first(lambda: _photos(given))
    model, values = _model(given)
    preprocess = _preprocess(given, model, values)
    with private_randomness():
        seed_all(config.seed, "start")
        start = starting_network(model, values, len(listed[0].classes), given.weights, given.drop_path)
    if processes.is_first:
        _tell_start(start, listed, given.weights)
    augmentation = None if given.no_augmentation else Augmentation(given.policy, given.erasing)
    train, val = (
        ImageFolder(listing, Pipeline(preprocess, augmented), given.workers)
        for listing, augmented in zip(listed, (augmentation, None), strict=True)
    )
    result = finetune(
        start.network.to(device),
        train,
        val,
        config,
        given.out,
        save_every=given.save_every,
        processes=processes,
        stop=stop,
    )
    if processes.is_first:
        _write_spec(given.out, model, values, preprocess)
    return result


def _photos(given: argparse.Namespace) -> tuple[Listing, Listing]:
    """The photos to train on and to validate on, all of which can be read."""
    train = list_folder(given.photos / "train")
    val = list_folder(given.photos / "val", train.classes)
    train = train.joined([list_folder(folder, train.classes, some=True) for folder in given.more])
    both = {photo.file.resolve() for photo in train.photos} & {photo.file.resolve() for photo in val.photos}
    if both:
        raise ArgumentError("val", f"wanted other photos than those to train on, got {len(both)}, such as {min(both)}")
    faults = find_faults((train, val), given.out / CHECKED, workers=given.workers)
    if not given.skip_faulty:
        refuse(faults)
    for file, reason in faults.items():
        say(f"left out: {file}: {reason}")
    if faults:
        say(f"{len(faults)} of {len(train.photos) + len(val.photos)} photos left out")
    return train.without(faults), val.without(faults)


def _model(given: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    if not isinstance(given.arguments, dict):
        raise ArgumentError("arguments", f"wanted a JSON object, got {given.arguments}")
    if given.size and given.arguments.get("img_size", given.size) != given.size:
        raise ArgumentError(
            "size", f"wanted the img_size of the arguments, {given.arguments['img_size']}, got {given.size}"
        )
    pooling = {"global_pool": given.pooling} if given.pooling else {}
    size = {"img_size": given.size} if given.size and "img_size" not in given.arguments else {}
    model = given.model.removeprefix("timm/")
    try:
        with torch.device("meta"):
            timm_network.create(model, {**size, **pooling, **given.arguments})
    except ArgumentError:
        size = {}  # a network that takes photos of any size
    return model, {**size, **pooling, **given.arguments}


def _preprocess(given: argparse.Namespace, model: str, arguments: Mapping[str, Any]) -> Preprocess:
    of_timm = Preprocess(**timm_network.preprocess(model, arguments))
    size = (given.size, given.size) if given.size else of_timm.size
    return recipe_preprocess(size) if given.preprocess == "imagenet" else of_timm.at_size(size)


def _write_spec(out: Path, model: str, arguments: Mapping[str, Any], preprocess: Preprocess) -> None:
    """Write the archive spec of the best epoch, beside it."""
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in preprocess.stated().items()}
    name = re.sub(r"[^A-Za-z0-9_.-]", "", out.resolve().name).lstrip("_.-")
    spec = {
        "name": name or "finetuned",
        "handler": "classifier",
        "architecture": f"timm/{model}",
        **({"arguments": dict(arguments)} if arguments else {}),
        "weights": BEST,
        "labels": LABELS,
        "preprocess": values,
    }
    write_text(out / SPEC, yaml.safe_dump(spec, sort_keys=False, allow_unicode=True))


def _tell_start(start: Start, listed: tuple[Listing, Listing], weights: Path | None) -> None:
    train, val = listed
    counts = f"{len(train.photos)} photos to train on, {len(val.photos)} to validate on"
    say(f"{counts}, {len(train.classes)} classes")
    if weights is None:
        say("begins with random weights")
        return
    say(f"begins with {weights}" + (f"; new: {', '.join(start.new)}" if start.new else ""))
    if start.unused:
        say(f"not used of it: {', '.join(start.unused)}")


def _tell(result: FinetuneResult, out: Path) -> None:
    if not result.finished:
        say(f"interrupted; {result.last} has all up to here: the same command goes on")
        return
    best = result.best_epoch
    width = max(map(len, best.per_class))
    say("\n".join(f"  {name:{width}}  {accuracy:7.2%}" for name, accuracy in best.per_class.items()))
    say(f"best: epoch {best.epoch}, accuracy {best.accuracy:.2%} on val: {result.best}")
    say(f"to serve it: python scripts/build_archives.py {out / SPEC}")
