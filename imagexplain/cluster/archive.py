"""An archive's model, loaded without TorchServe: unpacked for as long as it is used, with the worker of its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from imagexplain.ops.unpack import unpack
from imagexplain.serving.caption_worker import CaptionWorker
from imagexplain.serving.metrics import MetricSink
from imagexplain.serving.request_loop import AnyLoop
from imagexplain.serving.runtime import device
from imagexplain.serving.tasks.captioner import Captioner
from imagexplain.serving.tasks.classifier import Classifier
from imagexplain.serving.tasks.segmenter import Segmenter
from imagexplain.serving.worker import Worker

Start = Callable[[Path, torch.device, MetricSink], AnyLoop]

KINDS: Mapping[str, Start] = {
    "classifier": lambda folder, device, sink: Worker.start(Classifier.load(folder, device), folder, sink),
    "segmenter": lambda folder, device, sink: Worker.start(Segmenter.load(folder, device), folder, sink),
    "captioner": lambda folder, device, sink: CaptionWorker.start(Captioner.load(folder, device), sink),
}
"""Function that starts the worker of an unpacked archive, by its handler."""


def load(archive: Path, folder: Path, sink: MetricSink, kinds: Sequence[str] = tuple(KINDS)) -> AnyLoop:
    """The worker of an archive, unpacked into a folder that must live as long as it does.

    Args:
        archive: Archive of a model.
        folder: Empty folder.
        sink: Collector of metrics.
        kinds: Handlers that will do, keys of :data:`KINDS`.

    Raises:
        ArchiveError: no such archive, or one that is damaged or of no such kind.
        OSError: no room for its files.
    """
    return KINDS[unpack(archive, folder, kinds)](folder, device({"gpu_id": 0}), sink)
