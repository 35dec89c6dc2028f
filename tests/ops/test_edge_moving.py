"""docs/moving.md at a front door before a real server: its calls, in the page's order, and its tables."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from imagexplain.agreement import reasons
from imagexplain.archive.build import build_all
from imagexplain.ops import edge
from imagexplain.ops.edge_settings import EdgeSettings
from imagexplain.ops.server import ROOT, free_port, start, stop
from tests.ops.door import GENEROUS, Door
from tests.pages import Block, blocks, rows
from tests.wire.photos import encoded
from training.scenes import SceneSettings, scene

PAGE = ROOT / "docs" / "moving.md"
MARKS = ("imagexplain edge key", "PredictionServiceClient(", "/v1/models/", "compare-answers")


@pytest.fixture(scope="module")
def door(nginx: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A front door before the demonstration's BiT."""
    folder = tmp_path_factory.mktemp("moving")
    build_all([ROOT / "archive_specs" / "bit.yaml"], folder / "store", environ={})
    server = start(store=folder / "store", run=folder / "run", port=free_port())
    try:
        settings = EdgeSettings(port=server.ports["inference"] + 6, client=GENEROUS, address=GENEROUS)
        yield Door(server, settings, edge.start(server, settings), {})
    finally:
        edge.stop(Path(server.run), drain_s=5, quiet=True)
        stop(folder / "run", drain_s=0)


def run(block: Block, door: Door, folder: Path) -> str:
    """Output of a block that succeeds."""
    code = block.code.replace("127.0.0.1:8443", door.edge.url.removeprefix("https://"))
    # of this checkout's program, whose state is elsewhere
    named = "" if "compare-answers" in code else f" --run {door.run}"
    shell = f'imagexplain() {{ "{sys.executable}" -m imagexplain "$@"{named}; }}\n{code}'
    command = [sys.executable, "-c", code] if block.language == "python" else ["bash", "-euo", "pipefail", "-c", shell]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "no_proxy": "127.0.0.1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_pages_calls_are_answered_and_their_answers_compared(door: Door, tmp_path: Path) -> None:
    (tmp_path / "run").symlink_to(door.run)
    (tmp_path / "photo.jpg").write_bytes(encoded(Image.fromarray(scene(11, 0, SceneSettings(size=(48, 64))).image)))
    found = [block for block in blocks(PAGE) if block.language != "text" and any(mark in block.code for mark in MARKS)]
    assert len(found) == len(MARKS)
    *calls, comparing = found
    for block in calls:
        run(block, door, tmp_path)
    shutil.copy(tmp_path / "ours.jsonl", tmp_path / "recorded.jsonl")
    assert run(comparing, door, tmp_path).endswith("1 of 1 agree within 0.001\n")
    (own,) = json.loads((tmp_path / "kserve.jsonl").read_text())["explanations"]
    assert own["steps"] == 15
    (theirs,) = json.loads((tmp_path / "ours.jsonl").read_text())["explanations"][0]["attributions"]
    assert theirs["outputIndex"] == [own["target_class"]]  # the photo, the class and the score are the same
    assert theirs["instanceOutputValue"] == pytest.approx(own["score"], rel=1e-5)


def test_the_reasons_are_those_of_the_page() -> None:
    source = Path(reasons.__file__).read_text(encoding="utf-8")
    listed = {row[0].strip("`") for row in rows(PAGE.read_text(encoding="utf-8").partition("| it says |")[2])}
    assert listed == {"score", "model", "target", "baseline", "steps", "smoothing", "scale"}
    assert all(f'"{name}: ' in source for name in listed)
