"""The end of the loop: a model that learned a background's colour learns the bar before it."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from debugging import train as train_step
from debugging.debug_sets import NONE, ORIGINAL
from debugging.judgement import BREAKS, COLUMNS, HOLDS
from debugging.model import open_model
from debugging.trainable import next_version, spec_of, trainable_network, write_version
from imagexplain import cli
from imagexplain.archive.build import build_all
from imagexplain.checkout import ROOT
from imagexplain.errors import ArgumentError
from tests.debugging.bars import write_bars, write_model
from tests.debugging.scene_folder import write_png

SPECS = ROOT / "archive_specs"
RECIPE = [
    *("--epochs", "12", "--warmup-epochs", "1", "--batch", "16", "--accumulation", "1", "--rate", "0.01"),
    *("--layer-decay", "1", "--mixup", "0", "--cutmix", "0", "--smoothing", "0", "--no-augmentation"),
    *("--drop-path", "0", "--workers", "0"),
]


def run(*words: object) -> int:
    return cli.main(["debug", *map(str, words)])


def train(loop: Path, *words: object) -> int:
    return run("train", loop / "results", loop / "photos", "--pool", loop / "photos" / "pool", *RECIPE, *words)


def report(loop: Path, *words: object) -> int:
    masks = ("--masks", loop / "masks", "--steps", "4", "--examples", "5")
    return run("report", loop / "results", loop / "photos" / "test", *masks, *words)


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All steps to the report, on bars before a colour that goes with the class in the training images alone."""
    folder = tmp_path_factory.mktemp("loop")
    photos = folder / "photos"
    write_bars(photos / "train", 40, 0, seed=0)
    write_bars(photos / "val", 16, 8, seed=1)
    write_bars(photos / "pool", 40, 20, seed=2)
    flags = write_bars(photos / "test", 24, 12, seed=3, masks=folder / "masks")
    lines = [f"{name},{str(flag).lower()}" for name, flag in flags.items()]
    (folder / "conflicting.csv").write_text("\n".join(["image,conflicting", *lines, ""]))
    model = write_model(folder, photos)
    assert run("find", photos / "val", folder / "results", "--model", model, "--segments", "grid") == 0
    assert run("select", folder / "results", photos / "pool", "--strategy", "loss", "-k", "20") == 0
    assert train(folder, "--sets", "loss") == 0
    assert report(folder, "--conflicting", folder / "conflicting.csv") == 0
    return folder


def content_of(loop: Path) -> Any:
    return json.loads((loop / "results" / "report" / "report.json").read_text())


def test_the_debug_set_teaches_otherwise_and_the_report_says_so(loop: Path) -> None:
    models = content_of(loop)["models"]
    assert list(models) == [ORIGINAL, NONE, "loss"]
    accuracies = {
        name: {subset: numbers["accuracy"]["value"] for subset, numbers in found["accuracy"].items()}
        for name, found in models.items()
    }
    assert accuracies[ORIGINAL] == {"all": 0.5, HOLDS: 1.0, BREAKS: 0.0}
    assert accuracies["loss"][BREAKS] >= 0.7 and accuracies["loss"][HOLDS] >= 0.9
    gained = models["loss"]["accuracy"]["all"]["to_none"]
    assert gained["low"] > 0 and gained["images"] == 48
    assert gained["value"] == pytest.approx(accuracies["loss"]["all"] - accuracies[NONE]["all"])
    fixed, made = models["loss"]["fixed"], models["loss"]["made"]
    assert len(fixed) - len(made) == round(48 * (accuracies["loss"]["all"] - 0.5))
    assert set(models["loss"]["segments"]) == {"bar", "rest"}
    for measure in ("drive", "directional"):
        before, after = (models[name]["segments"]["bar"][measure]["share"]["value"] for name in (ORIGINAL, "loss"))
        assert after > before + 0.2
        rest = models["loss"]["segments"]["rest"][measure]["share"]["value"]
        assert after + rest == pytest.approx(1, abs=1e-5)
    assert models["loss"]["segments"]["bar"]["area"]["share"]["value"] == pytest.approx(48 / 576)


def test_the_table_has_the_numbers_of_the_report(loop: Path) -> None:
    with (loop / "results" / "report" / "report.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    numbers = {(row["model"], row["measure"], row["of"]): row for row in rows}
    assert len(numbers) == len(rows)
    own = content_of(loop)["models"]["loss"]
    estimate = own["accuracy"][BREAKS]["accuracy"]
    row = numbers["loss", "accuracy", BREAKS]
    assert [float(row[name]) for name in ("value", "low", "high")] == [
        estimate[name] for name in ("value", "low", "high")
    ]
    assert row["images"] == "24" and numbers["loss", "fixed", ORIGINAL]["value"] == str(len(own["fixed"]))
    assert ("loss", "drive_to_none", "segment bar") in numbers and (NONE, "accuracy_to_none", "all") not in numbers


def test_the_page_needs_nothing_else_and_shows_some_pictures_of_each_kind(loop: Path) -> None:
    page = (loop / "results" / "report" / "report.html").read_text()
    models = content_of(loop)["models"]
    shown = sum(min(5, len(models[name][kind])) for name in (NONE, "loss") for kind in ("fixed", "made"))
    assert page.count("<img ") == page.count('src="data:image/webp;base64,') == shown
    assert not re.search(r"https?://", page) and "<script" not in page
    assert f"and {len(models['loss']['fixed']) - 5} more" in page


def test_all_runs_have_as_many_images_and_updates(loop: Path) -> None:
    runs = loop / "results" / "train"
    epochs = {name: (runs / name / "epochs.jsonl").read_text().splitlines()[-1] for name in (NONE, "loss")}
    assert [json.loads(line)["step"] for line in epochs.values()] == [12 * (120 // 16)] * 2
    added = {}
    for name in epochs:
        with (runs / name / "added.csv").open() as file:
            added[name] = list(csv.DictReader(file))
        assert [row["class"] for row in added[name]] == ["upright"] * 20 + ["across"] * 20
    assert all("/pool/" in row["file"] for row in added["loss"])
    assert all("/train/" in row["file"] for row in added[NONE])
    assert all(int(row["image"][-7:-4]) < 20 for row in added["loss"])  # the conflicting ones have the highest loss


def test_the_best_epoch_is_the_next_version_of_the_archive(loop: Path, tmp_path: Path) -> None:
    runs = loop / "results" / "train"
    specs = [yaml.safe_load((runs / name / "archive.yaml").read_text()) for name in (NONE, "loss")]
    assert [spec["version"] for spec in specs] == ["2.0", "3.0"]
    assert all(spec["name"] == "bars" and spec["limits"] == {"max_steps": 100} for spec in specs)
    (built,) = build_all([runs / "loss" / "archive.yaml"], tmp_path)
    assert built.name == "bars@3.0.mar"
    archive, spec = (open_model(str(file), SPECS) for file in (built, runs / "loss" / "archive.yaml"))
    images = torch.rand(2, 3, 24, 24)
    torch.testing.assert_close(archive.evaluate(images), spec.evaluate(images))
    assert archive.labels == ("upright", "across") and archive.served.preprocess == spec.served.preprocess


def test_what_is_finished_is_not_done_again(
    loop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted(path for path in (loop / "results").rglob("*") if path.is_file() and path.suffix != ".html")
    before = {path: path.read_bytes() for path in files}
    monkeypatch.setattr("debugging.answers.Respondent._answer", None)
    monkeypatch.setattr("debugging.answers.Respondent._shares", None)
    monkeypatch.setattr("training.finetuning.trainer._Training.update", None)
    assert train(loop, "--sets", "loss") == 0
    assert report(loop, "--conflicting", loop / "conflicting.csv") == 0
    assert {path: path.read_bytes() for path in files} == before
    capsys.readouterr()
    assert train(loop, "--sets", "loss", "--seed", "1") == 1
    assert "seed 0 there, 1 now" in capsys.readouterr().err
    assert train(loop, "--sets", "loss", "-k", "4") == 1
    assert "counts" in capsys.readouterr().err
    assert run("select", loop / "results", loop / "photos" / "pool", "--strategy", "random", "-k", "5") == 0
    assert train(loop, "--sets", "random") == 1
    assert "wanted 20 images of upright, as in the runs before, got 5 in random" in capsys.readouterr().err


def test_images_that_were_seen_are_refused(loop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("val", "pool"):
        assert run("report", loop / "results", loop / "photos" / name) == 1
        assert "wanted images that no run has seen, got" in capsys.readouterr().err
    assert train(loop, "--sets", loop / "photos" / "val") == 1
    assert "val: wanted other images than those of val, got 32" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image\n", "wanted columns image and conflicting, got 'image'"),
        ("image,conflicting\nacross/999.png,true\n", "line 2: wanted each image of"),
        ("image,conflicting\nacross/001.png,maybe\n", "line 2: wanted one of true, yes, 1, false, no, 0, got 'maybe'"),
        ("image,conflicting\nacross/001.png\n", "line 2: wanted one of true, yes, 1, false, no, 0, got None"),
    ],
)
def test_mistakes_in_the_file_of_conflicting_images(
    text: str, said: str, loop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.csv").write_text(text)
    assert report(loop, "--conflicting", tmp_path / "c.csv") == 1
    assert said in capsys.readouterr().err


def test_a_set_with_fewer_images_is_named(
    loop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bars(tmp_path / "few", 3, 3, seed=9)
    write_bars(tmp_path / "many", 5, 3, seed=8)
    monkeypatch.setattr(train_step, "finetune", None)
    sets = ("--sets", tmp_path / "few", tmp_path / "many", "--model", loop / "bars.yaml")
    with pytest.raises(TypeError):  # there is nothing to fine-tune with
        run("train", tmp_path / "results", loop / "photos", *sets, *RECIPE)
    told = capsys.readouterr().out
    assert "warning: few has 3 of 5 images of upright: 3 are taken of every set\n" in told
    assert "6 images of each set beside 80 to train on\n" in told


@pytest.mark.parametrize("name", ["lanet", "bit"])
def test_networks_of_our_own_are_trained_and_exported(name: str, tmp_path: Path) -> None:
    model, spec = open_model(name, SPECS), spec_of(name, SPECS)
    network = trainable_network(model, spec, None).train()
    images = torch.randn(2, 3, *model.served.preprocess.size)
    network(images).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert not any(parameter.requires_grad for parameter in model.network.parameters())
    with torch.no_grad():
        next(network.parameters()).add_(0.01)
    (tmp_path / "labels.json").write_text(json.dumps(model.labels))
    file = write_version(tmp_path, spec, network.eval(), "2.0", "changed")
    written = open_model(str(file), SPECS)
    assert written.served.name == f"{name}/2.0"
    torch.testing.assert_close(written.evaluate(images)[0], network(images).detach())
    with pytest.raises(ArgumentError, match="drop_path: wanted 0"):
        trainable_network(model, spec, 0.1)


def test_drop_path_is_the_recipes_where_the_network_has_any() -> None:
    model, spec = open_model("vit", SPECS), spec_of("vit", SPECS)
    rates = {rate: _last_drop_path(trainable_network(model, spec, rate)) for rate in (None, 0.0, 0.3)}
    assert rates == {None: pytest.approx(0.1), 0.0: 0.0, 0.3: pytest.approx(0.3)}
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(trainable_network(model, spec, None).eval()(images), model.network(images))


def _last_drop_path(network: Any) -> float:
    return float(getattr(network.blocks[-1].drop_path1, "drop_prob", 0.0))


def test_the_next_version_is_behind_all_others(tmp_path: Path) -> None:
    assert next_version("vit", SPECS.glob("*.yaml")) == "2.0"
    text = (SPECS / "vit.yaml").read_text()
    for number, version in enumerate(("1.9", "10.2", "3.0")):
        (tmp_path / f"{number}.yaml").write_text(text.replace("name: vit", f"name: vit\nversion: '{version}'"))
    (tmp_path / "broken.yaml").write_text("name: [")
    assert next_version("vit", tmp_path.glob("*.yaml")) == "11.0"
    assert next_version("other", tmp_path.glob("*.yaml")) == "2.0"


def test_a_page_escapes_names(tmp_path: Path) -> None:
    import numpy as np

    from debugging.images import labelled_folder
    from debugging.judgement import Compared, content_of
    from debugging.report_page import report_page

    odd = "<b>&\"'"
    write_png(tmp_path / odd / "1.png", np.zeros((4, 4, 3), dtype=np.uint8))
    folder = labelled_folder(tmp_path)
    wrong, right = (
        {"truth": odd, "named": name, "confidence": 0.5, "truth_probability": share}
        for name, share in (("<i>", 0.1), (odd, 0.9))
    )
    entries = {name: {f"{odd}/1.png": entry} for name, entry in ((ORIGINAL, wrong), (NONE, wrong), ("<u>", right))}
    segments = [{"segments": {"<s>": {"area": 1.0, "drive": 1.0, "directional": None}}}]
    compared = {
        name: Compared(np.array([entry is right]), np.array([entry["truth_probability"]]), segments)
        for name, entry in ((name, next(iter(lines.values()))) for name, lines in entries.items())
    }
    content = content_of([f"{odd}/1.png"], folder, compared, entries, None, 0)
    page = report_page(content | {"addresses": dict.fromkeys(entries, "<a>")}, entries, folder, 3)
    assert content["models"]["<u>"]["fixed"] == [f"{odd}/1.png"]
    for tag in ("<b>", "<i>", "<u>", "<s>", "<a>"):
        assert tag not in page and tag.replace("<", "&lt;").replace(">", "&gt;") in page
