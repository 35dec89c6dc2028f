"""What fake servers behind the front door have in common."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Answering(BaseHTTPRequestHandler):
    """A connection that stays open.

    Attributes:
        answered_id: Id of the request that an engine gives to its answer; None for an answer without one.
    """

    answered_id: str | None = "of-torchserve"

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.get()

    def do_POST(self) -> None:
        self.post()

    def do_PUT(self) -> None:
        self.post()

    def get(self) -> None:
        """Answer a question."""
        self.send(405, b"")

    def post(self) -> None:
        """Answer a request with a body."""
        self.send(405, b"")

    def send(self, status: int, body: bytes, media: str | None = "application/json", **headers: str) -> None:
        """Send a whole answer; in the names of headers ``_`` stands for ``-``."""
        self.send_response(status)
        if media:
            self.send_header("Content-Type", media)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if self.answered_id is not None:
            self.send_header("x-request-id", self.answered_id)
        self.send_header("Content-Length", str(len(body)))
        if status >= 400:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def body(self) -> bytes:
        """The body, by its length or in chunks."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        whole = b""
        while size := int(self.rfile.readline(), 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512
