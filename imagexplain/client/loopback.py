"""HTTP to this machine: never by way of a proxy, whatever the environment names, for it would see keys and photos."""

from __future__ import annotations

import ipaddress
from http.client import HTTPResponse
from typing import cast
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, Request, build_opener

LOOPBACK = "127.0.0.1"
ANYWHERE = "0.0.0.0"


def urlopen(request: str | Request, timeout: float) -> HTTPResponse:
    """The answer to a request, after at most so many seconds without a byte; raises what urllib's function raises."""
    return cast(HTTPResponse, build_opener(ProxyHandler({})).open(request, timeout=timeout))


def is_loopback(host: str) -> bool:
    """Tell whether a host's name or address is this machine's alone; names other than localhost are not looked up."""
    name = host.strip("[]").rstrip(".").lower()
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def stays_here(url: str) -> bool:
    """Tell whether a request to the address stays on this machine."""
    host = urlsplit(url).hostname or ""
    return is_loopback(host) or host in (ANYWHERE, "::")


def reachable(host: str) -> str:
    """The address by which a server on this machine is asked that listens on `host`."""
    return LOOPBACK if host == ANYWHERE else host
