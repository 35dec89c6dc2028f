"""An archive's model, loaded without TorchServe: unpacked for as long as it is used, with the worker of its kind."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from imagexplain.archive.spec import SPEC_FILE
from imagexplain.ops.check_archive import check
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
        ValueError: an archive that is damaged, or of no such kind.
        OSError: no such archive, or no room for its files.
    """
    check(archive)
    with zipfile.ZipFile(archive) as content:
        handler = json.loads(content.read(SPEC_FILE))["handler"] if SPEC_FILE in content.namelist() else "none of ours"
        if handler not in kinds:
            raise ValueError(f"{archive}: wanted the archive of a {' or a '.join(kinds)}, got handler {handler!r}")
        content.extractall(folder)
    return KINDS[handler](folder, device({"gpu_id": 0}), sink)
