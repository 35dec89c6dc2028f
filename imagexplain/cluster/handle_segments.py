"""Segmenters that are other deployments of the same Ray Serve, asked by their handles: no port, and no key."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from http import HTTPStatus

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from imagexplain.api.options import SEGMENTS
from imagexplain.errors import RequestError, shown
from imagexplain.limits import Limits
from imagexplain.serving.messages import RawRequest, Response
from imagexplain.serving.remote_segments import (
    NoAnswerError,
    RemoteSegments,
    encoded,
    masks_of_answer,
    question_headers,
)
from imagexplain.vision.decode import Photo
from imagexplain.vision.masks import PhotoMasks

AskHandle = Callable[[str, RawRequest, float], Response]
"""Function that asks an application by its name, and waits for so many seconds at most."""


@dataclass
class HandleSegments(RemoteSegments):
    """The segmenters that an archive may ask. A segmenter asks none here, so that no two wait for one another.

    Attributes:
        segmenters: Names of their applications.
    """

    segmenters: tuple[str, ...] = ()

    def _allow(self, name: str, locks: ExitStack) -> None:
        if name not in self.segmenters:
            served = ", ".join(self.segmenters) or "none is"
            wanted = f"wanted {', '.join(SEGMENTS)} or a segmenter that is served here ({served})"
            raise RequestError(422, "segments", f"{wanted}, got {shown(name)}")
        self._check_rest(name)


def segments_of(
    name: str, photo: Photo, limits: Limits, *, threshold: float | None, ends: float, fresh: bool = False
) -> PhotoMasks:
    """The instances that a segmenter finds on a photo; see :func:`imagexplain.serving.remote_segments.segments_of`."""
    headers = {name.lower(): value for name, value in question_headers(threshold, fresh=fresh).items()}
    asked = RawRequest({"body": encoded(photo)}, headers, "prediction")
    try:
        handle = serve.get_app_handle(name)
        answer: Response = handle.answer.remote(asked).result(timeout_s=max(0.0, ends - time.monotonic()))
    except TimeoutError:
        raise NoAnswerError(name) from None
    except (RayError, RayServeException):
        message = f"the segmenter {name} cannot be reached; try again, or allow a fallback"
        raise RequestError(503, "segments", message) from None
    return masks_of_answer(name, answer.status, HTTPStatus(answer.status).phrase, answer.body, photo, limits)
