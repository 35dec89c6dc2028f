"""The Serve config: by Ray's own schema, with the times and queues of the archives, and deployed in a short form."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from ray.cluster_utils import Cluster
from ray.serve.schema import ServeDeploySchema

from imagexplain.archive.spec import load
from imagexplain.cluster.ray_serve import Settings
from imagexplain.ops.server import ROOT, free_port
from imagexplain.serving.rejection import REASONS
from tests.cluster.serving import config
from tests.deploy.metric_names import PROMETHEUS, declared, names_in, rules
from tests.deploy.programs import run
from tests.serving.archives import archived
from tests.serving.asking import coarse_png
from tests.serving.handlers import write_tensormask, write_timm


def test_ray_takes_the_config_and_knows_every_field() -> None:
    schema = ServeDeploySchema.model_validate(config())
    written = yaml.safe_load(schema.model_dump_json(exclude_unset=True))
    assert [app["name"] for app in written["applications"]] == [app["name"] for app in config()["applications"]]
    for app, own in zip(written["applications"], config()["applications"], strict=True):
        assert app["deployments"][0].keys() == own["deployments"][0].keys()
    assert schema.proxy_location == "EveryNode"


def test_timeouts_and_queues_are_the_archives() -> None:
    applications = {app["name"]: app for app in config()["applications"]}
    for name, app in applications.items():
        settings = Settings.model_validate(app["args"])
        assert (settings.archive.stem, app["route_prefix"]) == (name, f"/{name}")
        assert set(settings.segmenters) <= set(applications) and name not in settings.segmenters
        spec = load(ROOT / "archive_specs" / f"{name}.yaml").serving
        (deployment,) = app["deployments"]
        assert config()["http_options"]["request_timeout_s"] == spec.response_timeout_s
        assert deployment["graceful_shutdown_timeout_s"] >= spec.response_timeout_s
        assert deployment["max_ongoing_requests"] == 2 * spec.batch_size
        assert deployment["autoscaling_config"]["target_ongoing_requests"] == spec.batch_size
        assert deployment["max_queued_requests"] == spec.queue_size
        actor = deployment["ray_actor_options"]
        assert actor["runtime_env"]["env_vars"] == {"OMP_NUM_THREADS": str(actor["num_cpus"])}


@dataclass(frozen=True)
class Deployed:
    """The short form, served: its address, and the folder of its replicas' targets."""

    url: str
    targets: Path


@pytest.fixture(scope="module")
def deployed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    store, targets = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("targets")
    archives = {
        "resnet": archived(store, write_timm(tmp_path_factory.mktemp("resnet"), "resnet"), "resnet"),
        "tensormask": archived(store, write_tensormask(tmp_path_factory.mktemp("tensormask")), "tensormask"),
    }
    port = free_port()
    command = [sys.executable, "-m", "tests.cluster.serving", cluster.address, str(port), str(targets)]
    command += [f"{name}={archive}" for name, archive in archives.items()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None and any(line == b"serving\n" for line in process.stdout)
        yield Deployed(f"http://127.0.0.1:{port}", targets)
    assert not list(targets.iterdir())  # replicas that end take their targets with them


@pytest.fixture
def client(deployed: Deployed) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=deployed.url, trust_env=False, timeout=60) as client:
        yield client


def test_the_config_is_deployed(client: httpx.Client) -> None:
    headers = {"accept": "application/json", "x-explain-options": "steps=4&baseline=black&segments=tensormask"}
    answer = client.post("/resnet/explanations", content=coarse_png(), headers=headers)
    assert (answer.status_code, answer.json()["model"]) == (200, "resnet"), answer.text


def scraped(targets: Path) -> dict[str, dict[str, float]]:
    """The series of each target: their values by name and labels."""
    groups = [group for file in sorted(targets.glob("*.json")) for group in json.loads(file.read_text())]
    texts = [httpx.get(f"http://{group['targets'][0]}/metrics", trust_env=False).text for group in groups]
    return {
        group["targets"][0]: {
            f"{sample.name}{json.dumps(sample.labels, sort_keys=True)}": sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        for group, text in zip(groups, texts, strict=True)
    }


def series(name: str, **labels: str) -> str:
    """The key of a series."""
    return name + json.dumps({"model_name": "resnet", "model_version": "1.0", **labels}, sort_keys=True)


def test_replicas_have_the_metrics_of_torchserves_workers(deployed: Deployed, client: httpx.Client) -> None:
    answered = series("explain_requests_total", kind="prediction", outcome="ok")
    refused = series("explain_requests_total", kind="explanation", outcome="bad_request")
    slow = series("explain_request_seconds_bucket", kind="prediction", le="10.0")

    def value(name: str) -> float:
        (found,) = [found for found in scraped(deployed.targets).values() if answered in found]
        return found[name]

    assert client.post("/resnet/predictions", content=coarse_png()).status_code == 200  # histograms have no 0
    before, seen, refusals = value(answered), value(slow), value(refused)
    assert value(series("explain_rejected_total", reason=REASONS[-2])) == 0  # there before the first one
    assert client.post("/resnet/predictions", content=coarse_png(5)).status_code == 200
    headers = {"x-explain-options": "steps=0"}
    assert client.post("/resnet/explanations", content=coarse_png(), headers=headers).status_code == 400
    assert (value(answered), value(refused), value(slow)) == (before + 1, refusals + 1, seen + 1)
    assert value(series("explain_model_load_seconds")) > 0

    replicas = scraped(deployed.targets)
    assert len(replicas) == 2
    names = {key.partition("{")[0] for found in replicas.values() for key in found}
    read = {
        name for kind in ("recording", "alerting") for rule in rules(kind).values() for name in names_in(rule["expr"])
    }
    assert {name for name in read if name.startswith("explain_")} <= names <= declared()


def test_prometheus_finds_the_replicas(deployed: Deployed, tmp_path: Path) -> None:
    content = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    (job,) = [job for job in content["scrape_configs"] if job["job_name"] == "replicas"]
    job["file_sd_configs"][0]["files"] = [str(deployed.targets / "*.json")]
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump({"scrape_configs": [job]}))
    run("promtool", "check", "config", "--lint-fatal", str(file))
    found = run("promtool", "check", "service-discovery", "--timeout=3s", str(file), "replicas")
    for target in scraped(deployed.targets):
        assert target in found
    assert socket.gethostname() in found
