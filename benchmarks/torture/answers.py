"""Requests whose answers are known, and the verdict on each answer that comes."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import requests
from PIL import Image

from training.scenes import SceneSettings, scene

NEAR = 1e-3
"""Relative difference of two numbers that count as the same: batches of another size round otherwise."""

RETRY = (429, 502, 503, 504)
"""Statuses that have to say when to come back."""


class Verdict(Enum):
    """A request's fate."""

    RIGHT = "right"
    WRONG = "wrong"
    CLEAR = "clear errors"
    UNCLEAR = "unclear"
    LOST = "lost"


@dataclass(frozen=True)
class Question:
    """A request whose answer is known.

    Attributes:
        path: Endpoint and model.
        body: Body, an encoded photo.
        options: Options of an explanation, form-encoded.
    """

    path: str
    body: bytes
    options: str = ""

    @property
    def headers(self) -> dict[str, str]:
        """Headers that ask for JSON, computed anew."""
        asked = {"X-Explain-Options": self.options} if self.options else {}
        return {"Accept": "application/json", "Cache-Control": "no-cache", "Content-Type": "image/jpeg", **asked}

    def ask(self, session: requests.Session, url: str, timeout: float = 60) -> requests.Response:
        """The answer."""
        return session.post(f"{url}{self.path}", data=self.body, headers=self.headers, timeout=timeout)


def questions() -> tuple[Question, ...]:
    """One request of each kind, of the demonstration's small models."""
    return (
        Question("/predictions/bit", photo(1)),
        Question("/explanations/bit", photo(2), "steps=8&target_class=star"),
        Question("/explanations/vit", photo(3), "method=grad_cam"),
        Question("/explanations/vit", photo(4), "steps=6&segments=tensormask&fallback=grid"),
        Question("/predictions/tensormask", photo(5)),
    )


def same(given: Any, wanted: Any) -> bool:
    """Tell whether two answers say the same, numbers up to :data:`NEAR`."""
    if isinstance(wanted, dict):
        return (
            isinstance(given, dict) and given.keys() == wanted.keys() and all(same(given[k], wanted[k]) for k in wanted)
        )
    if isinstance(wanted, list):
        return isinstance(given, list) and len(given) == len(wanted) and all(map(same, given, wanted))
    if isinstance(wanted, float) and isinstance(given, int | float):
        return math.isclose(given, wanted, rel_tol=NEAR, abs_tol=NEAR)
    return bool(given == wanted)


def verdict_on(answer: requests.Response, *wanted: Any, equal: Callable[[Any, Any], bool] = same) -> Verdict:
    """The verdict on an answer that has come.

    Args:
        answer: Answer.
        wanted: Contents of right ones.
        equal: Function that tells whether two contents are the same.
    """
    try:
        content = answer.json()
    except ValueError:
        return Verdict.UNCLEAR
    if answer.status_code == 200:
        given = _of_any_version(content)
        right = any(equal(given, _of_any_version(each)) for each in wanted)
        return Verdict.RIGHT if right else Verdict.WRONG
    return Verdict.CLEAR if is_clear(answer, content) else Verdict.UNCLEAR


def is_clear(answer: requests.Response, content: Any) -> bool:
    """Tell whether an error is in the service's form: its status, a word, a field, a message, and when to come back."""
    if not isinstance(content, dict) or not {"code", "error", "field", "message"} <= content.keys():
        return False
    if answer.status_code == 500:  # "its log says why" is clear to nobody
        return False
    return content["code"] == answer.status_code and (
        answer.status_code not in RETRY or "Retry-After" in answer.headers
    )


def _of_any_version(content: Any) -> Any:
    """An answer without the version of the model that gave it, which a replacement changes."""
    if isinstance(content, dict) and isinstance(content.get("model"), str):
        return {**content, "model": content["model"].partition("/")[0]}
    return content


def photo(seed: int) -> bytes:
    """An encoded photo of a scene."""
    file = io.BytesIO()
    Image.fromarray(scene(seed, 0, SceneSettings(size=(120, 160))).image).save(file, "JPEG", quality=90)
    return file.getvalue()
