"""Recorded answers beside ours: what counts as agreement, and which reasons the numbers give away."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagexplain.agreement.comparison import compare, rank_correlation
from imagexplain.agreement.reasons import softmax
from imagexplain.agreement.recorded import answers_of
from imagexplain.cli import main
from imagexplain.errors import ArgumentError

LOGITS = np.array([2.0, -1.0, 0.5, 0.25])
MAP = np.random.default_rng(0).normal(size=(8, 6, 3))


def vertex(values: Any = MAP, scores: Any = LOGITS, target: int = 0, **changes: Any) -> str:
    """A line with the answer to a call of Vertex AI's."""
    scores = np.asarray(scores)
    one = {
        "instanceOutputValue": float(scores[target]),
        "baselineOutputValue": 0.125,
        "approximationError": 1e-5,
        "featureAttributions": {"image": np.asarray(values).tolist()},
        "outputIndex": [target],
        **changes,
    }
    return json.dumps({"predictions": [scores.tolist()], "explanations": [{"attributions": [one]}]})


def ours(values: Any = MAP, **changes: Any) -> str:
    """The same with our names of predictions."""
    answer = json.loads(vertex(values, **changes))
    labels = ["cat", "dog", "fox", "owl"]
    answer["predictions"] = [
        {
            "ids": ["0", "1", "2", "3"],
            "displayNames": labels,
            "scores": LOGITS.tolist(),
            "confidences": softmax(LOGITS).tolist(),
        }
    ]
    return json.dumps(answer)


def compared(recorded: str, own: str) -> Any:
    (first,), (second,) = answers_of(recorded), answers_of(own)
    return compare(first, second)


def kinds(recorded: str, own: str) -> list[str]:
    """First words of the reasons."""
    found = compared(recorded, own)
    assert not found.agrees
    return [reason.partition(":")[0] for reason in found.reasons]


def smoothed(values: Any) -> Any:
    return sum(np.roll(values, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)) / 9


def test_equal_answers_agree_whatever_their_names() -> None:
    found = compared(vertex(), ours())
    assert found.agrees and found.reasons == ()
    assert [one.field for one in found.fields] == [
        "prediction",
        "attributions[0].outputIndex",
        "attributions[0].instanceOutputValue",
        "attributions[0].baselineOutputValue",
        "attributions[0].approximationError",
        "attributions[0].image",
    ]
    assert found.fields[-1].rank_correlation == 1 and found.fields[-1].largest == 0


def test_a_difference_is_the_largest_one_by_the_largest_on_record() -> None:
    values = MAP.copy()
    values[2, 3, 1] += 0.5
    found = compared(vertex(), ours(values)).fields[-1]
    assert (found.agrees, found.largest) == (False, pytest.approx(0.5))
    assert found.relative == pytest.approx(0.5 / np.abs(MAP).max())
    assert 0.9 < found.rank_correlation < 1


def test_ranks_of_equal_values_are_shared() -> None:
    """By hand: ranks 1.5, 1.5, 3 and 1, 2, 3, centred −½, −½, 1 and −1, 0, 1: 1.5 / √(1.5 · 2)."""
    assert rank_correlation(np.array([5.0, 5, 9]), np.array([1.0, 2, 3])) == pytest.approx(1.5 / 3**0.5)
    assert rank_correlation(np.ones(3), np.arange(3.0)) is None


@pytest.mark.parametrize(
    ("recorded", "own", "wanted"),
    [
        (vertex(scores=softmax(LOGITS)), ours(), ["score"]),
        (vertex(), vertex(scores=softmax(LOGITS)), ["score"]),
        (vertex(scores=softmax(LOGITS)), vertex(), ["score"]),
        (vertex(scores=LOGITS + np.eye(4)[0]), vertex(), ["model"]),
        (vertex(target=1), ours(), ["target"]),
        (vertex(MAP / 2, baselineOutputValue=0.5), ours(), ["baseline"]),
        (vertex(MAP + smoothed(MAP) / 20, approximationError=0.2), ours(), ["steps"]),
        (vertex(smoothed(MAP)), ours(), ["smoothing"]),
        (vertex(MAP * 3), ours(), ["scale"]),
        (vertex(-MAP), ours(), ["scale"]),
        (vertex(MAP.clip(0)), ours(), ["scale"]),
        (vertex(np.abs(MAP) / np.abs(MAP).max()), ours(), ["scale"]),
        (vertex(MAP + 0.001 * MAP**2), ours(), []),
    ],
)
def test_the_reason_is_what_was_changed(recorded: str, own: str, wanted: list[str]) -> None:
    assert kinds(recorded, own) == wanted


def test_a_reason_says_its_side_and_its_numbers() -> None:
    assert "is after the softmax" in compared(vertex(scores=softmax(LOGITS)), ours()).reasons[0]
    assert "is before the softmax" in compared(vertex(), vertex(scores=softmax(LOGITS))).reasons[0]
    assert "the recorded map is smoother" in compared(vertex(smoothed(MAP)), ours()).reasons[0]
    assert "are 3 × ours" in compared(vertex(MAP * 3), ours()).reasons[0]
    assert "clipped at 0" in compared(vertex(MAP.clip(0) * 2), ours()).reasons[0]
    assert "(0.5 on record, 0.125 here)" in compared(vertex(baselineOutputValue=0.5), ours()).reasons[0]


def test_kserves_answers_have_their_arrays_anywhere() -> None:
    own = {
        "model": "m",
        "score": 2.0,
        "baseline_score": 0.125,
        "relative_residual": 0.0,
        "target_class": 0,
        "top": [],
        "attributions": np.moveaxis(MAP, -1, 0).tolist(),
    }
    said = [{"label": str(place), "index": place, "score": score} for place, score in enumerate(LOGITS)]
    ranked = json.dumps({"predictions": [{"predictions": said}], "explanations": [own]})
    for explanation in (MAP.tolist(), {"masks": MAP.tolist()}, {"grads": [MAP.tolist()], "delta": 0.0, "word": "x"}):
        recorded = json.dumps({"predictions": [LOGITS.tolist()], "explanations": [explanation]})
        assert compared(recorded, ranked).agrees  # and channels may come first
    summed = json.dumps({"explanations": {"temp": MAP.sum(-1).tolist()}})
    assert compared(summed, ranked).agrees  # over channels, of an object in place of the list


def test_several_classes_and_several_instances() -> None:
    each = {"score": 2.0, "target_class": 0}, {"score": -1.0, "target_class": 1}
    line = json.dumps({"explanations": [{"explanations": each, "attributions": [MAP.tolist(), (-MAP).tolist()]}] * 2})
    first, second = answers_of(line)
    assert [one.target for one in first.attributions] == [0, 1] and compare(first, second).agrees
    assert np.array_equal(second.attributions[1].features["attributions"], -MAP)


def test_classes_are_matched_by_label_where_both_have_labels() -> None:
    theirs = {"ids": ["88", "77"], "displayNames": ["owl", "dog"], "confidences": softmax(LOGITS)[[3, 1]].tolist()}
    alone = json.dumps({"predictions": json.loads(ours())["predictions"]})
    found = compared(json.dumps({"predictions": [theirs]}), alone)
    assert found.agrees and [one.field for one in found.fields] == ["prediction.confidences"]


def test_what_cannot_be_compared_is_said() -> None:
    notes = [
        compared(vertex(MAP[:4]), ours()).fields[-1].note,
        compared(vertex(featureAttributions={"image": {"b64_jpeg": "AA"}}), ours()).fields[-1].note,
        compared('{"error": "too large"}', ours()).fields[0].note,
        compared('{"predictions": ["cat"]}', ours()).fields[-1].note,
        compared('{"explanations": [{"adversarial_example": "x"}]}', ours()).fields[-1].note,
    ]
    assert notes == [
        "has shape 4 × 6 × 3, ours 8 × 6 × 3",
        "is a picture: ask both for numbers, without visualization",
        "recorded too large, ours an answer",
        "recorded 0, ours 1",
        "has no field in common",
    ]
    assert compared('{"error": "a"}', '{"error": {"code": 3}}').agrees


@pytest.mark.parametrize(
    "line", ["", "[1]", "{", "{}", '{"model": 3}', '{"predictions": [1], "explanations": [1, 2]}', "[" * 100_000]
)
def test_a_line_that_is_no_answer_is_refused(line: str) -> None:
    with pytest.raises(ArgumentError, match="wanted"):
        answers_of(line)


# The command


def written(folder: Path, name: str, *lines: str) -> str:
    path = folder / name
    path.write_text("\n\n".join(lines) + "\n")
    return str(path)


def in_batch(place: int, scale: float = 1.0) -> str:
    return json.dumps({"instance": {"b64": str(place)}, "prediction": [float(place), scale]})


def test_files_are_compared_line_by_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded = written(tmp_path, "recorded.jsonl", vertex(), vertex(smoothed(MAP)))
    own = written(tmp_path, "ours.jsonl", ours(), ours())
    assert main(["compare-answers", recorded, recorded]) == 0
    assert capsys.readouterr().out.endswith("2 of 2 agree within 0.001\n")
    assert main(["compare-answers", recorded, own]) == 1
    told = capsys.readouterr().out
    assert "line 3, instance 0: differs" in told and told.endswith("1 of 2 agree within 0.001; smoothing: 1\n")
    assert main(["compare-answers", recorded, own, "--json", "--tolerance", "9"]) == 0
    assert [json.loads(line)["agrees"] for line in capsys.readouterr().out.splitlines()] == [True, True]


def test_lines_of_batch_jobs_are_matched_by_their_instance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recorded = written(tmp_path, "recorded.jsonl", *map(in_batch, range(5)))
    own = written(tmp_path, "ours.jsonl", *map(in_batch, (3, 1, 4, 0, 2)))
    assert main(["compare-answers", recorded, own]) == 0
    lacking = written(tmp_path, "lacking.jsonl", *map(in_batch, (3, 1, 4, 0, 9)))
    assert main(["compare-answers", recorded, lacking]) == 2
    assert "wanted an answer to the instance of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "wanted answers, got no line"),
        ([vertex()], "wanted as many lines"),
        ([vertex()] * 3, "wanted as many lines"),
        ([vertex(), '{"predictions": [1, 2]}'], "ours.jsonl:3: wanted 1 instances, got 2"),
        ([vertex(), "what"], "ours.jsonl:3: line: wanted JSON"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: list[str], message: str
) -> None:
    recorded, own = written(tmp_path, "recorded.jsonl", vertex(), vertex()), written(tmp_path, "ours.jsonl", *lines)
    assert main(["compare-answers", recorded, own]) == 2
    assert message in capsys.readouterr().err
    assert main(["compare-answers", recorded, str(tmp_path / "none")]) == 2
