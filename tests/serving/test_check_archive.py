from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from imagexplain.archive.manifest import HASHES, MANIFEST
from imagexplain.ops.check_archive import ArchiveError, check, has_sums, identify, unpacked_bytes
from tests.serving import archives

MODEL = {"modelName": "small", "handler": "handler.py", "configFile": "model-config.yaml"}
SPEC = {
    "name": "small",
    "handler": "classifier",
    "architecture": "bit",
    "labels": ["cat", "dog"],
    "preprocess": archives.SPEC["preprocess"],
}


def pack(store: Path, model: dict[str, Any] | None = None, **files: str) -> Path:
    """An archive of small files; a name's last underscore stands for the dot. One with a spec carries its sums."""
    path = store / "small.mar"
    contents = {"handler_py": archives.WORKING, "model-config_yaml": "minWorkers: 1\n", **files}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MANIFEST, json.dumps({"model": MODEL if model is None else model}))
        for name, text in contents.items():
            archive.writestr(".".join(name.rsplit("_", 1)), text)
    return archives.seal(path) if "spec_json" in files else path


@pytest.mark.parametrize("handler", ["handler.py", "handler.py:handle", "handlers.classifier", "image_classifier"])
def test_a_whole_archive_has_the_name_and_version_of_its_model(tmp_path: Path, handler: str) -> None:
    path = pack(tmp_path, MODEL | {"handler": handler}, **{"handlers/classifier_py": "", "spec_json": json.dumps(SPEC)})
    assert check(path) == ("small", "1.0")
    with zipfile.ZipFile(path) as archive:
        assert unpacked_bytes(path) == sum(len(archive.read(name)) for name in archive.namelist())


@pytest.mark.parametrize(
    ("model", "files", "words"),
    [
        ({}, {}, r"MANIFEST\.json: model\.modelName: wanted a name, got None"),
        (MODEL | {"modelName": 5}, {}, r"model\.modelName: wanted a name, got 5"),
        (MODEL | {"handler": "absent.py"}, {}, r"model\.handler: absent\.py is not in the archive"),
        (MODEL | {"handler": "handlers.absent"}, {}, r"model\.handler: handlers\.absent is not in the archive"),
        (MODEL | {"serializedFile": "model.safetensors"}, {}, r"serializedFile: model\.safetensors is not in the"),
        (MODEL | {"configFile": "absent.yaml"}, {}, r"configFile: absent\.yaml is not in the archive"),
        (None, {"model-config_yaml": "a: [1"}, r"model-config\.yaml: cannot be read as YAML"),
        (None, {"model-config_yaml": "- 1"}, r"model-config\.yaml: wanted fields and values, got list"),
        (None, {"spec_json": "{"}, r"spec\.json: cannot be read as JSON"),
        (None, {"spec_json": "[]"}, r"spec\.json: wanted an object, got list"),
        (None, {"spec_json": '{"handler": "detector"}'}, r"handler: wanted one of classifier, segmenter, captioner"),
        (None, {"spec_json": json.dumps(SPEC | {"labels": 5})}, r"spec\.json: labels: .*build the archive anew"),
        (None, {"spec_json": json.dumps(SPEC | {"new": 5})}, r"spec\.json: new: .*build the archive anew"),
    ],
)
def test_what_could_not_be_served_is_named(
    tmp_path: Path, model: dict[str, Any] | None, files: dict[str, str], words: str
) -> None:
    with pytest.raises(ArchiveError, match=rf"small\.mar: .*{words}"):
        check(pack(tmp_path, model, **files))


def test_damage_is_found_wherever_it_is(tmp_path: Path) -> None:
    whole = pack(tmp_path).read_bytes()
    torn = tmp_path / "torn.mar"
    for length in range(0, len(whole), 97):
        torn.write_bytes(whole[:length])
        with pytest.raises(ArchiveError, match=r"torn\.mar is not a model archive"):
            check(torn)
    flipped = bytearray(whole)
    flipped[whole.index(b"class Handler")] ^= 1
    torn.write_bytes(flipped)
    with pytest.raises(ArchiveError, match=r"torn\.mar is damaged: handler\.py does not have its checksum"):
        check(torn)
    (tmp_path / "folder.mar").mkdir()
    for path in (tmp_path / "absent.mar", tmp_path / "folder.mar"):
        with pytest.raises(ArchiveError, match="is not a model archive"):
            check(path)


def test_a_version_is_the_manifests(tmp_path: Path) -> None:
    assert check(pack(tmp_path, MODEL | {"modelVersion": "1.10"})) == ("small", "1.10")
    assert identify(tmp_path / "small.mar") == ("small", "1.10")


def sealed(folder: Path) -> Path:
    files = {"handlers/classifier_py": "first", "spec_json": json.dumps(SPEC)}
    return pack(folder, None, **files)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"handlers/classifier.py": b"other"}, r"handlers/classifier\.py was changed: its SHA-256"),
        ({"handlers/classifier.py": None}, r"handlers/classifier\.py is missing: the archive was built with it"),
        ({"handlers/more.py": b""}, r"handlers/more\.py was added: the archive was built without it"),
        ({"MAR-INF/more.json": b""}, r"MAR-INF/more\.json was added"),
    ],
)
def test_a_file_that_is_not_as_built_is_named(tmp_path: Path, change: dict[str, bytes | None], words: str) -> None:
    path = sealed(tmp_path)
    assert check(path) == ("small", "1.0") and has_sums(path)
    changed = {**archives.files_of(path), **change}
    archives.pack(path, {name: content for name, content in changed.items() if content is not None})
    with pytest.raises(ArchiveError, match=rf"small\.mar: {words}"):
        check(path)


def test_an_archive_of_ours_without_sums_is_refused_and_one_of_others_is_not(tmp_path: Path) -> None:
    path = sealed(tmp_path)
    files = archives.files_of(path)
    wrong: tuple[Any, ...] = (None, [], "no")
    for sums in wrong:
        manifest = json.loads(files[MANIFEST]) | {HASHES: sums}
        archives.pack(path, files | {MANIFEST: json.dumps(manifest).encode()})
        with pytest.raises(ArchiveError, match=r"sha256: wanted the SHA-256 of each file, got .*; build the archive"):
            check(path)
    others = pack(tmp_path)
    assert check(others) == ("small", "1.0") and not has_sums(others)


def test_a_file_that_is_not_in_the_directory_is_found(tmp_path: Path) -> None:
    """TorchServe reads the files' own headers, one after the other, where Python reads the directory at the end."""
    path = sealed(tmp_path)
    files = archives.files_of(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hidden.py", "import os")
        for name, content in files.items():
            archive.writestr(name, content)
        del archive.NameToInfo["hidden.py"]
        archive.filelist.pop(0)
    assert "hidden.py" not in archives.files_of(path) and b"hidden.py" in path.read_bytes()
    with pytest.raises(ArchiveError, match=r"there is more at MAR-INF/MANIFEST\.json than the archive's dir"):
        check(path)


def test_a_name_that_differs_from_the_directorys_is_found(tmp_path: Path) -> None:
    path = sealed(tmp_path)
    content = bytearray(path.read_bytes())
    place = content.index(b"handlers/classifier.py", content.index(b"first") - 30)
    content[place : place + 8] = b"hendlers"
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match=r"is damaged: handlers/classifier\.py"):
        check(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = pack(tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("handler.py", "other")
    with pytest.raises(ArchiveError, match=r"handler\.py is there twice"):
        check(path)
