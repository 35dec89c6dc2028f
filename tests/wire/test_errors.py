from __future__ import annotations

import json

import pytest

from imagexplain.errors import RequestError, listed, shown, unknown


def test_body_is_the_json_of_the_contract() -> None:
    error = RequestError(422, "target_class", "wanted “cat”, got 7")
    assert json.loads(error.body()) == {
        "code": 422,
        "error": "unprocessable",
        "field": "target_class",
        "message": "wanted “cat”, got 7",
    }
    assert str(error) == "422 target_class: wanted “cat”, got 7"


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (400, "bad_request"),
        (406, "not_acceptable"),
        (413, "too_large"),
        (415, "unsupported_media"),
        (422, "unprocessable"),
        (500, "internal"),
        (503, "busy"),
    ],
)
def test_every_status_has_a_word(status: int, word: str) -> None:
    assert RequestError(status, "x", "y").error == word


def test_no_other_status() -> None:
    with pytest.raises(ValueError, match="418"):
        RequestError(418, "x", "y")


def test_lone_surrogates_do_not_break_the_body() -> None:
    assert json.loads(RequestError(400, "\ud800", "\udfff").body())["field"] == "?"


def test_shown_is_short() -> None:
    assert len(shown("x" * 10_000)) <= 60
    assert len(shown([[list(range(1000))] * 1000] * 1000)) < 100


def test_unknown_names_the_nearest_and_the_known() -> None:
    assert unknown("option", "step", ["steps", "method"]) == (
        "unknown option 'step' (did you mean 'steps'?); known: steps, method"
    )
    assert unknown("option", 7, ["steps"]) == "unknown option 7; known: steps"
    assert unknown("class", "zzz", [f"label {i}" for i in range(1000)]) == "unknown class 'zzz'; 1000 are known"


def test_what_a_client_sent_never_makes_a_long_answer() -> None:
    error = RequestError(400, "f" * 10_000, "m" * 10_000_000)
    assert len(error.body()) < 3000
    assert error.field.endswith("…")
    assert "did you mean" not in unknown("option", "steps" * 1000, ["steps"])


def test_long_lists_of_names_are_cut() -> None:
    assert listed(["a", "b"]) == "'a', 'b'"
    assert listed(map(str, range(7))) == "'0', '1', '2', '3', '4' and 2 more"
    assert listed([]) == "(none)"
