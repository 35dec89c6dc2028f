"""The TorchServe handler of instance segmenters: instances, and explanations of one instance's class score."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from imagexplain.api.request import GZIP, JSON, PNG, SAFETENSORS, Defaults, Request, parse, resolve_target
from imagexplain.api.response import Encoded, encode, select
from imagexplain.archive import segmenter_backends as engines
from imagexplain.archive.segmenter_backends import Engine
from imagexplain.archive.spec import SegmenterSpec
from imagexplain.attribution.paths.path_integral import Forward
from imagexplain.attribution.runner import FORWARD_SHARE
from imagexplain.errors import RequestError, shown
from imagexplain.limits import Limits
from imagexplain.serving import runtime as worker
from imagexplain.serving.admission import (
    admit_baseline,
    check_answer,
    check_masks,
    seconds_of_answer,
    seconds_of_shares,
)
from imagexplain.serving.allocator import keep_freed_memory
from imagexplain.serving.cache import Cache, digest
from imagexplain.serving.chunk_size import chunk_size
from imagexplain.serving.deadline import Deadline, updated
from imagexplain.serving.method_attribution import Map, cost, key_of, maps_of, resolved, result_of
from imagexplain.serving.metrics import Metrics
from imagexplain.serving.model_facts import Findings
from imagexplain.serving.path_attribution import Explanation, explain, points, worth_keeping
from imagexplain.serving.prepared_request import prepare
from imagexplain.serving.remote_segments import Ask, Neighbours, with_segments
from imagexplain.serving.render import ExplainedInstance, picture
from imagexplain.serving.request_state import Exchange, asking
from imagexplain.serving.segmented_request import ExplainedScore, Job
from imagexplain.vision import rle
from imagexplain.vision.detections import Detections
from imagexplain.vision.instance_overlay import drawn
from imagexplain.vision.masks import PhotoMasks, of_cut_outs
from imagexplain.vision.preprocess import View

logger = logging.getLogger(__name__)


class SegmenterHandler:
    """Answers the requests of a batch one after the other: photos differ in size.

    TorchServe creates one of these in each worker process, calls :meth:`initialize` once and :meth:`handle` for each
    batch.
    """

    spec: SegmenterSpec
    engine: Engine
    device: torch.device
    metrics: Metrics
    limits: Limits
    defaults: Defaults
    neighbours: Neighbours
    seconds_per_pixel: float
    chunks: dict[tuple[int, int], int]
    findings: Findings
    instances: Cache[Detections]
    explanations: Cache[Explanation | Map]

    def initialize(self, context: Any) -> None:
        """Load the archive that TorchServe unpacked; what this raises is the reason a worker does not come up."""
        keep_freed_memory()
        properties = context.system_properties
        self.device = worker.device(properties)
        model_dir = Path(properties["model_dir"])
        self.spec = spec = SegmenterSpec.read(model_dir)
        self.engine = engines.load(spec, model_dir, self.device)
        self.limits = worker.limits(spec)
        self.neighbours = worker.neighbours(spec, properties)
        self.defaults = Defaults(**spec.explain.model_dump(), **spec.img_data.model_dump())
        self.seconds_per_pixel = 0.0
        self.chunks = {}
        self.findings = Findings()
        self.instances = Cache(spec.limits.cache_bytes)
        self.explanations = Cache(spec.limits.cache_bytes)
        self.metrics = Metrics(context.metrics, spec.name)
        self.metrics.prime()
        logger.info("%s on %s by %s", spec.name, self.device, spec.engine)

    def handle(self, rows: Sequence[dict[str, Any]], context: Any) -> list[bytes]:
        """One body for each row, in order; its status and headers are set in the context."""
        ends = Deadline.starting_now(self.spec.serving.deadline_s, 0).ends
        exchanges = [Exchange(index, row, context) for index, row in enumerate(rows)]
        for exchange in exchanges:
            with exchange.stage("decode"):
                exchange.request = self._parse(exchange)
        ask = self.neighbours.ask(asking(exchanges), ends)
        return [self._answer(exchange, ask, ends) for exchange in exchanges]

    def _answer(self, exchange: Exchange, ask: Ask, ends: float) -> bytes:
        if exchange.request is not None:
            with exchange.stage("decode"):
                request, seen, sent = self._decode(exchange.request, ask, ends, fresh=exchange.fresh)
        if exchange.pending:
            with exchange.stage("attribute"):
                job = self._work(exchange, request, seen, sent, ends)
        if exchange.pending:
            with exchange.stage("encode"):
                exchange.answer = self._encode(exchange, job)
        return exchange.close(self.metrics)

    def _parse(self, exchange: Exchange) -> Request:
        return parse(
            exchange.row,
            exchange.headers,
            kind=exchange.kind,
            limits=self.limits,
            defaults=self.defaults,
            segmenter=True,
        )

    def _decode(
        self, request: Request, ask: Ask, ends: float, *, fresh: bool
    ) -> tuple[Request, View, PhotoMasks | None]:
        sent = None
        if request.segments is not None and request.segments.name != self.spec.name:
            request, sent = with_segments(request, self.spec.name, self.limits, ends, fresh=fresh, ask=ask)
        return request, self.engine.look(request.photo), sent

    def _work(self, exchange: Exchange, request: Request, seen: View, sent: PhotoMasks | None, ends: float) -> Job:
        threshold = self.spec.threshold if request.threshold is None else request.threshold
        deadline = Deadline(ends, self.spec.serving.deadline_s, 0)
        found = self._find(seen, threshold, deadline, fresh=exchange.fresh)
        if request.kind == "prediction":
            exchange.sample = prepare(request, seen)
            return Job(exchange.sample, found)
        if request.segments is not None and request.segments.name == self.spec.name:
            names = [self.spec.labels[label] for label in found.labels.tolist()]
            sent = of_cut_outs(found.cut_outs, found.size, names)
        height, width = seen.image.shape[1:]
        admit_baseline(request, (height, width), deadline)
        exchange.sample = sample = prepare(request, seen, sent, self.limits, deadline)
        instance = self._instance(request, found, threshold)
        exchange.target = int(found.labels[instance])
        forward = self.engine.class_scores(seen, found.anchors[instance])
        started = time.perf_counter()
        with torch.no_grad():
            exchange.scores = forward(sample.image[None].to(self.device))[0].cpu()
        # Until a path was taken, the forward pass is all that tells how fast the worker is.
        usual = (time.perf_counter() - started) / FORWARD_SHARE
        seconds = self.seconds_per_pixel * height * width or usual
        deadline = Deadline(ends, self.spec.serving.deadline_s, seconds, self.spec.explain.steps + 2)
        self._explain(exchange, forward, found.anchors[instance], deadline)
        return Job(sample, found, exchange.scores, instance)

    def _find(self, seen: View, threshold: float, deadline: Deadline, *, fresh: bool) -> Detections:
        key = (digest(seen.image), seen.geometry, threshold)
        found = None if fresh else self.instances.get(key)
        if found is None:
            deadline.check_start()
            found = self.engine.find(seen, threshold)
            self.instances.put(key, found)
        return found

    def _instance(self, request: Request, found: Detections, threshold: float) -> int:
        """The index of the instance that the request means."""
        if len(found) == 0:
            raise RequestError(422, "threshold", f"nothing was found with a score above {threshold:g}")
        if request.detection is not None:
            if request.detection >= len(found):
                raise RequestError(422, "detection", f"wanted 0..{len(found) - 1}, got {request.detection}")
            return request.detection
        if request.target is None:
            return 0
        wanted = resolve_target(request.target, self.spec.labels)
        of_class = (found.labels == wanted).nonzero()[:, 0]
        if len(of_class) == 0:
            there = sorted({self.spec.labels[label] for label in found.labels.tolist()})
            message = f"no {self.spec.labels[wanted]} was found, but {', '.join(map(shown, there))}"
            raise RequestError(422, "target_class", message)
        return int(of_class[0])

    def _explain(self, exchange: Exchange, forward: Forward, anchor: Tensor, deadline: Deadline) -> None:
        sample, target, scores = exchange.sample, exchange.target, exchange.scores
        assert sample is not None and target is not None and scores is not None
        request = sample.request
        check_answer(sample, len(scores), self.spec.limits.max_response_bytes)
        beside = seconds_of_answer(sample)
        deadline.admit(field="accept" if request.accept == PNG else "masks", seconds=beside)
        exchange.key = (key_of(sample, target), digest(anchor))
        exchange.explanation = None if exchange.fresh else self.explanations.get(exchange.key)
        exchange.cached = exchange.explanation is not None
        if exchange.cached:
            return
        model = ExplainedScore(
            self.spec, forward, self.device, self._chunk(forward, sample.image), findings=self.findings
        )
        sample = resolved(model, sample)
        if not request.by_path:
            estimate = cost(model, sample)
            deadline.admit(estimate.points, "method", seconds=beside + estimate.seconds)
            (found,) = maps_of(model, [sample], [target], [scores], deadline.check_rows, deadline.seconds_per_point)
            exchange.explanation = found
            self.explanations.put(exchange.key, found)
            return
        left = total = points(sample)
        shares = seconds_of_shares(sample, total)
        deadline.admit(total, seconds=beside + shares)
        started = time.perf_counter()

        def before_chunk(remaining: int) -> None:
            nonlocal left
            left = remaining
            deadline.check(remaining)

        try:
            (explanation,) = explain(model, [sample], [target], before_chunk)
            left = 0
        finally:
            if left < total and not shares:
                seconds = (time.perf_counter() - started) / (total - left)
                self._learn(seconds / sample.image[0].numel())
        exchange.explanation = explanation
        if worth_keeping(explanation):
            self.explanations.put(exchange.key, explanation)

    def _learn(self, seconds_per_pixel: float) -> None:
        known = self.seconds_per_pixel
        self.seconds_per_pixel = updated(known, seconds_per_pixel, 1) if known else seconds_per_pixel

    def _chunk(self, forward: Forward, image: Tensor) -> int:
        if self.spec.serving.chunk is not None:
            return self.spec.serving.chunk
        size = (image.shape[1], image.shape[2])
        if size not in self.chunks:
            self.chunks[size] = chunk_size(self.engine.network, image[None].to(self.device), forward)
        return self.chunks[size]

    def _encode(self, exchange: Exchange, job: Job) -> Encoded:
        request, most = job.sample.request, self.spec.limits.max_response_bytes
        if exchange.explanation is None:
            if request.accept == PNG:
                annotated = request.picture.annotated
                photo = drawn(request.photo.image, job.found, self.spec.labels, self.spec.name, annotated=annotated)
                return encode({}, PNG, picture=photo, max_bytes=most)
            check_masks(len(job.found), job.found.size, request.accept, most)
            return encode(select(self._prediction(job), request), request.accept, max_bytes=most)
        assert job.scores is not None and job.instance is not None and exchange.target is not None
        model = ExplainedScore(self.spec, self.engine.network, self.device, 1)
        if request.accept == PNG:
            return encode({}, PNG, picture=self._picture(model, job, exchange), max_bytes=most)
        result = result_of(model, job.sample, exchange.target, job.scores, exchange.explanation)
        result["detection"] = job.instance
        result["box"] = job.found.boxes[job.instance].tolist()
        result["detection_score"] = job.found.scores[job.instance].item()
        return encode(select(result, request), request.accept, max_bytes=most)

    def _picture(self, model: ExplainedScore, job: Job, exchange: Exchange) -> Image.Image:
        assert job.scores is not None and job.instance is not None
        assert exchange.target is not None and exchange.explanation is not None
        score, cut_out = job.found.scores[job.instance].item(), job.found.cut_outs[job.instance]
        instance = ExplainedInstance(job.instance, score, cut_out)
        return picture(model, job.sample, exchange.target, job.scores, exchange.explanation, instance)

    def _prediction(self, job: Job) -> dict[str, Any]:
        """What ``/predictions`` answers with."""
        found = job.found
        names = [self.spec.labels[label] for label in found.labels.tolist()]
        accept = job.sample.request.accept
        result: dict[str, Any] = {
            "model": self.spec.name,
            "boxes": found.boxes,
            "scores": found.scores,
            "classes": found.labels,
            "labels": names,
        }
        if accept in (GZIP, SAFETENSORS):
            result["pred_masks"] = found.masks
        if accept == JSON:
            rows = zip(
                names, found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), found.cut_outs, strict=True
            )
            result["detections"] = [
                {
                    "label": name,
                    "class": label,
                    "score": score,
                    "box": box,
                    "area": cut_out.area,
                    "segmentation": rle.write(cut_out.mask, cut_out.corner, found.size),
                }
                for name, label, score, box, cut_out in rows
            ]
        return result
