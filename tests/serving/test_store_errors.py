from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from imagexplain.checkout import ROOT
from imagexplain.cli import build as build_archives


def test_a_store_that_cannot_be_written_is_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert build_archives.main(["--store", str(tmp_path / "file" / "store")]) == 1
    assert "error: " in capsys.readouterr().err


def test_a_disk_that_fills_is_a_message_and_leaves_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = shutil.copyfile

    def half(source: Path, target: Path, **settings: bool) -> None:
        if Path(target).parent == tmp_path:
            Path(target).write_bytes(Path(source).read_bytes()[:100])
            raise OSError(28, "No space left on device")
        whole(source, target, **settings)

    monkeypatch.setattr(shutil, "copyfile", half)
    spec = ROOT / "archive_specs" / "bit.yaml"
    assert build_archives.main([str(spec), "--store", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "[Errno 28] No space left on device" in said
    assert not list(tmp_path.glob("bit.*"))
