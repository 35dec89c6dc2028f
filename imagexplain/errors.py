"""Typed errors: of the library's arguments, and the one that a client can cause with the JSON it is answered with."""

from __future__ import annotations

import reprlib
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

WORDS = {
    400: "bad_request",
    406: "not_acceptable",
    413: "too_large",
    415: "unsupported_media",
    422: "unprocessable",
    500: "internal",
    503: "busy",
}

_LISTED = 20
_LONGEST_NAME = 200  # characters; beyond it, nearest names are not looked for, and a field is cut
_LONGEST_MESSAGE = 2000

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 60
_repr.maxlist = _repr.maxtuple = _repr.maxdict = 3
_repr.maxlevel = 2


class ArgumentError(ValueError):
    """Argument of the library that does not fit.

    Attributes:
        field: Name of the argument.
        message: Words that say what was wanted and what was given.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(field, message)
        self.field = field
        self.message = message

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class UnsupportedModelError(ArgumentError):
    """A model that a method does not support."""


class LayerError(ArgumentError):
    """A layer that the model does not have, or that a method cannot look at."""


class RequestError(Exception):
    """A request that cannot be answered.

    Attributes:
        status: HTTP status code, one of ``WORDS``.
        field: Part of the request at fault (``image``, ``img_data``, ``steps``, ``accept``, …).
        message: Words that say what was wanted and what was given.
    """

    def __init__(self, status: int, field: str, message: str) -> None:
        if status not in WORDS:
            raise ValueError(f"status: wanted one of {sorted(WORDS)}, got {status!r}")
        super().__init__(status, field, message)
        self.status = status
        # Parts of both come from the client: a short request must not make a long answer.
        self.field = _cut(field, _LONGEST_NAME)
        self.message = _cut(message, _LONGEST_MESSAGE)

    def __str__(self) -> str:
        return f"{self.status} {self.field}: {self.message}"

    @property
    def error(self) -> str:
        """Status as a short word for machines, such as ``bad_request``."""
        return WORDS[self.status]

    def body(self) -> bytes:
        """Body of the answer: the JSON object ``{"code", "error", "field", "message"}``."""
        import msgspec  # which the library does without

        text = {"error": self.error, "field": _encodable(self.field), "message": _encodable(self.message)}
        return msgspec.json.encode({"code": self.status, **text})


def shown(value: object) -> str:
    """Short text of ``value`` that is safe to show back to whoever sent it."""
    return _repr.repr(value)


def unknown(what: str, name: object, known: Iterable[str]) -> str:
    """Sentence for a name that is none of ``known``: the nearest of them, and all of them if they are few."""
    names = list(known)
    near = get_close_matches(name, names, n=3) if isinstance(name, str) and len(name) <= _LONGEST_NAME else []
    hint = f" (did you mean {' or '.join(map(repr, near))}?)" if near else ""
    listed = f"known: {', '.join(names)}" if len(names) <= _LISTED else f"{len(names)} are known"
    return f"unknown {what} {shown(name)}{hint}; {listed}"


def listed(names: Iterable[object]) -> str:
    """First few of the names that a client sent, and how many there are."""
    names = list(names)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (", ".join(map(shown, names[:5])) or "(none)") + more


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}…"


def _encodable(text: str) -> str:
    """Text without lone surrogates, which a header or a JSON string can smuggle in and UTF-8 cannot carry."""
    return text.encode("utf-8", "replace").decode("utf-8")
