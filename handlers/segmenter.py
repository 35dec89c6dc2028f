"""The entry point of instance segmenters for TorchServe."""

from imagexplain.serving.tasks.segmenter import Segmenter
from imagexplain.serving.torchserve import TorchServeHandler


class SegmenterHandler(TorchServeHandler[Segmenter]):
    """See :class:`imagexplain.serving.tasks.segmenter.Segmenter`."""

    task = Segmenter
