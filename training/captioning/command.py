"""Train a captioner of scene graphs by cross-entropy, and keep the epoch with the best captions.

DATA has the folders annotation and features, in the formats of the captioner's authors, whose recipe is the default.
Without DATA the demonstration's own scenes are drawn, and its recipe is the default. RUN gets best.pth, last.pth,
labels.json (the words), epochs.jsonl, and captioner.th, the best epoch as the authors save theirs. The same command
again goes on where a run was interrupted.

train_captioner.py captions --out run --train trn --val val
train_captioner.py --scenes 6000 --out run
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from imagexplain.checkout import ROOT
from imagexplain.errors import ArgumentError
from imagexplain.models.captioners.captioner import Captioner, Dimensions
from imagexplain.progress import say
from training.captioning import demonstration
from training.captioning.caption_folder import CaptionFolder, SplitItems
from training.captioning.config import CaptionConfig
from training.captioning.sources import Items, SameItems, SceneGraphs, Source, scene_vocabulary
from training.captioning.train import WEIGHTS, CaptionTraining, train_captioner
from training.captioning.train_region_encoder import load_region_encoder
from training.captioning.vocabulary import Vocabulary
from training.finetuning.interruption import STOPPED, until_interrupted
from training.finetuning.randomness import private_randomness, seed_all
from training.finetuning.run_folder import NonFiniteError

REGION_ENCODER = ROOT / "archive_specs" / "weights" / "region_encoder_scenes.safetensors"
HIDDEN, DROPOUT = 512, 0.5
"""Width and dropout of the captioner's authors."""


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    usual = CaptionConfig()
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("data", type=Path, nargs="?", help="folder with annotation/ and features/")
    made.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of the run")

    data = made.add_argument_group("the data")
    data.add_argument("--train", default="trn", help="split to train on (default: %(default)s)")
    data.add_argument("--val", default="val", help="split that chooses the epoch (default: %(default)s)")
    data.add_argument("--global-features", default=CaptionFolder.global_features, help="(default: %(default)s)")
    data.add_argument("--region-features", default=CaptionFolder.region_features, help="(default: %(default)s)")
    data.add_argument("--limit", type=int, help="most nodes of a graph; the authors' is 10 (default: all)")
    data.add_argument("--scenes", type=int, metavar="N", help="train on graphs of so many scenes, in place of DATA")
    data.add_argument("--region-encoder", type=Path, default=REGION_ENCODER, help="of the scenes (default: ours)")
    data.add_argument("--processes", type=int, default=1, help="that draw scenes (default: %(default)s)")

    recipe = made.add_argument_group("the recipe; where nobody says, the authors', or the demonstration's of scenes")
    recipe.add_argument("--hidden", type=int, help=f"width of the network (default: {HIDDEN})")
    recipe.add_argument("--dropout", type=float, help=f"(default: {DROPOUT})")
    recipe.add_argument("--epochs", type=int, help=f"(default: {usual.epochs})")
    recipe.add_argument("--batch", type=int, help=f"(default: {usual.batch})")
    recipe.add_argument("--rate", type=float, help=f"Adam's learning rate (default: {usual.rate:g})")
    recipe.add_argument("--warmup-steps", type=int, help=f"(default: {usual.warmup_steps})")
    recipe.add_argument("--falling", action=argparse.BooleanOptionalAction, help="rate that falls to 0 (default: no)")
    recipe.add_argument("--clip", type=float, help="norm of the gradient (default: no clipping)")
    recipe.add_argument("--bucket", type=int, help="batches that are sorted by length (default: 1)")
    recipe.add_argument("--seed", type=int, help=f"(default: {usual.seed})")
    recipe.add_argument("--save-every", type=int, default=0, metavar="STEPS", help="(default: at ends of epochs)")
    return made


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    given = parser(prog).parse_args(arguments)
    try:
        if (given.data is None) == (given.scenes is None):
            raise ArgumentError("data", "wanted either a folder of data or a number of scenes")
        vocabulary, train, val, model = _of_folder(given) if given.scenes is None else _of_scenes(given)
        say(f"{len(train)} captions to train on, {len(val)} to validate on, {len(vocabulary)} words")
        config = _config(given)
        with until_interrupted() as stop:
            result = train_captioner(
                model, vocabulary, train, val, config, given.out, save_every=given.save_every, stop=stop
            )
    except (ValueError, NonFiniteError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    _tell(result, given.out)
    return 0 if result.finished else STOPPED


def _config(given: argparse.Namespace) -> CaptionConfig:
    base = CaptionConfig() if given.scenes is None else demonstration.CONFIG
    names = ("epochs", "batch", "rate", "warmup_steps", "falling", "clip", "bucket", "seed")
    return replace(base, **{name: getattr(given, name) for name in names if getattr(given, name) is not None})


def _of_folder(given: argparse.Namespace) -> tuple[Vocabulary, Source, Items, Captioner]:
    folder = CaptionFolder(given.data, given.global_features, given.region_features)
    train, val = (SplitItems(folder, split, given.limit) for split in (given.train, given.val))
    first = train[0]
    widths = (len(train.vocabulary), first.nodes.shape[1], len(first.image), given.hidden or HIDDEN)
    with private_randomness():
        seed_all(_config(given).seed, "captioner")
        model = Captioner(Dimensions(*widths), DROPOUT if given.dropout is None else given.dropout)
    return train.vocabulary, SameItems(train), val, model


def _of_scenes(given: argparse.Namespace) -> tuple[Vocabulary, Source, Items, Captioner]:
    if given.scenes < 1:
        raise ArgumentError("scenes", f"wanted at least 1, got {given.scenes}")
    encoder, seed = load_region_encoder(given.region_encoder), _config(given).seed
    scenes, chosen = (
        demonstration.encoded_scenes(encoder, series, count, given.processes, given.out)
        for series, count in ((seed, given.scenes), (demonstration.VALIDATION_SEED, demonstration.VALIDATION))
    )
    model = demonstration.new_captioner(
        encoder.width,
        given.hidden or demonstration.WIDTH,
        demonstration.DROPOUT if given.dropout is None else given.dropout,
        seed,
    )
    val = demonstration.fixed_items(chosen, demonstration.VALIDATION_SEED)
    return scene_vocabulary(), SceneGraphs(scenes, stages=demonstration.STAGES, seed=seed), val, model


def _tell(result: CaptionTraining, out: Path) -> None:
    if not result.finished:
        say(f"interrupted; {result.last} has all up to here: the same command goes on")
        return
    best = max(result.epochs, key=lambda report: report.cider)
    say(f"best: epoch {best.epoch}, CIDEr-D {best.cider:.3f}, BLEU-4 {best.bleu4:.3f} on val: {out / WEIGHTS}")
