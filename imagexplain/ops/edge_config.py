"""nginx's configuration of the front door: made from the settings, and from the server that stands behind it."""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.request import Request

import jinja2

from imagexplain import __version__
from imagexplain.checkout import ROOT
from imagexplain.client.loopback import urlopen
from imagexplain.errors import WORDS
from imagexplain.ops.edge_settings import EdgeError, EdgeSettings, RaySettings
from imagexplain.ops.refusals import (
    CONTENT_SECURITY_POLICY,
    MODEL,
    NAME,
    NAMED_REFUSALS,
    RAY_LOST_STATUSES,
    RAY_STATUSES,
    TORCHSERVE_STATUSES,
    Refusal,
    by_status,
)
from imagexplain.ops.server import Server, ServerError

TEMPLATES = ROOT / "deploy" / "nginx"
TEMPLATE = "nginx.conf.j2"
SCRIPT = "edge.js"
EXPORTER_OFFSET = 5
"""Distance of the supervisor's port from the inference port."""

RESPONSE_TIMEOUT_S = 120
"""Seconds that an archive may take for a batch, where the server does not say."""

VERSIONS = r"(?:/versions(?=/[0-9]))?(?<version>(?:(?<=/versions)/[0-9]+(?:\.[0-9]+)*)?)"
"""Pattern of a version as KServe's paths have it, or of none; it captures what TorchServe's have."""


PATHS = (
    "wanted /predictions/MODEL, /explanations/MODEL, /v1/models/MODEL:predict or :explain, /v2/models/MODEL/infer, or "
    "/v1/projects/P/locations/L/endpoints/MODEL:explain or :predict of a served model; /openapi.json lists all paths"
)
"""Words of the front door for a path that is none of its own."""


def refusals(settings: EdgeSettings) -> list[Refusal]:
    """The errors by status that nginx gives, in the service's form."""
    known = by_status(settings.max_body_bytes)
    return [replace(each, message=PATHS) if each.status == 404 else each for each in known]


@dataclass(frozen=True)
class Behind:
    """Facts of the TorchServe behind the front door: addresses, state and times.

    Attributes:
        inference: Host and port of predictions and explanations.
        management: Base address of the management API.
        metrics: Port of TorchServe's metrics.
        exporter: Port of the supervisor.
        run: Directory of the server's state.
        slowest_s: Seconds that the slowest archive may take for a batch.
    """

    inference: str
    management: str
    metrics: int
    exporter: int
    run: Path
    slowest_s: int


@dataclass(frozen=True)
class BehindNodes:
    """Facts of the Ray Serve behind the front door.

    Attributes:
        nodes: Addresses and ports of the nodes' proxies.
        run: Directory in which the front door's state has a folder.
        slowest_s: Seconds that the slowest archive may take for a batch.
    """

    nodes: tuple[str, ...]
    run: Path
    slowest_s: int


def behind(server: Server | Path, settings: EdgeSettings) -> Behind | BehindNodes:
    """The facts of what stands behind the front door.

    Args:
        server: Running TorchServe, or the directory in which none has its state.
        settings: Settings of the front door.

    Raises:
        EdgeError: no TorchServe runs, and the settings name no Ray Serve; or a node has no address.
    """
    if settings.ray:
        run = server if isinstance(server, Path) else Path(server.run)
        return BehindNodes(addresses(settings.ray), run, settings.ray.response_timeout_s)
    if isinstance(server, Path):
        raise EdgeError(f"no server runs with {server}: make serve, or both at once: make serve-edge")
    return Behind(
        inference=server.inference.removeprefix("http://"),
        management=server.management,
        metrics=server.ports["metrics"],
        exporter=server.ports["inference"] + EXPORTER_OFFSET,
        run=Path(server.run),
        slowest_s=max((_response_timeout(server, model) for model in server.models), default=RESPONSE_TIMEOUT_S),
    )


def unstarted(run: Path) -> Behind:
    """The facts of a server that does not run, as far as nginx must have some to check its configuration."""
    return Behind("127.0.0.1:8080", "http://127.0.0.1:8081", 8082, 8085, run, RESPONSE_TIMEOUT_S)


def addresses(ray: RaySettings) -> tuple[str, ...]:
    """The addresses and ports of nodes, each once. Raises EdgeError for a name that has none."""
    found: dict[str, None] = {}
    for node in ray.nodes:
        host, _, port = node.rpartition(":")
        try:
            known = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        except OSError as error:
            raise EdgeError(f"ray.nodes: {node} has no address: {error.strerror or error}") from None
        for ip in sorted({str(address[0]) for *_, address in known}):
            found[f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"] = None
    return tuple(found)


def render(
    settings: EdgeSettings,
    facts: Behind | BehindNodes,
    certificate: tuple[Path, Path],
    nginx: str,
    folder: Path | None = None,
) -> str:
    """The text of nginx's configuration.

    Args:
        settings: Settings of the front door.
        facts: Facts of what stands behind it.
        certificate: Files of the certificate and of its key.
        nginx: Path of nginx.
        folder: Directory of the front door's state; `edge` in the server's, if not given.

    Raises:
        EdgeError: nginx's files are not there, or a path cannot be written into its configuration.
    """
    folder = folder or facts.run / "edge"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # it is no HTML
        keep_trailing_newline=True,
    )
    environment.filters.update(
        quoted=quoted,
        within=lambda name: quoted(folder / name),
        regex=lambda name: re.escape(str(name)),
        pattern=lambda text: f'"{text}"'.replace("\\", "\\\\"),
    )
    modules, types = installed(nginx)
    known = {refusal.caught: refusal for refusal in refusals(settings)}
    unheard = {408} if settings.ray else set()  # nginx would close the connection
    values: dict[str, Any] = {
        "settings": settings,
        "template": (TEMPLATES / TEMPLATE).relative_to(ROOT),
        "script": TEMPLATES / SCRIPT,
        "user": _user(facts.run),
        "modules": modules,
        "media_types": types,
        "run": facts.run,
        **_engine(facts),
        "slowest_s": facts.slowest_s,
        "wait_s": facts.slowest_s + settings.queue_s,
        "listen": f"[{settings.listen}]" if ":" in settings.listen else settings.listen,
        "certificate": certificate[0],
        "certificate_key": certificate[1],
        "openapi": settings.openapi or folder / "openapi.json",
        "content_security_policy": CONTENT_SECURITY_POLICY,
        "model": MODEL,
        "name": NAME,
        "versions": VERSIONS,
        "package_version": __version__,
        "refusals_by_status": list(known.values()),
        "refusals_by_name": NAMED_REFUSALS,
        "other_statuses": sorted({status for status in HTTPStatus if status >= 400} - {507, *known, *unheard}),
        "handler_statuses": set(WORDS),
    }
    return environment.get_template(TEMPLATE).render(values)


def _engine(facts: Behind | BehindNodes) -> dict[str, Any]:
    """The values that differ between what may stand behind the front door."""
    if isinstance(facts, BehindNodes):
        return {
            "engine": "Ray",
            "nodes": facts.nodes,
            "engine_statuses": RAY_STATUSES,
            "lost_statuses": RAY_LOST_STATUSES,
        }
    return {
        "engine": "TorchServe",
        "nodes": (),
        "inference": facts.inference,
        "management": facts.management,
        "exporter": facts.exporter,
        "metrics": {"/metrics": facts.metrics, "/metrics/supervisor": facts.exporter},
        "engine_statuses": {
            status: {f"$upstream_status = {status}": other} for status, other in TORCHSERVE_STATUSES.items()
        },
        "lost_statuses": (),
    }


def quoted(value: object) -> str:
    """A text as nginx reads it back. Raises EdgeError for a dollar sign, which it would take for a variable."""
    text = str(value)
    if "$" in text or not text.isprintable():
        raise EdgeError(f"nginx takes no dollar sign and nothing invisible in a path or a text, got {text!r:.200}")
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def binary() -> str:
    """The path of nginx. Raises EdgeError if it is not installed."""
    found = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if found is None:
        raise EdgeError("nginx is not installed: make setup-ops")
    return found


def installed(nginx: str) -> tuple[Path, Path]:
    """The directory of nginx's modules, and its file of media types.

    Raises:
        EdgeError: one of them is not there, or JavaScript is not among the modules.
    """
    about = subprocess.run([nginx, "-V"], capture_output=True, text=True, check=False).stderr
    folders = dict(re.findall(r"--(modules-path|conf-path)=(\S+)", about))
    modules = Path(folders.get("modules-path", "/usr/lib/nginx/modules"))
    types = Path(folders.get("conf-path", "/etc/nginx/nginx.conf")).with_name("mime.types")
    if not (modules / "ngx_http_js_module.so").is_file():
        raise EdgeError(f"nginx has no JavaScript in {modules}: make setup-ops installs libnginx-mod-http-js")
    if not types.is_file():
        raise EdgeError(f"nginx's media types are not at {types}: make setup-ops installs nginx-common")
    return modules, types


def _response_timeout(server: Server, model: str) -> int:
    """Seconds that TorchServe gives a model's worker, by its archive or its own configuration."""
    try:
        request = Request(f"{server.management}/models/{model}", headers=server.headers("management"))
        with urlopen(request, timeout=5) as answer:
            return max(int(about["responseTimeout"]) for about in json.load(answer))
    except (OSError, ValueError, LookupError, TypeError, ServerError):
        return RESPONSE_TIMEOUT_S


def _user(run: Path) -> str | None:
    """The user and group of nginx's workers, who must be able to read TorchServe's key: whoever owns its state.

    None where nginx is not started as root, for then it has no choice.
    """
    if os.geteuid() != 0:
        return None
    owner = run.stat()
    return f"{pwd.getpwuid(owner.st_uid).pw_name} {grp.getgrgid(owner.st_gid).gr_name}"
