"""What stands behind the front door, without TorchServe: its ports, its key, its errors, and a handler's answers.

    python -m tests.ops.fake_upstream RUN PORT org.pytorch.serve.ModelServer

The last word makes the process one that `imagexplain.ops.server.find` takes for a server. A model's name says what it
answers. `RUN/states.json` says which models have a worker; SIGUSR1 changes the inference key, as a rotation does.
"""

from __future__ import annotations

import json
import secrets
import signal
import socket
import sys
import threading
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from imagexplain.errors import WORDS
from tests.ops.answering import Answering, Server

RUN, PORT = Path(sys.argv[1]), int(sys.argv[2])
RESPONSE_TIMEOUT_S = 120

KEYS = {name: secrets.token_urlsafe(6) for name in ("inference", "management", "API")}
"""Keys that are valid, whatever the file says."""


def write_keys(*_: object) -> None:
    """Make the inference key anew and write it down."""
    KEYS["inference"] = secrets.token_urlsafe(6)
    content = {name: {"key": key, "expiration time": "2099-01-01T00:00:00Z"} for name, key in KEYS.items()}
    (RUN / "key_file.json").write_text(json.dumps(content))


class OfTorchServe(Answering):
    def refuse(self, status: int, kind: str, message: str) -> None:
        """Send an error in TorchServe's form."""
        self.send(status, json.dumps({"code": status, "type": kind, "message": message}).encode())


class Inference(OfTorchServe):
    def post(self) -> None:
        body = self.body()
        if self.headers.get("Authorization") != f"Bearer {KEYS['inference']}":
            self.refuse(400, "InvalidKeyException", "Token Authorization failed.")
            return
        model = self.path.split("/")[2]
        options = parse_qs(self.headers.get("X-Explain-Options", ""))
        if model == "echo":
            told = {"method": self.command, "path": self.path, "headers": dict(self.headers), "bytes": len(body)}
            self.send(200, json.dumps(told).encode())
        elif model == "slow":
            time.sleep(float(options.get("seconds", ["1"])[0]))
            self.send(200, b'{"slow": true}')
        elif model == "large":
            self.send(200, bytes(int(options["bytes"][0])), None)
        elif model == "gone":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif model == "once":  # an idle connection that the server closes at last
            self.send(200, b"{}")
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif model.startswith("handler-"):
            status = int(model.removeprefix("handler-"))
            error = {"code": status, "error": WORDS[status], "field": "steps", "message": "wanted more"}
            self.send(status, json.dumps(error).encode(), X_Explain_Error=json.dumps(error))
        elif model.startswith("torchserve-"):
            status = int(model.removeprefix("torchserve-"))
            self.refuse(status, "InternalServerException", HTTPStatus(status).phrase)
        else:
            self.refuse(404, "ModelNotFoundException", f"Model not found: {model}")


class Management(OfTorchServe):
    def get(self) -> None:
        states = json.loads((RUN / "states.json").read_text())
        model = self.path.removeprefix("/models/")
        if self.headers.get("Authorization") != f"Bearer {KEYS['management']}":
            self.refuse(400, "InvalidKeyException", "Token Authorization failed.")
        elif model not in states:
            self.refuse(404, "ModelNotFoundException", f"Model not found: {model}")
        else:
            about = {"modelName": model, "responseTimeout": RESPONSE_TIMEOUT_S, "workers": [{"status": states[model]}]}
            self.send(200, json.dumps([about]).encode())


class Metrics(Answering):
    def get(self) -> None:
        self.send(200, b"# of TorchServe\n", "text/plain")


class Exporter(Answering):
    def get(self) -> None:
        if self.path == "/readyz":
            told: dict[str, Any] = json.loads((RUN / "readiness.json").read_text())
            self.send(200 if told["ready"] else 503, json.dumps(told).encode())
        else:
            self.send(200, b"# of the supervisor\n", "text/plain")


def main() -> None:
    """Serve until the process is ended."""
    write_keys()
    signal.signal(signal.SIGUSR1, write_keys)
    servers = [
        Server(("127.0.0.1", PORT + offset), handler)
        for offset, handler in ((0, Inference), (1, Management), (2, Metrics), (5, Exporter))
    ]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    (RUN / "fake.ready").touch()
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
