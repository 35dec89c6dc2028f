"""Requests for predictions and explanations, from a photo and options."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import numpy as np

from imagexplain.client.errors import InputError
from imagexplain.client.masks import content_in_json, masks_in_json
from imagexplain.client.message import JSON, Endpoint, Request
from imagexplain.client.photos import Photo, file_of, read

OPTIONS_HEADER = "X-Explain-Options"
MAX_HEADER = 3000
"""Characters of options in a header; longer ones go into the body."""
MAX_HEADER_OPTIONS = 32
CLASSES = ("target_class", "contrast_class")
"""Options whose text is a label, so that an index is no text."""


def ask(
    endpoint: Endpoint,
    model: str,
    photo: Photo | None,
    accept: str,
    options: Mapping[str, Any],
    *,
    fresh: bool = False,
    request_id: str | None = None,
) -> Request:
    """The request for an answer of a model.

    Short options go into a header, the file of the photo is the body. Where an option is long, or means another thing
    as text, it goes with the photo into JSON.

    Args:
        endpoint: Endpoint to ask.
        model: Name of the model, or name/version.
        photo: Photo; None for a captioner that is given features.
        accept: Media type of the answer.
        options: Options by name; those that are None count as not given.
        fresh: Flag for an answer that is computed anew, even where it is cached.
        request_id: Id of the request, for the server's log; a new one by default.

    Raises:
        InputError: a photo or an option that cannot be sent.

    Example:
        >>> from imagexplain.client.build import ask
        >>> made = ask("explanations", "bit", b"photo", "image/png", {"target_class": "star", "steps": 20})
        >>> made.path, made.body, made.headers["X-Explain-Options"]
        ('explanations/bit', b'photo', 'target_class=star&steps=20')
    """
    headers = {"Accept": accept}
    if fresh:
        headers["Cache-Control"] = "no-cache"
    if request_id is not None:
        headers["X-Request-Id"] = request_id
    path = f"{endpoint}/{quote(model, safe='/')}"
    given = {name: value for name, value in options.items() if value is not None}
    text, fields = _parted(given)
    if text:
        headers[OPTIONS_HEADER] = urlencode(text)
    if photo is not None and not fields:
        body, headers["Content-Type"] = file_of(photo)
        if not body:
            raise InputError("photo: wanted the file of a photo, got no bytes")
        return Request(path, headers, body)
    if photo is not None:
        fields["image"] = base64.b64encode(file_of(photo)[0]).decode("ascii")
    try:
        body = msgspec.json.encode(fields)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"options: wanted values that JSON has: {error}") from None
    return Request(path, headers | {"Content-Type": JSON}, body)


def _parted(options: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """The options of the header, and those of the body as fields of JSON."""
    text: dict[str, str] = {}
    fields: dict[str, Any] = {}
    for name, value in options.items():
        if _is_short(name, value) and len(text) < MAX_HEADER_OPTIONS:
            more = text | {name: _text(value)}
            if len(urlencode(more)) <= MAX_HEADER:
                text = more
                continue
        fields[name] = FILES.get(name, _plain)(value)
    return text, fields


def _is_short(name: str, value: Any) -> bool:
    """Tell whether an option's text means the same as its value."""
    if name in FILES:
        return False
    if isinstance(value, str):
        return value == value.strip() and value.isprintable() and not (name in CLASSES and value[:1] == "[")
    return isinstance(value, bool | float) or (isinstance(value, int) and name not in CLASSES)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _plain(value: Any) -> Any:
    """A value as JSON has it; arrays and numbers of numpy as lists and numbers."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _image(value: Any) -> str:
    return base64.b64encode(file_of(value)[0]).decode("ascii")


def _file(value: Any) -> Any:
    """A file of JSON or safetensors, or what it would say."""
    if isinstance(value, str | os.PathLike):
        return content_in_json(read(Path(value)))
    if isinstance(value, bytes):
        return content_in_json(value)
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return _plain(value)


def _graphs(value: Any) -> Any:
    return (
        [_file(each) for each in value] if isinstance(value, Sequence) and not isinstance(value, str) else _file(value)
    )


FILES: Mapping[str, Callable[[Any], Any]] = {
    "masks": masks_in_json,
    "baseline_image": _image,
    "baseline_tensor": _file,
    "graph": _file,
    "graphs": _graphs,
    "features": _file,
}
"""Options that may be files, with the function that makes a field of JSON of each."""


def from_text(options: Mapping[str, str]) -> dict[str, Any]:
    """Options as a command line has them: lists and objects of JSON become what they say, all else stays text.

    Example:
        >>> from imagexplain.client.build import from_text
        >>> from_text({"target_class": '["star", 3]', "steps": "20"})
        {'target_class': ['star', 3], 'steps': '20'}
    """
    found: dict[str, Any] = {}
    for name, value in options.items():
        found[name] = value
        if value[:1] in ("[", "{"):
            try:
                found[name] = json.loads(value)
            except ValueError:
                continue  # a label may begin so
    return found
