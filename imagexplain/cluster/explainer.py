"""A model of an archive that answers photos one batch after another, without a server."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imagexplain.api.request import Kind
from imagexplain.cluster.archive import load
from imagexplain.serving.deadline import Deadline
from imagexplain.serving.messages import RawRequest, Response
from imagexplain.serving.metrics import NoMetrics
from imagexplain.serving.request_loop import AnyLoop

SECONDS = 24 * 3600.0
"""Time that a batch may take: nobody waits for an answer."""


@dataclass
class Explainer:
    """A loaded model. It answers as a worker of the server does, and with the same bytes.

    Attributes:
        worker: Worker of the model.
        folder: Directory of the unpacked archive, which goes with this.
    """

    worker: AnyLoop
    folder: tempfile.TemporaryDirectory[str] = field(repr=False)

    @classmethod
    def load(cls, archive: Path, *kinds: str) -> Explainer:
        """The model of an archive of one of these kinds.

        Raises:
            ValueError: an archive of another kind, a damaged one, or none of this service's.
            OSError: no such archive, or no room for its files.
        """
        folder = tempfile.TemporaryDirectory(prefix="imagexplain-")
        return cls(load(archive, Path(folder.name), NoMetrics(), kinds), folder)

    @property
    def batch(self) -> int:
        """Number of photos that are computed at once."""
        return self.worker.task.spec.serving.batch_size

    def check_options(self, kind: Kind, accept: str, options: str) -> None:
        """Refuse options that every photo would be refused for: a request checks them before its image.

        Raises:
            ValueError: an option that is unknown, malformed, or not for this model.
        """
        (answer,) = self.answer([{"image": b"none"}], kind, accept, options)
        refused = json.loads(answer.body)
        if refused["field"] != "image":
            raise ValueError(f"{refused['field']}: {refused['message']}")

    def answer(
        self, bodies: Sequence[Mapping[str, bytes]], kind: Kind, accept: str, options: str = ""
    ) -> list[Response]:
        """Answer requests, a batch at a time.

        Args:
            bodies: Parts of a form for each photo: ``image``, and whatever options are too long for a line.
            kind: Endpoint that is meant.
            accept: Form of the answers.
            options: Options that all have in common, form-encoded.
        """
        headers = {"accept": accept, "x-explain-options": options}
        steps = self.worker.task.spec.explain.steps + 2
        found: list[Response] = []
        for start in range(0, len(bodies), self.batch):
            requests = [RawRequest(dict(body), headers, kind) for body in bodies[start : start + self.batch]]
            found += self.worker.handle(requests, Deadline.starting_now(SECONDS, 0, steps))
        return found
