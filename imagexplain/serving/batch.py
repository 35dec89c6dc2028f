"""Explanations of many instances without a server: JSON lines to JSON lines, as Vertex AI's batch jobs have them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from imagexplain.api.request import JSON, Kind
from imagexplain.serving.deadline import Deadline
from imagexplain.serving.messages import RawRequest, Response
from imagexplain.serving.protocols import PROTOCOL_HEADER, exchange, respond_all
from imagexplain.serving.protocols.vertex_request import SPEC
from imagexplain.serving.tasks.classifier import Classifier
from imagexplain.serving.worker import Worker

AT_ONCE = 8
"""Number of instances that are computed at once."""

SECONDS = 24 * 3600.0
"""Time that they may take: nobody waits for an answer."""


@dataclass(frozen=True)
class Job:
    """A batch job, as ``BatchPredictionJob`` of google.cloud.aiplatform.v1 describes it.

    Attributes:
        explains: Flag for explanations beside predictions, its ``generate_explanation``.
        parameters: Its ``model_parameters``.
        spec: Its ``explanation_spec``.
        at_once: Number of instances that are computed at once.
    """

    explains: bool = True
    parameters: Mapping[str, Any] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    at_once: int = AT_ONCE

    def results(self, worker: Worker[Classifier], instances: Iterable[bytes]) -> Iterator[dict[str, Any]]:
        """Yield the result of each line, in order; no more than :attr:`at_once` are held.

        Args:
            worker: Model.
            instances: Lines of JSON, one instance each.

        Returns:
            ``instance`` with ``prediction`` and ``explanation``, or with the ``error`` that it was refused with.
        """
        left = iter(instances)
        while lines := list(itertools.islice(left, self.at_once)):
            yield from self._results(worker, lines)

    def _results(self, worker: Worker[Classifier], lines: Sequence[bytes]) -> list[dict[str, Any]]:
        spec = worker.task.spec
        exchanges = [exchange(self._request(line), spec) for line in lines]
        deadline = Deadline.starting_now(SECONDS, 0, spec.explain.steps + 2)
        answers = respond_all(exchanges, worker, deadline)
        return [self._result(line, answer) for line, answer in zip(lines, answers, strict=True)]

    def _request(self, line: bytes) -> RawRequest:
        kind: Kind = "explanation" if self.explains else "prediction"
        body: dict[str, Any] = {"instances": [_json(line)], "parameters": self.parameters}
        if self.explains and self.spec:
            body[SPEC] = self.spec
        headers = {PROTOCOL_HEADER: "vertex", "content-type": JSON}
        return RawRequest({"body": msgspec.json.encode(body)}, headers, kind)

    def _result(self, line: bytes, response: Response) -> dict[str, Any]:
        answer = json.loads(response.body)
        result: dict[str, Any] = {"instance": _json(line)}
        if response.status != 200:
            return result | {"error": answer}
        result["prediction"] = answer["predictions"][0]
        return result | ({"explanation": answer["explanations"][0]} if self.explains else {})


def _json(line: bytes) -> Any:
    """The value of a line; a text where it is none, which is refused as an instance."""
    try:
        return msgspec.json.decode(line, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return line.decode("utf-8", "replace")
