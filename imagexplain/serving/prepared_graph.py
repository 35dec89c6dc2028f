"""Graphs of a request as a captioner sees them: its nodes with a feature each, and what was cut off."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from imagexplain.api.caption_request import CaptionRequest
from imagexplain.api.features import GivenFeatures, rows_of
from imagexplain.api.graphs import GivenGraph
from imagexplain.archive.captioner_archive import CaptioningModel
from imagexplain.errors import RequestError
from imagexplain.models.captioners.graph_tensors import GraphTensors, Layout, graph_tensors, lay_out
from imagexplain.serving.cache import digest
from imagexplain.vision.scene_graph import Box


@dataclass(frozen=True)
class SeenPhoto:
    """A photo as the network of features sees it.

    Attributes:
        pixels: RGB (3, H, W) of 0 … 1, on the CPU.
        scale: Factors of the photo's columns and rows.
    """

    pixels: Tensor
    scale: tuple[float, float]

    def corners(self, boxes: list[Box]) -> Tensor:
        """Corners (R, 4) of boxes over the photo, in pixels of what is seen."""
        corners = torch.tensor([box.corners for box in boxes], dtype=torch.float32)
        return corners * torch.tensor([*self.scale, *self.scale])


@dataclass(frozen=True)
class PreparedGraph:
    """A graph with the features of its nodes; tensors are on the CPU.

    Attributes:
        given: Graph as the client sent it.
        layout: Nodes that the model sees, N of them, and those that it does not.
        tensors: Batch of this one graph.
        regions: Features (N, region) of the nodes.
        image: Feature (image,) of the whole photo.
        seen: Photo of which the features were made; None for precomputed ones.
    """

    given: GivenGraph
    layout: Layout
    tensors: GraphTensors
    regions: Tensor
    image: Tensor
    seen: SeenPhoto | None = None

    @cached_property
    def key(self) -> Hashable:
        """Key of all that a caption depends on: names do not count."""
        parts = self.tensors
        return digest(self.regions, self.image, parts.node_types, parts.orders, parts.edges, parts.flow)

    @property
    def boxes(self) -> list[Box]:
        """Box of each node."""
        return [node.box for node in self.layout.nodes]

    def unique_boxes(self) -> tuple[list[Box], Tensor]:
        """Boxes that differ, and the place (N,) of each node's among them."""
        places: dict[Box, int] = {}
        found = [places.setdefault(box, len(places)) for box in self.boxes]
        return list(places), torch.tensor(found)


def see(photo: Image.Image, longer: int) -> SeenPhoto:
    """The photo, shrunk where its longer side has more pixels."""
    factor = min(1.0, longer / max(photo.size))
    size = max(1, round(photo.width * factor)), max(1, round(photo.height * factor))
    shrunk = photo if size == photo.size else photo.resize(size, Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(shrunk)).permute(2, 0, 1).float() / 255
    return SeenPhoto(pixels, (size[0] / photo.width, size[1] / photo.height))


def layouts_of(request: CaptionRequest) -> list[Layout]:
    """The nodes of each graph that the model is to see."""
    return [lay_out(given.graph, request.node_limit) for given in request.graphs]


def with_given_features(request: CaptionRequest, given: GivenFeatures, model: CaptioningModel) -> list[PreparedGraph]:
    """The graphs with precomputed features.

    Raises:
        RequestError: 422 for features of another width than the model's, or a box without one.
    """
    dimensions = model.network.dimensions
    for name, tensor, wanted in (
        ("image", given.image, dimensions.image),
        ("regions", given.regions, dimensions.region),
    ):
        if tensor.shape[-1] != wanted:
            message = f"wanted features of width {wanted}, as this model's are, got {tensor.shape[-1]}"
            raise RequestError(422, f"features.{name}", message)
    found = []
    for graph, layout in zip(request.graphs, layouts_of(request), strict=True):
        sides = [[box.x, box.y, box.width, box.height] for box in (node.box for node in layout.nodes)]
        boxes = torch.tensor(sides, dtype=torch.float64)
        rows = rows_of(given, boxes, graph.field)
        found.append(PreparedGraph(graph, layout, graph_tensors([layout]), rows, given.image))
    return found


@torch.no_grad()
def with_made_features(
    request: CaptionRequest, seen: SeenPhoto, model: CaptioningModel, device: torch.device
) -> list[PreparedGraph]:
    """The graphs with features of the photo, all in one pass.

    Raises:
        RequestError: 422 for a photo of which features come out that are not finite.
    """
    assert model.extractor is not None
    layouts = layouts_of(request)
    boxes = list(dict.fromkeys(node.box for layout in layouts for node in layout.nodes))
    regions, image = model.extractor(seen.pixels[None].to(device), seen.corners(boxes).to(device))
    regions, image = regions[0].cpu(), image[0].cpu()
    if not (regions.isfinite().all() and image.isfinite().all()):
        raise RequestError(422, "image", "wanted a photo with finite features, got NaN or infinity")
    rows = {box: row for row, box in enumerate(boxes)}
    return [
        PreparedGraph(
            graph,
            layout,
            graph_tensors([layout]),
            regions[[rows[node.box] for node in layout.nodes]],
            image.clone(),
            seen,
        )
        for graph, layout in zip(request.graphs, layouts, strict=True)
    ]
