"""The metrics of group scores and of maps: names by the field's terms, which way is better, units."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Direction = Literal["higher", "lower", "near 0", "near 1"]

ARROWS: Mapping[Direction, str] = {"higher": "↑", "lower": "↓", "near 0": "→ 0", "near 1": "→ 1"}


@dataclass(frozen=True)
class Metric:
    """A measure of explanations.

    Attributes:
        name: Term of the field, the key of its values in records and the heading of its column.
        direction: Direction of better values.
        unit: Unit of the values.
    """

    name: str
    direction: Direction
    unit: str

    @property
    def heading(self) -> str:
        """The name, with an arrow to better values."""
        return f"{self.name} {ARROWS[self.direction]}"


IOU = Metric("IoU", "higher", "fraction")
BOX_IOU = Metric("box IoU", "higher", "fraction")
POINTING_GAME = Metric("pointing game", "higher", "fraction")
POINTING_GAME_AMONG_OBJECTS = Metric("pointing game among objects", "higher", "fraction")
RELEVANCE_MASS = Metric("relevance mass accuracy", "higher", "fraction")
GRID_POINTING_GAME = Metric("grid pointing game", "higher", "fraction")
BORDER_MASS = Metric("mass at inner borders", "near 1", "of the borders' share of area")
RANK_CORRELATION = Metric("rank correlation with leave-one-out", "higher", "ρ")
SHAPLEY_RANK_CORRELATION = Metric("rank correlation with Shapley values", "higher", "ρ")
INSERTION_LOGIT = Metric("insertion AUC of the logit", "higher", "logit")
INSERTION = Metric("insertion AUC", "higher", "probability")
DELETION_LOGIT = Metric("deletion AUC of the logit", "lower", "logit")
DELETION = Metric("deletion AUC", "lower", "probability")
PIXEL_INSERTION = Metric("insertion AUC by pixel", "higher", "probability")
PIXEL_DELETION = Metric("deletion AUC by pixel", "lower", "probability")
PIXEL_FLIPPING = Metric("pixel flipping, both orders", "higher", "probability")
ROAD_MOST = Metric("ROAD, highest first", "lower", "probability")
ROAD_LEAST = Metric("ROAD, lowest first", "higher", "probability")
ROAD = Metric("ROAD, both orders", "higher", "probability")
SACO = Metric("SaCo", "higher", "coefficient")
INFIDELITY = Metric("infidelity", "lower", "of zero scores' infidelity")
NORMALIZED_INFIDELITY = Metric("normalized infidelity", "lower", "of zero scores' infidelity")
MAX_SENSITIVITY = Metric("max-sensitivity", "lower", "relative change")
SIGNED_RANDOMIZATION = Metric("signed parameter randomization", "near 0", "ρ")
RANDOMIZATION = Metric("parameter randomization", "lower", "absolute ρ")
RANDOMIZATION_OF_MAGNITUDES = Metric("parameter randomization of magnitudes", "lower", "absolute ρ")
CASCADING_RANDOMIZATION = Metric("cascading randomization", "lower", "absolute ρ")
RANDOMIZATION_BY_LAYER = Metric("randomization by layer", "lower", "absolute ρ")
FINER_PATH = Metric("rank correlation with a finer path", "higher", "ρ")
CPU_TIME = Metric("CPU time", "lower", "s")
EVALUATIONS = Metric("evaluations", "lower", "evaluations")
FORWARD = Metric("forward evaluations", "lower", "evaluations")
BACKWARD = Metric("backward evaluations", "lower", "evaluations")

METRICS: tuple[Metric, ...] = (
    IOU,
    BOX_IOU,
    POINTING_GAME,
    POINTING_GAME_AMONG_OBJECTS,
    RELEVANCE_MASS,
    GRID_POINTING_GAME,
    BORDER_MASS,
    RANK_CORRELATION,
    SHAPLEY_RANK_CORRELATION,
    INSERTION_LOGIT,
    INSERTION,
    DELETION_LOGIT,
    DELETION,
    PIXEL_INSERTION,
    PIXEL_DELETION,
    PIXEL_FLIPPING,
    ROAD_MOST,
    ROAD_LEAST,
    ROAD,
    SACO,
    INFIDELITY,
    NORMALIZED_INFIDELITY,
    MAX_SENSITIVITY,
    SIGNED_RANDOMIZATION,
    RANDOMIZATION,
    RANDOMIZATION_OF_MAGNITUDES,
    CASCADING_RANDOMIZATION,
    RANDOMIZATION_BY_LAYER,
    FINER_PATH,
    CPU_TIME,
    EVALUATIONS,
    FORWARD,
    BACKWARD,
)
"""All metrics, in the order of a table's columns."""


def shown(methods: Iterable[Mapping[str, object]]) -> list[Metric]:
    """The metrics that some method has a value of, in the order of columns."""
    names = {name for values in methods for name in values}
    return [metric for metric in METRICS if metric.name in names]
