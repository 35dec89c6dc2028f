from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from handlers.classifier import ClassifierHandler
from imagexplain.serving.headers import ANSWERED_ID
from imagexplain.serving.json_log import METRICS_LOGGER, JsonLines, write_json
from imagexplain.serving.messages import RawRequest
from imagexplain.serving.request_id import MAX_QUEUE_SECONDS, queue_seconds, request_id
from tests.serving.asking import base64_png, explanation, noise_png, prediction
from tests.serving.fake_torchserve import Context

FORGED = "[METRICS]explain_requests_total.count:777|#model_name:bit|#type:COUNTER|#hostname:h,1"
ENDS = ["", "\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029", "\n\ud800", "INFO > "]
"""Ends of lines by Java's and Python's rules, with a lone surrogate, and what else TorchServe takes before a metric."""


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """A function that gives what was logged since, by line, as a worker writes it."""
    caplog.set_level(logging.INFO)
    return lambda: [JsonLines().format(record) for record in caplog.records if record.name == "imagexplain.request"]


@pytest.mark.parametrize("end", ENDS)
def test_no_text_begins_a_line(end: str) -> None:
    text = f"broken {end}{FORGED}"
    try:
        raise RuntimeError(text)
    except RuntimeError:
        record = logging.LogRecord("any", logging.ERROR, "f", 1, "%s", (text,), sys.exc_info())
    line = JsonLines().format(record)
    assert line.isascii() and line.isprintable() and line.startswith('{"level": "ERROR"')
    found = json.loads(line)
    assert found["message"] == text and FORGED in found["traceback"]


def test_torchserves_measurements_stay_as_they_are() -> None:
    record = logging.LogRecord(f"{METRICS_LOGGER}.caching_metric", logging.INFO, "f", 1, FORGED, (), None)
    assert JsonLines().format(record) == FORGED


def test_what_is_logged_to_standard_output_is_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, plain, other = logging.getLogger(), logging.StreamHandler(sys.stdout), logging.StreamHandler(sys.stderr)
    monkeypatch.setattr(root, "handlers", [plain, other])
    logging.captureWarnings(False)  # as a handler of another test may have left it, out of pytest's sight
    try:
        write_json()
        logging.getLogger("a").error("b %s", "c")
        warnings.warn(f"d\n{FORGED}", UserWarning, stacklevel=1)
    finally:
        logging.captureWarnings(False)
    written = capsys.readouterr()
    first, second = map(json.loads, written.out.splitlines())
    assert (first["level"], first["logger"], first["message"]) == ("ERROR", "a", "b c")
    assert second["logger"] == "py.warnings" and FORGED in second["message"]
    assert written.err.startswith("b c\n")


def test_each_request_has_a_line(handler: ClassifierHandler, lines: Callable[[], list[str]]) -> None:
    sent = [
        prediction() | {"X-Request-Id": "job-7.2_a", "X-Request-Start": f"t={time.time() - 2:.3f}"},
        explanation("steps=3&method=integrated_gradients"),
        explanation("colour=red"),
    ]
    rows: list[dict[str, Any]] = [{"body": bytearray(noise_png())} for _ in sent]
    context = Context(headers=sent, request_ids={0: "own-0", 1: "own-1", 2: "own-2"})
    bodies = handler.handle(rows, context)
    predicted, explained, refused = map(json.loads, lines())
    assert [one["request_id"] for one in (predicted, explained, refused)] == ["job-7.2_a", "own-1", "own-2"]
    assert {index: found[ANSWERED_ID] for index, found in context.answered.items()} == {
        0: "job-7.2_a", 1: "own-1", 2: "own-2"
    }  # fmt: skip
    assert {name: predicted[name] for name in ("level", "message", "kind", "status", "outcome", "model")} == {
        "level": "INFO", "message": "request", "kind": "prediction", "status": 200, "outcome": "ok", "model": "bit"
    }  # fmt: skip
    assert 2 <= predicted["queue_seconds"] < 60 and predicted["seconds"] > predicted["queue_seconds"]
    assert "method" not in predicted and "queue_seconds" not in explained
    assert (explained["method"], explained["evaluations"], explained["cached"]) == ("integrated_gradients", 3, False)
    assert explained["request_bytes"] == len(noise_png()) and explained["response_bytes"] == len(bodies[1])
    assert {"decode_seconds", "attribute_seconds", "encode_seconds", "time", "relative_residual"} <= set(explained)
    assert (refused["status"], refused["outcome"], refused["reason"]) == (400, "bad_request", "options")
    assert "method" not in refused and "evaluations" not in refused


def test_a_line_holds_nothing_that_was_sent(handler: ClassifierHandler, lines: Callable[[], list[str]]) -> None:
    secret = "s3cr3t"
    headers = explanation(f"method={secret}") | {"Authorization": f"Bearer {secret}", "X-Request-Id": f"{secret}\n"}
    bodies: list[Any] = [{"image": base64_png(), secret: secret}, noise_png(), f"{secret}\n{FORGED}"]
    context = Context(headers=[{**headers, "User-Agent": secret, "Accept": f"{secret}/*, */*"} for _ in bodies])
    handler.handle([{"body": body} for body in bodies], context)
    found = lines()
    assert len(found) == 3 and not [line for line in found if secret in line or "METRICS" in line]
    assert not [line for line in found if base64_png()[:20] in line] and max(map(len, found)) < 1000


def test_a_number_that_json_lacks_is_left_out(
    handler: ClassifierHandler, lines: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "imagexplain.serving.path_attribution.PathAttribution.relative_residual", lambda *_: float("nan")
    )
    handler.handle([{"body": bytearray(noise_png())}], Context(headers=[explanation("steps=2")]))
    (line,) = lines()
    assert "relative_residual" not in json.loads(line) and "NaN" not in line


@pytest.mark.parametrize("text", ["", " ", "a b", "a\n", "a" * 65, "é", "a,b", "<a>", None])
def test_what_is_no_id_is_replaced(text: str | None) -> None:
    assert request_id(text, "own") == "own"
    made = {request_id(text, text) for _ in range(10)}
    assert len(made) == 10 and all(request_id(one) == one for one in made)


def test_a_request_of_any_engine_has_an_id() -> None:
    first, second = (RawRequest({}, {}, "prediction") for _ in range(2))
    assert first.id != second.id and first.queued is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("t=90.5", 9.5),
        ("t=100", 0),
        ("t=100.001", None),
        ("90.5", None),
        ("t=90.5\n", None),
        ("t=1e1", None),
        ("t=nan", None),
        ("t=-5", None),
        ("t=" + "9" * 400, None),
        ("", None),
        (None, None),
    ],
)
def test_the_time_in_the_queue(header: str | None, seconds: float | None) -> None:
    assert queue_seconds(header, 100.0) == seconds


def test_another_clocks_time_is_none() -> None:
    assert queue_seconds("t=0", MAX_QUEUE_SECONDS) == MAX_QUEUE_SECONDS
    assert queue_seconds("t=0", MAX_QUEUE_SECONDS + 0.1) is None
