"""The entry point of instance segmenters for TorchServe."""

from pathlib import Path

import torch

from imagexplain.serving.metrics import MetricSink
from imagexplain.serving.tasks.segmenter import Segmenter
from imagexplain.serving.torchserve import TorchServeHandler
from imagexplain.serving.worker import Worker


class SegmenterHandler(TorchServeHandler[Worker[Segmenter]]):
    """See :class:`imagexplain.serving.tasks.segmenter.Segmenter`."""

    def start(self, folder: Path, device: torch.device, sink: MetricSink) -> Worker[Segmenter]:
        """See the base class."""
        return Worker.start(Segmenter.load(folder, device), folder, sink)
