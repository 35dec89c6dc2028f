"""The tables in docs/ against the methods themselves, and against the record of their evaluation."""

from __future__ import annotations

import re

import pytest
import yaml

import imagexplain.attribution as library
from evaluation import evaluate_methods, evaluate_photos
from evaluation.photos import PACKAGED
from imagexplain.archive.spec import PreprocessSpec
from imagexplain.attribution.registry import METHODS
from imagexplain.cli import list_methods
from imagexplain.limits import Limits
from imagexplain.ops.server import ROOT
from imagexplain.vision.colour import MAX_PROFILE_BYTES
from imagexplain.vision.decode import MAX_CHUNKS, MAX_SCANS, MAX_SEGMENTS
from imagexplain.vision.preprocess_fields import CHANNELS

WHOLE = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
PAGE = WHOLE.partition("## The list")[0]
ROWS = dict(re.findall(r"^\| `(\w+)` \|([^|]*)\|", PAGE, re.MULTILINE))
CHECKPOINTS = (ROOT / "docs" / "checkpoints.md").read_text(encoding="utf-8")
PREPROCESSING = CHECKPOINTS.partition("## Preprocessing")[2].partition("\n## ")[0]
WORDS = {"layer": "layer", "baselines": "baseline", "fill": "baseline", "references": "references", "groups": "groups"}
NAMES = {"rule": "quadrature"}


def test_every_method_has_a_row() -> None:
    assert set(ROWS) == set(library.METHODS)


@pytest.mark.parametrize("method", library.METHODS)
def test_a_row_has_the_options_and_their_defaults(method: str) -> None:
    given = METHODS[method].parameters
    wanted = {f"`{NAMES.get(name, name)}` ({shown(given[name])})" for name in METHODS[method].options}
    wanted |= {WORDS[name] for name in given if name in WORDS}
    wanted |= {"segments"} if "segments" in given else set()
    assert {part.strip() for part in ROWS[method].split(", ") if part.strip()} == wanted


def test_the_list_is_the_registrys() -> None:
    assert list_methods.with_listing(WHOLE) == WHOLE


def test_the_evaluation_is_the_one_on_record(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate_methods.main(["--print"]) == 0
    page = (ROOT / "docs" / "methods_evaluation.md").read_text(encoding="utf-8")
    assert page.endswith(capsys.readouterr().out.strip() + "\n")
    assert evaluate_methods.main(["--ranks"]) == 0
    assert capsys.readouterr().out.strip() in WHOLE


def test_the_bounds_of_photos_are_those_of_the_code() -> None:
    page = (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8")
    limits = Limits()
    for bound in (
        f"{limits.max_pixels // 10**6} million pixels and sides of {limits.max_side:,} pixels",
        f"{MAX_SEGMENTS:,} segments or {MAX_SCANS} scans",
        f"{MAX_CHUNKS:,}\nchunks",
        f"above {MAX_PROFILE_BYTES // 10**6} MB",
    ):
        assert bound in page


def test_the_evaluation_on_photos_is_the_one_on_record(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate_photos.main(["--print"]) == 0
    page = (ROOT / "docs" / "evaluation_photos.md").read_text(encoding="utf-8")
    assert page.endswith(capsys.readouterr().out.strip() + "\n")
    for name in (name for names in PACKAGED.values() for name in names):
        assert f"`{name}`" in page, "each packaged photo has its licence named"


def test_the_fields_of_a_preprocessing_are_those_of_specs() -> None:
    fields, libraries = PREPROCESSING.split("| trained with |")
    rows = re.findall(r"^\| (`[^|]*`) \|([^|]*)\|", fields, re.MULTILINE)
    named = [name for names, _ in rows for name in re.findall(r"\w+", names)]
    assert sorted(named) == sorted(PreprocessSpec.model_fields)
    for names, default in rows:
        if default.strip():
            usual = PreprocessSpec.model_fields[names.strip("`")].default
            assert yaml.safe_load(default.strip().strip("`")) == usual
    examples = re.findall(r"\| `([^|`]*)` \|$", libraries, re.MULTILINE)
    assert len(examples) >= 10
    for example in examples:
        own = yaml.safe_load("{" + example + "}")
        count = CHANNELS[own.get("channels", "rgb")]
        statistics = {} if own.get("standardize") else {"mean": [0.5] * count, "std": [0.5] * count}
        PreprocessSpec(**{"size": [224, 224], **statistics, **own})


def shown(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
