"""What the model looks at over a data set: a table whose numbers are derived by hand, and its page."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imagexplain.cli import main
from imagexplain.cluster import summary_page, table
from imagexplain.cluster.inputs import items
from imagexplain.cluster.job import SETTINGS, TABLE, Job, begin, run_here
from imagexplain.cluster.summary import Summary, kind_of, summarize
from tests.serving.archives import archived
from tests.serving.asking import coarse_png
from tests.serving.handlers import write_timm


def group(label: str, attribution: float, dividend: float | None = None, kind: str = "segment") -> dict[str, Any]:
    return {"label": label, "kind": kind, "attribution": attribution, "dividend": dividend}


def row(name: str, target: str, groups: list[dict[str, Any]], residual: float | None = 0.0) -> dict[str, Any]:
    score = sum(one["attribution"] for one in groups if one["kind"] != "whole")
    return {
        "id": name,
        "error": None,
        "target": target,
        "score": score + 1,
        "baseline_score": 1.0,
        "relative_residual": residual,
        "groups": groups,
        "prediction": target,
        "maps": None,
    }


@pytest.fixture
def summary() -> Summary:
    whole = group("whole", 4, kind="whole")
    rows = [
        row("a", "cat", [group("cat 1", 2, 0.5), group("cat 2", 1, 0.25), group("rest", 1, 0.25, "rest"), whole], 0.5),
        row("b", "cat", [group("sofa", 3, 0.75), group("rest", -1, 0.25, "rest")], 0.1),
        row("c", "dog", [], None),
        {"id": "d", "error": {"field": "image", "message": "no photo"}},
        {"id": "e", "error": {"field": "image", "message": "no photo"}},
    ]
    return summarize(rows)


def test_numbers_of_a_class(summary: Summary) -> None:
    assert (summary.images, summary.errors) == (5, (("image: no photo", 2),))
    cat, dog = summary.classes
    assert (cat.label, cat.images, cat.score, cat.residual, cat.on_object) == ("cat", 2, 4.0, 0.3, 0.75)
    assert {one.label: (one.images, one.share, one.signed, one.dividend, one.largest) for one in cat.segments} == {
        "cat": (1, 0.375, 0.375, 0.375, 1),  # (3/4 + 0) / 2
        "sofa": (1, 0.375, 0.75, 0.375, 1),  # signed: (0 + 3/2) / 2
        "rest": (2, 0.25, -0.125, 0.25, 0),  # signed: (1/4 − 1/2) / 2
    }
    assert [(share, own["id"]) for share, own in cat.most] == [(0.75, "b"), (0.5, "a")]
    assert [(share, own["id"]) for share, own in cat.least] == [(0.5, "a"), (0.75, "b")]
    assert (dog.segments, dog.residual, dog.on_object) == ((), None, None)
    assert [(value, own["id"]) for value, own in summary.unstable] == [(0.5, "a"), (0.1, "b")]


def test_the_csv_has_all_classes_and_segments(summary: Summary) -> None:
    rows = list(csv.DictReader(io.StringIO(summary_page.table(summary))))
    segments = [("cat", "cat"), ("cat", "sofa"), ("cat", "rest"), ("dog", "")]
    assert [(one["class"], one["segment"]) for one in rows] == segments
    assert float(rows[1]["signed_share"]) == 0.75 and rows[3]["images"] == "1"


@pytest.mark.parametrize(("label", "kind"), [("cat 12", "cat"), ("traffic light", "traffic light"), ("7 up", "7 up")])
def test_segments_of_one_label_count_together(label: str, kind: str) -> None:
    assert kind_of(label) == kind


def test_the_page_of_a_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "resnet").mkdir()
    archive = archived(tmp_path / "store", write_timm(tmp_path / "resnet", "resnet"), "resnet")
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(3):
        (photos / f"{seed}.png").write_bytes(coarse_png(seed))
    (photos / "<b>.jpg").write_bytes(b"none")
    job = Job(archive, tmp_path / "out", "steps=4&baseline=black&segments=grid&rows=2&columns=2", maps=True)
    assert main(["summarize", str(tmp_path / "out")]) == 1
    assert "got no job.json" in capsys.readouterr().err
    for _ in run_here(job, begin(job, items([str(photos)]))):
        pass
    (photos / "0.png").unlink()  # its thumbnail is left out
    assert main(["summarize", str(tmp_path / "out"), "--title", "<Photos>"]) == 0
    page = (tmp_path / "out" / "summary.html").read_text()
    assert "&lt;Photos&gt;" in page and "4 images, 1 of them refused" in page and "<b>" not in page
    assert "1.png" in page and page.count("data:image/webp") >= 2 and "http" not in page.replace("http-equiv", "")


def folder_of(out: Path, *rows: dict[str, Any]) -> Path:
    """The folder of a job that has written these rows, in one part each."""
    (out / TABLE).mkdir(parents=True)
    (out / SETTINGS).write_text("{}")
    for one in rows:
        table.write_part(out / TABLE, [one])
    return out


def told(out: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The status and the words of the command."""
    status = main(["summarize", str(out)])
    captured = capsys.readouterr()
    return status, captured.out + captured.err


REFUSED = {"status": 415, "field": "image", "message": "wanted JPEG"}


def test_a_table_without_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(folder_of(tmp_path / "none"), capsys) == (
        1,
        f"error: {tmp_path / 'none'}: wanted a table with rows, got none: the job has not written any yet\n",
    )
    empty = folder_of(tmp_path / "empty")
    table.write_part(empty / TABLE, [])
    assert told(empty, capsys)[0] == 1


def test_a_table_of_errors_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder_of(tmp_path / "out", *({"id": name, "error": REFUSED} for name in "ab"))
    status, words = told(out, capsys)
    assert status == 0 and "none of 2 images was explained: the page says why" in words
    page = (out / "summary.html").read_text()
    assert "image: wanted JPEG" in page and "No image was explained." in page and "explained class" not in page
    assert len((out / "summary.csv").read_text().splitlines()) == 1


def test_one_class_without_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explained = {"target": "cat", "score": 2.0, "path": "gone.jpg", "offset": 0, "frame": [0.0, 0.0, 1.0, 1.0]}
    explained |= {"relative_residual": 0.1, "maps": "maps/gone.safetensors"}
    out = folder_of(tmp_path / "out", *({"id": name, **explained} for name in "ab"))
    status, words = told(out, capsys)
    assert status == 0 and "the explanations have no groups: imagexplain batch --segments" in words
    assert (out / "summary.csv").read_text().splitlines()[1:] == ["cat,2,,,,,,"]
    assert "ask for segments" in (out / "summary.html").read_text()


def test_a_table_of_another_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder_of(tmp_path / "out", {"id": "a", "error": REFUSED})
    (part,) = table.parts(out / TABLE)
    older = pq.read_table(part).drop_columns(["relative_residual"]).append_column("rows", pa.array([1]))
    pq.write_table(older, part)
    assert told(out, capsys) == (
        1,
        f"error: {part}: wanted the columns of this version, got relative_residual missing: explain anew to another "
        "folder\n",
    )
    pq.write_table(older.append_column("relative_residual", pa.array(["0.1"])), part)
    assert "got relative_residual string: explain anew" in told(out, capsys)[1]
    part.write_bytes(part.read_bytes()[:-9])
    status, words = told(out, capsys)
    assert status == 1 and words.startswith(f"error: {part}: wanted a part of the table, got ")
