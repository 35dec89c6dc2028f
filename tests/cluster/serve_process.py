"""A process that serves archives by the tests' cluster until its input ends: ray.init leaves its marks on a process.

python -m tests.cluster.serve_process CLUSTER PORT NAME=ARCHIVE …
"""

from __future__ import annotations

import sys
from pathlib import Path

import ray
from ray import serve

from imagexplain.cluster.ray_serve import Settings, application


def main(cluster: str, port: str, *archives: str) -> None:
    """Serve archives, segmenters among them for the others, and say so."""
    ray.init(cluster, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
    try:
        for name, archive in (given.split("=", 1) for given in archives):
            settings = Settings(archive=Path(archive), segmenters=("tensormask",))
            serve.run(application(settings), name=name, route_prefix=f"/{name}")
        print("serving", flush=True)
        sys.stdin.read()
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
