"""The entry point of captioners for TorchServe."""

from pathlib import Path

import torch

from imagexplain.serving.caption_worker import CaptionWorker
from imagexplain.serving.metrics import MetricSink
from imagexplain.serving.tasks.captioner import Captioner
from imagexplain.serving.torchserve import TorchServeHandler


class CaptionerHandler(TorchServeHandler[CaptionWorker]):
    """See :class:`imagexplain.serving.tasks.captioner.Captioner`."""

    def start(self, folder: Path, device: torch.device, sink: MetricSink) -> CaptionWorker:
        """See the base class."""
        return CaptionWorker.start(Captioner.load(folder, device), sink)
