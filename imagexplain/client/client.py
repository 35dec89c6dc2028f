"""A client that waits for each answer; any number of threads may share one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack
from urllib.parse import urlencode

import httpx

from imagexplain.client import calls
from imagexplain.client.answers import Explanation, Prediction
from imagexplain.client.base import BaseClient
from imagexplain.client.build import OPTIONS_HEADER
from imagexplain.client.calls import Call
from imagexplain.client.errors import ClientError
from imagexplain.client.exchange import Pause, Reply, exchange, out_of_time
from imagexplain.client.masks import Masks
from imagexplain.client.message import Answer, Endpoint, Request
from imagexplain.client.options import ExplainOptions, PredictOptions
from imagexplain.client.photos import Photo
from imagexplain.client.transport import FAILURES, reply_of, time_over

T = TypeVar("T")


class Client(BaseClient):
    """A connection to a server, for any number of threads.

    See :class:`imagexplain.client.base.BaseClient` for its arguments.
    """

    def _open(self, settings: dict[str, Any]) -> None:
        self._http = httpx.Client(**settings)

    def predict(
        self,
        photo: Photo | None,
        model: str,
        *,
        masks: Masks | None = None,
        request_id: str | None = None,
        **options: Unpack[PredictOptions],
    ) -> Prediction:
        """The prediction of a model: classes, instances or captions.

        Args:
            photo: Path of a file, its bytes, an image of Pillow's or an array; None with features for a captioner.
            model: Name of the model, or name/version.
            masks: Masks of which some are `absent`.
            request_id: Id of the request, for the server's log.
            **options: Options of the prediction.

        Raises:
            ClientError: no answer, or no success.
        """
        return self._run(calls.predict(photo, model, {**options, "masks": masks}, request_id))

    def explain(
        self,
        photo: Photo | None,
        model: str,
        *,
        masks: Masks | None = None,
        tensors: bool = True,
        fresh: bool = False,
        request_id: str | None = None,
        **options: Unpack[ExplainOptions],
    ) -> Explanation:
        """The explanation of what a model says of a photo.

        Args:
            photo: Path of a file, its bytes, an image of Pillow's or an array; None with features for a captioner.
            model: Name of the model, or name/version.
            masks: Masks to score: a file, an array, run lengths, or what a segmenter found.
            tensors: Flag for an answer with tensors; without, only the summary is computed and sent.
            fresh: Flag for an answer that is computed anew, even where it is cached.
            request_id: Id of the request, for the server's log.
            **options: Options of the explanation.

        Raises:
            ClientError: no answer, or no success.
        """
        given = {**options, "masks": masks}
        return self._run(calls.explain(photo, model, given, tensors=tensors, fresh=fresh, request_id=request_id))

    def picture(
        self,
        photo: Photo | None,
        model: str,
        *,
        masks: Masks | None = None,
        endpoint: Endpoint = "explanations",
        **options: Unpack[ExplainOptions],
    ) -> bytes:
        """The explanation as a picture, a PNG; with the endpoint `predictions` the instances of a segmenter.

        Raises:
            ClientError: no answer, or no success.
        """
        return self._run(calls.picture(photo, model, endpoint, {**options, "masks": masks}))

    def ask(
        self,
        endpoint: Endpoint,
        photo: Photo | None,
        model: str,
        *,
        accept: str = "*/*",
        options: Mapping[str, Any] | None = None,
        fresh: bool = False,
    ) -> Answer:
        """The answer of an endpoint in any form, as it came.

        Raises:
            ClientError: no answer, or no success.
        """
        return self._run(calls.ask(endpoint, photo, model, accept, options or {}, fresh=fresh))

    def models(self) -> tuple[str, ...]:
        """The names of the models that are served, with versions where there are several; the front door tells them.

        Raises:
            ClientError: no answer, or no success.
        """
        return self.known_models or self._run(calls.models())

    def document(self) -> dict[str, Any]:
        """The server's OpenAPI document, which the front door has. Raises ClientError."""
        return self._run(calls.document())

    def post(
        self, path: str, body: bytes, media: str, *, accept: str = "*/*", options: Mapping[str, Any] | None = None
    ) -> Answer:
        """Post a body as it is; `options` are short ones of an explanation. Raises ClientError."""
        headers = {"Content-Type": media, "Accept": accept}
        if options:
            headers[OPTIONS_HEADER] = urlencode(options)
        return self._run(Call(Request(path, headers, body), lambda answer: answer))

    def photo(
        self,
        path: str,
        photo: Path,
        *,
        files: Mapping[str, Path] | None = None,
        accept: str = "*/*",
        options: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Post an encoded photo to a path such as ``predictions/bit``, with options that are files, JSON and images.

        Raises:
            ClientError: no answer, or no success.
        """
        kind, _, model = path.partition("/")
        endpoint: Endpoint = "predictions" if kind == "predictions" else "explanations"
        return self.ask(endpoint, photo, model, accept=accept, options={**(options or {}), **(files or {})})

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, call: Call[T]) -> T:
        course = exchange(call.request, self.connection.retry, self.connection.deadline_s)
        step = next(course)
        while True:
            outcome = None
            if isinstance(step, Pause):
                time.sleep(step.seconds)
            else:
                outcome = self._attempt(call.request, step.left_s)
            try:
                step = course.send(outcome)
            except StopIteration as done:
                answer: Answer = done.value
                break
        return call.decode(answer)

    def _attempt(self, request: Request, left_s: float) -> Reply | ClientError:
        ends = time.monotonic() + left_s
        try:
            with self._http.stream(**self.connection.arguments(request, left_s)) as response:
                parts = []
                for part in response.iter_bytes():
                    parts.append(part)
                    if time_over(time.monotonic(), ends):
                        return out_of_time(request, left_s)
                return reply_of(response, b"".join(parts))
        except FAILURES as error:
            return self.connection.error_of(request, error)
