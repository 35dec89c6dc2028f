"""The archives behind Ray Serve: the same bytes as TorchServe's handlers give, in every form of request and answer."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import torch
from ray.cluster_utils import Cluster

from imagexplain.cluster.http import MAX_REQUEST_BYTES
from imagexplain.ops.server import ROOT, free_port
from imagexplain.serving.messages import RawRequest
from imagexplain.serving.request_loop import AnyLoop
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


@pytest.fixture(scope="module")
def url(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    store = tmp_path_factory.mktemp("store")
    archives = {
        "resnet": archived(store, write_timm(tmp_path_factory.mktemp("resnet"), "resnet"), "resnet"),
        "tensormask": archived(store, write_tensormask(tmp_path_factory.mktemp("tensormask")), "tensormask"),
    }
    port = free_port()
    command = [sys.executable, "-m", "tests.cluster.serve_process", cluster.address, str(port)]
    command += [f"{name}={archive}" for name, archive in archives.items()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None and any(line == b"serving\n" for line in process.stdout)
        yield f"http://127.0.0.1:{port}"


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


def test_a_bad_request_of_a_batch_fails_alone(client: httpx.Client) -> None:
    options = ["steps=4", "steps=0", "method=grad_cam", "steps=4&target_class=9", "segments=grid&steps=4"]

    def status(option: str) -> int:
        headers = {"accept": "application/json", "x-explain-options": option}
        return client.post("/resnet/explanations", content=coarse_png(3), headers=headers).status_code

    with ThreadPoolExecutor(len(options)) as pool:
        assert list(pool.map(status, options)) == [200, 400, 200, 422, 200]
