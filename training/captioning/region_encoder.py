"""Training of the region encoder: on the objects of named scenes, to their shape, colour, texture and size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from tqdm import tqdm

from imagexplain.models.captioners.region_encoder import GEOMETRY, RegionEncoder, corners_of, crops, geometry
from training.captioning.named_scenes import SIDE, NamedObject, NamedScene
from training.captioning.names import COLOURS, SHAPES, SIZES, TEXTURES
from training.finetuning.randomness import private_randomness, seed_all, seed_of, shuffled

ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": COLOURS,
    "texture": tuple(TEXTURES),
    "size": tuple(SIZES),
}
"""What is to be told of a region, and the names that it can have."""

_JITTER = 0.04
"""Largest shift of a box's sides, in the box's longer side, in the second crop of each object."""


@dataclass(frozen=True)
class Regions:
    """Regions of photos, R of them.

    Attributes:
        crops: (R, 3, 32, 32) uint8.
        geometry: (R, 7) float32.
        names: (R, 4) int64, places in the names of :data:`ATTRIBUTES`; −1 for what is no single object.
    """

    crops: Tensor
    geometry: Tensor
    names: Tensor

    def __len__(self) -> int:
        return len(self.names)


def object_regions(scenes: Iterable[NamedScene], jittered_by: int | None = None) -> Regions:
    """Regions of the objects of scenes.

    Args:
        scenes: Scenes.
        jittered_by: Seed by which each object comes a second time, in a box that is a little off; None for once.
    """
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    generator = None if jittered_by is None else torch.Generator().manual_seed(seed_of("boxes", jittered_by))
    for scene in scenes:
        boxes = corners_of([one.box for one in scene.objects])
        names = torch.tensor([name_numbers(one) for one in scene.objects])
        if generator is not None:
            sides = (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True)
            off = (torch.rand(boxes.shape, generator=generator) * 2 - 1) * sides * _JITTER
            boxes, names = torch.cat([boxes, boxes + off]), names.repeat(2, 1)
        parts.append((*_seen(scene, boxes), names))
    return Regions(*(torch.cat(column) for column in zip(*parts, strict=True)))


def all_regions(scenes: Iterable[NamedScene]) -> Regions:
    """Regions of all that a captioner may look at: objects, the boxes around two of them, and the whole."""
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for scene in scenes:
        own = [one.box for one in scene.objects]
        unions = [one.union(other) for one, other in combinations(own, 2)]
        boxes = torch.cat([corners_of([*own, *unions]), torch.tensor([[0.0, 0.0, SIDE, SIDE]])])
        names = torch.full((len(boxes), len(ATTRIBUTES)), -1)
        names[: len(own)] = torch.tensor([name_numbers(one) for one in scene.objects])
        parts.append((*_seen(scene, boxes), names))
    return Regions(*(torch.cat(column) for column in zip(*parts, strict=True)))


def name_numbers(one: NamedObject) -> list[int]:
    """Places of an object's names among those of :data:`ATTRIBUTES`."""
    return [names.index(getattr(one, attribute)) for attribute, names in ATTRIBUTES.items()]


class Heads(nn.Module):
    """Linear layers that read the names off what a region encoder sees; for training and measuring only.

    Args:
        width: Width of a feature, geometry included.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, len(names)) for names in ATTRIBUTES.values())

    def forward(self, features: Tensor) -> list[Tensor]:
        """Logits (R, names) of each attribute, of features (R, width)."""
        return [layer(features) for layer in self.layers]


@dataclass(frozen=True)
class RegionTraining:
    """Settings of the training.

    Attributes:
        steps: Number of the optimiser's steps.
        batch: Number of regions per step.
        rate: Highest learning rate of the one-cycle schedule.
        decay: AdamW's weight decay.
        width: Width of what the network sees, see :class:`~imagexplain.models.captioners.region_encoder.RegionEncoder`.
        seed: Seed of the initial weights, the order and the turning.
    """

    steps: int = 600
    batch: int = 128
    rate: float = 4e-3
    decay: float = 0.02
    width: int = 64
    seed: int = 0


def train_region_encoder(
    regions: Regions, everything: Regions, config: RegionTraining = RegionTraining(), *, progress: bool = True
) -> tuple[RegionEncoder, Heads]:
    """Train a region encoder, with the layers that read names off it, both in ``eval()`` at the end.

    The generators of torch, NumPy and Python are left as they were.

    Args:
        regions: Objects to train on.
        everything: Regions by which features are standardised.
        config: Settings.
        progress: Flag for a progress bar.
    """
    with private_randomness():
        seed_all(config.seed, "region encoder")
        encoder = RegionEncoder(config.width)
        heads = Heads(encoder.width)
        parameters = [*encoder.parameters(), *heads.parameters()]
        optimizer = torch.optim.AdamW(parameters, config.rate, weight_decay=config.decay)
        schedule = OneCycleLR(optimizer, config.rate, config.steps, pct_start=0.2)
        bar = tqdm(_batches(regions, config), total=config.steps, desc="region encoder", disable=not progress)
        for crops, places, names in bar:
            logits = heads(encoder.encode(crops, places))
            loss = torch.stack([F.cross_entropy(each, names[:, number]) for number, each in enumerate(logits)]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        encoder.eval()
        heads.eval()
        _standardise(encoder, heads, everything)
    return encoder, heads


@torch.no_grad()
def attribute_accuracy(encoder: RegionEncoder, heads: Heads, regions: Regions) -> dict[str, float]:
    """The share of regions whose highest logit is their name, of each attribute, 0 … 1."""
    right = torch.zeros(len(ATTRIBUTES))
    for chunk in torch.arange(len(regions)).split(1000):
        logits = heads(encoder.encode(regions.crops[chunk].float() / 255, regions.geometry[chunk]))
        named = torch.stack([each.argmax(1) for each in logits], 1)
        right += (named == regions.names[chunk]).sum(0)
    return dict(zip(ATTRIBUTES, (right / len(regions)).tolist(), strict=True))


@torch.no_grad()
def _standardise(encoder: RegionEncoder, heads: Heads, everything: Regions) -> None:
    """Give features mean 0 and variance 1 over some regions; what the heads say stays."""
    chunks = torch.arange(len(everything)).split(1000)
    found = torch.cat([encoder.encode(everything.crops[at].float() / 255, everything.geometry[at]) for at in chunks])
    mean, std = found.mean(0), found.std(0).clamp_min(1e-3)
    encoder.feature_mean.copy_(mean)
    encoder.feature_std.copy_(std)
    for layer in heads.layers:
        assert isinstance(layer, nn.Linear)
        layer.bias.add_(layer.weight @ mean)
        layer.weight.mul_(std)


def _batches(regions: Regions, config: RegionTraining) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Batches of the training, each turned over by one of the square's symmetries, which change no name."""
    per_round = len(regions) // config.batch
    for step in range(config.steps):
        turn, place = divmod(step, per_round)
        if place == 0:
            order = shuffled(len(regions), config.seed, "order", turn).split(config.batch)
        chosen = order[place]
        crops, places = regions.crops[chosen].float() / 255, regions.geometry[chosen]
        symmetry = seed_of(config.seed, "symmetry", step) % 8
        if symmetry & 1:
            crops, places = crops.flip(3), places * _signs(0)
        if symmetry & 2:
            crops, places = crops.flip(2), places * _signs(1)
        if symmetry & 4:
            crops, places = crops.transpose(2, 3), places[:, [1, 0, 3, 2, *range(4, GEOMETRY)]]
        yield crops, places, regions.names[chosen]


def _signs(column: int) -> Tensor:
    signs = torch.ones(GEOMETRY)
    signs[column] = -1
    return signs


def _seen(scene: NamedScene, boxes: Tensor) -> tuple[Tensor, Tensor]:
    photo = torch.from_numpy(scene.image).permute(2, 0, 1).float()
    return crops(photo, boxes).round().to(torch.uint8), geometry(boxes, (photo.shape[1], photo.shape[2]))
