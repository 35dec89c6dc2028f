"""Every field of the other services' published clients: taken, not regarded or refused, and in the docs.

The lists are held to the types of the packages, so that a field that a new release adds is a failure here.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tritonclient.http as triton
from google.cloud import aiplatform_v1
from google.cloud.aiplatform_v1 import types

from handlers.classifier import ClassifierHandler
from imagexplain.ops.server import ROOT
from imagexplain.serving.protocols.vertex_request import camel
from tests.ops.kserve_client import modules
from tests.serving.asking import base64_png, noise_png
from tests.serving.fake_torchserve import Context
from tests.serving.handlers import classifier_of, write_timm

Outcome = Literal["taken", "not regarded", "refused"]
Own = types.ExplanationMetadata.InputMetadata
PHOTO = {"image": {"b64": base64_png()}}
STEPS = {"integratedGradientsAttribution": {"stepCount": 2}}
XRAI = {"xraiAttribution": {"stepCount": 2}}


@pytest.fixture(scope="module")
def handler(tmp_path_factory: pytest.TempPathFactory) -> ClassifierHandler:
    return classifier_of(write_timm(tmp_path_factory.mktemp("resnet"), "resnet"))


def ask(
    handler: ClassifierHandler,
    protocol: str,
    body: bytes,
    headers: Mapping[str, str] | None = None,
    *,
    explains: bool = False,
) -> tuple[int, Any]:
    """Status and answer of a request; of an answer with binary tensors, its JSON."""
    sent = {"X-Explain-Protocol": protocol, "Content-Type": "application/json", **(headers or {})}
    context = Context(headers=[sent | ({"explain": "True"} if explains else {})])
    (answer,) = handler.handle([{"body": bytearray(body)}], context)
    length = context.answered[0].get("Inference-Header-Content-Length")
    return context.statuses[0], json.loads(answer[: int(length)] if length else answer)


# Vertex AI


def spec(**parts: Any) -> dict[str, Any]:
    return {"explanationSpecOverride": {"parameters": STEPS, **parts}}


def path(**fields: Any) -> dict[str, Any]:
    return spec(parameters={"integratedGradientsAttribution": {"stepCount": 2, **fields}})


def xrai(**fields: Any) -> dict[str, Any]:
    return spec(parameters={"xraiAttribution": {"stepCount": 2, **fields}})


def given(**fields: Any) -> dict[str, Any]:
    return spec(metadata={"inputs": {"image": fields}})


def drawn(**fields: Any) -> dict[str, Any]:
    return given(visualization=fields)


def answered(**fields: Any) -> dict[str, Any]:
    return spec(metadata={"outputs": {"scores": fields}})


SMOOTH = {"noiseSigma": 0.2, "noisySampleCount": 2}
NAMED = {"noiseSigma": [{"name": "image", "sigma": 0.2}]}
NAMES = ["a", "b", "c", "d"]
VERTEX: Mapping[Any, Mapping[str, tuple[Outcome, dict[str, Any]]]] = {
    types.ExplainRequest: {
        "endpoint": ("not regarded", {"endpoint": "projects/p/locations/l/endpoints/7"}),
        "instances": ("taken", {"instances": [PHOTO, PHOTO]}),
        "parameters": ("taken", {"parameters": {"maxPredictions": 1}}),
        "explanation_spec_override": ("taken", spec()),
        "deployed_model_id": ("taken", {"deployedModelId": "resnet"}),
    },
    types.PredictRequest: {
        "endpoint": ("not regarded", {"endpoint": "projects/p/locations/l/endpoints/7"}),
        "instances": ("taken", {"instances": [PHOTO, PHOTO]}),
        "parameters": ("taken", {"parameters": {"maxPredictions": 1}}),
        "labels": ("not regarded", {"labels": {"team": "a"}}),
    },
    types.ExplanationSpecOverride: {
        "parameters": ("taken", spec()),
        "metadata": ("taken", spec(metadata={})),
        "examples_override": ("refused", spec(examplesOverride={"dataFormat": "INSTANCES"})),
    },
    types.ExplanationSpec: {"parameters": ("taken", spec()), "metadata": ("taken", spec(metadata={}))},
    types.ExplanationParameters: {
        "integrated_gradients_attribution": ("taken", spec()),
        "xrai_attribution": ("taken", xrai()),
        "sampled_shapley_attribution": ("taken", spec(parameters={"sampledShapleyAttribution": {"pathCount": 1}})),
        "examples": ("refused", spec(parameters={"examples": {"neighborCount": 2}})),
        "top_k": ("taken", spec(parameters={**STEPS, "topK": 2})),
        "output_indices": ("taken", spec(parameters={**STEPS, "outputIndices": [2]})),
    },
    types.IntegratedGradientsAttribution: {
        "step_count": ("taken", path(stepCount=3)),
        "smooth_grad_config": ("taken", path(smoothGradConfig=SMOOTH)),
        "blur_baseline_config": ("taken", path(blurBaselineConfig={"maxBlurSigma": 4})),
    },
    types.XraiAttribution: {
        "step_count": ("taken", xrai(stepCount=3)),
        "smooth_grad_config": ("taken", xrai(smoothGradConfig=SMOOTH)),
        "blur_baseline_config": ("taken", xrai(blurBaselineConfig={"maxBlurSigma": 4})),
    },
    types.SampledShapleyAttribution: {
        "path_count": ("taken", spec(parameters={"sampledShapleyAttribution": {"pathCount": 2}}))
    },
    types.SmoothGradConfig: {
        "noise_sigma": ("taken", path(smoothGradConfig=SMOOTH)),
        "feature_noise_sigma": ("taken", path(smoothGradConfig={"featureNoiseSigma": NAMED})),
        "noisy_sample_count": ("taken", path(smoothGradConfig={"noisySampleCount": 2})),
    },
    types.FeatureNoiseSigma: {"noise_sigma": ("taken", path(smoothGradConfig={"featureNoiseSigma": NAMED}))},
    types.FeatureNoiseSigma.NoiseSigmaForFeature: {
        "name": ("not regarded", path(smoothGradConfig={"featureNoiseSigma": NAMED})),
        "sigma": ("taken", path(smoothGradConfig={"featureNoiseSigma": NAMED})),
    },
    types.BlurBaselineConfig: {"max_blur_sigma": ("taken", path(blurBaselineConfig={"maxBlurSigma": 4}))},
    types.ExplanationMetadata: {
        "inputs": ("taken", given()),
        "outputs": ("taken", answered()),
        "feature_attributions_schema_uri": ("not regarded", spec(metadata={"featureAttributionsSchemaUri": "gs://a"})),
        "latent_space_source": ("refused", spec(metadata={"latentSpaceSource": "embedding"})),
    },
    types.ExplanationMetadataOverride: {"inputs": ("taken", given())},
    types.ExplanationMetadataOverride.InputMetadataOverride: {"input_baselines": ("taken", given(inputBaselines=[0]))},
    Own: {
        "input_baselines": ("taken", given(inputBaselines=[{"b64": base64_png(3)}])),
        "input_tensor_name": ("not regarded", given(inputTensorName="x:0")),
        "encoding": ("taken", given(encoding="IDENTITY")),
        "modality": ("taken", given(modality="image")),
        "feature_value_domain": ("taken", given(inputBaselines=[1], featureValueDomain={"maxValue": 1})),
        "indices_tensor_name": ("refused", given(indicesTensorName="x")),
        "dense_shape_tensor_name": ("refused", given(denseShapeTensorName="x")),
        "index_feature_mapping": ("refused", given(indexFeatureMapping=["x"])),
        "encoded_tensor_name": ("refused", given(encodedTensorName="x")),
        "encoded_baselines": ("refused", given(encodedBaselines=[0])),
        "visualization": ("taken", drawn()),
        "group_name": ("taken", given(groupName="photo")),
    },
    Own.FeatureValueDomain: {
        "min_value": ("taken", given(inputBaselines=[-1], featureValueDomain={"minValue": -1, "maxValue": 1})),
        "max_value": ("taken", given(inputBaselines=[1], featureValueDomain={"maxValue": 1})),
        "original_mean": ("refused", given(inputBaselines=[0], featureValueDomain={"originalMean": 1})),
        "original_stddev": ("refused", given(inputBaselines=[0], featureValueDomain={"originalStddev": 1})),
    },
    Own.Visualization: {
        "type_": ("taken", drawn(type="PIXELS")),
        "polarity": ("taken", drawn(polarity="BOTH")),
        "color_map": ("taken", drawn(colorMap="RED")),
        "clip_percent_upperbound": ("taken", drawn(clipPercentUpperbound=90)),
        "clip_percent_lowerbound": ("taken", drawn(clipPercentLowerbound=10)),
        "overlay_type": ("taken", drawn(overlayType="ORIGINAL")),
    },
    types.ExplanationMetadata.OutputMetadata: {
        "index_display_name_mapping": ("taken", answered(indexDisplayNameMapping=NAMES)),
        "display_name_mapping_key": ("taken", answered(displayNameMappingKey="displayNames")),
        "output_tensor_name": ("not regarded", answered(outputTensorName="y:0")),
    },
}
ANSWERS: Mapping[Any, set[str]] = {
    types.ExplainResponse: {"explanations", "deployed_model_id", "predictions"},
    types.PredictResponse: {"predictions", "deployed_model_id", "model_version_id", "model_display_name"},
    types.Explanation: {"attributions"},
    types.Attribution: set(types.Attribution.meta.fields),
}
"""Fields that answers have."""

UNANSWERED: Mapping[Any, set[str]] = {
    types.ExplainResponse: set(),
    types.PredictResponse: {"model", "metadata"},
    types.Explanation: {"neighbors"},
    types.Attribution: set(),
}
"""Fields that they do not have."""


def spelled(field: str) -> str:
    return camel(field.rstrip("_"))


def test_the_fields_are_those_of_googles_types() -> None:
    for kind, fields in VERTEX.items():
        assert set(fields) == set(kind.meta.fields), kind.__name__
    for kind, names in ANSWERS.items():
        assert names | UNANSWERED[kind] == set(kind.meta.fields), kind.__name__


CASES = [(kind, field, *how) for kind, fields in VERTEX.items() for field, how in fields.items()]


@pytest.mark.parametrize(
    ("kind", "field", "outcome", "fragment"), CASES, ids=[f"{one[0].__name__}.{one[1]}" for one in CASES]
)
def test_each_of_them_is_what_the_list_says(
    handler: ClassifierHandler, kind: type, field: str, outcome: Outcome, fragment: dict[str, Any]
) -> None:
    explains = kind is not types.PredictRequest
    body = {"instances": [PHOTO], **(spec() if explains else {}), **fragment}
    status, answer = ask(handler, "vertex", json.dumps(body).encode(), explains=explains)
    if outcome == "refused":
        assert status == 422 and spelled(field) in answer["field"], answer
        assert "has no counterpart here" in answer["message"]
        return
    assert status == 200, answer
    plainly = {"instances": [PHOTO], **(spec() if explains else {})}
    if outcome == "not regarded" and field != "name":
        assert answer == ask(handler, "vertex", json.dumps(plainly).encode(), explains=explains)[1]


def test_the_page_lists_them() -> None:
    rows: dict[str, str] = {}
    message = ""
    for line in (ROOT / "docs" / "vertex.md").read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")] if line.startswith("|") else []
        if len(cells) >= 3:
            message = cells[0].strip("| ") or message
            for name in message.replace("`", "").split(", "):
                rows[name] = rows.get(name, "") + cells[1] + cells[2] + " "
    text = (ROOT / "docs" / "vertex.md").read_text("utf-8")
    for kind, fields in VERTEX.items():
        for field, (outcome, _) in fields.items():
            assert f"`{spelled(field)}`" in text, f"{kind.__name__}.{field}"
            if kind.__name__ in rows and outcome == "refused":
                assert "refused" in rows[kind.__name__], field


def test_the_calls_of_the_client_that_are_not_here_are_listed() -> None:
    """All that it can ask of an endpoint: `predict` and `explain` are here, the others the page names."""
    client = aiplatform_v1.PredictionServiceClient
    calls = {
        name
        for name in vars(client)
        if not name.startswith("_") and name.endswith(("predict", "explain", "content", "embed_content"))
    }
    text = (ROOT / "docs" / "vertex.md").read_text("utf-8")
    assert {"predict", "explain"} <= calls
    for name in calls - {"predict", "explain"}:
        assert f"`{camel(name)}`" in text, name


# KServe's and Triton's


TRITON: Mapping[str, tuple[Outcome, dict[str, Any], dict[str, str]]] = {
    "request_id": ("taken", {"request_id": "mine"}, {}),
    "sequence_id": ("not regarded", {"sequence_id": 3}, {}),
    "sequence_start": ("not regarded", {"sequence_id": 3, "sequence_start": True}, {}),
    "sequence_end": ("not regarded", {"sequence_id": 3, "sequence_end": True}, {}),
    "priority": ("not regarded", {"priority": 2}, {}),
    "timeout": ("not regarded", {"timeout": 1000}, {}),
    "parameters": ("not regarded", {"parameters": {"any": 1}}, {}),
    "outputs": ("taken", {"outputs": [triton.InferRequestedOutput("label")]}, {}),
    "request_compression_algorithm": ("refused", {}, {"Content-Encoding": "gzip"}),
    "response_compression_algorithm": ("not regarded", {}, {"Accept-Encoding": "gzip"}),
}
ELSEWHERE = {"self", "model_name", "model_version", "inputs", "headers", "query_params"}
"""Arguments that are the path, the headers, and the tensors of the tests in test_kserve.py."""


def test_the_arguments_are_those_of_tritons_client() -> None:
    known = set(inspect.signature(triton.InferenceServerClient.infer).parameters)
    assert set(TRITON) | ELSEWHERE == known
    assert set(inspect.signature(triton.InferRequestedOutput).parameters) == {"name", "binary_data", "class_count"}


@pytest.mark.parametrize("name", TRITON)
def test_each_argument_of_tritons_is_what_the_list_says(handler: ClassifierHandler, name: str) -> None:
    outcome, arguments, headers = TRITON[name]

    def infer(arguments: dict[str, Any], headers: dict[str, str]) -> tuple[int, Any]:
        tensor = triton.InferInput("image", [1], "BYTES")
        tensor.set_data_from_numpy(np.array([noise_png()], object))
        body, length = triton.InferenceServerClient.generate_request_body([tensor], **arguments)
        of_json = {"Inference-Header-Content-Length": str(length)}
        return ask(handler, "kserve_v2", body, {**of_json, **headers})

    (status, answer), (_, usual) = infer(arguments, headers), infer({"request_id": "one"}, {})
    assert (status == 200) == (outcome != "refused"), answer
    if outcome == "not regarded":
        assert {**answer, "id": "one"} == usual


def test_a_classification_is_refused_by_its_name(handler: ClassifierHandler) -> None:
    tensor = triton.InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([noise_png()], object))
    wanted = [triton.InferRequestedOutput("scores", class_count=2)]
    body, length = triton.InferenceServerClient.generate_request_body([tensor], outputs=wanted)
    status, answer = ask(handler, "kserve_v2", body, {"Inference-Header-Content-Length": str(length)})
    assert (status, answer["field"]) == (400, "outputs.scores.classification")


def test_the_fields_are_those_of_kserves_types(handler: ClassifierHandler) -> None:
    """All that its client can say is taken; what it sends of itself, too."""
    _, types = modules()
    # Those of gRPC are not sent here.
    fields = set(inspect.signature(types.InferRequest).parameters) - {"raw_inputs", "from_grpc"}
    assert fields == {"model_name", "infer_inputs", "request_id", "parameters", "request_outputs", "model_version"}
    assert set(inspect.signature(types.InferInput).parameters) == {"name", "shape", "datatype", "data", "parameters"}
    assert set(inspect.signature(types.RequestedOutput).parameters) == {"name", "parameters"}
    tensor = types.InferInput("image", [1], "BYTES", parameters={"content_type": "base64"})
    tensor.set_data_from_numpy(np.array([base64_png()], object), binary_data=False)
    request = types.InferRequest(
        "resnet",
        [tensor],
        parameters={"any": 1},
        request_outputs=[types.RequestedOutput("label", {"binary_data": False})],
        model_version="1.0",
        request_id="mine",
    )
    body, length = request.to_rest()
    assert length is None and set(body) >= {"id", "model_name", "inputs", "outputs", "parameters"}
    status, answer = ask(handler, "kserve_v2", json.dumps(body).encode())
    assert (status, answer["id"], answer["outputs"][0]["name"]) == (200, "mine", "label"), answer


def test_the_page_says_what_is_not_there() -> None:
    text = " ".join((ROOT / Path("docs/protocols.md")).read_text("utf-8").split())
    for word in ("classification extension", "shared memory", "sequences", "compressed", "gRPC"):
        assert word in text
