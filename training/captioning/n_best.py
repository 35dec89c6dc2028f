"""The n best captions of each item, and their file, which reads back as it was.

    {"<image>_<region>": [{"caption": …, "log_probability": …, "mean_log_probability": …}, …]}

A list may hold texts instead, which is the original's form of its best captions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from imagexplain.errors import ArgumentError, shown
from imagexplain.models.captioners.captioner import Captioner
from imagexplain.models.captioners.search import search
from training.captioning.items import CaptionItem, batch_of
from training.captioning.region_files import read_json
from training.captioning.sources import Items
from training.captioning.vocabulary import Vocabulary
from training.finetuning.whole_files import write_text

_SCORES = ("log_probability", "mean_log_probability")


@dataclass(frozen=True)
class Candidate:
    """A caption with its scores.

    Attributes:
        caption: Words.
        log_probability: Log-probability, the end sign's included; None where a file has none.
        mean_log_probability: The same divided by the number of words, the end sign included.
    """

    caption: str
    log_probability: float | None = None
    mean_log_probability: float | None = None


NBest = Mapping[str, Sequence[Candidate]]
"""Captions by the item's key, best first, at least one."""


@torch.no_grad()
def n_best(
    model: Captioner, items: Items, vocabulary: Vocabulary, batch: int = 128, beam: int = 1
) -> dict[str, tuple[Candidate, ...]]:
    """The captions that a captioner, in ``eval()``, finds for each item, best first, by its key.

    Args:
        model: Captioner.
        items: Items, of different keys.
        vocabulary: Words of the captioner.
        batch: Number of items at once.
        beam: Width of the search, and largest number of captions; 1 is greedy.
    """
    found: dict[str, tuple[Candidate, ...]] = {}
    for chunk in chunks(items, batch):
        given = batch_of(chunk, vocabulary)
        for item, own in zip(
            chunk, search(model, model.encode(given.nodes, given.image, given.graph), beam), strict=True
        ):
            found[item.key] = tuple(
                Candidate(vocabulary.decode(one.words), one.log_probability, one.mean_log_probability) for one in own
            )
    return found


def best(captions: NBest) -> dict[str, str]:
    """The first caption of each key."""
    return {key: own[0].caption for key, own in captions.items()}


def write_n_best(file: Path, captions: NBest) -> None:
    """Write captions."""
    content = {key: [asdict(one) for one in own] for key, own in captions.items()}
    write_text(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_n_best(file: Path) -> dict[str, tuple[Candidate, ...]]:
    """Read captions, in either form.

    Raises:
        ArgumentError: another content; names the key.
        FileNotFoundError: no such file.
    """
    found = {}
    for key, own in read_json(file).items():
        if not isinstance(own, list) or not own:
            raise ArgumentError("captions", f"wanted a list of at least one caption for {key!r} in {file}")
        found[key] = tuple(_candidate(one, key, file) for one in own)
    return found


def _candidate(entry: Any, key: str, file: Path) -> Candidate:
    if isinstance(entry, str):
        return Candidate(entry)
    if isinstance(entry, dict) and entry.keys() == {"caption", *_SCORES} and isinstance(entry["caption"], str):
        scores = [entry[name] for name in _SCORES]
        if all(one is None or (isinstance(one, int | float) and not isinstance(one, bool)) for one in scores):
            return Candidate(entry["caption"], *(None if one is None else float(one) for one in scores))
    wanted = f"wanted a text, or caption, {' and '.join(_SCORES)}"
    raise ArgumentError("captions", f"{wanted} for {key!r} in {file}, got {shown(entry)}")


def chunks(items: Items, batch: int) -> Iterator[list[CaptionItem]]:
    """Yield the items in lists of so many."""
    for start in range(0, len(items), batch):
        yield [items[number] for number in range(start, min(start + batch, len(items)))]
