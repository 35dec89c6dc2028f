"""The command that writes the OpenAPI document of a model store."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import validate

from imagexplain.archive.spec import SPEC_FILE
from imagexplain.cli import main
from tests.serving import archives
from tests.serving.handlers import write_bit, write_captioner, write_tensormask


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of three kinds of models, one of them in two versions, and of another's archive."""
    folder = tmp_path / "store"
    folder.mkdir()
    archives.write(folder, "other")
    made: list[tuple[str, Any, dict[str, Any]]] = [
        ("bit", write_bit, {"explain": {"steps": 7}, "description": "Ten classes."}),
        ("places", write_bit, {"name": "places", "version": "2.0", "limits": {"max_steps": 60}}),
        ("places@10.0", write_bit, {"name": "places", "version": "10.0", "limits": {"max_steps": 70}}),
        ("tensormask", write_tensormask, {"threshold": 0.25}),
        ("captioner", write_captioner, {"captions": {"beams": 3}, "limits": {"max_beams": 4}}),
    ]
    for name, write, changes in made:
        unpacked = tmp_path / name
        unpacked.mkdir()
        write(unpacked, **changes)
        with zipfile.ZipFile(folder / f"{name}.mar", "w") as archive:
            archive.write(unpacked / SPEC_FILE, SPEC_FILE)
    return folder


def written(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """The document that the command writes."""
    out = tmp_path / "openapi.json"
    assert main(["openapi", *arguments, "--out", str(out)]) == 0
    made: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    validate(made)
    return made


def models(made: dict[str, Any]) -> list[str]:
    """The models that a document has paths of."""
    return [path.removeprefix("/explanations/") for path in made["paths"] if path.startswith("/explanations/")]


def option(made: dict[str, Any], model: str, name: str) -> dict[str, Any]:
    """The schema of an option of a model's explanations."""
    found: dict[str, Any] = made["components"]["schemas"][f"{model}.ExplanationJson"]["properties"][name]
    return found


def test_the_models_of_a_store(store: Path, tmp_path: Path) -> None:
    made = written(tmp_path, "--store", str(store))
    assert models(made) == ["bit", "captioner", "places", "places/10.0", "places/2.0", "tensormask"]
    tag = made["tags"][0]
    assert (tag["name"], tag["description"], tag["x-model"]["kind"]) == ("bit", "Ten classes.", "classifier")
    assert option(made, "bit", "steps")["default"] == 7
    assert [option(made, name, "steps")["maximum"] for name in ("places", "places-10.0", "places-2.0")] == [70, 70, 60]
    assert option(made, "tensormask", "threshold")["default"] == 0.25
    assert (option(made, "captioner", "beams")["maximum"], option(made, "captioner", "beams")["default"]) == (4, 3)


def test_some_models(store: Path, tmp_path: Path) -> None:
    assert models(written(tmp_path, "--store", str(store), "--models", "bit", "places/2.0")) == ["bit", "places"]


def test_any_server(tmp_path: Path) -> None:
    assert models(written(tmp_path, "--generic")) == ["{model}", "{model}/{version}"]


def test_to_standard_output(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["openapi", "--store", str(store), "--models", "bit"]) == 0
    assert json.loads(capsys.readouterr().out)["openapi"] == "3.1.0"


def test_what_cannot_be_written(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["openapi", "--store", str(store), "--models", "bitt"]) == 1
    assert "error: unknown model 'bitt' (did you mean 'bit'" in capsys.readouterr().err
    assert main(["openapi", "--store", str(tmp_path / "none")]) == 1
    assert "no archive with a spec in the store" in capsys.readouterr().err
    (store / "broken.mar").write_bytes(b"no zip")
    assert main(["openapi", "--store", str(store)]) == 1
    assert "broken.mar: spec.json cannot be read" in capsys.readouterr().err
