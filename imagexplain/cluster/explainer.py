"""A model of an archive that answers photos one batch after another, without a server."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from imagexplain.api.request import Kind
from imagexplain.archive.spec import SPEC_FILE, ModelSpec
from imagexplain.ops.check_archive import check
from imagexplain.serving.deadline import Deadline
from imagexplain.serving.messages import RawRequest, Response
from imagexplain.serving.metrics import NoMetrics
from imagexplain.serving.runtime import device
from imagexplain.serving.tasks.classifier import Classifier
from imagexplain.serving.tasks.segmenter import Segmenter
from imagexplain.serving.worker import Worker

KINDS: Mapping[str, type[Classifier] | type[Segmenter]] = {"classifier": Classifier, "segmenter": Segmenter}
"""Kinds of models whose answers are scores, by their archives' handlers."""

SECONDS = 24 * 3600.0
"""Time that a batch may take: nobody waits for an answer."""


@dataclass
class Explainer:
    """A loaded model. It answers as a worker of the server does, and with the same bytes.

    Attributes:
        worker: Worker of the model.
        batch: Number of photos that are computed at once.
    """

    worker: Worker[Any]
    batch: int
    _folder: tempfile.TemporaryDirectory[str] = field(repr=False)

    @classmethod
    def load(cls, archive: Path) -> Explainer:
        """Unpack an archive of a classifier or a segmenter, for as long as this lives, and load its model.

        Raises:
            ValueError: no such archive, a damaged one, or one of a captioner.
            OSError: no room for its files.
        """
        check(archive)
        folder = tempfile.TemporaryDirectory(prefix="imagexplain-")
        with zipfile.ZipFile(archive) as content:
            handler = json.loads(content.read(SPEC_FILE))["handler"] if SPEC_FILE in content.namelist() else "none"
            if handler not in KINDS:
                raise ValueError(f"{archive}: wanted the archive of a {' or a '.join(KINDS)}, got handler {handler!r}")
            content.extractall(folder.name)
        task = KINDS[handler].load(Path(folder.name), device({"gpu_id": 0}))
        return cls(Worker.start(task, Path(folder.name), NoMetrics()), task.spec.serving.batch_size, folder)

    @property
    def spec(self) -> ModelSpec:
        """The archive's spec."""
        return self.worker.task.spec

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
        found: list[Response] = []
        for start in range(0, len(bodies), self.batch):
            requests = [RawRequest(dict(body), headers, kind) for body in bodies[start : start + self.batch]]
            deadline = Deadline.starting_now(SECONDS, 0, self.spec.explain.steps + 2)
            found += self.worker.handle(requests, deadline)
        return found
