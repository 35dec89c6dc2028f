"""Messages to systemd, where it started this process with `Type=notify`: ready, stopping, still at work.

The protocol is a datagram to a socket, as sd_notify(3) describes it; a library would be more than that.
"""

from __future__ import annotations

import os
import socket


def notify(message: str) -> None:
    """Send systemd a message, such as ``READY=1``; nothing happens where no systemd listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.connect(address.replace("@", "\0", 1))
            channel.sendall(message.encode())
        except OSError:  # systemd has gone; there is nobody to tell
            pass
