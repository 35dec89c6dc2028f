"""Vertex AI's calls of an endpoint, ``:explain`` and ``:predict``: ``PredictionService`` of google.cloud.aiplatform.v1.

Each instance is a request of this service.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import msgspec
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from imagexplain.api.request import JSON, SAFETENSORS
from imagexplain.api.response import check_size
from imagexplain.archive.spec import ClassifierSpec, ModelSpec, SpecError
from imagexplain.attribution.paths.path_integral import relative_to
from imagexplain.errors import RequestError, shown
from imagexplain.models.head import Head
from imagexplain.serving.messages import RawRequest, Response
from imagexplain.serving.protocols.instances import failed
from imagexplain.serving.protocols.vertex_request import SPEC, Call, Instance, plain, read, read_deployed
from imagexplain.serving.runtime import limits
from imagexplain.vision.decode import Photo, decode, from_base64, from_list
from imagexplain.vision.preprocess import ModelInput, preprocess
from imagexplain.vision.preprocess_settings import Preprocess

FEATURE = "image"
"""Name of the input in answers, where neither the instance nor the metadata names it."""

JPEG_QUALITY = 95

_PARAMETERS = f"{SPEC}.parameters"


def split(raw: RawRequest, spec: ModelSpec) -> list[RawRequest]:
    """Requests of this service for the instances of a call, one for each."""
    own = _classifier(raw, spec)
    call = read(raw, limits(own), own.vertex.explanation_spec)
    if call.deployed_model not in (None, own.vertex.deployed_model_id, own.name, own.address):
        wanted = f"wanted {shown(_model_id(own))}, the endpoint's only model, or none"
        raise RequestError(422, "deployedModelId", f"{wanted}, got {shown(call.deployed_model)}")
    if raw.kind == "prediction":
        return [_request(raw, one.fields, {}) for one in call.instances]
    asked = [_Explained(one, f"instances[{index}]", call, own) for index, one in enumerate(call.instances)]
    return [_request(raw, one.instance.fields, one.options, one.files) for one in asked]


def join(raw: RawRequest, spec: ModelSpec, instances: Sequence[RawRequest], responses: Sequence[Response]) -> Response:
    """The PredictResponse or ExplainResponse; an instance that fails is the whole answer, which has no place for it."""
    own = _classifier(raw, spec)
    call = read(raw, limits(own), own.vertex.explanation_spec)
    if (refusal := failed(responses, "instances")) is not None:
        return refusal
    results = [_Result.of(response) for response in responses]
    labels = _labels(call, own)
    answer: dict[str, Any] = {"predictions": [_prediction(one.scores, call, own, labels) for one in results]}
    if raw.kind == "explanation":
        answer["explanations"] = [
            {"attributions": _attributions(instance, call, own, labels, result)}
            for instance, result in zip(call.instances, results, strict=True)
        ]
    answer |= {"deployedModelId": _model_id(own), "modelDisplayName": own.name, "modelVersionId": own.version}
    if raw.kind == "explanation":  # whose response has no other field
        del answer["modelDisplayName"], answer["modelVersionId"]
    body = msgspec.json.encode(answer)
    check_size(len(body), JSON, own.limits.max_response_bytes)
    return Response(200, JSON, body)


def check_deployed(spec: ClassifierSpec) -> None:
    """Raise SpecError for an explanation spec of a model by which its requests could not be answered."""
    if spec.vertex.explanation_spec is None:
        return
    try:
        call = read_deployed(spec.vertex.explanation_spec)
        _labels(call, spec)
        for baseline in call.baselines:
            if isinstance(baseline, Instance):
                photo_of(baseline, spec, "metadata.inputs")
        if (index := max(call.indices or (0,))) >= len(spec.labels):
            given = f"wanted class indices below {len(spec.labels)}, got {index}"
            raise RequestError(422, "parameters.outputIndices", given)
    except RequestError as error:
        field = error.field.removeprefix(f"{SPEC}.")
        raise SpecError(f"vertex.explanation_spec: {field}: {error.message}") from None


def _labels(call: Call, spec: ClassifierSpec) -> Sequence[str]:
    """Names of the classes: the call's, or the model's own."""
    labels = call.labels or spec.labels
    if len(labels) != len(spec.labels):
        path = f"{SPEC}.metadata.outputs"
        raise RequestError(422, path, f"wanted a name for each of {len(spec.labels)} classes, got {len(labels)}")
    return labels


def _model_id(spec: ClassifierSpec) -> str:
    return spec.vertex.deployed_model_id or spec.name


@dataclass(frozen=True)
class _Explained:
    """An instance to explain, with its call.

    Attributes:
        instance: Its image.
        path: Place of it in the request, for errors.
        call: Call.
        spec: Spec of the model.
    """

    instance: Instance
    path: str
    call: Call
    spec: ClassifierSpec

    @property
    def options(self) -> dict[str, Any]:
        """Options of its request."""
        options = dict(self.call.options)
        for name, value in (self._target() | self._method() | self._baseline[0]).items():
            if name in options:
                raise RequestError(400, f"parameters.{name}", f"stands in {SPEC} or in the model's own spec as well")
            options[name] = value
        return options

    @property
    def files(self) -> dict[str, bytes]:
        """Files that its options name."""
        return self._baseline[1]

    def _target(self) -> dict[str, Any]:
        indices, top, classes = self.call.indices, self.call.top_k, len(self.spec.labels)
        if indices is not None:
            return {"target_class": list(indices)}
        if top is None or top == 1:
            return {}
        return {"top_k": classes if top == -1 else min(top, classes)}

    def _method(self) -> dict[str, Any]:
        method = self.call.method
        if method.name is None:
            return {}
        if method.name == _SHAPLEY:
            return {"method": "shapley_sampling", "permutations": method.count}
        options: dict[str, Any] = {"method": _METHODS[method.name], "steps": method.count}
        if method.noise is not None:
            # Theirs is a standard deviation in units of the model's input, ours a part of the input's range.
            image = self._seen.image
            spread = float(image.max() - image.min())
            options["smooth"] = {"samples": method.noisy, "std": method.noise / spread if spread > 0 else 0.0}
        return options

    @cached_property
    def _baseline(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Options and files of the baseline: black unless another is asked for, XRAI's two for XRAI, and the model's
        own for its own method."""
        method, given = self.call.method, self.call.baselines
        if method.blur is not None and given:
            raise RequestError(400, _PARAMETERS, "wanted blurBaselineConfig or inputBaselines, got both")
        if method.blur is not None:
            return {"baseline": "blur", "blur": min(1.0, method.blur / min(self.spec.preprocess.size))}, {}
        if not given:
            own = method.name in (None, _XRAI) or "baseline" in self.call.options
            return ({} if own else {"baseline": "black"}), {}
        if len(given) == 1 and given[0] in (0.0, 1.0):
            return {"baseline": "white" if given[0] else "black"}, {}
        return {"baseline": "tensor"}, {"baseline_tensor": _file(torch.stack([self._start(one) for one in given]))}

    def _start(self, baseline: float | Instance) -> Tensor:
        """(C, H, W) model input of a baseline."""
        seen = self._seen
        if isinstance(baseline, Instance):
            place = f"{SPEC}.metadata.inputs"
            return preprocess(photo_of(baseline, self.spec, place), self._settings).image
        grey = seen.preprocess.grey(baseline)
        return seen.with_photo(seen.of_photo(grey)) if seen.geometry.padded else grey

    @cached_property
    def _seen(self) -> ModelInput:
        return preprocess(photo_of(self.instance, self.spec, self.path), self._settings)

    @property
    def _settings(self) -> Preprocess:
        return settings_of(self.spec)


_SHAPLEY = "sampledShapleyAttribution"
_XRAI = "xraiAttribution"
_METHODS = {"integratedGradientsAttribution": "integrated_gradients", _XRAI: "xrai"}


def photo_of(instance: Instance, spec: ClassifierSpec, place: str) -> Photo:
    """The photo of an instance. Raises RequestError 400, 413 or 415, of the place where it stands."""
    bounds, alpha = limits(spec), spec.preprocess.channels == "rgba"
    try:
        if "img_data" in instance.fields:
            return from_list(instance.fields["img_data"], limits=bounds, alpha=alpha)
        return decode(from_base64(plain(instance.fields["image"], "image")), bounds, alpha=alpha)
    except RequestError as error:
        raise RequestError(error.status, f"{place}.{error.field}", error.message) from None


def settings_of(spec: ClassifierSpec) -> Preprocess:
    """The preprocessing of a classifier."""
    return Preprocess(**spec.preprocess.model_dump())


@dataclass(frozen=True)
class _Result:
    """An answer of this service: its tensors, and its plain values."""

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]

    @classmethod
    def of(cls, response: Response) -> _Result:
        size = int.from_bytes(response.body[:8], "little")
        metadata = json.loads(response.body[8 : 8 + size])["__metadata__"]
        return cls(safetensors.torch.load(response.body), json.loads(metadata["result"]))

    @property
    def scores(self) -> Tensor:
        """(classes,) scores."""
        return self.tensors["output"][0]

    @property
    def each(self) -> list[tuple[Tensor | None, Mapping[str, Any]]]:
        """The map (C, H, W) and the plain values of each explained class."""
        maps = self.tensors.get("integrated_grads", self.tensors.get("map"))
        values = self.values.get("explanations", [self.values])
        return list(zip([None] * len(values) if maps is None else maps, values, strict=True))


def _attributions(
    instance: Instance, call: Call, spec: ClassifierSpec, labels: Sequence[str], result: _Result
) -> list[dict[str, Any]]:
    """The attributions of an instance, one for each explained class."""
    name = call.feature or instance.name or FEATURE
    found = []
    for attribution, values in result.each:
        assert attribution is not None
        if "group_masks" in result.tensors and values["method"] in _OF_GROUPS:
            attribution = attribution.double() / _sizes(result.tensors["group_masks"])
        index, score = values["target_class"], values["score"]
        shown_as: Any = _numbers(attribution) if call.picture is None else _jpeg(instance, call, spec, attribution)
        one = {
            "instanceOutputValue": score,
            "featureAttributions": {name: shown_as},
            "outputIndex": [index],
            "outputDisplayName": labels[index],
            "outputName": call.output,
        }
        if "baseline_score" in values:
            one |= {"baselineOutputValue": values["baseline_score"], "approximationError": _error(values, attribution)}
        found.append(one)
    return found


def _error(values: Mapping[str, Any], attribution: Tensor) -> float:
    """The relative residual of path integrals, be they the map or what it is made of; of other maps, of their sum."""
    if "relative_residual" in values or "integrals" in values:
        return float(values.get("integrals", values)["relative_residual"])
    difference, total = values["score"] - values["baseline_score"], attribution.double().sum()
    return abs(difference - total.item()) / relative_to(difference, total[None])


_OF_GROUPS = ("shapley_sampling", "kernel_shap", "gaussian_shap", "feature_ablation", "lime")
"""Methods whose maps have a group's value at each of its pixels."""


def _sizes(masks: Tensor) -> Tensor:
    """(H, W) number of pixels of the disjoint part that each pixel lies in, of masks (G, H, W)."""
    columns = masks.flatten(1).mT
    _, part, sizes = columns.unique(dim=0, return_inverse=True, return_counts=True)
    return sizes[part].view(masks.shape[1:])


def _numbers(attribution: Tensor) -> Any:
    """(H, W, C) nested lists, channels last as TensorFlow has them."""
    return attribution.permute(1, 2, 0).tolist()


def _jpeg(instance: Instance, call: Call, spec: ClassifierSpec, attribution: Tensor) -> dict[str, str]:
    assert call.picture is not None
    photo = photo_of(instance, spec, "instances")
    drawn: Image.Image = call.picture.draw(photo.image, attribution, preprocess(photo, settings_of(spec)).geometry)
    file = io.BytesIO()
    drawn.save(file, format="JPEG", quality=JPEG_QUALITY)
    return {"b64_jpeg": base64.b64encode(file.getvalue()).decode()}


def _prediction(scores: Tensor, call: Call, spec: ClassifierSpec, labels: Sequence[str]) -> dict[str, Any]:
    """A prediction: all classes in their order, or the best of them, best first."""
    head = Head(**spec.head.model_dump())
    probabilities = head.probabilities(scores)
    places = list(range(len(scores)))
    if call.threshold is not None or call.most is not None:
        ranked = scores if probabilities is None else probabilities
        places = ranked.argsort(descending=True, stable=True).tolist()[: call.most]
        places = [place for place in places if ranked[place].item() >= (call.threshold or -torch.inf)]
    found: dict[str, Any] = {
        "ids": [str(place) for place in places],
        "displayNames": [labels[place] for place in places],
        call.output: [scores[place].item() for place in places],
    }
    if probabilities is not None:
        found["confidences"] = [probabilities[place].item() for place in places]
    return found


def _request(
    raw: RawRequest,
    fields: Mapping[str, msgspec.Raw],
    options: Mapping[str, Any],
    files: Mapping[str, bytes] | None = None,
) -> RawRequest:
    """A request of this service, with the headers of the call that are not about its body."""
    headers = {name: value for name, value in raw.headers.items() if name in ("cache-control", "x-request-id")}
    headers |= {"accept": SAFETENSORS, "content-type": JSON}
    parts = {"body": msgspec.json.encode({**options, **fields}), **(files or {})}
    return replace(raw, parts=parts, headers=headers)


def _file(tensor: Tensor) -> bytes:
    """A safetensors file of one tensor."""
    return safetensors.torch.save({"baseline": tensor.contiguous()})


def _classifier(raw: RawRequest, spec: ModelSpec) -> ClassifierSpec:
    if not isinstance(spec, ClassifierSpec):
        wanted = "wanted the endpoint of a classifier: Vertex AI's explanations are of such"
        raise RequestError(422, "endpoint", f"{wanted}, got {shown(spec.name)}")
    return spec
