"""The TorchServe handler of classifiers: predictions and explanations, mixed freely within a batch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from imagexplain.api.request import PNG, Defaults, Request, parse, resolve_target
from imagexplain.api.response import Encoded, encode, select
from imagexplain.errors import RequestError
from imagexplain.limits import Limits
from imagexplain.serving import runtime as worker
from imagexplain.serving.admission import admit_baseline, check_answer, seconds_of_answer, seconds_of_shares
from imagexplain.serving.allocator import keep_freed_memory
from imagexplain.serving.cache import Cache
from imagexplain.serving.deadline import Deadline, updated
from imagexplain.serving.method_attribution import Map, batches, cost, key_of, maps_of, resolved, result_of
from imagexplain.serving.metrics import Metrics, Stage
from imagexplain.serving.path_attribution import Explanation, explain, points, predict, prediction_result, worth_keeping
from imagexplain.serving.prepared_request import Sample, prepare
from imagexplain.serving.remote_segments import Ask, Neighbours, with_segments
from imagexplain.serving.render import picture
from imagexplain.serving.request_state import Exchange, asking, log_traceback
from imagexplain.serving.served_model import ServedModel, load
from imagexplain.vision.preprocess import view

logger = logging.getLogger(__name__)


class ClassifierHandler:
    """Answers each request of a batch as it asked, whatever its neighbours ask or break.

    TorchServe creates one of these in each worker process, calls :meth:`initialize` once and :meth:`handle` for each
    batch, one at a time. Between batches it keeps the running estimate of the model's speed, and what it computed for
    recent images.
    """

    model: ServedModel
    metrics: Metrics
    limits: Limits
    defaults: Defaults
    neighbours: Neighbours
    seconds_per_point: float
    scores: Cache[torch.Tensor]
    explanations: Cache[Explanation | Map]

    def initialize(self, context: Any) -> None:
        """Load the archive that TorchServe unpacked; what this raises is the reason a worker does not come up."""
        keep_freed_memory()
        properties = context.system_properties
        self.model = load(Path(properties["model_dir"]), worker.device(properties))
        spec = self.model.spec
        self.limits = worker.limits(spec)
        self.neighbours = worker.neighbours(spec, properties)
        self.defaults = Defaults(**spec.explain.model_dump())
        self.seconds_per_point = self.model.seconds_per_point
        self.scores = Cache(spec.limits.cache_bytes // 16)
        self.explanations = Cache(spec.limits.cache_bytes)
        self.metrics = Metrics(context.metrics, spec.name)
        self.metrics.prime()
        speed = f"{self.model.chunk} path points at once, {self.seconds_per_point:.4f} s each"
        logger.info("%s on %s: %s", spec.name, self.model.device, speed)

    def handle(self, rows: Sequence[dict[str, Any]], context: Any) -> list[bytes]:
        """One body for each row, in order; its status and headers are set in the context."""
        spec = self.model.spec
        trusted = spec.explain.steps + 2
        deadline = Deadline.starting_now(spec.serving.deadline_s, self.seconds_per_point, trusted)
        exchanges = [Exchange(index, row, context) for index, row in enumerate(rows)]
        for exchange in exchanges:
            with exchange.stage("decode"):
                exchange.request = self._parse(exchange)
        ask = self.neighbours.ask(asking(exchanges), deadline.ends)
        for exchange in exchanges:
            if exchange.request is not None:
                with exchange.stage("decode"):
                    exchange.sample = self._prepare(exchange.request, ask, deadline, fresh=exchange.fresh)

        together([exchange for exchange in exchanges if exchange.pending], "attribute", self._score)
        asked = [exchange for exchange in exchanges if exchange.pending and exchange.kind == "explanation"]
        for exchange in asked:
            with exchange.stage("attribute"):
                deadline = self._admit(exchange, deadline)
        admitted = [exchange for exchange in asked if exchange.pending and exchange.explanation is None]
        together(
            [exchange for exchange in admitted if by_path(exchange)], "attribute", partial(self._explain, deadline)
        )
        mapped = [exchange for exchange in admitted if not by_path(exchange)]
        for indices in batches(samples(mapped)):
            together([mapped[index] for index in indices], "attribute", partial(self._map, deadline))

        for exchange in exchanges:
            if exchange.pending:
                with exchange.stage("encode"):
                    exchange.answer = self._encode(exchange)
        return [exchange.close(self.metrics) for exchange in exchanges]

    def _parse(self, exchange: Exchange) -> Request:
        return parse(exchange.row, exchange.headers, kind=exchange.kind, limits=self.limits, defaults=self.defaults)

    def _prepare(self, request: Request, ask: Ask, deadline: Deadline, *, fresh: bool) -> Sample:
        seen = view(request.photo, self.model.preprocess)
        request, found = with_segments(request, self.model.spec.name, self.limits, deadline.ends, fresh=fresh, ask=ask)
        admit_baseline(request, self.model.preprocess.size, deadline)
        return prepare(request, seen, found, self.limits, deadline)

    def _score(self, exchanges: Sequence[Exchange]) -> None:
        unknown = []
        for exchange in exchanges:
            assert exchange.sample is not None
            exchange.scores = None if exchange.fresh else self.scores.get(exchange.sample.key)
            if exchange.scores is None:
                unknown.append(exchange)
        if unknown:
            for exchange, scores in zip(unknown, predict(self.model, samples(unknown)), strict=True):
                exchange.scores = scores.clone()  # a row would keep the others alive
                assert exchange.sample is not None
                self.scores.put(exchange.sample.key, exchange.scores)

    def _admit(self, exchange: Exchange, deadline: Deadline) -> Deadline:
        """Settle the target, and whether the explanation is known or there is time for it."""
        assert exchange.sample is not None and exchange.scores is not None
        request = exchange.sample.request
        if request.target is None:
            exchange.target = int(exchange.scores.argmax())
        else:
            exchange.target = resolve_target(request.target, self.model.spec.labels)
        exchange.sample = sample = resolved(self.model, exchange.sample)
        check_answer(sample, len(exchange.scores), self.model.spec.limits.max_response_bytes)
        beside = seconds_of_answer(sample)
        with_answer = deadline.admit(field="accept" if request.accept == PNG else "masks", seconds=beside)
        exchange.key = key_of(sample, exchange.target)
        if not exchange.fresh:
            exchange.explanation = self.explanations.get(exchange.key)
        exchange.cached = exchange.explanation is not None
        if exchange.cached:
            return with_answer
        if request.by_path:
            total = points(sample)
            return deadline.admit(total, seconds=beside + seconds_of_shares(sample, total))
        estimate = cost(self.model, sample)
        return deadline.admit(estimate.points, "method", seconds=beside + estimate.seconds)

    def _explain(self, deadline: Deadline, exchanges: Sequence[Exchange]) -> None:
        targets = [exchange.target for exchange in exchanges if exchange.target is not None]
        total = left = sum(map(points, samples(exchanges)))
        started = time.perf_counter()

        def before_chunk(remaining: int) -> None:
            nonlocal left
            left = remaining
            deadline.check(remaining)

        try:
            explanations = explain(self.model, samples(exchanges), targets, before_chunk)
            left = 0
        finally:  # a pass that was given up has measured the speed as well
            if left < total and not any(seconds_of_shares(sample, 1) for sample in samples(exchanges)):
                seconds = time.perf_counter() - started
                self.seconds_per_point = updated(self.seconds_per_point, seconds, total - left)
        for exchange, explanation in zip(exchanges, explanations, strict=True):
            exchange.explanation = explanation
            if worth_keeping(explanation):
                self.explanations.put(exchange.key, explanation)

    def _map(self, deadline: Deadline, exchanges: Sequence[Exchange]) -> None:
        targets = [exchange.target for exchange in exchanges if exchange.target is not None]
        scores = [exchange.scores for exchange in exchanges if exchange.scores is not None]
        found = maps_of(self.model, samples(exchanges), targets, scores, deadline.check_rows, self.seconds_per_point)
        for exchange, own in zip(exchanges, found, strict=True):
            exchange.explanation = own
            self.explanations.put(exchange.key, own)

    def _encode(self, exchange: Exchange) -> Encoded:
        sample, scores = exchange.sample, exchange.scores
        assert sample is not None and scores is not None
        most = self.model.spec.limits.max_response_bytes
        if exchange.explanation is None or exchange.target is None:
            return encode(prediction_result(self.model, scores), sample.request.accept, max_bytes=most)
        if sample.request.accept == PNG:
            drawing = picture(self.model, sample, exchange.target, scores, exchange.explanation)
            return encode({}, PNG, picture=drawing, max_bytes=most)
        result = result_of(self.model, sample, exchange.target, scores, exchange.explanation)
        return encode(select(result, sample.request), sample.request.accept, max_bytes=most)


def samples(exchanges: Sequence[Exchange]) -> list[Sample]:
    """The decoded requests of exchanges that have got so far."""
    return [exchange.sample for exchange in exchanges if exchange.sample is not None]


def by_path(exchange: Exchange) -> bool:
    """Whether integrated gradients are asked for, with all that their path tells."""
    return exchange.sample is not None and exchange.sample.request.by_path


def together(exchanges: Sequence[Exchange], stage: Stage, work: Callable[[Sequence[Exchange]], None]) -> None:
    """Do the work for all at once; where that fails, for each alone, so that only the culprit fails."""
    if not exchanges:
        return
    started = time.perf_counter()
    try:
        work(exchanges)
    except RequestError as refusal:
        # The time is over for all; anything else may be due to one of them.
        if refusal.status == 503 or len(exchanges) == 1:
            for exchange in exchanges:
                exchange.refuse(refusal)
            return
    except Exception:
        log_traceback()
    else:
        seconds = time.perf_counter() - started
        for exchange in exchanges:
            exchange.seconds[stage] = exchange.seconds.get(stage, 0) + seconds
        return
    # Out of the except clause, whose traceback would keep the failed pass's tensors alive.
    for exchange in exchanges:
        with exchange.stage(stage):
            work([exchange])
