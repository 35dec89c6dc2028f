"""Calls of both clients: each a request, and the function that reads its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from imagexplain.client import build
from imagexplain.client.answers import (
    Explanation,
    Prediction,
    explanation_of,
    picture_of,
    prediction_of,
)
from imagexplain.client.errors import AnswerError
from imagexplain.client.message import JSON, PNG, WITH_SUMMARY, Answer, Endpoint, Request
from imagexplain.client.photos import Photo

T = TypeVar("T")


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and the function that reads its answer."""

    request: Request
    decode: Callable[[Answer], T]


def predict(photo: Photo | None, model: str, options: Mapping[str, Any], request_id: str | None) -> Call[Prediction]:
    """A call for a prediction."""
    return Call(build.ask("predictions", model, photo, JSON, options, request_id=request_id), prediction_of)


def explain(
    photo: Photo | None, model: str, options: Mapping[str, Any], *, tensors: bool, fresh: bool, request_id: str | None
) -> Call[Explanation]:
    """A call for an explanation, with tensors or without."""
    accept = WITH_SUMMARY if tensors else JSON
    request = build.ask("explanations", model, photo, accept, options, fresh=fresh, request_id=request_id)
    return Call(request, explanation_of)


def picture(photo: Photo | None, model: str, endpoint: Endpoint, options: Mapping[str, Any]) -> Call[bytes]:
    """A call for a picture."""
    return Call(build.ask(endpoint, model, photo, PNG, options), picture_of)


def ask(
    endpoint: Endpoint, photo: Photo | None, model: str, accept: str, options: Mapping[str, Any], *, fresh: bool
) -> Call[Answer]:
    """A call for an answer in any form, as it comes."""
    return Call(build.ask(endpoint, model, photo, accept, options, fresh=fresh), lambda answer: answer)


def models() -> Call[tuple[str, ...]]:
    """A call for the names of the models."""
    return Call(Request("v1/models", {"Accept": JSON}), _names)


def document() -> Call[dict[str, Any]]:
    """A call for the OpenAPI document."""
    return Call(Request("openapi.json", {"Accept": JSON}), _object)


def _names(answer: Answer) -> tuple[str, ...]:
    names = _object(answer).get("models")
    if not isinstance(names, list):
        raise AnswerError("wanted a list of models, got an answer without")
    return tuple(map(str, names))


def _object(answer: Answer) -> dict[str, Any]:
    try:
        return msgspec.json.decode(answer.body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise AnswerError(f"wanted an object of JSON: {error}") from None
