"""Readiness, liveness and metrics, by what a supervisor has seen."""

from __future__ import annotations

import json
import socket
from typing import Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from imagexplain import __version__
from imagexplain.ops.exporter import FRONTEND, MODEL, Status, application, exported
from imagexplain.ops.observation import LOADING, READY, UNAVAILABLE
from imagexplain.ops.server import ServerError
from tests.ops.seen import model, worker


def ask(status: Status, path: str, method: str = "GET") -> tuple[str, str]:
    """The status line and the body of an answer."""
    lines: list[str] = []

    def start_response(line: str, _: list[tuple[str, str]], *__: Any) -> None:
        lines.append(line)

    body = application(status)({"PATH_INFO": path, "REQUEST_METHOD": method, "QUERY_STRING": ""}, start_response)
    return lines[0], b"".join(body).decode()


def samples(status: Status) -> dict[tuple[str, ...], float]:
    """Each sample by its name and the values of its labels, by the labels' names in order."""
    _, text = ask(status, "/metrics")
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(each.name, *(value for _, value in sorted(each.labels.items()))): each.value for each in found}


def seen(**states: str) -> Status:
    workers = {READY: worker(1), LOADING: worker(2, loaded=False), UNAVAILABLE: worker(None)}
    models = tuple(model(workers[state], name=name) for name, state in states.items())
    return Status({each.address: each.state for each in models}, models, frontend_up=True)


def test_ready_is_every_model_with_a_ready_worker() -> None:
    line, body = ask(seen(bit=READY, lanet=READY), "/readyz")
    assert line == "200 OK"
    assert json.loads(body) == {"ready": True, "models": {"bit": READY, "lanet": READY}, "unready": []}


@pytest.mark.parametrize("state", [LOADING, UNAVAILABLE])
def test_a_model_that_is_not_is_named(state: str) -> None:
    line, body = ask(seen(bit=READY, lanet=state), "/readyz")
    assert line == "503 Service Unavailable"
    assert json.loads(body) == {"ready": False, "models": {"bit": READY, "lanet": state}, "unready": ["lanet"]}


def test_nothing_is_ready_before_anything_is_seen_and_while_the_server_is_drained() -> None:
    assert ask(Status(), "/readyz")[0].startswith("503")
    status = seen(bit=READY)
    status.draining = True
    assert ask(status, "/readyz")[0].startswith("503") and ask(status, "/livez")[0] == "200 OK"


def test_other_addresses_and_methods_are_refused() -> None:
    assert ask(Status(), "/")[0] == "404 Not Found"
    assert ask(Status(), "/readyz", "POST")[0] == "405 Method Not Allowed"


def test_the_metrics_stand_at_0_before_anything_happened() -> None:
    status = seen(bit=READY)
    status.restarts[MODEL, "bit"] += 0
    found = samples(status)
    assert found["imagexplain_restarts_total", "", FRONTEND] == 0
    assert found["imagexplain_restarts_total", "bit", MODEL] == 0


def test_the_metrics_tell_what_was_seen() -> None:
    workers = (worker(1), worker(2, loaded=False), worker(3, status=psutil.STATUS_STOPPED), worker(None), worker(None))
    status = Status({"bit": READY}, (model(*workers, name="bit"),), {"bit": "ab" * 32}, frontend_up=True)
    status.load_s["bit", "1.0"] = 2.5
    status.restarts[FRONTEND, ""] += 2
    status.ended["bit", "1.0", "stopped"] += 1
    status.free_bytes = 5
    assert samples(status) == {
        ("imagexplain_frontend_up",): 1,
        ("imagexplain_model_ready", "bit", "1.0"): 1,
        ("imagexplain_workers", "bit", "1.0", "READY"): 1,
        ("imagexplain_workers", "bit", "1.0", "LOADING"): 1,
        ("imagexplain_workers", "bit", "1.0", "STOPPED"): 1,
        ("imagexplain_workers", "bit", "1.0", "DEAD"): 2,
        ("imagexplain_build_info", "ab" * 32, "bit", "1.0", __version__): 1,
        ("imagexplain_model_load_seconds", "bit", "1.0"): 2.5,
        ("imagexplain_restarts_total", "", FRONTEND): 2,
        ("imagexplain_workers_ended_total", "bit", "1.0", "stopped"): 1,
        ("imagexplain_state_free_bytes",): 5,
    }


def test_a_model_stays_in_the_metrics_while_the_server_is_down() -> None:
    status = seen(bit=READY)
    status.frontend_up, status.states = False, {"bit": UNAVAILABLE}
    found = samples(status)
    assert found["imagexplain_frontend_up",] == found["imagexplain_model_ready", "bit", "1.0"] == 0
    assert found["imagexplain_workers", "bit", "1.0", "READY"] == 0


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=rf"port {port} \(readiness\) cannot be opened"), exported(Status(), port):
            pass
