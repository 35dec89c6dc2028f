"""A labelled folder with errors, and what the first step finds in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagexplain import cli
from tests.debugging.scene_folder import write_scenes

COUNT = 12


@pytest.fixture(scope="package")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve scenes under val/, every second in a wrong folder, and label maps of their objects under masks/."""
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder / "val", COUNT, masks=folder / "masks")
    return folder


@pytest.fixture(scope="package")
def found(scenes: Path) -> Path:
    """The results of `find` on them, with superpixels."""
    results = scenes / "found"
    assert cli.main(["debug", "find", str(scenes / "val"), str(results), "--model", "vit", "--steps", "5"]) == 0
    return results
