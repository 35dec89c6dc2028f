"""Answers of the compared models on the same images, and the segments that their scores come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from debugging.comparison import positive_shares
from debugging.images import ImageFolder, read_photo
from debugging.model import DebuggedModel
from debugging.results import Record
from debugging.segment_table import table_of
from debugging.segmentation import Segmentation
from imagexplain.errors import ArgumentError, RequestError

MEASURES = ("area", "drive", "directional")
"""Parts by segment: of the image's area, of the drive of the named class, and of its directional gradient."""


@dataclass(frozen=True, eq=False)
class Respondent:
    """A model that answers on a labelled folder.

    Attributes:
        name: Name in the comparison.
        model: The model.
        folder: Images by class.
    """

    name: str
    model: DebuggedModel
    folder: ImageFolder

    def classify(self, record: Record) -> None:
        """Put the named class and the probability of the true one on record, for every image that is not.

        Raises:
            ArgumentError: a class folder that is no class of the model.
        """
        for name in self.folder.classes:
            self.model.index(name)
        for name in tqdm(record.missing(self.folder.names), desc=f"answers of {self.name}", unit="image"):
            record.add({"image": name, **self._answer(name)})

    def explain(self, names: Sequence[str], segments: Segmentation, record: Record) -> None:
        """Put the shares of each segment label of some images on record.

        Raises:
            ArgumentError: no label map for an image, or one that does not fit it.
        """
        for name in tqdm(record.missing(names), desc=f"segments of {self.name}", unit="image"):
            record.add({"image": name, "segments": self._shares(name, segments)})

    def _answer(self, name: str) -> dict[str, Any]:
        label = self.folder.label(name)
        assert label is not None
        try:
            seen = self.model.see(read_photo(self.folder.file(name)))
        except (ArgumentError, RequestError) as error:
            return {"truth": label, "skipped": error.message}
        probabilities = self.model.evaluate(seen.image[None])[0][0].double().softmax(0)
        named = int(probabilities.argmax())
        return {
            "truth": label,
            "named": self.model.labels[named],
            "confidence": probabilities[named].item(),
            "truth_probability": probabilities[self.model.index(label)].item(),
        }

    def _shares(self, name: str, segments: Segmentation) -> dict[str, Any]:
        photo = read_photo(self.folder.file(name))
        seen = self.model.see(photo)
        found = segments.segments(name, photo, seen)
        masks, labels = by_label(found.masks, found.labels)
        model = self.model
        named = int(model.evaluate(seen.image[None])[0][0].argmax())
        start = model.start(seen.image)
        path = model.served.explain(seen.image[None], start[None], named)[0]
        table = table_of(model.network, [path] * 2, start, masks, labels, [named] * 2, model.served.chunk)
        parts = {
            "area": table.area_share.tolist(),
            "drive": positive_shares(table.drive.tolist()),
            "directional": positive_shares(table.wrong.directional.tolist()),
        }
        return {
            label: {measure: None if values is None else values[index] for measure, values in parts.items()}
            for index, label in enumerate(table.labels)
        }


def by_label(masks: Tensor, labels: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """Masks (S, H, W) of the same label as one, in the order of the labels' first appearance."""
    names = tuple(dict.fromkeys(labels))
    together = [masks[[label == name for label in labels]].any(0) for name in names]
    return (torch.stack(together) if together else masks), names


def parts_by_image(records: Sequence[Mapping[str, Any]], label: str, measure: str) -> list[float]:
    """A label's part in each image: 0 where the image lacks it, NaN where nothing in the image is positive.

    Args:
        records: Entries of :meth:`Respondent.explain`, in the images' order.
        label: Label of segments.
        measure: One of :data:`MEASURES`.
    """
    found = []
    for entry in records:
        segments = entry["segments"]
        values = [segment[measure] for segment in segments.values()]
        none = not values or values[0] is None
        found.append(float("nan") if none else segments[label][measure] if label in segments else 0.0)
    return found


def answers_file(out: Path, kind: str, name: str) -> Path:
    """File of a model's answers, or of its segments, within the folder of a report."""
    return out / kind / f"{name}.jsonl"
