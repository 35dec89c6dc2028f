"""The command that trains captioners, on the original's formats and on scenes, and what its result is measured by."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from imagexplain import cli
from imagexplain.checkout import ROOT
from imagexplain.models.captioners import captioner
from imagexplain.models.checkpoints import checkpoint
from training.captioning import demonstration
from training.captioning.command import REGION_ENCODER
from training.captioning.measuring import changed_items, compared, control_by_change, control_of
from training.captioning.named_scenes import named_scene
from training.captioning.random_graphs import CHANGES
from training.captioning.region_encoder import ATTRIBUTES
from training.captioning.scene_features import SceneFeatures, encode
from training.captioning.sources import scene_vocabulary
from training.captioning.train_region_encoder import load_region_encoder

pytest.importorskip("pycocoevalcap")
pytest.importorskip("h5py")

SMALL = ROOT / "tests/fixtures/ega/small"


def trained(out: Path, *arguments: str) -> int:
    return cli.main(["train-captioner", "--out", str(out), *arguments])


def few_scenes(count: int) -> list[SceneFeatures]:
    return demonstration.encoded_scenes(load_region_encoder(REGION_ENCODER), 77, count)


def test_the_originals_formats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(SMALL), "--train", "val_sub", "--val", "val_sub", "--limit", "10"]
    assert trained(tmp_path, *arguments, "--hidden", "16", "--batch", "5", "--epochs", "2") == 0
    said = capsys.readouterr().out
    assert "10 captions to train on, 10 to validate on, 31 words" in said and "best: epoch" in said
    model = captioner.build(checkpoint.read(tmp_path / "captioner.th"))
    assert model.dimensions == captioner.Dimensions(words=31, region=32, image=24, hidden=16)
    lines = [json.loads(line) for line in (tmp_path / "epochs.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4] and {line["rate"] for line in lines} == {2e-4}


def test_scenes(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demonstration, "VALIDATION", 6)
    arguments = ["--scenes", "20", "--hidden", "8", "--batch", "8", "--epochs", "1"]
    assert trained(tmp_path / "run", *arguments) == 0
    assert "20 captions to train on, 6 to validate on" in capsys.readouterr().out
    assert len(list((tmp_path / "run").glob("scenes_*.pt"))) == 2  # drawn once
    assert trained(tmp_path / "run", *arguments) == 0
    assert trained(tmp_path / "run", *arguments, "--batch", "9") == 1
    assert "another run wants another folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "wanted either a folder of data or a number of scenes"),
        ([str(SMALL), "--scenes", "3"], "wanted either a folder of data or a number of scenes"),
        (["--scenes", "0"], "scenes: wanted at least 1, got 0"),
        (["--scenes", "1", "--rate", "0"], "rate: wanted a finite rate above 0"),
        ([str(SMALL), "--train", "val_sub", "--val", "val_sub", "--batch", "0"], "batch: wanted at least 1, got 0"),
        ([str(SMALL)], "trn_names.npy"),
    ],
)
def test_what_cannot_be_trained_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert trained(tmp_path, *arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said


def test_the_region_encoder_of_the_repository_tells_at_least_95_percent() -> None:
    report = json.loads(REGION_ENCODER.with_suffix(".json").read_text())
    assert report["held_out"] == 1000 and report["attributes"].keys() == ATTRIBUTES.keys()
    assert min(report["attributes"].values()) >= 0.95
    assert REGION_ENCODER.stat().st_size < 500_000


def test_measures_of_perfect_captions_and_of_others() -> None:
    scenes = few_scenes(8)
    items = demonstration.fixed_items(scenes, 3, per_scene=2)
    assert len(items) == 16 and len({item.key for item in items}) == 16
    assert all(one.caption != other.caption for one, other in zip(items[::2], items[1::2], strict=True))
    perfect = control_of({item.key: item.caption for item in items}, items, scenes)
    assert (perfect.answers, perfect.true, perfect.exact, perfect.count) == (1, 1, 1, 16)
    worded = control_of({item.key: item.references[1] for item in items}, items, scenes)
    assert (worded.answers, worded.true, worded.exact) == (1, 1, 0)
    none = control_of({item.key: "a red red" for item in items}, items, scenes)
    assert (none.answers, none.true, none.exact) == (0, 0, 0)

    changed = changed_items(items, scenes, 3)
    assert {item.region.partition(" ")[2] for item in changed} == set(CHANGES)
    found = control_by_change({item.key: item.caption for item in changed}, changed, scenes)
    assert found.keys() == {"all", *CHANGES} and found["all"].count == len(changed)
    assert all(one.answers == one.true == 1 for one in found.values())


def test_a_captioner_is_compared_with_what_ignores_the_graph() -> None:
    scenes = few_scenes(6)
    model = demonstration.new_captioner(scenes[0].image.shape[0], width=8).eval()
    items = demonstration.fixed_items(scenes, 3, per_scene=2)
    found = compared(model, scene_vocabulary(), items)
    assert len(found) == 5
    assert found["another graph's true caption"]["CIDEr-D"] > 5 * found["its most frequent caption"]["CIDEr-D"]
    assert all(0 <= scores["BLEU-4"] <= 1 for scores in found.values())


def test_scenes_are_kept_and_found(tmp_path: Path) -> None:
    encoder = load_region_encoder(REGION_ENCODER)
    first = demonstration.encoded_scenes(encoder, 77, 3, cache=tmp_path)
    again = demonstration.encoded_scenes(encoder, 77, 3, cache=tmp_path)
    for one, other in zip(first, again, strict=True):
        assert one.objects == other.objects and torch.equal(one.boxes, other.boxes)
    with torch.no_grad():
        encoder.last.bias.add_(1)
    demonstration.encoded_scenes(encoder, 77, 3, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert encode(encoder, named_scene(77, 0)).image.shape == (encoder.width,)
