"""The handler, called as TorchServe calls it, on a seeded network with the CIFAR-10 labels."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load

from handlers.classifier import ClassifierHandler
from imagexplain.serving import path_attribution as explanation_module
from imagexplain.serving.deadline import Deadline
from imagexplain.serving.torchserve import TorchServeMetrics
from tests.pictures import panel
from tests.serving.asking import HEIGHT, WIDTH, ask, explanation, noise_png, prediction
from tests.serving.fake_torchserve import Context
from tests.serving.handlers import CIFAR_LABELS, classifier_of, write_bit
from tests.tensors import LEGACY_SHAPES, unpacked
from tests.wire.photos import noise_pixels


def test_prediction(handler: ClassifierHandler) -> None:
    (body,), context = ask(handler, (prediction(), noise_png()))
    answer = json.loads(body)
    assert (context.statuses[0], context.types[0]) == (200, "application/json")
    assert answer["model"] == "bit"
    scores = [entry["score"] for entry in answer["predictions"]]
    assert len(scores) == 5 and scores == sorted(scores, reverse=True)
    assert {entry["label"] for entry in answer["predictions"]} <= set(CIFAR_LABELS)


def test_summary(handler: ClassifierHandler) -> None:
    (body,), context = ask(handler, (explanation("target_class=cat&steps=20&quadrature=midpoint"), noise_png()))
    answer = json.loads(body)
    assert context.statuses[0] == 200, answer
    assert (answer["target_class"], answer["target_label"]) == (3, "cat")
    assert (answer["steps"], answer["evaluations"], answer["quadrature"]) == (20, 20, "midpoint")
    assert {"score", "baseline_score", "residual", "relative_residual", "top", "model"} <= set(answer)


def test_the_predicted_class_is_explained_by_default(handler: ClassifierHandler) -> None:
    bodies, _ = ask(handler, (prediction(), noise_png()), (explanation("steps=2"), noise_png()))
    predicted, explained = map(json.loads, bodies)
    assert explained["target_label"] == predicted["predictions"][0]["label"]
    assert explained["score"] == pytest.approx(predicted["predictions"][0]["score"], rel=1e-4)


def test_the_original_clients_get_what_they_got(handler: ClassifierHandler) -> None:
    body = json.dumps({"img_data": noise_pixels(HEIGHT, WIDTH).tolist(), "target_class": "airplane"}).encode()
    (answer,), context = ask(handler, ({"explain": "True", "Content-Type": "application/json"}, body))
    assert context.types[0] == "application/gzip"
    result = unpacked(answer)
    assert {name: tuple(value.shape) for name, value in result.items() if name != "target_class"} == LEGACY_SHAPES
    assert set(result) == {*LEGACY_SHAPES, "target_class"}
    assert result["target_class"] == 0
    assert all(value.dtype == torch.float32 for name, value in result.items() if name != "target_class")
    # Everything they returned follows from one pass: IG = Δ · Σ w_k g_k, with Δ the input itself.
    mean = (result["step_sizes"].view(-1, 1, 1, 1) * result["integrated_directional_grads"]).sum(0)
    last = result["intermediates"][-1] / float(np.polynomial.legendre.leggauss(50)[0][-1] + 1) * 2
    error = (mean * last - result["integrated_grads"][0]).abs().max() / result["integrated_grads"].abs().max()
    assert error < 1e-4


def test_baselines(handler: ClassifierHandler) -> None:
    names = ("zero", "black", "white")
    bodies, _ = ask(handler, *((explanation(f"steps=3&target_class=1&baseline={name}"), noise_png()) for name in names))
    answers = [json.loads(body) for body in bodies]
    assert [answer["baseline"] for answer in answers] == list(names)
    inputs = torch.stack([torch.full((3, 32, 32), value) for value in (0.0, -1.0, 1.0)])  # mean and std are 0.5
    scores = handler.worker.task.model.network(inputs)[:, 1].tolist()
    assert [answer["baseline_score"] for answer in answers] == pytest.approx(scores, rel=1e-4, abs=1e-5)


def test_the_original_clients_get_their_path_whatever_the_spec_says(tmp_path: Path) -> None:
    handler = classifier_of(write_bit(tmp_path, explain={"steps": 7, "baseline": "black"}))
    body = json.dumps({"img_data": noise_pixels(HEIGHT, WIDTH).tolist(), "target_class": "airplane"}).encode()
    (answer,), _ = ask(handler, ({"explain": "True", "Content-Type": "application/json"}, body))
    result = unpacked(answer)
    assert len(result["step_sizes"]) == 50
    # From zero, all points of the path are multiples of one another.
    ratio = result["intermediates"][0] / result["intermediates"][-1]
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-4, atol=0)


def test_safetensors_and_picture(handler: ClassifierHandler) -> None:
    bodies, context = ask(
        handler,
        (explanation("steps=3", "application/x-safetensors"), noise_png()),
        (explanation("steps=3", "image/png"), noise_png()),
    )
    assert context.statuses == {0: 200, 1: 200}
    tensors = load(bodies[0])
    assert tensors["integrated_grads"].shape == (1, 3, 32, 32)
    assert "intermediates" not in tensors
    assert panel(bodies[1]).size == (48, 40)  # the photo's size, not the model's


def test_outputs_that_were_named_come_along(handler: ClassifierHandler) -> None:
    (body,), _ = ask(handler, (explanation("steps=4&outputs=intermediates", "application/gzip"), noise_png()))
    result = unpacked(body)
    assert result["intermediates"].shape == (4, 3, 32, 32)
    assert "integrated_directional_grads" not in result
    assert result["steps"] == 4


def test_a_mixed_batch_answers_each_as_asked(handler: ClassifierHandler) -> None:
    requests = [
        (explanation("target_class=cat&steps=7"), noise_png(1)),
        (prediction(), noise_png(2)),
        (explanation("target_class=zebra"), noise_png(3)),
        (explanation("target_class=2&steps=12&quadrature=left"), noise_png(4)),
        (prediction(), noise_png(5)[:100]),
        (explanation(), b""),
        (explanation("colour=red"), noise_png(6)),
        (explanation("steps=5", "image/png"), noise_png(7)),
    ]
    bodies, context = ask(handler, *requests)
    assert [context.statuses[index] for index in range(8)] == [200, 200, 422, 200, 400, 400, 400, 200]
    for index in (0, 1, 3):
        (alone,), _ = ask(handler, requests[index])
        assert_same(json.loads(bodies[index]), json.loads(alone))
    for index, wanted in {2: "target_class", 4: "image", 5: "image", 6: "colour"}.items():
        error = json.loads(bodies[index])
        assert (
            error["code"] == context.statuses[index] and error["field"] and wanted in error["field"] + error["message"]
        )
        assert context.types[index] == "application/json"


def assert_same(together: Any, alone: Any) -> None:
    if isinstance(alone, dict):
        assert together.keys() == alone.keys()
        for key in alone:
            if key not in ("residual", "relative_residual"):  # differences of nearly equal numbers
                assert_same(together[key], alone[key])
    elif isinstance(alone, list):
        for left, right in zip(together, alone, strict=True):
            assert_same(left, right)
    else:
        assert together == (pytest.approx(alone, rel=1e-4) if isinstance(alone, float) else alone)


def test_a_failure_inside_hits_only_its_own_request(
    handler: ClassifierHandler, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = explanation_module.integrate_paths

    def fails_on_class_3(model: Any, samples: Any, targets: Any, before: Any) -> Any:
        if 3 in targets:
            raise RuntimeError("broken [METRICS]forged:1")
        return real(model, samples, targets, before)

    monkeypatch.setattr("imagexplain.serving.worker.integrate_paths", fails_on_class_3)
    bodies, context = ask(
        handler,
        (explanation("target_class=3&steps=2"), noise_png()),
        (explanation("target_class=4&steps=2"), noise_png()),
    )
    assert context.statuses == {0: 500, 1: 200}
    assert "broken" not in bodies[0].decode()  # the traceback is the log's, not the client's
    assert "broken" in caplog.text and "[METRICS]" not in caplog.text


def test_what_cannot_be_in_time_is_refused(handler: ClassifierHandler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler.worker.task, "seconds_per_point", 1.0)  # 96 of the 120 seconds are the deadline
    bodies, context = ask(
        handler,
        (explanation("steps=95"), noise_png()),
        (explanation("steps=2"), noise_png()),
        (explanation("steps=93"), noise_png()),
    )
    assert [context.statuses[index] for index in range(3)] == [413, 200, 503]
    assert "at most 96 s" in json.loads(bodies[0])["message"]


def test_a_pass_that_is_given_up_still_corrects_the_estimate(
    handler: ClassifierHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler.worker.task, "model", replace(handler.worker.task.model, chunk=2))
    monkeypatch.setattr(handler.worker.task, "seconds_per_point", 1e-9)
    real, asked = Deadline.check, []

    def over_at_the_third_chunk(deadline: Deadline, remaining: int) -> None:
        asked.append(remaining)
        real(replace(deadline, ends=0.0) if len(asked) == 3 else deadline, remaining)

    monkeypatch.setattr(Deadline, "check", over_at_the_third_chunk)
    (body,), context = ask(handler, (explanation("steps=10"), noise_png()))
    assert context.statuses[0] == 503
    assert "8 path points were left" in json.loads(body)["message"]
    assert handler.worker.task.seconds_per_point > 1e-6


def test_too_large_an_answer_is_refused(tmp_path: Path) -> None:
    handler = classifier_of(write_bit(tmp_path, limits={"max_response_bytes": 10_000}))
    (body,), context = ask(handler, (explanation("steps=2", "application/gzip"), noise_png()))
    assert context.statuses[0] == 413 and "10,000" in json.loads(body)["message"]


def test_requests_leave_the_model_as_it_was(handler: ClassifierHandler) -> None:
    network = handler.worker.task.model.network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for _ in range(3):
        ask(handler, (explanation("steps=4"), noise_png(1)), (prediction(), noise_png(2)))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in network.parameters())
    assert not any(module.training for module in network.modules())


def test_the_same_request_gets_the_same_bytes(handler: ClassifierHandler) -> None:
    first, second = (ask(handler, (explanation("steps=6", "application/gzip"), noise_png()))[0][0] for _ in range(2))
    assert first == second


LAST = "explain_last_answer_timestamp_seconds"


def context_of(handler: ClassifierHandler) -> Context:
    sink = handler.worker.metrics.sink
    assert isinstance(sink, TorchServeMetrics) and isinstance(sink.store, Context)
    return sink.store


def test_every_request_is_counted(handler: ClassifierHandler) -> None:
    written = context_of(handler).written  # the context of initialize, as TorchServe has one for all batches
    written.clear()
    ask(handler, (prediction(), noise_png()), (explanation("steps=3"), noise_png()), (explanation(), b"no image"))
    counted = {labels for name, value, labels in written if name == "explain_requests_total" and value == 1}
    assert counted == {
        ("bit", "prediction", "ok", "1.0"),
        ("bit", "explanation", "ok", "1.0"),
        ("bit", "explanation", "unsupported_media", "1.0"),
    }
    assert ("explain_evaluations_sum", 3) in {(name, value) for name, value, _ in written}
    stages = {name for name, _, _ in written if name.endswith("_seconds")}
    assert stages == {f"explain_{name}_seconds" for name in ("decode", "attribute", "encode", "request")} | {LAST}
    methods = [labels[1:3] for name, _, labels in written if name == "explain_requests_by_method_total"]
    assert methods == [("integrated_gradients", "ok"), ("other", "refused")]
    assert [labels[1] for name, _, labels in written if name == "explain_rejected_total"] == ["image"]
    held = {value for name, value, _ in written if name == "explain_cache_bytes"}
    assert held == {handler.worker.explanations.bytes + handler.worker.task.scores.bytes} and min(held) > 0


def test_labels_must_match_the_scores(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="labels: wanted 10, one for each score of the model, got 2"):
        ClassifierHandler().initialize(Context(model_dir=write_bit(tmp_path, labels=("cat", "dog"))))


def test_the_chunk_can_be_set(tmp_path: Path) -> None:
    handler = classifier_of(write_bit(tmp_path, serving={"chunk": 3}))
    assert handler.worker.task.model.chunk == 3
