"""A client's request passed on to TorchServe: its body as it comes, and the end of both if either goes away."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from io import BufferedIOBase

CONNECT_S = 5.0
SILENCE_S = 30.0
"""Seconds that either side may neither send nor take."""
WAIT_S = 900.0
"""Seconds for an answer; TorchServe itself ends what takes longer than its archive may."""
CHUNK_BYTES = 1 << 16


class ClientGoneError(Exception):
    """The client closed its connection, or is silent, before it was answered."""


class UpstreamError(Exception):
    """TorchServe ended the connection without an answer, or is not there."""


class UpstreamTimeoutError(Exception):
    """TorchServe did not answer in time."""


@dataclass
class Body:
    """A client's body, as far as it has not been read.

    Attributes:
        stream: Stream from the client, which times out by itself.
        left: Bytes of the body that are still to come.
    """

    stream: BufferedIOBase
    left: int

    def read(self) -> bytes:
        """The next bytes, none at the end. Raises ClientGoneError."""
        if not self.left:
            return b""
        try:
            chunk = self.stream.read1(min(CHUNK_BYTES, self.left))
        except OSError as error:
            raise ClientGoneError from error
        if not chunk:
            raise ClientGoneError
        self.left -= len(chunk)
        return chunk


@dataclass
class Relayed:
    """An answer that has begun, to be read to its end and closed."""

    response: HTTPResponse
    connection: HTTPConnection

    def chunks(self) -> Iterable[bytes]:
        """The body, piece by piece. Raises UpstreamError where it breaks off."""
        left = self.response.length
        while True:
            try:
                chunk = self.response.read1(CHUNK_BYTES) if left != 0 else b""
            except (OSError, HTTPException) as error:
                raise UpstreamError(str(error)) from error
            if not chunk:
                break
            left = None if left is None else left - len(chunk)
            yield chunk
        if left:
            raise UpstreamError(f"the answer lacks {left} bytes")

    def close(self) -> None:
        """End the connection, whatever of the answer is left."""
        self.response.close()
        self.connection.close()


def relay(
    address: tuple[str, int],
    path: str,
    headers: Mapping[str, str],
    body: Body,
    client: socket.socket,
    wait_s: float = WAIT_S,
) -> Relayed:
    """Send a request, and wait until its answer begins or its client has gone.

    Args:
        address: Host and port of TorchServe.
        path: Path of the request.
        headers: Headers of the request.
        body: Body of the request.
        client: Connection of the client, which is looked at while the model computes.
        wait_s: Seconds for the answer's beginning.

    Raises:
        ClientGoneError: the client has gone; so has the request.
        UpstreamError: no answer.
        UpstreamTimeoutError: none in time.
        ValueError: a header that HTTP does not have.
    """
    connection = HTTPConnection(*address, timeout=CONNECT_S)
    try:
        connection.putrequest("POST", path, skip_accept_encoding=True)
        for name, value in {**headers, "Content-Length": str(body.left), "Connection": "close"}.items():
            connection.putheader(name, value)
        try:
            connection.endheaders()
        except OSError as error:
            raise UpstreamError(str(error)) from error
        connection.sock.settimeout(SILENCE_S)
        _send(connection.sock, body)
        _await_answer(connection.sock, client, wait_s)
        connection.sock.settimeout(SILENCE_S)
        try:
            return Relayed(connection.getresponse(), connection)
        except (OSError, HTTPException) as error:
            raise UpstreamError(str(error)) from error
    except BaseException:
        connection.close()
        raise


def _send(upstream: socket.socket, body: Body) -> None:
    while chunk := body.read():
        try:
            upstream.sendall(chunk)
        except OSError:
            return  # TorchServe may have answered before it had it all


def _await_answer(upstream: socket.socket, client: socket.socket, wait_s: float) -> None:
    deadline = time.monotonic() + wait_s
    with selectors.DefaultSelector() as selector:
        selector.register(upstream, selectors.EVENT_READ)
        selector.register(client, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            ready = {key.fileobj for key, _ in selector.select(left)}
            if client in ready:
                if _has_gone(client):
                    raise ClientGoneError
                selector.unregister(client)  # it sent another request ahead
            if upstream in ready:
                return
    raise UpstreamTimeoutError


def _has_gone(client: socket.socket) -> bool:
    try:
        return client.recv(1, socket.MSG_PEEK) == b""
    except OSError:
        return True
