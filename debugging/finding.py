"""Errors of a classifier on a labelled folder, one record for each image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from debugging.examiner import Examiner
from debugging.images import ImageFolder, read_photo
from debugging.model import DebuggedModel
from debugging.pictures import box_around, segment_picture
from debugging.results import Record, write_bytes, write_csv, write_json
from debugging.segment_table import ClassColumns, SegmentTable, entropy, responsible
from debugging.segmentation import over_photo
from imagexplain.errors import ArgumentError, RequestError
from imagexplain.vision.decode import Photo
from imagexplain.vision.preprocess import ModelInput

OF_CLASS = ("attribution", "positive_share", "directional", "replaced", "shapley")
OF_SEGMENT = ("label", "area", "area_share", "responsibility", "margin_drop", "rank")
SAME_SCORES = 0.05
"""Difference, relative and absolute, up to which scores are those of one network on two machines."""

COLUMNS = (
    *("image", "truth", "named", "segment", *OF_SEGMENT),
    *(f"{side}_{column}" for side in ("wrong", "right") for column in OF_CLASS),
)
"""Columns of ``segments.csv``."""


@dataclass(frozen=True, eq=False)
class Finder:
    """The examination of a labelled folder, image by image.

    Attributes:
        model: Model of the archive, whose features describe errors and segments.
        examiner: Source of scores and tables.
        folder: Folder of images by class.
        results: Folder of results.
    """

    model: DebuggedModel
    examiner: Examiner
    folder: ImageFolder
    results: Path

    def run(self, record: Record) -> None:
        """Examine all images that are not on record, and write the files of the step.

        Raises:
            ArgumentError: a class folder that is no class of the model, or an image without its label map.
            ClientError: the server does not answer.
        """
        for name in self.folder.classes:
            self.model.index(name)
        for name in tqdm(record.missing(self.folder.names), desc="finding errors", unit="image"):
            record.add(self.examine(name))
        entries = [record.lines[name] for name in self.folder.names]
        write_json(self.results / "errors.json", summary(entries))
        write_csv(self.results / "segments.csv", list(rows(entries)), COLUMNS)

    def examine(self, name: str) -> dict[str, Any]:
        """The record of one image; of an error with its segments, and pictures of those that are responsible."""
        truth = self.folder.label(name)
        assert truth is not None
        try:
            photo = read_photo(self.folder.file(name))
            seen = self.model.see(photo)
        except (ArgumentError, RequestError) as error:
            return {"image": name, "truth": truth, "skipped": error.message}
        right = self.model.index(truth)
        scores = self.examiner.scores(photo, seen).double()
        probabilities, wrong = scores.softmax(0), int(scores.argmax())
        entry = {
            "image": name,
            "truth": truth,
            "named": self.model.labels[wrong],
            "confidence": probabilities[wrong].item(),
            "truth_probability": probabilities[right].item(),
            "entropy": entropy(scores[None]).item(),
            "loss": -scores.log_softmax(0)[right].item(),
        }
        if wrong == right:
            return entry
        here, features = self.model.evaluate(seen.image[None])
        if not torch.allclose(here[0].double(), scores, rtol=SAME_SCORES, atol=SAME_SCORES):
            raise ArgumentError("served", f"wanted the model of the archive here, got other scores for {name}")
        table, feature = self.examiner.table(name, photo, seen, (wrong, right)), features[0]
        return entry | {"feature": feature.tolist(), "segments": self._segments(name, photo, seen, table)}

    def _segments(self, name: str, photo: Photo, seen: ModelInput, table: SegmentTable) -> list[dict[str, Any]]:
        found, chosen = segment_records(table), responsible(table)
        features = self.model.segment_features(seen.image, table.masks[chosen]) if chosen else torch.zeros(0)
        for rank, (index, feature, mask) in enumerate(
            zip(chosen, features, over_photo(table.masks[chosen], seen) if chosen else [], strict=True), 1
        ):
            crop, overview = (f"crops/{name}.{index}{kind}.png" for kind in ("", ".whole"))
            write_bytes(self.results / crop, segment_picture(photo.image, mask.numpy()))
            write_bytes(self.results / overview, segment_picture(photo.image, mask.numpy(), whole=True))
            top, left, bottom, right = box_around(mask.numpy())
            found[index] |= {
                "rank": rank,
                "feature": feature.tolist(),
                "crop": crop,
                "overview": overview,
                "box": {"x": left, "y": top, "w": right - left, "h": bottom - top},
            }
        return found


def segment_records(table: SegmentTable) -> list[dict[str, Any]]:
    """Plain records of a table's segments, in their order; none has a rank among those responsible yet."""
    whole = {
        "area": table.area,
        "area_share": table.area_share,
        "responsibility": table.responsibility,
        "margin_drop": table.margin_drop,
    }
    sides = {side: _columns(columns) for side, columns in (("wrong", table.wrong), ("right", table.right))}
    lists = {name: column.tolist() for name, column in whole.items()}
    return [
        {"label": label, "rank": 0}
        | {name: column[index] for name, column in lists.items()}
        | {side: {name: column[index] for name, column in columns.items()} for side, columns in sides.items()}
        for index, label in enumerate(table.labels)
    ]


def summary(entries: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The content of ``errors.json``: counts by class, skipped images, and errors, all in the images' order.

    A class's ``error_mean`` is the mean feature of its errors, null where it has none.
    """
    entries = list(entries)
    classes = {}
    for truth in sorted({entry["truth"] for entry in entries}):
        own = [entry for entry in entries if entry["truth"] == truth and "skipped" not in entry]
        errors = [entry for entry in own if "segments" in entry]
        mean = torch.tensor([entry["feature"] for entry in errors]).double().mean(0).tolist() if errors else None
        classes[truth] = {"images": len(own), "errors": len(errors), "error_mean": mean}
    return {
        "images": sum(count["images"] for count in classes.values()),
        "classes": classes,
        "skipped": [{"image": entry["image"], "reason": entry["skipped"]} for entry in entries if "skipped" in entry],
        "errors": [dict(entry) for entry in entries if "segments" in entry],
    }


def rows(entries: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    """The rows of ``segments.csv``, segments by their place in the table."""
    for entry in entries:
        for number, segment in enumerate(entry.get("segments", [])):
            sides = {f"{side}_{name}": value for side in ("wrong", "right") for name, value in segment[side].items()}
            shown = {name: segment[name] for name in OF_SEGMENT}
            yield {name: entry[name] for name in ("image", "truth", "named")} | {"segment": number} | shown | sides


def report(found: Mapping[str, Any]) -> list[str]:
    """Lines for a person: accuracy, the classes with errors, and the segments that drove the most of them."""
    wrong = len(found["errors"])
    accuracy = f"{1 - wrong / found['images']:.2%}" if found["images"] else "none"
    lines = [f"{found['images']} images, {wrong} errors, accuracy {accuracy}, {len(found['skipped'])} skipped"]
    lines += [f"  skipped {one['image']}: {one['reason']}" for one in found["skipped"][:5]]
    for name, count in found["classes"].items():
        first = [
            next((segment for segment in entry["segments"] if segment["rank"] == 1), None)
            for entry in found["errors"]
            if entry["truth"] == name
        ]
        driving = [segment for segment in first if segment is not None]
        if not count["errors"]:
            continue
        area = f", with {_mean(driving, 'area_share'):.0%} of the area on average" if driving else ""
        lines.append(
            f"  {name}: {count['errors']} of {count['images']} wrong, {len(driving)} with a driving segment{area}"
        )
    return lines


def _mean(records: list[dict[str, Any]], name: str) -> float:
    return float(sum(record[name] for record in records)) / len(records)


def _columns(columns: ClassColumns) -> dict[str, list[float]]:
    return {name: getattr(columns, name).tolist() for name in OF_CLASS}
