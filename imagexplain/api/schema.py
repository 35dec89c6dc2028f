"""Typed answers in JSON, from which the API's document is made and into which clients may decode.

An entry that some answers do not have may be unset. A number that is not finite is null, and the name of the entry that
holds it stands under ``non_finite``; tensors are in the other forms of an answer alone.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

Number = float | None
"""Number, null where it is not finite."""

Box = tuple[Number, Number, Number, Number]

Id = int | str
"""Identifier of an object of a scene graph."""


class _Answer(Struct, frozen=True, kw_only=True):
    model: Annotated[str, Meta(description="The model that answered, with its version after a slash, but for 1.0.")]
    non_finite: (
        Annotated[list[str], Meta(description="Entries that hold a number that is not finite, which stands as null.")]
        | UnsetType
    ) = UNSET


ScoreKind = Annotated[
    Literal["logit", "log_odds", "probability", "value"], Meta(description="Kind of the score that is explained.")
]


class RankedClass(Struct, frozen=True, kw_only=True):
    """A class and its score, or the name of a value and the value."""

    label: str
    index: int
    score: Annotated[Number, Meta(description="Score, of the kind that `score_kind` says.")]
    probability: (
        Annotated[
            Number, Meta(description="Of a multi-label model each class's own, which sum to no 1; values have none.")
        ]
        | UnsetType
    ) = UNSET


class Frame(Struct, frozen=True, kw_only=True):
    """The part of the photo that the model sees."""

    photo: Annotated[tuple[int, int], Meta(description="Height and width of the upright photo.")]
    input: Annotated[tuple[int, int], Meta(description="Height and width of the model's input.")]
    box: Annotated[
        tuple[float, float, float, float],
        Meta(
            description="Left, top, right and bottom of what the input shows, in pixels of the photo; beyond it where "
            "the input is padded."
        ),
    ]


class ClassPrediction(_Answer, frozen=True, kw_only=True):
    """Classes that a classifier sees in a photo."""

    score_kind: ScoreKind
    predictions: Annotated[list[RankedClass], Meta(description="The best classes, best first; or all values.")]
    targets: (
        Annotated[list[RankedClass], Meta(description="The classes that a request with `absent` names.")] | UnsetType
    ) = UNSET
    absent: (
        Annotated[list[int], Meta(description="Rows of the groups that were replaced by the baseline.")] | UnsetType
    ) = UNSET
    segments: Annotated[str, Meta(description="Where those groups are from.")] | UnsetType = UNSET
    frame: Frame | UnsetType = UNSET


class RunLengths(Struct, frozen=True, kw_only=True):
    """A mask of COCO's: runs of zeros and ones in turn, zeros first, down the columns."""

    size: Annotated[tuple[int, int], Meta(description="Height and width of the photo.")]
    counts: Annotated[str, Meta(description="Lengths of the runs, packed as pycocotools does.")]


class Instance(Struct, frozen=True, kw_only=True):
    """An instance that a segmenter found."""

    label: str
    index: Annotated[int, Meta(description="Index of its class.")] = field(name="class")
    score: Number
    box: Annotated[Box, Meta(description="Corners x0, y0, x1, y1 in pixels of the upright photo.")]
    area: Annotated[int, Meta(description="Pixels of its mask.")]
    segmentation: RunLengths


class InstancePrediction(_Answer, frozen=True, kw_only=True):
    """The instances of a photo, the most probable first."""

    labels: list[str]
    detections: list[Instance]


class Group(Struct, frozen=True, kw_only=True):
    """A group of pixels and what it carries; a map of pixels has its attribution and area alone."""

    label: str
    kind: Literal["segment", "rest", "whole"]
    attribution: Annotated[Number, Meta(description="Its part of the score's difference, signed.")]
    area: Annotated[int, Meta(description="Its pixels in the model's frame.")]
    directional: Annotated[Number, Meta(description="Attribution per unit of change.")] | UnsetType = UNSET
    dividend: Annotated[Number, Meta(description="Its part of all |directional| in the family.")] | UnsetType = UNSET
    value: Annotated[Number, Meta(description="Sum of the dividends of all groups within it.")] | UnsetType = UNSET
    norm: Annotated[Number, Meta(description="Length of the change over its pixels.")] | UnsetType = UNSET
    parent: Annotated[int, Meta(description="Row of the smallest group around it, −1 for none.")] | UnsetType = UNSET
    standard_error: (
        Annotated[Number, Meta(description="Of the attribution, where the method estimates it.")] | UnsetType
    ) = UNSET
    attribution_spread: Number | UnsetType = UNSET
    directional_spread: Number | UnsetType = UNSET
    absolute_directional: Number | UnsetType = UNSET
    segmentation: (
        Annotated[RunLengths, Meta(description="Its mask over the photo, of the output `photo_masks`.")] | UnsetType
    ) = UNSET


class Part(Struct, frozen=True, kw_only=True):
    """One of the disjoint parts that overlapping groups cut the photo into."""

    segments: Annotated[list[str], Meta(description="The segments that contain it.")]
    attribution: Number
    area: int


class _Explanation(_Answer, frozen=True, kw_only=True):
    method: Annotated[str, Meta(description="The method, or both with a sign of multiplication.")]
    target_class: Annotated[int, Meta(description="Index of the class whose score is explained.")]
    target_label: str
    contrast_class: (
        Annotated[int, Meta(description="Index of the class whose score is taken off, where there is one.")] | UnsetType
    ) = UNSET
    contrast_label: str | UnsetType = UNSET
    score_kind: ScoreKind
    score: Annotated[Number, Meta(description="Score that is explained; with a contrast, the difference of two.")]
    finite: Annotated[bool, Meta(description="False where the attribution has values that are not finite.")]
    evaluations: Annotated[int, Meta(description="Evaluations of the model that it took.")]
    top: Annotated[list[RankedClass], Meta(description="The best classes, best first; or all values.")]
    frame: Frame
    draws: Annotated[int, Meta(description="Draws of the baseline, where there are several.")] | UnsetType = UNSET
    segments: Annotated[str, Meta(description="Where the segments are from.")] | UnsetType = UNSET
    groups: Annotated[list[Group], Meta(description="A row for each segment, the rest and the whole.")] | UnsetType = (
        UNSET
    )
    labels: Annotated[list[str], Meta(description="Labels of the groups.")] | UnsetType = UNSET
    dropped: Annotated[list[str], Meta(description="Masks that are empty.")] | UnsetType = UNSET
    merged: Annotated[list[tuple[str, str]], Meta(description="Masks that are equal to another.")] | UnsetType = UNSET
    cropped: (
        Annotated[dict[str, Number], Meta(description="Part of each mask that the model's crop cuts off.")] | UnsetType
    ) = UNSET
    rescued: Annotated[list[str], Meta(description="Masks too small for the model's grid.")] | UnsetType = UNSET
    detection: Annotated[int, Meta(description="Index of the instance; of segmenters.")] | UnsetType = UNSET
    box: Annotated[Box, Meta(description="Box of the instance; of segmenters.")] | UnsetType = UNSET
    detection_score: Annotated[Number, Meta(description="Probability of the instance; of segmenters.")] | UnsetType = (
        UNSET
    )


class PathExplanation(_Explanation, frozen=True, kw_only=True):
    """Explanation of a score by integrated gradients along a path from a baseline."""

    baseline: str
    baseline_score: Number
    residual: Annotated[Number, Meta(description="Score less baseline score less all attribution: what was missed.")]
    relative_residual: Number
    steps: Annotated[int, Meta(description="Points on each path; with a tolerance, those that it took.")]
    quadrature: str | UnsetType = UNSET
    tolerance: Number | UnsetType = UNSET
    converged: Annotated[bool, Meta(description="True where the tolerance was met.")] | UnsetType = UNSET
    stability: Annotated[Number, Meta(description="Largest relative change at the last refinement.")] | UnsetType = (
        UNSET
    )
    largest: Annotated[str | None, Meta(description="The group that carries most.")] | UnsetType = UNSET
    refinement: list[Part] | UnsetType = UNSET


class Noise(Struct, frozen=True, kw_only=True):
    """The noise that a map was averaged over."""

    samples: int
    std: Number
    seed: int
    statistic: str


class Missed(Struct, frozen=True, kw_only=True):
    """Residual of path integrals: the part of the score's difference that they missed."""

    residual: Annotated[Number, Meta(description="Score less baseline score less the sum of the integrals.")]
    relative_residual: Number


class MapExplanation(_Explanation, frozen=True, kw_only=True):
    """Explanation of a score by any other method."""

    options: Annotated[dict[str, Any], Meta(description="Options of the method, given or not.")]
    baseline: Annotated[str, Meta(description="Baseline, of methods that have one.")] | UnsetType = UNSET
    baseline_score: Annotated[Number, Meta(description="Score of the baseline, averaged over draws.")] | UnsetType = (
        UNSET
    )
    integrals: Annotated[Missed, Meta(description="Of the path integrals whose regions a map is.")] | UnsetType = UNSET
    uncertainty: (
        Annotated[Number, Meta(description="Twice the largest standard error of a segment, relative.")] | UnsetType
    ) = UNSET
    converged: Annotated[bool, Meta(description="True where the tolerance was met.")] | UnsetType = UNSET
    layer: Annotated[str, Meta(description="Layer that it looked at.")] | UnsetType = UNSET
    normalized: bool | UnsetType = UNSET
    smooth: Noise | UnsetType = UNSET


class Explanations(_Answer, frozen=True, kw_only=True):
    """Explanations of several classes, in the order in which the request names them."""

    # A union of untagged types is nothing that msgspec decodes.
    explanations: Annotated[
        list[Any],
        Meta(
            description="Each as the answer for its class alone.",
            extra_json_schema={
                "items": {"anyOf": [{"$ref": f"#/components/schemas/{one}Explanation"} for one in ("Path", "Map")]}
            },
        ),
    ]


class Flow(Struct, frozen=True, kw_only=True):
    """The weights with which the attention moves along the graph."""

    stay: Number
    one_step: Number = field(name="one step")
    two_steps: Number = field(name="two steps")


class ScoredToken(Struct, frozen=True, kw_only=True):
    """A word of a caption, or its end sign."""

    word: str
    log_probability: Number


class Token(ScoredToken, frozen=True, kw_only=True):
    """A word of a caption, and what the model attended to."""

    attention: Annotated[list[Number], Meta(description="Attention to each node.")]
    beta: Annotated[Number, Meta(description="Weight of content against flow.")]
    flow_gate: Flow


class ScoredCaption(Struct, frozen=True, kw_only=True):
    """A caption with its scores."""

    caption: str
    log_probability: Number
    mean_log_probability: Annotated[Number, Meta(description="Divided by the number of words; the order of captions.")]
    ended: Annotated[bool, Meta(description="False where it was cut off.")]
    tokens: list[ScoredToken]


class Node(Struct, frozen=True, kw_only=True):
    """A node of a scene graph."""

    role: Literal["object", "attribute", "relationship"]
    name: str
    box: Annotated[Box, Meta(description="Left, top, width and height in pixels of the upright photo.")]
    object_id: Id | UnsetType = UNSET
    order: (
        Annotated[int, Meta(description="Place among the object's attributes, from 1; 0 of objects.")] | UnsetType
    ) = UNSET
    subject_id: Annotated[Id, Meta(description="Subject, of a relationship.")] | UnsetType = UNSET


class _CaptionOfGraph(Struct, frozen=True, kw_only=True):
    caption: str
    log_probability: Number
    mean_log_probability: Number
    ended: bool
    tokens: list[Token]
    nodes: list[Node]
    dropped: Annotated[list[Node], Meta(description="Nodes that the limit kept from the model.")]
    graph: Annotated[str, Meta(description="Name of the graph, where the request has graphs by name.")] | UnsetType = (
        UNSET
    )


class CaptionedGraph(_CaptionOfGraph, frozen=True, kw_only=True):
    """A graph and its captions."""

    n_best: Annotated[list[ScoredCaption], Meta(description="The captions of the search, best first.")]


class CaptionPrediction(_Answer, frozen=True, kw_only=True):
    """Captions of a photo, for each graph."""

    beams: Annotated[int, Meta(description="Captions that the search followed.")]
    graphs: list[CaptionedGraph]


class _WordPath(Struct, frozen=True, kw_only=True):
    word: str
    position: Annotated[int, Meta(description="Place in the caption, from 0.")]
    score: Number
    baseline_score: Number
    residual: Number
    relative_residual: Number
    evaluations: int
    quadrature: str | UnsetType = UNSET
    steps: int | UnsetType = UNSET
    tolerance: Number | UnsetType = UNSET
    converged: bool | UnsetType = UNSET
    stability: Number | UnsetType = UNSET


class NodeGroup(Struct, frozen=True, kw_only=True):
    """A node as a group of features, the photo's own feature (global), or all of them (whole)."""

    label: str
    kind: Literal["object", "attribute", "relationship", "global", "whole"]
    attribution: Number
    directional: Number
    dividend: Number
    value: Number
    norm: Number


class LargestNode(Struct, frozen=True, kw_only=True):
    """The node that carries most of a word's score."""

    index: int
    label: str


class LargestRegion(Struct, frozen=True, kw_only=True):
    """The box that carries most of a word's score, all nodes with it together."""

    box: Box
    nodes: list[int]
    attribution: Number


class ExplainedWord(_WordPath, frozen=True, kw_only=True):
    """A word of a caption, and what decided it."""

    groups: list[NodeGroup]
    largest_node: LargestNode
    largest_region: LargestRegion


class MappedWord(_WordPath, frozen=True, kw_only=True):
    """A word of a caption whose score was attributed to pixels."""


class WordMaps(Struct, frozen=True, kw_only=True):
    """The attributions to pixels, whose tensors are in the other forms of the answer."""

    baseline: str
    height: int
    width: int
    words: list[MappedWord]


class ExplainedGraph(_CaptionOfGraph, frozen=True, kw_only=True):
    """A graph, its caption, and what decided each word."""

    own_caption: Annotated[bool, Meta(description="False where the request has the caption.")]
    score_kind: Annotated[str, Meta(description="Score of a word that is explained.")]
    words: list[ExplainedWord]
    map: WordMaps | UnsetType = UNSET


class CaptionExplanation(_Answer, frozen=True, kw_only=True):
    """Explanation of the words of captions, for each graph."""

    graphs: list[ExplainedGraph]


class Refusal(Struct, frozen=True, kw_only=True):
    """A request that was not answered."""

    code: Annotated[int, Meta(description="Status of HTTP.")]
    error: Annotated[str, Meta(description="Status as a short word.")]
    field: Annotated[str, Meta(description="Part of the request at fault.")]
    message: Annotated[str, Meta(description="What was wanted, and what was given.")]


class Liveness(Struct, frozen=True, kw_only=True):
    """The front door is there."""

    live: bool


ModelState = Literal["READY", "LOADING", "UNAVAILABLE"]


class Readiness(Struct, frozen=True, kw_only=True):
    """The state of each model, by its name, with its version where there are several."""

    ready: Annotated[bool, Meta(description="True where every model has a worker that is ready.")]
    models: dict[str, ModelState]
    unready: list[str]


class Unreadiness(Refusal, frozen=True, kw_only=True):
    """An error that names the models that are not ready."""

    ready: bool | UnsetType = UNSET
    models: dict[str, ModelState] | UnsetType = UNSET
    unready: list[str] | UnsetType = UNSET
