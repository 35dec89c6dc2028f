"""Options of requests, as type checkers know them. A server of another version may have others: all are sent."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict

from numpy.typing import NDArray

from imagexplain.client.photos import Photo

Label: TypeAlias = str | int
"""A class, by its label, one of its synonyms, or its index."""

Quadrature = Literal["gauss_legendre", "midpoint", "left", "right", "trapezoid"]
Baseline = Literal["zero", "black", "white", "mean", "blur", "uniform", "extremes", "image", "tensor"]
Picture = Literal["annotated", "plain"]
Segments = Literal["slic", "grid"]
Output = Literal[
    "integrated_grads",
    "integrated_directional_grads",
    "step_sizes",
    "intermediates",
    "output",
    "absolute_directional",
    "photo_masks",
    "photo_runs",
]

Graph: TypeAlias = Mapping[str, Any] | str | os.PathLike[str]
"""A scene graph: an object as of JSON, or the path of a file of JSON."""

Features: TypeAlias = Mapping[str, Any] | str | os.PathLike[str]
"""Features of a photo: `image`, `regions` and `boxes` as arrays or lists, or a file of JSON or safetensors."""


class Smooth(TypedDict, total=False):
    """The noise that a map is averaged over."""

    samples: int
    std: float
    seed: int
    statistic: Literal["mean", "square", "variance"]


class GraphOptions(TypedDict, total=False):
    """The options of a captioner, both of predictions and of explanations."""

    graph: Graph
    graphs: Sequence[Graph] | Mapping[str, Any] | str | os.PathLike[str]
    features: Features
    beams: int
    max_words: int
    node_limit: int


class GroupOptions(TypedDict, total=False):
    """The options of groups, but for `masks`, and those that their table depends on."""

    segments: Segments | str
    n_segments: int
    compactness: float
    rows: int
    columns: int
    threshold: float
    fallback: Segments
    pixels: bool
    baseline: Baseline
    blur: float
    draws: int
    seed: int
    baseline_image: Photo
    baseline_tensor: NDArray[Any] | list[Any]
    method: str
    combine: tuple[str, str] | list[str]
    target_class: Label | Sequence[Label]
    contrast_class: Label


class PredictOptions(GraphOptions, GroupOptions, total=False):
    """The options of predictions, but for `masks`: a classifier's without some groups, a segmenter's, a captioner's."""

    absent: Sequence[int]
    picture: Picture
    n_best: int


class MethodOptions(TypedDict, total=False):
    """The options of single methods."""

    cells: int
    comparisons: int
    composite: Literal["epsilon", "epsilon_gamma", "epsilon_plus"]
    conv_gamma: float
    deviations: float
    discard: float
    epsilon: float
    fraction: float
    gamma: float
    grad_step: float
    head_fusion: Literal["mean", "max", "min"]
    keep: float
    kernel: Literal["sigmoid", "rbf", "linear"]
    kernel_scale: float
    kernel_width: float
    layers: int
    least: int
    max_dist: float
    max_sigma: float
    permutations: int
    reading: Literal["mean", "model"]
    ridge: float
    samples: int
    score: Literal["logit", "probability", "log_probability"]
    scores: Literal["probabilities", "logits"]
    size: int
    sqrt: bool
    statistic: Literal["mean", "square", "variance"]
    std: float
    strength: float
    stride: int
    through_softmax: bool
    utility: Literal["rest", "score"]


class ExplainOptions(GraphOptions, GroupOptions, MethodOptions, total=False):
    """The options of explanations, but for `masks`; not every model takes each of them."""

    top_k: int
    normalized: bool
    smooth: Smooth
    layer: str
    steps: int
    tolerance: float
    quadrature: Quadrature
    detection: int
    picture: Picture
    picture_sigma: float
    outputs: Sequence[Output]
    caption: str | Sequence[str | None]
    words: str | int | Sequence[str | int]
    map: bool
