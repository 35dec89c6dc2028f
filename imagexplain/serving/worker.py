"""Requests to responses: the loop for every kind of model that answers with scores, whatever engine it runs in.

A batch goes through five stages: decode, predict, admit, attribute, encode. Whatever a request asks or breaks, the
others of its batch are answered as if it had not been there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from imagexplain.api.request import PNG, Request, parse
from imagexplain.api.response import Encoded, encode, select, several
from imagexplain.serving.admission import admit_baseline, check_answer, seconds_of_answer, seconds_of_shares
from imagexplain.serving.cache import Cache, digest
from imagexplain.serving.deadline import Deadline
from imagexplain.serving.messages import RawRequest
from imagexplain.serving.method_attribution import (
    AttributionMap,
    batches,
    compute_maps,
    cost,
    key_of,
    resolve_layer,
    resolve_score,
    response_payload,
)
from imagexplain.serving.metrics import ExplanationCount, Metrics, MetricSink
from imagexplain.serving.path_attribution import PathAttribution, integrate_paths, is_cacheable, path_points
from imagexplain.serving.prepared_request import PreparedRequest, prepare_request, without
from imagexplain.serving.remote_segments import Ask, RemoteSegments, fetch_segments
from imagexplain.serving.render import render
from imagexplain.serving.request_loop import RequestLoop
from imagexplain.serving.request_state import RequestState, run_batch_or_each, run_each
from imagexplain.serving.runtime import limits, remote_segments
from imagexplain.serving.task import Decoded, ExplainedScore, Task
from imagexplain.vision.masks import PhotoMasks

logger = logging.getLogger(__name__)

T = TypeVar("T", bound=Task[Any])


@dataclass(frozen=True)
class Admitted:
    """An explanation that there is time for.

    Attributes:
        sample: The request in the model's frame.
        score: The score to be explained.
        key: Cache key of its explanation.
        deadline: The batch's, with the speed of this model.
        place: Place of the score among those that the request wants explained.
    """

    sample: PreparedRequest
    score: ExplainedScore
    key: Hashable
    deadline: Deadline
    place: int


@dataclass(frozen=True)
class Explained:
    """An explanation, with its request and score.

    Attributes:
        sample: The request in the model's frame.
        score: The score that is explained.
        explanation: Path integrals, or a map.
        cached: Flag for an explanation from the cache.
        place: Place of the score among those that the request wants explained.
    """

    sample: PreparedRequest
    score: ExplainedScore
    explanation: PathAttribution | AttributionMap
    cached: bool
    place: int


@dataclass
class Worker(RequestLoop[T]):
    """A model that answers requests about scores of photos, with its cache of explanations.

    Attributes:
        remote_segments: The other models of the server.
        explanations: Cache of the explanations of recent requests.
    """

    remote_segments: RemoteSegments
    explanations: Cache[PathAttribution | AttributionMap]

    @classmethod
    def start(cls, task: T, archive: Path, sink: MetricSink) -> Worker[T]:
        """A worker that has answered nothing yet.

        Args:
            task: Loaded model.
            archive: Directory of the unpacked archive; those of the other models lie beside it.
            sink: Collector of metrics.
        """
        spec = task.spec
        metrics = Metrics(sink, spec.name, spec.version)
        metrics.prime()
        logger.info("%s", task.describe())
        cache: Cache[PathAttribution | AttributionMap] = Cache(spec.limits.cache_bytes)
        return cls(task, limits(spec), metrics, remote_segments(spec, archive, metrics.neighbour), cache)

    def _answer(self, states: Sequence[RequestState], deadline: Deadline) -> None:
        parsed = run_each([(state, state.raw) for state in states], "decode", self._parse)
        for state, request in parsed:
            state.method = _method(request)
        ask = self.remote_segments.ask([(request, state.raw.fresh) for state, request in parsed], deadline.ends)
        for batch in [parsed] if self.task.batched else [[pair] for pair in parsed]:
            self._answer_batch(batch, ask, deadline)

    def _answer_batch(self, batch: list[tuple[RequestState, Request]], ask: Ask, deadline: Deadline) -> None:
        """Answer a batch; the answers go into its states."""
        raw = [(state, (state.raw, request)) for state, request in batch]
        decoded = run_each(raw, "decode", partial(self._decode, ask, deadline))
        decoded = self._without_absent(decoded, deadline)
        predicted = run_batch_or_each(decoded, "attribute", partial(self._predict, deadline))
        explanations = [pair for pair in predicted if pair[0].raw.kind == "explanation"]
        predictions = [pair for pair in predicted if pair[0].raw.kind == "prediction"]

        admitted: list[tuple[RequestState, Admitted]] = []
        explained: list[tuple[RequestState, Explained]] = []
        wanted = run_each(explanations, "attribute", lambda pair: (pair[0], self._explained_scores(*pair)))
        for state, (sample, scores) in run_each(wanted, "decode", partial(self._prepare, deadline)):
            with state.stage("attribute"):
                found, after = [], deadline
                for place, score in enumerate(scores):
                    one, after = self._admit(sample, score, after, place, len(scores), fresh=state.raw.fresh)
                    found.append(one)
                deadline = after
                admitted += [(state, one) for one in found if isinstance(one, Admitted)]
                explained += [(state, one) for one in found if isinstance(one, Explained)]
        by_path = [pair for pair in admitted if pair[1].sample.request.by_path]
        explained += run_batch_or_each(by_path, "attribute", self._integrate)
        mapped = [pair for pair in admitted if not pair[1].sample.request.by_path]
        for indices in batches([one.sample for _, one in mapped]):
            explained += run_batch_or_each([mapped[index] for index in indices], "attribute", self._map)

        for state, own in _of_each(explained):
            with state.stage("encode"):
                state.answer = self._encode(own)
            state.explained = _count(own)
        for state, (request, prediction) in predictions:
            with state.stage("encode"):
                state.answer = self._encode_prediction(request, prediction, deadline)

    def _parse(self, raw: RawRequest) -> Request:
        task = self.task
        return parse(
            raw.parts,
            raw.headers,
            kind=raw.kind,
            limits=self.limits,
            defaults=task.defaults,
            contract=task.contract,
        )

    def _decode(self, ask: Ask, deadline: Deadline, given: tuple[RawRequest, Request]) -> Decoded:
        raw, request = given
        seen, masks, own = self.task.preprocess(request), None, self.task.spec.name
        # A segmenter's own instances are segments as well.
        if request.segments is not None and not (self.task.contract.thresholds and request.segments.name == own):
            request, masks = fetch_segments(request, own, self.limits, deadline.ends, fresh=raw.fresh, ask=ask)
        return Decoded(request, seen, digest(seen.image), masks, raw.fresh)

    def _without_absent(
        self, decoded: list[tuple[RequestState, Decoded]], deadline: Deadline
    ) -> list[tuple[RequestState, Decoded]]:
        """Replace the photo of each request that has absent groups by what is left of it, if there is time."""
        found = []
        for state, one in decoded:
            if not one.request.absent:
                found.append((state, one))
                continue
            with state.stage("decode"):
                images = without(self._prepared(one, one.masks, deadline))
                of_model = replace(deadline, seconds_per_point=self.task.seconds_per_image(one.seen.image))
                deadline = of_model.admit(len(images), field="draws")
                found.append((state, replace(one, images=images, key=digest(images))))
        return found

    def _predict(self, deadline: Deadline, batch: Sequence[Decoded]) -> list[tuple[Decoded, Any]]:
        return list(zip(batch, self.task.predict(batch, deadline), strict=True))

    def _explained_scores(self, decoded: Decoded, prediction: Any) -> list[ExplainedScore]:
        """The scores that a request wants explained, one for each of its targets."""
        request = decoded.request
        targets: Sequence[str | int] = request.targets
        if request.top_k is not None:
            targets = self.task.best(prediction, request.top_k)
        each = [replace(request, target=target) for target in targets] or [request]
        return [self.task.explained_score(replace(decoded, request=one), prediction) for one in each]

    def _prepare(
        self, deadline: Deadline, pair: tuple[Decoded, list[ExplainedScore]]
    ) -> tuple[PreparedRequest, list[ExplainedScore]]:
        decoded, scores = pair
        masks = decoded.masks if scores[0].masks is None else scores[0].masks  # the same for all targets
        return self._prepared(decoded, masks, deadline), scores

    def _prepared(self, decoded: Decoded, masks: PhotoMasks | None, deadline: Deadline) -> PreparedRequest:
        channels, height, width = decoded.seen.image.shape
        admit_baseline(decoded.request, (height, width), deadline, channels)
        return prepare_request(decoded.request, decoded.seen, masks, self.limits, deadline, decoded.key)

    def _admit(
        self, sample: PreparedRequest, score: ExplainedScore, deadline: Deadline, place: int, count: int, *, fresh: bool
    ) -> tuple[Admitted | Explained, Deadline]:
        """Take an explanation, one of so many of its request, from the cache, or admit it if there is time, which the
        returned deadline commits."""
        deadline = replace(deadline, seconds_per_point=score.seconds_per_point)
        sample = resolve_score(score.model, resolve_layer(score.model, sample), score.target)
        request = sample.request
        check_answer(sample, len(score.scores), self.task.spec.limits.max_response_bytes // count)
        beside = seconds_of_answer(sample)
        with_answer = deadline.admit(field="accept" if request.accept == PNG else "masks", seconds=beside)
        key = (key_of(sample, score.target), score.key)
        known = None if fresh else self.explanations.get(key)
        if known is not None:
            return Explained(sample, score, known, cached=True, place=place), with_answer
        if request.by_path:
            total = path_points(sample)
            committed = deadline.admit(total, seconds=beside + seconds_of_shares(sample, total))
        else:
            estimate = cost(score.model, sample)
            committed = deadline.admit(estimate.points, "method", seconds=beside + estimate.seconds)
        return Admitted(sample, score, key, deadline, place), committed

    def _integrate(self, batch: Sequence[Admitted]) -> list[Explained]:
        """Path integrals of a batch, all of one model."""
        samples = [one.sample for one in batch]
        total = left = sum(map(path_points, samples))
        started = time.perf_counter()

        def before_chunk(remaining: int) -> None:
            nonlocal left
            left = remaining
            batch[0].deadline.check(remaining)

        try:
            found = integrate_paths(batch[0].score.model, samples, [one.score.target for one in batch], before_chunk)
            left = 0
        finally:  # a pass that was given up has measured the speed as well
            if left < total and not any(seconds_of_shares(sample, 1) for sample in samples):
                self.task.observe(samples[0].image, total - left, time.perf_counter() - started)
        return [self._keep(one, own) for one, own in zip(batch, found, strict=True)]

    def _map(self, batch: Sequence[Admitted]) -> list[Explained]:
        """Maps of a batch, all of one model and one plan."""
        scores = [one.score for one in batch]
        found = compute_maps(
            scores[0].model,
            [one.sample for one in batch],
            [score.target for score in scores],
            [score.scores for score in scores],
            batch[0].deadline.check_rows,
            scores[0].seconds_per_point,
        )
        return [self._keep(one, own) for one, own in zip(batch, found, strict=True)]

    def _keep(self, one: Admitted, found: PathAttribution | AttributionMap) -> Explained:
        if isinstance(found, AttributionMap) or is_cacheable(found):
            self.explanations.put(one.key, found)
        return Explained(one.sample, one.score, found, cached=False, place=one.place)

    def _encode(self, found: Sequence[Explained]) -> Encoded:
        one, most = found[0], self.task.spec.limits.max_response_bytes
        score, accept = one.score, one.sample.request.accept
        if one.sample.request.several:
            return encode(several([self._result(each) for each in found]), accept, max_bytes=most)
        if accept == PNG:
            drawing = render(score.model, one.sample, score.target, score.scores, one.explanation, score.instance)
            return encode({}, PNG, picture=drawing, max_bytes=most)
        return encode(self._result(one), accept, max_bytes=most)

    def _result(self, one: Explained) -> dict[str, Any]:
        """The entries of an explanation's answer."""
        score = one.score
        result = response_payload(score.model, one.sample, score.target, score.scores, one.explanation)
        return select({**result, **score.result}, one.sample.request)

    def _encode_prediction(self, decoded: Decoded, prediction: Any, deadline: Deadline) -> Encoded:
        payload = self.task.payload(decoded, prediction, deadline)
        most = self.task.spec.limits.max_response_bytes
        return encode(payload.result, decoded.request.accept, picture=payload.picture, max_bytes=most)


def _method(request: Request) -> str | None:
    """The method of an explanation; None for a product of two, and for a prediction."""
    methods = request.plan.methods
    return methods[0] if request.kind == "explanation" and len(methods) == 1 else None


def _of_each(explained: Sequence[tuple[RequestState, Explained]]) -> list[tuple[RequestState, list[Explained]]]:
    """The explanations of each request that has all that it wants, in the order of its targets."""
    states = {id(state): state for state, _ in explained if state.failure is None}
    return [
        (state, sorted((one for own, one in explained if own is state), key=lambda one: one.place))
        for state in states.values()
    ]


def _count(found: Sequence[Explained]) -> ExplanationCount:
    residuals = [
        one.explanation.relative_residual(one.sample.groups)
        for one in found
        if isinstance(one.explanation, PathAttribution)
    ]
    groups = found[0].sample.groups
    return ExplanationCount(
        evaluations=sum(0 if one.cached else one.explanation.evaluations for one in found),
        relative_residual=max(residuals, default=None),
        groups=0 if groups is None else len(groups.family),
        cached=all(one.cached for one in found),
    )
