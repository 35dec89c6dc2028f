"""Requests for captions and their explanations: a photo or features, graphs, and options, as JSON or a form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from imagexplain.api.body import HEADER, body_fields, check_bytes, header_options, merge, plain
from imagexplain.api.features import GivenFeatures, features_of
from imagexplain.api.graphs import GivenGraph, check_nodes, graphs_of
from imagexplain.api.options import (
    ANNOTATED,
    CAPTION_COUNTS,
    GRAPH_OPTIONS,
    PATH_OPTIONS,
    PathOptions,
    PictureOptions,
    choice,
    count,
    path_options,
    picture_options,
)
from imagexplain.api.request import GZIP, JSON, PNG, SAFETENSORS, Kind, negotiate
from imagexplain.errors import ArgumentError, RequestError, shown
from imagexplain.limits import CaptionLimits, Limits
from imagexplain.vision.decode import Photo, decode, from_base64

MEDIA: dict[Kind, tuple[str, ...]] = {
    "prediction": (JSON, GZIP, SAFETENSORS),
    "explanation": (JSON, GZIP, SAFETENSORS, PNG),
}
"""Media types of the answers by endpoint, the default first."""

SCORES = ("log_probability", "logit")
"""Scores of a word that are explained."""

BASELINES = ("black", "white", "mean")
"""Photos at which the path of a map of pixels may start."""

OPTIONS: dict[Kind, tuple[str, ...]] = {
    "prediction": (*GRAPH_OPTIONS, *CAPTION_COUNTS),
    "explanation": (
        *(*GRAPH_OPTIONS, *(name for name in CAPTION_COUNTS if name != "n_best"), "caption", "words", "score"),
        *(*PATH_OPTIONS, "map", "baseline", "picture"),
    ),
}
"""Names of the options by endpoint."""

MAX_NAMED_WORDS = 100
"""Words that a request may name, at most."""


@dataclass(frozen=True)
class CaptionDefaults:
    """The options that a captioner's spec sets where the client says nothing; see :class:`CaptionRequest`."""

    beams: int = 5
    n_best: int = 1
    max_words: int = 25
    node_limit: int | None = None
    path: PathOptions = field(default_factory=PathOptions)
    score: str = "log_probability"
    baseline: str = "black"


@dataclass(frozen=True)
class CaptionRequest:
    """One request, checked.

    Attributes:
        kind: ``prediction`` or ``explanation``.
        accept: Media type of the answer, one of ``MEDIA[kind]``.
        photo: Upright photo, None where there are only features.
        features: Precomputed features, None where the server is to make them.
        graphs: Graphs to be captioned, at least one.
        beams: Number of captions that the search follows.
        n_best: Number of captions in the answer, for each graph.
        max_words: Number of words after which a caption is cut off, the end sign included.
        node_limit: Number of nodes after which a graph is cut off; None for none.
        captions: Caption to be explained, of each graph; None for the model's own.
        words: Places and words of a caption that are to be explained; None for all but the end sign.
        score: Score of a word that is explained, one of ``SCORES``.
        path: Path of integrated gradients.
        wants_map: Flag for a map of the photo's pixels.
        baseline: Photo at which the path of that map starts, one of ``BASELINES``.
        picture: Contents of ``image/png``.
    """

    kind: Kind
    accept: str
    photo: Photo | None
    features: GivenFeatures | None
    graphs: tuple[GivenGraph, ...]
    beams: int
    n_best: int
    max_words: int
    node_limit: int | None
    captions: tuple[str | None, ...]
    words: tuple[int | str, ...] | None
    score: str
    path: PathOptions
    wants_map: bool
    baseline: str
    picture: PictureOptions = ANNOTATED


def parse(
    row: Mapping[str, Any],
    headers: Mapping[str, str],
    *,
    kind: Kind,
    limits: Limits,
    captions: CaptionLimits,
    defaults: CaptionDefaults,
) -> CaptionRequest:
    """The request in one row of a batch.

    Args:
        row: ``{"body": …}`` or ``{"data": …}``; for multipart one entry for each part.
        headers: Request headers, names in lower case.
        kind: Endpoint that was called.
        limits: Upper bounds of any request.
        captions: Upper bounds of one for captions.
        defaults: Options where the client says nothing.

    Raises:
        RequestError: 400, 406, 413, 415 or 422. No other exception, whatever the bytes.
    """
    accept = negotiate(headers.get("accept", ""), MEDIA[kind])
    check_bytes(row, limits)
    fields, parts = body_fields(row, headers, needs_image=False)
    if "img_data" in fields:
        raise RequestError(400, "img_data", "wanted the photo as image, an encoded file")
    options = merge(fields, parts, header_options(headers.get(HEADER, "")), OPTIONS[kind])
    beams = count("beams", options, defaults.beams, captions)
    n_best = count("n_best", options, min(defaults.n_best, beams), captions)
    if n_best > beams:
        raise RequestError(400, "n_best", f"wanted at most the {beams} captions that the search follows, got {n_best}")
    max_words = count("max_words", options, defaults.max_words, captions)
    node_limit = defaults.node_limit
    if "node_limit" in options:
        node_limit = count("node_limit", options, 1, captions)
    path = path_options(options, limits, defaults.path)
    score = choice("score", options.get("score"), SCORES, defaults.score)
    words, picture = _words(options.get("words")), picture_options(options)
    graphs = graphs_of(options, captions)
    for given in graphs:
        check_nodes(given, node_limit, captions)
    sentences = _captions(options.get("caption"), len(graphs))
    features = features_of(options.get("features"))
    photo = _photo(fields, limits)
    _check_photo(kind, accept, photo, features, graphs)
    makes_features = photo is not None and features is None
    wants_map = options.get("map", makes_features and accept in (GZIP, SAFETENSORS))
    if not isinstance(wants_map, bool):
        raise RequestError(400, "map", f"wanted true or false, got {shown(wants_map)}")
    if wants_map and not makes_features:
        raise RequestError(422, "map", "is of pixels that the server makes features of: wanted a photo and no features")
    if "baseline" in options and not wants_map:
        raise RequestError(400, "baseline", "is where the path of a map starts: wanted map=true beside it")
    return CaptionRequest(
        kind,
        accept,
        photo,
        features,
        graphs,
        beams,
        n_best,
        max_words,
        node_limit,
        sentences,
        words,
        score,
        path,
        wants_map,
        choice("baseline", options.get("baseline"), BASELINES, defaults.baseline),
        picture,
    )


def _photo(fields: Mapping[str, Any], limits: Limits) -> Photo | None:
    value = plain("image", fields.get("image"))
    if value is None:
        return None
    return decode(value if isinstance(value, bytes) else from_base64(value), limits)


def _check_photo(
    kind: Kind, accept: str, photo: Photo | None, features: GivenFeatures | None, graphs: tuple[GivenGraph, ...]
) -> None:
    """Refuse a request that has neither photo nor features, boxes beyond the photo, and a picture of nothing.

    Raises:
        RequestError: 400.
    """
    if photo is None and features is None:
        raise RequestError(400, "image", "wanted a photo, or features of it, got neither")
    if photo is not None:
        height, width = photo.size
        for given in graphs:
            try:
                given.graph.check_within(height, width)
            except ArgumentError as error:
                raise RequestError(400, f"{given.field}.{error.field}", error.message) from None
    if accept == PNG and photo is None:
        raise RequestError(400, "image", "wanted the photo that the picture is drawn over, got features alone")
    if accept == PNG and len(graphs) > 1:
        raise RequestError(400, "graphs", f"wanted one graph for a picture, got {len(graphs)}")
    if features is not None and features.boxes is None and len(graphs) > 1:
        wanted = "wanted boxes beside the regions, for there are several graphs"
        raise RequestError(400, "features.boxes", f"{wanted}, got none")


def _captions(value: object, graphs: int) -> tuple[str | None, ...]:
    if value is None:
        return (None,) * graphs
    listed = value if isinstance(value, list) else [value]
    if len(listed) != graphs:
        raise RequestError(400, "caption", f"wanted one caption for each of {graphs} graphs, got {len(listed)}")
    for one in listed:
        if one is not None and not isinstance(one, str):
            raise RequestError(400, "caption", f"wanted text, got {shown(one)}")
    return tuple(listed)


def _words(value: object) -> tuple[int | str, ...] | None:
    if value is None or value == "all":
        return None
    if isinstance(value, str):
        value = [int(part) if re.fullmatch("[0-9]{1,9}", part) else part for part in re.split(r"[\s,]+", value) if part]
    elif isinstance(value, int):
        value = [value]
    if not isinstance(value, list) or not value:
        raise RequestError(400, "words", f"wanted all, or words and their places from 0, got {shown(value)}")
    if len(value) > MAX_NAMED_WORDS:
        raise RequestError(413, "words", f"wanted at most {MAX_NAMED_WORDS}, got {len(value)}")
    for one in value:
        if isinstance(one, bool) or not isinstance(one, int | str):
            raise RequestError(400, "words", f"wanted words, or their places from 0, got {shown(one)}")
    return tuple(value)
