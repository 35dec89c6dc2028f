"""A driver of Ray's in a process of its own, for ray.init leaves its marks on one: it deploys, and says what runs.

python -m benchmarks.torture_cluster.driver ADDRESS HOST reads commands from its input, a line of JSON each, and answers
each with a line; it shuts Serve down, and ends, with its input.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import ray
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

from imagexplain.checkout import ROOT

MAX_START_S = 300.0
MAX_STOP_S = 60.0


@dataclass(frozen=True)
class Driver:
    """The other side of the process.

    Attributes:
        process: The process.
    """

    process: subprocess.Popen[str]

    def deploy(self, config: Mapping[str, Any]) -> None:
        """Deploy a Serve config, as `serve run` does; all its applications run once this returns.

        Raises:
            RuntimeError: an application that cannot be deployed.
        """
        self._ask({"deploy": config})

    def replicas(self, application: str) -> dict[int, str]:
        """The states of an application's replicas, ``RUNNING`` and others, by the numbers of their processes."""
        return {int(pid): state for pid, state in self._ask({"replicas": application}).items()}

    def _ask(self, command: Mapping[str, Any]) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": "the driver has ended"}
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["told"]


@contextmanager
def driver(address: str, host: str | None = None) -> Iterator[Driver]:
    """A driver on a cluster, which at the end takes away whatever it has deployed.

    Args:
        address: Address of the GCS.
        host: Address of the node with which the driver lives and dies; the head's, if not given.
    """
    command = [sys.executable, "-m", __name__, address, host or address.rpartition(":")[0]]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        try:
            yield Driver(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(MAX_STOP_S)
            except subprocess.TimeoutExpired:  # there is nothing left that could be shut down
                process.kill()


def deploy(config: Mapping[str, Any]) -> None:
    """Deploy a Serve config, and wait until all its applications run.

    Raises:
        RuntimeError: an application that cannot be deployed.
        TimeoutError: one that takes too long.
    """
    schema = ServeDeploySchema.model_validate(config)
    serve.start(proxy_location=schema.proxy_location, http_options=schema.http_options.model_dump())
    client = _get_global_client()
    assert client is not None
    client.deploy_apps(schema)
    ends = time.monotonic() + MAX_START_S
    names = [application.name for application in schema.applications]
    while _statuses() != dict.fromkeys(names, "RUNNING"):
        if time.monotonic() > ends:
            raise TimeoutError(str(serve.status()))
        time.sleep(0.1)


def replicas(application: str) -> dict[int, str]:
    """The states of an application's replicas by the numbers of their processes; who has none yet is left out."""
    client = _get_global_client()
    assert client is not None
    return {
        replica["pid"]: replica["state"]
        for deployment in client.get_serve_details()["applications"][application]["deployments"].values()
        for replica in deployment["replicas"]
        if replica.get("pid") is not None
    }


COMMANDS: dict[str, Callable[[Any], object]] = {"deploy": deploy, "replicas": replicas}


def _statuses() -> dict[str, str]:
    applications = serve.status().applications
    failed = [app.message for app in applications.values() if app.status.value == "DEPLOY_FAILED"]
    if failed:
        raise RuntimeError("; ".join(failed))
    return {name: app.status.value for name, app in applications.items()}


def main(address: str, host: str, commands: IO[str], answers: IO[str]) -> None:
    """Carry out commands, until there are no more."""
    ray.init(address, _node_ip_address=host, log_to_driver=False)  # else by any raylet, which may die
    try:
        for line in commands:
            ((name, given),) = json.loads(line).items()
            try:
                answer = {"told": COMMANDS[name](given)}
            except Exception as error:  # the other side's to handle
                answer = {"error": f"{type(error).__name__}: {error}"}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    own, sys.stdout = sys.stdout, sys.stderr  # Ray prints too
    main(sys.argv[1], sys.argv[2], sys.stdin, own)
