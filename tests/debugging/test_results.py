from __future__ import annotations

import json
from pathlib import Path

import pytest

from debugging.results import Record, read_json, same_settings, write_bytes, write_csv, write_json
from imagexplain.errors import ArgumentError


def test_a_torn_last_line_is_done_again(tmp_path: Path) -> None:
    file = tmp_path / "images.jsonl"
    first = Record(file)
    first.add({"image": "a.png", "entropy": 0.123456789})
    first.add({"image": "b.png"})
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"image": "c.p')
    again = Record(file)
    assert again.missing(["a.png", "b.png", "c.png"]) == ["c.png"]
    assert again.lines["a.png"]["entropy"] == 0.1234568
    assert file.read_bytes() == whole
    again.add({"image": "c.png"})
    assert len(Record(file).lines) == 3


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "deep" / "errors.json"
    write_json(file, {"errors": [1 / 3]})
    assert json.loads(file.read_text()) == {"errors": [0.3333333]}

    def fail(self: Path, target: Path) -> None:
        raise OSError("no room")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="no room"):
        write_bytes(file, b"half")
    assert [path.name for path in file.parent.iterdir()] == ["errors.json"]
    assert json.loads(file.read_text()) == {"errors": [0.3333333]}


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "find.json"
    same_settings(file, {"model": "vit", "steps": 10})
    same_settings(file, {"model": "vit", "steps": 10})
    with pytest.raises(ArgumentError, match="or another folder: steps 10 there, 20 now"):
        same_settings(file, {"model": "vit", "steps": 20})


def test_a_missing_file_says_which_step_writes_it(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="which find writes"):
        read_json(tmp_path / "errors.json", "find")
    (tmp_path / "errors.json").write_text("{")
    with pytest.raises(ArgumentError, match="wanted JSON"):
        read_json(tmp_path / "errors.json", "find")


def test_a_table_quotes_what_it_must(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", [{"name": 'a,"b"', "value": 0.1}], ["name", "value"])
    assert (tmp_path / "t.csv").read_text() == 'name,value\n"a,""b""",0.1\n'
