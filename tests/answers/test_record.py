"""A small part of the record: what is the same on every machine, and what must be the same twice on one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.answers.cases import cases, errors
from tests.answers.record import Models, differences, record

ERRORS = Path(__file__).with_name("errors.json")
TWICE = ("form: base64", "path: draws, application/json", "groups: slic&n_segments=8, image/png", "batch: mixed")


@pytest.fixture(scope="module")
def models(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Those that the cases here are for, of the archives that are served: one build serves all files that need them."""
    known = cases()
    names = {known[name].model for name in (*errors(), *TWICE)}
    return Models(tmp_path_factory.mktemp("models"), [model_store / f"{name}.mar" for name in names])


def test_errors_are_as_recorded(models: Models) -> None:
    """Their words are an interface too: `python -m tests.answers.record --only error: --out …` records them anew."""
    assert differences(json.loads(ERRORS.read_text()), record(models, errors())) == []


def test_answers_are_the_same_twice(models: Models) -> None:
    asked = {name: case for name, case in cases().items() if name in TWICE}
    assert len(asked) == len(TWICE)
    first = record(models, asked)
    models.loaded.clear()
    assert differences(first, record(models, asked)) == []


def test_a_difference_is_told() -> None:
    before = {"same": ["200 a"], "other": ["200 b"], "gone": ["200 c"]}
    assert differences(before, {"same": ["200 a"], "other": ["200 d"], "new": ["200 e"]}) == ["gone", "new", "other"]


def test_every_case_is_asked_for_every_kind_of_answer() -> None:
    names = list(cases())
    assert sum(len(case.batch) for case in cases().values()) >= 60
    for status in ("400", "406", "413", "415", "422", "500", "503"):
        assert any(name.startswith(f"error: {status}") for name in names)
