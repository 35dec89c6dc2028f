"""nginx's configuration of the front door: made from the settings, and from the server that stands behind it."""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import shutil
import subprocess
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.request import Request

import jinja2

from imagexplain import __version__
from imagexplain.checkout import ROOT
from imagexplain.client.loopback import urlopen
from imagexplain.errors import WORDS
from imagexplain.ops.edge_settings import EdgeError, EdgeSettings
from imagexplain.ops.server import Server, ServerError

TEMPLATES = ROOT / "deploy" / "nginx"
TEMPLATE = "nginx.conf.j2"
SCRIPT = "edge.js"
EXPORTER_OFFSET = 5
"""Distance of the supervisor's port from the inference port."""

RESPONSE_TIMEOUT_S = 120
"""Seconds that an archive may take for a batch, where the server does not say."""

CONTENT_SECURITY_POLICY = "; ".join(
    (
        *("default-src 'self'", "img-src 'self' blob:", "object-src 'none'", "base-uri 'none'"),
        *("form-action 'none'", "frame-ancestors 'none'"),
    )
)
NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
"""Pattern of a model's name."""
MODEL = rf"{NAME}(/[0-9]+(\.[0-9]+)*)?"
"""Pattern of a model's name, and of its version where one is asked for."""
VERSIONS = r"(?:/versions(?=/[0-9]))?(?<version>(?:(?<=/versions)/[0-9]+(?:\.[0-9]+)*)?)"
"""Pattern of a version as KServe's paths have it, or of none; it captures what TorchServe's have."""


@dataclass(frozen=True)
class Refusal:
    """An error that the front door itself answers with.

    Attributes:
        status: HTTP status.
        error: Status as a short word for machines.
        field: Part of the request at fault.
        message: Words that say what was wanted.
        code: Status in nginx's own counting, where that differs.
    """

    status: int
    error: str
    field: str
    message: str
    code: int | None = None

    @property
    def caught(self) -> int:
        """The status by which nginx knows it."""
        return self.code or self.status

    @property
    def body(self) -> str:
        """JSON of the service's form."""
        return json.dumps({"code": self.status, "error": self.error, "field": self.field, "message": self.message})


def refusals(settings: EdgeSettings) -> list[Refusal]:
    """The errors by status that nginx gives, in the service's form."""
    later = "come back after the seconds of Retry-After"
    return [
        Refusal(400, "bad_request", "request", "wanted an HTTP request with a path, a host and headers of its form"),
        Refusal(401, "unauthorized", "authorization", "wanted the header Authorization: Bearer KEY, with a key in use"),
        Refusal(403, "forbidden", "address", "this address, or a page of this origin, may not ask for that"),
        Refusal(
            404,
            *("not_found", "path"),
            "wanted /predictions/MODEL, /explanations/MODEL, /v1/models/MODEL:predict or :explain, "
            "/v2/models/MODEL/infer, or /v1/projects/P/locations/L/endpoints/MODEL:explain or :predict "
            "of a served model; /openapi.json lists all paths",
        ),
        Refusal(405, "method_not_allowed", "method", "wanted one of the methods in the header Allow"),
        Refusal(406, "not_acceptable", "accept", "wanted another form of answer"),
        Refusal(411, "length_required", "content-length", "wanted the length of the body, or chunks"),
        Refusal(412, "precondition_failed", "if-match", "the file is another one"),
        Refusal(413, "too_large", "body", f"wanted at most {settings.max_body_bytes:,} bytes"),
        Refusal(414, "uri_too_long", "path", "wanted at most 6,000 characters: send the options in the body"),
        Refusal(415, "unsupported_media", "image", "wanted another form of image"),
        Refusal(416, "range_not_satisfiable", "range", "wanted a range within the file"),
        Refusal(422, "unprocessable", "request", "the model cannot do that"),
        Refusal(429, "too_many_requests", "client", f"too many requests or connections at once: {later}"),
        Refusal(431, "headers_too_large", "headers", "wanted at most 6,000 bytes: send options in the body", 494),
        Refusal(400, "bad_request", "scheme", "wanted https, got http", 497),
        Refusal(500, "internal", "edge", "the front door failed; its log says why"),
        Refusal(501, "not_implemented", "transfer-encoding", "wanted the encoding chunked, or none"),
        Refusal(502, "bad_gateway", "server", f"the server, or its worker, ended before it had answered: {later}"),
        Refusal(503, "busy", "server", f"the server is busy, or not ready: {later}"),
        Refusal(504, "timeout", "server", f"the server did not answer in time: {later}"),
        Refusal(505, "version_not_supported", "request", "wanted HTTP/1.1 or HTTP/2"),
    ]


TORCHSERVE_STATUSES = {400: 503, 500: 502}
"""Statuses of TorchServe's own errors that become others: a 400 is a key that has just been changed, and a 500 a worker
that ended. 507 becomes 503, and what is not among `refusals` 502."""

NAMED_REFUSALS = {
    "options-twice": Refusal(
        400, "bad_request", "options", "wanted options in the address or in X-Explain-Options, got both"
    ),
    "foreign-origin": Refusal(403, "forbidden", "origin", "pages of this origin may not ask"),
}
"""Errors with words of their own, beside those of their status."""


@dataclass(frozen=True)
class Behind:
    """Facts of the server behind the front door: addresses, state and times.

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


def behind(server: Server) -> Behind:
    """The facts of a running server."""
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


def render(
    settings: EdgeSettings, facts: Behind, certificate: tuple[Path, Path], nginx: str, folder: Path | None = None
) -> str:
    """The text of nginx's configuration.

    Args:
        settings: Settings of the front door.
        facts: Facts of the server behind it.
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
        quoted=quoted, within=lambda name: quoted(folder / name), regex=lambda name: re.escape(str(name))
    )
    modules, types = installed(nginx)
    known = {refusal.caught: refusal for refusal in refusals(settings)}
    values: dict[str, Any] = {
        "settings": settings,
        "template": (TEMPLATES / TEMPLATE).relative_to(ROOT),
        "script": TEMPLATES / SCRIPT,
        "user": _user(facts.run),
        "modules": modules,
        "media_types": types,
        "run": facts.run,
        "inference": facts.inference,
        "management": facts.management,
        "exporter": facts.exporter,
        "metrics": {"/metrics": facts.metrics, "/metrics/supervisor": facts.exporter},
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
        "other_statuses": sorted({status for status in HTTPStatus if status >= 400} - {507, *known}),
        "handler_statuses": set(WORDS),
        "torchserve_statuses": TORCHSERVE_STATUSES,
    }
    return environment.get_template(TEMPLATE).render(values)


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
