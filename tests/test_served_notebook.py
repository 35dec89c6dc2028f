"""The notebook that asks the served archives, from top to bottom."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Served
from tests.notebooks import differences, rerun


def test_attributions_and_masks_of_a_server(served: Served, tmp_path: Path) -> None:
    run = {"IMAGEXPLAIN_RUN": served.server.run, "no_proxy": "127.0.0.1"}
    assert differences(*rerun("example_attributions", tmp_path, run)) == []
    assert {path.name for path in tmp_path.glob("*.gzip")} == {
        "output_attributions.gzip",
        "photo_attributions.gzip",
        "pred_masks.gzip",
    }
