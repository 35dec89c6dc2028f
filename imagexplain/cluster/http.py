"""Requests of Starlette's to those of a worker, and a worker's responses to Starlette's."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from typing import Any

from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import Response as HttpResponse

from imagexplain.api.request import Kind
from imagexplain.errors import RequestError, shown
from imagexplain.serving.headers import headers_of, joined
from imagexplain.serving.messages import RawRequest, Response
from imagexplain.serving.request_id import ID_HEADER, START_HEADER, queue_seconds, request_id

ENDPOINTS: dict[str, Kind] = {"predictions": "prediction", "explanations": "explanation"}

MAX_REQUEST_BYTES = 33_554_432
"""Bytes of a body, at most, as config.properties has it for TorchServe."""

MAX_PARTS = 64
"""Number of parts of a form, at most."""


async def raw_request(request: Request) -> RawRequest:
    """The request as a worker takes it.

    Raises:
        RequestError: 400 for another path or a form that cannot be read, 413 for more bytes than may be sent.
    """
    headers = joined(request.headers.items())
    endpoint = request.url.path.removeprefix(request.scope.get("root_path", "")).strip("/")
    if endpoint not in ENDPOINTS:
        raise RequestError(400, "path", f"wanted {' or '.join(ENDPOINTS)} of a model, got {shown(endpoint)}")
    parts = await _parts(await _body(request), request, headers.get("content-type", ""))
    waited = queue_seconds(headers.get(START_HEADER), time.time())
    return RawRequest(parts, headers, ENDPOINTS[endpoint], request_id(headers.get(ID_HEADER)), waited)


def http_response(raw: RawRequest, response: Response) -> HttpResponse:
    """The response as Starlette sends it."""
    return HttpResponse(response.body, response.status, headers_of(raw, response), response.media_type)


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_REQUEST_BYTES:
            raise RequestError(413, "body", f"wanted at most {MAX_REQUEST_BYTES:,} bytes")
    return bytes(body)


async def _parts(body: bytes, request: Request, media: str) -> dict[str, Any]:
    if not media.lower().startswith("multipart/form-data"):
        return {"body": body} if body else {}

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(
        request.headers, stream(), max_files=MAX_PARTS, max_fields=MAX_PARTS, max_part_size=MAX_REQUEST_BYTES
    )
    try:
        form = await parser.parse()
        return {
            name: await value.read() if isinstance(value, UploadFile) else value.encode()
            for name, value in form.items()
        }
    except (MultiPartException, FormParserError) as error:
        raise RequestError(400, "body", f"wanted a multipart form, got one that cannot be read: {error}") from None
