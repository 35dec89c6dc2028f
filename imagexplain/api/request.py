"""Requests of clients: one parser for every form.

The image comes in one of four forms, and each has its place for options:

- the encoded file as the body; options form-encoded in the header ``X-Explain-Options``;
- JSON with ``"image"``, the encoded file in base64; options beside it;
- JSON with ``"img_data"``, the nested list of the original servers; options beside it;
- a multipart form with a part ``image``; options as further parts.

JSON and multipart requests may use the header too, but no option may come twice. Predictions take the image forms and
ignore the options, but for those that the kind of model reads: a segmenter's predictions read ``threshold`` and
``picture``, a classifier's ``absent`` with the options of groups and baselines.

TorchServe must hand the body over as it came (``decode_input_request=false``): its own decoder turns JSON that does not
parse into raw bytes without a word. Bodies that are already parsed are accepted all the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Literal

from imagexplain.api.body import HEADER, IMAGE_KEYS, body_fields, check_bytes, header_options, merge, plain
from imagexplain.api.method_options import (
    PATH,
    PLAN_OPTIONS,
    baseline_name,
    is_path,
    options_of_methods,
    plan_options,
    starts,
    usual_baseline,
)
from imagexplain.api.options import (
    ABSENT,
    ANNOTATED,
    BASELINE_OPTIONS,
    GROUP_OPTIONS,
    PATH_OPTIONS,
    PICTURE_OPTIONS,
    Baseline,
    PathOptions,
    PictureOptions,
    Segments,
    absent_option,
    baseline_options,
    count,
    detection_option,
    path_options,
    picture_options,
    segment_options,
    switch,
    threshold_option,
)
from imagexplain.attribution.config import AttributionConfig
from imagexplain.errors import RequestError, listed, shown, unknown
from imagexplain.limits import Limits
from imagexplain.vision.decode import Layout, Order, Photo, decode, from_base64, from_list
from imagexplain.vision.masks import PhotoMasks, parse_masks

Kind = Literal["prediction", "explanation"]

GZIP = "application/gzip"
JSON = "application/json"
PNG = "image/png"
SAFETENSORS = "application/x-safetensors"

#: What each kind of request can be answered with, the default first.
MEDIA: dict[Kind, tuple[str, ...]] = {
    "prediction": (JSON, GZIP, SAFETENSORS),
    "explanation": (GZIP, JSON, PNG, SAFETENSORS),
}
OPTIONS = (
    *dict.fromkeys(
        (
            *(
                "target_class",
                "top_k",
                "contrast_class",
                *PLAN_OPTIONS,
                *PATH_OPTIONS,
                *BASELINE_OPTIONS,
                *GROUP_OPTIONS,
            ),
            *(*PICTURE_OPTIONS, "outputs"),
        )
    ),
)
"""Options of an explanation, beside those of methods."""
#: What the original servers answered with.
ORIGINAL_OUTPUTS = ("integrated_grads", "integrated_directional_grads", "step_sizes", "intermediates", "output")
PHOTO_MASKS, PHOTO_RUNS = "photo_masks", "photo_runs"
"""Outputs of the groups over the photo: run lengths in their rows and a map of labels; the run lengths alone."""
OUTPUTS = (*ORIGINAL_OUTPUTS, "absolute_directional", PHOTO_MASKS, PHOTO_RUNS)

#: Outputs of one entry for each step.
PER_STEP = ("integrated_directional_grads", "step_sizes", "intermediates")

REFERENCES = 16
"""Number of random images that expected gradients compare with where the client sends none."""

MAX_LABEL = 200
_CANDIDATES = 20


@dataclass(frozen=True)
class Defaults:
    """The options that a model's spec sets where the client says nothing.

    Attributes:
        method: One of ``imagexplain.attribution.METHODS``.
        steps: Number of points on the path of integrated gradients, at least 1.
        tolerance: Accuracy to refine to instead, or None.
        quadrature: One of ``QUADRATURES``.
        baseline: One of ``BASELINES`` that needs nothing from the client.
        outputs: Tensors to return beside the ones every explanation carries, some of ``OUTPUTS``.
        layout: Layout of ``img_data``.
        order: Colour order of ``img_data``.
        alpha: Flag for photos that keep their transparency, for a model whose input has it.
    """

    method: str = "integrated_gradients"
    steps: int = 50
    tolerance: float | None = None
    quadrature: str = "gauss_legendre"
    baseline: str = "zero"
    outputs: tuple[str, ...] = ()
    layout: Layout = "hwc"
    order: Order = "rgb"
    alpha: bool = False


ORIGINAL = Defaults(outputs=ORIGINAL_OUTPUTS)
"""Options of the original servers, whatever the model's spec says: 50 Gauss–Legendre steps from a zero baseline."""


@dataclass(frozen=True)
class Contract:
    """The options and answers of a kind of model; by default those of classifiers, whose predictions read some more.

    Attributes:
        media: Media types of the answers by endpoint, the default first.
        options: Names of an explanation's options.
        prediction_options: Names of those that a prediction reads; it ignores all others, and these as well where
            ``absent`` is among them and not in the request.
        original: Endpoint that the clients of the original servers asked.
        any_layout: Flag for ``img_data`` with its channels first or last, whatever the defaults say.
        thresholds: Flag for a model that has a threshold itself, for predictions too; else the segmenter asked has it.
    """

    media: Mapping[Kind, tuple[str, ...]] = field(default_factory=lambda: MEDIA)
    options: tuple[str, ...] = OPTIONS
    prediction_options: tuple[str, ...] = ()
    original: Kind = "explanation"
    any_layout: bool = False
    thresholds: bool = False

    @property
    def explanation_options(self) -> tuple[str, ...]:
        """Names of an explanation's options, with those of all methods."""
        return tuple(dict.fromkeys((*self.options, *options_of_methods())))


@dataclass(frozen=True)
class Request:
    """One request, checked.

    Attributes:
        kind: ``prediction`` or ``explanation``.
        photo: The upright photo.
        target: Label or index as the client gave it (a number in a form is still text), None for the predicted class;
            see :func:`resolve_target`.
        targets: Several of them, each to be explained; ``target`` is then None.
        top_k: Number of the best classes to explain instead; None where these are not asked for.
        absent: Rows of the table of groups whose pixels a prediction sees replaced by the baseline; none for a
            prediction of the photo itself.
        contrast: Label or index, likewise, of the class whose score is taken off; None for none.
        plan: Methods of the map, with their options, layer and smoothing.
        path: Path of integrated gradients; ignored by other methods.
        baseline: Start of the paths, and look of absent pixels.
        masks: Groups that the client sent, over the photo.
        segments: Groups that the server is to make.
        pixels: Flag that makes single pixels groups of the family, too.
        outputs: Tensors asked for, in the order of ``OUTPUTS``; the original servers' when ``legacy``.
        accept: Media type of the answer, one of ``MEDIA[kind]``.
        legacy: Flag for a request exactly as the original servers took it, whose answer has exactly their keys.
        threshold: Score that a segmenter's detections must exceed; None for the model's own threshold.
        detection: Index of a segmenter's detection to explain; None for the best of the target's class.
        picture: Contents of ``image/png``.
        summary: Flag for an answer of tensors that has the summary for people, too, as JSON has it.
    """

    kind: Kind
    photo: Photo
    target: str | int | None
    plan: AttributionConfig
    path: PathOptions
    baseline: Baseline
    masks: PhotoMasks | None
    segments: Segments | None
    pixels: bool
    outputs: tuple[str, ...]
    accept: str
    legacy: bool
    threshold: float | None = None
    detection: int | None = None
    picture: PictureOptions = ANNOTATED
    targets: tuple[str | int, ...] = ()
    contrast: str | int | None = None
    summary: bool = False
    top_k: int | None = None
    absent: tuple[int, ...] = ()

    @property
    def several(self) -> bool:
        """Tell whether explanations of several classes are asked for, even where that is one."""
        return bool(self.targets) or self.top_k is not None

    @property
    def has_baseline(self) -> bool:
        """Tell whether a baseline is needed: for what is explained, or in place of what is absent."""
        return self.kind == "explanation" or bool(self.absent)

    @property
    def by_path(self) -> bool:
        """Tell whether integrated gradients are asked for, with all that their path gives."""
        return is_path(self.plan)

    @property
    def wants_groups(self) -> bool:
        """Tell whether groups are to be scored."""
        return self.masks is not None or self.segments is not None or self.pixels


def parse(
    row: Mapping[str, Any],
    headers: Mapping[str, str],
    *,
    kind: Kind,
    limits: Limits | None = None,
    defaults: Defaults | None = None,
    contract: Contract | None = None,
) -> Request:
    """The request in one row of a TorchServe batch.

    Args:
        row: ``{"body": …}`` or ``{"data": …}``; for multipart one entry for each part.
        headers: Request headers, names in lower case.
        kind: Endpoint that was called.
        limits: Upper bounds.
        defaults: Options where the client says nothing.
        contract: Options and answers of the kind of model, by default a classifier's.

    Raises:
        RequestError: 400, 406, 413 or 415. No other exception, whatever the bytes.
    """
    limits, defaults, contract = limits or Limits(), defaults or Defaults(), contract or Contract()
    accept = negotiate(headers.get("accept", ""), contract.media[kind])
    check_bytes(row, limits)
    fields, parts = body_fields(row, headers)
    options: Mapping[str, Any] = {}
    if kind == "explanation":
        options = merge(fields, parts, header_options(headers.get(HEADER, "")), contract.explanation_options)
    elif contract.prediction_options and _reads_options(contract, fields, parts, headers):
        sent = header_options(headers.get(HEADER, ""))
        options = merge(fields, parts, sent, contract.prediction_options, strict=False)
    legacy = (
        kind == contract.original
        and accept == GZIP
        and "img_data" in fields
        and set(fields) <= {"img_data", "target_class"}
        and not isinstance(options.get("target_class"), list)
        and not parts
        and not headers.get(HEADER)
    )
    unsaid = ORIGINAL if legacy else defaults
    usual = PathOptions(unsaid.steps, unsaid.tolerance, unsaid.quadrature)
    plan = plan_options(options, limits, unsaid.method, usual, unsaid.baseline)
    path = path_options(options, limits, usual) if is_path(plan) else usual
    if "groups" in plan.takes and {"segments", "masks"}.isdisjoint(options):
        options = {**options, "segments": "slic"}
    absent = absent_option(options, limits)
    baseline = _baseline(options, limits, plan, unsaid, absent=bool(absent))
    if is_path(plan) and baseline.name == "uniform" and path.tolerance is None and "steps" not in options:
        path = replace(path, steps=max(2, -(-path.steps // baseline.draws)))  # as costly as a path from one start
    threshold, groups = None, options
    if contract.thresholds:
        threshold = threshold_option(options)
        groups = {name: value for name, value in options.items() if name != "threshold"}
    segments, pixels = segment_options(groups, limits), switch("pixels", options.get("pixels"))
    outputs = _outputs(options.get("outputs"), unsaid.outputs)
    _check_path_alone(options, outputs, plan)
    (target, targets), detection = _targets(options.get("target_class"), limits), detection_option(options)
    contrast = _target("contrast_class", options.get("contrast_class"))
    top_k = count("top_k", options, 0, limits) or None
    if top_k is not None and ("target_class" in options or detection is not None):
        other = "detection" if "target_class" not in options else "target_class"
        raise RequestError(400, "top_k", f"wanted the best classes or a {other}, got both")
    if targets or top_k is not None:
        _check_several("top_k" if top_k else "target_class", accept, outputs)
    if (targets or target is not None) and detection is not None:
        raise RequestError(400, "detection", "wanted a detection or a target_class, got both")
    picture = picture_options(options)
    grouped = segments is not None or pixels or "masks" in options
    if absent and not grouped:
        raise RequestError(400, "absent", "names groups: wanted masks or segments beside it")
    if "absolute_directional" in outputs and not (grouped and path.tolerance is None):
        wanted = "absolute_directional is of groups and takes steps: wanted masks, segments or pixels beside it"
        raise RequestError(400, "outputs", wanted if path.tolerance is None else f"{wanted}, and no tolerance")
    over_photo = [name for name in outputs if name in (PHOTO_MASKS, PHOTO_RUNS)]
    if over_photo and not grouped:
        raise RequestError(400, "outputs", f"{over_photo[0]} are of groups: wanted masks, segments or pixels beside it")
    if baseline.paths > 1 and not set(PER_STEP).isdisjoint(outputs):
        given = f"a {baseline.name} baseline of {baseline.paths} draws has several paths"
        raise RequestError(400, "outputs", f"{given}: wanted no output per step beside it, or a baseline of one draw")
    # Last: options are cheap to refuse, an image is not cheap to decode.
    photo = _photo(fields, limits, defaults, contract)
    masks = parse_masks(options["masks"], photo.image.size[::-1], limits) if "masks" in options else None
    return Request(
        kind,
        photo,
        target,
        plan,
        path,
        baseline,
        masks,
        segments,
        pixels,
        outputs,
        accept=accept,
        legacy=legacy,
        threshold=threshold,
        detection=detection,
        picture=picture,
        targets=targets,
        contrast=contrast,
        summary=_with_summary(headers.get("accept", ""), accept),
        top_k=top_k,
        absent=absent,
    )


def _reads_options(
    contract: Contract, fields: Mapping[str, Any], parts: Mapping[str, Any], headers: Mapping[str, str]
) -> bool:
    """Tell whether a prediction reads its options: a classifier's only where it names what is absent."""
    named = ABSENT in fields or ABSENT in parts or re.search(rf"(^|[&\s]){ABSENT}=", headers.get(HEADER, ""))
    return bool(named) or ABSENT not in contract.prediction_options


def has_runs(request: Request) -> bool:
    """Tell whether run-length masks stand in the rows of groups, which not every answer has."""
    wanted = PHOTO_MASKS in request.outputs or PHOTO_RUNS in request.outputs
    return wanted and (request.accept == JSON or request.summary)


def has_label_map(request: Request) -> bool:
    """Tell whether the answer has the groups over the photo as a tensor."""
    return PHOTO_MASKS in request.outputs and request.accept in (GZIP, SAFETENSORS)


def _baseline(
    options: Mapping[str, Any], limits: Limits, plan: AttributionConfig, unsaid: Defaults, *, absent: bool = False
) -> Baseline:
    """The baseline's options; random ones where a method averages over references and the client names none.

    What is absent looks as some baseline, whatever the method.
    """
    if not starts(plan) and not absent:
        for option in BASELINE_OPTIONS:
            if option in options and option not in plan.takes:
                raise RequestError(400, option, f"{plan.name} starts from no baseline")
        return Baseline(usual_baseline(plan, unsaid.method, unsaid.baseline))
    random = baseline_name(plan, options, unsaid.method, unsaid.baseline) == "uniform"
    if "seed" in plan.takes and not random:
        options = {option: value for option, value in options.items() if option != "seed"}
    if "references" not in plan.takes:
        usual = usual_baseline(plan, unsaid.method, unsaid.baseline)
        return baseline_options(options, limits, usual, alpha=unsaid.alpha)
    baseline = baseline_options(options, limits, "uniform", alpha=unsaid.alpha)
    return replace(baseline, draws=REFERENCES) if random and "draws" not in options else baseline


def _check_path_alone(options: Mapping[str, Any], outputs: Sequence[str], plan: AttributionConfig) -> None:
    """Refuse, for other methods, what only the path of integrated gradients gives.

    Raises:
        RequestError: 400.
    """
    if is_path(plan):
        return
    got = plan.name if plan.smoothing is None else f"{plan.name}, smoothed"
    if "pixels" in options:
        raise RequestError(400, "pixels", f"goes with method={PATH} alone, got {got}")
    if of_path := [name for name in outputs if name not in (PHOTO_MASKS, PHOTO_RUNS)]:
        raise RequestError(400, "outputs", f"{', '.join(of_path)}: wanted method={PATH} alone, got {got}")


def contrast_with(request: Request, index: int, labels: Sequence[str]) -> int | tuple[int, int]:
    """The class that is explained, with the class that it is contrasted with, where the request names one.

    Raises:
        RequestError: 422 if the model has no such class, or if it is the explained one.
    """
    if request.contrast is None:
        return index
    other = resolve_target(request.contrast, labels, "contrast_class")
    if other == index:
        raise RequestError(422, "contrast_class", f"wanted another class than the explained one, got {labels[index]}")
    return index, other


def resolve_target(target: str | int, labels: Sequence[str], field: str = "target_class") -> int:
    """The index of the class that ``target`` names: a label, a synonym of one class, or an index (number or digits).

    A label may list synonyms between commas, as ImageNet's do. The whole label goes before an index, and an index
    before a synonym; letters count as they are written.

    Raises:
        RequestError: 422 if the model has no such class, or more than one of that name.
    """
    count = len(labels)
    if isinstance(target, str):
        matches = [index for index, label in enumerate(labels) if label == target]
        digits = re.fullmatch(r"[0-9]{1,9}", target)
        if not matches and not digits:
            matches = [index for index, label in enumerate(labels) if target in synonyms(label)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            given = f"{shown(target)} names {len(matches)} classes of this model"
            wanted = f"{given}; wanted one of the indices {', '.join(map(str, matches))}"
            named = ", ".join(f"{index} {shown(labels[index])}" for index in matches[:_CANDIDATES])
            raise RequestError(422, field, f"{wanted} ({named})")
        if not digits:
            names = list(dict.fromkeys((*labels, *(name for label in labels for name in synonyms(label)))))
            listed = f"known: {', '.join(labels)}" if count <= _CANDIDATES else f"{count} classes are known"
            message = f"unknown class {shown(target)}{_nearest(target, names)}; {listed}"
            raise RequestError(422, field, f"{message}; or an index in 0..{count - 1}")
    index = int(target)
    if not 0 <= index < count:
        raise RequestError(422, field, f"wanted a class index in 0..{count - 1}, got {shown(target)}")
    return index


def synonyms(label: str) -> tuple[str, ...]:
    """The names in a label that lists several between commas; none where it is one name."""
    parts = tuple(part.strip() for part in label.split(","))
    return tuple(part for part in parts if part) if len(parts) > 1 else ()


def _nearest(target: str, names: Sequence[str]) -> str:
    """A hint at the names that are like ``target``, whatever their case, or have it among their words."""
    if len(target) > MAX_LABEL:
        return ""
    plain = {name.casefold(): name for name in reversed(names)}
    words = set(target.casefold().split())
    near = sorted((name for name in plain if words and words <= set(re.split(r"[\s,_-]+", name))), key=len)
    near += get_close_matches(target.casefold(), plain, n=3)
    hints = [plain[name] for name in dict.fromkeys(near)][:3]
    return f" (did you mean {' or '.join(map(repr, hints))}?)" if hints else ""


def negotiate(accept: str, offered: Sequence[str]) -> str:
    """The media type, out of ``offered``, that an ``Accept`` header asks for; the first one where it has no opinion.

    The highest q-value wins; among equals the more specific range, then the one named earlier (RFC 9110, 12.5.1).

    Raises:
        RequestError: 400 for a q-value that is none, 406 where nothing offered is acceptable.
    """
    ranges = [_media_range(part, place) for place, part in enumerate(accept.split(",")) if part.strip()]
    if not ranges:
        return offered[0]
    ranked = []
    for media in offered:
        fitting = [entry for entry in ranges if entry[0] in (media, media.split("/")[0] + "/*", "*/*")]
        if fitting:
            name, quality, place = max(fitting, key=lambda entry: (-entry[0].count("*"), -entry[2]))
            if quality > 0:
                ranked.append(((quality, -name.count("*"), -place), media))
    if not ranked:
        raise RequestError(406, "accept", f"wanted one of {', '.join(offered)}, got {shown(accept)}")
    return max(ranked, key=lambda entry: entry[0])[1]


def _media_range(part: str, place: int) -> tuple[str, float, int]:
    name, *parameters = (piece.strip().lower() for piece in part.split(";"))
    quality = next((value[2:].strip() for value in parameters if value.startswith("q=")), "1")
    if not re.fullmatch(r"0(\.\d*)?|1(\.0*)?", quality, re.ASCII):
        raise RequestError(400, "accept", f"wanted a q-value in 0..1, got {shown(quality)}")
    return ("*/*" if name == "*" else name), float(quality), place


def _with_summary(accept: str, media: str) -> bool:
    """Tell whether an ``Accept`` header wants the media type with the parameter ``summary=true``."""
    ranges = [[piece.strip().lower() for piece in part.split(";")] for part in accept.split(",")]
    return any(media == name and "summary=true" in parameters for name, *parameters in ranges)


def _target(name: str, value: object) -> str | int | None:
    if value is None or type(value) is int:
        return value
    if not isinstance(value, str):
        raise RequestError(400, name, f"wanted a label or an index, got {shown(value)}")
    if not 0 < len(value) <= MAX_LABEL:
        given = f"one of {len(value)} characters"
        raise RequestError(400, name, f"wanted a label of 1 to {MAX_LABEL} characters, got {given}")
    return value


def _targets(value: object, limits: Limits) -> tuple[str | int | None, tuple[str | int, ...]]:
    """The target, or several where the client gave a list."""
    if not isinstance(value, list):
        return _target("target_class", value), ()
    if len(value) > limits.max_targets:
        raise RequestError(413, "target_class", f"wanted at most {limits.max_targets} classes, got {len(value)}")
    found = tuple(target for one in value if (target := _target("target_class", one)) is not None)
    if not value or len(found) < len(value):
        raise RequestError(400, "target_class", f"wanted a label or an index, or a list of them, got {shown(value)}")
    return None, found


def _check_several(field: str, accept: str, outputs: Sequence[str]) -> None:
    """Refuse, for several targets, what there is one of. Raises RequestError 400."""
    if accept == PNG:
        raise RequestError(400, field, f"wanted one class for {PNG}, got several; JSON and tensors take them")
    if per_step := [name for name in outputs if name in PER_STEP]:
        raise RequestError(400, "outputs", f"{', '.join(per_step)}: wanted one target_class beside it, got several")


def _outputs(value: object, default: tuple[str, ...]) -> tuple[str, ...]:
    if value is None:
        return default
    if not isinstance(value, list | tuple):
        raise RequestError(400, "outputs", f"wanted a list of {', '.join(OUTPUTS)}, got {shown(value)}")
    for name in value:
        if not isinstance(name, str) or name not in OUTPUTS:
            raise RequestError(400, "outputs", unknown("output", name, OUTPUTS))
    return tuple(name for name in OUTPUTS if name in value)


def _photo(fields: Mapping[str, Any], limits: Limits, defaults: Defaults, contract: Contract) -> Photo:
    given = [key for key in IMAGE_KEYS if key in fields]
    if len(given) != 1:
        got = "both" if given else f"the fields {listed(fields)}"
        raise RequestError(400, "image", f"wanted exactly one of img_data and image, got {got}")
    value = fields[given[0]]
    if given[0] == "img_data":
        # The original mask servers differ in their layouts, and their clients need not know which one they ask.
        either, alpha = contract.any_layout, defaults.alpha
        return from_list(value, defaults.layout, defaults.order, limits, either=either, alpha=alpha)
    if isinstance(value, bytes | bytearray):
        return decode(value, limits, alpha=defaults.alpha)
    return decode(from_base64(plain("image", value)), limits, alpha=defaults.alpha)
