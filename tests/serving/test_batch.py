"""Batches of JSON lines, explained in this process: order, errors, several models, and going on after a stop."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from google.cloud.aiplatform_v1.types import Explanation

from imagexplain.cli import batch as command
from imagexplain.cli import main
from imagexplain.ops.store import archive_of
from imagexplain.serving.batch import Job
from imagexplain.serving.tasks.classifier import Classifier
from imagexplain.serving.worker import Worker
from tests.serving import archives
from tests.serving.asking import base64_png, explain_one
from tests.serving.handlers import classifier_of, write_tensormask, write_timm

LINES: list[Any] = [{"b64": base64_png(seed)} for seed in range(5)]
STEPS = {"parameters": {"integratedGradientsAttribution": {"stepCount": 4}}}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store")
    for name in ("resnet", "vit"):
        archives.archived(store, write_timm(tmp_path_factory.mktemp(name), name), name)
    return store


@pytest.fixture(scope="module")
def loaded() -> dict[Path, Worker[Classifier]]:
    return {}


@pytest.fixture
def run(store: Path, tmp_path: Path, loaded: dict[Path, Worker[Classifier]], monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that runs the command on instances and gives its status and its results."""
    spec, given, out = tmp_path / "spec.json", tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    spec.write_text(json.dumps(STEPS))

    def once(archive: Path, stack: ExitStack) -> Worker[Classifier]:
        """Loaded by the first command of a module; the cache of explanations is a command's own otherwise."""
        if archive not in loaded:
            loaded[archive] = load(archive, stack)
        return loaded[archive]

    load = command._worker
    monkeypatch.setattr(command, "_worker", once)

    def run(lines: list[Any], *options: str, models: tuple[str, ...] = ("resnet",)) -> tuple[int, list[dict[str, Any]]]:
        texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
        given.write_text("".join(f"{text}\n" for text in texts))
        named = [word for model in models for word in ("--model", model)]
        explained = [] if "--predict" in options else ["--explanation-spec", str(spec)]
        where = ["--out", str(out), "--store", str(store), *explained, *named]
        status = main(["batch", str(given), *where, *options])
        return status, [json.loads(line) for line in out.read_text().splitlines()] if status == 0 else []

    return run


def test_lines_are_answered_in_their_order_and_a_bad_one_has_its_error(
    run: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    status, results = run([LINES[0], {"b64": "AAAA"}, "{", LINES[1], LINES[2]], "--at-once", "2")
    assert status == 0 and [set(result) for result in results] == [
        {"instance", "prediction", "explanation"},
        *[{"instance", "error"}] * 2,
        *[{"instance", "prediction", "explanation"}] * 2,
    ]
    assert [result["instance"] for result in results] == [LINES[0], {"b64": "AAAA"}, "{", LINES[1], LINES[2]]
    assert results[1]["error"]["code"] == 415 and results[2]["error"]["code"] == 400
    explanation = Explanation.from_json(json.dumps(results[0]["explanation"]))
    handler = classifier_of(write_timm(tmp_path_factory.mktemp("resnet"), "resnet"))
    _, own = explain_one(handler, "steps=4&baseline=black")
    (attribution,) = explanation.attributions
    assert attribution.instance_output_value == pytest.approx(own["score"], abs=1e-6)
    assert attribution.baseline_output_value == pytest.approx(own["baseline_score"], abs=1e-6)


def test_several_models_answer_each_line_in_turn(run: Any) -> None:
    status, results = run(LINES[:2], models=("resnet", "vit"))
    assert (status, [result["model"] for result in results]) == (0, ["resnet", "vit"] * 2)
    assert [result["instance"] for result in results] == [LINES[0], LINES[0], LINES[1], LINES[1]]


@pytest.mark.parametrize("models", [("resnet",), ("resnet", "vit")])
def test_a_stopped_batch_goes_on_where_it_stopped(run: Any, tmp_path: Path, models: tuple[str, ...]) -> None:
    out = tmp_path / "out.jsonl"
    _, whole = run(LINES, models=models)
    lines = out.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:3]) + lines[3][:-20])  # killed within a line
    assert run(LINES, models=models)[0] == 1  # which would overwrite it
    status, resumed = run(LINES, "--resume", "--at-once", "3", models=models)
    assert status == 0 and [one["instance"] for one in resumed] == [one["instance"] for one in whole]
    assert [one.get("model") for one in resumed] == [one.get("model") for one in whole]
    assert run(LINES, "--resume", models=models) == (0, resumed)


def test_resuming_with_other_instances_is_refused(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run(LINES[:2])
    assert run([LINES[0], LINES[3], LINES[4]], "--resume")[0] == 1
    assert "result 2 is of another instance than line 2" in capsys.readouterr().err


def test_predictions_alone_need_no_explanation(run: Any) -> None:
    _, results = run(LINES[:1], "--predict")
    assert set(results[0]) == {"instance", "prediction"} and len(results[0]["prediction"]["scores"]) == 4


def test_no_more_lines_are_read_than_are_held(monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    taken: list[int] = []
    original = command.lines_of

    def counted(files: Any) -> Any:
        for line in original(files):
            taken.append(len(taken))
            yield line

    seen: list[int] = []
    results = Job._results

    def watched(self: Any, worker: Any, lines: Any) -> Any:
        seen.append(len(taken))
        return results(self, worker, lines)

    monkeypatch.setattr(command, "lines_of", counted)
    monkeypatch.setattr(Job, "_results", watched)
    run(LINES, "--at-once", "2")
    assert seen == [2, 4, 5]


def test_archives_are_found_by_name_version_or_file(store: Path, tmp_path: Path) -> None:
    for name in ("m.mar", "m@1.9.mar", "m@1.10.mar", "mm.mar"):
        (tmp_path / name).touch()
    assert archive_of("m", tmp_path).name == "m@1.10.mar"
    assert archive_of("m/1.9", tmp_path).name == "m@1.9.mar"
    assert archive_of(str(store / "vit.mar"), tmp_path) == store / "vit.mar"
    with pytest.raises(ValueError, match=r"unknown model 'n'"):
        archive_of("n", tmp_path)


def test_what_is_no_classifier_is_refused(
    run: Any, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "unpacked"
    folder.mkdir()
    archive = archives.archived(tmp_path / "other", write_tensormask(folder), "tensormask")
    assert run(LINES[:1], models=(str(archive),))[0] == 1
    assert "wanted the archive of a classifier" in capsys.readouterr().err
    assert run(LINES[:1], models=("nothing",))[0] == 1
    assert "unknown model 'nothing'" in capsys.readouterr().err
