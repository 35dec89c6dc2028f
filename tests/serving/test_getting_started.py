"""The page for newcomers: its commands on its photos, and what it says that they print."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from imagexplain import cli
from imagexplain.checkout import ROOT
from imagexplain.cli import demo
from imagexplain.client import local
from tests.conftest import Served
from tests.pages import blocks

PAGE = ROOT / "docs" / "getting_started.md"
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def numbers(line: str) -> list[float]:
    return [float(number) for number in NUMBER.findall(line)]


def printed(line: str, told: list[str]) -> bool:
    """Tell whether a line is among those printed, but for times, and for the last digits that machines differ in."""
    words = NUMBER.sub("#", line).split()
    return any(
        NUMBER.sub("#", each).split()[: len(words)] == words
        and numbers(each)[: len(numbers(line))] == pytest.approx(numbers(line), rel=0.03, abs=0.003)
        for each in told
    )


def test_the_page_from_top_to_bottom(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each command works, and each text is what the commands before it print."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "demo").mkdir(parents=True)
    demo.photos(tmp_path / "run" / "demo")
    for name in ("server.json", "key_file.json"):
        (tmp_path / "run" / name).symlink_to(Path(served.server.run) / name)
    monkeypatch.setattr(local, "ROOT", tmp_path)
    told: list[str] = []
    ran = 0
    for block in blocks(PAGE):
        if block.language == "text":
            missing = [line for line in block.code.splitlines() if not printed(line, told)]
            assert not missing, "\n".join([*missing, "got:", *told])
        elif block.language == "python":
            exec(block.code, {})
            assert "slic 7: +3.79 of 11.4\n" in capsys.readouterr().out
        elif "run/demo" in block.code:
            told = []
            for line in block.code.replace("\\\n", " ").splitlines():
                assert cli.main([*shlex.split(line)[1:], "--run", str(tmp_path / "run")]) == 0
                told += capsys.readouterr().out.splitlines()
                ran += 1
    assert ran == 8
    assert {path.suffix for path in (tmp_path / "results").iterdir()} >= {".png", ".gzip"}
