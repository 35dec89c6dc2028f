"""Paths of other services' protocols in the OpenAPI document: KServe's V1 and V2, and Vertex AI's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from imagexplain.api.request import JSON

BINARY = "application/octet-stream"
Parameters = dict[str, Any]


class InstancesRequest(Struct, frozen=True, kw_only=True):
    """Photos, and options of all of them."""

    instances: Annotated[
        list[Any], Meta(min_length=1, description='Each `{"b64": …}`, `{"image_bytes": {"b64": …}}` or nested lists.')
    ]
    parameters: Annotated[Parameters, Meta(description="Options, as JSON has them.")] | UnsetType = UNSET


class InstancePredictions(Struct, frozen=True, kw_only=True):
    """An answer of /predictions for each instance."""

    predictions: list[Any]


class InstanceExplanations(InstancePredictions, frozen=True, kw_only=True):
    """An answer of /explanations for each instance, with its tensor as `attributions`."""

    explanations: list[Any]


class InferTensor(Struct, frozen=True, kw_only=True):
    """A tensor, whose values are here, or behind the JSON as many bytes as `binary_data_size` says."""

    name: str
    shape: list[int]
    datatype: Annotated[str, Meta(description="Of inputs BYTES (files of photos, in base64 here) or UINT8 (pixels).")]
    data: list[Any] | UnsetType = UNSET
    parameters: Parameters | UnsetType = UNSET


class InferOutput(Struct, frozen=True, kw_only=True):
    """An output that is wanted."""

    name: str
    parameters: Annotated[Parameters, Meta(description="`binary_data`: true for bytes.")] | UnsetType = UNSET


class InferRequest(Struct, frozen=True, kw_only=True):
    """Photos as a tensor."""

    inputs: Annotated[list[InferTensor], Meta(min_length=1, max_length=1)]
    outputs: list[InferOutput] | UnsetType = UNSET
    id: str | UnsetType = UNSET
    parameters: (
        Annotated[Parameters, Meta(description="`binary_data_output`, and options of the service.")] | UnsetType
    ) = UNSET


class InferAnswer(Struct, frozen=True, kw_only=True):
    """The outputs, with a first axis of photos."""

    model_name: str
    model_version: str
    id: str
    outputs: list[InferTensor]


class TensorMetadata(Struct, frozen=True, kw_only=True):
    """A tensor's name, type and shape; −1 is a size that is not fixed."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(Struct, frozen=True, kw_only=True):
    """The tensors that a model takes and answers."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ServerMetadata(Struct, frozen=True, kw_only=True):
    """The server's name and version."""

    name: str
    version: str
    extensions: list[str]


class ModelReadiness(Struct, frozen=True, kw_only=True):
    """A model that has a worker."""

    name: str
    ready: Literal[True]


class ModelList(Struct, frozen=True, kw_only=True):
    """The models that are served."""

    models: list[str]


class VertexSmoothGrad(Struct, frozen=True, kw_only=True, rename="camel"):
    """`SmoothGradConfig`."""

    noise_sigma: Annotated[float, Meta(description="In units of the model's input; 0.1.")] | UnsetType = UNSET
    feature_noise_sigma: Parameters | UnsetType = UNSET
    noisy_sample_count: Annotated[int, Meta(ge=0, le=50, description="0 is 3.")] | UnsetType = UNSET


class VertexBlurBaseline(Struct, frozen=True, kw_only=True, rename="camel"):
    """`BlurBaselineConfig`."""

    max_blur_sigma: Annotated[float, Meta(ge=0, description="Pixels of the model's input.")] | UnsetType = UNSET


class VertexPathMethod(Struct, frozen=True, kw_only=True, rename="camel"):
    """`IntegratedGradientsAttribution`, and `XraiAttribution`, whose fields are the same."""

    step_count: Annotated[int, Meta(ge=1, le=100)]
    smooth_grad_config: VertexSmoothGrad | UnsetType = UNSET
    blur_baseline_config: VertexBlurBaseline | UnsetType = UNSET


class VertexShapley(Struct, frozen=True, kw_only=True, rename="camel"):
    """`SampledShapleyAttribution`."""

    path_count: Annotated[int, Meta(ge=1, le=50)]


class VertexParameters(Struct, frozen=True, kw_only=True, rename="camel"):
    """`ExplanationParameters`, of which one method may be given."""

    integrated_gradients_attribution: VertexPathMethod | UnsetType = UNSET
    xrai_attribution: VertexPathMethod | UnsetType = UNSET
    sampled_shapley_attribution: VertexShapley | UnsetType = UNSET
    top_k: Annotated[int, Meta(ge=-1)] | UnsetType = UNSET
    output_indices: list[Any] | UnsetType = UNSET


class VertexMetadata(Struct, frozen=True, kw_only=True, rename="camel"):
    """`ExplanationMetadata`: one input and one output, by their names."""

    inputs: dict[str, Parameters] | UnsetType = UNSET
    outputs: dict[str, Parameters] | UnsetType = UNSET
    feature_attributions_schema_uri: str | UnsetType = UNSET


class VertexSpec(Struct, frozen=True, kw_only=True, rename="camel"):
    """`ExplanationSpec`."""

    parameters: VertexParameters | UnsetType = UNSET
    metadata: VertexMetadata | UnsetType = UNSET


class VertexPredictRequest(Struct, frozen=True, kw_only=True, rename="camel"):
    """`PredictRequest`; names may stand in snake_case as well."""

    instances: Annotated[
        list[Any],
        Meta(min_length=1, max_length=32, description='Each `{"b64": …}`, also under a name, or nested lists.'),
    ]
    parameters: Annotated[Parameters, Meta(description="Options, as JSON has them.")] | UnsetType = UNSET
    endpoint: str | UnsetType = UNSET
    labels: dict[str, str] | UnsetType = UNSET
    deployed_model_id: str | UnsetType = UNSET


class VertexRequest(VertexPredictRequest, frozen=True, kw_only=True, rename="camel"):
    """`ExplainRequest`; names may stand in snake_case as well."""

    explanation_spec_override: VertexSpec | UnsetType = UNSET


class VertexAttribution(Struct, frozen=True, kw_only=True, rename="camel"):
    """`Attribution`, of one class."""

    instance_output_value: float | None
    feature_attributions: Annotated[
        Parameters, Meta(description="By the input's name: lists (row, column, channel), or `b64_jpeg`.")
    ]
    output_index: list[int]
    output_display_name: str
    output_name: str
    baseline_output_value: float | UnsetType | None = UNSET
    approximation_error: float | UnsetType | None = UNSET


class VertexExplanation(Struct, frozen=True, kw_only=True):
    """`Explanation`, of one instance."""

    attributions: list[VertexAttribution]


class VertexPredictions(Struct, frozen=True, kw_only=True, rename="camel"):
    """`PredictResponse`: ids, names, confidences and scores of each instance's classes."""

    predictions: list[Parameters]
    deployed_model_id: str
    model_display_name: str
    model_version_id: str


class VertexAnswer(Struct, frozen=True, kw_only=True, rename="camel"):
    """`ExplainResponse`."""

    explanations: list[VertexExplanation]
    predictions: list[Parameters]
    deployed_model_id: str


TYPES: tuple[type, ...] = (
    *(InstancesRequest, InstancePredictions, InstanceExplanations, InferRequest, InferAnswer, ModelMetadata),
    *(ServerMetadata, ModelReadiness, ModelList),
    *(VertexPredictRequest, VertexRequest, VertexPredictions, VertexAnswer),
)
"""Types whose schemas the paths refer to."""


def protocol_paths(refusals: Mapping[int, Mapping[str, Any]]) -> dict[str, Any]:
    """The paths of other protocols, which are the same for all models.

    Args:
        refusals: References to the responses of errors, by status.
    """
    vertex = "/v1/projects/{project}/locations/{location}/endpoints/{endpoint}"
    endpoint = "Name of a model, or an endpoint that the operator has given one."
    of_vertex = [_parameter("project"), _parameter("location"), _parameter("endpoint", endpoint)]
    model = [{"$ref": "#/components/parameters/Model"}]
    version = [*model, {"$ref": "#/components/parameters/Version"}]

    def asking(name: str, summary: str, takes: type, answers: type, media: Sequence[str] = (JSON,)) -> dict[str, Any]:
        return {
            "operationId": name,
            "tags": ["protocols"],
            "summary": summary,
            "requestBody": {"required": True, "content": {each: _content(takes, each) for each in media}},
            "responses": {
                "200": {"description": "The answer.", "content": {each: _content(answers, each) for each in media}},
                **{str(status): told for status, told in refusals.items()},
            },
        }

    def reading(name: str, summary: str, answers: type, *statuses: int, key: bool = False) -> dict[str, Any]:
        return {
            "operationId": name,
            "tags": ["protocols"],
            "summary": summary,
            **({} if key else {"security": []}),
            "responses": {
                "200": {"description": "The answer.", "content": {JSON: _content(answers, JSON)}},
                **{str(status): refusals[status] for status in sorted({405, 429, *statuses})},
            },
        }

    def both(path: str, parameters: list[Any], name: str, *types: tuple[type, type]) -> dict[str, Any]:
        return {
            f"{path}:{verb}": {"parameters": parameters, "post": asking(f"{name}_{verb}", about, takes, answer)}
            for (verb, about), (takes, answer) in zip(
                (("predict", "What a model says of photos"), ("explain", "What decided it")), types, strict=True
            )
        }

    found: dict[str, Any] = {
        "/v1/models": {"get": reading("kserve_v1_models", "Models", ModelList, 503)},
        "/v2/models": {"get": reading("kserve_v2_models", "Models", ModelList, 503)},
        "/v2": {"get": reading("kserve_v2_server", "The server", ServerMetadata)},
    }
    for suffix, parameters, end in (("", model, ""), ("/versions/{version}", version, "_version")):
        first, second = f"/v1/models/{{model}}{suffix}", f"/v2/models/{{model}}{suffix}"
        ready = "Whether a model has a worker that is ready"
        infer = asking(
            f"kserve_v2_infer{end}", "What a model says of photos", InferRequest, InferAnswer, (JSON, BINARY)
        )
        metadata = reading(
            f"kserve_v2_metadata{end}", "Tensors of a model", ModelMetadata, 401, 404, 502, 503, 504, key=True
        )
        types = ((InstancesRequest, InstancePredictions), (InstancesRequest, InstanceExplanations))
        found |= {
            first: {"parameters": parameters, "get": reading(f"kserve_v1_ready{end}", ready, ModelReadiness, 404, 503)},
            **both(first, parameters, f"kserve_v1{end}", *types),
            second: {"parameters": parameters, "get": metadata},
            f"{second}/ready": {
                "parameters": parameters,
                "get": reading(f"kserve_v2_ready{end}", ready, ModelReadiness, 404, 503),
            },
            f"{second}/infer": {"parameters": parameters, "post": infer},
        }
    return found | both(
        vertex, of_vertex, "vertex", (VertexPredictRequest, VertexPredictions), (VertexRequest, VertexAnswer)
    )


def _content(kind: type, media: str) -> dict[str, Any]:
    if media == BINARY:
        return {"schema": {"description": "JSON of the length in Inference-Header-Content-Length, and tensors behind."}}
    return {"schema": {"$ref": f"#/components/schemas/{kind.__name__}"}}


def _parameter(name: str, description: str = "Not regarded.") -> dict[str, Any]:
    schema = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]*$"}
    return {"name": name, "in": "path", "required": True, "description": description, "schema": schema}
