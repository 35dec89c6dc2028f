"""Clients of KServe and of Triton at the front door, unchanged but for the address."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import tritonclient.http as triton
from google.cloud.aiplatform_v1 import types as aiplatform
from PIL import Image
from tritonclient.utils import InferenceServerException

from imagexplain.archive.build import build_all
from imagexplain.ops import edge, edge_keys
from imagexplain.ops.edge_settings import EdgeSettings
from imagexplain.ops.server import ROOT, free_port, start, stop
from tests.ops.door import GENEROUS, Door
from tests.ops.kserve_client import modules
from tests.pages import blocks
from tests.wire.photos import encoded
from training.scenes import SceneSettings, scene

PIXELS = [scene(11, index, SceneSettings(size=(48, 64))).image for index in range(2)]
PHOTOS = [encoded(Image.fromarray(each)) for each in PIXELS]


@pytest.fixture(scope="module")
def door(nginx: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A front door before the demonstration's BiT, which Vertex AI's clients know by a number."""
    folder = tmp_path_factory.mktemp("kserve")
    build_all([ROOT / "archive_specs" / "bit.yaml"], folder / "store", environ={})
    server = start(store=folder / "store", run=folder / "run", port=free_port())
    try:
        key = edge_keys.add(Path(server.run) / edge.FOLDER, "alice")
        settings = EdgeSettings(
            port=server.ports["inference"] + 6, client=GENEROUS, address=GENEROUS, vertex_endpoints={"42": "bit"}
        )
        yield Door(server, settings, edge.start(server, settings), {"alice": key})
    finally:
        edge.stop(Path(server.run), drain_s=5, quiet=True)
        stop(folder / "run", drain_s=0)


@pytest.fixture(scope="module")
def own(door: Door) -> list[Any]:
    """The service's own predictions of the photos."""
    return [door.ask("/predictions/bit", photo).json() for photo in PHOTOS]


def instances(*photos: bytes) -> list[dict[str, str]]:
    """Photos as KServe's clients send them."""
    return [{"b64": base64.b64encode(photo).decode()} for photo in photos]


def kserve(door: Door, protocol: str, ask: Any, **options: Any) -> Any:
    """The answer to what `ask` has KServe's client do."""
    rest, _ = modules()
    verify = ssl.create_default_context(cafile=door.edge.certificate)

    async def run() -> Any:
        async with rest.InferenceRESTClient(rest.RESTConfig(protocol=protocol, verify=verify)) as client:
            return await ask(client, door.edge.url)

    return asyncio.run(run())


# KServe's client


def test_readiness_by_kserves_client(door: Door) -> None:
    for protocol in ("v1", "v2"):
        assert kserve(door, protocol, lambda client, url: client.is_server_live(url))
        assert kserve(door, protocol, lambda client, url: client.is_model_ready(url, "bit"))
    assert kserve(door, "v2", lambda client, url: client.is_server_ready(url))
    assert not kserve(door, "v2", lambda client, url: client.is_model_ready(url, "nobody"))


def test_predictions_by_kserves_client(door: Door, own: list[Any]) -> None:
    body = {"instances": instances(*PHOTOS)}
    found = kserve(door, "v1", lambda client, url: client.infer(url, body, "bit", door.headers()))
    assert [each["predictions"][0]["label"] for each in found["predictions"]] == [
        each["predictions"][0]["label"] for each in own
    ]
    one = {"instances": instances(PHOTOS[0])}
    assert kserve(door, "v1", lambda client, url: client.infer(url, one, "bit", door.headers())) == {
        "predictions": own[:1]
    }


def test_explanations_by_kserves_client(door: Door, own: list[Any]) -> None:
    body = {"instances": instances(PHOTOS[0]), "parameters": {"steps": 4}}
    found = kserve(door, "v1", lambda client, url: client.explain(url, "bit", body, door.headers()))
    direct = door.ask("/explanations/bit?steps=4", PHOTOS[0], Accept="application/json").json()
    attributions = np.array(found["explanations"][0].pop("attributions"))
    assert attributions.shape == (3, 32, 32)
    assert attributions.sum() == pytest.approx(direct["score"] - direct["baseline_score"] - direct["residual"], 1e-3)
    assert found == {"predictions": own[:1], "explanations": [direct]}


def test_a_refusal_is_kserves_clients_error(door: Door) -> None:
    import httpx

    body = {"instances": [*instances(PHOTOS[0]), {"b64": "%"}]}
    with pytest.raises(httpx.HTTPStatusError) as caught:
        kserve(door, "v1", lambda client, url: client.infer(url, body, "bit", door.headers()))
    assert caught.value.response.json()["field"] == "instances[1].image"
    with pytest.raises(httpx.HTTPStatusError, match="401"):
        kserve(door, "v1", lambda client, url: client.infer(url, body, "bit"))


@pytest.mark.parametrize("binary", [True, False])
def test_tensors_by_kserves_client(door: Door, own: list[Any], binary: bool) -> None:
    _, types = modules()
    tensor = types.InferInput("image", [2, 48, 64, 3], "UINT8")
    tensor.set_data_from_numpy(np.stack(PIXELS), binary_data=binary)
    request = types.InferRequest("bit", [tensor], parameters={"binary_data_output": binary})
    found = kserve(door, "v2", lambda client, url: client.infer(url, request, "bit", door.headers()))
    assert found.model_name == "bit"
    assert found.get_output_by_name("scores").as_numpy().shape == (2, 10)
    probability = found.get_output_by_name("probability").as_numpy()
    assert probability[:, 0] == pytest.approx([each["predictions"][0]["probability"] for each in own], rel=1e-4)


# Triton's client


@pytest.fixture
def client(door: Door) -> Iterator[triton.InferenceServerClient]:
    """Triton's client of the front door."""

    def context() -> ssl.SSLContext:
        return ssl.create_default_context(cafile=door.edge.certificate)

    address = urlsplit(door.edge.url).netloc
    with triton.InferenceServerClient(address, ssl=True, ssl_context_factory=context) as made:
        yield made


def test_readiness_and_metadata_by_tritons_client(door: Door, client: triton.InferenceServerClient) -> None:
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("bit")
    assert client.is_model_ready("bit", "1.0") and not client.is_model_ready("nobody")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    told = client.get_model_metadata("bit", headers=door.headers())
    assert told["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    assert told["outputs"][0] == {"name": "scores", "datatype": "FP32", "shape": [-1, 10]}


@pytest.mark.parametrize("binary", [True, False])
def test_files_by_tritons_client(
    door: Door, client: triton.InferenceServerClient, own: list[Any], binary: bool
) -> None:
    files = PHOTOS if binary else [base64.b64encode(photo) for photo in PHOTOS]
    tensor = triton.InferInput("image", [2], "BYTES")
    tensor.set_data_from_numpy(np.array(files, object), binary_data=binary)
    names = ("scores", "label", "json")
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in names]
    found = client.infer("bit", [tensor], outputs=wanted, headers=door.headers(), request_id="mine")
    assert found.get_response()["id"] == "mine"
    labels = [one.decode() if binary else one for one in found.as_numpy("label")[:, 0]]
    assert labels == [each["predictions"][0]["label"] for each in own]
    assert found.as_numpy("scores").dtype == np.float32
    assert json.loads(found.as_numpy("json")[0, 0])["predictions"][0]["label"] == labels[0]


def test_pixels_by_tritons_client_are_the_services_own_numbers(
    door: Door, client: triton.InferenceServerClient, own: list[Any]
) -> None:
    tensor = triton.InferInput("image", [1, 3, 48, 64], "UINT8")
    tensor.set_data_from_numpy(np.ascontiguousarray(PIXELS[0].transpose(2, 0, 1)[None]))
    found = client.infer("bit", [tensor], headers=door.headers())
    ranked = own[0]["predictions"]
    assert found.as_numpy("probability")[0].tolist() == [each["probability"] for each in ranked]
    scores = found.as_numpy("scores")[0]
    assert [scores[each["index"]] for each in ranked] == [np.float32(each["score"]) for each in ranked]


def test_a_refusal_is_tritons_clients_error(door: Door, client: triton.InferenceServerClient) -> None:
    tensor = triton.InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([b"no photo"], object))
    with pytest.raises(InferenceServerException) as caught:
        client.infer("bit", [tensor], headers=door.headers())
    assert caught.value.message() == "unsupported_media" and caught.value.status() == "415"
    with pytest.raises(InferenceServerException, match="unauthorized"):
        client.infer("bit", [tensor])


def test_vertex_ais_calls_have_the_services_own_numbers(door: Door) -> None:
    """Through nginx and TorchServe: by the endpoint's number, the numbers of the service's own path."""
    path = "/v1/projects/p/locations/l/endpoints/42"
    kind = {"Content_Type": "application/json"}
    spec = {"parameters": {"xraiAttribution": {"stepCount": 4}}}
    body = json.dumps({"instances": instances(PHOTOS[0]), "explanationSpecOverride": spec}).encode()
    found = door.ask(f"{path}:explain", body, **kind)
    assert found.status_code == 200, found.text
    answer = aiplatform.ExplainResponse.from_json(found.text)
    (one,) = answer.explanations[0].attributions
    direct = door.ask("/explanations/bit?method=xrai&steps=4", PHOTOS[0], Accept="application/json").json()
    assert (answer.deployed_model_id, list(one.output_index)) == ("bit", [direct["target_class"]])
    assert one.instance_output_value == direct["score"] and one.baseline_output_value == direct["baseline_score"]
    assert one.approximation_error == direct["integrals"]["relative_residual"]
    said = door.ask(f"{path}:predict", json.dumps({"instances": instances(PHOTOS[0])}).encode(), **kind)
    told = aiplatform.PredictResponse.from_json(said.text)
    assert len(told.predictions[0]["scores"]) == 10 and told.model_display_name == "bit"
    assert door.ask("/v1/projects/p/locations/l/endpoints/43:predict", body, **kind).status_code == 404
    refused = door.ask(f"{path}:rawPredict", body, **kind)
    assert refused.status_code == 404 and "/endpoints/MODEL:explain" in refused.json()["message"]


def test_the_page(door: Door, tmp_path: Path) -> None:
    """The blocks of docs/protocols.md that ask this server."""
    code = "\n".join(block.code for block in blocks(ROOT / "docs" / "protocols.md") if "/v1/models/" in block.code)
    code = code.replace("https://127.0.0.1:8443", door.edge.url)
    (tmp_path / "run").symlink_to(door.run)
    (tmp_path / "photo.jpg").write_bytes(PHOTOS[0])
    command = f'imagexplain() {{ "{sys.executable}" -m imagexplain "$@" --run {door.run}; }}\n{code}'
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["predictions"]
    (found,) = json.loads((tmp_path / "explained.json").read_text())["explanations"]
    assert found["steps"] == 20 and found["attributions"]


def test_the_log_has_what_was_refused(door: Door) -> None:
    answer = door.ask("/v1/models/bit:explain", b'{"instances": []}', X_Request_Id="refused-one")
    assert answer.status_code == 400 and answer.json()["field"] == "instances"
    metrics = door.ask("/metrics", method="GET", client=None).text
    assert "explain_requests_total" in metrics
