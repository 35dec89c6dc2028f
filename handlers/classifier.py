"""The entry point of classifiers for TorchServe."""

from pathlib import Path

import torch

from imagexplain.serving.metrics import MetricSink
from imagexplain.serving.tasks.classifier import Classifier
from imagexplain.serving.torchserve import TorchServeHandler
from imagexplain.serving.worker import Worker


class ClassifierHandler(TorchServeHandler[Worker[Classifier]]):
    """See :class:`imagexplain.serving.tasks.classifier.Classifier`."""

    def start(self, folder: Path, device: torch.device, sink: MetricSink) -> Worker[Classifier]:
        """See the base class."""
        return Worker.start(Classifier.load(folder, device), folder, sink)
