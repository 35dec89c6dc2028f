"""The front door before nodes of Ray Serve: a real nginx before three fake proxies."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from imagexplain.errors import WORDS
from imagexplain.ops import edge, edge_keys
from imagexplain.ops.edge_settings import MAX_BODY_BYTES, read_settings
from imagexplain.ops.server import ROOT, free_port
from tests.ops.door import RayDoor, before_ray, error_of
from tests.ops.fake_nodes import APPLICATIONS, Node, asked
from tests.waiting import until

ECHO = "/predictions/echo"


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[Node]]:
    found = [Node() for _ in range(3)]
    yield found
    for node in found:
        node.close()


@pytest.fixture(scope="module")
def door(nodes: list[Node], nginx: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayDoor]:
    """A front door before them."""
    run, port = tmp_path_factory.mktemp("ray") / "run", free_port()
    more: dict[str, Any] = {"port": port, "legacy": {"echo": port + 1}, "vertex_endpoints": {"42": "echo/2.0"}}
    with before_ray(run, [node.address for node in nodes], APPLICATIONS, **more) as door:
        yield door


@pytest.fixture(autouse=True)
def _fresh(nodes: list[Node]) -> None:
    asked(nodes)


def told(answer: requests.Response) -> dict[str, str]:
    """The headers that came to a node, by their names in lower case."""
    assert answer.status_code == 200, answer.text
    return {name.lower(): value for name, value in answer.json()["headers"].items()}


# Paths and headers


@pytest.mark.parametrize(
    ("path", "wanted", "protocol"),
    [
        (ECHO, "/echo/predictions", None),
        ("/explanations/echo?steps=3", "/echo/explanations", None),
        ("/explanations/echo/2.0", "/echo/2.0/explanations", None),
        ("/v1/models/echo:explain", "/echo/explanations", "kserve_v1"),
        ("/v1/models/echo/versions/2.0:predict", "/echo/2.0/predictions", "kserve_v1"),
        ("/v2/models/echo/infer", "/echo/predictions", "kserve_v2"),
        ("/v1/projects/p/locations/l/endpoints/echo:explain", "/echo/explanations", "vertex"),
        ("/v1/projects/p/locations/l/endpoints/42:predict", "/echo/2.0/predictions", "vertex"),
    ],
)
def test_paths_are_torchserves(door: RayDoor, path: str, wanted: str, protocol: str | None) -> None:
    answer = door.ask(path, X_Explain_Protocol="theirs")
    headers = told(answer)
    assert (answer.json()["path"], headers.get("x-explain-protocol")) == (wanted, protocol)
    assert error_of(door.ask(path, client=None)) == (401, "unauthorized", "authorization")
    assert door.ask(path, method="GET").status_code == 405


def test_what_a_client_must_not_say_to_ray(door: RayDoor) -> None:
    sent = {"X_Request_Timeout_Seconds": "0", "X_Request_Disconnect_Disabled": "?1", "Cookie": "a"}
    headers = told(door.ask(f"{ECHO}?steps=3", serve_multiplexed_model_id="m", X_Session_Id="s", **sent))
    assert headers["x-request-timeout-seconds"] == "190"  # the door's 180 come first
    assert headers["x-explain-options"] == "steps=3" and headers["x-request-start"].startswith("t=")
    absent = {"authorization", "cookie", "x-request-disconnect-disabled", "serve-multiplexed-model-id", "x-session-id"}
    assert not absent & headers.keys()


def test_the_metadata_of_a_model_is_an_empty_request(door: RayDoor) -> None:
    answer = door.ask("/v2/models/echo/versions/2.0", method="GET", Cookie="a")
    headers = told(answer)
    assert (answer.json()["method"], answer.json()["path"]) == ("POST", "/echo/2.0/predictions")
    assert headers["x-explain-protocol"] == "kserve_v2_metadata" and "cookie" not in headers
    assert door.ask("/v2/models/echo", method="GET", client=None).status_code == 401


def test_all_else_of_rays_is_closed(door: RayDoor, nodes: list[Node]) -> None:
    for path in ("/-/routes", "/-/healthz", "/-/nodes/0", "/-/again/POST", "/echo/predictions", "/metrics"):
        for method in ("GET", "POST"):
            assert error_of(door.ask(path, method=method)) == (404, "not_found", "path")
    for name in ("nobody", "Echo", "echo/3.0", "echo2.0"):
        assert error_of(door.ask(f"/predictions/{name}")) == (404, "not_found", "path")
    assert asked(nodes) == [0, 0, 0]


# Errors


@pytest.mark.parametrize("status", sorted(WORDS))
def test_a_handlers_errors_pass_unchanged_and_are_not_retried(door: RayDoor, nodes: list[Node], status: int) -> None:
    answer = door.ask(f"/explanations/handler-{status}")
    assert error_of(answer) == (status, WORDS[status], "steps")
    assert answer.json()["message"] == "wanted more" and sum(asked(nodes)) == 1


@pytest.mark.parametrize(
    ("application", "wanted", "attempts"),
    [
        ("full", (503, "busy", "server"), 1),
        ("raised", (502, "bad_gateway", "server"), 1),
        ("died", (502, "bad_gateway", "server"), 2),
        ("gone", (502, "bad_gateway", "server"), 2),
        ("absent", (503, "busy", "server"), 2),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_rays_errors_become_ours(
    door: RayDoor, nodes: list[Node], application: str, wanted: tuple[int, str, str], attempts: int, method: str
) -> None:
    answer = door.ask(f"/predictions/{application}", method=method)
    assert error_of(answer) == wanted and int(answer.headers["Retry-After"]) > 0
    counts = asked(nodes)
    assert sum(counts) == attempts and max(counts) == 1


def test_a_time_out_and_a_late_loss_are_not_retried(door: RayDoor, nodes: list[Node]) -> None:
    """Of 3 seconds: no answer in them, or the end of the connection when less than half of them is left."""
    ray = door.settings.ray
    assert ray is not None
    with (
        door.settled(ray=ray.model_copy(update={"response_timeout_s": 2}).model_dump(), queue_s=1),
        ThreadPoolExecutor(4) as pool,
    ):
        asked(nodes)
        timed_out = [pool.submit(door.ask, "/predictions/slower", method=method) for method in ("POST", "PUT")]
        lost = [pool.submit(door.ask, "/predictions/gone-late", method=method) for method in ("POST", "PUT")]
        assert {error_of(answer.result()) for answer in timed_out} == {(504, "timeout", "server")}
        assert {error_of(answer.result()) for answer in lost} == {(502, "bad_gateway", "server")}
        assert sum(asked(nodes)) == 4


# The retry


@pytest.mark.parametrize("failure", ["died", "gone", "absent"])
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_what_is_lost_at_a_node_is_retried_at_another(
    door: RayDoor, nodes: list[Node], failure: str, method: str
) -> None:
    body = bytes(range(256)) * 8000  # two megabytes, which nginx has put into a file
    for node in nodes:
        with node.failing(failure):
            for _ in range(4):
                answer = door.ask("/explanations/echo?steps=3", body, method=method)
                headers = told(answer)
                assert answer.json()["bytes"] == len(body) and answer.json()["port"] != node.port
                assert headers["x-explain-options"] == "steps=3"
                assert headers["x-request-id"] == answer.headers["X-Request-Id"]


def test_the_log_names_each_attempt(door: RayDoor, nodes: list[Node]) -> None:
    with nodes[0].failing("died"), nodes[1].failing("died"), nodes[2].failing("died"):
        door.ask(ECHO, X_Request_Id="attempts")
    until(lambda: any(line["id"] == "attempts" for line in door.requests_logged()))
    (line,) = [line for line in door.requests_logged() if line["id"] == "attempts"]
    assert line["status"] == 502
    statuses, addresses = line["node_statuses"].split(" : "), line["nodes"].split(" : ")
    if addresses[0] == "ray":  # where all nodes are left out, none is asked, and nginx says so before it asks them all
        assert statuses.pop(0) == "502" and addresses.pop(0)
    first, second = addresses
    assert statuses == ["500", "500"] and first != second and {first, second} <= {node.address for node in nodes}


def test_nodes_that_are_down_are_passed_over(door: RayDoor, nodes: list[Node]) -> None:
    with nodes[0].down(), nodes[2].down():
        for _ in range(8):
            assert door.ask(ECHO).json()["port"] == nodes[1].port
            assert told(door.ask("/v2/models/echo", method="GET"))
        assert asked(nodes)[1] == 16
    with nodes[0].down(), nodes[1].down(), nodes[2].down():
        for path, method in ((ECHO, "POST"), (ECHO, "PUT"), ("/v2/models/echo", "GET")):
            answer = door.ask(path, method=method)
            assert error_of(answer) == (503, "busy", "server") and answer.headers["Retry-After"] == "5"
    for _ in range(8):  # all are left out, and yet asked
        assert door.ask(ECHO).status_code == 200


def test_a_node_that_dies_under_load_costs_no_request(door: RayDoor, nodes: list[Node]) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(door.ask, path) for path in ["/predictions/slow"] * 8 + [ECHO] * 40]
        until(lambda: sum(len(node.seen) for node in nodes) >= 8)
        with nodes[1].down():
            assert {answer.result().status_code for answer in answers} == {200}


# Readiness


def test_readiness_of_the_nodes(door: RayDoor, nodes: list[Node]) -> None:
    def ask(path: str) -> requests.Response:
        return door.ask(path, method="GET", client=None)

    answer = ask("/readyz")
    assert error_of(answer) == (503, "busy", "models")
    assert answer.json()["unready"] == ["absent"] and answer.json()["nodes"] == {"ready": 3, "all": 3}
    assert ask("/v2/models/echo/versions/2.0/ready").json() == {"name": "echo", "ready": True}
    assert error_of(ask("/v1/models/absent"))[0] == 503 and error_of(ask("/v1/models/nobody"))[0] == 404
    nodes[2].unknown.clear()
    nodes[0].draining = True
    with nodes[1].down():
        assert ask("/readyz").json()["nodes"] == {"ready": 1, "all": 3}
        assert ask("/v2/health/ready").status_code == ask("/v1/models/absent").status_code == 200
        assert {*ask("/v1/models").json()["models"]} == {name.partition("/")[0] for name in APPLICATIONS}
        with nodes[2].down():
            answer = ask("/readyz")
            assert error_of(answer)[0] == 503 and answer.json()["message"] == "no node of Ray Serve answers"
            assert error_of(ask("/v1/models/echo"))[0] == 503 and ask("/livez").status_code == 200
    nodes[0].draining = False
    nodes[2].unknown.add("absent")


# In a container


def test_the_containers_command(nodes: list[Node], nginx: str, tmp_path: Path) -> None:
    key = edge_keys.add(tmp_path / "clients", "alice")
    settings, state = tmp_path / "edge.yaml", tmp_path / "state"
    settings.write_text(f"port: {free_port()}\nray: {{nodes: ['{nodes[0].address}'], applications: [echo]}}\n")
    script = ROOT / "deploy" / "container" / "edge.sh"
    command = ["sh", str(script), str(settings), str(state), str(tmp_path / "clients" / "clients.json"), "0"]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        until(lambda: edge.find(state), process=process)
        running = edge.find(state)
        assert running is not None
        door = RayDoor(state, read_settings(settings), running, {"alice": key})
        assert door.ask(ECHO).status_code == 200
        process.terminate()
        assert process.wait(60) == 0 and edge.find(state) is None and running.process() is None


# The rest is as before TorchServe


def test_the_original_servers_clients(door: RayDoor, nodes: list[Node]) -> None:
    url = f"http://127.0.0.1:{door.settings.legacy['echo']}"
    assert requests.post(f"{url}/explanations/model/", b"x", timeout=9).json()["path"] == "/echo/explanations"
    with nodes[0].failing("died"):
        ports = {requests.post(f"{url}/predictions/echo", b"x", timeout=9).json()["port"] for _ in range(3)}
        assert nodes[0].port not in ports
    assert error_of(requests.post(f"{url}/-/routes", timeout=9))[0] == 404


def test_pages_documents_and_sizes(door: RayDoor) -> None:
    assert error_of(door.ask(ECHO, bytes(MAX_BODY_BYTES + 1))) == (413, "too_large", "body")
    assert door.ask("/studio/", method="GET", client=None).status_code == 200
    (door.folder / "openapi.json").write_text(json.dumps({"openapi": "3.1.0"}))
    assert door.ask("/openapi.json", method="GET", client=None).json() == {"openapi": "3.1.0"}


def test_one_node(door: RayDoor, nodes: list[Node]) -> None:
    """What is lost is retried there: Ray gives it to another replica."""
    with door.settled(ray={"nodes": [nodes[0].address], "applications": APPLICATIONS}):
        assert door.ask(ECHO).status_code == 200
        asked(nodes)
        assert error_of(door.ask("/predictions/died"))[0] == 502 and asked(nodes) == [2, 0, 0]
        with nodes[0].down():
            assert error_of(door.ask(ECHO))[0] == 503
        assert door.ask(ECHO).status_code == 200
