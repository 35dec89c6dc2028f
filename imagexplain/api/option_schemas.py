"""JSON Schemas of the options of requests, made from the tables and constants that the parsers read.

An option has two of them: as a field of JSON, and as text in a form, in a query or in ``X-Explain-Options``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from imagexplain.api import caption_request
from imagexplain.api.caption_request import MAX_NAMED_WORDS, CaptionDefaults
from imagexplain.api.features import MAX_REGIONS
from imagexplain.api.method_options import (
    CLIENTS_NAMES,
    MAX_NAME,
    METHOD_COUNTS,
    SMOOTHING_COUNTS,
    SMOOTHING_STD,
)
from imagexplain.api.option_relations import needs_of, part_of
from imagexplain.api.options import (
    AMOUNTS,
    BASELINES,
    CAPTION_COUNTS,
    COUNTS,
    FILES,
    MODEL_NAME,
    PICTURES,
    QUADRATURES,
    SEGMENTS,
    SWITCHES,
    Amount,
    Baseline,
    Count,
    Segments,
)
from imagexplain.api.request import MAX_LABEL, OUTPUTS, Contract, Defaults, Kind
from imagexplain.attribution.config import Smoothing
from imagexplain.attribution.registry import METHODS
from imagexplain.limits import CaptionLimits, Limits
from imagexplain.vision import masks
from imagexplain.vision.scene_graph import MAX_ATTRIBUTES

Schema = dict[str, Any]

ModelKind = Literal["classifier", "segmenter", "captioner"]

BASE64: Schema = {"type": "string", "contentEncoding": "base64"}
"""A file within JSON."""

EXAMPLE_PHOTO = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlEQVR42mM8YaPBgA0wMeAAg1MCAO+wATws8x7vAAAAAElFTkSuQmCC"
)
"""PNG of 8 by 8 pixels."""

EXAMPLE_GRAPH: Schema = {"objects": [{"box": [0, 0, 8, 8], "attributes": 1}]}
"""Graph over that photo."""

_TOLD = ("description", "default", "x-part", "x-needs")
"""Entries of an option's schema that say nothing of its form."""

DESCRIPTIONS: Mapping[str, str] = {
    "target_class": "Class to explain: a label, one of its comma-separated synonyms, or an index; or a list of such.",
    "top_k": "Number of the best classes, each to be explained, instead of `target_class`.",
    "contrast_class": "Class whose score is taken off: why the class to explain, and not this one.",
    "method": "Attribution method; each has options of its own.",
    "combine": "Two methods whose maps are multiplied, the second one coarse.",
    "normalized": "Scale both maps of `combine` and their product to 0…1 first.",
    "smooth": "Noise over which the map is averaged.",
    "layer": "Dotted name of the layer that the method looks at.",
    "steps": "Points on each path.",
    "tolerance": "Accuracy to refine to, which steps or samples then bound; 0 for none.",
    "quadrature": "Places and weights of the points.",
    "baseline": "Start of the path.",
    "blur": "Width of `baseline=blur`, as a part of the shorter side.",
    "draws": "Draws of `baseline=uniform`.",
    "seed": "Seed of random numbers: of `baseline=uniform`, or of the method.",
    "baseline_image": "File of the second image of `baseline=image`.",
    "baseline_tensor": "Model-space input of `baseline=tensor`, (C, H, W) or several draws (D, C, H, W).",
    "masks": "Groups to score, over the upright photo.",
    "segments": "Groups that the server makes: superpixels, a grid, or what the segmenter of this name finds.",
    "absent": "Rows of the table of groups whose pixels are replaced by the baseline; the options beside it, which are "
    "ignored without it, are those of the explanation whose table that is.",
    "n_segments": "Number of superpixels, about.",
    "compactness": "Weight of nearness against colour in superpixels.",
    "rows": "Rows of the grid.",
    "columns": "Columns of the grid.",
    "threshold": "Score that an instance must exceed.",
    "fallback": "Segments in place of a segmenter's that does not answer.",
    "pixels": "Score every pixel as a group, too.",
    "detection": "Index of the instance to explain.",
    "picture": "Contents of `image/png`: with title, key and legend, or the bare overlay.",
    "picture_sigma": "Smoothing of a map of pixels in `image/png`, as a part of the shorter side; 0 for none.",
    "outputs": "Further tensors of the answer.",
    "graph": "Scene graph to caption.",
    "graphs": "Several scene graphs, as a list or by name.",
    "features": "Precomputed features of the photo: as numbers, or a safetensors file.",
    "beams": "Captions that the search follows.",
    "n_best": "Captions of each graph in the answer, at most `beams`.",
    "max_words": "Words after which a caption is cut off, its end sign included.",
    "node_limit": "Nodes after which a graph is cut off.",
    "caption": "Caption to explain in place of the model's own; with several graphs a list.",
    "words": "Words to explain: `all`, or places from 0 and words.",
    "score": "Score of a word that is explained.",
    "map": "Attribute to pixels, too.",
}
"""Meaning of the options that belong to no single method."""


@dataclass(frozen=True)
class Interface:
    """Contents of a served model's requests and answers, as its spec and its kind say.

    Attributes:
        address: Name in addresses, with the version after a slash where that is asked for.
        kind: Kind of the model.
        description: Words of the spec.
        limits: Upper bounds of a request.
        defaults: Options where the client says nothing.
        contract: Options and answers of classifiers and segmenters.
        captions: Further upper bounds of captioners.
        threshold: Threshold of segmenters, where the client says nothing.
        labels: Names of its classes, by index; empty where nothing is known of them.
        methods: Names of the methods that it supports; None where the archive does not say.
    """

    address: str
    kind: ModelKind
    description: str = ""
    limits: Limits = field(default_factory=Limits)
    defaults: Defaults | CaptionDefaults = field(default_factory=Defaults)
    contract: Contract = field(default_factory=Contract)
    captions: CaptionLimits = field(default_factory=CaptionLimits)
    threshold: float | None = None
    labels: tuple[str, ...] = ()
    methods: tuple[str, ...] | None = None

    def options(self, endpoint: Kind) -> tuple[str, ...]:
        """Names of the options that an endpoint reads."""
        if self.kind == "captioner":
            return caption_request.OPTIONS[endpoint]
        return self.contract.prediction_options if endpoint == "prediction" else self.contract.explanation_options

    def media(self, endpoint: Kind) -> tuple[str, ...]:
        """Media types of an endpoint's answers, the default first."""
        return caption_request.MEDIA[endpoint] if self.kind == "captioner" else self.contract.media[endpoint]

    def ignores_others(self, endpoint: Kind) -> bool:
        """Tell whether options that an endpoint does not read are no error there."""
        return endpoint == "prediction" and self.kind != "captioner"


def json_options(model: Interface, endpoint: Kind) -> dict[str, Schema]:
    """Schemas of an endpoint's options as fields of JSON, by name; null counts as not given."""
    return {name: _nullable(_described(model, name)) for name in model.options(endpoint)}


def text_options(model: Interface, endpoint: Kind) -> dict[str, Schema]:
    """Schemas of an endpoint's options as text, by name."""
    return {name: _as_text(name, _described(model, name)) for name in model.options(endpoint)}


def photo_list(model: Interface) -> Schema:
    """Schema of ``img_data``, the original servers' nested list."""
    assert isinstance(model.defaults, Defaults)
    value = {"type": "integer", "minimum": 0, "maximum": 255}
    rows = _list(_list(value))
    layouts: dict[str, list[Schema]] = {
        "hwc": [rows, _list(_list(_list(value, 3, 4)))],
        "chw": [_list(_list(_list(value)), 3, 3)],
    }
    own = layouts[model.defaults.layout]
    forms = [*own, _list(_list(_list(value, 3, 3))), *layouts["chw"]] if model.contract.any_layout else own
    return {
        "description": f"Photo as nested lists, {model.defaults.layout}, {model.defaults.order}.",
        **(_any(*forms) if len(forms) > 1 else forms[0]),
    }


def _described(model: Interface, name: str) -> Schema:
    """Schema of an option with its meaning and default, null left out."""
    described: Schema = {"description": _description(model, name), **_schema(model, name)}
    described["x-part"] = part_of(name, captioner=model.kind == "captioner")
    if needs := needs_of(name, thresholds=model.contract.thresholds):
        described["x-needs"] = needs
    return _with_default(described, _defaults(model).get(name))


def _with_default(schema: Schema, default: Any) -> Schema:
    """The schema with its default, unless there is none or the model's limit lies below it."""
    if default is None or default > schema.get("maximum", default):
        return schema
    return schema | {"default": default}


def _description(model: Interface, name: str) -> str:
    told = DESCRIPTIONS.get(name, "")
    if model.kind == "captioner" or name in DESCRIPTIONS.keys() - {"score", "seed", "steps"}:
        return told
    if name == "score":
        told = ""
    library = {said: own for own, said in CLIENTS_NAMES.items()}.get(name, name)
    for method in METHODS.values():
        if library in method.options:
            meaning = argument_texts(method.function).get(library, "")
            told += f"\n- `{method.name}`: {meaning} Default: {method.options[library]}."
    return told.strip()


def argument_texts(function: Callable[..., Any]) -> dict[str, str]:
    """Meaning of a function's arguments, by name, from its docstring.

    Example:
        >>> from imagexplain.api.option_schemas import argument_texts
        >>> from imagexplain.attribution.methods.rise import rise
        >>> argument_texts(rise)["keep"]
        'Probability in (0, 1] that a cell is on.'
    """
    _, _, section = (inspect.getdoc(function) or "").partition("\nArgs:\n")
    section = re.split(r"\n(?=\S)", section)[0]
    found = re.findall(r"^ {4}(\w+): (.*(?:\n {6,}.*)*)", section, re.MULTILINE)
    return {name: re.sub(r":\w+:`~?", "`", " ".join(text.split())).replace("``", "`") for name, text in found}


def _defaults(model: Interface) -> Mapping[str, Any]:
    """Options where the client says nothing, by name; those of methods stand in their descriptions."""
    if isinstance(model.defaults, CaptionDefaults):
        return {**asdict(model.defaults), **asdict(model.defaults.path), "picture": PICTURES[0]}
    segments, own = asdict(Segments("")), asdict(model.defaults)
    return {
        **{name: segments[name] for name in ("n_segments", "rows", "columns")},
        **{name: own[name] for name in ("method", "steps", "tolerance", "quadrature", "baseline")},
        "blur": Baseline.blur,
        "draws": Baseline.draws,
        "threshold": model.threshold,
        "picture": PICTURES[0],
    }


def _schema(model: Interface, name: str) -> Schema:
    """Schema of an option's value, null left out."""
    captioner = model.kind == "captioner"
    words = _words(captioner, model.methods).get(name)
    if words is not None:
        return {"enum": list(words)}
    if name in COUNTS:
        return _count(COUNTS[name], model.captions if name in CAPTION_COUNTS else model.limits)
    if name in AMOUNTS:
        return _amount(AMOUNTS[name])
    if name in SWITCHES:
        return {"type": "boolean"}
    structured = _structured(model)
    if name in structured:
        return structured[name]
    return _of_method({said: own for own, said in CLIENTS_NAMES.items()}.get(name, name), model.limits)


def _words(captioner: bool, methods: tuple[str, ...] | None) -> dict[str, tuple[str, ...]]:
    """Values of the options that are one of a few words."""
    common = {"quadrature": QUADRATURES, "picture": PICTURES}
    if captioner:
        return common | {"baseline": caption_request.BASELINES, "score": caption_request.SCORES}
    return common | {"baseline": BASELINES, "fallback": SEGMENTS, "method": methods or tuple(METHODS)}


def _of_method(name: str, limits: Limits) -> Schema:
    """Schema of a method's option, by the library's name."""
    kind = METHODS.options[name]
    if kind is int:
        return _count(METHOD_COUNTS[name], limits) if name in METHOD_COUNTS else {"type": "integer"}
    if kind is str:
        words = METHODS.words.get(name)
        return {"enum": list(words)} if words else {"type": "string", "maxLength": MAX_NAME}
    return {"type": "number" if kind is float else "boolean"}


def _structured(model: Interface) -> dict[str, Schema]:
    """Schemas of the options that are more than a number or a word."""
    limits, captions = model.limits, model.captions
    text = {"type": "string"}
    label = {"type": "string", "minLength": 1, "maxLength": MAX_LABEL}
    named = _any(label, {"type": "integer"})
    word = _any({"type": "integer"}, text)
    methods = list(METHODS if model.methods is None else model.methods)
    coarse = [name for name in methods if METHODS[name].coarse] or methods
    return {
        "target_class": _any(label, {"type": "integer"}, _list(named, 1, limits.max_targets)),
        "contrast_class": named,
        "combine": {
            "type": "array",
            "prefixItems": [{"enum": methods}, {"enum": coarse}],
            "minItems": 2,
            "maxItems": 2,
        },
        "smooth": {
            "type": "object",
            "properties": {
                "samples": _with_default(_count(SMOOTHING_COUNTS["samples"], limits), Smoothing.samples),
                "std": _with_default(_amount(SMOOTHING_STD), Smoothing.std),
                "seed": _with_default(_count(SMOOTHING_COUNTS["seed"], limits), Smoothing.seed),
                "statistic": _with_default(_of_method("statistic", limits), Smoothing.statistic),
            },
            "additionalProperties": False,
        },
        "layer": {"type": "string", "minLength": 1, "maxLength": MAX_NAME},
        "segments": {"type": "string", "pattern": f"^{MODEL_NAME}$"},
        "absent": _list({"type": "integer", "minimum": 0}, 1, limits.max_groups + 1),
        "outputs": {"type": "array", "items": {"enum": list(OUTPUTS)}},
        "masks": _masks(limits),
        "baseline_image": BASE64,
        "baseline_tensor": _any(*(_nested({"type": "number"}, depth) for depth in (3, 4))),
        "graph": GRAPH | {"examples": [EXAMPLE_GRAPH]},
        "graphs": _any(
            _list(GRAPH, 1, captions.max_graphs),
            {
                "type": "object",
                "additionalProperties": GRAPH,
                "propertyNames": {"not": {"const": "objects"}},
                "minProperties": 1,
                "maxProperties": captions.max_graphs,
            },
        ),
        "features": _features(),
        "caption": _any(text, _list({"type": ["string", "null"]}, 1, captions.max_graphs)),
        "words": _any(text | {"pattern": r"[^\s,]"}, {"type": "integer"}, _list(word, 1, MAX_NAMED_WORDS)),
    }


def _masks(limits: Limits) -> Schema:
    runs = {
        "type": "object",
        "properties": {
            "size": _list({"type": "integer", "minimum": 1}, 2, 2),
            "counts": _any({"type": "string"}, {"type": "array", "items": {"type": "integer", "minimum": 0}}),
        },
        "required": ["size", "counts"],
    }
    label = {"type": ["string", "null"], "minLength": 1, "maxLength": masks.MAX_LABEL}
    labelled = {"type": "object", "properties": {"label": label}}
    annotation = {"type": "object", "properties": {"segmentation": runs}, "required": ["segmentation"]}
    bare = {**runs, "not": {"required": ["segmentation"]}}
    coco = {"allOf": [labelled, _any(bare, annotation)]}
    pixel = {"enum": [False, True, 0, 1]}
    several = {"maxItems": limits.max_groups}
    return _any(
        {"description": "PNG whose values are labels, 0 for none.", **BASE64},
        {"description": "Run-length masks of COCO, or annotations with them.", "type": "array", "items": coco}
        | several,
        coco,
        {"description": "Nested lists of booleans.", **_nested(pixel, 2)},
        _nested(pixel, 3) | several,
    )


def _features() -> Schema:
    number = {"type": "number"}
    row = _list(number, 1)
    return _any(
        {
            "type": "object",
            "properties": {
                "image": {"description": "Feature of the whole photo.", **row},
                "regions": {"description": "A row for each box.", **_list(row, 1, MAX_REGIONS)},
                "boxes": {
                    "description": "Left, top, width and height of each row's box; without, the rows are the nodes'.",
                    **_list(_list(number, 4, 4), 1, MAX_REGIONS),
                },
            },
            "required": ["image", "regions"],
            "additionalProperties": False,
        },
        {"description": "Safetensors file of tensors so named.", **BASE64},
    )


def _graph() -> Schema:
    number, text, name = {"type": "number"}, {"type": "string"}, {"type": ["integer", "string"]}
    names = _list(text, 0, MAX_ATTRIBUTES)
    phrase = {"type": ["string", "null"]}
    small_object = {
        "type": "object",
        "properties": {
            "box": {"description": "Left, top, width and height, in pixels.", **_list(number, 4, 4)},
            "attributes": _any({"type": "integer", "minimum": 0, "maximum": MAX_ATTRIBUTES}, names),
            "name": text,
            "id": name,
        },
        "required": ["box"],
        "additionalProperties": False,
    }
    pair = {"type": "array", "prefixItems": [name, name, text], "minItems": 2, "maxItems": 3}
    region_object = {
        "type": "object",
        "properties": {"object_id": name, "name": text, "attributes": names, **dict.fromkeys("xywh", number)},
        "required": ["object_id", "name", "attributes", *"xywh"],
    }
    region_pair = {
        "type": "object",
        "properties": {"subject_id": name, "object_id": name, "name": text, "relationship_id": _nullable(name)},
        "required": ["subject_id", "object_id", "name"],
    }
    return _any(
        {
            "description": "Minimal form.",
            "type": "object",
            "properties": {
                "objects": _list(small_object, 1),
                "relationships": {"type": "array", "items": pair},
                "phrase": phrase,
            },
            "required": ["objects"],
            "additionalProperties": False,
        },
        {
            "description": "Entry of a region file.",
            "type": "object",
            "properties": {
                "objects": _list(region_object, 1),
                "relationships": {"type": "array", "items": region_pair},
                "phrase": phrase,
            },
            "required": ["objects", "relationships"],
        },
    )


def _as_text(name: str, schema: Schema) -> Schema:
    """Schema of an option's text. Numbers, words and truth values are themselves; all else stands as text."""
    told = {key: schema[key] for key in _TOLD if key in schema}
    if name in ("target_class", "contrast_class"):
        label, _, *several = schema["anyOf"]
        lists = [{"type": "string", "contentMediaType": "application/json", "contentSchema": one} for one in several]
        return told | (_any(label, *lists) if lists else label)
    if name == "outputs":
        return told | {"type": "string", "pattern": rf"^\s*({_either(OUTPUTS)})?\s*(,\s*({_either(OUTPUTS)})?\s*)*$"}
    if name == "absent":
        return told | {"type": "string", "pattern": r"^\s*[0-9]+\s*(,\s*[0-9]+\s*)*$"}
    if name in ("combine", "smooth"):
        content = {key: value for key, value in schema.items() if key not in told}
        written = "; or both between a comma" if name == "combine" else ""
        told["description"] += f" As JSON{written}."
        return told | {"type": "string", "contentMediaType": "application/json", "contentSchema": content}
    if name in FILES:
        told["description"] += " As JSON, or a file: in a form its bytes, elsewhere in base64."
        return told | {"type": "string"}
    return told | {"type": "string"} if name in ("caption", "words") else schema


def _either(words: tuple[str, ...]) -> str:
    return "|".join(words)


def _nullable(schema: Schema) -> Schema:
    """The schema, and null."""
    if "enum" in schema:
        return schema | {"enum": [*schema["enum"], None]}
    if "anyOf" in schema:
        return schema | {"anyOf": [*schema["anyOf"], {"type": "null"}]}
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return schema | {"type": [*kinds, "null"]}


def _count(bounds: Count, limits: Limits | CaptionLimits) -> Schema:
    most = bounds.upper(limits)
    return {"type": "integer", "minimum": bounds.least} | ({} if most is None else {"maximum": most})


def _amount(bounds: Amount) -> Schema:
    return {"type": "number", "minimum" if bounds.zero else "exclusiveMinimum": 0, "maximum": bounds.most}


def _any(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def _list(items: Schema, least: int = 1, most: int | None = None) -> Schema:
    return {"type": "array", "items": items, "minItems": least} | ({} if most is None else {"maxItems": most})


def _nested(items: Schema, depth: int) -> Schema:
    return _list(items if depth == 1 else _nested(items, depth - 1))


GRAPH = _graph()
"""Schema of a scene graph."""
