"""The front door, a real nginx, before a fake server that answers whatever a test wants."""

from __future__ import annotations

import json
import socket
import ssl
import stat
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import requests

from imagexplain.errors import WORDS
from imagexplain.ops import edge, edge_keys
from imagexplain.ops.edge_config import refusals
from imagexplain.ops.edge_settings import MAX_BODY_BYTES, EdgeError, EdgeSettings
from imagexplain.ops.refusals import NAMED_REFUSALS
from imagexplain.ops.server import ROOT, free_port
from tests.ops.door import Door, error_of, faked, rotate_key
from tests.waiting import until

ECHO = "/predictions/echo"


def curl(door: Door, path: str, *arguments: str) -> str:
    """What curl prints of a request of alice's; it speaks HTTP/2, unlike requests."""
    command = [
        "curl",
        "-s",
        "--cacert",
        door.edge.certificate,
        "-H",
        f"Authorization: {door.headers()['Authorization']}",
    ]
    done = subprocess.run([*command, *arguments, f"{door.edge.url}{path}"], capture_output=True, timeout=60, check=True)
    return done.stdout.decode()


def connected(door: Door, newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED) -> ssl.SSLSocket:
    """A connection to the front door."""
    context = ssl.create_default_context(cafile=door.edge.certificate)
    context.maximum_version = newest
    plain = socket.create_connection(("127.0.0.1", door.edge.port), timeout=30)
    return context.wrap_socket(plain, server_hostname="127.0.0.1")


def raw(connection: socket.socket, request: bytes) -> str:
    """The answer to these very bytes, up to the connection's end."""
    with connection:
        connection.sendall(request)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer.decode()


# Transport


def test_http2_over_tls_13(door: Door) -> None:
    version = curl(door, ECHO, "--http2", "--data-binary", "x", "-o", "/dev/null", "-w", "%{http_version} %{http_code}")
    assert version == "2 200"
    with connected(door) as connection:
        assert connection.version() == "TLSv1.3"


def test_no_older_tls(door: Door) -> None:
    with pytest.raises(ssl.SSLError, match="protocol version"):
        connected(door, ssl.TLSVersion.TLSv1_2)


def test_the_state_is_its_owners_alone(door: Door) -> None:
    for name in ("", "certificate.key", "clients.json", "clients.map", "nginx.conf", "edge.json", "tmp"):
        path = door.folder / name
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    written = "".join(path.read_text() for path in door.folder.iterdir() if path.is_file())
    assert not any(key in written for key in door.keys.values())


# Keys


def test_a_request_with_a_key_is_answered(door: Door) -> None:
    for client in door.keys:
        assert door.ask(ECHO, client=client).status_code == 200
    assert door.ask(ECHO, client=None, Authorization=f"bearer  {door.keys['alice']}").status_code == 200


@pytest.mark.parametrize("given", [None, "", "Bearer", "Bearer wrong", "Basic YWxpY2U6eA==", "{key}", "Bearer {key}x"])
def test_a_request_without_a_key_in_use_is_a_401(door: Door, given: str | None) -> None:
    headers = {} if given is None else {"Authorization": given.format(key=door.keys["alice"])}
    answer = door.ask(ECHO, client=None, **headers)
    assert error_of(answer) == (401, "unauthorized", "authorization")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_torchserves_own_key_opens_nothing(door: Door) -> None:
    answer = door.ask(ECHO, client=None, **door.server.headers())
    assert answer.status_code == 401


def test_keys_come_and_go_without_a_restart(door: Door) -> None:
    with requests.Session() as session:
        session.verify, session.trust_env = door.edge.certificate, False

        def ask(key: str) -> int:
            headers = {"Authorization": f"Bearer {key}"}
            return session.post(f"{door.edge.url}{ECHO}", b"x", headers=headers, timeout=30).status_code

        first = edge_keys.add(door.folder, "carol")
        assert ask(first) == 401
        assert edge.reload_keys(door.run)
        assert ask(first) == 200
        second = edge_keys.add(door.folder, "carol")
        edge.reload_keys(door.run)
        assert (ask(first), ask(second)) == (200, 200)
        assert edge_keys.withdraw(door.folder, "carol", but_newest=True) == 1
        edge.reload_keys(door.run)
        assert (ask(first), ask(second)) == (401, 200)
        assert edge_keys.withdraw(door.folder, "carol") == 1
        edge.reload_keys(door.run)
        assert (ask(first), ask(second), ask(door.keys["alice"])) == (401, 401, 200)
    assert edge.find(door.run) == door.edge and door.edge.process() is not None


def test_what_has_begun_is_answered_over_a_change_of_keys(door: Door) -> None:
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(door.ask, "/predictions/slow?seconds=1.5")
        time.sleep(0.3)
        edge.reload_keys(door.run)
        assert not slow.done()
        assert slow.result().status_code == 200


# TorchServe's key


def told(answer: requests.Response) -> dict[str, str]:
    """The headers that came to the server, by their names in lower case."""
    assert answer.status_code == 200, answer.text
    return {name.lower(): value for name, value in answer.json()["headers"].items()}


def test_torchserve_gets_its_own_key_and_no_clients(door: Door) -> None:
    headers = told(door.ask(ECHO, Cookie="session=1"))
    assert headers["authorization"] == door.server.headers()["Authorization"]
    assert "cookie" not in headers
    assert door.keys["alice"] not in json.dumps(headers)


def test_the_rotation_of_torchserves_key_is_followed(door: Door) -> None:
    for _ in range(3):
        new = rotate_key(door.server)
        assert told(door.ask(ECHO))["authorization"] == new


def test_a_key_that_torchserve_no_longer_takes_is_a_503(door: Door) -> None:
    path = door.run / "key_file.json"
    before = path.read_text()
    for content in (before.replace('"inference": {"key": "', '"inference": {"key": "x'), before[:20], ""):
        path.write_text(content)
        answer = door.ask(ECHO)
        path.write_text(before)
        assert error_of(answer) == (503, "busy", "server")
        assert "InvalidKey" not in answer.text and int(answer.headers["Retry-After"]) > 0
    assert door.ask(ECHO).status_code == 200


def test_nothing_new_comes_to_a_server_that_is_being_stopped(door: Door) -> None:
    marker = door.run / "draining"
    marker.touch()
    answer = door.ask(ECHO)
    marker.unlink()
    assert error_of(answer) == (503, "busy", "server")
    assert door.ask(ECHO).status_code == 200


# Options


@pytest.mark.parametrize(
    ("query", "seen"),
    [
        ("?target_class=star&steps=100", "target_class=star&steps=100"),
        ("?baseline=blur:0.1", "baseline=blur:0.1"),
        ("?target_class=tabby%2C%20cat&layer=a%0D%0Ab", "target_class=tabby%2C%20cat&layer=a%0D%0Ab"),
        ("?", None),
        ("", None),
    ],
)
def test_a_query_string_is_options(door: Door, query: str, seen: str | None) -> None:
    answer = door.ask(f"/explanations/echo{query}")
    assert told(answer).get("x-explain-options") == seen
    assert answer.json()["path"] == "/explanations/echo"


def test_the_header_of_options_is_passed_on(door: Door) -> None:
    assert told(door.ask(ECHO, X_Explain_Options="steps=3"))["x-explain-options"] == "steps=3"
    assert told(door.ask(f"{ECHO}?", X_Explain_Options="steps=3"))["x-explain-options"] == "steps=3"


def test_options_in_both_places_are_refused(door: Door) -> None:
    answer = door.ask(f"{ECHO}?steps=4", X_Explain_Options="steps=3")
    assert error_of(answer) == (400, "bad_request", "options")


def test_other_headers_and_methods_are_passed_on(door: Door) -> None:
    headers = told(door.ask(ECHO, Accept="image/png", Content_Type="image/jpeg", Cache_Control="no-cache"))
    assert (headers["accept"], headers["content-type"], headers["cache-control"]) == (
        "image/png",
        "image/jpeg",
        "no-cache",
    )
    assert door.ask(ECHO, method="PUT").json()["method"] == "PUT"
    assert door.ask("/predictions/echo/1.10").json()["path"] == "/predictions/echo/1.10"


# Other protocols


@pytest.mark.parametrize(
    ("path", "wanted", "protocol"),
    [
        ("/v1/models/echo:predict", "/predictions/echo", "kserve_v1"),
        ("/v1/models/echo:explain", "/explanations/echo", "kserve_v1"),
        ("/v1/models/echo%3Aexplain", "/explanations/echo", "kserve_v1"),
        ("/v1/models/echo/versions/1.10:explain", "/explanations/echo/1.10", "kserve_v1"),
        ("/v2/models/echo/infer", "/predictions/echo", "kserve_v2"),
        ("/v2/models/echo/versions/2/infer", "/predictions/echo/2", "kserve_v2"),
        ("/v1/projects/p/locations/l/endpoints/echo:predict", "/predictions/echo", "vertex"),
        ("/v1beta1/projects/p/locations/l/endpoints/echo:explain", "/explanations/echo", "vertex"),
        ("/v1/projects/p/locations/l/endpoints/echo:explain?$alt=json", "/explanations/echo", "vertex"),
        ("/explanations/echo", "/explanations/echo", None),
    ],
)
def test_a_protocol_is_known_by_its_path_alone(door: Door, path: str, wanted: str, protocol: str | None) -> None:
    answer = door.ask(path, X_Explain_Protocol="theirs")
    headers = told(answer)
    assert (answer.json()["path"], headers.get("x-explain-protocol")) == (wanted, protocol)
    assert headers["authorization"] == door.server.headers()["Authorization"] and "x-explain-options" not in headers
    assert error_of(door.ask(path, client=None)) == (401, "unauthorized", "authorization")
    assert error_of(door.ask(path, bytes(MAX_BODY_BYTES + 1))) == (413, "too_large", "body")


def test_json_that_is_sent_as_a_form(door: Door) -> None:
    form = "application/x-www-form-urlencoded"
    assert told(door.ask("/v1/models/echo:predict", Content_Type=form))["content-type"] == "application/json"
    binary = door.ask("/v2/models/echo/infer", Content_Type="application/octet-stream")
    assert told(binary)["content-type"] == "application/octet-stream"
    assert told(door.ask(ECHO, Content_Type=form))["content-type"] == form
    assert "content-type" not in told(door.ask(ECHO))


def test_options_of_other_protocols(door: Door) -> None:
    assert told(door.ask("/v1/models/echo:explain?steps=3"))["x-explain-options"] == "steps=3"
    assert error_of(door.ask("/v1/models/echo:explain?steps=3", X_Explain_Options="steps=4"))[2] == "options"


def test_the_metadata_of_a_model_is_an_empty_request(door: Door) -> None:
    answer = door.ask("/v2/models/echo/versions/2", method="GET", X_Explain_Options="steps=3", Cookie="a")
    headers = told(answer)
    assert (answer.json()["method"], answer.json()["path"]) == ("POST", "/predictions/echo/2")
    assert headers["x-explain-protocol"] == "kserve_v2_metadata" and headers["content-length"] == "0"
    assert not {"cookie", "x-explain-options"} & set(headers)
    assert door.ask("/v2/models/echo", method="GET", client=None).status_code == 401


def test_endpoints_of_vertex_have_names_of_models(door: Door) -> None:
    with door.settled(vertex_endpoints={"1234567890": "echo/2"}):
        answer = door.ask("/v1/projects/p/locations/l/endpoints/1234567890:explain")
        assert answer.json()["path"] == "/explanations/echo/2"
        assert door.ask("/v1/projects/p/locations/l/endpoints/echo:explain").json()["path"] == "/explanations/echo"
    assert error_of(door.ask("/v1/projects/p/locations/l/endpoints/1234567890:explain"))[0] == 404


@contextmanager
def states(door: Door, **changed: str) -> Iterator[None]:
    """Other states of the models within the block, as TorchServe's management tells them."""
    path = door.run / "states.json"
    before = path.read_text()
    path.write_text(json.dumps({**json.loads(before), **changed}))
    try:
        yield
    finally:
        path.write_text(before)


@contextmanager
def supervised(door: Door, readiness: dict[str, object]) -> Iterator[None]:
    """A supervisor within the block, which tells this."""
    supervisor = door.run / "supervisor.json"
    supervisor.write_text(json.dumps({"pid": 1, "started": 1.0, "port": door.server.ports["inference"] + 5}))
    (door.run / "readiness.json").write_text(json.dumps(readiness))
    try:
        yield
    finally:
        supervisor.unlink()


def test_readiness_in_kserves_words(door: Door) -> None:
    def ask(path: str) -> requests.Response:
        return door.ask(path, method="GET", client=None)

    assert ask("/").json() == {"status": "alive"}
    assert ask("/v2").json()["name"] == "imagexplain" and ask("/v2/").status_code == 200
    assert ask("/v2/health/live").json() == {"live": True}
    assert ask("/v2/health/ready").json()["ready"] is True
    for path in ("/v1/models", "/v2/models"):
        assert ask(path).json() == {"models": ["bit", "lanet"]}
    with states(door, lanet="UNLOADING"):
        for path in ("/v1/models/{}", "/v2/models/{}/ready", "/v1/models/{}/versions/1.0"):
            assert ask(path.format("bit")).json() == {"name": "bit", "ready": True}
            assert error_of(ask(path.format("lanet"))) == (503, "busy", "models")
            assert error_of(ask(path.format("nobody"))) == (404, "not_found", "path")
        assert error_of(ask("/v2/health/ready")) == (503, "busy", "models")


def test_readiness_of_several_versions(door: Door) -> None:
    models = {"bit/1.0": "READY", "bit/2.0": "LOADING", "lanet": "LOADING"}
    with supervised(door, {"ready": False, "models": models, "unready": []}):
        found = {
            path: door.ask(f"/v2/models/{path}/ready", method="GET", client=None).status_code
            for path in ("bit", "bit/versions/1.0", "bit/versions/2.0", "bit/versions/3.0", "lanet")
        }
        assert list(found.values()) == [200, 200, 503, 404, 503], found
        assert door.ask("/v1/models", method="GET", client=None).json() == {"models": ["bit", "lanet"]}


# Size


def test_the_largest_body_passes_and_one_more_byte_does_not(door: Door) -> None:
    assert door.ask(ECHO, bytes(MAX_BODY_BYTES)).json()["bytes"] == MAX_BODY_BYTES
    answer = door.ask(ECHO, bytes(MAX_BODY_BYTES + 1))
    assert error_of(answer) == (413, "too_large", "body")
    assert "33,000,000 bytes" in answer.json()["message"]


def test_a_large_body_in_chunks_is_refused_too(door: Door) -> None:
    with door.settled(max_body_bytes=100_000):
        answer = door.ask(ECHO, iter([bytes(60_000)] * 2))
        assert error_of(answer) == (413, "too_large", "body")
        assert door.ask(ECHO, iter([bytes(40_000)] * 2)).json()["bytes"] == 80_000


def test_a_large_answer_comes_whole(door: Door) -> None:
    answer = door.ask("/predictions/large?bytes=60000000")
    assert len(answer.content) == 60_000_000
    assert "Content-Type" not in answer.headers or answer.headers["Content-Type"] == "application/json"


# Errors


@pytest.mark.parametrize(
    ("path", "method", "wanted"),
    [
        ("/", "POST", (405, "method_not_allowed", "method")),
        ("/v1/models/echo:predict", "GET", (405, "method_not_allowed", "method")),
        ("/v1/models/echo:delete", "POST", (404, "not_found", "path")),
        ("/v1/models/echo/versions:predict", "POST", (404, "not_found", "path")),
        ("/v1/models/nobody", "GET", (404, "not_found", "path")),
        ("/v1/models/nobody:predict", "POST", (404, "not_found", "path")),
        ("/v2/models/nobody/ready", "GET", (404, "not_found", "path")),
        ("/v2/models/echo/infer", "GET", (405, "method_not_allowed", "method")),
        ("/v2/models/echo/1.0/infer", "POST", (404, "not_found", "path")),
        ("/v2/repository/models/echo/unload", "POST", (404, "not_found", "path")),
        ("/v1/projects/p/locations/l/endpoints/1/2:explain", "POST", (404, "not_found", "path")),
        ("/ping", "GET", (404, "not_found", "path")),
        ("/models", "GET", (404, "not_found", "path")),
        ("/models/echo", "DELETE", (404, "not_found", "path")),
        ("/workflows?url=http://x/y.war", "POST", (404, "not_found", "path")),
        ("/token?type=inference", "GET", (404, "not_found", "path")),
        ("/api-description", "GET", (404, "not_found", "path")),
        ("/predictions/echo/../../models", "POST", (404, "not_found", "path")),
        ("/predictions/..%2f..%2fmodels", "POST", (400, "bad_request", "request")),
        ("/predictions/echo/1.0/extra", "POST", (404, "not_found", "path")),
        ("/predictions/", "POST", (404, "not_found", "path")),
        ("/-/unauthorized", "GET", (404, "not_found", "path")),
        ("/predictions/nobody", "POST", (404, "not_found", "path")),
        (ECHO, "GET", (405, "method_not_allowed", "method")),
        (ECHO, "DELETE", (405, "method_not_allowed", "method")),
        (ECHO, "PATCH", (405, "method_not_allowed", "method")),
        ("/readyz", "POST", (405, "method_not_allowed", "method")),
        ("/livez", "DELETE", (405, "method_not_allowed", "method")),
        ("/metrics", "POST", (405, "method_not_allowed", "method")),
        (f"{ECHO}?" + "x" * 9000, "POST", (414, "uri_too_long", "path")),
        ("/predictions/gone", "POST", (502, "bad_gateway", "server")),
        ("/predictions/torchserve-400", "POST", (503, "busy", "server")),
        ("/predictions/torchserve-404", "POST", (404, "not_found", "path")),
        ("/predictions/torchserve-405", "POST", (405, "method_not_allowed", "method")),
        ("/predictions/torchserve-413", "POST", (413, "too_large", "body")),
        ("/predictions/torchserve-500", "POST", (502, "bad_gateway", "server")),
        ("/predictions/torchserve-503", "POST", (503, "busy", "server")),
        ("/predictions/torchserve-507", "POST", (503, "busy", "server")),
        ("/predictions/torchserve-418", "POST", (502, "bad_gateway", "server")),
    ],
)
def test_errors_are_in_the_services_form(door: Door, path: str, method: str, wanted: tuple[int, str, str]) -> None:
    answer = door.ask(path, method=method)
    assert error_of(answer) == wanted
    assert ("Retry-After" in answer.headers) == (wanted[0] in (429, 502, 503, 504))
    if wanted[0] == 405:
        asking = path.startswith("/pred") or path.endswith((":predict", "/infer"))
        assert answer.headers["Allow"] == ("POST, PUT, OPTIONS" if asking else "GET, HEAD")


def test_paths_that_a_client_does_not_tidy_up(door: Door) -> None:
    for path in ("/predictions/echo/../../models", "/predictions/%2e%2e/models", "//models", "/predictions/..;/models"):
        answer = curl(door, path, "--path-as-is", "-d", "x", "-o", "/dev/null", "-w", "%{http_code}")
        assert answer == "404", path


@pytest.mark.parametrize("status", sorted(WORDS))
def test_a_handlers_errors_pass_unchanged(door: Door, status: int) -> None:
    answer = door.ask(f"/explanations/handler-{status}")
    assert error_of(answer) == (status, WORDS[status], "steps")
    assert answer.json()["message"] == "wanted more"


def test_errors_over_http2_have_the_form_too(door: Door) -> None:
    for model, status in (("torchserve-500", 502), ("handler-422", 422), ("nobody", 404)):
        body, code = curl(door, f"/predictions/{model}", "--http2", "-d", "x", "-w", "\n%{http_code}").split("\n")
        assert int(code) == json.loads(body)["code"] == status


def test_headers_that_are_too_large(door: Door) -> None:
    """Together, for TorchServe takes 8 kB of them."""
    for headers in ({"X_Explain_Options": "x" * 6500}, {f"X_{index}": "x" * 500 for index in range(14)}):
        assert error_of(door.ask(ECHO, **headers)) == (431, "headers_too_large", "headers")
    with pytest.raises(subprocess.CalledProcessError):  # nginx ends the connection
        curl(door, ECHO, "--http2", "-d", "x", "-H", f"X-A: {'x' * 6500}")
    assert door.ask(ECHO).status_code == 200


def test_a_refusal_reaches_a_client_that_is_still_sending(door: Door) -> None:
    with connected(door) as connection:
        for part in (b"GET /predictions/echo?", *[b"x" * 9000] * 4):
            connection.sendall(part)
            time.sleep(0.2)  # the door has answered by now, and has closed if it does not wait
        assert b"HTTP/1.1 414 " in connection.recv(65536)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"POST /predictions/echo HTTP/1.1\r\n\r\n", 400),  # no host
        (b"POST /predictions/echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /predictions/echo HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"POST /predictions/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST /predictions/echo HTTP/3.0\r\nHost: x\r\n\r\n", 505),
    ],
)
def test_what_is_no_request(door: Door, request_: bytes, status: int) -> None:
    head, _, body = raw(connected(door), request_).partition("\r\n\r\n")
    assert f"HTTP/1.1 {status} " in head.splitlines()[0] and "application/json" in head
    assert json.loads(body)["code"] == status


def test_http_where_https_is_wanted(door: Door) -> None:
    plain = socket.create_connection(("127.0.0.1", door.edge.port), timeout=30)
    head, _, body = raw(plain, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").partition("\r\n\r\n")
    assert "HTTP/1.1 400 " in head and json.loads(body)["field"] == "scheme"


def test_a_server_that_is_gone_is_a_502(tmp_path: Path, nginx: str) -> None:
    with faked(tmp_path) as server:
        key = edge_keys.add(tmp_path / edge.FOLDER, "alice")
        settings = EdgeSettings(port=server.ports["inference"] + 6)
        lonely = Door(server, settings, edge.start(server, settings), {"alice": key})
    try:
        assert error_of(lonely.ask(ECHO)) == (502, "bad_gateway", "server")
        assert error_of(lonely.ask("/metrics", method="GET")) == (502, "bad_gateway", "server")
        answer = lonely.ask("/readyz", method="GET")
        assert answer.status_code == 503 and answer.json()["unready"] == ["bit", "lanet"]
        assert lonely.ask("/livez", method="GET").json() == {"live": True}
    finally:
        edge.stop(tmp_path, drain_s=1, quiet=True)


def test_a_server_that_does_not_answer_is_a_504_in_the_time_of_the_slowest_archive(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "proxy_read_timeout 180s;" in (door.folder / "nginx.conf").read_text()
    monkeypatch.setattr("imagexplain.ops.edge_config._response_timeout", lambda *_: 1)
    with door.settled(queue_s=0):
        answer = door.ask("/predictions/slow?seconds=3")
        assert error_of(answer) == (504, "timeout", "server")
        assert door.ask("/predictions/slow?seconds=0.5").status_code == 200


def test_an_idle_connection_that_the_server_closed_costs_no_request(door: Door) -> None:
    with requests.Session() as session:
        session.verify, session.trust_env = door.edge.certificate, False
        for _ in range(20):
            for path in ("/predictions/once", ECHO):
                answer = session.post(f"{door.edge.url}{path}", b"x", headers=door.headers(), timeout=30)
                assert answer.status_code == 200


def test_the_words_are_the_services() -> None:
    for refusal in [*refusals(EdgeSettings()), *NAMED_REFUSALS.values()]:
        assert WORDS.get(refusal.status, refusal.error) == refusal.error


# Limits


def burst(door: Door, count: int, client: str | None, **headers: str) -> Counter[int]:
    """How often each status came to so many requests at once."""
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: door.ask(ECHO, client=client, **headers), range(count)))
    for answer in answers:
        if answer.status_code == 429:
            assert error_of(answer) == (429, "too_many_requests", "client")
            assert answer.headers["Retry-After"] == "1"
    return Counter(answer.status_code for answer in answers)


def test_a_clients_requests_are_limited_and_no_others(door: Door) -> None:
    with door.settled(client={"requests_per_second": 1, "burst": 5, "connections": 100}):
        seen = burst(door, 40, "alice")
        assert seen.keys() == {200, 429} and seen[200] <= 20
        assert door.ask(ECHO, client="bob").status_code == 200


def test_a_flood_of_wrong_keys_is_limited_by_address(door: Door) -> None:
    with door.settled(address={"requests_per_second": 1, "burst": 5, "connections": 100}):
        seen = burst(door, 40, None, Authorization="Bearer wrong")
        assert seen.keys() == {401, 429} and seen[401] <= 20
        assert burst(door, 10, "alice") == {200: 10}


@pytest.mark.parametrize("of", ["client", "address"])
def test_connections_are_limited(door: Door, of: str) -> None:
    limits = {of: {"requests_per_second": 1000, "burst": 1000, "connections": 3}}
    with door.settled(**limits), ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: door.ask("/predictions/slow?seconds=1"), range(8)))
        assert Counter(answer.status_code for answer in answers) == {200: 3, 429: 5}
        assert {error_of(answer)[1] for answer in answers if answer.status_code == 429} == {"too_many_requests"}


def test_a_client_that_falls_silent_is_let_go(door: Door) -> None:
    head = f"POST {ECHO} HTTP/1.1\r\nHost: x\r\nAuthorization: {door.headers()['Authorization']}\r\n"
    with door.settled(silence_s=1):
        begun = time.monotonic()
        for sent in ("", "POST ", f"{head}Content-Length: 100\r\n\r\nten bytes."):
            assert "HTTP/1.1 200" not in raw(connected(door), sent.encode())
        assert time.monotonic() - begun < 20


# Pages in browsers

STUDIO = "https://studio.example.org"


@pytest.fixture(scope="module")
def origins(door: Door) -> Iterator[Door]:
    with door.settled(origins=[STUDIO, "http://127.0.0.1:3000"]):
        yield door


def test_a_preflight_of_a_listed_origin_is_answered_without_a_key(origins: Door) -> None:
    asked = {"Origin": STUDIO, "Access-Control-Request-Method": "POST"}
    answer = origins.ask(ECHO, method="OPTIONS", client=None, **asked)
    assert answer.status_code == 204 and answer.text == ""
    assert answer.headers["Access-Control-Allow-Origin"] == STUDIO
    assert "POST" in answer.headers["Access-Control-Allow-Methods"]
    allowed = answer.headers["Access-Control-Allow-Headers"].lower().split(", ")
    assert {"authorization", "content-type", "accept", "x-explain-options"} <= {*allowed}
    assert answer.headers["Vary"] == "Origin" and answer.headers["Access-Control-Max-Age"] == "600"


def test_a_listed_origin_may_read_answers_and_errors(origins: Door) -> None:
    for path, client in ((ECHO, "alice"), (ECHO, None), ("/predictions/torchserve-500", "alice")):
        answer = origins.ask(path, client=client, Origin=STUDIO)
        assert answer.headers["Access-Control-Allow-Origin"] == STUDIO
        assert "X-Request-Id" in answer.headers["Access-Control-Expose-Headers"]
        assert "Access-Control-Allow-Methods" not in answer.headers


@pytest.mark.parametrize("origin", ["https://evil.example.org", "https://studio.example.org.evil", "null"])
def test_other_origins_get_nothing(origins: Door, origin: str) -> None:
    preflight = origins.ask(ECHO, method="OPTIONS", client=None, Origin=origin)
    assert error_of(preflight) == (403, "forbidden", "origin")
    for answer in (preflight, origins.ask(ECHO, Origin=origin)):
        assert "Access-Control-Allow-Origin" not in answer.headers


# What needs no key


def test_readiness_of_the_management_api(door: Door) -> None:
    assert door.ask("/readyz", method="GET", client=None).json() == {
        "ready": True,
        "models": {"bit": "READY", "lanet": "READY"},
        "unready": [],
    }
    (door.run / "states.json").write_text('{"bit": "READY", "lanet": "UNLOADING"}')
    answer = door.ask("/readyz", method="GET", client=None)
    (door.run / "states.json").write_text('{"bit": "READY", "lanet": "READY"}')
    assert error_of(answer) == (503, "busy", "models")
    assert answer.json()["unready"] == ["lanet"] and answer.json()["message"] == "not ready: lanet"
    assert answer.json()["models"] == {"bit": "READY", "lanet": "UNAVAILABLE"}
    assert door.ask("/readyz", method="HEAD", client=None).status_code == 200


def test_readiness_of_the_supervisor(door: Door) -> None:
    supervisor, readiness = door.run / "supervisor.json", door.run / "readiness.json"
    supervisor.write_text(json.dumps({"pid": 1, "started": 1.0, "port": door.server.ports["inference"] + 5}))
    try:
        for models in ({"bit": "READY"}, {"bit": "READY", "lanet/2.0": "LOADING"}):
            unready = [model for model, state in models.items() if state != "READY"]
            told_ = {"ready": not unready, "models": models, "unready": unready}
            readiness.write_text(json.dumps(told_))
            answer = door.ask("/readyz", method="GET", client=None)
            assert answer.status_code == (503 if unready else 200)
            assert answer.json().items() >= told_.items()
        readiness.write_text("")  # which ends the fake's answer
        assert door.ask("/readyz", method="GET", client=None).json()["models"].keys() == {"bit", "lanet"}
    finally:
        supervisor.unlink()


def test_metrics_are_for_listed_addresses(door: Door) -> None:
    assert door.ask("/metrics", method="GET", client=None).text == "# of TorchServe\n"
    assert door.ask("/metrics/supervisor", method="GET", client=None).text == "# of the supervisor\n"
    with door.settled(metrics_for=["192.0.2.0/24"]):
        for path in ("/metrics", "/metrics/supervisor"):
            assert error_of(door.ask(path, method="GET")) == (403, "forbidden", "address")


def test_the_openapi_document_is_served_where_there_is_one(door: Door, tmp_path: Path) -> None:
    assert error_of(door.ask("/openapi.json", method="GET", client=None))[0] == 404
    (door.folder / "openapi.json").write_text('{"openapi": "3.1.0"}')
    answer = door.ask("/openapi.json", method="GET", client=None)
    assert answer.json() == {"openapi": "3.1.0"} and answer.headers["Content-Type"] == "application/json"
    (door.folder / "openapi.json").write_text(json.dumps({"openapi": "3.1.0" * 1000}))
    packed = door.ask("/openapi.json", method="GET", client=None)
    assert packed.headers["Content-Encoding"] == "gzip" and packed.json() == {"openapi": "3.1.0" * 1000}
    assert "Content-Encoding" not in door.ask(ECHO, b"x" * 2000).headers
    (tmp_path / "mine.json").write_text("{}")
    with door.settled(openapi=str(tmp_path / "mine.json")):
        assert door.ask("/openapi.json", method="GET", client=None).json() == {}
    (door.folder / "openapi.json").unlink()


def test_the_studio_is_served_under_a_strict_policy(door: Door, tmp_path: Path) -> None:
    studio = tmp_path / "studio"
    (studio / ".git").mkdir(parents=True)
    (studio / ".git" / "config").write_text("secret")
    (studio / "index.html").write_text("<p>studio")
    (studio / "app.mjs").write_text("export {}")
    (tmp_path / "outside").write_text("secret")
    with door.settled(studio=None):
        assert door.ask("/studio/", method="GET", client=None).status_code == 404
    with door.settled(studio=str(studio)):
        answer = door.ask("/studio/", method="GET", client=None)
        assert answer.text == "<p>studio" and answer.headers["Content-Type"] == "text/html"
        policy = answer.headers["Content-Security-Policy"].split("; ")
        assert {"default-src 'self'", "img-src 'self' blob:", "frame-ancestors 'none'"} <= {*policy}
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-cache" and answer.headers["ETag"]
        known = door.ask("/studio/", method="GET", client=None, If_None_Match=answer.headers["ETag"])
        assert known.status_code == 304
        assert door.ask("/studio/app.mjs", method="GET", client=None).headers["Content-Type"] == "text/javascript"
        assert door.ask("/", method="GET", client=None, Accept="text/html").headers["Location"] == "/studio/"
        for path in ("/studio/.git/config", "/studio/none.html", "/studio../outside"):
            assert error_of(door.ask(path, method="GET", client=None))[0] == 404
        for path in ("/studio/../outside", "/studio/%2e%2e/outside", "/studio/..%2foutside"):
            assert "secret" not in curl(door, path, "--path-as-is")
        assert error_of(door.ask("/studio/", client=None))[0] == 405
        assert door.ask(ECHO).status_code == 200


def test_the_studio_is_there_with_all_its_files_at_once(door: Door) -> None:
    with door.settled(address=EdgeSettings().address.model_dump()), requests.Session() as session:
        for _ in range(3):
            for path in sorted((ROOT / "studio").rglob("*.js")):
                address = f"{door.edge.url}/{path.relative_to(ROOT).as_posix()}"
                answer = session.get(address, verify=door.edge.certificate, timeout=10)
                assert answer.status_code == 200 and "javascript" in answer.headers["Content-Type"]
    assert door.ask("/readyz", method="GET", client=None).headers.get("Cache-Control") is None


# The original servers' clients


def test_the_original_line_works_on_a_legacy_port(door: Door, tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "input_json_file.json").write_text('{"img_data": []}')
    line = (
        f"curl http://127.0.0.1:{port}/explanations/model/ --data @input_json_file.json --output saved_file.gzip"
        ' -H "Content-Type:application/json; charset=utf-8"'
    )
    assert subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, check=False).returncode == 7, "off"
    with door.settled(legacy={"echo": port}):
        subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, check=True)
        seen = json.loads((tmp_path / "saved_file.gzip").read_text())
        assert seen["path"] == "/explanations/echo" and seen["bytes"] == 16
        assert seen["headers"]["Authorization"] == door.server.headers()["Authorization"]

        base = f"http://127.0.0.1:{port}"
        assert requests.post(f"{base}/predictions/echo", b"x", timeout=9).json()["path"] == "/predictions/echo"
        for path in ("/explanations/bit", "/models", "/metrics", "/"):
            assert requests.post(base + path, b"x", timeout=9).status_code == 404
        assert requests.get(f"{base}/predictions/model", timeout=9).status_code == 405
        foreign = [{"Origin": "http://evil.example.org"}, {"Host": "evil.example.org"}]
        for headers in foreign:  # a page in this machine's browser
            assert requests.post(f"{base}/predictions/model", b"x", headers=headers, timeout=9).status_code == 403


# The log, the request's number, what listens


@pytest.mark.parametrize("given", ["a-request.of_mine", "x" * 64])
def test_a_requests_number_is_kept(door: Door, given: str) -> None:
    answer = door.ask(ECHO, X_Request_Id=given)
    assert answer.headers["X-Request-Id"] == told(answer)["x-request-id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "ü", "a;b"])
def test_a_number_that_is_none_is_replaced(door: Door, given: str) -> None:
    answer = door.ask(ECHO, X_Request_Id=given.encode("latin-1").decode("latin-1"))
    made = answer.headers["X-Request-Id"]
    assert made != given and len(made) == 32 and told(answer)["x-request-id"] == made


def test_the_log_names_client_and_request_and_no_secret(door: Door) -> None:
    door.ask("/explanations/echo?target_class=secret", X_Request_Id="logged", client="bob")
    until(lambda: any(line["id"] == "logged" for line in door.requests_logged()))  # once the connection is closed
    (line,) = [line for line in door.requests_logged() if line["id"] == "logged"]
    assert (line["client"], line["path"], line["status"]) == ("bob", "/explanations/echo", 200)
    assert line["seconds"] >= 0 and float(line["torchserve_seconds"]) >= 0
    log = (door.folder / "access.log").read_text() + (door.folder / "error.log").read_text()
    assert not any(secret in log for secret in (*door.keys.values(), "target_class=secret"))


def test_logs_are_rotated_by_the_file_for_it(door: Door) -> None:
    rules = (ROOT / "deploy" / "nginx" / "logrotate.conf").read_text().replace("/srv/imagexplain/run", str(door.run))
    after = rules.partition("postrotate\n")[2].partition("endscript")[0]
    old = (door.folder / "access.log").rename(door.folder / "access.log.1")
    before = old.read_text()
    subprocess.run(after, shell=True, check=True)
    until((door.folder / "access.log").exists)
    assert door.ask(ECHO).status_code == 200
    until(lambda: len(door.requests_logged()) == 1)
    assert old.read_text() == before


def test_only_the_door_listens_beside_the_server(door: Door) -> None:
    process = door.edge.process()
    assert process is not None
    listening = [each.laddr for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    assert {(address.ip, address.port) for address in listening} == {("127.0.0.1", door.edge.port)}


def test_a_server_that_can_be_reached_past_the_door_is_refused(door: Door) -> None:
    with pytest.raises(EdgeError, match=r"listens on 0\.0\.0\.0"):
        edge.start(replace(door.server, host="0.0.0.0"), door.settings)


# Its life


def test_a_reload_with_bad_settings_keeps_the_old(door: Door, tmp_path: Path) -> None:
    before = (door.folder / "nginx.conf").read_text()
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    tls = {"certificate": str(bad), "key": str(bad)}
    with pytest.raises(EdgeError, match="nginx refuses its configuration"), door.settled(tls=tls):
        pass
    assert (door.folder / "nginx.conf").read_text() == before
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EdgeError, match=rf"port {port} \(legacy bit\)"), door.settled(legacy={"bit": port}):
            pass
    assert door.ask(ECHO).status_code == 200


def test_another_start_takes_the_settings_over(door: Door) -> None:
    assert edge.start(door.server, door.settings) == door.edge


def test_ones_own_certificate_by_path(door: Door, tmp_path: Path) -> None:
    certificate, key = tmp_path / "own.pem", tmp_path / "own.key"
    subject = ["-subj", "/CN=own", "-addext", "subjectAltName=IP:127.0.0.1", "-noenc"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", *subject, "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    with door.settled(tls={"certificate": str(certificate), "key": str(key)}):
        assert edge.find(door.run) is not None
        answer = requests.get(f"{door.edge.url}/livez", verify=str(certificate), timeout=9)
        assert answer.json() == {"live": True}


def test_what_has_been_accepted_is_answered_before_it_ends(tmp_path: Path, nginx: str) -> None:
    with faked(tmp_path) as server, ThreadPoolExecutor(4) as pool:
        key = edge_keys.add(tmp_path / edge.FOLDER, "alice")
        settings = EdgeSettings(port=server.ports["inference"] + 6)
        door = Door(server, settings, edge.start(server, settings), {"alice": key})
        slow = pool.submit(door.ask, "/predictions/slow?seconds=2")
        time.sleep(0.5)
        stopping = pool.submit(edge.stop, tmp_path, drain_s=20, quiet=True)
        time.sleep(0.5)
        with pytest.raises(requests.ConnectionError):
            door.ask(ECHO)
        assert not slow.done() and not stopping.done()
        assert slow.result().status_code == 200
        assert stopping.result() and door.edge.process() is None
        assert edge.find(tmp_path) is None and not edge.stop(tmp_path)


def test_an_end_does_not_wait_for_ever(tmp_path: Path, nginx: str) -> None:
    with faked(tmp_path) as server, ThreadPoolExecutor(4) as pool:
        key = edge_keys.add(tmp_path / edge.FOLDER, "alice")
        settings = EdgeSettings(port=server.ports["inference"] + 6)
        door = Door(server, settings, edge.start(server, settings), {"alice": key})
        slow = pool.submit(door.ask, "/predictions/slow?seconds=30")
        time.sleep(0.5)
        begun = time.monotonic()
        assert edge.stop(tmp_path, drain_s=1, quiet=True)
        assert time.monotonic() - begun < 10
        with pytest.raises(requests.ConnectionError):
            slow.result()
