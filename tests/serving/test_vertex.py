"""Vertex AI's explain and predict calls, in the types of google-cloud-aiplatform, over the handler in this process."""

from __future__ import annotations

import base64
import io
import json
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from google.cloud.aiplatform_v1.types import (
    ExplainRequest,
    ExplainResponse,
    ExplanationMetadata,
    ExplanationSpec,
    PredictRequest,
    PredictResponse,
)
from PIL import Image

from handlers.classifier import ClassifierHandler
from handlers.segmenter import SegmenterHandler
from imagexplain.serving.messages import RawRequest
from imagexplain.serving.protocols import MAX_INSTANCES
from imagexplain.serving.protocols.vertex import split
from imagexplain.serving.protocols.vertex_request import METHODS
from imagexplain.vision.decode import decode
from imagexplain.vision.preprocess import preprocess
from tests.serving.asking import ask_json, base64_png, explain_one, noise_png
from tests.serving.fake_torchserve import Context
from tests.serving.handlers import TIMM_LABELS, classifier_of, segmenter_of, write_tensormask, write_timm
from tests.tensors import unpacked

ENDPOINT = "projects/p/locations/l/endpoints/resnet"
Input = ExplanationMetadata.InputMetadata
IMAGE = {"image_bytes": {"b64": base64_png()}}
STEPS = {"integrated_gradients_attribution": {"step_count": 8}}


@pytest.fixture(scope="module")
def handler(tmp_path_factory: pytest.TempPathFactory) -> ClassifierHandler:
    return classifier_of(write_timm(tmp_path_factory.mktemp("resnet"), "resnet"))


def call(
    handler: ClassifierHandler | SegmenterHandler, body: dict[str, Any] | str, explains: bool = True
) -> tuple[int, Any]:
    """Status and answer of a call."""
    headers = {"Content-Type": "application/json", "X-Explain-Protocol": "vertex"}
    context = Context(headers=[headers | ({"explain": "True"} if explains else {})])
    text = body if isinstance(body, str) else json.dumps(body)
    (answer,) = handler.handle([{"body": bytearray(text.encode())}], context)
    return context.statuses[0], json.loads(answer)


def explained(handler: ClassifierHandler, *instances: Any, **spec: Any) -> ExplainResponse:
    """The answer to a request of the package's types."""
    request = ExplainRequest.from_json(json.dumps({"instances": instances, "explanationSpecOverride": spec}))
    request.endpoint = ENDPOINT
    text = ExplainRequest.to_json(request, use_integers_for_enums=True)
    status, answer = call(handler, text)
    assert status == 200, answer
    return ExplainResponse.from_json(json.dumps(answer))


def pictured(handler: ClassifierHandler, parameters: dict[str, Any], **visualization: Any) -> Image.Image:
    """The picture of the photo of noise that a spec asks for."""
    own = Input(visualization=Input.Visualization(**visualization), modality="image")
    spec = ExplanationSpec(parameters=parameters, metadata=ExplanationMetadata(inputs={"photo": own}))
    asked = json.loads(ExplanationSpec.to_json(spec, always_print_fields_with_no_presence=False))
    status, answer = call(handler, {"instances": [IMAGE], "explanationSpecOverride": asked})
    assert status == 200, answer
    (attribution,) = ExplainResponse.from_json(json.dumps(answer)).explanations[0].attributions
    picture = Image.open(io.BytesIO(base64.b64decode(attribution.feature_attributions["photo"]["b64_jpeg"])))
    assert (picture.format, picture.size) == ("JPEG", (48, 40))
    return picture


def values_of(attribution: Any, name: str = "image_bytes") -> torch.Tensor:
    """(C, H, W) of an attribution in numbers."""
    value = attribution.feature_attributions[name]
    return torch.tensor([[list(pixel) for pixel in row] for row in value], dtype=torch.float64).permute(2, 0, 1)


def own_answer(handler: ClassifierHandler, options: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Plain values and tensors of this service's own answer."""
    plain, tensors = explain_one(handler, options), explain_one(handler, options, "application/gzip")
    assert plain[0] == tensors[0] == 200, plain
    return plain[1], tensors[1]


def test_predictions_parse_as_the_packages_types(handler: ClassifierHandler) -> None:
    request = PredictRequest.from_json(json.dumps({"instances": [IMAGE, {"b64": base64_png(1)}]}))
    status, answer = call(handler, PredictRequest.to_json(request), explains=False)
    assert status == 200
    response = PredictResponse.from_json(json.dumps(answer))
    assert (response.deployed_model_id, response.model_display_name, response.model_version_id) == (
        *("resnet", "resnet"),
        "1.0",
    )
    assert len(response.predictions) == 2
    first = response.predictions[0]
    assert list(first["displayNames"]) == list(TIMM_LABELS)
    assert torch.tensor(list(first["scores"])).softmax(0).tolist() == pytest.approx(list(first["confidences"]))


def test_predictions_may_be_the_best_alone(handler: ClassifierHandler) -> None:
    parameters = {"maxPredictions": 3, "confidenceThreshold": 0.05}
    _, answer = call(handler, {"instances": [IMAGE], "parameters": parameters}, explains=False)
    (best,) = answer["predictions"]
    assert best["displayNames"] == ["dog", "owl", "cat"] and best["ids"] == ["1", "3", "0"]
    assert best["confidences"] == sorted(best["confidences"], reverse=True) and min(best["confidences"]) >= 0.05


def test_integrated_gradients_are_those_of_the_services_own_endpoint(handler: ClassifierHandler) -> None:
    response = explained(handler, IMAGE, parameters=STEPS)
    ((attribution,),) = [one.attributions for one in response.explanations]
    plain, tensors = own_answer(handler, "steps=8&baseline=black")
    assert torch.equal(values_of(attribution).float(), tensors["integrated_grads"][0])
    assert attribution.instance_output_value == plain["score"]
    assert attribution.baseline_output_value == plain["baseline_score"]
    assert attribution.approximation_error == plain["relative_residual"]
    assert list(attribution.output_index) == [plain["target_class"]]
    assert (attribution.output_display_name, attribution.output_name) == (plain["target_label"], "scores")
    assert list(response.predictions[0]["scores"]) == tensors["output"][0].tolist()


def test_without_parameters_the_models_own_method_answers(handler: ClassifierHandler) -> None:
    (explanation,) = explained(handler, IMAGE).explanations
    plain, _ = own_answer(handler, "")
    assert explanation.attributions[0].baseline_output_value == plain["baseline_score"]


def test_parameters_take_this_services_options(handler: ClassifierHandler) -> None:
    body = {"instances": [IMAGE], "parameters": {"tolerance": 0.01, "baseline": "blur"}}
    status, answer = call(handler, body)
    plain, _ = own_answer(handler, "tolerance=0.01&baseline=blur")
    (one,) = answer["explanations"][0]["attributions"]
    assert status == 200 and one["approximationError"] == plain["relative_residual"] < 0.01
    body |= {"explanationSpecOverride": {"parameters": {"integratedGradientsAttribution": {"stepCount": 100}}}}
    assert (
        call(handler, body)[1]["explanations"][0]["attributions"][0]["approximationError"] < 0.01
    )  # in at most so many
    _, answer = call(handler, {"instances": [IMAGE], "parameters": {"method": "grad_cam"}})
    assert "baselineOutputValue" not in answer["explanations"][0]["attributions"][0]


def test_the_best_classes_come_best_first_and_indices_as_they_were_asked(handler: ClassifierHandler) -> None:
    for top, count in ((3, 3), (-1, 4), (99, 4)):
        (explanation,) = explained(handler, IMAGE, parameters=STEPS | {"top_k": top}).explanations
        scores = [one.instance_output_value for one in explanation.attributions]
        assert len(scores) == count and scores == sorted(scores, reverse=True)
    (explanation,) = explained(handler, IMAGE, parameters=STEPS | {"output_indices": [2, 0]}).explanations
    assert [list(one.output_index) for one in explanation.attributions] == [[2], [0]]
    _, tensors = own_answer(handler, "steps=8&baseline=black&target_class=0")
    assert torch.allclose(values_of(explanation.attributions[1]).float(), tensors["integrated_grads"][0], atol=1e-7)


def test_a_blurred_baseline_has_its_width_in_pixels(handler: ClassifierHandler) -> None:
    parameters = {"integrated_gradients_attribution": {"step_count": 8, "blur_baseline_config": {"max_blur_sigma": 8}}}
    (explanation,) = explained(handler, IMAGE, parameters=parameters).explanations
    plain, tensors = own_answer(handler, "steps=8&baseline=blur&blur=0.25")  # of 32 pixels
    assert explanation.attributions[0].baseline_output_value == plain["baseline_score"]
    assert torch.equal(values_of(explanation.attributions[0]).float(), tensors["integrated_grads"][0])


def test_smoothing_has_its_width_in_units_of_the_input(handler: ClassifierHandler) -> None:
    smooth = {"noise_sigma": 0.5, "noisy_sample_count": 4}
    parameters = {"integrated_gradients_attribution": {"step_count": 8, "smooth_grad_config": smooth}}
    (explanation,) = explained(handler, IMAGE, parameters=parameters).explanations
    image = preprocess(decode(noise_png(), handler.worker.limits), handler.worker.task.model.preprocess).image
    noise = json.dumps({"samples": 4, "std": 0.5 / float(image.max() - image.min())})
    _, tensors = own_answer(handler, f"method=integrated_gradients&steps=8&baseline=black&smooth={noise}")
    (attribution,) = explanation.attributions
    assert torch.equal(values_of(attribution).float(), tensors["map"][0])
    assert attribution.baseline_output_value == tensors["baseline_score"]
    plain, _ = own_answer(handler, "steps=1&baseline=black")
    assert tensors["baseline_score"] == pytest.approx(plain["baseline_score"], rel=1e-6)
    left = attribution.instance_output_value - attribution.baseline_output_value - values_of(attribution).sum().item()
    scale = max(abs(values_of(attribution).sum().item()), abs(tensors["score"] - tensors["baseline_score"]))
    assert attribution.approximation_error == pytest.approx(abs(left) / scale, rel=1e-12)


BLACK_AND_PHOTO = {"inputs": {"image_bytes": {"input_baselines": [0, {"b64": base64_png(3)}]}}}


def tensor_of(handler: ClassifierHandler, *baselines: bytes | float) -> str:
    """Baselines, photos or grey values, as JSON of a baseline_tensor."""
    settings = handler.worker.task.model.preprocess
    inputs = [
        settings.grey(one) if isinstance(one, float) else preprocess(decode(one, handler.worker.limits), settings).image
        for one in baselines
    ]
    return json.dumps(torch.stack(inputs).tolist())


@pytest.mark.parametrize(
    ("config", "metadata", "same"),
    [
        ({}, {}, {}),
        ({}, BLACK_AND_PHOTO, {"baseline": "tensor"}),
        ({"blur_baseline_config": {"max_blur_sigma": 8}}, {}, {"baseline": "blur", "blur": 0.25}),
        ({"smooth_grad_config": {"noise_sigma": 0.5}}, BLACK_AND_PHOTO, {"baseline": "tensor", "smooth": 0.5}),
    ],
)
def test_xrai_has_the_error_of_the_paths_whose_regions_it_makes(
    handler: ClassifierHandler, config: dict[str, Any], metadata: dict[str, Any], same: dict[str, Any]
) -> None:
    parameters = {"xrai_attribution": {"step_count": 6, **config}}
    ((attribution,),) = [
        one.attributions for one in explained(handler, IMAGE, parameters=parameters, metadata=metadata).explanations
    ]
    options: dict[str, Any] = {"method": "xrai", "steps": 6, **same}
    if same.get("baseline") == "tensor":
        options["baseline_tensor"] = json.loads(tensor_of(handler, 0.0, noise_png(3)))
    if "smooth" in same:
        image = preprocess(decode(noise_png(), handler.worker.limits), handler.worker.task.model.preprocess).image
        options["smooth"] = {"samples": 3, "std": same["smooth"] / float(image.max() - image.min())}
    ((status, plain),) = ask_json(handler, options)
    (body,) = ask_json(handler, options, accept="application/gzip")
    assert status == 200, plain
    assert torch.equal(values_of(attribution).float(), unpacked(body)["map"][0])
    assert attribution.instance_output_value == plain["score"]
    assert attribution.baseline_output_value == plain["baseline_score"] != plain["score"]
    assert attribution.approximation_error == plain["integrals"]["relative_residual"] > 0
    assert plain["baseline"] == same.get("baseline", "extremes") and plain.get("draws", 1) == (
        1 if config.get("blur_baseline_config") else 2
    )


def test_sampled_shapley_values_sum_to_the_difference(handler: ClassifierHandler) -> None:
    (explanation,) = explained(
        handler, IMAGE, parameters={"sampled_shapley_attribution": {"path_count": 2}}
    ).explanations
    (attribution,) = explanation.attributions
    _, tensors = own_answer(handler, "method=shapley_sampling&permutations=2&baseline=black")
    groups, parts = tensors["map"][0, 0].double(), values_of(attribution)[0]
    for mask in tensors["group_masks"][:3]:  # a superpixel's pixels share its value equally
        assert (parts[mask] == groups[mask] / mask.sum()).all()
        assert parts[mask].sum().item() == pytest.approx(groups[mask][0].item(), rel=1e-12)
    assert attribution.baseline_output_value == tensors["baseline_score"]
    difference = attribution.instance_output_value - attribution.baseline_output_value
    # Scores are of float32, and the image's may be known from a batch of another size, which rounds otherwise.
    assert parts.sum().item() == pytest.approx(difference, abs=1e-6)


def test_several_baselines_are_averaged(handler: ClassifierHandler) -> None:
    def answer(*baselines: Any) -> Any:
        own: dict[str, Any] = {"inputBaselines": baselines, "featureValueDomain": {"maxValue": 1.0}}
        spec = {"parameters": {"integratedGradientsAttribution": {"stepCount": 8}}, "metadata": {"inputs": {"x": own}}}
        status, found = call(handler, {"instances": [IMAGE], "explanationSpecOverride": spec})
        assert status == 200, found
        return found["explanations"][0]["attributions"][0]

    each = [answer(0), answer(1.0), answer({"b64": base64_png(3)})]
    together = answer(0, 1, {"b64": base64_png(3)})
    options = {"steps": 8, "baseline_tensor": json.loads(tensor_of(handler, 0.0, 1.0, noise_png(3)))}
    ((_, own),) = ask_json(handler, options | {"baseline": "tensor"})
    (body,) = ask_json(handler, options | {"baseline": "tensor"}, accept="application/gzip")
    found = torch.tensor(together["featureAttributions"]["x"]).permute(2, 0, 1)
    assert torch.equal(found, unpacked(body)["integrated_grads"][0])
    assert together["baselineOutputValue"] == own["baseline_score"]
    assert together["approximationError"] == own["relative_residual"]
    # From each alone they are of other passes, whose sums a processor may order otherwise.
    maps = torch.tensor([one["featureAttributions"]["x"] for one in each], dtype=torch.float64)
    assert torch.allclose(maps.mean(0), torch.tensor(together["featureAttributions"]["x"]).double(), atol=1e-6)
    mean = sum(one["baselineOutputValue"] for one in each) / 3
    assert together["baselineOutputValue"] == pytest.approx(mean, rel=1e-5)
    plain, _ = own_answer(handler, "steps=8&baseline=white")
    assert each[1]["baselineOutputValue"] == plain["baseline_score"]
    request = {"inputs": {"image_bytes": {"input_baselines": [0]}}}  # in the package's override
    (explanation,) = explained(handler, IMAGE, parameters=STEPS, metadata=request).explanations
    assert explanation.attributions[0].baseline_output_value == each[0]["baselineOutputValue"]


def test_images_come_in_every_form(handler: ClassifierHandler) -> None:
    pixels = np.asarray(Image.open(io.BytesIO(noise_png()))).tolist()
    forms: list[Any] = [IMAGE, {"b64": base64_png()}, base64_png(), {"content": base64_png(), "mimeType": "image/png"}]
    forms += [pixels, {"input_1": pixels}, {"image": base64_png()}]
    response = explained(handler, *forms, parameters=STEPS)
    names = [next(iter(one.attributions[0].feature_attributions)) for one in response.explanations]
    assert names == ["image_bytes", "image", "image", "image", "image", "input_1", "image"]
    scores = [one.attributions[0].instance_output_value for one in response.explanations]
    assert scores == pytest.approx([scores[0]] * len(forms), abs=1e-5)


def test_names_of_outputs_and_labels_are_the_metadatas(handler: ClassifierHandler) -> None:
    metadata = {"outputs": {"logits": {"indexDisplayNameMapping": ["Katze", "Hund", "Fuchs", "Eule"]}}}
    status, answer = call(handler, {"instances": [IMAGE], "explanationSpecOverride": {"metadata": metadata}})
    (one,) = answer["explanations"][0]["attributions"]
    assert (status, one["outputName"], one["outputDisplayName"]) == (200, "logits", "Hund")
    assert answer["predictions"][0]["displayNames"][2] == "Fuchs" and len(answer["predictions"][0]["logits"]) == 4


@pytest.mark.parametrize("xrai", [False, True])
def test_pictures_are_those_of_the_settings(handler: ClassifierHandler, xrai: bool) -> None:
    """Every word of the definitions is known, by its number and as a word."""
    parameters = {"xrai_attribution": {"step_count": 4}} if xrai else STEPS
    kinds = Input.Visualization
    fields = {"type_": list(kinds.Type), "polarity": list(kinds.Polarity), "color_map": list(kinds.ColorMap)}
    for field, words in fields.items():
        for word in words:
            pictured(handler, parameters, **{field: word})
    grounds = [np.asarray(pictured(handler, parameters, overlay_type=word)) for word in list(kinds.OverlayType)[1:]]
    assert all((one != other).any() for one, other in combinations(grounds, 2))
    spec = {"metadata": {"inputs": {"x": {"visualization": {"type": "PIXELS", "overlayType": "ORIGINAL"}}}}}
    status, answer = call(handler, {"instances": [IMAGE], "explanationSpecOverride": spec})
    assert status == 200 and set(answer["explanations"][0]["attributions"][0]["featureAttributions"]["x"]) == {
        "b64_jpeg"
    }


REFUSED: list[tuple[dict[str, Any], int, str, str]] = [
    ({}, 400, "instances", "wanted a list of images, got none"),
    ({"instances": []}, 400, "instances", "wanted 1..32, got 0"),
    ({"instances": [IMAGE] * 33}, 413, "instances", "wanted 1..32, got 33"),
    ({"instances": [IMAGE], "instanses": 1}, 400, "instanses", "did you mean 'instances'"),
    ({"instances": [IMAGE, 7]}, 400, "instances[1]", "wanted an image, got 7"),
    ({"instances": [IMAGE, {"age": 3, "job": 1}]}, 400, "instances[1]", "got the fields 'age', 'job'"),
    ({"instances": [{"age": 3}]}, 400, "instances[0].age", "wanted an image, got 3"),
    ({"instances": [IMAGE, {"b64": "AAAA"}]}, 415, "instances[1].image", ""),
    ({"instances": [IMAGE], "deployedModelId": "77"}, 422, "deployedModelId", "wanted 'resnet', the endpoint's only"),
    ({"instances": [IMAGE], "parameters": {"stepz": 3}}, 400, "instances[0].stepz", "unknown option"),
    ({"instances": [IMAGE], "parameters": {"picture": "plain"}}, 400, "parameters.picture", "stands in"),
    (
        {"instances": [IMAGE], "explanationSpecOverride": {"examplesOverride": {"x": 1}}},
        422,
        "",
        "examples need an index",
    ),
]
PARAMETERS: list[tuple[dict[str, Any], int, str, str]] = [
    ({"examples": {"neighborCount": 3}}, 422, "examples", "has no counterpart here: explanations by examples"),
    ({"integratedGradientsAttribution": {}}, 400, "integratedGradientsAttribution.stepCount", "got none"),
    ({"integratedGradientsAttribution": {"stepCount": 101}}, 400, "stepCount", "1..100, got 101"),
    ({"sampledShapleyAttribution": {"pathCount": 51}}, 400, "pathCount", "1..50, got 51"),
    ({**STEPS, "xraiAttribution": {"stepCount": 4}}, 400, "parameters", "wanted one method"),
    ({**STEPS, "outputIndices": ["a"]}, 400, "outputIndices", "wanted indices of classes"),
    ({**STEPS, "outputIndices": [9]}, 422, "instances[0].target_class", "wanted a class index in 0..3"),
    ({**STEPS, "topK": 1.5}, 400, "topK", "wanted a whole number"),
]
INPUTS: list[tuple[dict[str, Any], int, str, str]] = [
    ({"a": {}, "b": {}}, 422, "inputs", "there is one input, the image, got 2"),
    ({"a": {"inputBaselines": [1]}}, 422, "a.inputBaselines[0]", "featureValueDomain"),
    ({"a": {"modality": "text"}}, 422, "a.modality", "wanted numeric or image"),
    ({"a": {"encoding": "BAG_OF_FEATURES"}}, 400, "a.encoding", "unknown word 'BAG_OF_FEATURES'"),
    ({"a": {"indexFeatureMapping": ["age"]}}, 422, "a.indexFeatureMapping", "of tables and words"),
    ({"a": {"visualization": {"colorMap": "BLUE"}}}, 400, "colorMap", "unknown word 'BLUE'"),
    ({"a": {"visualization": {"clipPercentLowerbound": 100}}}, 400, "clipPercentLowerbound", "wanted less than 99.9"),
]
CASES = [
    *REFUSED,
    *(({"instances": [IMAGE], "explanationSpecOverride": {"parameters": one}}, *rest) for one, *rest in PARAMETERS),
    *(
        ({"instances": [IMAGE], "explanationSpecOverride": {"metadata": {"inputs": one}}}, *rest)
        for one, *rest in INPUTS
    ),
]


@pytest.mark.parametrize(("body", "status", "field", "message"), CASES)
def test_what_does_not_fit_or_has_no_counterpart_is_refused_by_name(
    handler: ClassifierHandler, body: dict[str, Any], status: int, field: str, message: str
) -> None:
    got, answer = call(handler, body)
    assert (got, answer["code"]) == (status, status), answer
    assert answer["field"].endswith(field) and message in answer["message"], answer


@pytest.mark.parametrize("method", [*METHODS, None])
def test_an_instance_is_one_request_of_the_service(handler: ClassifierHandler, method: str | None) -> None:
    count = {"sampledShapleyAttribution": "pathCount"}.get(method or "", "stepCount")
    parameters = {} if method is None else {method: {count: 2}}
    body = json.dumps({"instances": [IMAGE] * MAX_INSTANCES, "explanationSpecOverride": {"parameters": parameters}})
    headers = {"content-type": "application/json"}
    raw = RawRequest({"body": body.encode()}, headers, "explanation")
    assert len(split(raw, handler.worker.task.spec)) == MAX_INSTANCES


@pytest.mark.parametrize("body", ["", "[1]", "{", '{"instances": {}}', '{"instances": [null]}', "\x89PNG"])
def test_any_other_body_is_a_400(handler: ClassifierHandler, body: str) -> None:
    assert call(handler, body)[0] == 400


def test_a_request_may_name_the_model_as_answers_do(handler: ClassifierHandler) -> None:
    status, answer = call(handler, {"instances": [IMAGE], "deployedModelId": "resnet"})
    assert (status, answer["deployedModelId"]) == (200, "resnet")


def test_fields_that_a_client_prints_with_their_defaults_say_nothing(handler: ClassifierHandler) -> None:
    """Of protocol buffers' JSON with all fields, as `to_json` of the package writes it."""
    own = Input(visualization=Input.Visualization(), feature_value_domain=Input.FeatureValueDomain())
    method = {"step_count": 4, "smooth_grad_config": {}, "blur_baseline_config": {}}
    metadata = ExplanationMetadata(inputs={"image_bytes": own}, outputs={"scores": {}}, latent_space_source="")
    spec = ExplanationSpec(parameters={"integrated_gradients_attribution": method}, metadata=metadata)
    asked = json.loads(ExplanationSpec.to_json(spec, use_integers_for_enums=True))
    assert asked["parameters"]["topK"] == 0 and asked["metadata"]["inputs"]["image_bytes"]["groupName"] == ""
    status, answer = call(handler, {"instances": [IMAGE], "explanationSpecOverride": asked})
    assert status == 200, answer
    usual = {"smoothGradConfig": {"noiseSigma": 0.1, "noisySampleCount": 3}, "stepCount": 4}
    said = {
        "parameters": {"integratedGradientsAttribution": usual},
        "metadata": {"inputs": {"image_bytes": {"visualization": {"clipPercentLowerbound": 62}}}},
    }
    assert call(handler, {"instances": [IMAGE], "explanationSpecOverride": said})[1] == answer


def test_a_segmenters_endpoint_says_that_it_has_none(tmp_path_factory: pytest.TempPathFactory) -> None:
    handler = segmenter_of(write_tensormask(tmp_path_factory.mktemp("tensormask")))
    status, answer = call(handler, {"instances": [IMAGE]})
    assert (status, answer["field"]) == (422, "endpoint") and "of a classifier" in answer["message"]
