"""The front door's settings file, its clients' keys, its certificate: without nginx."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from pathlib import Path

import pytest

from imagexplain.api.openapi import EDGE_WORDS
from imagexplain.ops import edge_config, edge_keys
from imagexplain.ops.edge_certificate import ensure_certificate
from imagexplain.ops.edge_config import binary, installed, quoted, refusals
from imagexplain.ops.edge_settings import (
    MAX_BODY_BYTES,
    SETTINGS_FILE,
    EdgeError,
    EdgeSettings,
    RaySettings,
    read_settings,
)
from imagexplain.ops.refusals import NAMED_REFUSALS
from imagexplain.ops.server import ROOT
from tests.pages import rows


def written(folder: Path, text: str) -> Path:
    path = folder / "edge.yaml"
    path.write_text(text)
    return path


def test_the_file_says_the_defaults() -> None:
    assert read_settings(SETTINGS_FILE) == EdgeSettings()
    assert set(EdgeSettings.model_fields) == {
        line.partition(":")[0] for line in SETTINGS_FILE.read_text().splitlines() if line[:1].isalpha()
    }


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert read_settings(written(tmp_path, "# nothing\n")) == EdgeSettings()


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "studio").mkdir()
    settings = read_settings(written(tmp_path, "studio: studio\nmetrics_for: [10.0.0.0/8]\n"))
    assert settings.studio == tmp_path / "studio"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("prot: 8443", "prot: Extra inputs"),
        ("port: 70000", "port: .*less than 65536"),
        ("port: 1\nport: 2", "port: wanted once"),
        ("listen: everywhere", "listen: .*everywhere"),
        ("client: {burst: 4}", "client.requests_per_second: Field required"),
        ("max_body_bytes: 33554432", "max_body_bytes: .*33000000"),
        ("origins: [studio.example.org]", "origins.0: .*wants the scheme and host"),
        ("origins: ['https://studio.example.org/']", "origins.0: .*wants the scheme and host"),
        ("origins: ['https://a\"; deny all; \"']", "origins.0: .*wants the scheme and host"),
        ("metrics_for: [nobody]", "metrics_for.0: .*nobody"),
        ("legacy: {bit: 8443}", "wants different ports"),
        ("legacy: {'bit; return 200': 9080}", "legacy.*should match pattern"),
        ("studio: none", "studio: there is no folder .*none"),
        ("studio: 'a$b'", "studio: .*dollar signs"),
        ("openapi: none.json", "openapi: there is no file .*none.json"),
        ("tls: {certificate: edge.yaml}", "tls: .*both a certificate and its key"),
        ("tls: {certificate: no.pem, key: no.key}", "there is no file .*no.pem"),
        ("ray: {nodes: ['10.0.0.5:8000']}", "ray.applications: Field required"),
        ("ray: {nodes: [], applications: [bit]}", "ray.nodes: .*at least 1 item"),
        ("ray: {nodes: ['http://a:8000'], applications: [bit]}", "ray.nodes.0: .*a host and the port"),
        ("ray: {nodes: [a], applications: [bit]}", "ray.nodes.0: .*a host and the port"),
        ("ray: {nodes: ['a:70000'], applications: [bit]}", "ray.nodes.0: .*a host and the port"),
        ("ray: {nodes: ['a:1', 'a:1'], applications: [bit]}", "ray.nodes: .*wants each once"),
        ("ray: {nodes: ['a:1'], applications: [/bit]}", "ray.applications.0: .*should match pattern"),
        ("ray: {nodes: ['a:1'], applications: [bit]}\nlegacy: {vit: 9080}", "legacy: wants one of .*bit.*got vit"),
        ("[1, 2]", "Input should be .*EdgeSettings"),
        ("port: [", "cannot be read as YAML"),
    ],
)
def test_a_fault_is_named_with_file_and_field(tmp_path: Path, text: str, fault: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(EdgeError, match=rf"(?s)^{path}: .*{fault}"):
        read_settings(path)


def test_nodes_are_found_by_name_and_each_once(tmp_path: Path) -> None:
    nodes = ("127.0.0.1:8000", "localhost:8000", "[::1]:8001", "localhost:8002")
    known = edge_config.addresses(RaySettings(nodes=nodes, applications=("bit",)))
    assert known[0] == "127.0.0.1:8000" and {"[::1]:8001", "127.0.0.1:8002"} <= set(known)
    assert len(known) == len(set(known))
    settings = EdgeSettings(ray=RaySettings(nodes=("nobody.invalid:8000",), applications=("bit",)))
    with pytest.raises(EdgeError, match=r"ray\.nodes: nobody\.invalid:8000 has no address"):
        edge_config.behind(tmp_path, settings)
    with pytest.raises(EdgeError, match="no server runs with"):
        edge_config.behind(tmp_path, EdgeSettings())


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="cannot be read"):
        read_settings(tmp_path / "none.yaml")


def test_only_the_sum_of_a_key_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "edge"
    key = edge_keys.add(folder, "alice")
    assert len(key) >= 43
    (kept,) = edge_keys.listed(folder)
    assert (kept.client, kept.sha256) == ("alice", hashlib.sha256(key.encode()).hexdigest())
    assert (folder / "clients.map").read_text() == f'"{kept.sha256}" "alice";\n'
    for name in ("clients.json", "clients.map"):
        assert key not in (folder / name).read_text()
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600


def test_keys_of_several_clients(tmp_path: Path) -> None:
    for client in ("alice", "bob", "alice"):
        edge_keys.add(tmp_path, client)
    assert [key.client for key in edge_keys.listed(tmp_path)] == ["alice", "bob", "alice"]
    newest = edge_keys.listed(tmp_path)[-1]
    assert edge_keys.withdraw(tmp_path, "alice", but_newest=True) == 1
    assert edge_keys.listed(tmp_path)[-1] == newest
    assert edge_keys.withdraw(tmp_path, "alice") == 1
    with pytest.raises(EdgeError, match="'alice' has no key; clients that have one: bob"):
        edge_keys.withdraw(tmp_path, "alice")


@pytest.mark.parametrize("client", ["", "a b", 'a"; x "', "x" * 65, "../x", "é"])
def test_a_name_that_is_none_is_refused(tmp_path: Path, client: str) -> None:
    with pytest.raises(EdgeError, match="client: wanted 1 to 64"):
        edge_keys.add(tmp_path, client)
    assert not (tmp_path / "clients.json").exists()


def test_a_damaged_list_is_an_error_and_stays(tmp_path: Path) -> None:
    (tmp_path / "clients.json").write_text("[{")
    with pytest.raises(EdgeError, match=r"clients\.json: cannot be read"):
        edge_keys.add(tmp_path, "alice")
    assert (tmp_path / "clients.json").read_text() == "[{"


def test_a_certificate_is_made_once_and_for_its_address(tmp_path: Path) -> None:
    certificate, key = ensure_certificate(tmp_path, "127.0.0.1")
    made = certificate.read_bytes()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert ensure_certificate(tmp_path, "0.0.0.0") == (certificate, key) and certificate.read_bytes() == made
    ensure_certificate(tmp_path, "192.0.2.1")
    assert certificate.read_bytes() != made
    command = ["openssl", "x509", "-in", str(certificate), "-noout", "-ext", "subjectAltName"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert all(name in names for name in ("localhost", "127.0.0.1", "0:0:0:0:0:0:0:1", "192.0.2.1"))


def test_a_program_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(EdgeError, match="nginx is not installed: make setup-ops"):
        binary()
    with pytest.raises(EdgeError, match="openssl not found: make setup-ops"):
        ensure_certificate(tmp_path, "127.0.0.1")
    (tmp_path / "nginx").write_text(f"#!/bin/sh\necho --modules-path={tmp_path} >&2\n")
    (tmp_path / "nginx").chmod(0o755)
    with pytest.raises(EdgeError, match=r"no JavaScript .* libnginx-mod-http-js"):
        installed(str(tmp_path / "nginx"))


def test_what_nginx_would_take_for_a_variable_is_refused() -> None:
    assert quoted('it\'s "so" \\') == "'it\\'s \"so\" \\\\'"
    for text in ("$host", "a\nb"):
        with pytest.raises(EdgeError, match="nginx takes no dollar sign"):
            quoted(text)


def test_refusals_are_of_the_services_form() -> None:
    for refusal in edge_config.refusals(EdgeSettings()):
        assert refusal.body.isascii() and "'" not in refusal.message and "$" not in refusal.message


def test_the_page_lists_the_refusals() -> None:
    page = (ROOT / "docs" / "edge.md").read_text("utf-8")
    told = {(int(row[0]), row[1].strip("`")) for row in rows(page) if row[0].isdigit()}
    made = {(each.status, each.error) for each in [*edge_config.refusals(EdgeSettings()), *NAMED_REFUSALS.values()]}
    assert told <= made
    assert {status for status, _ in made - told} == {406, 411, 412, 415, 416, 422, 501, 505}, (
        "the handlers' and rare ones"
    )
    assert f"{MAX_BODY_BYTES:,} bytes" in " ".join(page.split())


def test_what_make_does() -> None:
    """The server before the front door, and the front door's end before the server's."""

    def told(*arguments: str) -> str:
        return subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    begun, ended = told("serve-edge", "SETTINGS=mine.yaml"), told("stop", "DRAIN=5")
    assert begun.index("server.py start") < begun.index('imagexplain edge start --settings "mine.yaml"')
    assert ended.index("imagexplain edge stop --drain 5") < ended.index("server.py stop --drain 5")
    assert "setup_ops.sh" in told("setup-ops")
    assert "make setup-ops" in (ROOT / ".ci" / "run").read_text()


def test_setup_installs_what_is_named(tmp_path: Path) -> None:
    """With an apt-get that only tells what it is asked for."""
    for name, script in (
        ("apt-get", 'echo "$@" >>"$LOG"'),
        ("dpkg-query", "false"),
        ("sudo", '"$@"'),
        ("systemctl", "true"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "LOG": str(tmp_path / "log")}
    subprocess.run(["bash", str(ROOT / "scripts" / "setup_ops.sh")], env=environment, check=True, capture_output=True)
    asked = (tmp_path / "log").read_text().split()
    assert {"nginx", "libnginx-mod-http-js", "prometheus", "prometheus-alertmanager", "openssl"} <= {*asked}
    (tmp_path / "dpkg-query").write_text("#!/bin/sh\necho install ok installed\n")
    (tmp_path / "log").unlink()
    subprocess.run(["bash", str(ROOT / "scripts" / "setup_ops.sh")], env=environment, check=True, capture_output=True)
    assert not (tmp_path / "log").exists()


def test_the_openapi_document_names_its_errors_as_it_does() -> None:
    given = {(refusal.status, refusal.error) for refusal in refusals(EdgeSettings())}
    assert EDGE_WORDS.items() <= given
