"""A worker imports the package from its archive, whichever other copies the machine has."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from urllib.request import Request

import pytest

from imagexplain.checkout import ROOT
from imagexplain.client.loopback import LOOPBACK, urlopen
from imagexplain.ops.server import free_port, start
from tests.serving import archives

TELLING = """
import json
import sys

import imagexplain


class Handler:
    def initialize(self, context):
        self.folder = context.system_properties["model_dir"]

    def handle(self, rows, context):
        return [json.dumps([self.folder, imagexplain.__file__, imagexplain.WHOSE])] * len(rows)
"""


def test_the_archives_copy_wins(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another copy is named by PYTHONPATH where the server is started, and installed perhaps."""
    archive = archives.write(tmp_path / "store", "telling", TELLING)
    with zipfile.ZipFile(archive, "a") as content:
        content.writestr("imagexplain/__init__.py", 'WHOSE = "the archive\'s"\n')
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    running = start(store=tmp_path / "store", run=run, host=LOOPBACK, port=free_port())
    request = Request(f"{running.inference}/predictions/telling", b"x", running.headers())
    with urlopen(request, timeout=60) as answer:
        folder, file, whose = json.load(answer)
    assert Path(file) == Path(folder, "imagexplain", "__init__.py")
    assert whose == "the archive's"
