"""Score a captioner of scene graphs: on a data set, on its images that people found easy, or on the demonstration's.

DATA has the folders annotation and features, in the formats of the captioner's authors. Each split is scored as a
whole; with --tasks, answered tasks, also without the images whose difficulty lies below the threshold, by the same
captions. --captions scores those of a file instead of a captioner's. Without DATA the demonstration is measured on
scenes that its training never read: against what ignores the graph, whether it obeys and tells the truth, and whether
the node with the largest attribution is of the object that a word names.

evaluate_captioner.py captions --captioner run/captioner.th --split val_sub --tasks tasks.json --out scores.json
evaluate_captioner.py --out benchmarks/results_captions.json
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from debugging.annotation import difficulties, read_answers
from debugging.easy_split import OPTIMISED, THRESHOLD, difficulty_of, easy
from debugging.results import read_json, rounded, write_json
from evaluation.caption_words import RULE, study_words
from evaluation.machine import machine
from imagexplain.checkout import ROOT
from imagexplain.errors import ArgumentError
from imagexplain.models.captioners import captioner
from imagexplain.models.captioners.captioner import Captioner
from imagexplain.models.checkpoints import checkpoint
from imagexplain.progress import say
from training.captioning import demonstration
from training.captioning.caption_folder import CaptionFolder, SplitItems
from training.captioning.command import REGION_ENCODER
from training.captioning.measuring import measured
from training.captioning.n_best import NBest, best, n_best, read_n_best, write_n_best
from training.captioning.scores import METEOR, NAMES, SPICE, caption_scores, lacks_meteor, lacks_spice
from training.captioning.sources import check_vocabulary, scene_vocabulary
from training.captioning.train_region_encoder import load_region_encoder

CAPTIONER = ROOT / "archive_specs" / "weights" / "captioner_scenes.safetensors"
RECORD = ROOT / "benchmarks" / "results_captions.json"

EXPLAINED, STEPS = 400, 50
"""Number of held-out graphs whose captions are explained, and of points of each path."""


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("data", type=Path, nargs="?", help="folder with annotation/ and features/")
    made.add_argument("--captioner", type=Path, help="weights (default: the demonstration's, without DATA)")
    made.add_argument("--out", type=Path, metavar="FILE", help="file for all numbers, JSON")
    made.add_argument("--no-java", action="store_true", help="leave METEOR and SPICE out")
    made.add_argument(
        "--print", type=Path, nargs="?", const=RECORD, dest="shown", metavar="FILE", help="print a file of numbers"
    )

    data = made.add_argument_group("of DATA")
    data.add_argument("--split", nargs="+", default=["val_sub"], help="splits to score (default: val_sub)")
    data.add_argument("--tasks", type=Path, help="answered tasks, by which images are easy")
    data.add_argument("--threshold", type=float, default=THRESHOLD, help="least difficulty (default: %(default)s)")
    data.add_argument("--keep-unrated", action="store_true", help="keep images that nobody rated")
    data.add_argument("--global-features", default=CaptionFolder.global_features, help="(default: %(default)s)")
    data.add_argument("--region-features", default=CaptionFolder.region_features, help="(default: %(default)s)")
    data.add_argument("--limit", type=int, help="most nodes of a graph; the authors' is 10 (default: all)")
    data.add_argument("--beam", type=int, default=1, help="width of the search (default: %(default)s, greedy)")
    data.add_argument("--batch", type=int, default=128, help="captions at once (default: %(default)s)")
    data.add_argument("--captions", type=Path, metavar="FILE", help="score the captions of this file")
    data.add_argument("--n-best", type=Path, metavar="FILE", help="file for all captions that were found")

    scenes = made.add_argument_group("of the demonstration")
    scenes.add_argument("--scenes", type=int, default=demonstration.HELD_OUT, help="(default: %(default)s)")
    scenes.add_argument("--explained", type=int, default=EXPLAINED, metavar="N", help="graphs (default: %(default)s)")
    scenes.add_argument("--steps", type=int, default=STEPS, help="points of a path (default: %(default)s)")
    scenes.add_argument("--processes", type=int, default=1, help="that draw scenes (default: %(default)s)")
    scenes.add_argument("--cache", type=Path, metavar="FOLDER", help="folder in which encoded scenes are kept")
    return made


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    given = parser(prog).parse_args(arguments)
    try:
        if given.shown is not None:
            found = json.loads(given.shown.read_text("utf-8"))
        else:
            found = rounded(_demonstration(given) if given.data is None else _data(given))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print("\n".join(lines_of(found)))
    if given.out is not None and given.shown is None:
        write_json(given.out, found)
    return 0


def lines_of(found: Mapping[str, Any]) -> list[str]:
    """The tables of a file of numbers, as lines of Markdown."""
    if "splits" in found:
        sizes = {name: (own["images"], own["captions"]) for name, own in found["splits"].items()}
        scores = {name: own["scores"] for name, own in found["splits"].items()}
        lines = _scores("split", scores, ("images", "captions"), sizes)
    else:
        changes = {"the graphs themselves": found["graphs"], **found["changes"]}
        changes["all changes"] = changes.pop("all")
        lines = [
            *_scores("captions", found["scores"]),
            "",
            *_scores("graphs with relationships", found["related"]),
            "",
            *_table(
                ("graphs", "captions", "as asked", "true", "the first wording's"),
                (
                    [name, f"{own['count']:,}", *(f"{own[key]:.1%}" for key in ("answers", "true", "exact"))]
                    for name, own in changes.items()
                ),
            ),
            "",
            *_table(
                ("words", "number", "attribution", "attention", "chance"),
                (
                    [name, f"{own['words']:,}", *(f"{own[key]:.1%}" for key in ("attribution", "attention", "chance"))]
                    for name, own in found["words"]["kinds"].items()
                ),
            ),
        ]
    missing = found["missing"].items()
    return [*lines, *(line for name, reason in missing for line in ("", f"{name}: {reason}"))]


def _scores(
    title: str,
    scores: Mapping[str, Mapping[str, float]],
    further: Sequence[str] = (),
    values: Mapping[str, Sequence[int]] | None = None,
) -> list[str]:
    names = [name for name in (*NAMES, METEOR, SPICE) if all(name in own for own in scores.values())]
    sizes = {name: [f"{value:,}" for value in own] for name, own in (values or {}).items()}
    body = ([name, *sizes.get(name, []), *(f"{own[each]:.3f}" for each in names)] for name, own in scores.items())
    return _table((title, *further, *names), body)


def _table(heading: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    rows = [heading, ["---"] * len(heading), *body]
    return [f"| {' | '.join(row)} |" for row in rows]


def _missing(no_java: bool) -> dict[str, str]:
    """Reason by the name of a score that cannot be had."""
    reasons = {} if no_java else {METEOR: lacks_meteor(), SPICE: lacks_spice()}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _data(given: argparse.Namespace) -> dict[str, Any]:
    """Numbers of each split of a data set, and of its easy images."""
    if (given.captioner is None) == (given.captions is None):
        raise ArgumentError("captioner", "wanted either a captioner or captions of DATA")
    if given.batch < 1:
        raise ArgumentError("batch", f"wanted at least 1, got {given.batch}")
    folder = CaptionFolder(given.data, given.global_features, given.region_features)
    model = None if given.captioner is None else _loaded(given.captioner)
    ready = {} if given.captions is None else read_n_best(given.captions)
    values = {} if given.tasks is None else _difficulty(given.tasks)
    written: dict[str, Any] = {}
    splits: dict[str, dict[str, Any]] = {}
    for name in given.split:
        items = SplitItems(folder, name, given.limit)
        images = items.split.images
        chosen: dict[str, tuple[Sequence[str], dict[str, float]]] = {name: (images, {})}
        if given.tasks is not None:
            rated = difficulty_of(images, values)
            kept = easy(images, rated, given.threshold, keep_unrated=given.keep_unrated)
            if not kept:
                raise ArgumentError("threshold", f"wanted one that leaves images of {name}, got {given.threshold}")
            counts = {"threshold": given.threshold, "unrated": len(images) - len(rated)}
            chosen[f"{name}{OPTIMISED}"] = kept, counts
        captions = ready if model is None else _captions(model, items, given)
        written |= captions
        for own, (some, counts) in chosen.items():
            splits[own] = _split(items, some, captions, not given.no_java) | counts
    if given.n_best is not None:
        write_n_best(given.n_best, written)
    settings = {"limit": given.limit, "beam": given.beam if given.captions is None else None}
    return {"settings": settings, "splits": splits, "missing": _missing(given.no_java)}


def _difficulty(tasks: Path) -> dict[str, float]:
    answers = read_answers(read_json(tasks, "whoever asked"))
    return {image: float(one["difficulty"]) for image, one in difficulties(answers.rated).items()}


def _captions(model: Captioner, items: SplitItems, given: argparse.Namespace) -> NBest:
    check_vocabulary(items.vocabulary, model.dimensions.words)
    return n_best(model, items, items.vocabulary, given.batch, given.beam)


def _split(items: SplitItems, images: Sequence[str], captions: NBest, with_java: bool) -> dict[str, Any]:
    """Scores of some images of a split, against their own references alone."""
    kept = set(images)
    regions = [
        (number, f"{image}_{region}") for number, (image, region) in enumerate(items.split.regions) if image in kept
    ]
    absent = [key for _, key in regions if key not in captions]
    if absent:
        raise ArgumentError("captions", f"wanted one for each region of {items.name}, got none for {absent[0]!r}")
    references = {key: items.references(number) for number, key in regions}
    scores = caption_scores(best({key: captions[key] for key in references}), references, with_java=with_java)
    return {"images": len(images), "captions": len(regions), "scores": dict(scores.mean)}


def _loaded(file: Path) -> Captioner:
    return captioner.build({name: tensor.float() for name, tensor in checkpoint.read(file).items()})


def _demonstration(given: argparse.Namespace) -> dict[str, Any]:
    """Numbers of a captioner of the named scenes."""
    for name in ("scenes", "explained", "steps"):
        if getattr(given, name) < 1:
            raise ArgumentError(name, f"wanted at least 1, got {getattr(given, name)}")
    model, vocabulary, seed = _loaded(given.captioner or CAPTIONER), scene_vocabulary(), demonstration.HELD_OUT_SEED
    check_vocabulary(vocabulary, model.dimensions.words)
    encoder = load_region_encoder(REGION_ENCODER)
    scenes = demonstration.encoded_scenes(encoder, seed, given.scenes, given.processes, given.cache)
    items = demonstration.fixed_items(scenes, seed, demonstration.PER_SCENE)
    began = time.monotonic()
    found = measured(model, vocabulary, items, scenes, seed, with_java=not given.no_java)
    captioned = time.monotonic()
    say(f"{len(items):,} graphs and their changes captioned; explaining {given.explained}")
    words = study_words(model, vocabulary, items[: given.explained], scenes, given.steps)
    ended = time.monotonic()
    settings = {
        "scenes": given.scenes,
        "graphs of each": demonstration.PER_SCENE,
        "series": seed,
        "explained graphs": given.explained,
        "steps": given.steps,
        "rule": RULE,
        "baseline": "zero",
        "score": "log_probability",
    }
    seconds = {"captions and scores": round(captioned - began, 1), "explanations": round(ended - captioned, 1)}
    return {
        "machine": machine(),
        "settings": settings,
        "seconds": seconds,
        **found,
        "words": asdict(words),
        "missing": _missing(given.no_java),
    }
