"""An authorised connection to a server, which sends photos in the forms that the server takes."""

from __future__ import annotations

import base64
import json
import mimetypes
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import requests

from imagexplain.client.loopback import stays_here

T = TypeVar("T")


class ClientError(RuntimeError):
    """A missing server, or an answer that is not a success; the message says which, in the server's words."""


@dataclass(frozen=True)
class Answer:
    """A successful answer, and the seconds from request to last byte."""

    body: bytes
    media: str
    seconds: float

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Client:
    """A connection to the inference address `url`, with the header that authorises it; for one thread at a time."""

    url: str
    headers: Mapping[str, str]

    @cached_property
    def session(self) -> requests.Session:
        """The connection: to this machine without a proxy, and never with a .netrc's password in the key's place."""
        session = requests.Session()
        session.trust_env = not stays_here(self.url)
        session.auth = lambda request: request
        return session

    def post(
        self, path: str, body: bytes, media: str, *, accept: str = "*/*", options: Mapping[str, Any] | None = None
    ) -> Answer:
        """Post a body; `options` are those of an explanation. Raises ClientError."""
        headers = {**self.headers, "Content-Type": media, "Accept": accept}
        if options:
            headers["X-Explain-Options"] = urlencode(options)
        started = time.perf_counter()
        try:
            answer = self.session.post(f"{self.url}/{path}", data=body, headers=headers, timeout=3600)
        except requests.RequestException as error:
            raise ClientError(f"no answer from {self.url}: {error}") from None
        seconds = time.perf_counter() - started
        if not answer.ok:
            raise ClientError(f"{path}: {answer.status_code} {_message(answer)}")
        return Answer(answer.content, answer.headers.get("Content-Type", ""), seconds)

    def photo(self, path: str, photo: Path, *, files: Mapping[str, Path] | None = None, **settings: Any) -> Answer:
        """Post an encoded photo as it is; with further files, JSON and images, all of them as JSON.

        Raises:
            ClientError: no answer, or no success.
        """
        if files:
            fields = {"image": _in_json(photo), **{name: _in_json(file) for name, file in files.items()}}
            return self.post(path, json.dumps(fields).encode(), "application/json", **settings)
        media = mimetypes.guess_type(photo.name)[0] or "application/octet-stream"
        return self.post(path, photo.read_bytes(), media, **settings)


def _in_json(file: Path) -> Any:
    """A file's contents as a field of JSON."""
    data = file.read_bytes()
    return json.loads(data) if file.suffix == ".json" else base64.b64encode(data).decode("ascii")


def per_thread(make: Callable[[], T]) -> Callable[[], T]:
    """A function that gives each thread its own `make()`."""
    own = threading.local()

    def get() -> T:
        if not hasattr(own, "value"):
            own.value = make()
        value: T = own.value
        return value

    return get


def _message(answer: requests.Response) -> str:
    try:
        body = answer.json()
        return f"{body['field']}: {body['message']}" if "field" in body else str(body["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200] or answer.reason or "(empty answer: larger than the server takes?)"
