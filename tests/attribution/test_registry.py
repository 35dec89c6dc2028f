"""The registry: a record beside each definition, and names without importing anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import imagexplain.attribution as library
from imagexplain.attribution.registry import METHODS, Registry

FILES = Path(library.__file__).parent / "methods"


def test_a_file_is_a_method_of_its_name() -> None:
    assert list(METHODS) == sorted(path.stem for path in FILES.glob("*.py") if path.stem != "__init__")
    assert len(METHODS) >= 30 and METHODS is library.METHODS
    for name, method in METHODS.items():
        assert method.name == name and method.function is getattr(library, name)
        assert method.function.__module__ == f"imagexplain.attribution.methods.{name}"
        assert ("layer" in method.parameters) <= method.needs_module <= method.needs_original
        assert method.by_channel <= ("layer" in method.parameters) and not (method.coarse and method.sensitivity)
        assert method.tried_by is None or METHODS[method.tried_by].needs == method.needs | {"gradients"}


def test_names_are_there_without_torch_and_records_without_what_takes_seconds() -> None:
    program = (
        "import sys, imagexplain.attribution as library;"
        "assert 'grad_cam' in library.METHODS and len(list(library.METHODS)) >= 30;"
        "print([name for name in ('torch', 'numpy') if name in sys.modules]);"
        "library.METHODS.options;"
        "print([name for name in ('captum', 'skimage', 'scipy.ndimage') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]


def test_an_unknown_method() -> None:
    assert "gradcam" not in METHODS and METHODS.get("gradcam") is None
    with pytest.raises(KeyError, match="gradcam"):
        METHODS["gradcam"]


def test_a_file_without_a_method_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_methods").mkdir()
    (tmp_path / "some_methods" / "__init__.py").touch()
    (tmp_path / "some_methods" / "nothing.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    registry = Registry("some_methods")
    assert list(registry) == ["nothing"]
    with pytest.raises(KeyError, match="nothing"):
        registry["nothing"]
