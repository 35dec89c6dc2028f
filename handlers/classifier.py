"""The entry point of classifiers for TorchServe, which wants a module with one class."""

from imagexplain.serving.tasks import classifier


class ClassifierHandler(classifier.ClassifierHandler):
    """See :class:`imagexplain.serving.tasks.classifier.ClassifierHandler`."""
