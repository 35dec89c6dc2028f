"""The classifier that is debugged: network, labels, preprocessing and baseline of an archive or of its spec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from debugging import features
from debugging.segment_table import SegmentTable, table_of
from evaluation.evaluated_model import EvaluatedModel, of_archive
from imagexplain.archive.classifier_network import own_code, weights_file
from imagexplain.archive.find import find_classifier
from imagexplain.archive.spec import ClassifierSpec, ResolvedArchive
from imagexplain.attribution.baselines import blurred, image_mean
from imagexplain.attribution.network.layers import default_layer
from imagexplain.attribution.paths.quadrature import quadrature
from imagexplain.errors import ArgumentError, listed
from imagexplain.ops.check_archive import ArchiveError
from imagexplain.ops.unpack import unpack
from imagexplain.vision.decode import Photo
from imagexplain.vision.preprocess import ModelInput, preprocess

BASELINES = ("zero", "black", "white", "mean", "blur")
"""Baselines of one draw, which segments can be replaced by."""

DEFAULT_BASELINE = "mean"
"""Baseline where none is named, the image's mean colour: it has no texture, and less contrast to what stays than grey
or black, which leave a segment's outline behind to be recognised."""

BLUR = 0.1
"""Standard deviation of the baseline ``blur``, as a part of the shorter side; the service's own."""


@dataclass(frozen=True, eq=False)
class DebuggedModel:
    """A classifier with all that its debugging asks of it.

    Attributes:
        served: Network, preprocessing, quadrature, and the name by which a server is asked for it.
        labels: Names of the classes.
        baseline: Name of the baseline, one of :data:`BASELINES`.
    """

    served: EvaluatedModel
    labels: tuple[str, ...]
    baseline: str

    @property
    def network(self) -> nn.Module:
        """The network, frozen, as it was built."""
        return self.served.network

    @cached_property
    def layer(self) -> nn.Module:
        """The layer whose places have the features of segments."""
        return default_layer(self.network, torch.zeros(1, *self.served.preprocess.shape))

    def see(self, photo: Photo) -> ModelInput:
        """The photo at the model's size."""
        return preprocess(photo, self.served.preprocess)

    def evaluate(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (B, classes) and penultimate features (B, K) of images (B, 3, H, W)."""
        return features.scores_and_features(self.network, images, self.served.chunk)

    def segment_features(self, image: Tensor, masks: Tensor) -> Tensor:
        """Features (G, K) of an image's (3, H, W) segments: the feature map averaged over each mask."""
        return features.pooled(features.feature_map(self.network, image, self.layer), masks)

    def start(self, image: Tensor) -> Tensor:
        """Baseline (3, H, W) of an image."""
        if self.baseline == "mean":
            return image_mean(image)
        if self.baseline == "blur":
            return blurred(image, BLUR * min(self.served.preprocess.size))
        return self.served.start(self.baseline)

    def table(self, image: Tensor, segments: Tensor, labels: Sequence[str], classes: Sequence[int]) -> SegmentTable:
        """The table of an image's segments for the wrong and the right class, see :func:`table_of`."""
        start = self.start(image)
        paths = [self.served.explain(image[None], start[None], index)[0] for index in classes]
        return table_of(self.network, paths, start, segments, labels, classes, self.served.chunk)

    def index(self, name: str) -> int:
        """Index of the class of that name.

        Raises:
            ArgumentError: no class has it.
        """
        if name not in self.labels:
            raise ArgumentError("folder", f"wanted names of the model's classes ({listed(self.labels)}), got {name!r}")
        return self.labels.index(name)


def open_model(name: str, specs: Path, baseline: str = DEFAULT_BASELINE, steps: int | None = None) -> DebuggedModel:
    """Build the classifier of an archive (``.mar``), of a spec file (``.yaml``), or of that name among the specs.

    Args:
        name: File of an archive or a spec, or a classifier's name.
        specs: Folder of the specs.
        baseline: Name of the baseline, one of :data:`BASELINES`.
        steps: Number of points on the path; the spec's own, if not given.

    Raises:
        ValueError: no such classifier, or one whose files do not fit.
        ArgumentError: a baseline that is none of :data:`BASELINES`.
    """
    if name.endswith(".mar"):
        with TemporaryDirectory() as folder:
            archive = unpacked(Path(name), Path(folder))
            return _opened(archive, baseline, steps)
    return _opened(find_classifier(name, specs), baseline, steps)


def unpacked(file: Path, folder: Path) -> ResolvedArchive:
    """The resolved classifier in an archive's file, with its files in an empty folder.

    Raises:
        ArgumentError: no archive of a classifier.
    """
    try:
        unpack(file, folder, ("classifier",))
    except (OSError, ArchiveError) as error:
        raise ArgumentError("model", f"wanted the archive of a classifier: {error}") from None
    spec = ClassifierSpec.read(folder)
    return ResolvedArchive(file, spec, folder / weights_file(spec), module=own_code(spec, folder))


def _opened(archive: ResolvedArchive, baseline: str, steps: int | None) -> DebuggedModel:
    if baseline not in BASELINES:
        raise ArgumentError("baseline", f"wanted one of {', '.join(BASELINES)}, got {baseline!r}")
    model = replace(of_archive(archive), name=archive.model.address)
    if steps is not None:
        model = replace(model, rule=quadrature(archive.model.explain.quadrature, steps))
    return DebuggedModel(model, model.labels, baseline)
