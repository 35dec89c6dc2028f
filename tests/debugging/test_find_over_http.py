"""The first step through a server: the same table as in process, and segments of the server's segmenters."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from debugging.examiner import InProcess, Served
from debugging.images import labelled_folder, read_photo
from debugging.model import open_model
from debugging.results import Record
from debugging.segmentation import Instances, LabelMaps, Segmentation, Superpixels
from imagexplain import cli
from imagexplain.checkout import ROOT
from imagexplain.vision.superpixels import SlicSettings
from tests.conftest import Served as Server

SPECS = ROOT / "archive_specs"


SOURCES: dict[str, Callable[[Path, Server], Segmentation]] = {
    "slic": lambda scenes, served: Superpixels(SlicSettings(8)),
    "masks": lambda scenes, served: LabelMaps(scenes / "masks"),
    "instances": lambda scenes, served: Instances(lambda photo: detections(served, photo.encoded)),
}


def detections(served: Server, photo: bytes | None) -> Any:
    assert photo is not None
    return served.client.post("predictions/tensormask", photo, "image/png", accept="application/json").json()


@pytest.mark.parametrize("source", SOURCES)
def test_a_server_gives_the_same_table(served: Server, scenes: Path, source: str) -> None:
    segmentation = SOURCES[source](scenes, served)
    model = open_model("vit", SPECS, "black", steps=5)
    folder = labelled_folder(scenes / "val")
    name = folder.names[0]
    photo = read_photo(folder.file(name))
    seen = model.see(photo)
    here = InProcess(model, segmentation)
    there = Served(served.client, "vit", segmentation, {"baseline": "black", "steps": 5})
    torch.testing.assert_close(there.scores(photo, seen), here.scores(photo, seen), rtol=1e-4, atol=1e-4)
    ours, theirs = (each.table(name, photo, seen, (1, 4)) for each in (here, there))
    assert theirs.labels == ours.labels
    assert theirs.masks.equal(ours.masks)
    for side in ("wrong", "right"):
        for column in ("attribution", "directional", "replaced", "shapley"):
            a, b = (getattr(getattr(table, side), column) for table in (theirs, ours))
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_the_step_through_a_server(served: Server, scenes: Path, tmp_path: Path) -> None:
    command = ["debug", "find", str(scenes / "val"), str(tmp_path), "--model", "vit", "--steps", "2", "--served"]
    assert cli.main([*command, "--segments", "swin", "--run", served.server.run]) == 0
    assert json.loads((tmp_path / "errors.json").read_text())["errors"]
    assert len(Record(tmp_path / "images.jsonl").lines) == 12


def test_a_model_that_is_no_segmenter_is_refused(
    served: Server, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["debug", "find", str(scenes / "val"), str(tmp_path), "--model", "vit", "--steps", "2"]
    assert cli.main([*command, "--segments", "bit", "--run", served.server.run]) == 1
    assert "wanted slic, grid or a segmenter of the server, got bit" in capsys.readouterr().err
