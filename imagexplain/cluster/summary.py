"""A data set's explanations in numbers: per class, which segments carry the score, and which images stand out.

Rows are read once and none is kept but the few that stand out, so that there may be millions.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

SHOWN = 6
"""Number of images of each kind that stand out, at most."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class SegmentSummary:
    """Segments of one label in the images of a class.

    Attributes:
        label: Label, without the number that tells several of an image apart.
        images: Number of images that have such a segment.
        share: Mean over the class's images of their part of all segments' |attribution|, in [0, 1].
        signed: Mean of their signed part of score − baseline score, over the images where that is known and not 0.
        dividend: Mean of the sum of their dividends, where there are any.
        largest: Number of images in which one of them has the largest |attribution|.
    """

    label: str
    images: int
    share: float
    signed: float | None
    dividend: float | None
    largest: int


@dataclass(frozen=True)
class ClassSummary:
    """The explanations of one class's score.

    Attributes:
        label: Label of the class.
        images: Number of images.
        score: Mean score.
        residual: Median relative residual of those that have one.
        on_object: Mean share, as in :class:`SegmentSummary`, of the segments that have the class's own label, of the
            images that have such.
        segments: Segments by label, the largest share first.
        most: Images in which one segment carries the most, most first: the share, and the row.
        least: Images in which the largest segment carries the least, least first.
    """

    label: str
    images: int
    score: float
    residual: float | None
    on_object: float | None
    segments: tuple[SegmentSummary, ...]
    most: tuple[tuple[float, Row], ...]
    least: tuple[tuple[float, Row], ...]


@dataclass(frozen=True)
class Summary:
    """A job's table in numbers.

    Attributes:
        images: Number of images.
        errors: Messages of the images that were refused, with their numbers, the most frequent first.
        classes: Classes, the most frequent first.
        unstable: Images with the largest relative residuals, largest first: the residual, and the row.
        stable: Images with the smallest, smallest first.
    """

    images: int
    errors: tuple[tuple[str, int], ...]
    classes: tuple[ClassSummary, ...]
    unstable: tuple[tuple[float, Row], ...]
    stable: tuple[tuple[float, Row], ...]


def summarize(rows: Iterable[Row]) -> Summary:
    """Summarize the rows of a job's table.

    Args:
        rows: Rows as :data:`imagexplain.cluster.table.SCHEMA` has them.
    """
    images = 0
    errors: Counter[str] = Counter()
    classes: dict[str, _Class] = defaultdict(_Class)
    residuals = _Extremes()
    for row in rows:
        images += 1
        if row["error"] is not None:
            errors[f"{row['error']['field']}: {row['error']['message']}"] += 1
            continue
        classes[row["target"]].add(row)
        if row["relative_residual"] is not None:
            residuals.add(row["relative_residual"], row)
    found = [one.summary(label) for label, one in classes.items()]
    return Summary(
        images,
        tuple(errors.most_common()),
        tuple(sorted(found, key=lambda one: (-one.images, one.label))),
        residuals.largest(),
        residuals.smallest(),
    )


def kind_of(label: str) -> str:
    """A segment's label without the number that tells it from others of its label."""
    return re.sub(r" \d+$", "", label)


@dataclass
class _Extremes:
    """The rows with the largest and with the smallest values."""

    most: list[tuple[float, int, Row]] = field(default_factory=list)
    least: list[tuple[float, int, Row]] = field(default_factory=list)
    seen: int = 0

    def add(self, value: float, row: Row) -> None:
        self.seen += 1  # tells equal values apart, the first seen counts
        for heap, sign in ((self.most, 1), (self.least, -1)):
            entry = (sign * value, -self.seen, row)
            (heapq.heappush if len(heap) < SHOWN else heapq.heappushpop)(heap, entry)

    def largest(self) -> tuple[tuple[float, Row], ...]:
        return tuple((value, row) for value, _, row in sorted(self.most, reverse=True))

    def smallest(self) -> tuple[tuple[float, Row], ...]:
        return tuple((-value, row) for value, _, row in sorted(self.least, reverse=True))


@dataclass
class _Segment:
    images: int = 0
    share: float = 0.0
    signed: float = 0.0
    dividend: float = 0.0
    largest: int = 0


@dataclass
class _Class:
    images: int = 0
    grouped: int = 0
    with_difference: int = 0
    score: float = 0.0
    residuals: list[float] = field(default_factory=list)
    on_object: list[float] = field(default_factory=list)
    segments: dict[str, _Segment] = field(default_factory=lambda: defaultdict(_Segment))
    with_dividend: bool = False
    carried: _Extremes = field(default_factory=_Extremes)

    def add(self, row: Row) -> None:
        self.images += 1
        self.score += row["score"]
        if row["relative_residual"] is not None:
            self.residuals.append(row["relative_residual"])
        groups = [group for group in row["groups"] or () if group["kind"] != "whole"]
        total = sum(abs(group["attribution"]) for group in groups)
        if total == 0:
            return
        self.grouped += 1
        difference = None if row["baseline_score"] is None else row["score"] - row["baseline_score"]
        self.with_difference += bool(difference)
        shares: dict[str, float] = defaultdict(float)
        for group in groups:
            own = self.segments[kind_of(group["label"])]
            share = abs(group["attribution"]) / total
            shares[kind_of(group["label"])] += share
            own.share += share
            if difference:
                own.signed += group["attribution"] / difference
            if group["dividend"] is not None:
                self.with_dividend = True
                own.dividend += group["dividend"]
        for label in shares:
            self.segments[label].images += 1
        best = max(groups, key=lambda group: abs(group["attribution"]))
        self.segments[kind_of(best["label"])].largest += 1
        self.carried.add(abs(best["attribution"]) / total, row)
        if row["target"] in shares:
            self.on_object.append(shares[row["target"]])

    def summary(self, label: str) -> ClassSummary:
        segments = [
            SegmentSummary(
                name,
                one.images,
                one.share / self.grouped,
                one.signed / self.with_difference if self.with_difference else None,
                one.dividend / self.grouped if self.with_dividend else None,
                one.largest,
            )
            for name, one in self.segments.items()
        ]
        return ClassSummary(
            label,
            self.images,
            self.score / self.images,
            median(self.residuals) if self.residuals else None,
            sum(self.on_object) / len(self.on_object) if self.on_object else None,
            tuple(sorted(segments, key=lambda one: (-one.share, one.label))),
            self.carried.largest(),
            self.carried.smallest(),
        )
