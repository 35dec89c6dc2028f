"""The files of concepts: what was found, as JSON, and what a person makes of it, as YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from debugging.clustering import Features
from debugging.concept import KEPT_SHARE, ClassConcepts, concept_of
from debugging.results import read_json
from imagexplain.errors import ArgumentError, listed

FOUND, EDITED, PAGE = "concepts.json", "concepts.yaml", "concepts.html"

HEADER = """\
# Concepts of each class's errors, those that carry the most score first; concepts.html shows them.
# keep: true or false; a concept that is deleted here is dropped. name: your words, which prompts and questions use.
# All else is for your information.
"""


@dataclass(frozen=True)
class EditedConcept:
    """A concept as a person left it.

    Attributes:
        id: Its number within the class, from 1.
        name: Its name.
        keep: Flag for one that images are chosen by.
    """

    id: int
    name: str
    keep: bool


@dataclass(frozen=True, eq=False)
class KeptConcepts:
    """The concepts of all classes, as found and as edited.

    Attributes:
        found: Content of ``concepts.json`` under ``classes``.
        edited: Concepts of each class as a person left them.
    """

    found: Mapping[str, Any]
    edited: Mapping[str, tuple[EditedConcept, ...]]

    def kept(self, name: str) -> list[EditedConcept]:
        """Kept concepts of a class; none where the class has none."""
        return [concept for concept in self.edited.get(name, ()) if concept.keep]

    def concept_of(self, name: str, label: str, feature: Features) -> EditedConcept | None:
        """The kept concept of a class that a segment falls into; None if that one was dropped, or there is none."""
        concepts = self.found.get(name, {}).get("concepts", [])
        index = concept_of(label, feature, concepts)
        if index is None:
            return None
        return next((one for one in self.kept(name) if one.id == concepts[index]["id"]), None)


def found_content(classes: Mapping[str, ClassConcepts], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The content of ``concepts.json``."""
    return {
        "settings": dict(settings),
        "classes": {
            name: {
                "errors": found.errors,
                "unexplained": found.unexplained,
                "stability": found.stability,
                "concepts": [
                    {
                        "id": number,
                        "name": concept.name,
                        "label": concept.label,
                        "carried": concept.carried,
                        "carried_share": found.share(concept),
                        "area_share": concept.area_share,
                        "errors": concept.errors,
                        "named": dict(concept.named),
                        "centre": None if concept.centre is None else concept.centre.tolist(),
                        "segments": [{"image": one.image, "crop": one.crop} for one in concept.members],
                    }
                    for number, concept in enumerate(found.concepts, 1)
                ],
            }
            for name, found in classes.items()
        },
    }


def edited_text(found: Mapping[str, Any]) -> str:
    """The text of ``concepts.yaml`` before anybody edits it."""
    content = {
        name: [
            {
                "id": concept["id"],
                "name": concept["name"],
                "keep": concept["carried_share"] >= KEPT_SHARE,
                "score": f"{concept['carried_share']:.0%}",
                "area": f"{concept['area_share']:.0%}",
                "errors": f"{concept['errors']} of {of_class['errors']}",
            }
            for concept in of_class["concepts"]
        ]
        for name, of_class in found["classes"].items()
    }
    return HEADER + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def read_concepts(results: Path) -> KeptConcepts:
    """The concepts of a folder of results, with a person's edits.

    Raises:
        ArgumentError: a missing file, or an edit that does not fit what was found.
    """
    found = read_json(results / FOUND, "concepts")["classes"]
    file = results / EDITED
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ArgumentError("results", f"{file}: cannot be read as YAML: {error}") from None
    if not isinstance(content, dict):
        raise ArgumentError("results", f"{file}: wanted concepts by class, got {type(content).__name__}")
    if unknown := [name for name in content if name not in found]:
        raise ArgumentError("results", f"{file}: wanted classes of {FOUND}, got {listed(unknown)}")
    return KeptConcepts(found, {name: _edited(file, name, each, found[name]) for name, each in content.items()})


def feature_of(values: Any) -> Features:
    """A feature from a file."""
    return np.array(values, dtype=np.float64)


def _edited(file: Path, name: str, entries: Any, found: Mapping[str, Any]) -> tuple[EditedConcept, ...]:
    if entries is None:  # all of them deleted
        return ()
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ArgumentError("results", f"{file}: {name}: wanted a list of concepts")
    known = {concept["id"] for concept in found["concepts"]}
    edited: list[EditedConcept] = []
    for entry in entries:
        number, words, keep = entry.get("id"), entry.get("name"), entry.get("keep")
        place = f"{file}: {name}: concept {number!r}"
        if number not in known or number in {one.id for one in edited}:
            raise ArgumentError("results", f"{place}: wanted each id once, of {listed(sorted(known))}")
        if not isinstance(words, str) or not words.strip():
            raise ArgumentError("results", f"{place}: name: wanted words, got {words!r}")
        if not isinstance(keep, bool):
            raise ArgumentError("results", f"{place}: keep: wanted true or false, got {keep!r}")
        edited.append(EditedConcept(number, words.strip(), keep))
    return tuple(edited)
