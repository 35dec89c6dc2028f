"""The images of a pool as the model sees them: scores and features, and the segments that drive another class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from tqdm import tqdm

from debugging.images import ImageFolder, read_photo
from debugging.model import DebuggedModel
from debugging.results import Record
from debugging.segment_table import but_whole, drive, entropy, score_falls
from debugging.segmentation import Segmentation
from imagexplain.attribution.groups.families import family
from imagexplain.errors import ArgumentError, RequestError
from imagexplain.vision.decode import Photo
from imagexplain.vision.preprocess import ModelInput


@dataclass(frozen=True, eq=False)
class Pool:
    """A pool of images, looked at one by one.

    Attributes:
        model: The model.
        folder: Images, by class or without.
    """

    model: DebuggedModel
    folder: ImageFolder

    def score(self, record: Record) -> None:
        """Put entropy, features, the named class and, by class, the loss of every image on record."""
        for name in self.folder.classes:
            self.model.index(name)
        for name in tqdm(record.missing(self.folder.names), desc="scoring the pool", unit="image"):
            record.add(self._scored(name))

    def find_drivers(self, record: Record, scored: Mapping[str, Mapping[str, Any]], segments: Segmentation) -> None:
        """Put the driving segment of every image on record that was scored."""
        names = [name for name in record.missing(self.folder.names) if "skipped" not in scored[name]]
        for name in tqdm(names, desc="driving segments", unit="image"):
            photo, seen = self._seen(name)
            record.add({"image": name, **self._driver(name, photo, seen, segments)})

    def _seen(self, name: str) -> tuple[Photo, ModelInput]:
        photo = read_photo(self.folder.file(name))
        return photo, self.model.see(photo)

    def _scored(self, name: str) -> dict[str, Any]:
        try:
            _, seen = self._seen(name)
        except (ArgumentError, RequestError) as error:
            return {"image": name, "skipped": error.message}
        scores, features = self.model.evaluate(seen.image[None])
        label = self.folder.label(name)
        loss = None if label is None else -scores[0].double().log_softmax(0)[self.model.index(label)].item()
        return {
            "image": name,
            "named": self.model.labels[int(scores[0].argmax())],
            "entropy": entropy(scores).item(),
            "loss": loss,
            "feature": features[0].tolist(),
        }

    def _driver(self, name: str, photo: Photo, seen: ModelInput, segments: Segmentation) -> dict[str, Any]:
        found = segments.segments(name, photo, seen)
        groups = family(found.masks, found.labels)
        kept = but_whole(groups.labels)
        masks = groups.masks[kept]
        start = self.model.start(seen.image)
        scores = self.model.evaluate(seen.image[None])[0][0]
        falls = score_falls(self.model.network, seen.image, start, masks, self.model.served.chunk)
        label = self.folder.label(name)
        rival, own = rivals(scores, None if label is None else self.model.index(label))
        index, margin = driver(falls, masks, rival, own)
        feature = self.model.segment_features(seen.image, masks[index : index + 1])[0]
        return {
            "rival": self.model.labels[rival],
            "label": groups.labels[kept[index]],
            "area_share": masks[index].double().mean().item(),
            "margin_drop": margin,
            "feature": feature.tolist(),
        }


def rivals(scores: Tensor, label: int | None) -> tuple[int, int]:
    """The class that a pool image is taken for, and the one that it is, from its scores (classes,).

    With a label the first is the best of the others; without one they are the best and the second best.
    """
    order = scores.argsort(descending=True, stable=True).tolist()
    if label is None:
        return order[0], order[1]
    return next(index for index in order if index != label), label


def driver(falls: Tensor, masks: Tensor, rival: int, own: int) -> tuple[int, float]:
    """The segment that drives an image towards a rival class, relative to its size, and what it does to the margin.

    Args:
        falls: Falls (G, classes) of all scores when one segment is replaced.
        masks: Masks (G, H, W), bool.
        rival: Index of the rival class.
        own: Index of the image's own class.

    Returns:
        Index of the segment with the largest drive of the rival's score, the first of equals, and the fall of
        rival score − own score without it: negative where the segment speaks for the image's own class even more.
    """
    shares = masks.flatten(1).double().mean(1)
    index = int(drive(falls[:, rival], shares).argmax())
    return index, (falls[index, rival] - falls[index, own]).item()


def classes_of(
    folder: ImageFolder, scored: Mapping[str, Mapping[str, Any]], labels: Sequence[str]
) -> dict[str, list[str]]:
    """Images of the pool by class, in their order: by their folder, or by the class that the model names."""
    found: dict[str, list[str]] = {name: [] for name in (folder.classes or labels)}
    for name in folder.names:
        if "skipped" not in scored[name]:
            found[folder.label(name) or scored[name]["named"]].append(name)
    return {name: images for name, images in found.items() if images}
