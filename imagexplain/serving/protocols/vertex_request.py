"""Requests of Vertex AI's endpoints: bodies of ``:explain`` and ``:predict``, checked.

Messages and fields are those of ``google.cloud.aiplatform.v1``, in the JSON of protocol buffers: names in
lowerCamelCase or as the definitions have them, enumerations as words or numbers. What has no counterpart is
refused by its name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from imagexplain.api.body import body_fields, check_bytes
from imagexplain.errors import RequestError, shown, unknown
from imagexplain.limits import Limits
from imagexplain.serving.messages import RawRequest
from imagexplain.serving.protocols import MAX_INSTANCES
from imagexplain.serving.protocols.instances import check_encoding, whole_numbers
from imagexplain.vision.attribution_picture import CLIP, AttributionPicture, ColourMap, Overlay, Polarity, Style

SPEC = "explanationSpecOverride"
METHODS = ("integratedGradientsAttribution", "xraiAttribution", "sampledShapleyAttribution")
"""Members of the union ``method`` of ExplanationParameters that have a counterpart."""

OWN_PARAMETERS = ("confidenceThreshold", "maxPredictions")
"""Fields of ImageClassificationPredictionParams, which choose among the predictions."""

NOT_OPTIONS = ("image", "img_data", "outputs", "picture", "picture_sigma", "masks", "baseline_image", "baseline_tensor")
"""Fields of this service's requests that ``parameters`` do not take: other parts of a call have them, or none."""

TYPES: Mapping[str, Style] = {"PIXELS": "pixels", "OUTLINES": "outlines"}
POLARITIES: Mapping[str, Polarity] = {"POSITIVE": "positive", "NEGATIVE": "negative", "BOTH": "both"}
COLOUR_MAPS: Mapping[str, ColourMap] = {
    "PINK_GREEN": "pink_green",
    "VIRIDIS": "viridis",
    "RED": "red",
    "GREEN": "green",
    "PINK_WHITE_GREEN": "pink_white_green",
    "RED_GREEN": "red_green",
}
OVERLAYS: Mapping[str, Overlay] = {
    "NONE": "none",
    "ORIGINAL": "original",
    "GRAYSCALE": "greyscale",
    "MASK_BLACK": "mask_black",
}
_NUMBERS = {
    "type": ("TYPE_UNSPECIFIED", "PIXELS", "OUTLINES"),
    "polarity": ("POLARITY_UNSPECIFIED", "POSITIVE", "NEGATIVE", "BOTH"),
    "colorMap": (*("COLOR_MAP_UNSPECIFIED", "PINK_GREEN", "VIRIDIS", "RED", "GREEN", "PINK_WHITE_GREEN", "RED_GREEN"),),
    "overlayType": ("OVERLAY_TYPE_UNSPECIFIED", "NONE", "ORIGINAL", "GRAYSCALE", "MASK_BLACK"),
    "encoding": ("ENCODING_UNSPECIFIED", "IDENTITY"),
}
"""Words of enumerations, each at its number."""


@dataclass(frozen=True)
class Instance:
    """An element of ``instances``: one image.

    Attributes:
        fields: Field ``image`` or ``img_data`` of this service's request.
        name: Key under which the image stands; None for an image alone.
    """

    fields: Mapping[str, msgspec.Raw]
    name: str | None


@dataclass(frozen=True)
class Method:
    """A member of the union ``method``.

    Attributes:
        name: One of :data:`METHODS`; None for the model's own method.
        count: Number of steps or of permutations.
        noise: Standard deviation of SmoothGrad's noise, in units of the model's input; None without.
        noisy: Number of SmoothGrad's samples.
        blur: Standard deviation of the blurred baseline, in pixels of the model's input; None without.
    """

    name: str | None = None
    count: int = 0
    noise: float | None = None
    noisy: int = 3
    blur: float | None = None


@dataclass(frozen=True)
class Call:
    """A call of ``:explain`` or ``:predict``.

    Attributes:
        instances: Images.
        options: Options of this service's requests, as ``parameters`` have them.
        method: Method of the explanations.
        top_k: Number of the best classes to explain, −1 for all; None where the request does not say.
        indices: Classes to explain, None likewise.
        feature: Name of the input in answers, where the metadata names it.
        output: Name of the output in answers.
        labels: Display names of the classes, where the metadata has them.
        baselines: Baselines of the input: from 0.0, black, to 1.0, white, or images.
        picture: Visualization; None for numbers.
        threshold: Confidence that a prediction must have.
        most: Number of predictions, best first; None for all, in the order of classes.
        deployed_model: Model of the endpoint that is to answer; None for any.
    """

    instances: Sequence[Instance]
    options: Mapping[str, Any]
    method: Method = Method()
    top_k: int | None = None
    indices: tuple[int, ...] | None = None
    feature: str | None = None
    output: str = "scores"
    labels: tuple[str, ...] | None = None
    baselines: tuple[float | Instance, ...] = ()
    picture: AttributionPicture | None = None
    threshold: float | None = None
    most: int | None = None
    deployed_model: str | None = None


@dataclass(frozen=True)
class Message:
    """A message: its fields under their names of JSON, each still the JSON text that it was.

    Attributes:
        path: Names that lead to it.
        fields: Fields, without those that are null.
    """

    path: str
    fields: Mapping[str, msgspec.Raw] = field(default_factory=dict)

    @classmethod
    def read(cls, value: msgspec.Raw | Mapping[str, msgspec.Raw], path: str, known: Collection[str]) -> Message:
        """The message in an object. Raises RequestError 400 for what is none, or for a field that is not known."""
        given = _object(value, path) if isinstance(value, msgspec.Raw) else value
        fields: dict[str, msgspec.Raw] = {}
        for name, own in given.items():
            json_name = camel(name)
            if json_name not in known:
                raise RequestError(400, _join(path, name), unknown("field", name, known))
            if json_name in fields:
                raise RequestError(400, _join(path, name), "wanted the field once, got it under two spellings")
            if bytes(own) != b"null":
                fields[json_name] = own
        return cls(path, fields)

    def at(self, name: str) -> str:
        """Path of a field."""
        return _join(self.path, name)

    def child(self, name: str, known: Collection[str]) -> Message | None:
        """The message in a field, None where there is none."""
        return Message.read(self.fields[name], self.at(name), known) if name in self.fields else None

    def value(self, name: str) -> Any:
        """The plain value of a field, None where there is none."""
        return plain(self.fields[name], self.at(name)) if name in self.fields else None

    def refuse(self, names: Mapping[str, str]) -> None:
        """Refuse fields that have no counterpart, each with its reason, where they say anything. Raises 422."""
        for name, reason in names.items():
            if self.value(name) not in _NOTHING:
                raise RequestError(422, self.at(name), f"has no counterpart here: {reason}")

    def number(self, name: str, low: float, high: float, default: float) -> float:
        """A number within bounds. Raises RequestError 400."""
        value = self.value(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise RequestError(400, self.at(name), f"wanted a number in {low:g}..{high:g}, got {shown(value)}")
        return float(value)

    def integer(self, name: str, low: int, high: int) -> int | None:
        """A whole number within bounds, which JSON may have as text or with a point. Raises RequestError 400."""
        value = self.value(name)
        if value is None:
            return None
        found = whole(value)
        if found is None or not low <= found <= high:
            raise RequestError(400, self.at(name), f"wanted a whole number in {low}..{high}, got {shown(value)}")
        return found

    def text(self, name: str) -> str | None:
        """A text, None where there is none. Raises RequestError 400."""
        value = self.value(name)
        if value is not None and not isinstance(value, str):
            raise RequestError(400, self.at(name), f"wanted a text, got {shown(value)}")
        return value

    def word(self, name: str, known: Collection[str]) -> str | None:
        """A word of an enumeration, which JSON may have as a number; None where it is unspecified. Raises 400."""
        value = self.value(name)
        words = _NUMBERS[name]
        if type(value) is int and 0 <= value < len(words):
            value = words[value]
        if value is None or value == words[0]:
            return None
        if value not in known:
            raise RequestError(400, self.at(name), unknown("word", value, known))
        return str(value)


def read(raw: RawRequest, limits: Limits, deployed: Mapping[str, Any] | None = None) -> Call:
    """The call in a request.

    Args:
        raw: The request.
        limits: Upper bounds.
        deployed: ExplanationSpec of the model, which the request's override changes; None where there is none.

    Raises:
        RequestError: 400 for what is malformed, 413 for what is too large, 422 for what has no counterpart.
    """
    check_encoding(raw)
    check_bytes(raw.parts, limits)
    body, parts = body_fields(raw.parts, raw.headers)
    if parts or any(isinstance(value, bytes) for value in body.values()):
        raise RequestError(400, "body", "wanted a JSON object with instances")
    known = (
        "instances",
        "parameters",
        "endpoint",
        "labels",
        "deployedModelId",
        *((SPEC,) if raw.kind == "explanation" else ()),
    )
    message = Message.read({name: _raw(value) for name, value in body.items()}, "", known)
    options, threshold, most = _parameters(message)
    model = message.text("deployedModelId") or None
    call = Call(_instances(message), options, threshold=threshold, most=most, deployed_model=model)
    given = message.fields.get(SPEC)
    if deployed is not None:
        given = _merged(_raw(deployed), given or msgspec.Raw(b"{}"), SPEC)
    return call if given is None else _with_spec(call, Message.read(given, SPEC, _SPEC_FIELDS))


def read_deployed(deployed: Mapping[str, Any]) -> Call:
    """Call that a model's ExplanationSpec asks for, without instances. Raises RequestError as :func:`read`."""
    return _with_spec(Call((), {}), Message.read(_raw(deployed), "", _SPEC_FIELDS))


def instance(value: msgspec.Raw, path: str) -> Instance:
    """The image in an element of ``instances`` or of a baseline: base64 in an object or alone, or nested lists."""
    found = _image(value, path)
    if found is not None:
        return Instance(found, None)
    given = {name: own for name, own in _object(value, path).items() if camel(name) != "mimeType"}
    if len(given) != 1:
        wanted = "wanted an image, as b64, as content or as nested lists, under one name"
        raise RequestError(400, path, f"{wanted}, got the fields {', '.join(map(shown, given)) or '(none)'}")
    ((name, own),) = given.items()
    found = _image(own, _join(path, name))
    if found is None:
        raise RequestError(400, _join(path, name), f'wanted {{"b64": …}} or nested lists, got {shown(bytes(own)[:40])}')
    return Instance(found, "image" if name == "content" else name)


def camel(name: str) -> str:
    """The name of a field in JSON, of its name in the definition."""
    first, *others = name.split("_")
    return first + "".join(other[:1].upper() + other[1:] for other in others) if others else name


def plain(value: msgspec.Raw, path: str) -> Any:
    """The value of JSON text. Raises RequestError 400."""
    try:
        return msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, path, f"wanted a JSON value: {error}") from error


def whole(value: object) -> int | None:
    """A whole number that JSON may have as text or with a point; None for anything else."""
    if isinstance(value, str) and len(value) < 20:
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def _instances(message: Message) -> list[Instance]:
    if "instances" not in message.fields:
        raise RequestError(400, "instances", "wanted a list of images, got none")
    try:
        values = msgspec.json.decode(message.fields["instances"], type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, "instances", f"wanted a list of images: {error}") from error
    if not 0 < len(values) <= MAX_INSTANCES:
        status = 413 if values else 400
        raise RequestError(status, "instances", f"wanted 1..{MAX_INSTANCES}, got {len(values)}")
    return [instance(value, f"instances[{index}]") for index, value in enumerate(values)]


def _parameters(message: Message) -> tuple[dict[str, Any], float | None, int | None]:
    """Options of this service, and the confidence and the number of predictions."""
    if "parameters" not in message.fields:
        return {}, None, None
    given = plain(message.fields["parameters"], "parameters")
    if not isinstance(given, dict):
        raise RequestError(400, "parameters", f"wanted an object, got {shown(given)}")
    for name in NOT_OPTIONS:
        if name in given:
            raise RequestError(400, f"parameters.{name}", "stands in instances, in the metadata of inputs, or nowhere")
    own = {
        camel(name): msgspec.Raw(msgspec.json.encode(given[name])) for name in given if camel(name) in OWN_PARAMETERS
    }
    chosen = Message("parameters", {name: value for name, value in own.items() if bytes(value) != b"null"})
    threshold = chosen.number("confidenceThreshold", 0, 1, 0) if "confidenceThreshold" in chosen.fields else None
    most = chosen.integer("maxPredictions", 1, 1_000_000)
    return {name: value for name, value in given.items() if camel(name) not in OWN_PARAMETERS}, threshold, most


_SPEC_FIELDS = ("parameters", "metadata", "examplesOverride")
_ONE_OF = (METHODS, ("noiseSigma", "featureNoiseSigma"))
"""Fields of which a message has one."""


def _merged(deployed: msgspec.Raw, override: msgspec.Raw, path: str) -> msgspec.Raw:
    """A deployed message with what an override says in its place: field by field, lists as a whole.

    A field that says nothing overrides nothing, and a member of a union takes the place of the other.
    """
    if bytes(deployed)[:1] != b"{" or bytes(override)[:1] != b"{":
        return override
    named = path in (f"{SPEC}.metadata.inputs", f"{SPEC}.metadata.outputs")  # whose keys are names, not fields
    found = {name if named else camel(name): value for name, value in _object(deployed, path).items()}
    for given, value in _object(override, path).items():
        name, at = given if named else camel(given), _join(path, given)
        if bytes(value) in _SAYS_NOTHING or bytes(value).endswith(b'_UNSPECIFIED"'):
            continue
        if named and found and name not in found:
            raise RequestError(400, at, unknown("name", name, list(found)))
        for members in _ONE_OF:
            if name in members:
                found = {each: own for each, own in found.items() if each == name or each not in members}
        found[name] = _merged(found[name], value, at) if name in found else value
    return msgspec.Raw(msgspec.json.encode(found))


_SAYS_NOTHING = (b"null", b'""', b"0", b"0.0", b"[]", b"{}")
"""JSON of values by which a message's field says nothing."""

_METADATA = ("inputs", "outputs", "latentSpaceSource", "featureAttributionsSchemaUri")
_NOTHING: tuple[object, ...] = (None, "", 0, [], {})
"""Values by which a message's field says nothing."""


def _with_spec(call: Call, spec: Message) -> Call:
    """The call with the explanation that an ExplanationSpec or its override asks for."""
    spec.refuse({"examplesOverride": "explanations by examples need an index of them"})
    changes: dict[str, Any] = {}
    known = (*METHODS, "examples", "topK", "outputIndices")
    if (parameters := spec.child("parameters", known)) is not None:
        parameters.refuse({"examples": "explanations by examples need an index of them"})
        changes |= {"method": _method(parameters), "top_k": _top_k(parameters), "indices": _indices(parameters)}
    if (metadata := spec.child("metadata", _METADATA)) is not None:
        metadata.refuse({"latentSpaceSource": "it is of explanations by examples"})
        xrai = "method" in changes and changes["method"].name == "xraiAttribution"
        changes |= _outputs(metadata) | _inputs(metadata, xrai)
    return replace(call, **changes)


_PATH_FIELDS = ("stepCount", "smoothGradConfig", "blurBaselineConfig")


def _method(parameters: Message) -> Method:
    given = [name for name in METHODS if name in parameters.fields]
    if not given:
        return Method()
    if len(given) > 1:
        raise RequestError(400, parameters.path, f"wanted one method, got {' and '.join(given)}")
    (name,) = given
    fields = ("pathCount",) if name == "sampledShapleyAttribution" else _PATH_FIELDS
    own = Message.read(parameters.fields[name], parameters.at(name), fields)
    if name == "sampledShapleyAttribution":
        return Method(name, _required(own, "pathCount", 50))
    count, noise, noisy, blur = _required(own, "stepCount", 100), None, 3, None
    if (smooth := own.child("smoothGradConfig", ("noiseSigma", "featureNoiseSigma", "noisySampleCount"))) is not None:
        noise, noisy = _noise(smooth), smooth.integer("noisySampleCount", 0, 50) or noisy
    if (config := own.child("blurBaselineConfig", ("maxBlurSigma",))) is not None:
        blur = config.number("maxBlurSigma", 0, 10_000, 0) or None
    return Method(name, count, noise, noisy, blur)


def _required(message: Message, name: str, most: int) -> int:
    found = message.integer(name, 1, most)
    if found is None:
        raise RequestError(400, message.at(name), f"wanted a whole number in 1..{most}, got none")
    return found


def _noise(smooth: Message) -> float:
    features = smooth.child("featureNoiseSigma", ("noiseSigma",))
    if features is None:
        return smooth.number("noiseSigma", 0, 1e6, 0.1)
    if "noiseSigma" in smooth.fields:
        raise RequestError(400, smooth.path, "wanted noiseSigma or featureNoiseSigma, got both")
    path = features.at("noiseSigma")
    given = _list(features.fields.get("noiseSigma", msgspec.Raw(b"[]")), path)
    if len(given) != 1:
        raise RequestError(422, path, f"has no counterpart here: there is one input, the image, got {len(given)}")
    return Message.read(given[0], f"{path}[0]", ("name", "sigma")).number("sigma", 0, 1e6, 0) or 0.1


def _top_k(parameters: Message) -> int | None:
    return parameters.integer("topK", -1, 1_000_000) or None  # a message that does not say has 0


def _indices(parameters: Message) -> tuple[int, ...] | None:
    given = parameters.value("outputIndices")
    if given is None or given == []:
        return None
    if not isinstance(given, list):
        raise RequestError(400, parameters.at("outputIndices"), f"wanted a list of indices, got {shown(given)}")
    # One index for each dimension of the output, of which there is one: [2] and [[2]] are the same.
    found = [whole(one[0] if isinstance(one, list) and len(one) == 1 else one) for one in given]
    if any(one is None or one < 0 for one in found):
        raise RequestError(400, parameters.at("outputIndices"), f"wanted indices of classes, got {shown(given)}")
    return tuple(one for one in found if one is not None)


def _only(metadata: Message, field: str, here: str) -> tuple[str, Any] | None:
    """Name and content of the only entry of a field; None where it has none. Raises RequestError for several."""
    entries = _object(metadata.fields.get(field, msgspec.Raw(b"{}")), metadata.at(field))
    if len(entries) > 1:
        wanted = f"has no counterpart here: there is {here}"
        raise RequestError(422, metadata.at(field), f"{wanted}, got {len(entries)}")
    return next(iter(entries.items()), None)


def _outputs(metadata: Message) -> dict[str, Any]:
    path, found = metadata.at("outputs"), _only(metadata, "outputs", "one output")
    if found is None:
        return {}
    name, value = found
    known = ("indexDisplayNameMapping", "displayNameMappingKey", "outputTensorName")
    output = Message.read(value, _join(path, name), known)
    key = output.text("displayNameMappingKey")
    if key not in (None, "", "displayNames"):
        raise RequestError(422, output.at("displayNameMappingKey"), f"wanted displayNames, got {shown(key)}")
    labels = output.value("indexDisplayNameMapping")
    if labels is not None and not (isinstance(labels, list) and all(isinstance(label, str) for label in labels)):
        raise RequestError(400, output.at("indexDisplayNameMapping"), f"wanted a list of names, got {shown(labels)}")
    return {"output": name, "labels": tuple(labels) if labels else None}


_TABULAR = "it is of tables and words; the one input here is an image"
_INPUT = {
    "indicesTensorName": _TABULAR,
    "denseShapeTensorName": _TABULAR,
    "indexFeatureMapping": _TABULAR,
    "encodedTensorName": _TABULAR,
    "encodedBaselines": _TABULAR,
}


def _inputs(metadata: Message, xrai: bool) -> dict[str, Any]:
    path, found = metadata.at("inputs"), _only(metadata, "inputs", "one input, the image")
    if found is None:
        return {}
    name, value = found
    plainly = ("inputBaselines", "inputTensorName", "encoding", "modality", "featureValueDomain", "visualization")
    own = Message.read(value, _join(path, name), (*plainly, "groupName", *_INPUT))
    own.refuse(_INPUT)
    own.word("encoding", ("IDENTITY",))
    modality = own.text("modality") or "numeric"
    if modality not in ("numeric", "image"):
        raise RequestError(422, own.at("modality"), f"wanted numeric or image, got {shown(modality)}")
    picture = _picture(own, xrai) if "visualization" in own.fields or modality == "image" else None
    return {"feature": own.text("groupName") or name, "baselines": _baselines(own), "picture": picture}


def _baselines(own: Message) -> tuple[float | Instance, ...]:
    if "inputBaselines" not in own.fields:
        return ()
    path, domain = own.at("inputBaselines"), own.child("featureValueDomain", _DOMAIN)
    low = high = None
    if domain is not None:
        reason = "the model's input is a photo, whose normalisation the archive knows"
        domain.refuse({"originalMean": reason, "originalStddev": reason})
        low, high = domain.number("minValue", -1e9, 1e9, 0), domain.number("maxValue", -1e9, 1e9, 0)
        if low == high == 0:  # a message that does not say
            low = high = None
        elif not low < high:
            raise RequestError(400, domain.path, f"wanted minValue below maxValue, got {low:g} and {high:g}")
    found: list[float | Instance] = []
    for index, value in enumerate(_list(own.fields["inputBaselines"], path)):
        at = f"{path}[{index}]"
        number = plain(value, at) if bytes(value)[:1] in b"-0123456789" else None
        if number is None:
            found.append(instance(value, at))
        elif low is not None and high is not None and low <= number <= high:
            found.append((number - low) / (high - low))
        elif low is None and number == 0:
            found.append(0.0)
        else:
            wanted = "wanted 0, which is black, or a value within featureValueDomain's minValue and maxValue"
            raise RequestError(422, at, f"{wanted}, got {shown(number)}")
    return tuple(found)


_DOMAIN = ("minValue", "maxValue", "originalMean", "originalStddev")


def _picture(own: Message, xrai: bool) -> AttributionPicture:
    known = ("type", "polarity", "colorMap", "clipPercentUpperbound", "clipPercentLowerbound", "overlayType")
    asked = own.child("visualization", known) or Message(own.at("visualization"))
    low = asked.number("clipPercentLowerbound", 0, 100, 0) or CLIP[0]  # a message that does not say has 0
    high = asked.number("clipPercentUpperbound", 0, 100, 0) or CLIP[1]
    if not low < high:
        raise RequestError(400, asked.at("clipPercentLowerbound"), f"wanted less than {high:g}, got {low:g}")
    style = TYPES[asked.word("type", TYPES) or "OUTLINES"]
    return AttributionPicture(
        style="pixels" if xrai else style,
        polarity=POLARITIES[asked.word("polarity", POLARITIES) or "POSITIVE"],
        colours=COLOUR_MAPS[asked.word("colorMap", COLOUR_MAPS) or ("VIRIDIS" if xrai else "PINK_GREEN")],
        overlay=OVERLAYS[asked.word("overlayType", OVERLAYS) or "NONE"],
        clip=(low, high),
    )


def _image(value: msgspec.Raw, path: str) -> dict[str, msgspec.Raw] | None:
    """This service's field of an image; None for an object that holds one under a name."""
    match bytes(value)[:1]:
        case b"[":
            return {"img_data": whole_numbers(value)}
        case b'"':
            return {"image": value}
        case b"{":
            fields = _object(value, path)
            return {"image": fields["b64"]} if set(fields) == {"b64"} else None
        case _:
            raise RequestError(400, path, f"wanted an image, got {shown(plain(value, path))}")


def _list(value: msgspec.Raw, path: str) -> list[msgspec.Raw]:
    try:
        return msgspec.json.decode(value, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, path, f"wanted a list: {error}") from error


def _object(value: msgspec.Raw, path: str) -> dict[str, msgspec.Raw]:
    try:
        return msgspec.json.decode(value, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, path or "body", f"wanted an object: {error}") from error


def _raw(value: Any) -> msgspec.Raw:
    return value if isinstance(value, msgspec.Raw) else msgspec.Raw(msgspec.json.encode(value))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
