"""Concepts: what the responsible segments of a class's errors have in common, ranked by the score that they carry."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from debugging.clustering import Features, cluster, nearest

KEPT_SHARE = 0.1
"""Part of a class's carried score from which a concept is kept unless a person drops it."""


@dataclass(frozen=True)
class Member:
    """A responsible segment of an error.

    Attributes:
        image: Name of the image.
        named: Class that the model named.
        confidence: Its probability.
        label: Name of the segment.
        carried: Score of the named class that the segment carries: the mean of its attribution and of the fall of the
            score when it is replaced, 0 where that is negative.
        area_share: Part of the image that it covers.
        feature: Feature of the segment.
        crop: Picture of it, a path within the results.
    """

    image: str
    named: str
    confidence: float
    label: str
    carried: float
    area_share: float
    feature: tuple[float, ...]
    crop: str


@dataclass(frozen=True, eq=False)
class Concept:
    """A group of segments.

    Attributes:
        name: Name: the segments' label, or a number.
        label: Label that its segments share; None for a cluster.
        members: Segments, those that carry the most first.
        centre: Centre (K,) of a cluster; None for a label.
    """

    name: str
    label: str | None
    members: tuple[Member, ...]
    centre: Features | None

    @property
    def carried(self) -> float:
        """Score that its segments carry together."""
        return sum(member.carried for member in self.members)

    @property
    def area_share(self) -> float:
        """Mean part of the image that a segment covers."""
        return sum(member.area_share for member in self.members) / len(self.members)

    @property
    def errors(self) -> int:
        """Number of images that have one of its segments."""
        return len({member.image for member in self.members})

    @property
    def named(self) -> list[tuple[str, int]]:
        """Classes that the model named in those, with their numbers, the most frequent first."""
        counts = Counter({member.image: member.named for member in self.members}.values())
        return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


@dataclass(frozen=True, eq=False)
class ClassConcepts:
    """Concepts of one class's errors.

    Attributes:
        errors: Number of errors.
        unexplained: Number of them without a responsible segment.
        stability: Adjusted Rand index over seeds; None for labels, which need no seed.
        concepts: Concepts, those that carry the most score first.
    """

    errors: int
    unexplained: int
    stability: float | None
    concepts: tuple[Concept, ...]

    def share(self, concept: Concept) -> float:
        """Part of the class's carried score that a concept has; 0 where nothing is carried."""
        total = sum(each.carried for each in self.concepts)
        return concept.carried / total if total > 0 else 0.0


def members_of(errors: Iterable[Mapping[str, Any]]) -> list[Member]:
    """The responsible segments of errors, as ``errors.json`` has them, in its order."""
    return [
        Member(
            image=entry["image"],
            named=entry["named"],
            confidence=entry["confidence"],
            label=segment["label"],
            carried=max(0.0, (segment["wrong"]["attribution"] + segment["wrong"]["replaced"]) / 2),
            area_share=segment["area_share"],
            feature=tuple(segment["feature"]),
            crop=segment["crop"],
        )
        for entry in errors
        for segment in sorted(entry["segments"], key=lambda one: one["rank"])
        if segment["rank"]
    ]


def concepts_of(
    errors: Sequence[Mapping[str, Any]], *, by_label: bool, seed: int = 0, clusters: int | None = None
) -> ClassConcepts:
    """Group the responsible segments of a class's errors.

    Args:
        errors: Errors of one class.
        by_label: Flag for groups by the segments' labels, else by clusters of their features.
        seed: Seed of the clusters.
        clusters: Number of clusters; as many as the features show, if not given. Fewer where there are fewer segments.
    """
    members = members_of(errors)
    unexplained = len(errors) - len({member.image for member in members})
    if not members:
        return ClassConcepts(len(errors), unexplained, None, ())
    stability = None
    if by_label:
        labels = list(dict.fromkeys(member.label for member in members))
        found = [Concept(label, label, _ranked(m for m in members if m.label == label), None) for label in labels]
    else:
        features = np.array([member.feature for member in members], dtype=np.float64)
        groups = cluster(features, seed, None if clusters is None else min(clusters, len(members)))
        stability = groups.stability
        of_group = [
            [member for member, own in zip(members, groups.assigned, strict=True) if own == number]
            for number in range(len(groups.centres))
        ]
        found = [Concept("", None, _ranked(own), centre) for own, centre in zip(of_group, groups.centres, strict=True)]
    found.sort(key=lambda concept: -concept.carried)
    named = [
        Concept(concept.name or f"concept {number}", concept.label, concept.members, concept.centre)
        for number, concept in enumerate(found, 1)
    ]
    return ClassConcepts(len(errors), unexplained, stability, tuple(named))


def concept_of(label: str, feature: Features, concepts: Sequence[Mapping[str, Any]]) -> int | None:
    """Index of the concept, as ``concepts.json`` has a class's, that a segment falls into; None for none.

    Args:
        label: Name of the segment, which concepts by label compare.
        feature: Feature (K,) of the segment, which goes to the nearest of clusters.
        concepts: Concepts of one class, all of labels or all of clusters.
    """
    for index, concept in enumerate(concepts):
        if concept["label"] is not None and concept["label"] == label:
            return index
    clusters = [(index, concept["centre"]) for index, concept in enumerate(concepts) if concept["centre"] is not None]
    if not clusters:
        return None
    centres = np.array([centre for _, centre in clusters], dtype=np.float64)
    return clusters[int(nearest(feature[None], centres)[0])][0]


def _ranked(members: Iterable[Member]) -> tuple[Member, ...]:
    return tuple(sorted(members, key=lambda member: -member.carried))
