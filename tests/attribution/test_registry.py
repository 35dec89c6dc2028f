"""The registry: a record beside each definition, and names without importing anything."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

import imagexplain.attribution as library
from imagexplain.attribution.registry import METHODS, Method, Registry
from imagexplain.errors import ArgumentError

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


Pace = Literal["slow", "quick"]
Other = Literal["quick", "slow", "still"]


def slow(model: object, images: object, targets: object = None, *, pace: Pace = "slow") -> None: ...
def still(model: object, images: object, targets: object = None, *, pace: Other = "still") -> None: ...
def free(model: object, images: object, targets: object = None, *, pace: str = "slow") -> None: ...
def same(model: object, images: object, targets: object = None, *, pace: Pace = "quick") -> None: ...
def wrong(model: object, images: object, targets: object = None, *, tempo: Pace = "fast") -> None: ...  # type: ignore[assignment]
def unknown(model: object, images: object, targets: object = None, *, gain: Nowhere = 1.0) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def untyped(model, images, targets=None, *, name="any", gain=1.0): ...


@pytest.fixture
def registry() -> Registry:
    """A registry of one method, whose option ``pace`` is one of two words."""
    found = Registry("imagexplain.attribution.methods")
    found.add(Method(slow, "gradients"))
    return found


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (still, "pace: wanted 'slow' or 'quick', as in slow, got 'quick' or 'slow' or 'still' in still"),
        (free, "pace: wanted 'slow' or 'quick', as in slow, got any word in free"),
        (unknown, "name: wanted types that are known where it is defined, in unknown: name 'Nowhere' is not defined"),
        (wrong, "tempo: wanted a default among slow, quick, got 'fast' in wrong"),
    ],
)
def test_an_option_has_the_same_words_in_every_method(
    registry: Registry, function: Callable[..., Any], message: str
) -> None:
    with pytest.raises(ArgumentError) as caught:
        registry.add(Method(function, "gradients"))
    assert str(caught.value) == message and function.__name__ not in registry


def test_methods_that_share_an_option_and_one_that_says_no_types(registry: Registry) -> None:
    registry.add(Method(same, "gradients"))
    registry.add(Method(slow, "paths"))  # again, as where its file is run anew
    registry.add(Method(untyped, "gradients"))
    assert registry["slow"].family == "paths"
    assert registry["same"].words == {"pace": ("slow", "quick")} and registry["untyped"].words == {}


@pytest.mark.parametrize("bounded", ["gain", "name", "speed"])
def test_a_bound_is_of_an_option_that_is_a_whole_number(registry: Registry, bounded: str) -> None:
    wanted = f"wanted bounds of options that are whole numbers, got {bounded} in"
    with pytest.raises(ArgumentError, match=f"least: {wanted}"):
        registry.add(Method(untyped, "gradients", least={bounded: 3}))
    with pytest.raises(ArgumentError, match=f"most: {wanted}"):
        registry.add(Method(untyped, "gradients", most={bounded: 3}))
