"""A captioner out of an archive: its network, its words, and the network that makes features of photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from imagexplain.archive.spec import WEIGHTS_FILE, CaptionerSpec
from imagexplain.errors import ArgumentError
from imagexplain.models.captioners import captioner, features
from imagexplain.models.captioners.captioner import Captioner
from imagexplain.models.captioners.features import FeatureExtractor
from imagexplain.models.captioners.graph_tensors import graph_tensors, lay_out
from imagexplain.models.captioners.pixel_scores import PixelScores
from imagexplain.models.captioners.search import search
from imagexplain.models.captioners.vocabulary import Vocabulary
from imagexplain.models.captioners.word_scores import WordScores, pack
from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.example_photo import example_photo
from imagexplain.vision import scene_graph

FEATURES_FILE = "features.safetensors"
"""File of the network that makes features, in an archive."""

EXAMPLE_GRAPH: dict[str, Any] = {
    "objects": [{"box": [1, 2, 12, 10], "attributes": 1}, {"box": [8, 6, 12, 14]}],
    "relationships": [[0, 1]],
}
"""Graph that goes through a captioner when its archive is built and loaded; within any photo of 20 pixels."""


@dataclass(frozen=True)
class CaptioningModel:
    """A captioner with its words and features, frozen.

    Attributes:
        network: Captioner, in ``eval()``.
        vocabulary: Words by number.
        extractor: Network that makes features of photos; None where all features are precomputed.
    """

    network: Captioner
    vocabulary: Vocabulary
    extractor: FeatureExtractor | None


def build(
    spec: CaptionerSpec, state: Mapping[str, Tensor], features_state: Mapping[str, Tensor] | None, device: torch.device
) -> CaptioningModel:
    """Build a captioner of a checkpoint, each of whose tensors has its place.

    Raises:
        CheckpointError: tensors that fit no captioner, or no such network of features.
        ArgumentError: another number of words or other widths than the captioner has.
    """
    network = captioner.build(state).requires_grad_(False).to(device)
    dimensions, vocabulary = network.dimensions, Vocabulary(spec.labels)
    if len(vocabulary) != dimensions.words:
        raise ArgumentError("vocabulary", f"wanted the {dimensions.words} words of the weights, got {len(vocabulary)}")
    if spec.features is None or features_state is None:
        return CaptioningModel(network, vocabulary, None)
    made = features.build(spec.features.extractor, features_state).requires_grad_(False).to(device)
    extractor: FeatureExtractor = made  # type: ignore[assignment]
    for name in ("region", "image"):
        if (given := getattr(extractor, name)) != (wanted := getattr(dimensions, name)):
            raise ArgumentError("features", f"wanted {name} features of width {wanted}, the extractor has {given}")
    return CaptioningModel(network, vocabulary, extractor)


def load(spec: CaptionerSpec, model_dir: Path, device: torch.device) -> CaptioningModel:
    """The captioner of an unpacked archive. Raises like :func:`build`."""
    extracted = checkpoint.read(model_dir / FEATURES_FILE) if spec.features is not None else None
    return build(spec, checkpoint.read(model_dir / WEIGHTS_FILE), extracted, device)


def feature_tensors(files: Sequence[Path]) -> dict[str, Tensor]:
    """Tensors of the network that makes features, as the archive has them: of boxes, then of the whole photo.

    Raises:
        CheckpointError: as :func:`imagexplain.models.checkpoints.checkpoint.load`.
    """
    found: dict[str, Tensor] = {}
    for part, file in zip(("regions", "image"), files, strict=False):
        found |= {f"{part}.{name}": tensor for name, tensor in checkpoint.read(file).items()}
    return found


def dry_run(model: CaptioningModel) -> None:
    """Send a photo and a graph through a captioner as a request would, down to the gradient that explains a word.

    Raises:
        ArgumentError: scores or gradients that are not finite.
    """
    network, device = model.network, next(model.network.parameters()).device
    layout = lay_out(scene_graph.read(EXAMPLE_GRAPH))
    graph = graph_tensors([layout]).to(device)
    boxes = torch.tensor([node.box.corners for node in layout.nodes], device=device)
    generator = torch.Generator().manual_seed(0)
    if model.extractor is None:
        shape = (len(boxes), network.dimensions.region), (network.dimensions.image,)
        regions, image = (torch.rand(size, generator=generator).to(device) for size in shape)
    else:
        photo = torch.from_numpy(example_photo()).permute(2, 0, 1).float().to(device) / 255
        with torch.no_grad():
            (regions,), (image,) = model.extractor(photo[None], boxes)
    ((found,),) = search(network, network.encode(regions[None], image[None], graph), max_words=5)
    scores: nn.Module = WordScores(network, graph, found.words, kind="logit")
    inputs = pack(regions, image)[None]
    if model.extractor is not None:
        assert isinstance(scores, WordScores)
        scores, inputs = PixelScores(scores, model.extractor, boxes, torch.arange(len(boxes))), photo[None]
    inputs = inputs.requires_grad_()
    total = scores(inputs)
    (gradient,) = torch.autograd.grad(total.sum(), inputs)
    for name, tensor in (("features", regions), ("scores", total.detach()), ("gradients", gradient)):
        if not tensor.isfinite().all():
            raise ArgumentError(name, "wanted finite numbers, given some that are not, for a photo and a graph")
