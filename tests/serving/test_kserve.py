"""KServe's protocols at a handler: what each instance is answered with, and what is refused."""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import msgspec
import numpy as np
import pytest
import safetensors.torch
from PIL import Image

from handlers.captioner import CaptionerHandler
from handlers.classifier import ClassifierHandler
from handlers.segmenter import SegmenterHandler
from imagexplain.serving.metrics import Metrics
from imagexplain.serving.protocols import MAX_INSTANCES
from imagexplain.serving.protocols.kserve_v2 import PIXELS
from tests.serving.asking import ask, base64_png, coarse_png, explanation, noise_png, prediction
from tests.serving.captions import GRAPH, ask_many
from tests.serving.fake_torchserve import Context

Handler = ClassifierHandler | SegmenterHandler | CaptionerHandler

SAFETENSORS = "application/x-safetensors"


def sent(
    handler: Handler, protocol: str, body: Any, *, explains: bool = False, **headers: str
) -> tuple[int, bytes, Context]:
    """Status, body and context of the answer to a request in another protocol's words."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    context = Context(headers=[{"X-Explain-Protocol": protocol, **({"explain": "True"} if explains else {}), **named}])
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    (answer,) = handler.handle([{"body": bytearray(content)}], context)
    return context.statuses[0], answer, context


def v1(handler: Handler, body: Any, *, explains: bool = False, **headers: str) -> Any:
    """The answer of a V1 request that succeeds."""
    status, answer, _ = sent(handler, "kserve_v1", body, explains=explains, **headers)
    assert status == 200, answer[:500]
    return json.loads(answer)


def refusal(handler: Handler, protocol: str, body: Any, *, explains: bool = False, **headers: str) -> tuple[int, str]:
    """Status and field of the error to a request that fails."""
    status, answer, context = sent(handler, protocol, body, explains=explains, **headers)
    error = json.loads(answer)
    assert error["code"] == status >= 400 and context.answered[0]["X-Explain-Error"]
    return status, error["field"]


def pixels() -> list[Any]:
    return np.asarray(Image.open(io.BytesIO(noise_png()))).tolist()


# V1


@pytest.mark.parametrize(
    "instance",
    [
        {"b64": base64_png()},
        {"image_bytes": {"b64": base64_png()}},
        {"image": {"b64": base64_png()}},
        {"data": base64_png()},
        {"img_data": pixels()},
        {"image": np.array(pixels(), float).tolist()},
        pixels(),
        np.array(pixels(), float).tolist(),
    ],
)
def test_each_form_of_an_instance_is_answered_as_the_photo_itself(handler: ClassifierHandler, instance: Any) -> None:
    (direct,), _ = ask(handler, (prediction(), noise_png()))
    _, answer, context = sent(handler, "kserve_v1", {"instances": [instance]})
    assert answer == b'{"predictions":[' + direct + b"]}"
    assert context.types[0] == "application/json" and context.answered[0]["X-Correlation-Id"]


def test_instances_are_answered_in_their_order(handler: ClassifierHandler) -> None:
    photos = [base64_png(seed) for seed in range(9)]
    found = v1(handler, {"instances": [{"b64": photo} for photo in photos]})["predictions"]
    alone = [v1(handler, {"inputs": [{"b64": photo}]})["predictions"][0] for photo in photos]
    for one, other in zip(found, alone, strict=True):
        scores = [{each["label"]: each["score"] for each in told["predictions"]} for told in (one, other)]
        assert scores[0] == pytest.approx(scores[1], rel=1e-4)


@pytest.mark.parametrize(
    "options", [{"steps": 3}, {"method": "grad_cam", "target_class": 1}, {"steps": 2, "segments": "grid"}]
)
def test_an_explanation_is_the_services_own_with_its_tensor(
    handler: ClassifierHandler, options: dict[str, Any]
) -> None:
    text = "&".join(f"{name}={value}" for name, value in options.items())
    (direct,), _ = ask(handler, (explanation(text), noise_png()))  # alone: a batch of two rounds otherwise
    (tensors,), _ = ask(handler, (explanation(text, SAFETENSORS), noise_png()))
    found = safetensors.torch.load(tensors)
    wanted = found["integrated_grads"] if "integrated_grads" in found else found["map"]
    inside = v1(handler, {"instances": [{"b64": base64_png(), **options}]}, explains=True)
    beside = v1(handler, {"instances": [{"b64": base64_png()}], "parameters": options}, explains=True)
    in_header = v1(handler, {"instances": [{"b64": base64_png()}]}, explains=True, X_Explain_Options=text)
    assert inside == beside == in_header
    assert np.array_equal(np.array(inside["explanations"][0].pop("attributions"), np.float32), wanted[0].numpy())
    assert inside["explanations"] == [json.loads(direct)]
    (said,), _ = ask(handler, (prediction(), noise_png()))
    assert inside["predictions"] == [json.loads(said)]


def test_attributions_may_be_left_out(handler: ClassifierHandler) -> None:
    parameters: dict[str, Any] = {"steps": 2, "attributions": False}
    body = {"instances": [{"b64": base64_png()}], "parameters": parameters}
    found = v1(handler, body, explains=True)
    assert "attributions" not in found["explanations"][0] and found["predictions"][0]["predictions"]
    parameters["attributions"] = "no"
    assert refusal(handler, "kserve_v1", body, explains=True) == (400, "parameters.attributions")


def test_several_classes_of_one_instance(handler: ClassifierHandler) -> None:
    found = v1(handler, {"instances": [{"b64": base64_png(), "target_class": [0, 1], "steps": 2}]}, explains=True)
    (one,) = found["explanations"]
    assert [each["target_class"] for each in one["explanations"]] == [0, 1]
    assert np.array(one["attributions"]).shape == (2, 3, 32, 32)
    assert found["predictions"][0]["predictions"] == one["explanations"][0]["top"]


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (b"no json", (400, "body")),
        ([1], (400, "body")),
        ({}, (400, "instances")),
        ({"instances": {}}, (400, "instances")),
        ({"instances": []}, (400, "instances")),
        ({"instances": [{"b64": ""}], "inputs": []}, (400, "instances")),
        ({"instances": [1]}, (400, "instances[0]")),
        ({"instances": [{"b64": base64_png(), "data": "x"}]}, (400, "instances[0]")),
        ({"instances": [{"image_bytes": {"url": "x"}}]}, (400, "instances[0].image_bytes")),
        ({"instances": [{"b64": base64_png()}, {"b64": "%"}]}, (400, "instances[1].image")),
        ({"instances": [{"b64": base64_png()}, [["x"]]]}, (400, "instances[1].img_data")),
        ({"instances": [{"b64": base64_png(), "steps": 3}], "parameters": {"steps": 3}}, (400, "instances[0].steps")),
        ({"instances": [{"b64": base64_png()}], "parameters": [3]}, (400, "parameters")),
        ({"instances": [{"b64": base64_png()}], "instnaces": []}, (400, "instnaces")),
        ({"instances": [{"b64": base64_png(), "step": 3}]}, (400, "instances[0].step")),
        ({"instances": [{"b64": base64_png(), "target_class": "unicorn"}]}, (422, "instances[0].target_class")),
        ({"instances": [0] * (MAX_INSTANCES + 1)}, (413, "instances")),
    ],
)
def test_what_is_wrong_is_named(handler: ClassifierHandler, body: Any, wanted: tuple[int, str]) -> None:
    assert refusal(handler, "kserve_v1", body, explains=True) == wanted


def test_an_unknown_protocol(handler: ClassifierHandler) -> None:
    assert refusal(handler, "kserve_v7", {}) == (400, "x-explain-protocol")


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[Any, ...]]:
    """Status and reason of each request's line in the log, after its id."""
    lines = [vars(record) for record in caplog.records if record.message == "request"]
    return [(line["request_id"], line["status"], line.get("reason")) for line in lines]


def test_what_is_refused_as_a_whole_is_counted_and_logged(
    handler: ClassifierHandler, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[Any] = []
    monkeypatch.setattr(Metrics, "request", lambda self, *told: counted.append(told[:2]))
    with caplog.at_level("INFO"):
        sent(handler, "kserve_v1", {"instances": []}, explains=True, X_Request_Id="here")
    assert logged(caplog) == [("here", 400, "options")]
    assert counted == [("explanation", "bad_request")]


def test_each_instance_is_counted_and_none_twice(handler: ClassifierHandler, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        sent(handler, "kserve_v1", {"instances": [{"b64": base64_png()}, {"b64": "%"}, {"b64": base64_png(1)}]})
    assert [line[1:] for line in logged(caplog)] == [(200, None), (400, "image"), (200, None)]


def test_a_request_of_many_instances_harms_no_neighbour(
    handler: ClassifierHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more photos are held at once than a batch has, and a neighbour's is among the first."""
    held: list[int] = []
    handle = handler.worker.handle

    def counted(requests: Any, deadline: Any = None) -> Any:
        held.append(len(requests))
        return handle(requests, deadline)

    monkeypatch.setattr(handler.worker, "handle", counted)
    many = json.dumps({"instances": [{"b64": base64_png()}] * 10}).encode()
    context = Context(headers=[{"X-Explain-Protocol": "kserve_v1"}, prediction(), {"X-Explain-Protocol": "kserve_v1"}])
    answers = handler.handle([{"body": bytearray(body)} for body in (many, noise_png(), b"{}")], context)
    assert [context.statuses[index] for index in range(3)] == [200, 200, 400]
    size = handler.worker.task.spec.serving.batch_size
    assert sum(held) == 11 and max(held) == max(size, 3)
    one = json.loads(answers[1])["predictions"][0]
    assert all(each["predictions"][0]["label"] == one["label"] for each in json.loads(answers[0])["predictions"])


def test_a_joined_answer_that_is_too_large(handler: ClassifierHandler, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = handler.worker.task.spec
    limits = spec.limits.model_copy(update={"max_response_bytes": 100_000})
    monkeypatch.setitem(vars(spec), "limits", limits)
    body = {"instances": [{"b64": base64_png(), "steps": 2}] * 2}
    assert refusal(handler, "kserve_v1", body, explains=True) == (413, "outputs")
    assert v1(handler, {**body, "parameters": {"attributions": False}}, explains=True)


def test_segmenters_and_captioners(segmenter: SegmenterHandler, captioner: CaptionerHandler) -> None:
    photo = base64.b64encode(coarse_png()).decode()
    body = {"instances": [{"b64": photo, "threshold": 0.01}]}
    (found,) = v1(segmenter, body)["predictions"]
    assert found["detections"]
    explained = v1(segmenter, {"instances": [{"b64": photo, "threshold": 0.01, "steps": 2}]}, explains=True)
    assert explained["explanations"][0]["detection"] == 0 and explained["predictions"][0]["predictions"]


def test_a_captions_words_are_explained(captioner: CaptionerHandler) -> None:
    """Without tensors; the predictions are the captions that are explained, in a prediction's form."""
    instance = {"b64": base64_png(), "graph": GRAPH}
    found = v1(captioner, {"instances": [instance], "parameters": {"steps": 2}}, explains=True)
    ((_, own),) = ask_many(captioner, ("explanation", {"graph": GRAPH, "steps": 2}))
    assert found["explanations"] == [json.loads(own)] and found["explanations"][0]["graphs"][0]["words"]
    said = v1(captioner, {"instances": [instance]})["predictions"][0]
    (explained,), (predicted,) = found["predictions"][0].pop("graphs"), said.pop("graphs")
    assert found["predictions"][0] == {"model": said["model"]}
    assert explained.keys() == predicted.keys() - {"n_best"}
    assert explained["caption"] == predicted["caption"]
    assert refusal(captioner, "kserve_v1", {"instances": [{"b64": base64_png()}]}, explains=True)[0] == 400


# V2


def v2(handler: Handler, body: Any, after: bytes = b"") -> tuple[dict[str, Any], dict[str, Any]]:
    """The JSON of the answer to a V2 request that succeeds, and its outputs' values by name."""
    head = json.dumps(body).encode()
    if after:
        length, media = str(len(head)), "application/octet-stream"
        found = sent(handler, "kserve_v2", head + after, Inference_Header_Content_Length=length, Content_Type=media)
    else:
        found = sent(handler, "kserve_v2", head)
    status, answer, context = found
    assert status == 200, answer[:500]
    end = int(context.answered[0].get("Inference-Header-Content-Length", len(answer)))
    told, rest, values = json.loads(answer[:end]), answer[end:], {}
    assert (context.types[0] == "application/octet-stream") == (end < len(answer))
    for output in told["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is not None:
            output["data"], rest = rest[:size], rest[size:]
        values[output["name"]] = output["data"]
    assert not rest
    return told, values


def of_files(*photos: bytes, **more: Any) -> dict[str, Any]:
    """A request with files of photos as BYTES."""
    data = [base64.b64encode(photo).decode() for photo in photos]
    return {"inputs": [{"name": "image", "shape": [len(photos)], "datatype": "BYTES", "data": data}], **more}


def test_outputs_are_the_numbers_of_the_services_own_answer(handler: ClassifierHandler) -> None:
    (direct, tensors), _ = ask(handler, (prediction(), noise_png()), (prediction(SAFETENSORS), noise_png()))
    told, values = v2(handler, of_files(noise_png(), id="mine", model_name="any", parameters=None, outputs=None))
    spec = handler.worker.task.spec
    assert (told["model_name"], told["model_version"], told["id"]) == (spec.name, spec.version, "mine")
    scores, ranked = safetensors.torch.load(tensors)["output"], json.loads(direct)["predictions"]
    assert np.array_equal(np.array(values["scores"], np.float32), scores[0].numpy())
    for name in ("label", "index", "probability"):
        assert values[name] == [one[name] for one in ranked]
    assert {one["name"]: one["shape"] for one in told["outputs"]}["scores"] == [1, len(spec.labels)]
    _, values = v2(handler, of_files(noise_png(), outputs=[{"name": "json"}]))
    assert json.loads(values["json"][0]) == json.loads(direct)


def test_binary_tensors_hold_the_same(handler: ClassifierHandler) -> None:
    photos = noise_png(), noise_png(1)
    after = b"".join(len(photo).to_bytes(4, "little") + photo for photo in photos)
    tensor = {"name": "any", "shape": [2, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(after)}}
    body = {
        "inputs": [tensor],
        "parameters": {"binary_data_output": True},
        "outputs": [{"name": "scores"}, {"name": "label"}, {"name": "index", "parameters": {"binary_data": False}}],
    }
    _, found = v2(handler, body, after)
    _, wanted = v2(handler, of_files(*photos))
    assert np.array_equal(np.frombuffer(found["scores"], "<f4"), np.array(wanted["scores"], np.float32))
    assert found["index"] == wanted["index"]
    first = wanted["label"][0].encode()
    assert found["label"].startswith(len(first).to_bytes(4, "little") + first)


@pytest.mark.parametrize("datatype", ["UINT8", "INT64", "FP16", "FP32"])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("binary", [False, True])
def test_pixels_are_the_photo(handler: ClassifierHandler, first: bool, binary: bool, datatype: str) -> None:
    array = np.asarray(Image.open(io.BytesIO(noise_png())))[None].astype(PIXELS[datatype])
    if first:
        array = np.ascontiguousarray(array.transpose(0, 3, 1, 2))
    tensor: dict[str, Any] = {"name": "x", "shape": list(array.shape), "datatype": datatype}
    tensor |= {"parameters": {"binary_data_size": array.nbytes}} if binary else {"data": array.tolist()}
    _, values = v2(handler, {"inputs": [tensor]}, array.tobytes() if binary else b"")
    assert values == v2(handler, of_files(noise_png()))[1]


def changed(**fields: Any) -> dict[str, Any]:
    """A request whose input has other fields."""
    body = of_files(noise_png())
    body["inputs"][0].update(fields)
    return body


def wanting(name: str, **parameters: Any) -> dict[str, Any]:
    """A request that wants one output."""
    return {**changed(), "outputs": [{"name": name, "parameters": parameters}]}


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({}, (400, "inputs")),
        ({"inputs": [{"name": "x"}]}, (400, "inputs")),
        ({"inputs": changed()["inputs"] * 2}, (400, "inputs")),
        (changed(datatype="FP32"), (400, "image")),
        (changed(datatype="BOOL"), (400, "image")),
        (changed(datatype="FP32", shape=[1, 2, 2, 3], data=[0.5] * 12), (400, "image")),
        (changed(datatype="FP32", shape=[1, 2, 2, 3], data=[-1] * 12), (400, "image")),
        (changed(datatype="FP32", shape=[1, 2, 2, 3], data=[0, 1] * 6), (400, "image")),
        (changed(datatype="INT64", shape=[1, 2, 2, 3], data=["7"] * 12), (400, "image")),
        (changed(datatype="UINT8", shape=[1, 2, 2, 3], data=[1.5] * 12), (400, "image")),
        (changed(shape=[]), (400, "image")),
        (changed(shape=[2]), (400, "image")),
        (changed(shape=[MAX_INSTANCES + 1]), (413, "image")),
        (changed(data=["%"]), (400, "image[0]")),
        (changed(data=[base64.b64encode(b"no photo").decode()]), (415, "image[0].image")),
        (changed(parameters={"binary_data_size": 4}), (400, "image")),
        (changed(datatype="UINT8", shape=[1, 2, 2], data=[0] * 4), (400, "image")),
        (changed(datatype="UINT8", shape=[1, 2, 2, 3], data=[0] * 11), (400, "image")),
        (changed(datatype="UINT8", shape=[1, 2, 2, 3], data=[256] * 12), (400, "image")),
        (changed(datatype="UINT8", shape=[1, 8000, 8000, 3], data=[0]), (413, "image")),
        (wanting("output"), (400, "outputs.output")),
        (wanting("scores", classification=3), (400, "outputs.scores.classification")),
        (wanting("scores", binary_data=1), (400, "outputs.scores.binary_data")),
        (changed() | {"id": 3}, (400, "id")),
    ],
)
def test_what_is_wrong_with_tensors_is_named(handler: ClassifierHandler, body: Any, wanted: tuple[int, str]) -> None:
    assert refusal(handler, "kserve_v2", body) == wanted


@pytest.mark.parametrize("length", ["x", "-1", "100000000", "²"])
def test_a_wrong_length_of_the_json(handler: ClassifierHandler, length: str) -> None:
    found = refusal(handler, "kserve_v2", of_files(noise_png()), Inference_Header_Content_Length=length)
    assert found == (400, "inference-header-content-length")


@pytest.mark.parametrize("after", [b"\x05\x00\x00\x00abc", b"\x01\x00"])
def test_elements_that_end_early(handler: ClassifierHandler, after: bytes) -> None:
    tensor = {"name": "x", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(after)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    found = refusal(handler, "kserve_v2", head + after, Inference_Header_Content_Length=str(len(head)))
    assert found == (400, "x")


def test_metadata(handler: ClassifierHandler, segmenter: SegmenterHandler) -> None:
    status, answer, _ = sent(handler, "kserve_v2_metadata", b"")
    told, spec = msgspec.json.decode(answer), handler.worker.task.spec
    assert status == 200 and (told["name"], told["versions"]) == (spec.name, [spec.version])
    found = v2(handler, of_files(noise_png()))[0]
    assert {one["name"] for one in found["outputs"]} | {"json"} == {one["name"] for one in told["outputs"]}
    assert told["outputs"][0] == {"name": "scores", "datatype": "FP32", "shape": [-1, len(spec.labels)]}
    told = msgspec.json.decode(sent(segmenter, "kserve_v2_metadata", b"")[1])
    assert [one["name"] for one in told["outputs"]] == ["json"]


def test_a_segmenter_answers_json(segmenter: SegmenterHandler) -> None:
    _, values = v2(segmenter, of_files(coarse_png(), parameters={"threshold": 0.01}))
    assert json.loads(values["json"][0])["detections"]
