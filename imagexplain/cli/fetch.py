"""Small documents of a server: JSON that a GET or a refused request answers with."""

from __future__ import annotations

import json
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request
from urllib.request import urlopen as urlopen_anywhere

from imagexplain.client.loopback import stays_here, urlopen

SECONDS = 30.0
"""Time without a byte after which an answer is given up."""


class NoAnswerError(RuntimeError):
    """An address that does not answer, or not with JSON."""


def fetch(
    url: str, key: str = "", body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """The status and the JSON of an answer, whatever the status is.

    Args:
        url: Address.
        key: Key of its API, if it wants one.
        body: Body to post; without one the request is a GET.
        headers: Further headers.

    Raises:
        NoAnswerError: nobody answers there, or not with a JSON object.
    """
    own = {"Authorization": f"Bearer {key}"} if key else {}
    request = Request(url, data=body, headers={**own, **(headers or {})})
    try:
        opened = urlopen if stays_here(url) else urlopen_anywhere
        try:
            with opened(request, timeout=SECONDS) as answer:
                status, text = answer.status, answer.read()
        except HTTPError as error:
            status, text = error.code, error.read()
        found = json.loads(text)
    except (OSError, ValueError) as error:
        raise NoAnswerError(f"no answer from {url}: {error}") from None
    if not isinstance(found, dict):
        raise NoAnswerError(f"no answer from {url}: wanted a JSON object")
    return status, found
