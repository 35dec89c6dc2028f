"""The studio's own server, on the loopback alone: its files, the service's document, and TorchServe behind a key.

It is what the front door is to the studio, where there is no nginx: the same paths, errors and headers. A page of
another origin cannot use it: the `Host` must be one of its own, against names that are made to point here, and an
`Origin` too. The key is made anew at each start; TorchServe's own is put in here and goes to no browser.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from imagexplain.client.loopback import LOOPBACK
from imagexplain.ops.refusals import CONTENT_SECURITY_POLICY
from imagexplain.ops.studio_application import PREFIX, Application
from imagexplain.ops.studio_application import Settings as Settings
from imagexplain.ops.studio_guard import MAX_HEADER_BYTES

PORT = 8088
MAX_CONNECTIONS = 48
"""Connections at a time; a browser opens six."""
END_S = 1
"""Seconds in which answers that have begun may come to their end when the server is ended."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""Headers of every answer."""


class StudioServer:
    """A server of the studio, which takes connections from its making on, and answers them while it runs.

    Raises:
        OSError: the port is taken.
    """

    def __init__(self, settings: Settings, port: int = 0) -> None:
        self.settings = settings
        self.listener = socket.create_server((LOOPBACK, port))
        self.port: int = self.listener.getsockname()[1]
        self.application = Application(settings)
        self.uvicorn = uvicorn.Server(
            uvicorn.Config(
                self.application.starlette([f"{name}:{self.port}" for name in (LOOPBACK, "localhost")]),
                loop="asyncio",
                http="h11",
                ws="none",
                log_config=None,
                log_level="critical",  # failures are logged by the application
                access_log=False,
                server_header=False,
                headers=list(HEADERS.items()),
                limit_concurrency=MAX_CONNECTIONS,
                h11_max_incomplete_event_size=4 * MAX_HEADER_BYTES,
                timeout_graceful_shutdown=END_S,
            )
        )

    @property
    def url(self) -> str:
        """Address of the server."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def address(self) -> str:
        """Address of the page, with the key in the part that browsers keep to themselves."""
        return f"{self.url}{PREFIX}#key={self.settings.key}"

    def prepare(self) -> None:
        """Make the document of the server that runs, which takes seconds, before it is asked for."""
        self.application.text(self.application.running())

    def run(self) -> None:
        """Answer until a signal ends the process, or `uvicorn.should_exit` is set."""
        self.uvicorn.run([self.listener])


@contextmanager
def serving(settings: Settings, port: int = 0) -> Iterator[StudioServer]:
    """A server that answers within the block."""
    server = StudioServer(settings, port)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.uvicorn.should_exit = True
        thread.join()
