"""Path integrals of the scores of a caption's words: over the features of nodes and photo, and over the photo's pixels.

All words that are asked for share the points of one path.
"""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import cast

import torch
from torch import Tensor, nn

from imagexplain.api.options import PathOptions
from imagexplain.attribution.baselines import image_mean
from imagexplain.attribution.groups.families import family
from imagexplain.attribution.paths.adaptive import OutOfTimeError, integrate_targets_adaptive
from imagexplain.attribution.paths.path_integral import PathIntegral, points_on
from imagexplain.attribution.paths.quadrature import quadrature
from imagexplain.attribution.paths.several_targets import integrate_targets
from imagexplain.errors import RequestError
from imagexplain.models.captioners.pixel_scores import PixelScores
from imagexplain.models.captioners.search import Caption
from imagexplain.models.captioners.word_scores import Kind, WordScores, pack
from imagexplain.serving.cache import digest
from imagexplain.serving.chunk_size import CPU_BUDGET, FREE_MEMORY_FRACTION, MAX_CHUNK, bytes_per_point
from imagexplain.serving.deadline import CHUNK_SHARE, Deadline
from imagexplain.serving.free_memory import free_memory
from imagexplain.serving.out_of_memory import halving_chunks
from imagexplain.serving.path_attribution import MIN_PATH_POINTS, PathAttribution
from imagexplain.serving.prepared_graph import PreparedGraph
from imagexplain.serving.prepared_request import Groups
from imagexplain.serving.tasks.captioner import Captioner, feature_work, step_work
from imagexplain.vision.scene_graph import Node

GLOBAL = "global"
"""Label of the photo's global feature, as a group."""


@dataclass(frozen=True)
class WordsToExplain:
    """Words of a caption whose scores are to be explained.

    Attributes:
        graph: Graph of the caption.
        caption: Caption, own or given.
        own: Flag for the model's own caption.
        positions: Places of the words in it, K of them.
        kind: Score that is explained.
        path: Path of integrated gradients.
        map_baseline: Photo at which the path of a map of pixels starts; None for no map.
    """

    graph: PreparedGraph
    caption: Caption
    own: bool
    positions: tuple[int, ...]
    kind: Kind
    path: PathOptions
    map_baseline: str | None

    @property
    def points(self) -> int:
        """Number of points of a path, ends included; with a tolerance, a lower bound."""
        if self.path.tolerance is not None:
            return min(self.path.steps, MIN_PATH_POINTS)
        return points_on(quadrature(self.path.quadrature, self.path.steps))

    @property
    def key(self) -> Hashable:
        """Key of its explanation in a cache."""
        seen = None
        if self.map_baseline is not None and self.graph.seen is not None:
            seen = digest(self.graph.seen.pixels), tuple(self.graph.boxes), self.map_baseline
        return self.graph.key, self.caption.words, self.positions, self.kind, self.path, seen

    @cached_property
    def groups(self) -> Groups:
        """The nodes and the global feature as groups of the packed features."""
        nodes, region = self.graph.regions.shape
        owners = torch.arange(nodes).repeat_interleave(region)
        owners = torch.cat([owners, torch.full_like(self.graph.image, nodes, dtype=torch.int64)])
        masks = (owners == torch.arange(nodes + 1).unsqueeze(1)).unsqueeze(1)  # (N + 1, 1, L)
        return Groups(family(masks, [*map(label_of, self.graph.layout.nodes), GLOBAL]), {}, ())


@dataclass(frozen=True)
class WordAttributions:
    """The explanations of a caption's words, in the order of their places.

    Attributes:
        features: Path integrals over packed features (1, 1, L).
        pixels: Path integrals over the photo (3, H, W); None without a map.
    """

    features: tuple[PathAttribution, ...]
    pixels: tuple[PathAttribution, ...] | None = None

    @property
    def evaluations(self) -> int:
        """Points at which gradients were taken, all words together as one."""
        passes = [self.features, *([] if self.pixels is None else [self.pixels])]
        return sum(max(one.evaluations for one in words) for words in passes)

    @property
    def is_cacheable(self) -> bool:
        """Tell whether a request would get the same answer again: not where time ran out."""
        return all(one.converged is not False for one in (*self.features, *(self.pixels or ())))


def label_of(node: Node) -> str:
    """Label of a node: its name, or its role and whose it is."""
    order = f" {node.order} of" if node.role == "attribute" else ""
    return node.name or f"{node.role}{order} {' and '.join(map(str, node.objects))}"


def step_seconds(task: Captioner, words: WordsToExplain) -> float:
    """Estimate of the seconds that a point of the path over features takes: a way forward, and a way back per word."""
    steps = max(words.positions) + 1
    return task.speed.gradient * step_work(words.graph) * steps * (1 + len(words.positions))


def map_seconds(task: Captioner, words: WordsToExplain) -> float:
    """Estimate of the seconds that a point of the path over pixels takes."""
    seen = words.graph.seen
    assert seen is not None
    work = feature_work(len(words.graph.unique_boxes()[0]), seen.pixels.shape[1:].numel())
    return step_seconds(task, words) + task.speed.features * work * (1 + 2 * len(words.positions))


def admit(task: Captioner, words: WordsToExplain, deadline: Deadline) -> Deadline:
    """The deadline with the explanation committed.

    Raises:
        RequestError: 413 or 503 where there is no time for it.
    """
    field = "tolerance" if words.path.tolerance is not None else "steps"
    committed = replace(deadline, seconds_per_point=step_seconds(task, words)).admit(words.points, field)
    if words.map_baseline is None:
        return committed
    return committed.admit(field="map", seconds=words.points * map_seconds(task, words))


def attribute(task: Captioner, words: WordsToExplain, deadline: Deadline) -> WordAttributions:
    """The explanations of the words: the path over features and, where a map is wanted, that over pixels.

    Raises:
        RequestError: 503 once the time is over.
    """
    graph, device = words.graph, task.device
    scores = WordScores(task.model.network, graph.tensors.to(device), words.caption.words, words.positions, words.kind)
    inputs = pack(graph.regions, graph.image).to(device)
    kept = task.bytes_per_node * step_work(graph) * (max(words.positions) + 1)
    started = time.perf_counter()
    features, points = halving_chunks(
        partial(
            _integrate,
            scores,
            inputs,
            torch.zeros_like(inputs),
            words,
            words.groups.family.masks[: len(graph.layout.nodes) + 1],
            deadline,
        ),
        _chunk(kept, inputs.numel(), words, step_seconds(task, words), task),
    )
    work = points * step_seconds(task, words) / task.speed.gradient
    task.speed.observe("gradient", time.perf_counter() - started, work)
    if words.map_baseline is None:
        return WordAttributions(features)
    assert graph.seen is not None and task.model.extractor is not None
    boxes, places = graph.unique_boxes()
    extractor = task.model.extractor
    through = PixelScores(scores, extractor, graph.seen.corners(boxes).to(device), places.to(device))
    photo = graph.seen.pixels.to(device)
    kept = bytes_per_point(cast(nn.Module, extractor), photo[None], through)
    pixels, _ = halving_chunks(
        partial(_integrate, through, photo, _baseline(words.map_baseline, photo), words, None, deadline),
        _chunk(kept, photo.numel(), words, map_seconds(task, words), task),
    )
    return WordAttributions(features, pixels)


def _integrate(
    forward: nn.Module,
    inputs: Tensor,
    baseline: Tensor,
    words: WordsToExplain,
    groups: Tensor | None,
    deadline: Deadline,
    chunk: int,
) -> tuple[tuple[PathAttribution, ...], int]:
    """Path integrals of all words, and the number of points that were evaluated."""
    path, targets = words.path, torch.arange(len(words.positions), device=inputs.device)
    if path.tolerance is None:
        rule = quadrature(path.quadrature, path.steps)
        found = integrate_targets(forward, inputs, baseline, targets, rule, chunk=chunk, before_chunk=deadline.check)
        return tuple(PathAttribution((_on_cpu(one),)) for one in found), points_on(rule)

    def within_time(remaining: int) -> None:
        try:
            deadline.check(remaining)
        except RequestError as refusal:
            raise OutOfTimeError from refusal

    try:
        refined = integrate_targets_adaptive(
            forward,
            inputs,
            baseline,
            targets,
            groups,
            path.tolerance,
            chunk=chunk,
            most=path.steps,
            before_chunk=within_time,
        )
    except OutOfTimeError as error:  # before there was anything to answer with
        raise (error.__cause__ or error) from None
    attributions = tuple(PathAttribution((_on_cpu(one.integral),), one.converged, one.stability) for one in refined)
    return attributions, len(torch.cat([one.nodes for one in refined]).unique())


def _baseline(name: str, photo: Tensor) -> Tensor:
    """Photo (3, H, W) at which the path over pixels starts."""
    if name == "mean":
        return image_mean(photo)
    return torch.full_like(photo, float(name == "white"))


def _on_cpu(integral: PathIntegral) -> PathIntegral:
    return replace(integral, difference=integral.difference.cpu(), gradient=integral.gradient.cpu())


def _chunk(kept: float, values: int, words: WordsToExplain, seconds: float, task: Captioner) -> int:
    """Number of points evaluated at once: as many as fit the memory, and a part of the time.

    Args:
        kept: Bytes that a point keeps for the way back.
        values: Number of values of an input.
        words: Words, each with a way back of its own.
        seconds: Estimate of the seconds that a point takes.
        task: Model.
    """
    if task.spec.serving.chunk is not None:
        return task.spec.serving.chunk
    count, steps = len(words.positions), max(words.positions) + 1
    # On the way back a step's gradients live for all words at once, and at its end each word's of the input, thrice.
    bytes_at_once = kept * (1 + 2 * count / steps) + 3 * 4 * values * count
    if task.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(task.device)
        budget = FREE_MEMORY_FRACTION * free
    else:
        budget = min(CPU_BUDGET, FREE_MEMORY_FRACTION * free_memory())
    most = CHUNK_SHARE * task.spec.serving.deadline_s / max(seconds, 1e-9)
    return max(1, min(MAX_CHUNK, int(budget / max(bytes_at_once, 1)), int(most)))
