"""The harness of every study: cases that a model classifies rightly, scored part by part, and their means."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch

from evaluation.cases import Case, case
from evaluation.evaluated_model import EvaluatedModel
from evaluation.settings import Settings
from evaluation.summary import means
from training.scenes import SceneSettings


class Row(NamedTuple):
    """The place of one value in a table.

    Attributes:
        scored: Places that have a score: ``pixels`` for a map, or the name of a case's partition.
        entry: Name of the method or control.
        metric: Name of the metric.
    """

    scored: str
    entry: str
    metric: str


@dataclass(frozen=True)
class Result:
    """The values of one part of a study.

    Attributes:
        values: Value of each row.
        refused: Reasons of the methods that do not support the case's image.
    """

    values: Mapping[Row, float]
    refused: Mapping[str, str] = field(default_factory=dict)


class Part(NamedTuple):
    """A piece of a study that needs no other.

    Attributes:
        case: Number of the case.
        alone: Name of the only entry that is scored, None for all.
    """

    case: int
    alone: str | None = None


@dataclass(frozen=True, eq=False)
class Study(ABC):
    """The scoring of one model's explanations, of group scores or of maps.

    Attributes:
        model: Model whose explanations are scored.
        cases: Scenes that it classifies rightly.
        settings: Settings of the metrics.
    """

    model: EvaluatedModel
    cases: Sequence[Case]
    settings: Settings

    @property
    def parts(self) -> list[Part]:
        """All parts, by default one for each case."""
        return [Part(number) for number in range(len(self.cases))]

    @abstractmethod
    def score(self, part: Part) -> Result:
        """Score one of the parts."""

    def prepare(self) -> None:  # noqa: B027 (most studies have nothing to do)
        """Do in a process, before its first part, what is no part of any entry's time."""


def right_cases(model: EvaluatedModel, cases: Sequence[Case], argument: str) -> list[Case]:
    """The cases that the model classifies rightly: of the others nobody knows what decided.

    Raises:
        ValueError: There is none; the message begins with the argument that said how many to draw.
    """
    with torch.no_grad():
        named = [int(model.network(one.image.unsqueeze(0)).argmax()) for one in cases]
    right = [one for one, name in zip(cases, named, strict=True) if name == one.label]
    if not right:
        raise ValueError(f"{argument}: wanted some that {model.name} classifies rightly, got none of {len(cases)}")
    return right


def draw_cases(model: EvaluatedModel, seed: int, count: int, settings: SceneSettings) -> list[Case]:
    """The first scenes of a series, as inputs of the model."""
    return [case(seed, index, settings, model.preprocess) for index in range(count)]


def averages(found: Sequence[Result]) -> dict[str, dict[str, dict[str, Any]]]:
    """Scored places → entry → metric → mean with its interval, as the JSON files hold it."""
    nested: dict[str, dict[str, dict[str, Any]]] = {}
    for row, value in means([result.values for result in found]).items():
        nested.setdefault(row.scored, {}).setdefault(row.entry, {})[row.metric] = asdict(value)
    return nested
