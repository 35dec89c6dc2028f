"""One archive of the Serve config on a head and workers of this machine, and clients who know its answers."""

from __future__ import annotations

import copy
import itertools
import json
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file

from benchmarks.torture.answers import Question, photo
from benchmarks.torture.load import Load
from benchmarks.torture.service import CLIENT, GENEROUS
from benchmarks.torture_cluster.driver import Driver, driver
from benchmarks.torture_cluster.nodes import Nodes, nodes
from imagexplain.api.request import Kind
from imagexplain.archive.build import build_all
from imagexplain.checkout import ROOT
from imagexplain.cluster.explainer import Explainer
from imagexplain.ops import edge, edge_keys
from imagexplain.ops.edge_settings import EdgeSettings, RaySettings
from imagexplain.ops.server import free_port
from imagexplain.serving.messages import RawRequest

MODEL = "bit"
CONFIG = ROOT / "deploy" / "ray" / "serve.yaml"
WORKERS = 2
REPLICAS = 2

Answers = Mapping[Question, tuple[Any, ...]]


@dataclass
class Served:
    """An application in service.

    Attributes:
        nodes: Nodes of the cluster.
        driver: Driver that deploys.
        config: Serve config as it is deployed.
        name: Name of the application.
        replicas: Number of its replicas.
        load: Clients, who know the answers.
        newer: Archive of its next version, and that one's answers.
    """

    nodes: Nodes
    driver: Driver
    config: dict[str, Any]
    name: str
    replicas: int
    load: Load
    newer: tuple[Path, Answers]

    def running(self) -> set[int]:
        """Numbers of the processes of the replicas that take requests."""
        return {pid for pid, state in self.driver.replicas(self.name).items() if state == "RUNNING"}

    def is_whole(self, without: set[int]) -> bool:
        """Tell whether all replicas take requests, and the processes of certain ones are no more."""
        known = self.driver.replicas(self.name)
        return not without & known.keys() and list(known.values()) == ["RUNNING"] * self.replicas

    def deploy(self, archive: Path | None = None, **changes: Any) -> None:
        """Deploy the application anew, with another archive or with changes of its deployment's settings."""
        config = copy.deepcopy(self.config)
        (application,) = [one for one in config["applications"] if one["name"] == self.name]
        if archive:
            application["args"]["archive"] = str(archive)
        for deployment in application["deployments"]:
            deployment |= changes
        self.driver.deploy(config)
        self.config = config


def config(archive: Path, port: int, replicas: int) -> dict[str, Any]:
    """The Serve config with one application, on a port of the loopback, and with a fixed number of replicas."""
    content: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    (application,) = [one for one in content["applications"] if one["name"] == MODEL]
    application["args"] = {"archive": str(archive)}
    (deployment,) = application["deployments"]
    deployment["autoscaling_config"] |= {"min_replicas": replicas, "max_replicas": replicas}
    content["http_options"] |= {"host": "127.0.0.1", "port": port}
    return content | {"applications": [application]}


def answers(archive: Path, questions: Sequence[Question]) -> Answers:
    """The answers of a replica with one thread, computed in this process, to each question.

    The last digits depend on what else is in a batch, so that there is one for each batch that a question may be in.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        explainer = Explainer.load(archive, "classifier")
        found: dict[Question, set[bytes]] = {question: set() for question in questions}
        for size in range(1, explainer.batch + 1):
            for batch in itertools.product(questions, repeat=size):
                for question, answer in zip(batch, explainer.worker.handle(list(map(_raw, batch))), strict=True):
                    found[question].add(answer.body)
        return {question: tuple(map(json.loads, bodies)) for question, bodies in found.items()}
    finally:
        torch.set_num_threads(before)


def _raw(question: Question) -> RawRequest:
    kind: Kind = "explanation" if "/explanations" in question.path else "prediction"
    headers = {name.lower(): value for name, value in question.headers.items()}
    return RawRequest({"body": question.body}, headers, kind)


def questions(path: str, name: str) -> tuple[Question, ...]:
    """A prediction and an explanation.

    Args:
        path: Form of a path, such as ``/{endpoint}/{name}``.
        name: Name of the application.
    """
    return (
        Question(path.format(endpoint="predictions", name=name), photo(1)),
        Question(path.format(endpoint="explanations", name=name), photo(2), "steps=16"),
    )


@contextmanager
def served(folder: Path, way: Way, redis: str | None = None) -> Iterator[Served]:
    """Start a head and workers, and deploy the archive on them.

    Args:
        folder: Directory for all files, empty.
        way: Way of the clients' requests.
        redis: Address of the Redis that outlives the head, if any; the driver outlives it, too.
    """
    older, newer = archive(folder / "1.0", "1.0"), archive(folder / "2.0", "2.0")
    asked = questions(way.path, MODEL)
    with nodes(WORKERS, redis) as started, driver(started.address, redis and started.workers[0].address) as own:
        deployed = config(older, started.head.port, REPLICAS)
        own.deploy(deployed)
        with way.load(started, folder) as load:
            load.known = dict(answers(older, asked))
            yield Served(started, own, deployed, MODEL, REPLICAS, load, (newer, answers(newer, asked)))


@contextmanager
def proxies(nodes: Nodes, folder: Path) -> Iterator[Load]:
    """Clients that ask the nodes' proxies in turn."""
    yield Load(nodes.urls, equal=operator.eq)


@contextmanager
def front_door(nodes: Nodes, folder: Path) -> Iterator[Load]:
    """Clients that ask a front door before the nodes, with limits so wide that it is Ray Serve which is seen."""
    ray = RaySettings(nodes=tuple(url.removeprefix("http://") for url in nodes.urls), applications=(MODEL,))
    running = edge.start(folder, EdgeSettings(ray=ray, port=free_port() + 15, client=GENEROUS, address=GENEROUS))
    try:
        key = edge_keys.add(folder / edge.FOLDER, CLIENT)
        edge.reload_keys(folder)
        yield Load((running.url,), key, running.certificate, operator.eq)
    finally:
        edge.stop(folder, drain_s=5, quiet=True)


@dataclass(frozen=True)
class Way:
    """A way of requests to the application.

    Attributes:
        path: Form of the paths.
        load: Function that starts what stands in between, and the clients before it.
    """

    path: str
    load: Callable[[Nodes, Path], AbstractContextManager[Load]]


WAYS = {"direct": Way("/{name}/{endpoint}", proxies), "front door": Way("/{endpoint}/{name}", front_door)}


def archive(folder: Path, version: str) -> Path:
    """An archive of a version; those of different versions have different weights."""
    specs = ROOT / "archive_specs"
    spec: dict[str, Any] = yaml.safe_load((specs / f"{MODEL}.yaml").read_text())
    folder.mkdir(parents=True)
    weights = load_file(specs / spec["weights"])
    for name, tensor in weights.items():
        if tensor.ndim == 1:
            weights[name] = tensor * float(version)
    save_file(weights, folder / "weights.safetensors")
    files = {"weights": str(folder / "weights.safetensors"), "labels": str(specs / spec["labels"])}
    (folder / f"{MODEL}.yaml").write_text(yaml.safe_dump({**spec, **files, "version": version}))
    (built,) = build_all([folder / f"{MODEL}.yaml"], folder, environ={})
    return built
