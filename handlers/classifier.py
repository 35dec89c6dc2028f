"""The TorchServe handler of classifiers: predictions and explanations, mixed freely within a batch."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from handlers import worker
from handlers.cache import Cache
from handlers.deadline import Deadline, updated
from handlers.exchange import Exchange, log_traceback
from handlers.explanation import Explanation, explain, points, predict, prediction_result, size_of, worth_keeping
from handlers.mapping import Map, batches, cost, key_of, maps_of, resolved, result_of
from handlers.memory import keep_freed_memory
from handlers.metrics import Metrics, Stage
from handlers.neighbour import with_segments
from handlers.picture import picture
from handlers.sample import Sample, prepare, view
from handlers.served_model import ServedModel, load
from handlers.wire.errors import RequestError
from handlers.wire.limits import Limits
from handlers.wire.request import PNG, Defaults, parse, resolve_target
from handlers.wire.response import Encoded, encode, select

logger = logging.getLogger(__name__)

TELLING = 20
"""Points that a map must be estimated to cost for its time to tell how slow maps are; in less, other things count."""


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
                exchange.sample = self._decode(exchange, deadline)

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

    def _decode(self, exchange: Exchange, deadline: Deadline) -> Sample:
        request = parse(exchange.row, exchange.headers, kind=exchange.kind, limits=self.limits, defaults=self.defaults)
        seen = view(request.photo, self.model.preprocess)
        request, found = with_segments(request, self.model.spec.name, self.limits, deadline.ends, fresh=exchange.fresh)
        return prepare(request, seen, found)

    def _score(self, exchanges: Sequence[Exchange]) -> None:
        unknown = []
        for exchange in exchanges:
            assert exchange.sample is not None
            exchange.scores = None if exchange.fresh else self.scores.get(exchange.sample.key)
            if exchange.scores is None:
                unknown.append(exchange)
        if unknown:
            for exchange, scores in zip(unknown, predict(self.model, samples(unknown)), strict=True):
                exchange.scores = scores
                assert exchange.sample is not None
                self.scores.put(exchange.sample.key, scores, scores.nbytes)

    def _admit(self, exchange: Exchange, deadline: Deadline) -> Deadline:
        """Settle the target, and whether the explanation is known or there is time for it."""
        assert exchange.sample is not None and exchange.scores is not None
        request = exchange.sample.request
        if request.target is None:
            exchange.target = int(exchange.scores.argmax())
        else:
            exchange.target = resolve_target(request.target, self.model.spec.labels)
        exchange.sample = sample = resolved(self.model, exchange.sample)
        if not exchange.fresh:
            exchange.explanation = self.explanations.get(key_of(sample, exchange.target))
        exchange.cached = exchange.explanation is not None
        if exchange.cached:
            return deadline
        if request.by_path:
            return deadline.admit(points(sample))
        return deadline.admit(math.ceil(cost(self.model, sample) * self.model.findings.slowness), "method")

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
            if left < total:
                seconds = time.perf_counter() - started
                self.seconds_per_point = updated(self.seconds_per_point, seconds, total - left)
        for exchange, target, explanation in zip(exchanges, targets, explanations, strict=True):
            exchange.explanation = explanation
            assert exchange.sample is not None
            if worth_keeping(explanation):
                self.explanations.put(key_of(exchange.sample, target), explanation, size_of(explanation))

    def _map(self, deadline: Deadline, exchanges: Sequence[Exchange]) -> None:
        targets = [exchange.target for exchange in exchanges if exchange.target is not None]
        scores = [exchange.scores for exchange in exchanges if exchange.scores is not None]
        findings, estimate = self.model.findings, sum(cost(self.model, sample) for sample in samples(exchanges))
        started = time.perf_counter()
        try:
            maps = maps_of(self.model, samples(exchanges), targets, scores, deadline.check_rows)
        finally:
            if estimate >= TELLING:
                expected = estimate * self.seconds_per_point
                findings.slowness = updated(findings.slowness, (time.perf_counter() - started) / expected, 1)
        for exchange, target, found in zip(exchanges, targets, maps, strict=True):
            exchange.explanation = found
            assert exchange.sample is not None
            self.explanations.put(key_of(exchange.sample, target), found, found.attribution.nbytes)

    def _encode(self, exchange: Exchange) -> Encoded:
        sample, scores = exchange.sample, exchange.scores
        assert sample is not None and scores is not None
        most = self.model.spec.limits.max_response_bytes
        if exchange.explanation is None or exchange.target is None:
            return encode(prediction_result(self.model, scores), sample.request.accept, max_bytes=most)
        result = result_of(self.model, sample, exchange.target, scores, exchange.explanation)
        if sample.request.accept == PNG:
            drawing = picture(self.model, sample, exchange.target, scores, exchange.explanation)
            return encode(result, PNG, picture=drawing, max_bytes=most)
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
                exchange.failure = refusal
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
