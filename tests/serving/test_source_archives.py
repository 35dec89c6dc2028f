"""Archives of a user's own code and of programs: what they carry, what is told, and what a build refuses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from imagexplain.archive.build import build_all
from imagexplain.archive.spec import OWN_MODULE, ClassifierSpec, SpecError
from imagexplain.checkout import ROOT
from imagexplain.client import Client
from imagexplain.models.programs import FILES
from imagexplain.ops.check_archive import ArchiveError, check
from imagexplain.ops.server import free_port, start
from imagexplain.vision.preprocess import apply
from imagexplain.vision.preprocess_settings import Preprocess
from tests.serving.archives import files_of, pack
from tests.serving.sources import CODE, LABELS, built, network_of, variables, write_code


def own(folder: Path, code: Path | None = None, **changes: Any) -> dict[str, str]:
    """Variables of a build of the network of own code."""
    code = code or write_code(folder)
    if not (folder / "net.pth").exists():
        torch.save(network_of(code).state_dict(), folder / "net.pth")
    return variables(folder, OWN_MODULE=code, OWN_WEIGHTS=folder / "net.pth") | changes


def scripted(folder: Path) -> dict[str, str]:
    """Variables of a build of the same network as a program."""
    torch.jit.save(torch.jit.script(network_of(write_code(folder))), folder / "net.pt")
    return variables(folder, PROGRAM_TORCHSCRIPT=folder / "net.pt")


def test_an_archive_carries_the_code_and_is_built_alike(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environ = own(tmp_path)
    archive = built(tmp_path, "module", environ)
    told = capsys.readouterr().out
    assert "own: runs net.py, here and where it is served: it is trusted like the service's own code" in told
    files = files_of(archive)
    assert files[f"{OWN_MODULE}.py"].decode() == CODE and "model.safetensors" in files
    assert check(archive) == ("own", "1.0")
    content = archive.read_bytes()
    assert built(tmp_path, "module", environ) == archive
    assert "up to date" in capsys.readouterr().out
    (again,) = build_all([ROOT / "archive_specs" / "module.yaml"], tmp_path / "other", environ=environ)
    assert again.read_bytes() == content
    changed = pack(tmp_path / "changed.mar", files | {f"{OWN_MODULE}.py": b"import os\n"})
    with pytest.raises(ArchiveError, match=r"own_module\.py was changed"):
        check(changed)
    write_code(tmp_path, code=CODE + "\n# another line\n")
    assert built(tmp_path, "module", environ).read_bytes() != content


def test_an_archive_carries_a_package(tmp_path: Path) -> None:
    write_code(tmp_path, "nets/net.py")
    code = write_code(tmp_path, "nets/__init__.py", "from .net import Net\n").parent
    (code / "notes.txt").write_text("not carried")
    files = files_of(built(tmp_path, "module", own(tmp_path, code)))
    carried = {name.removeprefix(f"{OWN_MODULE}/") for name in files if name.startswith(OWN_MODULE)}
    assert carried == {"__init__.py", "net.py"}


def test_an_archive_carries_the_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = built(tmp_path, "torchscript", scripted(tmp_path))
    assert "torchscript: runs net.pt, here and where it is served" in capsys.readouterr().out
    files = files_of(archive)
    assert files[FILES["torchscript"]] == (tmp_path / "net.pt").read_bytes() and "model.safetensors" not in files
    assert check(archive) == ("torchscript", "1.0")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"OWN_PREPROCESS": ""},
            "preprocess: wants size, mean and std; OWN_PREPROCESS, which names a YAML",
        ),
        ({"OWN_MODULE": ""}, "module: the environment variable OWN_MODULE is not set"),
        ({"OWN_MODULE": "labels.txt"}, "module: wanted a Python file (.py), or the folder of a package, given "),
        ({"OWN_MODULE": "."}, "module: wanted the folder of a package, which has an __init__.py, given "),
        ({"OWN_FACTORY": "Nett"}, "module: factory: wanted one of net.py's Net, given Nett"),
        (
            {"OWN_MODULE": "broken.py"},
            "module: broken.py, line 3: wanted modules that this host has, nosuch is",
        ),
    ],
)
def test_a_mistake_is_told_by_its_field(given: dict[str, str], message: str, tmp_path: Path) -> None:
    write_code(tmp_path, "broken.py", CODE.replace("import torch\n", "import nosuch\n", 1))
    environ = own(tmp_path)
    environ |= {name: str(tmp_path / value) if "." in value else value for name, value in given.items()}
    with pytest.raises(SpecError, match=rf"module\.yaml: {re.escape(message)}"):
        built(tmp_path, "module", environ)


def test_a_preprocessing_of_a_file_is_checked_there(tmp_path: Path) -> None:
    environ = own(tmp_path)
    (tmp_path / "preprocess.yaml").write_text("size: [32, 32]\nmean: [0, 0, 0]\nstd: [1, 1, 0]\n")
    with pytest.raises(SpecError, match=r"preprocess\.yaml: std\.2: Input should be greater than 0"):
        built(tmp_path, "module", environ)


def test_code_goes_with_its_architecture_alone(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"module: goes with `architecture: module`, which wants one"):
        built(tmp_path, "module", own(tmp_path), architecture="lanet")


def test_arguments_of_a_class(tmp_path: Path) -> None:
    environ = own(tmp_path)
    torch.save(network_of(tmp_path / "net.py", width=6).state_dict(), tmp_path / "net.pth")
    with pytest.raises(SpecError, match=r"weights: .*net\.pth: the checkpoint does not fit the model; wrong"):
        built(tmp_path, "module", environ)
    assert built(tmp_path, "module", environ, arguments={"width": 6}).is_file()


def test_weights_are_no_program(tmp_path: Path) -> None:
    environ = own(tmp_path) | {"PROGRAM_TORCHSCRIPT": str(tmp_path / "net.pth")}
    with pytest.raises(SpecError, match=r"torchscript\.yaml: weights: .*net\.pth: wanted a program that torch"):
        built(tmp_path, "torchscript", environ)


@pytest.mark.parametrize(
    ("spec", "name", "file"), [("module", "own", "own_module.py"), ("torchscript", "torchscript", "model.pt")]
)
def test_it_is_served(spec: str, name: str, file: str, tmp_path: Path, run: Path, scene_file: Path) -> None:
    built(tmp_path, spec, own(tmp_path) | scripted(tmp_path))
    server = start(store=tmp_path / "store", run=run, port=free_port())
    client = Client(server.inference, headers=server.headers())
    found = client.photo(f"predictions/{name}", scene_file, accept="application/json").json()["predictions"]
    packed = ClassifierSpec.model_validate_json(files_of(tmp_path / "store" / f"{name}.mar")["spec.json"])
    image, _ = apply(Image.open(scene_file), Preprocess(**packed.preprocess.model_dump()))
    wanted = network_of(tmp_path / "net.py")(image[None]).softmax(1)[0].tolist()
    assert max(abs(row["probability"] - wanted[LABELS.index(row["label"])]) for row in found) < 1e-5
    explained = client.photo(f"explanations/{name}", scene_file, accept="application/json").json()
    assert 0 <= explained["target_class"] < len(LABELS)
    log = "".join(path.read_text(encoding="utf-8", errors="replace") for path in run.rglob("*.log"))
    assert f"{file}, which its operator trusts like the service" in log
