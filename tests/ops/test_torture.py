"""The short torture: no wrong answer under load while things go wrong, and no error that nobody understands."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import requests

from benchmarks.torture.__main__ import torture
from benchmarks.torture.answers import Verdict, is_clear, same, verdict_on
from benchmarks.torture.scenarios import SCENARIOS, SHORT

RECOVERY_SECONDS = 30


def answer(status: int, body: bytes, **headers: str) -> requests.Response:
    given = requests.Response()
    given.status_code = status
    given._content = body
    given.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return given


CLEAR = b'{"code": 503, "error": "busy", "field": "server", "message": "try again"}'


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        (answer(200, b'{"score": 1.00001}'), Verdict.RIGHT),
        (answer(200, b'{"score": 1.1}'), Verdict.WRONG),
        (answer(200, b'{"score": 1.0, "more": 1}'), Verdict.WRONG),
        (answer(200, b"<html>"), Verdict.UNCLEAR),
        (answer(503, CLEAR, Retry_After="1"), Verdict.CLEAR),
        (answer(503, CLEAR), Verdict.UNCLEAR),
        (answer(502, CLEAR, Retry_After="1"), Verdict.UNCLEAR),
        (answer(500, CLEAR.replace(b"503", b"500")), Verdict.UNCLEAR),
        (answer(400, b'{"code": 400, "type": "InvalidKeyException", "message": "x"}'), Verdict.UNCLEAR),
    ],
)
def test_verdicts(given: requests.Response, verdict: Verdict) -> None:
    assert verdict_on(given, {"score": 1.0}) == verdict


def test_answers_that_say_the_same() -> None:
    assert same([1.0, {"a": "x"}], [1.0001, {"a": "x"}])
    assert not same([1.0], [1.0, 1.0])
    assert not same({"a": 1.0}, {"b": 1.0})
    assert not is_clear(answer(404, b"[]"), [])


@pytest.mark.skipif(shutil.which("nginx") is None and not os.environ.get("CI"), reason="make setup-ops installs nginx")
def test_nothing_is_wrong_unclear_or_slow_to_come_back(tmp_path: Path) -> None:
    rows = torture(tmp_path, SHORT)
    assert [row.scenario for row in rows] == list(SCENARIOS)
    for row in rows:
        assert (row.wrong, row.unclear) == (0, 0), row
        assert row.recovery_s is None or row.recovery_s < RECOVERY_SECONDS, row
        assert row.lost == row.in_flight <= SHORT.clients, row
    calm = rows[0]
    assert calm.right == calm.sent > 0
    hostile = next(row for row in rows if row.scenario == "hostile bodies")
    assert hostile.clear > SHORT.hostile / 2
