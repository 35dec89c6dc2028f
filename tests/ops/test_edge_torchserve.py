"""The front door before a real TorchServe with one archive."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request

import psutil
import pytest
import requests
from PIL import Image

from imagexplain.archive.build import build_all
from imagexplain.client.loopback import urlopen
from imagexplain.ops import edge, edge_keys
from imagexplain.ops.edge_settings import MAX_BODY_BYTES, EdgeSettings
from imagexplain.ops.server import ROOT, free_port, start, stop
from tests.ops.door import GENEROUS, Door, error_of
from tests.pages import blocks
from tests.waiting import until
from tests.wire.photos import encoded
from training.scenes import SceneSettings, scene

PHOTO = encoded(Image.fromarray(scene(11, 0, SceneSettings(size=(48, 64))).image))


@pytest.fixture(scope="module")
def door(nginx: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A front door before the demonstration's BiT."""
    folder = tmp_path_factory.mktemp("torchserve")
    build_all([ROOT / "archive_specs" / "bit.yaml"], folder / "store", environ={})
    server = start(store=folder / "store", run=folder / "run", port=free_port())
    try:
        key = edge_keys.add(Path(server.run) / edge.FOLDER, "alice")
        legacy = {"bit": server.ports["inference"] + 7}
        settings = EdgeSettings(port=server.ports["inference"] + 6, client=GENEROUS, address=GENEROUS, legacy=legacy)
        yield Door(server, settings, edge.start(server, settings), {"alice": key})
    finally:
        edge.stop(Path(server.run), drain_s=5, quiet=True)
        stop(folder / "run", drain_s=0)


def direct(door: Door, path: str, body: bytes = PHOTO, **headers: str) -> requests.Response:
    """TorchServe's own answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    url = f"{door.server.inference}{path}"
    return requests.post(url, data=body, headers={**door.server.headers(), **named}, timeout=60)


def rotated(door: Door) -> None:
    """Have TorchServe change its inference key."""
    address = f"{door.server.management}/token?type=inference"
    with urlopen(Request(address, headers=door.server.headers("API")), timeout=5):
        pass


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        ("/predictions/bit", "application/json"),
        ("/explanations/bit", "application/gzip"),
        ("/explanations/bit", "application/x-safetensors"),
        ("/explanations/bit", "image/png"),
        ("/explanations/bit/1.0", "application/json"),
    ],
)
def test_answers_are_torchserves_byte_for_byte(door: Door, path: str, accept: str) -> None:
    ours, theirs = door.ask(path, PHOTO, Accept=accept), direct(door, path, Accept=accept)
    assert (ours.status_code, ours.content) == (200, theirs.content)
    assert ours.headers["Content-Type"] == theirs.headers["Content-Type"]


def test_a_query_string_reaches_the_handler(door: Door) -> None:
    answer = door.ask("/explanations/bit?steps=3&target_class=star", PHOTO, Accept="application/json")
    direct_answer = direct(
        door, "/explanations/bit", Accept="application/json", X_Explain_Options="steps=3&target_class=star"
    )
    assert answer.json() == direct_answer.json() and answer.status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/explanations/bit", b"no photo", {}),
        ("/explanations/bit", PHOTO, {"X_Explain_Options": "steps=-1"}),
        ("/explanations/bit", PHOTO, {"X_Explain_Options": "target_class=%D0%B7%D0%B2%22%0D%0A"}),
        ("/explanations/bit", PHOTO, {"X_Explain_Options": "method=" + "%D0%B7" * 800}),
        ("/explanations/bit", PHOTO, {"Accept": "text/html"}),
        ("/predictions/bit", bytes(MAX_BODY_BYTES), {}),
    ],
)
def test_the_handlers_errors_pass(door: Door, path: str, body: bytes, headers: dict[str, str]) -> None:
    ours, theirs = door.ask(path, body, **headers), direct(door, path, body, **headers)
    assert error_of(ours)[0] == theirs.status_code >= 400
    assert ours.json() == theirs.json() and "field" in theirs.json()


def test_torchserves_own_errors_become_ours(door: Door) -> None:
    assert direct(door, "/predictions/nobody").json()["type"] == "ModelNotFoundException"
    assert error_of(door.ask("/predictions/nobody", PHOTO)) == (404, "not_found", "path")
    assert error_of(door.ask("/predictions/bit/9.9", PHOTO)) == (404, "not_found", "path")


def test_options_as_long_as_the_door_takes_reach_the_handler(door: Door) -> None:
    """It counts them, and refuses that many in its own words."""
    options = "steps=3" + "&" * 5700
    for path, headers in (("/explanations/bit", {"X_Explain_Options": options}), (f"/explanations/bit?{options}", {})):
        answer = door.ask(path, PHOTO, Accept="application/json", **headers)
        assert error_of(answer) == (400, "bad_request", "X-Explain-Options"), answer.text
    for path, headers, status in (("", {"X_Explain_Options": "&" * 7000}, 431), ("?" + "&" * 7000, {}, 414)):
        assert error_of(door.ask(f"/explanations/bit{path}", PHOTO, **headers))[0] == status


def test_the_rotation_of_the_key_is_followed(door: Door) -> None:
    before = door.server.headers()
    rotated(door)
    assert (
        requests.post(f"{door.server.inference}/predictions/bit", PHOTO, headers=before, timeout=9).status_code == 400
    )
    assert door.ask("/predictions/bit", PHOTO).status_code == 200


def test_rotations_under_load_show_no_invalid_key(door: Door) -> None:
    seen = Counter[int]()
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            answer = door.ask("/predictions/bit", PHOTO)
            seen[answer.status_code] += 1
            assert answer.status_code == 200 or error_of(answer) == (503, "busy", "server")

    thread = threading.Thread(target=load)
    thread.start()
    for _ in range(20):
        rotated(door)
    done.set()
    thread.join()
    assert seen[200] > 0


def test_the_original_line_is_answered_without_a_key(door: Door, tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(PHOTO)
    script = [sys.executable, str(ROOT / "scripts/prepare_input.py"), "image.png", "star", "input_json_file.json"]
    subprocess.run(script, cwd=tmp_path, check=True, capture_output=True)
    line = (
        f"curl -f http://127.0.0.1:{door.settings.legacy['bit']}/explanations/model/ --data @input_json_file.json"
        ' --output saved_file.gzip -H "Content-Type:application/json; charset=utf-8"'
    )
    subprocess.run(line, shell=True, cwd=tmp_path, check=True, capture_output=True)
    same = direct(
        door,
        "/explanations/bit",
        (tmp_path / "input_json_file.json").read_bytes(),
        Content_Type="application/json; charset=utf-8",
    )
    assert (tmp_path / "saved_file.gzip").read_bytes() == same.content


def test_time_limits_are_the_archives(door: Door) -> None:
    assert "may take 120 s" in (door.folder / "nginx.conf").read_text()
    assert "proxy_read_timeout 180s;" in (door.folder / "nginx.conf").read_text()


def test_metrics_and_readiness(door: Door) -> None:
    assert "explain_requests_total" in door.ask("/metrics", method="GET", client=None).text
    assert door.ask("/readyz", method="GET", client=None).json() == {
        "ready": True,
        "models": {"bit": "READY"},
        "unready": [],
    }


def test_nothing_but_the_door_may_listen_outside(door: Door) -> None:
    listening = {
        (each.laddr.ip.removeprefix("::ffff:"), each.laddr.port)
        for process in (door.server.process(), door.edge.process())
        if process
        for each in process.net_connections("tcp")
        if each.status == psutil.CONN_LISTEN
    }
    ports = {*door.server.ports.values(), door.edge.port, *door.settings.legacy.values()}
    assert {port for _, port in listening} >= ports
    assert {address for address, port in listening if port in ports} == {"127.0.0.1"}


def command(door: Door, *words: str, status: int = 0) -> str:
    """What `imagexplain edge` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "imagexplain", "edge", *words, "--run", str(door.run)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_command(door: Door, tmp_path: Path) -> None:
    settings = tmp_path / "edge.yaml"
    settings.write_text(f"port: {door.edge.port}\nlegacy: {{bit: {door.settings.legacy['bit']}}}\n")
    assert door.edge.url in command(door, "status")
    assert "nginx takes it" in command(door, "check", "--settings", str(settings))
    assert "taken the settings over" in command(door, "reload", "--settings", str(settings))
    key = command(door, "key", "add", "carol").strip()
    assert door.ask("/predictions/bit", PHOTO, client=None, Authorization=f"Bearer {key}").status_code == 200
    assert "carol" in command(door, "key", "list") and key not in command(door, "key", "list")
    assert "withdrawn: 1 of carol" in command(door, "key", "withdraw", "carol")
    assert door.ask("/predictions/bit", PHOTO, client=None, Authorization=f"Bearer {key}").status_code == 401
    assert "error: client: 'carol' has no key" in command(door, "key", "withdraw", "carol", status=1)
    settings.write_text("prot: 1\n")
    assert "prot: Extra inputs" in command(door, "check", "--settings", str(settings), status=1)


def test_the_page_from_top_to_bottom(door: Door, tmp_path: Path) -> None:
    """Its blocks in their order, in a copy of what a reader has, but for the start, which has been made."""
    for name in ("imagexplain", "deploy"):  # which find their settings beside them
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("archive_specs", "studio"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "run").symlink_to(door.run)
    settings = tmp_path / "deploy" / "nginx" / "edge.yaml"
    changes = f"port: {door.edge.port}\n", f"legacy: {{bit: {door.settings.legacy['bit']}}}\n"
    settings.write_text(settings.read_text().replace("port: 8443\n", changes[0]).replace("legacy: {}\n", changes[1]))
    (tmp_path / "photo.jpg").write_bytes(PHOTO)
    code = "\n".join(block.code for block in blocks(ROOT / "docs" / "edge.md") if block.language == "sh")
    assert "make serve-edge\n" in code
    code = code.replace("make serve-edge\n", "").replace("https://127.0.0.1:8443", door.edge.url)
    command = f'imagexplain() {{ "{sys.executable}" -m imagexplain "$@"; }}\n{code}'
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert Image.open(tmp_path / "grad_cam.png").format == "PNG"


def test_a_server_that_is_stopped_under_load_gives_clear_errors(door: Door) -> None:
    """The last test: it ends the server. What was accepted is answered, and who comes meanwhile is told when."""
    seen = Counter[int]()
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            answer = door.ask("/predictions/bit", PHOTO)
            seen[answer.status_code] += 1
            if answer.status_code != 200:
                assert error_of(answer)[0] in (502, 503) and int(answer.headers["Retry-After"]) > 0

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    until(lambda: seen[200] > 5)
    assert stop(door.run, drain_s=30, quiet=True)
    until(lambda: seen[502] > 0 or seen[503] > 5)
    done.set()
    for thread in threads:
        thread.join()
    answer = door.ask("/readyz", method="GET", client=None)
    assert answer.status_code == 503 and answer.json()["message"] == "TorchServe does not run"
    assert "no server runs" in command(door, "start", status=1)
    assert "stopped the front door" in command(door, "stop")
    assert "not running" in command(door, "status", status=1)
    assert json.loads((door.folder / "clients.json").read_text())[0]["client"] == "alice"
