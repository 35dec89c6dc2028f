"""The package as others get it: its public names, their types, what is installed, and the command."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import imagexplain
import imagexplain.attribution as library
from imagexplain import cli
from imagexplain.checkout import ROOT, find_checkout
from imagexplain.cli import key
from imagexplain.ops.server import Server

PUBLIC = {
    *("ablation_cam", "attention_rollout", "bag_cam", "blur_ig", "deep_lift", "eigen_cam", "eigen_grad_cam"),
    *("expected_gradients", "feature_ablation", "full_grad", "gaussian_shap", "grad_cam", "grad_cam_plusplus"),
    *(
        "gradient",
        "gradient_rollout",
        "guided_backprop",
        "guided_grad_cam",
        "guided_ig",
        "hires_cam",
        "idgi",
        "input_x_gradient",
    ),
    *(
        "input_x_gradient",
        "integrated_gradients",
        "kernel_shap",
        "layer_cam",
        "occlusion",
        "rise",
        "score_cam",
        "shapley_sampling",
        "smoothgrad",
        "xgrad_cam",
    ),
    "transformer_attribution",
    "attn_lrp",
    "libra_grad",
    "legrad",
    *("finer_cam", "shapley_cam", "ss_cam", "smoothgrad_cam_plusplus", "fem", "kpca_cam", "lrp", "lime"),
    *("xrai", "combine", "contrast", "iou", "localize", "normalize", "smooth"),
}
"""A name that leaves this list breaks somebody's program."""

RIGHT = """
import torch
from torch import Tensor, nn

from imagexplain import __version__, combine, grad_cam, integrated_gradients
from imagexplain.client import AsyncClient, Client, Explanation, StatusError


def explained(model: nn.Module, images: Tensor) -> Tensor:
    fine: Tensor = integrated_gradients(model, images, 1, steps=20)
    coarse: Tensor = grad_cam(model, images, torch.tensor([1, 2]), layer="layer4")
    print(__version__.upper())
    return combine(fine, coarse)


async def asked(client: Client, other: AsyncClient) -> int:
    found: Explanation = client.explain("photo.jpg", "bit", target_class=["star", 3], smooth={"samples": 3})
    try:
        (await other.explain(b"photo", "bit", steps=20)).tensors["integrated_grads"].sum()
    except StatusError as error:
        return error.status
    return len(found.classes)
"""

WRONG = """
import torch
from torch import nn

from imagexplain import grad_cam
from imagexplain import grad_kam
from imagexplain.attribution import layer_kam
from imagexplain.client import Client
from imagexplain.client import Klient

grad_cam(1, torch.zeros(1, 3, 8, 8))
grad_cam(nn.ReLU(), torch.zeros(1, 3, 8, 8), layr="x")
grad_cam(nn.ReLU(), torch.zeros(1, 3, 8, 8), "star")
grad_cam(nn.ReLU(), torch.zeros(1, 3, 8, 8)).shap
Client(ulr="http://a").models()
Client().explain("photo.jpg", "bit", stepz=3)
Client().explain("photo.jpg", "bit", quadrature="lefft")
Client().predict("photo.jpg", "bit", steps=3)
Client().models().kinds
"""

EXPLAINED = """
import imagexplain, torch
from imagexplain import grad_cam, integrated_gradients
network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(),
                              torch.nn.Linear(256, 2))
images = torch.rand(2, 3, 8, 8)
maps = integrated_gradients(network, images, 1)
with torch.no_grad():
    difference = (network(images) - network(torch.zeros_like(images)))[:, 1]
assert torch.allclose(maps.sum((1, 2, 3)), difference, atol=1e-2), (maps.sum((1, 2, 3)), difference)
print(imagexplain.__file__, *grad_cam(network, images).shape)
"""


def test_the_public_names_are_those() -> None:
    assert {*imagexplain.__all__} - {"__version__"} == PUBLIC == library.METHODS.keys() | library.UTILITIES.keys()
    assert set(dir(imagexplain)) >= PUBLIC
    for name in PUBLIC:
        assert getattr(imagexplain, name) is getattr(library, name)
    with pytest.raises(AttributeError, match="no attribute 'gradcam'"):
        imagexplain.gradcam  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("package", [imagexplain, library], ids=["imagexplain", "attribution"])
def test_type_checkers_are_told_where_each_name_is(package: object) -> None:
    """The stub stands beside names that are imported late."""
    stub = ast.parse(Path(str(vars(package)["__file__"])).with_suffix(".pyi").read_text())
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    told = {each.name: node.module for node in imports for each in node.names if each.name != "METHODS"}
    listed = next(ast.literal_eval(node.value) for node in stub.body if isinstance(node, ast.Assign))
    assert told.keys() == PUBLIC
    assert set(listed) == set(vars(package)["__all__"])
    if package is library:
        assert told == {name: getattr(library, name).__module__ for name in PUBLIC}


def test_a_type_checker_refuses_what_is_wrong_and_accepts_what_is_right(tmp_path: Path) -> None:
    for name, program in {"right.py": RIGHT, "wrong.py": WRONG}.items():
        (tmp_path / name).write_text(program)
    command = [sys.executable, "-m", "mypy", "--no-pretty", "--hide-error-context", "--no-error-summary"]
    done = subprocess.run(
        [*command, str(tmp_path / "right.py"), str(tmp_path / "wrong.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    said = [line.partition(": error: ") for line in done.stdout.splitlines() if ": error: " in line]
    lines = WRONG.splitlines()
    refused = {lines[int(where.rpartition(":")[2]) - 1]: why for where, _, why in said}
    assert not [where for where, _, _ in said if "right.py" in where]
    assert refused.keys() == {*lines[5:7], lines[8], *lines[10:]}
    assert 'no attribute "grad_kam"' in refused[lines[5]]
    assert 'no attribute "Klient"' in refused[lines[8]]
    assert 'incompatible type "int"; expected' in refused[lines[10]]
    assert 'Unexpected keyword argument "layr"' in refused[lines[11]]
    assert 'incompatible type "str"' in refused[lines[12]]
    assert '"Tensor" has no attribute "shap"' in refused[lines[13]]
    assert 'Unexpected keyword argument "ulr"' in refused[lines[14]]
    assert 'Unexpected keyword argument "stepz"' in refused[lines[15]]
    assert "expected \"Literal['gauss_legendre'" in refused[lines[16]]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built from a copy of its sources, for a build leaves its work behind."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("imagexplain", "handlers", "scripts", "tests", "training"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "fixtures"))
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(out), str(source)], check=True)
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "imagexplain").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if ".dist-info/" not in name} == package
    assert {"imagexplain/py.typed", "imagexplain/__init__.pyi", "imagexplain/attribution/__init__.pyi"} <= names
    assert wheel.name == f"imagexplain-{imagexplain.__version__}-py3-none-any.whl"


def test_the_installed_package_explains(wheel: Path, tmp_path: Path) -> None:
    """Elsewhere, without the checkout."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-c", EXPLAINED],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(tmp_path / "site" / "imagexplain" / "__init__.py"), "2", "1", "8", "8"]


def test_every_dependency_is_pinned() -> None:
    """In constraints.txt, to a version that the bounds of pyproject.toml allow."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {canonicalize_name(name): pin for name, _, pin in (line.partition("==") for line in lines) if pin}
    extras = project["project"]["optional-dependencies"]
    groups = project["dependency-groups"]
    wanted = chain(project["project"]["dependencies"], *extras.values(), *groups.values())
    for requirement in map(Requirement, wanted):
        if requirement.name == "imagexplain":
            assert requirement.extras == extras.keys() - {"dev"}
            continue
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_help_and_the_package_itself_take_no_torch() -> None:
    program = (
        "import sys, imagexplain, imagexplain.attribution\nfrom imagexplain.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: print('heavy:', sorted({'torch', 'numpy'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert all(f"  {name} " in done.stdout for name in cli.COMMANDS)
    assert done.stdout.endswith("heavy: []\n")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_is_there_and_knows_its_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    assert f"imagexplain {name} " in " ".join(capsys.readouterr().out.split())


def test_every_script_runs_a_command() -> None:
    run = {line for file in (ROOT / "scripts").glob("*.py") for line in file.read_text().splitlines() if "run(" in line}
    without = {"batch", "check", "compare-answers", "compare-served", "edge", "key", "openapi", "predict"}
    without |= {"completion", "doctor", "explain", "methods", "models", "studio", "summarize"}
    assert {line.split('"')[1] for line in run} == cli.COMMANDS.keys() - without


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["explian"])
    assert ended.value.code == 2
    assert "explian" in capsys.readouterr().err


def test_what_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "command_without_library.py").write_text("import absent_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    for command, extras in (
        ("build", "serve"),
        ("train-captioner", "serve,captions"),
        ("debug", "serve,client,debugging"),
    ):
        known = dataclasses.replace(cli.COMMANDS[command], module="command_without_library")
        monkeypatch.setitem(cli.COMMANDS, command, known)
        assert cli.main([command]) == 1
        wanted = f"wanted absent_library, which is not installed: pip install 'imagexplain[{extras}]'"
        assert wanted in capsys.readouterr().err


def test_a_checkout_is_wanted_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert find_checkout(ROOT / "imagexplain", tmp_path) == ROOT
    assert find_checkout(tmp_path / "site-packages" / "imagexplain", tmp_path) == tmp_path
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    assert cli.main(["evaluate", "--models", "bit"]) == 1
    assert f"error: evaluate: wanted a checkout to work on, got {tmp_path}" in capsys.readouterr().err


def test_a_key_is_printed_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {"inference": {"key": "abc", "expiration time": "2099-01-01T00:00:00Z"}, "management": {"key": "def"}}
    (tmp_path / "key_file.json").write_text(json.dumps(keys))
    running = Server({"inference": 8080}, 1, 0.0, str(tmp_path), "", "", ())
    assert cli.main(["key", "--run", str(tmp_path)]) == 1
    assert "error: no server runs with" in capsys.readouterr().err
    monkeypatch.setattr(key, "find", lambda run: running if run == tmp_path else None)
    assert cli.main(["key", "--run", str(tmp_path)]) == cli.main(["key", "management", "--run", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "abc\ndef\n"
    assert cli.main(["key", "--header", "--run", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "Authorization: Bearer abc\n"
    assert cli.main(["key", "--expiry", "--run", str(tmp_path)]) == 0
    assert cli.main(["key", "management", "--expiry", "--run", str(tmp_path)]) == 0
    ends = datetime(2099, 1, 1, tzinfo=UTC).astimezone().isoformat(" ", "minutes")
    assert capsys.readouterr().out == f"{ends}\nnever\n"
    assert cli.main(["key", "API", "--run", str(tmp_path)]) == 1
    assert "error: no API key in" in capsys.readouterr().err
