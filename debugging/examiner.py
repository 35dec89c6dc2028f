"""Scores and segment tables of images, from a network in this process or from a running server."""

from __future__ import annotations

import base64
import gzip
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from debugging.model import DebuggedModel
from debugging.segment_table import (
    COALITIONS,
    COALITIONS_SEED,
    ClassColumns,
    SegmentTable,
    but_whole,
)
from debugging.segmentation import Segmentation
from imagexplain.client import Client
from imagexplain.vision.decode import Photo
from imagexplain.vision.preprocess import ModelInput

PACKED = "application/gzip"


class Examiner(Protocol):
    """A source of scores and tables."""

    def scores(self, photo: Photo, seen: ModelInput) -> Tensor:
        """Pre-softmax scores (classes,) of a photo."""
        ...

    def table(self, name: str, photo: Photo, seen: ModelInput, classes: tuple[int, int]) -> SegmentTable:
        """Table of its segments for the wrong and the right class."""
        ...


@dataclass(frozen=True, eq=False)
class InProcess:
    """The network itself."""

    model: DebuggedModel
    segmentation: Segmentation

    def scores(self, photo: Photo, seen: ModelInput) -> Tensor:
        """See the protocol."""
        return self.model.evaluate(seen.image[None])[0][0]

    def table(self, name: str, photo: Photo, seen: ModelInput, classes: tuple[int, int]) -> SegmentTable:
        """See the protocol."""
        found = self.segmentation.segments(name, photo, seen)
        return self.model.table(seen.image, found.masks, found.labels, classes)


@dataclass(frozen=True, eq=False)
class Served:
    """A server that serves the model: it classifies, integrates, and replaces segments one by one and by sets.

    Attributes:
        client: Connection to it.
        model: Name of the model there.
        segmentation: Source of segments.
        options: Options of the path: ``baseline``, and ``steps`` where they are not the archive's.
    """

    client: Client
    model: str
    segmentation: Segmentation
    options: Mapping[str, Any]

    def scores(self, photo: Photo, seen: ModelInput) -> Tensor:
        """See the protocol."""
        scores: Tensor = self._ask("predictions", {"image": encoded(photo)})["output"][0]
        return scores

    def table(self, name: str, photo: Photo, seen: ModelInput, classes: tuple[int, int]) -> SegmentTable:
        """See the protocol.

        Segments that the answer has under a number get the names of their source.
        """
        wanted = self.segmentation.request(name, photo)
        sent = {"image": encoded(photo), **wanted.fields}
        absent = {**sent, "baseline": self.options["baseline"]}
        sets = {"method": "kernel_shap", "samples": COALITIONS, "seed": COALITIONS_SEED}
        columns, answer = [], {}
        for index in classes:
            answer = self._ask("explanations", {**sent, **self.options, "target_class": index})
            falls = self._ask("explanations", {**absent, "method": "feature_ablation", "target_class": index})
            values = self._ask("explanations", {**absent, **sets, "target_class": index})
            columns.append(
                ClassColumns(
                    answer["attribution"].double(),
                    answer["directional"].double(),
                    falls["attribution"].double(),
                    values["attribution"].double(),
                )
            )
        labels = answer["labels"]
        kept = but_whole(labels)
        wrong, right = (ClassColumns(*(column[kept] for column in vars(each).values())) for each in columns)
        names = tuple(wanted.names.get(labels[index], labels[index]) for index in kept)
        return SegmentTable(names, answer["group_masks"][kept], wrong, right)

    def _ask(self, endpoint: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        body = json.dumps(dict(fields)).encode()
        answer = self.client.post(f"{endpoint}/{self.model}", body, "application/json", accept=PACKED)
        content: dict[str, Any] = torch.load(io.BytesIO(gzip.decompress(answer.body)), weights_only=True)
        return content


def encoded(photo: Photo) -> str:
    """The photo's file as JSON holds it."""
    assert photo.encoded is not None  # read from a file
    return base64.b64encode(photo.encoded).decode("ascii")
