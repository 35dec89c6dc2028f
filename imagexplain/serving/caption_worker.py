"""The worker of captioners: captions of a photo under graphs, and the explanation of their words.

A batch is decoded, captioned, admitted, attributed and encoded. Searches of one width share their passes, whatever
requests they come from; whatever a request asks or breaks, the others are answered as if it had not been there.
"""

from __future__ import annotations

import logging
from collections.abc import Container, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from torch import Tensor

from imagexplain.api.caption_request import CaptionRequest, parse
from imagexplain.api.method_options import PATH
from imagexplain.api.request import GZIP, PNG, SAFETENSORS
from imagexplain.api.response import Encoded, check_size, encode
from imagexplain.errors import ArgumentError, RequestError, shown
from imagexplain.models.captioners.captioner import END
from imagexplain.models.captioners.search import Caption
from imagexplain.models.captioners.word_scores import Kind
from imagexplain.serving.admission import SECONDS_PER_PIXEL
from imagexplain.serving.cache import Cache
from imagexplain.serving.caption_picture import render
from imagexplain.serving.caption_results import (
    caption_tensors,
    captioned_graph,
    explained_graph,
    explanation_bytes,
    explanation_tensors,
)
from imagexplain.serving.deadline import Deadline
from imagexplain.serving.messages import RawRequest
from imagexplain.serving.metrics import ExplanationCount, Metrics, MetricSink
from imagexplain.serving.prepared_graph import PreparedGraph
from imagexplain.serving.request_loop import RequestLoop
from imagexplain.serving.request_state import RequestState, run_batch_or_each, run_each
from imagexplain.serving.runtime import limits
from imagexplain.serving.tasks.captioner import Captioner
from imagexplain.serving.word_attribution import WordAttributions, WordsToExplain, admit, attribute

logger = logging.getLogger(__name__)

CAPTIONS_SHARE = 1 / 16
"""Size of the cache of captions, relative to that of explanations."""


@dataclass(frozen=True)
class Decoded:
    """A parsed request and its graphs with their features.

    Attributes:
        request: Parsed request.
        graphs: Graphs, with a feature for each node.
        fresh: Flag for a request that must not be answered from cached results.
    """

    request: CaptionRequest
    graphs: Sequence[PreparedGraph]
    fresh: bool


@dataclass(frozen=True)
class Captioned:
    """A request with the captions of its graphs.

    Attributes:
        decoded: The request.
        captions: Captions of each graph, best first; of a given one, that one.
    """

    decoded: Decoded
    captions: Sequence[Sequence[Caption]]


@dataclass(frozen=True)
class Explained:
    """A request with the explanations of its captions' words.

    Attributes:
        request: Parsed request.
        words: Words of each graph's caption.
        found: Their explanations.
        cached: Flag for explanations that were all cached.
    """

    request: CaptionRequest
    words: Sequence[WordsToExplain]
    found: Sequence[WordAttributions]
    cached: bool


@dataclass
class CaptionWorker(RequestLoop[Captioner]):
    """A captioner that answers requests, with its caches.

    Attributes:
        captions: Cache of the captions of recent graphs.
        explanations: Cache of the explanations of recent captions.
    """

    captions: Cache[list[Caption]]
    explanations: Cache[WordAttributions]

    @classmethod
    def start(cls, task: Captioner, sink: MetricSink) -> CaptionWorker:
        """A worker that has answered nothing yet."""
        spec = task.spec
        metrics = Metrics(sink, spec.name, spec.version)
        metrics.prime()
        logger.info("%s", task.describe())
        size = spec.limits.cache_bytes
        return cls(task, limits(spec), metrics, Cache(int(size * CAPTIONS_SHARE)), Cache(size))

    def _answer(self, states: Sequence[RequestState], deadline: Deadline) -> None:
        parsed = run_each([(state, state.raw) for state in states], "decode", self._parse)
        for state, request in parsed:
            state.method = PATH if request.kind == "explanation" else None
        with_raw = [(state, (state.raw, request)) for state, request in parsed]
        decoded = run_each(with_raw, "decode", lambda given: self._decode(given, deadline))
        admitted, deadline = self._admit_searches(decoded, deadline)
        by_width: dict[tuple[int, int], list[tuple[RequestState, Decoded]]] = {}
        for pair in admitted:
            request = pair[1].request
            by_width.setdefault((request.beams, request.max_words), []).append(pair)
        captioned: list[tuple[RequestState, Captioned]] = []
        for pairs in by_width.values():
            captioned += run_batch_or_each(pairs, "attribute", lambda batch: self._caption(batch, deadline))
        for state, one in captioned:
            if state.raw.kind == "prediction":
                with state.stage("encode"):
                    state.answer = self._encode_captions(one)
        asked = [pair for pair in captioned if pair[0].raw.kind == "explanation"]
        wanted = run_each(asked, "attribute", lambda one: (one.decoded, self._words(one)))
        started: list[tuple[RequestState, tuple[Decoded, list[WordsToExplain]]]] = []
        for state, (each, words) in wanted:
            with state.stage("attribute"):
                deadline = self._admit(each, words, deadline)
                started.append((state, (each, words)))
        for state, explained in run_each(started, "attribute", lambda pair: self._explain(*pair, deadline)):
            with state.stage("encode"):
                state.answer = self._encode_explanation(explained)
            state.explained = _count(explained)

    def _parse(self, raw: RawRequest) -> CaptionRequest:
        task = self.task
        return parse(
            raw.parts,
            raw.headers,
            kind=raw.kind,
            limits=self.limits,
            captions=task.limits,
            defaults=task.defaults,
        )

    def _decode(self, given: tuple[RawRequest, CaptionRequest], deadline: Deadline) -> Decoded:
        raw, request = given
        return Decoded(request, self.task.prepare(request, deadline), raw.fresh)

    def _admit_searches(
        self, decoded: Sequence[tuple[RequestState, Decoded]], deadline: Deadline
    ) -> tuple[list[tuple[RequestState, Decoded]], Deadline]:
        """The requests whose captions there is time for, and the deadline with these committed."""
        admitted = []
        for state, one in decoded:
            with state.stage("attribute"):
                asked = [one.graphs[place] for place in _without(one, self._known(one))]
                seconds = self.task.search_seconds(asked, one.request.beams, one.request.max_words)
                deadline = deadline.admit(field="beams", seconds=seconds)
                admitted.append((state, one))
        return admitted, replace(deadline, committed=0.0)  # searches are done at once, and the clock counts them

    def _known(self, one: Decoded) -> dict[int, list[Caption]]:
        """The cached captions of a request's graphs, by the graph's place."""
        found = {} if one.fresh else {place: self.captions.get(_key(one, place)) for place in range(len(one.graphs))}
        return {place: own for place, own in found.items() if own is not None}

    def _caption(self, batch: Sequence[Decoded], deadline: Deadline) -> list[Captioned]:
        """The captions of requests whose searches have one width."""
        first, known = batch[0].request, [self._known(one) for one in batch]
        asked = [_without(one, own) for one, own in zip(batch, known, strict=True)]
        graphs = [one.graphs[place] for one, places in zip(batch, asked, strict=True) for place in places]
        found = iter(self.task.captions(graphs, first.beams, first.max_words, deadline))
        searched = [{place: next(found) for place in places} for places in asked]
        for one, own in zip(batch, searched, strict=True):
            for place, captions in own.items():
                self.captions.put(_key(one, place), captions)
        return [self._captioned(one, have | own) for one, have, own in zip(batch, known, searched, strict=True)]

    def _captioned(self, one: Decoded, own: Mapping[int, Sequence[Caption]]) -> Captioned:
        captions = [
            own[place] if given is None else [self.task.teacher_forced(graph, self._encoded(given))]
            for place, (graph, given) in enumerate(zip(one.graphs, one.request.captions, strict=True))
        ]
        return Captioned(one, captions)

    def _encoded(self, caption: str) -> tuple[int, ...]:
        """The words of a given caption.

        Raises:
            RequestError: 413 for too many of them, 422 for one that the vocabulary lacks.
        """
        most = self.task.limits.max_words
        if (given := len(caption.split()) + 1) > most:
            raise RequestError(413, "caption", f"wanted at most {most} words, the end sign included, got {given}")
        try:
            return self.task.model.vocabulary.encoded(caption)
        except ArgumentError as error:
            raise RequestError(422, error.field, error.message) from None

    def _words(self, one: Captioned) -> list[WordsToExplain]:
        request = one.decoded.request
        return [
            WordsToExplain(
                graph,
                captions[0],
                given is None,
                self._positions(captions[0], request.words),
                cast(Kind, request.score),
                request.path,
                request.baseline if request.wants_map else None,
            )
            for graph, captions, given in zip(one.decoded.graphs, one.captions, request.captions, strict=True)
        ]

    def _positions(self, caption: Caption, asked: Sequence[int | str] | None) -> tuple[int, ...]:
        """The places of the words that are asked for, in order.

        Raises:
            RequestError: 422 for a word or a place that the caption does not have, or where it has no words at all.
        """
        spelled = self.task.model.vocabulary.spelled(caption.words)
        if asked is None:
            places = {place for place, number in enumerate(caption.words) if number != END}
            if not places:
                raise RequestError(422, "words", "the caption is empty: wanted words=<EOS>, or a caption")
            return tuple(sorted(places))
        places = set()
        for one in asked:
            if isinstance(one, int):
                if not 0 <= one < len(spelled):
                    raise RequestError(422, "words", f"wanted places 0 to {len(spelled) - 1}, got {one}")
                places.add(one)
                continue
            own = {place for place, word in enumerate(spelled) if word == one}
            if not own:
                raise RequestError(422, "words", f"wanted words of the caption {spelled}, got {shown(one)}")
            places |= own
        return tuple(sorted(places))

    def _admit(self, decoded: Decoded, words: Sequence[WordsToExplain], deadline: Deadline) -> Deadline:
        """The deadline with the explanations committed that are not cached."""
        request = decoded.request
        if request.accept in (GZIP, SAFETENSORS):
            share = 1.0 if request.accept == SAFETENSORS else 0.85
            least = int(share * sum(map(explanation_bytes, words)))
            check_size(least, request.accept, self.task.spec.limits.max_response_bytes)
        if request.accept == PNG and request.photo is not None:
            height, width = request.photo.size
            deadline = deadline.admit(field="accept", seconds=SECONDS_PER_PIXEL * width * height)
        for one in words:
            if decoded.fresh or self.explanations.get(one.key) is None:
                deadline = admit(self.task, one, deadline)
        return deadline

    def _explain(self, decoded: Decoded, words: Sequence[WordsToExplain], deadline: Deadline) -> Explained:
        found, cached = [], True
        for one in words:
            known = None if decoded.fresh else self.explanations.get(one.key)
            if known is None:
                cached, known = False, attribute(self.task, one, deadline)
                if known.is_cacheable:
                    self.explanations.put(one.key, known)
            found.append(known)
        return Explained(decoded.request, words, found, cached)

    def _encode_captions(self, one: Captioned) -> Encoded:
        request, vocabulary, spec = one.decoded.request, self.task.model.vocabulary, self.task.spec
        kept = [captions[: request.n_best] for captions in one.captions]
        graphs = [
            captioned_graph(graph, captions, vocabulary)
            for graph, captions in zip(one.decoded.graphs, kept, strict=True)
        ]
        result = {"model": spec.address, "beams": request.beams, "graphs": graphs, **caption_tensors(kept)}
        return encode(result, request.accept, max_bytes=spec.limits.max_response_bytes)

    def _encode_explanation(self, one: Explained) -> Encoded:
        request, vocabulary, spec = one.request, self.task.model.vocabulary, self.task.spec
        most = spec.limits.max_response_bytes
        if request.accept == PNG:
            assert request.photo is not None
            picture = render(request.photo.image, one.words[0], one.found[0], vocabulary, spec.address, request.picture)
            return encode({}, PNG, picture=picture, max_bytes=most)
        pairs = list(zip(one.words, one.found, strict=True))
        tensors: dict[str, Tensor] = {}
        for place, (words, found) in enumerate(pairs):
            tensors |= explanation_tensors(words, found, place)
        graphs = [explained_graph(words, found, vocabulary) for words, found in pairs]
        return encode({"model": spec.address, "graphs": graphs, **tensors}, request.accept, max_bytes=most)


def _key(one: Decoded, place: int) -> Hashable:
    return one.graphs[place].key, one.request.beams, one.request.max_words


def _without(one: Decoded, known: Container[int]) -> list[int]:
    """The places of the graphs whose captions are neither given nor known."""
    return [place for place, given in enumerate(one.request.captions) if given is None and place not in known]


def _count(one: Explained) -> ExplanationCount:
    """The counted cost of an explanation: its residual is the largest of its words'."""
    residuals = [
        attribution.relative_residual(words.groups)
        for words, found in zip(one.words, one.found, strict=True)
        for attribution in found.features
    ]
    return ExplanationCount(
        evaluations=0 if one.cached else sum(found.evaluations for found in one.found),
        relative_residual=max(residuals),
        groups=sum(len(words.groups.family) for words in one.words),
        cached=one.cached,
    )
