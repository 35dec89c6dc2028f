"""The studio's own server: what it serves, what it passes on, and what attacks of pages and clients come to."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

import pytest
import requests

from imagexplain.checkout import ROOT
from imagexplain.cli import main
from imagexplain.cli import studio as command
from imagexplain.client.loopback import LOOPBACK
from imagexplain.ops import edge, edge_keys, studio, studio_application, studio_relay
from imagexplain.ops.drain import DRAINING_FILE
from imagexplain.ops.refusals import CONTENT_SECURITY_POLICY, MAX_BODY_BYTES
from imagexplain.ops.server import PORTS, Server, free_port
from imagexplain.ops.studio import Settings, StudioServer, serving
from imagexplain.ops.studio_application import files_of
from tests.ops.door import Door, error_of, rotate_key
from tests.waiting import until

DOCUMENT = b'{"openapi":"3.1.0"}'
POLICY = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


@dataclass(frozen=True)
class Page:
    """A running server of the studio."""

    server: StudioServer
    fake: Server

    def ask(
        self, path: str, body: Any = None, *, method: str = "", key: str | None = "", **headers: str
    ) -> requests.Response:
        """The answer to a request; in the names of headers ``_`` stands for ``-``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            named.setdefault("Authorization", f"Bearer {key or self.server.settings.key}")
        address = f"{self.server.url}{path}"
        verb = method or ("GET" if body is None else "POST")
        return requests.request(verb, address, data=body, headers=named, timeout=30, allow_redirects=False)

    def connect(self) -> socket.socket:
        """A connection."""
        return socket.create_connection((LOOPBACK, self.server.port), timeout=10)

    def raw(self, text: str | bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer to such bytes; a status of 0 where the connection is but closed."""
        with closing(self.connect()) as connection:
            connection.sendall(text.encode("latin-1") if isinstance(text, str) else text)
            answer = HTTPResponse(connection)
            try:
                answer.begin()
                return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
            except (HTTPException, ConnectionError):
                return 0, {}, b""

    @property
    def host(self) -> str:
        """The name of the server in requests."""
        return self.server.url.removeprefix("http://")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A studio, and what lies beside it."""
    around = tmp_path_factory.mktemp("around")
    made = around / "studio"
    (made / "core").mkdir(parents=True)
    (made / ".git").mkdir()
    for name, text in {
        "index.html": "<!doctype html><title>studio</title>",
        "style.css": "p {}",
        "core/rle.js": "export {};",
        "core/old.mjs": "export {};",
        "a b.svg": "<svg/>",
        ".hidden.js": "secret",
        ".git/config.txt": "secret",
        "notes.md": "secret",
        "../outside.txt": "secret",
        "../studio.txt": "secret",
    }.items():
        (made / name).write_text(text)
    (made / "link.txt").symlink_to(around / "outside.txt")
    (made / "linked").symlink_to(around)
    return made


@pytest.fixture(scope="module")
def page(fake: Server, folder: Path) -> Iterator[Page]:
    """The studio before a fake TorchServe."""
    with serving(Settings(folder, Path(fake.run), lambda _: DOCUMENT)) as server:
        yield Page(server, fake)


# Files


@pytest.mark.parametrize(
    ("path", "media"),
    [
        ("", "text/html; charset=utf-8"),
        ("index.html?version=2", "text/html; charset=utf-8"),
        ("style.css", "text/css; charset=utf-8"),
        ("core/rle.js", "text/javascript; charset=utf-8"),
        ("core/old.mjs", "text/javascript; charset=utf-8"),
        ("a%20b.svg", "image/svg+xml"),
    ],
)
def test_files_have_their_types_and_a_strict_policy(page: Page, path: str, media: str) -> None:
    answer = page.ask(f"/studio/{path}", key=None)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, media)
    assert answer.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert answer.headers.items() >= POLICY.items() and "Server" not in answer.headers
    assert answer.headers["Cache-Control"] == "no-cache" and answer.headers["X-Request-Id"]
    head = page.ask(f"/studio/{path}", method="HEAD", key=None)
    assert head.headers["Content-Length"] == answer.headers["Content-Length"] and not head.content


def test_a_file_that_is_known_is_not_sent_again(page: Page, folder: Path) -> None:
    first = page.ask("/studio/style.css", key=None)
    known = page.ask("/studio/style.css", key=None, If_None_Match=f'"other", {first.headers["ETag"]}')
    assert (known.status_code, known.content, known.headers["ETag"]) == (304, b"", first.headers["ETag"])
    (folder / "style.css").write_text("q {}")
    changed = page.ask("/studio/style.css", key=None, If_None_Match=first.headers["ETag"])
    assert (changed.status_code, changed.text) == (200, "q {}")


@pytest.mark.parametrize(
    "path",
    [
        "/studio/../outside.txt",
        "/studio/%2e%2e/outside.txt",
        "/studio/..%2foutside.txt",
        "/studio/..%5coutside.txt",
        "/studio/core/../../outside.txt",
        "/studio/core/..%2f..%2foutside.txt",
        "/studio//etc/passwd",
        "/studio/%2fetc/passwd",
        "/studio/index.html%00.js",
        "/studio/%",
        "/studio/%ff",
        "/studio/.hidden.js",
        "/studio/.git/config.txt",
        "/studio/link.txt",
        "/studio/linked/outside.txt",
        "/studio/notes.md",
        "/studio/core",
        "/studio/core/",
        "/studio.txt",
        "/studio../outside.txt",
        "/STUDIO/index.html",
        "/outside.txt",
        "/run/key_file.json",
        "/key_file.json",
        "/metrics",
        "/models",
        "/predictions/",
        "/predictions/../models",
        "/ping",
    ],
)
def test_nothing_else_is_there(page: Page, path: str) -> None:
    status, _, said = page.raw(f"GET {path} HTTP/1.1\r\nHost: {page.host}\r\nAccept: text/html\r\n\r\n")
    assert status in (404, 405) and json.loads(said)["code"] == status


def test_the_files_of_the_repository(folder: Path) -> None:
    assert sorted(files_of(folder)) == ["a b.svg", "core/old.mjs", "core/rle.js", "index.html", "style.css"]
    own = files_of(ROOT / "studio")
    listed = json.loads((ROOT / "studio" / "examples" / "index.json").read_text(encoding="utf-8"))
    assert {f"examples/{entry['file']}" for entry in listed} <= own.keys()
    everything = {
        path.relative_to(ROOT / "studio").as_posix() for path in (ROOT / "studio").rglob("*") if path.is_file()
    }
    assert own.keys() == everything, "a file of the studio has a type that is not served"


def test_the_examples_are_what_they_are_said_to_be() -> None:
    from PIL import Image

    for entry in json.loads((ROOT / "studio" / "examples" / "index.json").read_text(encoding="utf-8")):
        with Image.open(ROOT / "studio" / "examples" / entry["file"]) as image:
            assert image.size == (entry["width"], entry["height"])
        assert entry["label"] and entry["credit"] and entry["licence"] in ("CC0-1.0", "Apache-2.0")


def test_ways_to_the_page(page: Page) -> None:
    assert page.ask("/studio", key=None).headers["Location"] == "/studio/"
    assert page.ask("/", key=None, Accept="text/html,*/*").headers["Location"] == "/studio/"
    assert page.ask("/", key=None).json() == {"status": "alive"}
    assert page.server.address == f"{page.server.url}/studio/#key={page.server.settings.key}"
    assert len(page.server.settings.key) >= 32


# State


def test_the_document_and_readiness_need_no_key(page: Page, fake: Server) -> None:
    answer = page.ask("/openapi.json", key=None)
    assert answer.content == DOCUMENT and answer.headers["Content-Type"] == "application/json"
    assert page.ask("/openapi.json", key=None, If_None_Match=answer.headers["ETag"]).status_code == 304
    assert page.ask("/livez", key=None).json() == {"live": True}
    ready = {"ready": True, "models": {"bit": "READY", "lanet": "READY"}, "unready": []}
    assert page.ask("/readyz", key=None).json() == ready
    states = Path(fake.run) / "states.json"
    before = states.read_text()
    states.write_text(json.dumps({"bit": "READY", "lanet": "LOADING"}))
    try:
        answer = page.ask("/readyz", key=None)
    finally:
        states.write_text(before)
    assert error_of(answer) == (503, "busy", "models") and answer.json()["unready"] == ["lanet"]
    assert answer.headers["Retry-After"] == "5"


def test_a_server_that_does_not_run_or_is_being_stopped(page: Page, fake: Server, tmp_path: Path) -> None:
    with serving(Settings(page.server.settings.folder, tmp_path, lambda _: DOCUMENT)) as server:
        other = Page(server, fake)
        assert error_of(other.ask("/openapi.json", key=None))[0] == 503
        assert error_of(other.ask("/readyz", key=None)) == (503, "busy", "models")
        assert error_of(other.ask("/predictions/echo", b"photo")) == (503, "busy", "server")
        assert other.ask("/studio/", key=None).status_code == 200
    (Path(fake.run) / DRAINING_FILE).touch()
    try:
        assert error_of(page.ask("/predictions/echo", b"photo"))[0] == 503
    finally:
        (Path(fake.run) / DRAINING_FILE).unlink()


def test_what_is_long_is_sent_compressed(page: Page, folder: Path) -> None:
    (folder / "long.css").write_text("p {}" * 1000)
    long = page.ask("/studio/long.css", key=None, Accept_Encoding="gzip")
    assert long.headers["Content-Encoding"] == "gzip" and long.content == b"p {}" * 1000
    plain = page.ask("/studio/long.css", key=None, Accept_Encoding="identity")
    assert "Content-Encoding" not in plain.headers and plain.headers["ETag"] == long.headers["ETag"]
    (folder / "long.css").unlink()


def test_the_document_is_made_once_for_a_server(fake: Server, folder: Path) -> None:
    made: list[Server] = []

    def document(server: Server) -> bytes:
        made.append(server)
        if len(made) == 1:
            raise ValueError("bit.mar: spec.json cannot be read")
        return DOCUMENT

    with serving(Settings(folder, Path(fake.run), document)) as server:
        page = Page(server, fake)
        refused = page.ask("/openapi.json", key=None)
        assert error_of(refused) == (503, "busy", "models") and "bit.mar" in refused.json()["message"]
        server.prepare()
        assert page.ask("/openapi.json", key=None).content == DOCUMENT
        assert len(made) == 2


# Requests


def test_a_request_is_passed_on_with_torchserves_key(page: Page, fake: Server) -> None:
    answer = page.ask(
        "/predictions/echo",
        b"x" * 200_000,
        Content_Type="image/png",
        X_Explain_Options="steps=5",
        X_Request_Id="mine",
        Cookie="a=b",
        Origin=page.server.url,
        Sec_Fetch_Site="same-origin",
    )
    told = answer.json()
    headers = {name.lower(): value for name, value in told["headers"].items()}
    assert (told["method"], told["path"], told["bytes"]) == ("POST", "/predictions/echo", 200_000)
    assert headers["authorization"] == fake.headers()["Authorization"]
    assert headers["x-explain-options"] == "steps=5" and headers["content-type"] == "image/png"
    assert headers["x-request-id"] == answer.headers["X-Request-Id"] == "mine" and "cookie" not in headers
    assert answer.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert answer.headers["Cache-Control"] == "no-store"
    key = fake.headers()["Authorization"].removeprefix("Bearer ")
    assert key not in str(answer.headers) and error_of(page.ask("/predictions/echo", b"photo", key=key))[0] == 401


def test_options_may_stand_in_the_query(page: Page) -> None:
    told = page.ask("/explanations/echo/1.0?steps=7&segments=slic", b"photo", method="PUT").json()
    assert told["headers"]["x-explain-options"] == "steps=7&segments=slic" and told["path"] == "/explanations/echo/1.0"
    twice = page.ask("/predictions/echo?steps=7", b"photo", X_Explain_Options="steps=5")
    assert error_of(twice) == (400, "bad_request", "options")


def test_a_new_key_of_torchserve_is_read(page: Page, fake: Server) -> None:
    rotate_key(fake)
    assert page.ask("/predictions/echo", b"photo").status_code == 200


def test_large_answers_come_whole(page: Page) -> None:
    answer = page.ask("/explanations/large?bytes=5000000", b"photo")
    assert len(answer.content) == 5_000_000


@pytest.mark.parametrize("status", [400, 406, 413, 415, 422, 500, 503])
def test_a_handlers_errors_are_its_own(page: Page, status: int) -> None:
    answer = page.ask(f"/predictions/handler-{status}", b"photo")
    assert error_of(answer)[::2] == (status, "steps") and json.loads(answer.headers["X-Explain-Error"]) == answer.json()
    assert ("Retry-After" in answer.headers) == (status == 503)


@pytest.mark.parametrize(
    ("given", "answered"), [(400, 503), (404, 404), (500, 502), (503, 503), (507, 503), (418, 502)]
)
def test_torchserves_own_errors_get_the_services_form(page: Page, given: int, answered: int) -> None:
    assert error_of(page.ask(f"/predictions/torchserve-{given}", b"photo"))[0] == answered


def test_a_worker_that_ended(page: Page) -> None:
    answer = page.ask("/predictions/gone", b"photo")
    assert error_of(answer) == (502, "bad_gateway", "server") and answer.headers["Retry-After"] == "5"


# Attacks


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example.org"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1:{port}"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "http://localhost:{port}"},
        {"Origin": "http://127.0.0.1:{port}.evil.example.org"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
        {"Host": "evil.example.org"},
        {"Host": "evil.example.org:{port}"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1:1"},
        {"Host": "[::1]:{port}"},
        {"Host": "0.0.0.0:{port}"},
    ],
)
def test_pages_of_other_origins_may_not_ask(page: Page, headers: dict[str, str]) -> None:
    port = str(page.server.port)
    sent = {name: value.replace("{port}", port) for name, value in headers.items()}
    answer = page.ask("/predictions/echo", b"photo", **sent)
    assert error_of(answer)[:2] == (403, "forbidden") and "Access-Control-Allow-Origin" not in answer.headers


def test_the_other_name_of_this_machine(page: Page) -> None:
    host = f"localhost:{page.server.port}"
    assert page.ask("/predictions/echo", b"photo", Host=host, Origin=f"http://{host}").status_code == 200


def test_a_link_opens_the_page_and_no_script_reads_it(page: Page) -> None:
    site = {"Sec_Fetch_Site": "cross-site"}
    assert page.ask("/studio/", key=None, Sec_Fetch_Mode="navigate", **site).status_code == 200
    for mode in ("no-cors", "cors"):
        assert error_of(page.ask("/studio/core/rle.js", key=None, Sec_Fetch_Mode=mode, **site))[0] == 403
    preflight = page.ask("/predictions/echo", method="OPTIONS", key=None, Origin="http://evil.example.org")
    assert error_of(preflight)[0] == 403 and not any(name.startswith("Access-Control") for name in preflight.headers)


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Bearer none", "Basic {key}", "{key}", "Bearer {key}x", "Bearer {key} {key}"],
)
def test_only_the_key_opens(page: Page, authorization: str) -> None:
    sent = authorization.replace("{key}", page.server.settings.key)
    answer = page.ask("/predictions/echo", b"photo", Authorization=sent)
    assert error_of(answer) == (401, "unauthorized", "authorization")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_methods(page: Page) -> None:
    for path, body, methods in (("/predictions/echo", None, {"POST", "PUT"}), ("/studio/", b"photo", {"GET", "HEAD"})):
        refused = page.ask(path, body)
        assert error_of(refused) == (405, "method_not_allowed", "method")
        assert {*refused.headers["Allow"].split(", ")} == methods
    for method in ("DELETE", "TRACE", "CONNECT", "PATCH", "BREW"):
        assert page.raw(f"{method} / HTTP/1.1\r\nHost: {page.host}\r\n\r\n")[0] == 405


HEAD = "POST /predictions/echo HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("GET /" + "a" * 7000 + " HTTP/1.1\r\nHost: {host}\r\n\r\n", 431),
        ("GET / HTTP/1.1\r\nHost: {host}\r\nX: " + "a" * 7000 + "\r\n\r\n", 431),
        (HEAD + "\r\n", 411),
        (HEAD + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (HEAD + f"Content-Length: {MAX_BODY_BYTES + 1}\r\n\r\n", 413),
        (HEAD + "Content-Length: 99999999999999999999\r\n\r\n", 413),
        ("GET http://{host}/studio/ HTTP/1.1\r\nHost: {host}\r\n\r\n", 404),
        ("GET / HTTP/1.0\r\n\r\n", 403),
    ],
)
def test_requests_that_are_refused_in_words(page: Page, text: str, status: int) -> None:
    found, headers, said = page.raw(text.replace("{host}", page.host).replace("{key}", page.server.settings.key))
    assert (found, json.loads(said)["code"]) == (status, status)
    assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY


@pytest.mark.parametrize(
    "text",
    [
        "nonsense\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: {host}\r\nHost: evil.example.org\r\n\r\n",
        "GET /" + "a" * 70_000 + " HTTP/1.1\r\nHost: {host}\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: {host}\r\nX: " + "a" * 70_000 + "\r\n\r\n",
        HEAD + "Transfer-Encoding: gzip\r\n\r\n",
        HEAD + "Content-Length: -1\r\n\r\n",
        HEAD + "Content-Length: 5, 6\r\n\r\n",
        HEAD + "Content-Length: 1\r\nContent-Length: 2\r\n\r\naa",
        HEAD + "X-Explain-Options: a=b\rEvil: yes\r\nContent-Length: 0\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
def test_what_is_no_request_is_not_answered(page: Page, text: str, capfd: pytest.CaptureFixture[str]) -> None:
    status, headers, said = page.raw(text.replace("{host}", page.host).replace("{key}", page.server.settings.key))
    assert status == 0 or 400 <= status < 500
    assert status == 0 or status == 431 or headers["connection"] == "close"
    assert b"Traceback" not in said and capfd.readouterr() == ("", "")


def test_a_body_where_none_belongs_is_no_second_request(page: Page) -> None:
    inner = f"GET /livez HTTP/1.1\r\nHost: {page.host}\r\n\r\n"
    last = f"GET /nowhere HTTP/1.1\r\nHost: {page.host}\r\nConnection: close\r\n\r\n"
    for first in ("GET /studio/", "POST /predictions/echo"):
        head = f"{first} HTTP/1.1\r\nHost: {page.host}\r\nContent-Length: {len(inner)}\r\n\r\n"
        with closing(page.connect()) as connection:
            connection.sendall(f"{head}{inner}{last}".encode())
            said = connection.makefile("rb").read()
        assert said.count(b"HTTP/1.1 ") == 2 and b'"live"' not in said


def test_a_large_body_is_refused_before_it_is_read(page: Page) -> None:
    head = HEAD.replace("{host}", page.host).replace("{key}", page.server.settings.key)
    with closing(page.connect()) as connection:
        connection.sendall(f"{head}Content-Length: {10 * MAX_BODY_BYTES}\r\nExpect: 100-continue\r\n\r\n".encode())
        said = connection.recv(65536)
    assert said.startswith(b"HTTP/1.1 413")
    with closing(page.connect()) as connection:
        connection.sendall(f"{head}Content-Length: {MAX_BODY_BYTES + 1}\r\n\r\n".encode())
        connection.sendall(bytes(1_000_000))
        assert connection.recv(65536).startswith(b"HTTP/1.1 413"), "the refusal is not lost with what was sent"


def test_a_body_is_waited_for_where_the_client_wants_to_be_told(page: Page) -> None:
    head = HEAD.replace("{host}", page.host).replace("{key}", page.server.settings.key)
    with closing(page.connect()) as connection:
        connection.sendall(f"{head}Content-Length: 5\r\nExpect: 100-continue\r\n\r\n".encode())
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"photo")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_body_in_chunks_is_bounded_while_it_is_read(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    assert page.ask("/predictions/echo", iter([b"pho", b"to"])).json()["bytes"] == 5
    monkeypatch.setattr(studio_application, "MAX_BODY_BYTES", 100_000)
    with serving(page.server.settings) as server:
        large = Page(server, page.fake).ask("/predictions/echo", iter([bytes(60_000)] * 2))
    assert error_of(large) == (413, "too_large", "body")


def test_connections_are_bounded(page: Page) -> None:
    with serving(page.server.settings) as server:
        other = Page(server, page.fake)
        idle = [other.connect() for _ in range(studio.MAX_CONNECTIONS)]
        try:
            refused = other.ask("/livez", key=None)
            assert refused.status_code == 503 and refused.headers.items() >= POLICY.items()
        finally:
            for connection in idle:
                connection.close()
        until(lambda: other.ask("/livez", key=None).status_code == 200)


# What is passed on, and who goes away


@contextmanager
def listening() -> Iterator[socket.socket]:
    """A TorchServe that takes connections and says nothing."""
    with closing(socket.create_server((LOOPBACK, 0))) as listener:
        listener.settimeout(10)
        yield listener


def begun(connection: socket.socket) -> bool:
    """Tell whether the body of a request has begun to come."""
    return b"\r\n\r\nph" in connection.recv(65536, socket.MSG_PEEK)


def ended(connection: socket.socket) -> bool:
    """Wait until the other side has closed a connection."""
    connection.settimeout(10)
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def test_a_client_that_goes_takes_its_request_with_it(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as upstream:
        ports = {**page.fake.ports, "inference": upstream.getsockname()[1]}
        monkeypatch.setattr(studio_application, "find", lambda _: replace(page.fake, ports=ports))
        head = HEAD.replace("{host}", page.host).replace("{key}", page.server.settings.key)
        for sent in ("Content-Length: 5\r\n\r\nphoto", "Content-Length: 5\r\n\r\nph"):  # whole, and not
            with closing(page.connect()) as client:
                client.sendall(f"{head}{sent}".encode())
                passed, _ = upstream.accept()
                until(partial(begun, passed))
            assert ended(passed), "the request upstream ends with its client"
            passed.close()


def test_a_client_that_has_begun_to_read_may_go_too(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as upstream:
        ports = {**page.fake.ports, "inference": upstream.getsockname()[1]}
        monkeypatch.setattr(studio_application, "find", lambda _: replace(page.fake, ports=ports))
        head = HEAD.replace("{host}", page.host).replace("{key}", page.server.settings.key)
        with closing(page.connect()) as client:
            client.sendall(f"{head}Content-Length: 5\r\n\r\nphoto".encode())
            passed, _ = upstream.accept()
            passed.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
            assert client.recv(65536).startswith(b"HTTP/1.1 200")
        with closing(passed):
            assert ended(passed)


def test_an_answer_that_breaks_off_is_no_whole_one(
    page: Page, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with listening() as upstream:
        ports = {**page.fake.ports, "inference": upstream.getsockname()[1]}
        monkeypatch.setattr(studio_application, "find", lambda _: replace(page.fake, ports=ports))

        def answer(said: bytes) -> None:
            passed, _ = upstream.accept()
            with closing(passed):
                passed.recv(65536)
                passed.sendall(said)
                passed.shutdown(socket.SHUT_WR)
                passed.recv(65536)

        for said, status in (
            (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", 0),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", 0),
            (b"nonsense\r\n\r\n", 502),
            (b"", 502),
        ):
            thread = threading.Thread(target=answer, args=(said,))
            thread.start()
            if status:
                assert error_of(page.ask("/predictions/bit", b"photo"))[0] == status
            else:
                with pytest.raises(requests.RequestException):
                    page.ask("/predictions/bit", b"photo")
            thread.join()
    assert capfd.readouterr() == ("", "")


def test_a_silent_torchserve_is_told(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studio_relay, "WAIT_S", 0.1)
    with listening() as upstream:
        ports = {**page.fake.ports, "inference": upstream.getsockname()[1]}
        monkeypatch.setattr(studio_application, "find", lambda _: replace(page.fake, ports=ports))
        answer = page.ask("/predictions/bit", b"photo")
    assert error_of(answer) == (504, "timeout", "server") and answer.headers["Retry-After"] == "30"
    nowhere = dict.fromkeys(PORTS, free_port())
    monkeypatch.setattr(studio_application, "find", lambda _: replace(page.fake, ports=nowhere))
    assert error_of(page.ask("/predictions/bit", b"photo"))[0] == 502


def test_a_fault_is_told_and_logged(fake: Server, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    def document(_: Server) -> bytes:
        raise RuntimeError("the key is hidden")

    with serving(Settings(folder, Path(fake.run), document)) as server:
        answer = Page(server, fake).ask("/openapi.json", key=None)
    assert (answer.status_code, answer.json()["error"]) == (500, "internal") and "hidden" not in answer.text
    assert answer.headers.items() >= POLICY.items()
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["the key is hidden"]


def test_requests_follow_one_another_on_a_connection(page: Page) -> None:
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {page.server.settings.key}"
        for _ in range(3):
            assert session.post(f"{page.server.url}/predictions/echo", data=b"photo", timeout=10).json()["bytes"] == 5
            assert session.get(f"{page.server.url}/studio/", timeout=10).status_code == 200
            assert session.post(f"{page.server.url}/predictions/handler-422", data=b"x", timeout=10).status_code == 422


# The command


def test_the_command_prints_an_address_with_a_key(fake: Server, tmp_path: Path) -> None:
    arguments = [sys.executable, "-m", "imagexplain", "studio", "--run", fake.run, "--port", "0"]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().removeprefix("the studio is at ").strip()
            url, _, key = address.partition("/studio/#key=")
            assert requests.get(f"{url}/studio/core/rle.js", timeout=10).status_code == 200
            headers = {"Authorization": f"Bearer {key}"}
            assert requests.post(f"{url}/predictions/echo", data=b"x", headers=headers, timeout=10).status_code == 200
        finally:
            process.terminate()
        assert process.wait(10) == 0


def test_what_the_command_cannot_do(
    page: Page, fake: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["studio", "--run", str(tmp_path)]) == 1
    assert "no server runs with" in capsys.readouterr().err
    assert main(["studio", "--run", fake.run, "--port", str(page.server.port)]) == 1
    assert "choose another with --port" in capsys.readouterr().err


def test_a_browser_is_opened_without_the_key_in_its_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    command.open_browser("http://127.0.0.1:8088/studio/#key=a&b", tmp_path)
    (address,) = opened
    assert "key" not in address
    file = Path(address.removeprefix("file://"))
    assert "#key=a&amp;b" in file.read_text() and file.stat().st_mode & 0o077 == 0


def test_at_the_front_door_the_page_is_there(door: Door, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with door.settled(studio=str(folder)):
        for _ in range(2):
            assert main(["studio", "--run", str(door.run)]) == 0
    address = capsys.readouterr().out.split()[-1]
    url, _, key = address.partition("/studio/#key=")
    assert url == door.edge.url
    headers = {"Authorization": f"Bearer {key}"}
    answer = requests.post(
        f"{url}/predictions/echo", data=b"x", headers=headers, verify=door.edge.certificate, timeout=10
    )
    assert answer.status_code == 200
    assert [each.client for each in edge_keys.listed(door.run / edge.FOLDER)].count(command.CLIENT) == 1
    with door.settled(studio=None):
        assert command.at_the_edge(door.run) is None
