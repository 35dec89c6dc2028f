"""Settings of the front door: one YAML file, read strictly."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator

from imagexplain.archive.spec import Name, SpecError, StrictLoader, described
from imagexplain.checkout import ROOT
from imagexplain.ops.refusals import MAX_BODY_BYTES as MAX_BODY_BYTES
from imagexplain.ops.server import ServerError

SETTINGS_FILE = ROOT / "deploy" / "nginx" / "edge.yaml"
STUDIO = ROOT / "studio"

_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:\d+)?")
_NODE = re.compile(r"(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>\d{1,5})")


class EdgeError(ServerError):
    """The front door cannot be configured, started, found or stopped; the message says why."""


def _address(value: str) -> str:
    ipaddress.ip_address(value)
    return value


def _network(value: str) -> str:
    ipaddress.ip_network(value)
    return value


def _origin(value: str) -> str:
    if not _ORIGIN.fullmatch(value):
        raise ValueError("wants the scheme and host of a page, such as https://studio.example.org")
    return value


def _node(value: str) -> str:
    found = _NODE.fullmatch(value)
    if not found or not 0 < int(found["port"]) < 2**16:
        raise ValueError("wants a host and the port of Ray Serve's proxy, such as 10.0.0.5:8000")
    return value


def _different(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) < len(values):
        raise ValueError(f"wants each once, got {', '.join(values)}")
    return values


def _resolved(value: Path, info: ValidationInfo) -> Path:
    """A path relative to the settings file, which must be one that nginx can be told."""
    folder = info.context["folder"] if info.context else Path()
    path = (folder / value).resolve()
    if not str(path).isprintable() or re.search(r"[$'\"*?\[\]]", str(path)):
        raise ValueError(f"wants a path without quotes, brackets, wildcards and dollar signs, got {path}")
    return path


Positive = Annotated[int, Field(gt=0)]
Port = Annotated[int, Field(gt=0, lt=2**16)]
Address = Annotated[str, AfterValidator(_address)]
Network = Annotated[str, AfterValidator(_network)]
Origin = Annotated[str, AfterValidator(_origin)]
Node = Annotated[str, AfterValidator(_node)]
Served = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*(/[0-9]+(\.[0-9]+)*)?$")]
Located = Annotated[Path, AfterValidator(_resolved)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TlsSettings(_Strict):
    """Files of a certificate and its key; without them, a certificate signed by itself is made."""

    certificate: Located | None = None
    key: Located | None = None

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("wants both a certificate and its key, or neither")
        return self


class RateSettings(_Strict):
    """Requests and connections of one client or one address at a time."""

    requests_per_second: Positive
    burst: Positive
    connections: Positive


class RaySettings(_Strict):
    """Ray Serve behind the front door, in the place of TorchServe.

    Attributes:
        nodes: Hosts and ports of the nodes' proxies. A name that has several addresses is several nodes.
        applications: Routes of the applications without their first slash: names of models, or name/version.
        response_timeout_s: Seconds that the slowest archive may take for a batch.
    """

    nodes: Annotated[tuple[Node, ...], Field(min_length=1), AfterValidator(_different)]
    applications: Annotated[tuple[Served, ...], Field(min_length=1), AfterValidator(_different)]
    response_timeout_s: Positive = 120


class EdgeSettings(_Strict):
    """Settings of the front door, as `deploy/nginx/edge.yaml` explains them.

    Attributes:
        ray: Ray Serve, if that is what stands behind the front door; None for TorchServe.
        listen: Address of this machine on which clients come.
        port: Port of clients.
        tls: Certificate.
        client: Limits of a client that has a key.
        address: Limits of an address, for requests that need no key or have none.
        origins: Origins of pages that may ask (CORS).
        metrics_for: Addresses and networks that may read the metrics.
        studio: Folder of static files, served at /studio/; None for none.
        openapi: File served at /openapi.json.
        legacy: Ports of this machine by the model that they reach without a key.
        vertex_endpoints: Models by the endpoints of Vertex AI under which its clients know them.
        max_body_bytes: Size of the largest request.
        silence_s: Seconds that a client may be silent.
        queue_s: Seconds that a request may wait for others, beyond those of the slowest archive.
        workers: Number of nginx's processes.
    """

    ray: RaySettings | None = None
    listen: Address = "127.0.0.1"
    port: Port = 8443
    tls: TlsSettings = TlsSettings()
    client: RateSettings = RateSettings(requests_per_second=20, burst=40, connections=16)
    address: RateSettings = RateSettings(requests_per_second=5, burst=20, connections=64)
    origins: tuple[Origin, ...] = ()
    metrics_for: tuple[Network, ...] = ("127.0.0.1", "::1")
    studio: Located | None = STUDIO
    openapi: Located | None = None
    legacy: dict[Name, Port] = {}
    vertex_endpoints: dict[Name, Served] = {}
    max_body_bytes: Annotated[int, Field(gt=0, le=MAX_BODY_BYTES)] = MAX_BODY_BYTES
    silence_s: Positive = 30
    queue_s: Annotated[int, Field(ge=0)] = 60
    workers: Positive = 2

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        ports = [self.port, *self.legacy.values()]
        if len(set(ports)) < len(ports):
            raise ValueError(f"wants different ports, got {', '.join(map(str, ports))}")
        return self

    @model_validator(mode="after")
    def _models_are_applications(self) -> Self:
        known = self.ray.applications if self.ray else ()
        for field, models in (("legacy", self.legacy.keys()), ("vertex_endpoints", self.vertex_endpoints.values())):
            for model in models if known else ():
                if model not in known:
                    raise ValueError(f"{field}: wants one of ray.applications ({', '.join(known)}), got {model}")
        return self

    @model_validator(mode="after")
    def _files_are_there(self) -> Self:
        for name, path, kind in (
            ("tls.certificate", self.tls.certificate, Path.is_file),
            ("tls.key", self.tls.key, Path.is_file),
            ("studio", self.studio, Path.is_dir),
            ("openapi", self.openapi, Path.is_file),
        ):
            if path is not None and not kind(path):
                raise ValueError(f"{name}: there is no {'folder' if kind is Path.is_dir else 'file'} {path}")
        return self


def read_settings(path: Path = SETTINGS_FILE) -> EdgeSettings:
    """The settings in a file.

    Raises:
        EdgeError: no such file, or one that is no settings; one line for each fault, with file and field.
    """
    try:
        content: Any = yaml.load(path.read_text(encoding="utf-8"), StrictLoader)  # a safe loader
        return EdgeSettings.model_validate(content or {}, context={"folder": path.parent})
    except (OSError, UnicodeDecodeError) as error:
        raise EdgeError(f"{path}: cannot be read: {error}") from None
    except yaml.YAMLError as error:
        raise EdgeError(f"{path}: cannot be read as YAML: {error}") from None
    except ValidationError as error:
        raise EdgeError(str(SpecError(described(path, error)))) from None
