"""The archives behind Ray Serve, deployed by the Serve config: bytes and metrics as TorchServe's handlers give them."""

from __future__ import annotations

import base64
import json
import operator
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
import yaml
from prometheus_client.parser import text_string_to_metric_families
from ray.cluster_utils import Cluster

from benchmarks.torture.load import Load
from benchmarks.torture_cluster.__main__ import CLIENTS, endure
from benchmarks.torture_cluster.driver import Driver, driver
from benchmarks.torture_cluster.nodes import Node, Nodes
from benchmarks.torture_cluster.served import Served, answers, questions
from imagexplain.cluster.http import MAX_REQUEST_BYTES
from imagexplain.ops.server import free_port
from imagexplain.serving.messages import RawRequest
from imagexplain.serving.rejection import REASONS
from imagexplain.serving.request_loop import AnyLoop
from tests.cluster.serving import short
from tests.deploy.metric_names import PROMETHEUS, declared, names_in, rules
from tests.deploy.programs import run
from tests.ops.door import before_ray, error_of, nginx_with_javascript
from tests.serving.archives import archived
from tests.serving.asking import coarse_png
from tests.serving.handlers import classifier_of, segmenter_of, write_tensormask, write_timm

FORMS = ("application/json", "application/gzip", "application/x-safetensors", "image/png")
AS_JSON = {"accept": "application/json"}
METHODS = ("grad_cam", "smoothgrad", "rise", "occlusion", "shapley_sampling", "blur_ig")
CASES: list[tuple[str, str, str, str]] = [
    *(("resnet", "explanations", form, f"steps=5&baseline={start}") for form in FORMS for start in ("black", "blur")),
    *(("resnet", "explanations", form, "steps=4&segments=grid&baseline=black") for form in FORMS),
    *(("resnet", "explanations", "application/json", f"method={method}") for method in METHODS),
    *(("resnet", "explanations", "application/json", f"steps=4&target_class={index}") for index in range(4)),
    *(("resnet", "predictions", form, "") for form in FORMS),
    *(("tensormask", "predictions", form, f"threshold={bound}") for form in FORMS for bound in ("0.2", "0.4")),
    *(("tensormask", "explanations", form, "threshold=0&steps=2") for form in FORMS),
    ("resnet", "explanations", "application/json", "steps=0"),
    ("resnet", "explanations", "text/html", ""),
    ("resnet", "explanations", "application/json", "segments=nobody"),
    ("resnet", "explanations", "application/json", "method=attention_rollout"),
]


@dataclass(frozen=True)
class Deployed:
    """The short form in service: its address, the folder of its replicas' targets, its config, and who deploys it."""

    url: str
    targets: Path
    config: dict[str, Any]
    driver: Driver


@pytest.fixture(scope="module")
def deployed(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    store, targets = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("targets")
    archives = {
        "resnet": archived(store, write_timm(tmp_path_factory.mktemp("resnet"), "resnet"), "resnet"),
        "tensormask": archived(store, write_tensormask(tmp_path_factory.mktemp("tensormask")), "tensormask"),
    }
    port = free_port()
    config = short(archives, port, targets)
    with driver(cluster.address) as own:
        own.deploy(config)
        yield Deployed(f"http://127.0.0.1:{port}", targets, config, own)
    assert not list(targets.iterdir())  # replicas that end take their targets with them


@pytest.fixture(scope="module")
def url(deployed: Deployed) -> str:
    return deployed.url


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, AnyLoop]]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield {
        "resnet": classifier_of(write_timm(tmp_path_factory.mktemp("resnet"), "resnet")).worker,
        "tensormask": segmenter_of(write_tensormask(tmp_path_factory.mktemp("tensormask"))).worker,
    }
    torch.set_num_threads(before)


def test_forty_requests_have_the_same_bytes(url: str, workers: dict[str, AnyLoop]) -> None:
    assert len(CASES) >= 40
    other = []
    with httpx.Client(trust_env=False, timeout=60) as client:
        for case in CASES:
            model, endpoint, accept, options = case
            headers = {"accept": accept, "x-explain-options": options}
            answer = client.post(f"{url}/{model}/{endpoint}", content=coarse_png(), headers=headers)
            kind: Any = endpoint.removesuffix("s")
            (own,) = workers[model].handle([RawRequest({"body": coarse_png()}, headers, kind)])
            same = (answer.status_code, answer.headers["content-type"].partition(";")[0], answer.content)
            if same != (own.status, own.media_type, own.body):
                other.append((case, answer.status_code, own.status, answer.content[:200], own.body[:200]))
    assert not other


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as client:
        yield client


def test_forms_json_and_other_protocols_are_taken(client: httpx.Client) -> None:
    files: dict[str, Any] = {"image": coarse_png(), "steps": (None, "4"), "baseline": (None, "black")}
    by_form = client.post("/resnet/explanations", files=files, headers=AS_JSON).json()
    sent = {"image": base64.b64encode(coarse_png()).decode(), "steps": 4, "baseline": "black"}
    assert client.post("/resnet/explanations", json=sent, headers=AS_JSON).json() == by_form
    instances = {"instances": [{"b64": sent["image"]}, {"b64": "AAAA"}]}
    refused = client.post("/resnet/predictions", json=instances, headers={"x-explain-protocol": "kserve_v1"})
    assert (refused.status_code, refused.json()["field"]) == (415, "instances[1].image")
    instances["instances"].pop()
    answer = client.post("/resnet/predictions", json=instances, headers={"x-explain-protocol": "kserve_v1"})
    assert len(answer.json()["predictions"]) == 1


def test_a_segmenter_is_asked_by_its_handle(client: httpx.Client) -> None:
    headers = {"accept": "application/json", "x-explain-options": "steps=4&baseline=black&segments=tensormask"}
    answer = client.post("/resnet/explanations", content=coarse_png(), headers=headers)
    found = client.post("/tensormask/predictions", content=coarse_png(), headers=AS_JSON).json()["detections"]
    assert answer.status_code == 200, answer.text
    segments = [group for group in answer.json()["groups"] if group["kind"] == "segment"]
    assert found and {group["label"].partition(" ")[0] for group in segments} <= {row["label"] for row in found}


def test_errors_are_the_services(client: httpx.Client) -> None:
    answer = client.post("/resnet/explain", content=coarse_png())
    assert (answer.status_code, answer.json()["field"]) == (400, "path")
    assert json.loads(answer.headers["x-explain-error"]) == answer.json()
    answer = client.post("/resnet/predictions", content=bytes(MAX_REQUEST_BYTES + 1))
    assert (answer.status_code, answer.json()["field"]) == (413, "body")
    broken = {"content-type": "multipart/form-data; boundary=x"}
    answer = client.post("/resnet/predictions", content=b"--x\r\nno form", headers=broken)
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")
    named = client.post("/resnet/predictions", content=coarse_png(), headers={"x-request-id": "mine"})
    assert named.headers["x-correlation-id"] == "mine"


def test_answers_at_the_front_door_are_the_same(deployed: Deployed, client: httpx.Client, tmp_path: Path) -> None:
    """nginx before the cluster's node, and one that is down: bytes, errors, protocols, readiness."""
    nginx_with_javascript()
    nodes = [f"127.0.0.1:{free_port() + 4}", deployed.url.removeprefix("http://")]
    with before_ray(tmp_path / "run", nodes, ("resnet", "tensormask")) as door:
        for model, endpoint, accept, options in CASES[::5]:
            direct = client.post(
                f"/{model}/{endpoint}", content=coarse_png(), headers={"accept": accept, "x-explain-options": options}
            )
            answer = door.ask(f"/{endpoint}/{model}?{options}", coarse_png(), Accept=accept)
            assert (answer.status_code, answer.content) == (direct.status_code, direct.content)
            assert answer.headers["content-type"] == direct.headers["content-type"].partition(";")[0]
        photo = base64.b64encode(coarse_png()).decode()
        own = door.ask("/predictions/resnet", coarse_png(), Accept="application/json").json()
        called = door.ask("/v1/models/resnet:predict", json.dumps({"instances": [{"b64": photo}]}).encode())
        assert called.json() == {"predictions": [own]}
        told = door.ask("/v2/models/resnet", method="GET").json()
        assert told["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
        refused = door.ask("/explanations/resnet", b"no photo")
        assert (refused.status_code, refused.json()["field"]) == (415, "image")
        assert error_of(door.ask("/predictions/nobody", coarse_png())) == (404, "not_found", "path")
        assert error_of(door.ask("/-/routes", method="GET")) == (404, "not_found", "path")
        ready = door.ask("/readyz", method="GET", client=None).json()
        assert (ready["ready"], ready["nodes"]) == (True, {"ready": 1, "all": 2})


def test_a_bad_request_of_a_batch_fails_alone(client: httpx.Client) -> None:
    options = ["steps=4", "steps=0", "method=grad_cam", "steps=4&target_class=9", "segments=grid&steps=4"]

    def status(option: str) -> int:
        headers = {"accept": "application/json", "x-explain-options": option}
        return client.post("/resnet/explanations", content=coarse_png(3), headers=headers).status_code

    with ThreadPoolExecutor(len(options)) as pool:
        assert list(pool.map(status, options)) == [200, 400, 200, 422, 200]


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


def test_a_killed_replica_and_a_roll_out_under_load(deployed: Deployed, cluster: Cluster, tmp_path: Path) -> None:
    """The last one: it leaves another version, as it would be with all of benchmarks/torture_cluster."""
    (app,) = [app for app in deployed.config["applications"] if app["name"] == "resnet"]
    folder = tmp_path / "resnet"
    folder.mkdir()
    newer = archived(tmp_path, write_timm(folder, "resnet", preprocess={"mean": (0.4, 0.4, 0.4)}), "resnet", "2.0")
    asked = questions("/{name}/{endpoint}", "resnet")
    older, known = answers(Path(app["args"]["archive"]), asked), answers(newer, asked)
    assert all(older[question] != known[question] for question in asked)
    load = Load((deployed.url,), equal=operator.eq, known=dict(older))
    nodes = Nodes(cluster, Node(cluster.head_node, int(deployed.url.rpartition(":")[2])))
    served = Served(nodes, deployed.driver, deployed.config, "resnet", 1, load, (newer, known))
    killed = endure(served, "kill -9 of a replica", lead_s=0.5)
    assert (killed.wrong, killed.right > 0) == (0, True), killed
    assert killed.sent - killed.right <= CLIENTS, killed  # what was in flight in it; Ray's own words for it
    rolled = endure(served, "roll-out", lead_s=0.5)
    assert rolled.right == rolled.sent > 0, rolled
