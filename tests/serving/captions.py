"""Requests to a captioner's handler, and scenes for them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from handlers.captioner import CaptionerHandler
from tests.serving.asking import base64_png
from tests.serving.fake_torchserve import Context

BOXES = ([2, 2, 20, 20], [20, 10, 20, 24])
"""Boxes within the photo of noise, (x, y, width, height)."""

GRAPH: dict[str, Any] = {
    "objects": [{"box": BOXES[0], "attributes": ["red"], "name": "star"}, {"box": BOXES[1], "attributes": 2}],
    "relationships": [[0, 1, "left of"]],
}
"""Six nodes: two objects, three attributes, a relationship."""

Asked = tuple[str, Mapping[str, Any]]


def ask_many(
    handler: CaptionerHandler, *asked: Asked, accept: str = "application/json", **headers: str
) -> list[tuple[int, bytes]]:
    """Statuses and bodies of a batch of JSON requests, each to an endpoint, about the photo of noise."""
    context = Context(
        headers=[
            {"Accept": accept, "Content-Type": "application/json", **headers}
            | ({"explain": "True"} if kind == "explanation" else {})
            for kind, _ in asked
        ]
    )
    rows = [{"body": bytearray(json.dumps({"image": base64_png(), **body}).encode())} for _, body in asked]
    bodies = handler.handle(rows, context)
    return [(context.statuses[index], body) for index, body in enumerate(bodies)]


def predicted(handler: CaptionerHandler, graph: Any = GRAPH, **options: Any) -> dict[str, Any]:
    """The answer about one graph."""
    ((status, body),) = ask_many(handler, ("prediction", {"graph": graph, **options}))
    assert status == 200, body
    (found,) = json.loads(body)["graphs"]
    return found


def explained(handler: CaptionerHandler, graph: Any = GRAPH, **options: Any) -> dict[str, Any]:
    """The explanation of one graph's caption."""
    ((status, body),) = ask_many(handler, ("explanation", {"graph": graph, **options}))
    assert status == 200, body
    (found,) = json.loads(body)["graphs"]
    return found


def refused(handler: CaptionerHandler, kind: str = "prediction", **body: Any) -> tuple[int, str, str]:
    """Status, field and message of a refusal; a value of None takes the photo or the graph away."""
    content = {name: value for name, value in {"graph": GRAPH, **body}.items() if value is not None or name == "image"}
    ((status, answer),) = ask_many(handler, (kind, content))
    error = json.loads(answer)
    return status, error["field"], error["message"]


def in_form(handler: CaptionerHandler, parts: Mapping[str, bytes], kind: str = "prediction") -> tuple[int, Any]:
    """Status and answer of a multipart request, as TorchServe hands its parts over."""
    context = Context(headers=[{"explain": "True"} if kind == "explanation" else {}])
    (body,) = handler.handle([{name: bytearray(value) for name, value in parts.items()}], context)
    return context.statuses[0], json.loads(body)


def words_of(found: Mapping[str, Any]) -> Sequence[str]:
    """The words of an answer's caption, signs included."""
    return [token["word"] for token in found["tokens"]]
