"""The entry point of classifiers for TorchServe."""

from imagexplain.serving.tasks.classifier import Classifier
from imagexplain.serving.torchserve import TorchServeHandler


class ClassifierHandler(TorchServeHandler[Classifier]):
    """See :class:`imagexplain.serving.tasks.classifier.Classifier`."""

    task = Classifier
