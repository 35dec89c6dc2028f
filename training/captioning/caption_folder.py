"""Data set of captions in the original's folders: annotations, global features and features of regions.

    annotation/int2word.npy, word2int.json                   the vocabulary
    annotation/public_split/<split>_names.npy                images, in the order of the global features
    annotation/regionfiles/<split>_names.npy                 (image, region) of each caption
    annotation/regionfiles/<image>.json                      graphs and phrases
    annotation/cleaned_<split>_region_descriptions.json      reference captions; without it, the phrases
    features/MP/<global>/<split>_ft.npy                      global features
    features/SA/<region>/objrels/<image, / as _>.jpg.hdf5    features of boxes

Source: the layout of SA³'s ``EGA`` (https://github.com/LuQiCode/SAAA), which is asg2cap's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imagexplain.errors import ArgumentError
from imagexplain.models.captioners.graph_tensors import Layout, lay_out
from imagexplain.vision.scene_graph import SceneGraph
from training.captioning.feature_files import (
    RegionFeatures,
    read_global,
    read_region_features,
    write_global,
    write_region_features,
)
from training.captioning.items import CaptionItem
from training.captioning.references import read_references, write_references
from training.captioning.region_files import read_entry
from training.captioning.splits import REGIONS, SUFFIX, Split, read_split, write_split
from training.captioning.vocabulary import Vocabulary, read_vocabulary


@dataclass(frozen=True)
class CaptionFolder:
    """The files of a data set.

    Attributes:
        root: Folder with ``annotation`` and ``features``.
        global_features: Name of the folder of global features.
        region_features: Name of the folder of region features.
    """

    root: Path
    global_features: str = "resnet101.ctrl"
    region_features: str = "X_101_32x8d"

    @property
    def annotation(self) -> Path:
        """Folder of the annotations, the vocabulary among them."""
        return self.root / "annotation"

    def region_file(self, image: str) -> Path:
        """File of an image's graphs."""
        return self.annotation / REGIONS / f"{image}.json"

    def reference_file(self, split: str) -> Path:
        """File of a split's reference captions."""
        return self.annotation / f"cleaned_{split}_region_descriptions.json"

    def global_file(self, split: str) -> Path:
        """File of a split's global features."""
        return self.root / "features" / "MP" / self.global_features / f"{split}_ft.npy"

    def box_file(self, image: str) -> Path:
        """File of the features of an image's boxes."""
        folder = self.root / "features" / "SA" / self.region_features / "objrels"
        return folder / f"{image.replace('/', '_')}{SUFFIX}.hdf5"

    def write_boxes(self, image: str, regions: RegionFeatures) -> None:
        """Write the features of an image's boxes."""
        file = self.box_file(image)
        write_region_features(file, file.stem, regions)

    def copy_split(self, name: str, new: str, images: Collection[str]) -> Split:
        """Write a split of some images of another one: names, global features and references; the rest is shared.

        Args:
            name: Name of the split that has the images.
            new: Name of the split to write.
            images: Images that are kept.

        Raises:
            ArgumentError: none of the images is in the split, or both have one name.
        """
        if new == name:
            raise ArgumentError("new", f"wanted another name than {name!r}")
        split = read_split(self.annotation, name)
        kept = split.of_images(images)
        if not kept.images:
            raise ArgumentError("images", f"wanted images of the split {name}, got none of its {len(split.images)}")
        features = read_global(self.global_file(name), len(split.images))
        rows = [row for row, image in enumerate(split.images) if image in images]
        write_split(self.annotation, new, kept)
        write_global(self.global_file(new), features[rows])
        if self.reference_file(name).is_file():
            references = read_references(self.reference_file(name))
            own = {pair: captions for pair, captions in references.items() if pair[0] in images}
            write_references(self.reference_file(new), own)
        return kept


@dataclass(frozen=True)
class SplitItems:
    """The items of a split, read when they are asked for.

    Attributes:
        folder: Files.
        name: Name of the split.
        limit: Largest number of a graph's nodes; None for all, 10 for the original's.
    """

    folder: CaptionFolder
    name: str
    limit: int | None = None

    @cached_property
    def split(self) -> Split:
        """Images and regions."""
        return read_split(self.folder.annotation, self.name)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Words."""
        return read_vocabulary(self.folder.annotation)

    def __len__(self) -> int:
        return len(self.split.regions)

    def __iter__(self) -> Iterator[CaptionItem]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> CaptionItem:
        """The item of a region.

        Raises:
            ArgumentError: the region is faulty, or a box or an image has no features; names the region.
            IndexError: no such number.
        """
        image, region = self.split.regions[number]
        graph, phrase = self._graph(image, region)
        layout = lay_out(graph, self.limit)
        regions = read_region_features(self.folder.box_file(image))
        nodes = torch.from_numpy(regions.features[self._rows(image, region, regions, layout)].astype(np.float32))
        references = self.references(number)
        return CaptionItem(image, region, graph, layout, nodes, self._global[image], phrase, references)

    def references(self, number: int) -> tuple[str, ...]:
        """Reference captions of a region: those of the file of references, or else its phrase."""
        image, region = self.split.regions[number]
        return self._references.get((image, region)) or (self._graph(image, region)[1],)

    def rows(self, number: int) -> list[int]:
        """Rows, in the file of the image's boxes, of the features of an item's nodes."""
        item = self[number]
        regions = read_region_features(self.folder.box_file(item.image_name))
        return self._rows(item.image_name, item.region, regions, item.layout)

    def _graph(self, image: str, region: str) -> tuple[SceneGraph, str]:
        """The graph of a region, and its phrase."""
        graph = read_entry(self.folder.region_file(image), region)
        if graph.phrase is None:
            raise ArgumentError("phrase", f"is missing, in region {region} of {self.folder.region_file(image)}")
        return graph, graph.phrase

    def _rows(self, image: str, region: str, regions: RegionFeatures, layout: Layout) -> list[int]:
        try:
            return [regions.row(node.box) for node in layout.nodes]
        except ArgumentError as error:
            raise ArgumentError(error.field, f"{error.message}, in region {region} of {image}") from None

    @cached_property
    def _global(self) -> dict[str, Tensor]:
        images = self.split.images
        return dict(zip(images, read_global(self.folder.global_file(self.name), len(images)), strict=True))

    @cached_property
    def _references(self) -> dict[tuple[str, str], tuple[str, ...]]:
        file = self.folder.reference_file(self.name)
        return read_references(file) if file.is_file() else {}


def boxes_to_encode(graphs: Collection[SceneGraph]) -> list[tuple[float, float, float, float]]:
    """First and last pixels of all boxes that an image's graphs need a feature of, each once, in their order."""
    return list(dict.fromkeys(node.box.inclusive_corners for graph in graphs for node in graph.nodes))
