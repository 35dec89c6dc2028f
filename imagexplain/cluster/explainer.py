"""A model of an archive that answers photos one batch after another, without a server."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from imagexplain.api.request import Kind
from imagexplain.cluster.archive import load
from imagexplain.errors import RequestError
from imagexplain.serving.deadline import Deadline
from imagexplain.serving.messages import RawRequest, Response
from imagexplain.serving.metrics import NoMetrics
from imagexplain.serving.request_loop import AnyLoop

SECONDS = 24 * 3600.0
"""Time that a batch may take: nobody waits for an answer."""

REHEARSED = 16
"""Number of evaluations after which the rehearsal of a method ends: those of its baselines, and a look at the model."""

SAMPLE = Image.radial_gradient("L").resize((64, 64)).convert("RGB")
"""Photo of a rehearsal."""

OF_PHOTO = ("image", "masks", "absent", "contrast_class")
"""Fields whose refusal may be one photo's alone. A contrast class is refused where it is the predicted one."""


@dataclass(frozen=True)
class Rehearsal(Deadline):
    """A deadline by which any work is admitted, and given up once it has begun."""

    def check(self, remaining: int) -> None:
        """Give up before the first chunk of a path. Raises RequestError 503."""
        raise RequestError(503, "steps", "the rehearsal is over")

    def check_rows(self, rows: int) -> None:
        """Give up after some of a method's evaluations. Raises RequestError 503."""
        if rows > REHEARSED:
            raise RequestError(503, "method", "the rehearsal is over")


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
        """Refuse options that every photo would be refused for, before any is read.

        A request has its options checked before its image. Those that only the model can refuse, such as a method, a
        layer or a class, are found by a classifier's explanation of a sample, which is given up where it would begin.

        Args:
            kind: Endpoint that is meant.
            accept: Form of the answers.
            options: Options that all have in common, form-encoded.

        Raises:
            ValueError: an option that is unknown, malformed, or not for this model.
        """
        (answer,) = self.answer([{"image": b"none"}], kind, accept, options)
        _raise_of(answer, but=("image",))
        if kind == "explanation" and self.worker.task.spec.handler == "classifier":
            file = io.BytesIO()
            SAMPLE.save(file, "png")
            (answer,) = self._handle([{"image": file.getvalue()}], kind, accept, options, Rehearsal)
            if answer.status in (400, 422):
                _raise_of(answer, but=OF_PHOTO)

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
        found: list[Response] = []
        for start in range(0, len(bodies), self.batch):
            found += self._handle(bodies[start : start + self.batch], kind, accept, options)
        return found

    def _handle(
        self,
        bodies: Sequence[Mapping[str, bytes]],
        kind: Kind,
        accept: str,
        options: str,
        deadline: type[Deadline] = Deadline,
    ) -> list[Response]:
        """The answers of a batch."""
        headers = {"accept": accept, "x-explain-options": options}
        requests = [RawRequest(dict(body), headers, kind) for body in bodies]
        return self.worker.handle(requests, deadline.starting_now(SECONDS, 0, self.worker.task.spec.explain.steps + 2))


def _raise_of(refusal: Response, but: Sequence[str]) -> None:
    """Raise ValueError of a refusal, unless it is about one of certain fields."""
    refused = json.loads(refusal.body)
    if refused["field"] not in but:
        raise ValueError(f"{refused['field']}: {refused['message']}")
