"""Forms of the answers that a command writes."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imagexplain.client import Answer, AnswerError
from imagexplain.client.answers import summary_of
from imagexplain.client.message import GZIP, JSON, PNG, SAFETENSORS, WITH_SUMMARY

SUFFIXES: Mapping[str, str] = {JSON: ".json", GZIP: ".gzip", PNG: ".png", SAFETENSORS: ".safetensors"}
"""Ends of the names of files by media type."""


@dataclass(frozen=True)
class Form:
    """A form of answers: what is asked for, and the end of its files' names."""

    accept: str
    suffix: str


FORMS: Mapping[str, Form] = {
    "json": Form(JSON, ".json"),
    "gzip": Form(GZIP, ".gzip"),
    "png": Form(PNG, ".png"),
    "safetensors": Form(WITH_SUMMARY, ".safetensors"),
}
"""Forms by name."""


def check(answer: Answer, form: Form) -> dict[str, Any] | None:
    """The values of an answer where its form has them, once it is known to be of the form, and whole.

    Raises:
        AnswerError: it is not.
    """
    wanted = form.accept.partition(";")[0]
    if answer.media.partition(";")[0].strip().lower() != wanted:
        raise AnswerError(f"wanted {wanted}, got {answer.media or 'an answer without a type'}")
    if wanted in (JSON, SAFETENSORS):
        return values(summary_of(answer))
    try:
        if wanted == GZIP:
            gzip.decompress(answer.body)
        elif answer.body[:8] != b"\x89PNG\r\n\x1a\n" or answer.body[-8:-4] != b"IEND":
            raise AnswerError("wanted a whole PNG")
    except (OSError, EOFError, zlib.error) as error:
        raise AnswerError(f"wanted a whole gzip: {error}") from None
    return None


def values(body: bytes) -> dict[str, Any]:
    """An object of JSON. Raises AnswerError."""
    try:
        found = json.load(io.BytesIO(body))
    except (ValueError, RecursionError) as error:
        raise AnswerError(f"wanted JSON: {error}") from None
    if not isinstance(found, dict):
        raise AnswerError("wanted an object of JSON")
    return found
