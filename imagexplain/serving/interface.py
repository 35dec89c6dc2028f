"""Interfaces of models to clients, from their specs alone: nothing is loaded."""

from __future__ import annotations

from imagexplain.api.caption_request import CaptionDefaults
from imagexplain.api.option_schemas import Interface
from imagexplain.archive.spec import CaptionerSpec, ClassifierSpec, ModelSpec, SegmenterSpec
from imagexplain.serving.runtime import limits
from imagexplain.serving.tasks import captioner, classifier, segmenter

GENERIC = (
    Interface("classifier", "classifier", contract=classifier.Classifier.contract),
    Interface("segmenter", "segmenter", contract=segmenter.Segmenter.contract),
    Interface("captioner", "captioner", defaults=CaptionDefaults()),
)
"""Interfaces of models of which nothing is known but their kind."""


def interface_of(spec: ModelSpec, address: str) -> Interface:
    """The interface of a model.

    Args:
        spec: Resolved spec of its archive.
        address: Name in addresses.
    """
    about = spec.description
    match spec:
        case ClassifierSpec():
            defaults, contract = classifier.defaults_of(spec), classifier.Classifier.contract
            return Interface(address, "classifier", about, limits(spec), defaults, contract)
        case SegmenterSpec():
            defaults, contract = segmenter.defaults_of(spec), segmenter.Segmenter.contract
            return Interface(address, "segmenter", about, limits(spec), defaults, contract, threshold=spec.threshold)
        case CaptionerSpec():
            own = captioner.defaults_of(spec)
            return Interface(address, "captioner", about, limits(spec), own, captions=captioner.limits_of(spec))
        case _:
            raise ValueError(f"spec: wanted one of a classifier, a segmenter or a captioner, got {type(spec).__name__}")
