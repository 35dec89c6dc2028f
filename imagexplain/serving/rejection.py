"""Reasons for which requests are refused, as the few words that a metric's label may have."""

from __future__ import annotations

from imagexplain.errors import RequestError

REASONS = ("image", "options", "accept", "size", "work", "model", "time", "memory", "segmenter")
"""Words for why there is no answer: a photo that is none or is damaged; options that are unknown, malformed or
contradict each other; no such form of answer; too many bytes, pixels, masks, graphs or instances, or too large an
answer; more work than a batch may ever be; what this model cannot do; a batch that is full or over; no memory left; a
segmenter next door that did not answer."""

IMAGE_FIELDS = ("image", "img_data", "body")
SIZE_FIELDS = (*IMAGE_FIELDS, "accept", "baseline_image", "baseline_tensor", "caption", "outputs", "words", "instances")


def reason(failure: RequestError) -> str | None:
    """The reason for a refusal, one of :data:`REASONS`; None for a fault of the server's own, which refuses nothing.

    Fields of a request can be the client's own words, which is why they are only compared here.

    Args:
        failure: Failure of a request.

    Example:
        >>> from imagexplain.errors import RequestError
        >>> from imagexplain.serving.rejection import reason
        >>> reason(RequestError(413, "steps", "wanted work of at most 96 s, got about 400 s"))
        'work'
    """
    field = failure.field.partition(".")[0]
    match failure.status:
        case 400:
            return "image" if field in IMAGE_FIELDS else "options"
        case 406:
            return "accept"
        case 413:
            return "size" if field in SIZE_FIELDS or field.startswith(("mask", "graph", "feature")) else "work"
        case 415:
            return "image"
        case 422:
            return "model"
        case 503:
            return {"request": "memory", "segments": "segmenter"}.get(field, "time")
        case _:
            return None
