"""Captioners: captions of a photo under scene graphs, and the scores of a caption's words."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F

from imagexplain.api.caption_request import CaptionDefaults, CaptionRequest
from imagexplain.api.options import PathOptions
from imagexplain.archive import captioner_archive
from imagexplain.archive.captioner_archive import EXAMPLE_GRAPH, CaptioningModel
from imagexplain.archive.spec import CaptionerSpec
from imagexplain.attribution.paths.path_integral import score_gradients
from imagexplain.errors import RequestError
from imagexplain.limits import CaptionLimits
from imagexplain.models.captioners.captioner import BEGIN, END
from imagexplain.models.captioners.graph_tensors import graph_tensors, lay_out
from imagexplain.models.captioners.search import Caption, search
from imagexplain.models.captioners.word_scores import WordScores, pack
from imagexplain.serving.chunk_size import bytes_per_point
from imagexplain.serving.deadline import MIN_ADMITTED_SECONDS, Deadline, ema
from imagexplain.serving.prepared_graph import (
    PreparedGraph,
    layouts_of,
    see,
    with_given_features,
    with_made_features,
)
from imagexplain.vision import scene_graph

MAX_SEARCHED_NODES = 20_000
"""Nodes of all captions that a search follows at once, which bounds its memory."""

STEP_NODES = 8
"""Nodes that take as long as the rest of a word's step: both LSTMs and the logits."""

PIXELS_PER_BOX = 4096
"""Pixels of a photo that count as much as a box, in the time that features take."""


def limits_of(spec: CaptionerSpec) -> CaptionLimits:
    """The upper bounds of a request, beside those of any."""
    limits = spec.limits
    return CaptionLimits(limits.max_graphs, limits.max_nodes, min(limits.max_beams, len(spec.labels)), limits.max_words)


def defaults_of(spec: CaptionerSpec) -> CaptionDefaults:
    """The options of requests that say nothing of them."""
    captions, explain = spec.captions, spec.explain
    return CaptionDefaults(
        min(captions.beams, limits_of(spec).max_beams),
        captions.n_best,
        captions.max_words,
        captions.node_limit,
        PathOptions(explain.steps, explain.tolerance, explain.quadrature),
        explain.score,
        explain.baseline,
    )


@dataclass
class Speed:
    """Running estimates of seconds, each per unit of its work.

    Attributes:
        search: Seconds for a word's step and node of a caption that is searched for.
        gradient: Seconds for a word's step and node, forward, and as much for each word's way back.
        features: Seconds for a box, or as many pixels of a photo as count like one; forward or back.
    """

    search: float
    gradient: float
    features: float

    def observe(self, kind: str, seconds: float, work: float) -> None:
        """Learn from the time that some work took."""
        if work > 0:
            setattr(self, kind, ema(getattr(self, kind), seconds / work, 1))


@dataclass
class Captioner:
    """A captioner, its words, and how fast it is.

    Attributes:
        spec: Resolved spec of the archive.
        model: Network, words and features.
        device: Device of the network.
        speed: Running estimates of its speed.
        bytes_per_node: Bytes that a word's step keeps for the way back, for each node.
        limits: Upper bounds of a request, beside those of any.
        defaults: Options of requests that say nothing of them.
    """

    spec: CaptionerSpec
    model: CaptioningModel
    device: torch.device
    speed: Speed
    bytes_per_node: float
    limits: CaptionLimits = field(init=False)
    defaults: CaptionDefaults = field(init=False)

    def __post_init__(self) -> None:
        self.limits, self.defaults = limits_of(self.spec), defaults_of(self.spec)

    @classmethod
    def load(cls, model_dir: Path, device: torch.device) -> Captioner:
        """See :func:`imagexplain.archive.captioner_archive.load`."""
        spec = CaptionerSpec.read(model_dir)
        model = captioner_archive.load(spec, model_dir, device)
        return cls(spec, model, device, *_measure(model, device))

    def describe(self) -> str:
        """The model, its device, its words and where its features come from."""
        features = (
            "precomputed features" if self.spec.features is None else f"features by {self.spec.features.extractor}"
        )
        return f"{self.spec.address} on {self.device}: {len(self.model.vocabulary)} words, {features}"

    def prepare(self, request: CaptionRequest, deadline: Deadline) -> list[PreparedGraph]:
        """The graphs with features of the request's or of its photo.

        Raises:
            RequestError: 422 for features that do not fit the model, or where it makes none; 413 and 503 where there is
                no time for it.
        """
        if request.features is not None:
            return with_given_features(request, request.features, self.model)
        if self.model.extractor is None or self.spec.features is None:
            wanted = "wanted features of the photo beside it: this model makes none"
            raise RequestError(422, "features", f"{wanted} (regions of width {self.model.network.dimensions.region})")
        assert request.photo is not None
        seen = see(request.photo.image, self.spec.features.longer)
        boxes = len({node.box for layout in layouts_of(request) for node in layout.nodes})
        work = feature_work(boxes, seen.pixels.shape[1:].numel())
        if (seconds := work * self.speed.features) >= MIN_ADMITTED_SECONDS:
            deadline.admit(field="image", seconds=seconds)
        started = time.perf_counter()
        prepared = with_made_features(request, seen, self.model, self.device)
        self.speed.observe("features", time.perf_counter() - started, work)
        return prepared

    def search_seconds(self, graphs: Sequence[PreparedGraph], beams: int, max_words: int) -> float:
        """Estimate of the time that a search takes."""
        return self.speed.search * sum(step_work(graph) for graph in graphs) * beams * max_words

    def captions(
        self, graphs: Sequence[PreparedGraph], beams: int, max_words: int, deadline: Deadline
    ) -> list[list[Caption]]:
        """The captions that a search finds for each graph, best first.

        Raises:
            RequestError: 503 once the time is over.
        """
        found: list[list[Caption]] = []
        start = 0
        while start < len(graphs):
            deadline.check_start()
            end, widest = start, 0
            while end < len(graphs):
                widest = max(widest, len(graphs[end].layout.nodes))
                if end > start and widest * beams * (end + 1 - start) > MAX_SEARCHED_NODES:
                    break
                end += 1
            found += self._search(graphs[start:end], beams, max_words)
            start = end
        return found

    def _search(self, graphs: Sequence[PreparedGraph], beams: int, max_words: int) -> list[list[Caption]]:
        started = time.perf_counter()
        batch = graph_tensors([graph.layout for graph in graphs]).to(self.device)
        regions = torch.nn.utils.rnn.pad_sequence([graph.regions for graph in graphs], batch_first=True)
        image = torch.stack([graph.image for graph in graphs])
        with torch.no_grad():
            encoded = self.model.network.encode(regions.to(self.device), image.to(self.device), batch)
        found = search(self.model.network, encoded, beams, max_words)
        steps = max(len(caption.words) for own in found for caption in own)
        work = sum(step_work(graph) for graph in graphs) * beams * steps
        self.speed.observe("search", time.perf_counter() - started, work)
        return found

    @torch.no_grad()
    def teacher_forced(self, graph: PreparedGraph, words: tuple[int, ...]) -> Caption:
        """The caption of given words, of which the last is the end sign where it has one, with what the model does."""
        before = torch.tensor([[BEGIN, *words[:-1]]], device=self.device)
        regions, image = (tensor[None].to(self.device) for tensor in (graph.regions, graph.image))
        trace = self.model.network(regions, image, graph.tensors.to(self.device), before)
        own = torch.tensor(words, device=self.device)
        log_probabilities = F.log_softmax(trace.logits[0], 1).gather(1, own[:, None])[:, 0]
        return Caption(
            words,
            log_probabilities.cpu(),
            trace.attention[0].cpu(),
            trace.beta[0].cpu(),
            trace.flow_gate[0].cpu(),
            ended=words[-1] == END,
        )


def step_work(graph: PreparedGraph) -> int:
    """Work of a word's step for one caption of a graph, in nodes."""
    return len(graph.layout.nodes) + STEP_NODES


def feature_work(boxes: int, pixels: int) -> float:
    """Work of features of so many boxes in a photo of so many pixels, in boxes."""
    return boxes + 1 + pixels / PIXELS_PER_BOX


def _measure(model: CaptioningModel, device: torch.device) -> tuple[Speed, float]:
    """Estimates of speed, the better of two passes each, and the bytes that a step keeps for each node."""
    words, beams, points = 6, 2, 4
    layout = lay_out(scene_graph.read(EXAMPLE_GRAPH))
    graph, network = graph_tensors([layout]).to(device), model.network
    nodes = len(layout.nodes) + STEP_NODES
    generator = torch.Generator().manual_seed(0)
    regions = torch.rand(1, len(layout.nodes), network.dimensions.region, generator=generator).to(device)
    image = torch.rand(1, network.dimensions.image, generator=generator).to(device)
    scores = WordScores(network, graph, (END,) * words, (words - 1,))
    rows = pack(regions[0], image[0])[None].repeat(points, 1, 1, 1)
    seconds: dict[str, list[float]] = {"search": [], "gradient": [], "features": []}
    for _ in range(3):
        started = time.perf_counter()
        with torch.no_grad():
            encoded = network.encode(regions, image, graph)
        found = search(network, encoded, beams, words, may_be_empty=False)
        steps = max(len(caption.words) for caption in found[0])
        seconds["search"].append((time.perf_counter() - started) / (steps * beams * nodes))
        started = time.perf_counter()
        score_gradients(scores, rows, torch.zeros(points, dtype=torch.int64, device=device))[1].sum().item()
        seconds["gradient"].append((time.perf_counter() - started) / (2 * points * words * nodes))
        if model.extractor is not None:
            started = time.perf_counter()
            boxes = torch.tensor([node.box.corners for node in layout.nodes], device=device)
            with torch.no_grad():
                model.extractor(torch.rand(1, 3, 64, 64, device=device), boxes)[0].sum().item()
            seconds["features"].append((time.perf_counter() - started) / feature_work(len(boxes), 64 * 64))
    speed = Speed(**{name: min(taken[1:], default=0.0) for name, taken in seconds.items()})
    return speed, bytes_per_point(network, rows[:1], scores) / (words * nodes)
