"""Answers of every kind of head, of differences of two classes, and of several classes in one request."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
import torch
from safetensors.torch import load, save_file
from torch import Tensor, nn

from handlers.classifier import ClassifierHandler
from handlers.segmenter import SegmenterHandler
from imagexplain import models
from imagexplain.api import schema
from imagexplain.archive import build, supported_methods
from imagexplain.archive.spec import ClassifierSpec, SpecError
from imagexplain.attribution import METHODS
from imagexplain.ops.unpack import unpack
from imagexplain.serving import path_attribution
from tests.pictures import words
from tests.serving import archives
from tests.serving.asking import answer_to, ask, ask_json, coarse_png, explain_one, explanation, noise_png, prediction
from tests.serving.handlers import TIMM_LABELS, classifier_of, forget, segmenter_of, write_tensormask, write_timm
from tests.tensors import unpacked

GZIP, SAFETENSORS = "application/gzip", "application/x-safetensors"

Make = Callable[..., ClassifierHandler]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A function that loads a small network with so many outputs and a changed spec, each of them once."""
    known: dict[str, ClassifierHandler] = {}

    def handler(outputs: int = len(TIMM_LABELS), **changes: Any) -> ClassifierHandler:
        key = json.dumps([outputs, changes])
        if key not in known:
            folder = write_timm(tmp_path_factory.mktemp("resnet"), "resnet", outputs=outputs, **changes)
            supported_methods.write(sorted(METHODS), folder)  # a trial of all takes seconds
            known[key] = classifier_of(folder)
        return known[key]

    return handler


def predicted(handler: ClassifierHandler) -> dict[str, Any]:
    """The prediction for a photo, with its scores."""
    bodies, _ = ask(handler, (prediction(), noise_png()), (prediction(GZIP), noise_png()))
    answer = msgspec.json.decode(bodies[0], type=schema.ClassPrediction)
    assert answer.score_kind
    found: dict[str, Any] = json.loads(bodies[0])
    return found


def explained(handler: ClassifierHandler, options: str = "") -> tuple[dict[str, Any], Tensor]:
    """An explanation's plain values, held to its type, and its attribution."""
    by_path = "method=" not in options
    options = "&".join(filter(None, ("steps=4" if by_path else "", options)))
    status, answer = explain_one(handler, options)
    assert status == 200, answer
    msgspec.convert(answer, schema.PathExplanation if by_path else schema.MapExplanation)
    _, tensors = explain_one(handler, options, GZIP)
    return answer, tensors["integrated_grads" if by_path else "map"]


def test_a_softmax_is_as_ever_and_says_that_logits_are_explained(make: Make) -> None:
    handler = make()
    answer = predicted(handler)
    assert answer["score_kind"] == "logit"
    assert sum(row["probability"] for row in answer["predictions"]) == pytest.approx(1)
    assert explained(handler)[0]["score_kind"] == "logit"


def test_labels_of_a_sigmoid_stand_by_themselves(make: Make) -> None:
    handler = make(head={"activation": "sigmoid"})
    for row in predicted(handler)["predictions"]:
        assert row["probability"] == pytest.approx(torch.tensor(row["score"]).sigmoid().item())
    answer, attribution = explained(handler, "target_class=owl")
    wanted, same = explained(make(), "target_class=owl")
    assert attribution.equal(same) and answer["score"] == wanted["score"]  # each logit is explained by itself


def test_one_logit_explains_both_its_signs(make: Make) -> None:
    handler = make(1, labels=["healthy", "ill"], head={"activation": "sigmoid"})
    rows = predicted(handler)["predictions"]
    assert {row["label"] for row in rows} == {"healthy", "ill"}
    assert rows[0]["score"] == -rows[1]["score"] > 0 and sum(row["probability"] for row in rows) == pytest.approx(1)
    (healthy, against), (ill, towards) = (explained(handler, f"target_class={label}") for label in ("healthy", "ill"))
    assert healthy["score"] == -ill["score"] and against.equal(-towards) and towards.any()
    difference, both = explained(handler, "target_class=ill&contrast_class=healthy")
    assert difference["score"] == pytest.approx(2 * ill["score"])
    torch.testing.assert_close(both, 2 * towards)


@pytest.mark.parametrize("labels", [["age"], ["age", "height", "weight"]])
def test_values_have_no_probability(make: Make, labels: list[str]) -> None:
    handler = make(len(labels), labels=labels, head={"activation": "none"})
    answer = predicted(handler)
    assert answer["score_kind"] == "value"
    assert [row["label"] for row in answer["predictions"]] == labels
    assert all("probability" not in row for row in answer["predictions"])
    found, attribution = explained(handler, "baseline=black")
    assert (found["target_label"], found["score_kind"]) == ("age", "value")
    total = attribution.sum().item() + found["residual"]
    assert found["score"] - found["baseline_score"] == pytest.approx(total, abs=1e-5)
    _, picture = explain_one(handler, "steps=2", "image/png")
    assert words(picture).startswith("Contributions to age\nvalue ")


def test_a_temperature_scales_what_is_explained(make: Make) -> None:
    warm, half = explained(make(head={"temperature": 2.0}), "target_class=1")
    plain, whole = explained(make(), "target_class=1")
    assert warm["score"] == pytest.approx(plain["score"] / 2)
    torch.testing.assert_close(half, whole / 2)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_log_odds_and_probabilities_are_explained_where_the_spec_says_so(make: Make, activation: str) -> None:
    plain = predicted(make(head={"activation": activation}))["predictions"]
    wanted = {row["label"]: row["probability"] for row in plain}
    for score in ("log_odds", "probability"):
        handler = make(head={"activation": activation, "score": score})
        answer = predicted(handler)
        assert answer["score_kind"] == score
        rows = {row["label"]: row for row in answer["predictions"]}
        assert {label: row["probability"] for label, row in rows.items()} == pytest.approx(wanted, abs=1e-6)
        for row in rows.values():
            odds = torch.tensor(row["score"])
            assert (odds if score == "probability" else odds.sigmoid()).item() == pytest.approx(row["probability"])
        found, _ = explained(handler)
        assert (found["score_kind"], found["score"]) == (score, pytest.approx(answer["predictions"][0]["score"]))


@pytest.mark.parametrize("options", ["", "&method=input_x_gradient", "&method=occlusion&size=8&stride=8"])
def test_a_contrast_is_of_the_difference(make: Make, options: str) -> None:
    handler = make()
    (cat, of_cat), (fox, of_fox) = (explained(handler, f"target_class={label}{options}") for label in ("cat", "fox"))
    answer, difference = explained(handler, f"target_class=cat&contrast_class=fox{options}")
    assert (answer["target_label"], answer["contrast_class"], answer["contrast_label"]) == ("cat", 2, "fox")
    assert answer["score"] == pytest.approx(cat["score"] - fox["score"], abs=1e-6)
    torch.testing.assert_close(difference, of_cat - of_fox, rtol=1e-3, atol=1e-6)
    assert "contrast_class" not in cat
    if not options:
        missed = answer["score"] - answer["baseline_score"] - difference.sum().item()
        assert answer["residual"] == pytest.approx(missed, abs=1e-5)


@pytest.mark.parametrize(
    "options", ["method=layer_cam", "method=score_cam", "method=full_grad", "combine=blur_ig,xgrad_cam"]
)
def test_methods_that_look_inside_take_a_contrast(make: Make, options: str) -> None:
    handler = make()
    status, plain = explain_one(handler, f"{options}&target_class=cat", GZIP)
    _, found = explain_one(handler, f"{options}&target_class=cat&contrast_class=1", GZIP)
    assert status == 200 and found["contrast_class"] == 1
    assert plain.get("layer") == found.get("layer") and not plain["map"].equal(found["map"])


def test_groups_and_pictures_of_a_contrast(make: Make) -> None:
    handler = make()
    options = "target_class=cat&contrast_class=owl&segments=grid&rows=2&columns=2"
    tables = [explained(handler, f"segments=grid&rows=2&columns=2&target_class={name}")[0] for name in ("cat", "owl")]
    answer, _ = explained(handler, options)
    parts = [[row["attribution"] for row in table["groups"]] for table in (*tables, answer)]
    assert parts[2] == pytest.approx([one - other for one, other in zip(*parts[:2], strict=True)], abs=1e-5)
    _, picture = explain_one(handler, f"steps=4&{options}", "image/png")
    assert "Evidence for cat rather than owl" in words(picture) and "difference of scores" in words(picture)


def test_a_contrast_has_a_cache_key_of_its_own(make: Make) -> None:
    handler = make()
    forget(handler)
    asked = ["target_class=cat", "target_class=cat&contrast_class=dog", "target_class=cat&contrast_class=fox"]
    first = [explained(handler, options)[1] for options in asked]
    with patch.object(path_attribution, "integrate", side_effect=RuntimeError("computed anew")):
        again = [explained(handler, options)[1] for options in asked]
    assert all(map(torch.equal, first, again)) and not any(one.equal(first[0]) for one in first[1:])


def test_a_batch_of_classes_and_differences_answers_each_as_alone(make: Make) -> None:
    asked = ["target_class=cat", "target_class=cat&contrast_class=dog", 'target_class=["fox", 3]', "steps=7"]
    headers = [explanation(f"steps=5&{options}" if "steps" not in options else options) for options in asked]
    together, context = ask(make(), *((one, noise_png()) for one in headers))
    assert set(context.statuses.values()) == {200}
    for one, body in zip(headers, together, strict=True):
        (alone,), _ = ask(make(), (one, noise_png()))
        assert flat(json.loads(body)) == pytest.approx(flat(json.loads(alone)), rel=1e-4, abs=1e-5)


def flat(answer: Any) -> list[float]:
    """The numbers of an answer."""
    if isinstance(answer, dict | list):
        return [number for value in (answer.values() if isinstance(answer, dict) else answer) for number in flat(value)]
    return [float(answer)] if isinstance(answer, int | float) else []


def test_a_softmax_of_scores_is_none_of_a_difference(make: Make) -> None:
    handler = make()
    options = "method=rise&samples=20&target_class=cat"
    assert explained(handler, options)[0]["options"]["scores"] == "probabilities"
    assert explained(handler, f"{options}&contrast_class=dog")[0]["options"]["scores"] == "logits"
    status, refusal = explain_one(handler, f"{options}&contrast_class=dog&scores=probabilities")
    assert (status, refusal["field"]) == (422, "scores") and "a difference of two scores" in refusal["message"]
    status, refusal = explain_one(make(head={"activation": "sigmoid"}), "method=blur_ig&score=probability")
    assert (status, refusal["field"]) == (422, "score")


@pytest.mark.parametrize(
    ("options", "status", "field"),
    [
        ("target_class=cat&contrast_class=cat", 422, "contrast_class"),
        ("target_class=cat&contrast_class=bird", 422, "contrast_class"),
        ("contrast_class=7", 422, "contrast_class"),
        ('target_class=["cat", "bird"]', 422, "target_class"),
        ('target_class=["cat", "dog"]&contrast_class=dog', 422, "contrast_class"),
        ('target_class=["cat", 1.5]', 400, "target_class"),
        ("target_class=[]", 400, "target_class"),
        ('target_class=["cat", null]', 400, "target_class"),
        ('target_class=["cat"', 422, "target_class"),
        (f"target_class={json.dumps([0] * 21)}", 413, "target_class"),
        ('target_class=["cat"]&outputs=intermediates', 400, "outputs"),
    ],
)
def test_targets_that_are_none(make: Make, options: str, status: int, field: str) -> None:
    got, refusal = explain_one(make(), options)
    assert (got, refusal["field"]) == (status, field), refusal


@pytest.mark.parametrize("options", ["steps=4", "method=grad_cam", "steps=4&segments=grid&rows=1&columns=2"])
def test_several_classes_are_answered_as_each_alone(make: Make, options: str) -> None:
    handler = make()
    each = ("cat", "owl", "dog")
    alone = [explain_one(handler, f"{options}&target_class={label}")[1] for label in each]
    status, answer = explain_one(handler, f"{options}&target_class={json.dumps(each)}")
    assert status == 200 and answer == {"model": "resnet", "explanations": alone}
    msgspec.convert(answer, schema.Explanations)
    singly = [explain_one(handler, f"{options}&target_class={label}", GZIP)[1] for label in each]
    _, packed = explain_one(handler, f"{options}&target_class={json.dumps(each)}", GZIP)
    name = "map" if "method" in options else "integrated_grads"
    assert packed[name].equal(torch.cat([one[name] for one in singly]))
    assert packed["output"].shape == (3, len(TIMM_LABELS))
    assert [one["target_class"] for one in packed["explanations"]] == [0, 3, 1]
    _, body = explain_one(handler, f"{options}&target_class={json.dumps(each)}", SAFETENSORS)
    assert load(body)[name].equal(packed[name])
    if "segments" in options:
        assert packed["attribution"].equal(torch.stack([one["attribution"] for one in singly]))
        assert packed["group_masks"].equal(singly[0]["group_masks"])


def test_several_classes_in_json_and_never_in_a_picture(make: Make) -> None:
    handler = make(head={"activation": "sigmoid"})
    ((status, answer),) = ask_json(handler, {"target_class": ["cat", 2], "contrast_class": "owl", "steps": 3})
    assert status == 200
    assert [(one["target_class"], one["contrast_label"]) for one in answer["explanations"]] == [(0, "owl"), (2, "owl")]
    status, refusal = explain_one(handler, 'target_class=["cat"]', "image/png")
    assert (status, refusal["field"]) == (400, "target_class")


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> SegmenterHandler:
    return segmenter_of(write_tensormask(tmp_path_factory.mktemp("tensormask")))


def test_an_instance_is_contrasted_with_another_class(segmenter: SegmenterHandler) -> None:
    photo, options = coarse_png(), "steps=3&detection=0"
    plain = json.loads(answer_to(segmenter, explanation(options), photo))
    index, (scores,) = (
        plain["target_class"],
        unpacked(answer_to(segmenter, explanation(options, GZIP), photo))["output"],
    )
    assert plain["score_kind"] == "logit"
    other = (index + 1) % 3
    found = json.loads(answer_to(segmenter, explanation(f"{options}&contrast_class={other}"), photo))
    assert (found["contrast_class"], found["detection"]) == (other, 0)
    assert found["score"] == pytest.approx((scores[index] - scores[other]).item(), abs=1e-4)
    several = explanation(f"steps=3&target_class={json.dumps([plain['target_label']])}")
    (one,) = json.loads(answer_to(segmenter, several, photo))["explanations"]
    assert one["target_class"] == index and one["detection"] == 0


class Ending(nn.Module):
    """A linear network that ends in a module or a function, and gives a dictionary."""

    def __init__(self, last: nn.Module | None) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 32 * 32, 2)
        if last is not None:
            self.last = last

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        logits = self.linear(images.flatten(1)) / 100
        return {"scores": self.last(logits) if hasattr(self, "last") else logits.softmax(1)}


def built(
    folder: Path, monkeypatch: pytest.MonkeyPatch, last: nn.Module | None, head: dict[str, Any], **changes: Any
) -> ClassifierSpec:
    """The spec in the archive of such a network."""
    torch.manual_seed(0)
    network = Ending(last).eval()
    monkeypatch.setattr(models, "build", lambda *_: copy.deepcopy(network))
    path = archives.write_spec(folder, head={"output": "scores", **head}, **changes)
    save_file(network.state_dict(), folder / "small.safetensors")
    (archive,) = build.build_all([path], folder / "store", environ={})
    unpacked = folder / "unpacked"
    unpack(archive, unpacked)
    handler = classifier_of(unpacked)
    (body,), context = ask(handler, (explanation("steps=4"), noise_png()))
    assert context.statuses[0] == 200, body
    return handler.worker.task.spec


def test_the_build_finds_the_logits_behind_a_softmax(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = built(tmp_path, monkeypatch, nn.Softmax(1), {"gives": "probabilities"})
    assert spec.head.probabilities_by == "last"
    assert "small: the logits are the input of last" in capsys.readouterr().out


def test_the_build_says_how_flat_probabilities_without_logits_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = built(tmp_path, monkeypatch, None, {"gives": "probabilities"})
    assert spec.head.probabilities_by is None
    assert "small: the logits behind the probabilities are not found" in capsys.readouterr().out


def test_the_build_points_out_probabilities_that_pass_for_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    built(tmp_path, monkeypatch, nn.Softmax(1), {})
    assert "after a softmax, `head: {gives: probabilities}`" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("head", "changes", "words"),
    [
        ({"activation": "relu"}, {}, "head.activation"),
        ({"colour": "red"}, {}, "head.colour"),
        ({"temperature": 0}, {}, "head.temperature"),
        ({"activation": "none", "temperature": 2}, {}, "values have neither probabilities nor a temperature"),
        ({"activation": "none", "score": "logit"}, {}, "wanted value with activation none"),
        ({"score": "value"}, {}, "else logit, log_odds or probability"),
        ({"probabilities_by": "last"}, {}, "goes with `gives: probabilities`"),
        ({"activation": "sigmoid"}, {"labels": ["ill"]}, "names of its negative and of its positive class"),
        ({}, {"labels": ["ill"]}, "labels: Tuple should have at least 2 items: a classifier's scores compete"),
        ({"activation": "none"}, {"labels": []}, "labels"),
        ({"output": "logits"}, {}, "head: output: wanted a field of the network's output, scores, got logits"),
        ({"gives": "probabilities", "score": "logit"}, {}, "head: score: wanted log_odds or probability"),
        (
            {"gives": "probabilities", "probabilities_by": "end"},
            {},
            "head: probabilities_by: wanted the name of a module",
        ),
        ({"activation": "none"}, {"labels": ["age"]}, "labels: the weights have 2 classes, given are 1 labels"),
    ],
)
def test_heads_that_cannot_be(
    head: dict[str, Any], changes: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SpecError, match=r"small\.yaml: ") as caught:
        built(tmp_path, monkeypatch, None, head, **changes)
    assert words in str(caught.value)
