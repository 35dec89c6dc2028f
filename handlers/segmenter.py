"""The entry point of instance segmenters for TorchServe, which wants a module with one class."""

from imagexplain.serving.tasks import segmenter


class SegmenterHandler(segmenter.SegmenterHandler):
    """See :class:`imagexplain.serving.tasks.segmenter.SegmenterHandler`."""
