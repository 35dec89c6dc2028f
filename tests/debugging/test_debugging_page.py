"""The page on debugging: its commands run in their order, and its numbers and names are those of the code."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from debugging import annotate, arguments, clustering, comparison, concept, recipe, report, segment_table
from debugging.annotation import COMPLETED, DESCRIPTION, KIND, RATING
from debugging.command import STEPS
from debugging.finding import COLUMNS, OF_CLASS
from debugging.model import BASELINES, DEFAULT_BASELINE
from debugging.prompts import CLASS_ALONE, CLASS_WITH_CONCEPT
from debugging.select import DEFAULT_COUNT
from debugging.selection import STRATEGIES
from imagexplain import cli
from imagexplain.checkout import ROOT
from tests.conftest import Served
from tests.debugging.scene_folder import write_scenes
from tests.pages import blocks, rows
from training.export_shortcut_scenes import PARTS, export
from training.scenes import SceneSettings

FILE = ROOT / "docs" / "debugging.md"
PAGE = FILE.read_text(encoding="utf-8")
TEXT = " ".join(PAGE.split())
EXPORT = "training.export_shortcut_scenes"
FEW = {name: replace(part, count=count) for (name, part), count in zip(PARTS.items(), (24, 24, 12, 6), strict=True)}
"""Folders of as few scenes as every step can do with: each class has some of each."""


def test_the_commands_run_one_after_the_other(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = {"train": (24, 5), "val": (12, 82), "pool": (8, 4), "test": (8, 4)}  # the first two have every class
    for name, (count, seed) in drawn.items():
        write_scenes(tmp_path / "photos" / name, count, masks=tmp_path / "masks" / name, seed=seed)
    monkeypatch.chdir(tmp_path)
    named = [f"{path.parent.name}/{path.name},true" for path in Path("photos/test").glob("*/*")]
    Path("conflicting.csv").write_text("\n".join(["image,conflicting", *named[1:]]))
    lines = [line for block in blocks(FILE) for line in block.code.replace("\\\n", " ").splitlines()]
    commands = [shlex.split(line, comments=True) for line in lines]
    assert {command[2] for command in commands} - STEPS.keys() == {EXPORT}
    for program, *command in commands:
        if command[1] == EXPORT:
            export(Path(command[2]), 1, SceneSettings(size=(64, 64)), FEW)
            continue
        assert program == "imagexplain"
        if command == ["debug", "study", "--quick", "--out", "study.json"]:
            continue  # which test_shortcut_study.py runs
        if "--answers" in command:
            tasks = json.loads(Path("results/tasks.json").read_text())
            annotations = {KIND: "object", DESCRIPTION: "dog", RATING: "3"}
            tasks[0] |= {"status": COMPLETED, "response": {"annotations": annotations}}
            Path("answered.json").write_text(json.dumps(tasks))
        if command[1] == "split":
            shutil.copytree(ROOT / "tests/fixtures/ega/small", "captions", copy_function=shutil.copyfile)
            metadata = {"filename": "p1_COCO_train2014_000000000002__caption_1_attr_result.jpg"}
            rated = {"task_id": "1", "status": COMPLETED, "metadata": metadata}
            Path("tasks.json").write_text(json.dumps([{**rated, "response": {"annotations": {RATING: "4"}}}]))
        further = ["--run", served.server.run] if "--served" in command else []
        if command[1] in ("find", "report"):
            further += ["--steps", "5"]  # for time
        if command[1] == "train":
            further = ["--epochs", "1", "--warmup-epochs", "0", "--batch", "8", "--accumulation", "1", "--workers", "0"]
        assert cli.main([*command, *further]) == 0, (command, capsys.readouterr().err)
    written = {os.path.relpath(path, "results") for path in Path("results").rglob("*") if path.is_file()}
    files = {"errors.json", "segments.csv", "concepts.html", "concepts.yaml", "tasks.json", "annotate.html"}
    assert files | {"difficulty.json", "prompts.txt", "selection/active.csv", "selection/concept.csv"} <= written
    assert list(Path("results/regionfiles").rglob("*.json"))
    assert list(Path("chosen").glob("*/*.png"))
    assert {"train/none/archive.yaml", "train/concept/archive.yaml", "train/active/archive.yaml"} <= written
    assert "report/report.html" in written and "1 image not said" in capsys.readouterr().out


def test_the_tables_are_those_of_the_code() -> None:
    first = [row[0].strip("`") for row in rows(PAGE.partition("## Study")[0])]
    assert first == ["column", *OF_CLASS, "strategy", *STRATEGIES]
    for name in ("area", "area_share", "responsibility", "rank", "margin_drop", "wrong_replaced", "wrong_shapley"):
        assert f"`{name}`" in PAGE and name in COLUMNS


def test_the_numbers_are_those_of_the_code() -> None:
    most, part = segment_table.MOST_RESPONSIBLE, segment_table.RESPONSIBLE_PART
    for claim in (
        f"`--n-segments {arguments.N_SEGMENTS}`",
        f"Up to {most} segments with at least {part} of the largest responsibility",
        f"kernel SHAP from {segment_table.COALITIONS} sets of segments",
        f"up to {clustering.MOST_CLUSTERS}, as the silhouette shows",
        f"a single one if it is below {clustering.LEAST_SILHOUETTE}",
        f"less than {concept.KEPT_SHARE:.0%} of a class's score".replace("%", " %"),
        f"({DEFAULT_COUNT} if it is not said)",
        f"at most {annotate.MOST_TASKS} tasks",
        f"[fine-tuning](finetuning.md) for {recipe.USUAL.epochs} epochs",
        f"intervals of {comparison.CONFIDENCE:.0%} by {comparison.DRAWS} resamples".replace("%", " %"),
        f"at most {report.EXAMPLES} pictures of each",
        f"at most {report.EXPLAINED} images",
        CLASS_ALONE.format(class_name="<class>"),
        CLASS_WITH_CONCEPT.format(class_name="<class>", concept="<concept>"),
    ):
        assert claim in TEXT, claim
    assert "exact for up to 8 segments" in TEXT and 2**8 - 2 <= segment_table.COALITIONS < 2**9 - 2
    assert clustering.SEEDS == 5 and clustering.LEAST_PER_CLUSTER == 3 and DEFAULT_BASELINE == "mean"
    assert all(f"`{name}`" in PAGE for name in BASELINES if name != DEFAULT_BASELINE)


def shapes_named(scenes: Path, results: Path, baseline: str) -> int:
    command = ["debug", "find", str(scenes / "val"), str(results), "--model", "vit", "--steps", "10"]
    assert cli.main([*command, "--masks", str(scenes / "masks"), "--baseline", baseline]) == 0
    errors = json.loads((results / "errors.json").read_text())["errors"]
    first = [next((one["label"] for one in error["segments"] if one["rank"] == 1), "") for error in errors]
    assert len(first) >= 8
    return sum(label == "shape" for label in first) * 100 // len(first)


def test_the_mean_colour_names_the_shape_and_black_often_something_else(tmp_path: Path) -> None:
    write_scenes(tmp_path / "val", 16, masks=tmp_path / "masks", seed=5)
    assert shapes_named(tmp_path, tmp_path / "mean", "mean") >= 85
    assert shapes_named(tmp_path, tmp_path / "black", "black") <= 70
