"""Instance segmenters: instances of a photo, and explanations of one instance's class score."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from imagexplain.api.request import (
    GZIP,
    JSON,
    OPTIONS,
    PNG,
    SAFETENSORS,
    Contract,
    Defaults,
    Request,
    contrast_with,
    resolve_target,
)
from imagexplain.api.response import select
from imagexplain.archive import segmenter_backends, supported_methods
from imagexplain.archive.segmenter_backends import SegmenterBackend
from imagexplain.archive.spec import SegmenterSpec
from imagexplain.attribution.paths.path_integral import Forward
from imagexplain.attribution.runner import FORWARD_SHARE
from imagexplain.errors import RequestError, shown
from imagexplain.models.head import Head
from imagexplain.serving.admission import check_masks, seconds_of_instances
from imagexplain.serving.cache import Cache, digest
from imagexplain.serving.chunk_size import chunk_size
from imagexplain.serving.deadline import MIN_ADMITTED_SECONDS, Deadline, ema
from imagexplain.serving.model_facts import ModelFacts
from imagexplain.serving.render import ExplainedInstance
from imagexplain.serving.task import Decoded, ExplainedScore, Payload
from imagexplain.vision import rle
from imagexplain.vision.detections import Detections
from imagexplain.vision.instance_overlay import drawn
from imagexplain.vision.mask_crops import MasksTooLargeError
from imagexplain.vision.masks import PhotoMasks, of_cut_outs
from imagexplain.vision.preprocess import ModelInput

MEDIA = (GZIP, JSON, PNG, SAFETENSORS)


def defaults_of(spec: SegmenterSpec) -> Defaults:
    """The options of requests that say nothing of them."""
    return Defaults(**spec.explain.model_dump(), **spec.img_data.model_dump())


@dataclass(frozen=True)
class InstanceModel:
    """The class scores of one instance as a model of their own.

    Attributes:
        spec: Name and labels.
        network: Function from (N, 3, H, W) to logits (N, classes).
        device: Device of the segmenter.
        chunk_of: Function that finds the number of path points to evaluate at once, when it is first needed.
        facts: Facts known of the segmenter's scores.
    """

    spec: SegmenterSpec
    network: Forward
    device: torch.device
    chunk_of: Callable[[], int]
    facts: ModelFacts
    head: ClassVar[Head] = Head()

    @property
    def chunk(self) -> int:
        """Number of path points evaluated at once."""
        return self.chunk_of()

    def original_network(self) -> Forward:
        """The score function: there is no network of it alone that methods could look into."""
        return self.network


@dataclass
class Segmenter:
    """A segmenter, the instances of recent photos, and the running estimate of its speed.

    Attributes:
        engine: Network behind one interface.
        device: Device of the network.
        instances: Cache of the instances found on recent photos.
        facts: Facts known of its scores.
        seconds_per_pixel: Estimate of the time that a path point takes for each pixel of the input; 0 before the first.
        chunks: Number of path points evaluated at once, by the input's size.
    """

    contract: ClassVar[Contract] = Contract(
        media={"prediction": MEDIA, "explanation": MEDIA},
        options=(*OPTIONS, "detection"),
        prediction_options=("threshold", "picture"),
        original="prediction",
        any_layout=True,
        thresholds=True,
    )
    batched: ClassVar[bool] = False

    spec: SegmenterSpec
    engine: SegmenterBackend
    device: torch.device
    defaults: Defaults
    instances: Cache[Detections]
    facts: ModelFacts
    seconds_per_pixel: float = 0.0
    chunks: dict[tuple[int, int], int] = field(default_factory=dict)

    @classmethod
    def load(cls, model_dir: Path, device: torch.device) -> Segmenter:
        """See :func:`imagexplain.archive.segmenter_backends.load`."""
        spec = SegmenterSpec.read(model_dir)
        engine = segmenter_backends.load(spec, model_dir, device)

        def try_all() -> dict[str, str]:
            explained = segmenter_backends.dry_run(engine, len(spec.labels), spec.threshold)
            return {} if explained is None else supported_methods.find_refusals(*explained)

        names = supported_methods.load(model_dir, try_all)
        return cls(spec, engine, device, defaults_of(spec), Cache(spec.limits.cache_bytes), ModelFacts(names))

    def describe(self) -> str:
        """The model, its device and its engine."""
        return f"{self.spec.address} on {self.device} by {self.spec.engine}"

    def preprocess(self, request: Request) -> ModelInput:
        """The model input of the photo."""
        seen, most = self.engine.preprocess(request.photo), self.spec.limits.max_input_pixels
        height, width = seen.image.shape[1:]
        if height * width > most:
            wanted = f"wanted at most {most:,} pixels as the model sees them, got {width} × {height}"
            raise RequestError(413, "image", f"{wanted}: send a smaller photo, or resize it by the model's spec")
        return seen

    def predict(self, batch: Sequence[Decoded], deadline: Deadline) -> list[Detections]:
        """The instances whose score exceeds the threshold."""
        return [self._predict(one, deadline) for one in batch]

    def _predict(self, decoded: Decoded, deadline: Deadline) -> Detections:
        threshold = self._threshold(decoded.request)
        key = (decoded.key, decoded.seen.geometry, threshold)
        found = None if decoded.fresh else self.instances.get(key)
        if found is None:
            deadline.check_start()
            try:
                found = self.engine.predict(decoded.seen, threshold)
            except MasksTooLargeError as error:
                hint = "raise the threshold, or send a smaller photo"
                raise RequestError(413, "threshold", f"{error}: {hint}") from None
            self.instances.put(key, found)
        return found

    def _threshold(self, request: Request) -> float:
        return self.spec.threshold if request.threshold is None else request.threshold

    def payload(self, decoded: Decoded, prediction: Detections, deadline: Deadline) -> Payload:
        """The instances: tensors, run-length masks, or a picture."""
        request = decoded.request
        if (seconds := seconds_of_instances(prediction, request.accept)) >= MIN_ADMITTED_SECONDS:
            deadline.admit(field="accept", seconds=seconds)
        if request.accept == PNG:
            annotated = request.picture.annotated
            photo = drawn(request.photo.image, prediction, self.spec.labels, self.spec.address, annotated=annotated)
            return Payload({}, photo)
        most = self.spec.limits.max_response_bytes
        check_masks(len(prediction), prediction.size, request.accept, most)
        return Payload(select(self._result(prediction, request.accept), request))

    def _result(self, found: Detections, accept: str) -> dict[str, Any]:
        names = self._names(found)
        result: dict[str, Any] = {
            "model": self.spec.address,
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

    def best(self, prediction: Detections, count: int) -> list[int]:
        """Indices of the classes of the best detections, each class once."""
        return list(dict.fromkeys(prediction.labels.tolist()))[:count]

    def explained_score(self, decoded: Decoded, prediction: Detections) -> ExplainedScore:
        """The class score of the instance that is asked for, or of the best one."""
        request, image, found = decoded.request, decoded.seen.image, prediction
        instance = self._instance(request, found)
        forward = self.engine.score_function(decoded.seen, found.anchors[instance])
        scores, seconds = self._timed(forward, image)
        if not self.seconds_per_pixel:
            # Until a path was taken, forward passes are all that tells how fast the worker is: the better of two, for
            # the first one of a size warms up, and a busy moment must not refuse what there is time for.
            seconds = min(seconds, self._timed(forward, image)[1])
        score = found.scores[instance].item()
        return ExplainedScore(
            InstanceModel(self.spec, forward, self.device, lambda: self._chunk(forward, image), self.facts),
            contrast_with(request, int(found.labels[instance]), self.spec.labels),
            scores,
            self.seconds_per_pixel * image[0].numel() or seconds / FORWARD_SHARE,
            masks=self._own_masks(request, found),
            key=digest(found.anchors[instance]),
            instance=ExplainedInstance(instance, score, found.cut_outs[instance]),
            result={"detection": instance, "box": found.boxes[instance].tolist(), "detection_score": score},
        )

    def _timed(self, forward: Forward, image: Tensor) -> tuple[Tensor, float]:
        """(classes,) scores of a model input (3, H, W), on the CPU, and the seconds that they took."""
        started = time.perf_counter()
        with torch.no_grad():
            scores = forward(image[None].to(self.device))[0].cpu()
        return scores, time.perf_counter() - started

    def _instance(self, request: Request, found: Detections) -> int:
        """The index of the instance that the request means."""
        if len(found) == 0:
            nothing = f"nothing was found with a score above {self._threshold(request):g}"
            raise RequestError(422, "threshold", nothing)
        if request.detection is not None:
            if request.detection >= len(found):
                raise RequestError(422, "detection", f"wanted 0..{len(found) - 1}, got {request.detection}")
            return request.detection
        if request.target is None:
            return 0
        wanted = resolve_target(request.target, self.spec.labels)
        of_class = (found.labels == wanted).nonzero()[:, 0]
        if len(of_class) == 0:
            there = sorted(set(self._names(found)))
            message = f"no {self.spec.labels[wanted]} was found, but {', '.join(map(shown, there))}"
            raise RequestError(422, "target_class", message)
        return int(of_class[0])

    def _own_masks(self, request: Request, found: Detections) -> PhotoMasks | None:
        """The instances as segments, where the request names this model for them."""
        if request.segments is None or request.segments.name != self.spec.name:
            return None
        return of_cut_outs(found.cut_outs, found.size, self._names(found))

    def _names(self, found: Detections) -> list[str]:
        return [self.spec.labels[label] for label in found.labels.tolist()]

    def _chunk(self, forward: Forward, image: Tensor) -> int:
        if self.spec.serving.chunk is not None:
            return self.spec.serving.chunk
        size = (image.shape[1], image.shape[2])
        if size not in self.chunks:
            self.chunks[size] = chunk_size(self.engine.network, image[None].to(self.device), forward)
        return self.chunks[size]

    def seconds_per_image(self, image: Tensor) -> float:
        """A part of what a point of a path takes, which goes by the input's pixels; 0 before any was taken."""
        return FORWARD_SHARE * self.seconds_per_pixel * image[0].numel()

    def observe(self, image: Tensor, points: int, seconds: float) -> None:
        """Learn the speed, which goes by the input's pixels."""
        seen, known = seconds / points / image[0].numel(), self.seconds_per_pixel
        self.seconds_per_pixel = ema(known, seen, 1) if known else seen
