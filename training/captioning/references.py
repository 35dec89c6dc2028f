"""Reference captions, ``{image: {region: {"phrase": …}}}``; ``phrases``, which are ours, are further ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from imagexplain.errors import ArgumentError
from training.captioning.region_files import read_json
from training.finetuning.whole_files import write_text

References = Mapping[tuple[str, str], Sequence[str]]
"""Captions of each (image, region), at least one."""


def read_references(file: Path) -> dict[tuple[str, str], tuple[str, ...]]:
    """Read reference captions.

    Raises:
        ArgumentError: no file of captions; names image and region.
        FileNotFoundError: no such file.
    """
    found = {}
    for image, regions in read_json(file).items():
        for region, entry in regions.items() if isinstance(regions, dict) else [("", None)]:
            phrases = [entry.get("phrase"), *entry.get("phrases", ())] if isinstance(entry, dict) else [None]
            if not all(isinstance(phrase, str) for phrase in phrases):
                raise ArgumentError("phrase", f"wanted a text, in region {region!r} of {image} in {file}")
            found[image, region] = tuple(map(str, phrases))
    return found


def write_references(file: Path, references: References) -> None:
    """Write reference captions, the first of each as its phrase."""
    content: dict[str, dict[str, dict[str, str | list[str]]]] = {}
    for (image, region), (first, *further) in references.items():
        entry: dict[str, str | list[str]] = {"phrase": first}
        content.setdefault(image, {})[region] = {**entry, "phrases": further} if further else entry
    write_text(file, json.dumps(content, indent=1, ensure_ascii=False))
