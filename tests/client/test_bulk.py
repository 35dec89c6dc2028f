"""Commands for many photos against a server that answers as the tests say."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from imagexplain.checkout import ROOT
from imagexplain.cli import bulk, explain, predict
from imagexplain.cli.journal import NAME, Journal
from imagexplain.cli.photos import gather, is_one
from imagexplain.client import InputError, Retry
from imagexplain.ops.server import free_port
from tests.client.stub import CLASSES, EXPLAINED, Asked, Said, Stub, of, refusal, tensors
from tests.waiting import until

GROUP = {"label": "cell, one", "kind": "segment", "attribution": 1.5, "area": 4, "directional": 0.5}


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "PATIENCE", Retry(attempts=3, first_s=0.01))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with photos of equal names in two folders."""
    folder = tmp_path / "photos"
    for name in ("b/1.jpg", "a/1.jpg", "a/1.png", "0.jpeg", "a/.hidden.jpg", "a/notes.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(f"photo {name}".encode())
    return folder


SUMMARY, FAILURES = "explanations_summary.csv", "explanations_failures.json"
NAMES = ["0.jpeg", "a/1.jpg", "a/1.png", "b/1.jpg"]


def answering(stub: Stub, answer: Callable[[Asked], Said]) -> None:
    """Have a stub answer by what it is asked."""

    def answer_to(asked: Asked) -> Said:
        with stub.lock:
            stub.asked.append(asked)
        return answer(asked)

    stub.answer_to = answer_to  # type: ignore[method-assign]


def by_accept(asked: Asked) -> Said:
    """A right answer in the form that is asked for."""
    match asked.headers["accept"]:
        case "image/png":
            return Said(200, b"\x89PNG\r\n\x1a\n----IEND\xaeB`\x82", "image/png")
        case "application/json":
            explains = asked.path.startswith("/explanations")
            return of({**EXPLAINED, "groups": [GROUP]} if explains else CLASSES)
        case _:
            return tensors()


def table(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.read_text())))


def test_photos_are_found_in_folders_patterns_and_lists(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def names(*arguments: str, stdin: str = "") -> list[str]:
        return [photo.name for photo in gather(arguments, tmp_path / "out", io.StringIO(stdin))]

    assert names(str(photos)) == NAMES
    assert names(f"{photos}/**/1.jpg") == ["a/1.jpg", "b/1.jpg"]
    assert names(str(photos / "a"), str(photos / "b")) == ["a/1.jpg", "a/1.png", "b/1.jpg"]
    assert names(str(photos / "b/1.jpg"), str(photos / "a/1.jpg"), str(photos / "b/1.jpg")) == ["b/1.jpg", "a/1.jpg"]
    monkeypatch.chdir(photos)
    (tmp_path / "list.txt").write_text("b/1.jpg\n\n0.jpeg\n")
    assert names(str(tmp_path / "list.txt")) == ["b/1.jpg", "0.jpeg"] == names("-", stdin="b/1.jpg\n0.jpeg")
    assert [str(photo.file) for photo in gather(["a"], tmp_path)] == ["a/1.jpg", "a/1.png"]
    assert [is_one([each]) for each in ("0.jpeg", "none.jpg", "a", "*.jpg", "-", str(tmp_path / "list.txt"))] == [
        *(True, True, False, False, False, False)
    ]


def test_answers_within_the_folder_are_no_photos(photos: Path) -> None:
    (photos / "results").mkdir()
    (photos / "results" / "1.png").write_bytes(b"an answer")
    assert [photo.name for photo in gather([str(photos)], photos / "results")] == NAMES


@pytest.mark.parametrize("argument", ["none.jpg", "none/*.jpg", "empty"])
def test_what_names_nothing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        gather([argument], tmp_path / "out")


class Command:
    """A command on a folder of photos, run in this process."""

    def __init__(self, stub: Stub, photos: Path, out: Path) -> None:
        self.stub, self.photos, self.out = stub, photos, out

    def __call__(self, *more: str, main: Any = explain.main, photos: str = "") -> int:
        self.stub.asked.clear()
        given = [photos or str(self.photos), "--model", "bit", "--out", str(self.out), "--url", self.stub.url]
        return int(main([*given, "--key", "key", *more]))

    @property
    def asked(self) -> int:
        return len(self.stub.asked)


@pytest.fixture
def command(stub: Stub, photos: Path, tmp_path: Path) -> Command:
    answering(stub, by_accept)
    return Command(stub, photos, tmp_path / "out")


def test_each_photo_and_model_has_its_file_in_each_form(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    forms = ("--format", "json", "--format", "png", "--format", "safetensors")
    assert command("--model", "places/2.0", *forms, "--steps", "20", "--jobs", "3") == 0
    for model in ("bit", "places@2.0"):
        for name in NAMES:
            for suffix in (".json", ".png", ".safetensors"):
                assert (command.out / model / f"{name}{suffix}").is_file()
    assert command.asked == 24 and not [file for file in command.out.rglob("*") if file.name.endswith(".part")]
    assert {asked.headers["x-explain-options"] for asked in command.stub.asked} == {"steps=20"}
    assert {asked.path for asked in command.stub.asked} == {"/explanations/bit", "/explanations/places/2.0"}
    rows = table(command.out / SUMMARY)
    assert [(row["photo"], row["model"]) for row in rows] == [
        (name, model) for name in NAMES for model in ("bit", "places/2.0")
    ]
    assert {(row["outcome"], row["answer"], row["score"]) for row in rows} == {("done", "star", "2.5")}
    told = capsys.readouterr()
    assert "8 answered: " in told.out and told.err == "", "no bar without a terminal"


def test_the_groups_of_all_photos_are_one_table(command: Command) -> None:
    assert command("--format", "csv", "--option", "segments=slic") == 0
    rows = table(command.out / "groups.csv")
    assert [row["photo"] for row in rows] == NAMES
    assert (rows[0]["group"], rows[0]["attribution"], rows[0]["target"], rows[0]["value"]) == (
        "cell, one",
        "1.5",
        "star",
        "",
    )


def test_the_same_command_asks_for_nothing_again(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--format", "json") == 0 and command.asked == 4
    assert command("--format", "json") == 0 and command.asked == 0
    assert "4 answered before: " in capsys.readouterr().out
    assert {row["answer"] for row in table(command.out / SUMMARY)} == {"star"}
    assert command("--format", "json", "--redo") == 0 and command.asked == 4
    assert command("--format", "json", "--format", "png") == 0 and command.asked == 4


def test_other_options_photos_and_masks_are_other_requests(command: Command, tmp_path: Path) -> None:
    masks = tmp_path / "masks.json"
    masks.write_text('[{"size": [1, 1], "counts": [0, 1]}]')
    assert command("--format", "json") == 0
    assert command("--format", "json", "--steps", "9") == 0 and command.asked == 4
    assert command("--format", "json", "--steps", "9", "--masks", str(masks)) == 0 and command.asked == 4
    masks.write_text('[{"size": [1, 1], "counts": [1]}]')
    assert command("--format", "json", "--steps", "9", "--masks", str(masks)) == 0 and command.asked == 4
    (command.photos / "0.jpeg").write_bytes(b"another photo")
    assert command("--format", "json", "--steps", "9", "--masks", str(masks)) == 0 and command.asked == 1


def test_each_photo_may_have_its_masks(command: Command, tmp_path: Path) -> None:
    for name in ("0", "a/1", "b/1"):
        (tmp_path / "masks" / f"{name}.json").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "masks" / f"{name}.json").write_text(f'[{{"size": [1, 1], "counts": [1], "label": "{name}"}}]')
    assert command("--format", "json", "--masks", str(tmp_path / "masks")) == 0
    assert {asked.json()["masks"][0]["label"] for asked in command.stub.asked} == {"0", "a/1", "b/1"}
    (tmp_path / "masks/b/1.json").unlink()
    assert command("--format", "json", "--masks", str(tmp_path / "masks")) == 1 and command.asked == 0


@pytest.mark.parametrize("damage", [b"", b"{}", None])
def test_what_is_damaged_or_gone_is_asked_for_again(command: Command, damage: bytes | None) -> None:
    assert command("--format", "json") == 0
    file = command.out / "bit" / "a/1.jpg.json"
    whole = file.read_bytes()
    file.unlink()
    if damage is not None:
        file.write_bytes(damage)
    assert command("--format", "json") == 0 and command.asked == 1 and file.read_bytes() == whole


def test_a_manifest_that_broke_off_loses_one_line(command: Command) -> None:
    assert command("--format", "json", "--jobs", "1") == 0
    manifest = command.out / NAME
    manifest.write_bytes(b"[1]\nnull\n\xff\n" + manifest.read_bytes()[:-30])
    assert command("--format", "json") == 0 and command.asked == 1
    assert command("--format", "json") == 0 and command.asked == 0


def test_failures_are_listed_and_asked_for_again(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(asked: Asked) -> Said:
        if asked.body == b"photo a/1.png":
            return refusal(422, "target_class", "no such label", X_Request_Id="mine")
        return Said(200, b"cut", "image/png") if asked.body == b"photo b/1.jpg" else by_accept(asked)

    answering(command.stub, answer)
    assert command("--format", "json") == 1
    refused, cut = json.loads((command.out / FAILURES).read_bytes())
    assert refused == {
        "photo": str(command.photos / "a/1.png"),
        "model": "bit",
        "format": "json",
        "status": 422,
        "field": "target_class",
        "request_id": "mine",
        "error": "ImpossibleError",
        "attempts": 1,
        "message": "explanations/bit: 422 target_class: no such label",
    }
    assert cut["error"] == "AnswerError" and "wanted application/json, got image/png" in cut["message"]
    told = capsys.readouterr()
    assert "failed: " in told.err and "422 target_class" in told.err and "2 answered, 2 failed" in told.out
    assert [row["outcome"] for row in table(command.out / SUMMARY)] == ["done", "done", "failed", "failed"]
    answering(command.stub, by_accept)
    assert command("--format", "json") == 0 and command.asked == 2 and not (command.out / FAILURES).exists()


def test_what_passes_is_tried_again_without_a_word(command: Command) -> None:
    seen = set[bytes]()

    def answer(asked: Asked) -> Said:
        if asked.body in seen:
            return by_accept(asked)
        seen.add(asked.body)
        return Said(reset=True) if b"b/" in asked.body else refusal(503, "queue", "full", Retry_After="0")

    answering(command.stub, answer)
    assert command("--format", "json") == 0 and command.asked == 8


@pytest.mark.parametrize(("status", "words"), [(401, "wanted a key"), (404, "no such model")])
def test_what_every_photo_would_meet_ends_it(
    command: Command, capsys: pytest.CaptureFixture[str], status: int, words: str
) -> None:
    answering(command.stub, lambda asked: refusal(status, "key", words))
    assert command("--format", "json", "--jobs", "1") == 1 and command.asked == 1
    told = capsys.readouterr().err
    assert words in told and "4 left; the same command goes on there" in told


def test_a_server_that_is_gone_ends_it(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    command.stub.url = f"http://127.0.0.1:{free_port()}"
    assert command("--format", "json") == 1
    told = capsys.readouterr().err
    assert "no answer from" in told and "4 left; the same command goes on there" in told


def test_a_folder_that_takes_nothing_ends_it(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    command.out.mkdir()
    (command.out / "bit").write_text("a file in the folder's place")
    assert command("--format", "json", "--jobs", "1") == 1 and command.asked == 1
    assert "cannot be written" in capsys.readouterr().err


def test_no_more_than_the_bound_are_under_way(command: Command) -> None:
    under_way, most = 0, 0

    def answer(asked: Asked) -> Said:
        nonlocal under_way, most
        with command.stub.lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.05)
        with command.stub.lock:
            under_way -= 1
        return by_accept(asked)

    answering(command.stub, answer)
    assert command("--format", "json", "--jobs", "2") == 0 and most == 2


def test_an_interruption_keeps_what_is_done_and_says_how_to_go_on(command: Command) -> None:
    answering(command.stub, lambda asked: by_accept(asked) if asked.body == b"photo 0.jpeg" else Said(seconds=20))
    program = [sys.executable, "-m", "imagexplain", "explain", str(command.photos), "--model", "bit", "--jobs", "2"]
    given = ["--url", command.stub.url, "--out", str(command.out), "--format", "json"]
    running = subprocess.Popen(
        [*program, *given], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    until((command.out / "bit" / "0.jpeg.json").exists, 30)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=10)
    assert running.returncode == 130, err
    assert "1 answered" in out and "stopped: 3 left; the same command goes on there" in err
    assert "Traceback" not in err
    answering(command.stub, by_accept)
    assert command("--format", "json") == 0 and command.asked == 3


def test_two_commands_do_not_share_a_folder(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    with Journal(command.out):
        assert command("--format", "json") == 1
    assert "another command writes its answers there" in capsys.readouterr().err


def test_predictions_are_a_table_or_lines_of_json(command: Command) -> None:
    assert command(main=predict.main) == 0
    rows = table(command.out / "predictions.csv")
    assert [(row["photo"], row["rank"], row["label"], row["probability"]) for row in rows] == [
        (name, "1", "star", "0.75") for name in NAMES
    ]
    assert command("--format", "jsonl", main=predict.main) == 0 and command.asked == 0
    lines = [json.loads(line) for line in (command.out / "predictions.jsonl").read_text().splitlines()]
    assert [line["photo"] for line in lines] == NAMES and lines[0]["predictions"] == CLASSES["predictions"]


def test_predictions_and_explanations_share_a_folder(command: Command) -> None:
    assert command("--format", "json") == 0 and command(main=predict.main) == 0
    assert command("--format", "json") == 0 and command.asked == 0
    assert command(main=predict.main) == 0 and command.asked == 0


def test_one_photo_is_told_and_written_if_need_be(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    one = str(command.photos / "0.jpeg")
    assert command(main=predict.main, photos=one) == 0
    assert "bit: star 75.0% (" in capsys.readouterr().out and not command.out.exists()
    assert command("--format", "json", main=predict.main, photos=one) == 0
    assert json.loads((command.out / "0_bit.json").read_bytes()) == CLASSES


def test_graphs_go_to_captioners_as_files(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "graph.json").write_text('{"objects": [{"box": [0, 0, 1, 1]}]}')
    answering(command.stub, lambda asked: of({"model": "captioner", "graphs": [{"caption": "a star", "n_best": []}]}))
    one, graph = str(command.photos / "0.jpeg"), f"graph={tmp_path / 'graph.json'}"
    assert command("--file", graph, main=predict.main, photos=one) == 0
    assert "bit: a star" in capsys.readouterr().out
    assert command.stub.asked[0].json()["graph"] == {"objects": [{"box": [0, 0, 1, 1]}]}
    assert command("--file", "graph", main=predict.main, photos=one) == 1


@pytest.mark.parametrize("jobs", ["0", "-1"])
def test_a_bound_that_is_none(command: Command, jobs: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--jobs", jobs) == 1 and "jobs: wanted at least 1" in capsys.readouterr().err
