"""A job in this process: its rows beside a worker's own answers, stops at every place, and what it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from handlers.classifier import ClassifierHandler
from handlers.segmenter import SegmenterHandler
from imagexplain.api.request import JSON
from imagexplain.cli import main
from imagexplain.cluster import job as jobs
from imagexplain.cluster import lists, table
from imagexplain.cluster.explainer import Explainer
from imagexplain.cluster.inputs import items
from imagexplain.cluster.job import Job, JobStoppedError, begin, explain_chunk, run_here
from imagexplain.ops.server import ROOT
from imagexplain.serving.messages import RawRequest
from tests.disks import fill, mounted
from tests.serving.archives import archived
from tests.serving.asking import coarse_png
from tests.serving.handlers import classifier_of, segmenter_of, write_tensormask, write_timm

OPTIONS = "steps=4&baseline=black&segments=grid&rows=2&columns=2"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store")
    archived(store, write_timm(tmp_path_factory.mktemp("resnet"), "resnet"), "resnet")
    archived(store, write_tensormask(tmp_path_factory.mktemp("tensormask")), "tensormask")
    return store


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(6):
        (folder / f"{seed}.png").write_bytes(coarse_png(seed))
    (folder / "bad.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> ClassifierHandler:
    return classifier_of(write_timm(tmp_path_factory.mktemp("resnet"), "resnet"))


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> SegmenterHandler:
    return segmenter_of(write_tensormask(tmp_path_factory.mktemp("tensormask")))


@pytest.fixture(scope="module")
def explainer(store: Path) -> Explainer:
    return Explainer.load(store / "resnet.mar", "classifier")


def job(store: Path, out: Path, **settings: Any) -> Job:
    return replace(Job(store / "resnet.mar", out, OPTIONS, chunk=3), **settings)


def part_of_another_job(folder: Path) -> bytes:
    return table.write_part(folder, [{"id": "another"}]).read_bytes()


def rows_of(job: Job) -> dict[str, dict[str, Any]]:
    found = list(table.rows(job.out / jobs.TABLE))
    by_name = {Path(row["id"]).name: row for row in found}
    assert len(by_name) == len(found)  # one row for each
    return by_name


def test_each_image_has_a_row_with_what_a_worker_answers(
    store: Path, photos: Path, tmp_path: Path, resnet: ClassifierHandler
) -> None:
    own = job(store, tmp_path / "out", maps=True)
    assert [(one.images, one.errors) for one in run_here(own, begin(own, items([str(photos)])))] == [
        (3, 0),
        (3, 0),
        (1, 1),
    ]
    rows = rows_of(own)
    assert set(rows) == {*(f"{seed}.png" for seed in range(6)), "bad.jpg"}
    for seed in range(6):
        headers = {"accept": jobs.SUMMARY, "x-explain-options": OPTIONS}
        asked = RawRequest({"body": (photos / f"{seed}.png").read_bytes()}, headers, "explanation")
        (answer,) = resnet.worker.handle([asked])
        told = safetensors.torch.load(answer.body)
        kept = safetensors.torch.load_file(own.out / str(rows[f"{seed}.png"]["maps"]))
        assert kept.keys() == told.keys()
        torch.testing.assert_close(kept["integrated_grads"], told["integrated_grads"], rtol=1e-4, atol=1e-6)
        row = rows[f"{seed}.png"]
        assert row["score"] == pytest.approx(row["baseline_score"] + kept["integrated_grads"].sum() + row["residual"])
        assert [group["attribution"] for group in row["groups"]] == pytest.approx(kept["attribution"].tolist())
        assert (row["size"], row["error"], row["evaluations"]) == ((photos / f"{seed}.png").stat().st_size, None, 4)
    assert rows["bad.jpg"]["error"] == {
        "status": 415,
        "field": "image",
        "message": "wanted JPEG, PNG or WebP, got 8 bytes that begin with 6e 6f 20 69 6d 61 67 65",
    }
    assert rows["bad.jpg"]["score"] is None


def test_a_stop_at_any_place_leaves_one_row_for_each_image(
    store: Path, photos: Path, tmp_path: Path, explainer: Explainer
) -> None:
    own = job(store, tmp_path / "out")
    chunks = begin(own, items([str(photos)]))
    explain_chunk(explainer, own, chunks[0])
    explain_chunk(explainer, own, chunks[0])  # the word of it was lost
    (own.out / jobs.TABLE / ".torn.parquet.1").write_bytes(b"PAR1")  # killed within a file
    assert (own.out / jobs.INPUTS / "0000.jsonl").read_bytes().count(b"\n") == 7
    left = begin(replace(own, chunk=None, workers=7), items([str(photos)]))  # of more actors the same chunks
    assert left == chunks[1:]
    for chunk in left:
        explain_chunk(explainer, own, chunk)
    assert len(rows_of(own)) == 7 and begin(own, items([str(photos)])) == []
    (photos / "late.png").write_bytes(coarse_png(9))
    try:
        (chunk,) = begin(own, items([str(photos)]))
        assert [Path(item.id).name for item in lists.images_of(own.out / jobs.INPUTS, chunk)] == ["late.png"]
        assert begin(own, items([str(photos / "0.png")])) == [chunk]  # what was listed once is not asked for again
    finally:
        (photos / "late.png").unlink()


def test_a_full_disk_stops_the_job_which_goes_on_with_room(
    store: Path, photos: Path, tmp_path: Path, explainer: Explainer
) -> None:
    with mounted(tmp_path / "disk", 1 << 20) as disk:
        own, wanted = job(store, disk / "out", maps=True), "out: No space left on device; .* the same command goes on"
        fill(disk)
        with pytest.raises(JobStoppedError, match=wanted):
            begin(own, items([str(photos)]))
        (disk / "filler").unlink()
        chunks = begin(own, items([str(photos)]))
        assert len(chunks) == 3
        fill(disk)
        (disk / "filler").open("r+b").truncate((disk / "filler").stat().st_size - 3 * 4096)  # room for a map, or two
        with pytest.raises(JobStoppedError, match=wanted):
            [explain_chunk(explainer, own, chunk) for chunk in chunks]
        (disk / "filler").unlink()
        left = begin(own, items([str(photos)]))
        assert left == chunks and table.parts(own.out / jobs.TABLE) == []
        for chunk in left:
            explain_chunk(explainer, own, chunk)
        assert len(rows_of(own)) == 7 and not list(own.out.rglob(".*"))


def test_a_kill_between_the_maps_and_the_rows(store: Path, photos: Path, tmp_path: Path, explainer: Explainer) -> None:
    """A process that ends itself as no handler can prevent, at its second chunk."""
    own = job(store, tmp_path / "out", maps=True)
    code = f"""
import os, signal
from pathlib import Path
from imagexplain.cluster import job, table
from imagexplain.cluster.inputs import items
write = table.write_part
def write_or_die(folder, rows):
    if table.parts(folder):
        os.kill(os.getpid(), signal.SIGKILL)
    write(folder, rows)
table.write_part = write_or_die
own = job.Job(Path({str(own.archive)!r}), Path({str(own.out)!r}), {OPTIONS!r}, True, chunk=3)
list(job.run_here(own, job.begin(own, items([{str(photos)!r}]))))
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert len(list((own.out / jobs.MAPS).iterdir())) == 6
    left = begin(own, items([str(photos)]))
    assert [chunk.images for chunk in left] == [3, 1]
    for chunk in left:
        explain_chunk(explainer, own, chunk)
    rows = rows_of(own)
    assert len(rows) == 7 and sum(row["maps"] is not None for row in rows.values()) == 6
    assert len(list((own.out / jobs.MAPS).iterdir())) == 6


def test_a_segmenters_instances_are_the_groups(
    store: Path, photos: Path, tmp_path: Path, segmenter: SegmenterHandler
) -> None:
    own = job(
        store,
        tmp_path / "out",
        options="steps=4&baseline=black",
        segmenter=store / "tensormask.mar",
        segmenter_options="threshold=0.3",
    )
    assert sum(one.errors for one in run_here(own, begin(own, items([str(photos)])))) == 1
    rows = rows_of(own)
    asked = RawRequest({"body": coarse_png(0)}, {"accept": JSON, "x-explain-options": "threshold=0.3"}, "prediction")
    (answer,) = segmenter.worker.handle([asked])
    found = json.loads(answer.body)["detections"]
    groups = [group for group in rows["0.png"]["groups"] if group["kind"] == "segment"]
    assert found and 0 < len(groups) <= len(found)
    assert rows["bad.jpg"]["error"]["status"] == 415


def test_a_folder_holds_one_job(store: Path, photos: Path, tmp_path: Path) -> None:
    own = job(store, tmp_path / "out")
    begin(own, items([str(photos)]))
    with pytest.raises(ValueError, match=r"another job is there, with options 'steps=4.*, not 'steps=5'"):
        begin(job(store, tmp_path / "out", options="steps=5"), items([str(photos)]))
    with pytest.raises(ValueError, match="wanted an empty folder, or one of a job that stopped"):
        begin(job(store, tmp_path), items([str(photos)]))
    with pytest.raises(ValueError, match=r"another job is there, with chunk 3, not 2"):
        begin(replace(own, chunk=2), items([str(photos)]))
    (own.out / jobs.TABLE / "0123.parquet").write_bytes(part_of_another_job(tmp_path))
    with pytest.raises(ValueError, match=r"0123\.parquet: wanted a part of this job's table, got other images"):
        begin(own, items([str(photos)]))
    (own.out / jobs.TABLE / "damaged.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"damaged\.parquet: wanted a part of the table, got"):
        begin(own, items([str(photos)]))


def test_the_command(store: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["batch", "--input", str(photos), "--model", "resnet", "--output", str(tmp_path / "out")]
    given += ["--store", str(store), "--method", "grad_cam", "--segments", "grid", "--option", "rows=2"]
    assert main(given) == 0
    assert "7 of 7 images, 1 of them errors" in capsys.readouterr().out
    rows = {Path(row["id"]).name: row for row in table.rows(tmp_path / "out" / jobs.TABLE)}
    assert rows["0.png"]["method"] == "grad_cam" and rows["0.png"]["residual"] is None
    assert main(given) == 0
    assert "0 of 0 images" in capsys.readouterr().out
    assert main([*given, "--option", "columns=3"]) == 1
    assert "another job is there" in capsys.readouterr().err
    assert main([*given[:-2], "--actors", "-1"]) == 1
    assert "--actors: wanted at least 0, got -1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("--threshold 0.5", "--threshold: wanted a segmenter as --segments beside it, got none"),
        ("--threshold 0.5 --segments grid", "--threshold: wanted a segmenter as --segments beside it, got none"),
        ("--segmenters 2", "--segmenters: wanted a segmenter as --segments beside it, got none"),
        ("--segments tensormask --segmenters 2", "--segmenters: wanted --actors or --address beside it, got none"),
        ("--cpus 2", "--cpus: wanted --actors or --address beside it, got none"),
        ("--gpus 1", "--gpus: wanted --actors or --address beside it, got none"),
        ("--chunk 0", "--chunk: wanted at least 1, got 0"),
        ("--option steps", "--option: wanted NAME=VALUE, got 'steps'"),
        ("--option steps=2 --option steps=3", "--option steps=3: wanted steps once, got '2' as well"),
        ("--segments grid --option segments=slic", "--option segments=slic: wanted segments once, got 'grid' as well"),
    ],
)
def test_no_option_is_ignored(
    given: str, wanted: str, store: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["batch", "--input", str(photos), "--model", "resnet", "--output", str(tmp_path / "out")]
    assert main([*command, "--store", str(store), *given.split()]) == 1
    assert capsys.readouterr().err.strip() == f"error: {wanted}"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("--option stepz=3", "stepz: unknown option 'stepz' (did you mean 'steps'"),
        (
            "--method attention_rollout",
            "method: attention_rollout is not supported by this model: wanted a transformer",
        ),
        ("--method grad_cam --option layer=no.layer", "layer: wanted the name of a module, such as layer4"),
        ("--option target_class=dgo", "target_class: unknown class 'dgo' (did you mean 'dog'?)"),
        ("--segments tensormask --threshold -1", "threshold: wanted a number in 0..1, got -1.0"),
        ("--segments tensormask --option steps=0", "steps: wanted a whole number in 1..1000, got 0"),
        ("--segments slick", "--segments: wanted slic, grid or a segmenter: unknown model 'slick'"),
        ("--option segments=nobody", "--segments: wanted slic, grid or a segmenter: unknown model 'nobody'"),
    ],
)
def test_options_that_each_image_would_be_refused_for_stop_the_job(
    given: str, wanted: str, store: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["batch", "--input", str(photos), "--model", "resnet", "--output", str(tmp_path / "out")]
    assert main([*command, "--store", str(store), *given.split()]) == 1
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"error: {wanted}")


@pytest.mark.parametrize("options", ["contrast_class={}", "method=rise&segments=slic", "method=deep_lift", "top_k=2"])
def test_a_sample_refuses_no_option_that_a_photo_may_have(explainer: Explainer, options: str) -> None:
    """A method's work is given up once it has begun, and a contrast with a class that the sample happens to have."""
    for label in explainer.worker.task.spec.labels:
        explainer.check_options("explanation", JSON, options.format(label))


@pytest.mark.parametrize(
    "given", [["x.jsonl", "--out", "y", "--chunk", "3"], ["--input", "a", "--output", "b", "--resume"]]
)
def test_lines_and_a_data_set_are_not_mixed(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["batch", "--model", "resnet", *given])
    assert f"got {given[-2] if given[-1] == '3' else given[-1]}" in capsys.readouterr().err
