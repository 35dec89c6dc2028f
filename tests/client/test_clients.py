"""Both clients against a server that answers as the tests say."""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import imagexplain.client
from imagexplain.api.schema import (
    CaptionExplanation,
    ClassPrediction,
    Explanations,
    InstancePrediction,
    MapExplanation,
    PathExplanation,
)
from imagexplain.checkout import ROOT
from imagexplain.client import (
    AnswerError,
    AsyncClient,
    BadRequestError,
    BusyError,
    Client,
    ClientError,
    ConnectionLostError,
    ImpossibleError,
    InputError,
    NoServerError,
    Retry,
    StatusError,
    TimedOutError,
    UnauthorizedError,
    UnreachableError,
    WorkerEndedError,
)
from imagexplain.client.answers import Prediction
from imagexplain.ops.server import free_port
from tests.client.stub import CLASSES, EXPLAINED, STAR, Said, Stub, of, refusal, tensors

QUICK = Retry(attempts=3, first_s=0.01)
PHOTO = b"\x89PNG a photo"


class Both:
    """Both clients as one: a call is made by each, and both find the same."""

    def __init__(self, stub: Stub, **settings: Any) -> None:
        self.stub, self.settings = stub, {"retry": QUICK, **settings}

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            answers = [*self.stub.answers]
            self.stub.asked.clear()
            with Client(self.stub.url, "key", **self.settings) as client:
                found = outcome(lambda: getattr(client, name)(*arguments, **options))
            asked, self.stub.answers = [*self.stub.asked], answers
            self.stub.asked.clear()

            async def awaited() -> Any:
                async with AsyncClient(self.stub.url, "key", **self.settings) as client:
                    return await getattr(client, name)(*arguments, **options)

            other = outcome(lambda: asyncio.run(awaited()))
            assert [(each.method, each.path, each.body) for each in asked] == [
                (each.method, each.path, each.body) for each in self.stub.asked
            ]
            if isinstance(found, Exception):
                assert type(other) is type(found) and str(other) == str(found)
                raise found
            assert type(other) is type(found)
            return found

        return call


def outcome(call: Any) -> Any:
    try:
        return call()
    except ClientError as error:
        return error


@pytest.fixture
def both(stub: Stub) -> Both:
    return Both(stub)


def test_a_prediction_is_of_the_apis_type(stub: Stub, both: Both) -> None:
    found: Prediction = both.predict(PHOTO, "bit", threshold=0.5)
    assert isinstance(found, ClassPrediction)
    assert (found.predictions[0].label, found.predictions[0].probability) == ("star", 0.75)
    asked = stub.asked[0]
    assert (asked.method, asked.path, asked.body) == ("POST", "/predictions/bit", PHOTO)
    assert asked.headers["authorization"] == "Bearer key" and asked.headers["accept"] == "application/json"
    assert asked.headers["x-explain-options"] == "threshold=0.5"


def test_an_explanation_has_a_summary_and_tensors(stub: Stub, both: Both, tmp_path: Path) -> None:
    stub.answers = [tensors()]
    found = both.explain(PHOTO, "bit", steps=20, fresh=True, request_id="mine")
    assert isinstance(found.summary, PathExplanation) and found.summary.residual == 0.25
    assert found.classes == (found.summary,) and found.captions == ()
    assert found.tensors["integrated_grads"].shape == (1, 3, 2, 2) and list(found.tensors) == ["integrated_grads"]
    as_torch = found.tensors.torch()["integrated_grads"]
    assert isinstance(as_torch, torch.Tensor) and as_torch.sum().item() == 66
    assert found.result == EXPLAINED
    sent = stub.asked[0].headers
    assert sent["accept"] == "application/x-safetensors; summary=true"
    assert (sent["cache-control"], sent["x-request-id"]) == ("no-cache", "mine")
    assert found.save(tmp_path / "new" / "one.safetensors").read_bytes() == found.answer.body
    assert json.loads(found.save(tmp_path / "one.json").read_bytes()) == EXPLAINED
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "one.json"], "no leftovers"
    with pytest.raises(InputError, match=r"ends in \.safetensors or \.json"):
        found.save(tmp_path / "one.gzip")


def test_without_tensors_only_the_summary_is_asked_for(stub: Stub, both: Both) -> None:
    stub.answers = [of({name: value for name, value in EXPLAINED.items() if name in (*BOTH_KINDS, "options")} | MAP)]
    found = both.explain(PHOTO, "bit", tensors=False)
    assert isinstance(found.summary, MapExplanation) and stub.asked[0].headers["accept"] == "application/json"
    with pytest.raises(AnswerError, match="tensors=True"):
        found.tensors  # noqa: B018


def test_several_classes_and_captions_have_their_types(stub: Stub, both: Both) -> None:
    stub.answers = [of({"model": "bit", "explanations": [EXPLAINED, {**EXPLAINED, "target_label": "ring"}]})]
    found = both.explain(PHOTO, "bit", tensors=False, target_class=["star", "ring"])
    assert isinstance(found.summary, Explanations)
    assert [each.target_label for each in found.classes] == ["star", "ring"]
    assert stub.asked[0].json()["target_class"] == ["star", "ring"]
    stub.answers = [of({"model": "captioner", "graphs": []})]
    captioned = both.explain(PHOTO, "captioner", tensors=False, graph={"objects": [{"box": [0, 0, 1, 1]}]})
    assert isinstance(captioned.summary, CaptionExplanation) and captioned.classes == ()


def test_what_a_newer_server_adds_breaks_nothing(stub: Stub, both: Both) -> None:
    newer = {**CLASSES, "mood": "fine", "predictions": [{**STAR, "colour": [1, 2]}]}
    stub.answers = [of(newer)]
    assert both.predict(PHOTO, "bit").predictions[0].label == "star"
    stub.answers = [tensors({**EXPLAINED, "unheard": None})]
    found = both.explain(PHOTO, "bit")
    assert found.summary.score == 2.5 and found.result["unheard"] is None


def test_instances_are_masks_of_another_request(stub: Stub, both: Both) -> None:
    runs = {"size": [2, 2], "counts": "04"}
    one = {"label": "cat", "class": 3, "score": 0.5, "box": [0, 0, 2, 2], "area": 4, "segmentation": runs}
    stub.answers = [of({"model": "swin", "labels": ["cat"], "detections": [one]})]
    found = both.predict(PHOTO, "swin")
    assert isinstance(found, InstancePrediction)
    stub.answers = [tensors()]
    both.explain(PHOTO, "bit", masks=found.detections)
    (sent,) = stub.asked[-1].json()["masks"]
    assert (sent["label"], sent["segmentation"]) == ("cat", runs)


def test_a_picture_comes_as_bytes(stub: Stub, both: Both) -> None:
    stub.answers = [Said(200, b"\x89PNG", "image/png")]
    assert both.picture(PHOTO, "swin", endpoint="predictions", picture="plain") == b"\x89PNG"
    assert stub.asked[0].path == "/predictions/swin"
    stub.answers = [of({})]
    with pytest.raises(AnswerError, match="wanted a picture, got application/json"):
        both.picture(PHOTO, "swin")


def test_models_and_the_document_are_read(stub: Stub, both: Both) -> None:
    stub.answers = [of({"models": ["bit", "places/1.0"]})]
    assert both.models() == ("bit", "places/1.0")
    assert (stub.asked[0].method, stub.asked[0].path) == ("GET", "/v1/models")
    stub.answers = [of({"openapi": "3.1.0"})]
    assert both.document() == {"openapi": "3.1.0"}


@pytest.mark.parametrize(
    ("said", "kind", "status"),
    [
        (refusal(400, "steps", "wanted a number"), BadRequestError, 400),
        (refusal(422, "target_class", "no such"), ImpossibleError, 422),
        (refusal(401, "key", "wanted a key"), UnauthorizedError, 401),
        (of({"code": 400, "type": "InvalidKeyException", "message": "Token"}, 400), UnauthorizedError, 400),
        (Said(418, b"<html>teapot</html>", "text/html"), StatusError, 418),
        (Said(500, b"", ""), StatusError, 500),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else None,
)
def test_a_refusal_is_told_once_in_the_servers_words(
    stub: Stub, both: Both, said: Said, kind: type[StatusError], status: int
) -> None:
    stub.answers = [said]
    with pytest.raises(kind) as caught:
        both.predict(PHOTO, "bit")
    assert caught.value.status == status and caught.value.attempts == 1 and len(stub.asked) == 1
    assert str(caught.value).startswith(f"predictions/bit: {status} ")


def test_the_fields_of_a_refusal_are_kept(stub: Stub, both: Both) -> None:
    stub.answers = [refusal(422, "target_class", "no such", X_Correlation_Id="mine-1")]
    with pytest.raises(StatusError, match="predictions/bit: 422 target_class: no such") as caught:
        both.predict(PHOTO, "bit")
    error = caught.value
    assert (error.field, error.message, error.error, error.request_id) == ("target_class", "no such", "word", "mine-1")


def test_what_passes_is_asked_again(stub: Stub, both: Both) -> None:
    stub.answers = [Said(reset=True), refusal(503, "queue", "full", Retry_After="0"), of(CLASSES)]
    assert both.predict(PHOTO, "bit").model == "bit"
    assert len(stub.asked) == 3 and {asked.body for asked in stub.asked} == {PHOTO}


def test_an_answer_that_breaks_off_is_asked_for_again(stub: Stub, both: Both) -> None:
    stub.answers = [Said(cut=True), of(CLASSES)]
    assert both.predict(PHOTO, "bit").model == "bit"
    stub.answers = [Said(cut=True)]
    with pytest.raises(ConnectionLostError, match="tried 3 times"):
        both.predict(PHOTO, "bit")


def test_a_worker_that_ends_is_waited_for(stub: Stub, both: Both) -> None:
    died = of({"code": 507, "type": "InternalServerException", "message": "Worker died."}, 507)
    stub.answers = [died, of(CLASSES)]
    assert both.predict(PHOTO, "bit").model == "bit"
    stub.answers = [died]
    with pytest.raises(WorkerEndedError, match="Worker died"):
        both.predict(PHOTO, "bit")


def test_a_long_leave_is_not_waited_for(stub: Stub, both: Both) -> None:
    stub.answers = [refusal(503, "queue", "full", Retry_After="3600")]
    with pytest.raises(BusyError) as caught:
        both.predict(PHOTO, "bit")
    assert caught.value.retry_after == 3600 and len(stub.asked) == 1


def test_silence_ends_and_is_not_tried_again(stub: Stub) -> None:
    stub.answers = [Said(seconds=0.6)]
    with pytest.raises(TimedOutError):
        Both(stub, timeout_s=0.1).predict(PHOTO, "bit")
    assert len(stub.asked) == 1


def test_the_deadline_ends_it_all(stub: Stub) -> None:
    stub.answers = [refusal(503, "queue", "full", Retry_After="1")]
    with pytest.raises(BusyError):
        Both(stub, deadline_s=0.5).predict(PHOTO, "bit")
    assert len(stub.asked) == 1
    stub.answers = [Said(seconds=0.8)]
    with pytest.raises(TimedOutError):
        Both(stub, deadline_s=0.2).predict(PHOTO, "bit")


@pytest.mark.parametrize(
    "said",
    [
        Said(200, b"no json"),
        of([1, 2]),
        of({"unheard": 1}),
        of({**CLASSES, "predictions": [{"label": 3}]}),
        Said(200, b"{\xff}"),
        Said(200, b"[" * 100_000),
    ],
)
def test_an_answer_that_cannot_be_read_is_an_error(stub: Stub, both: Both, said: Said) -> None:
    stub.answers = [said]
    with pytest.raises(AnswerError):
        both.predict(PHOTO, "bit")


@pytest.mark.parametrize("body", [b"", b"short", struct.pack("<Q", 2**62), struct.pack("<Q", 2) + b"{}", b"\xff" * 99])
def test_damaged_tensors_are_an_error(stub: Stub, both: Both, body: bytes) -> None:
    stub.answers = [Said(200, body, "application/x-safetensors")]
    with pytest.raises(AnswerError):
        both.explain(PHOTO, "bit")


def test_cut_tensors_are_an_error_once_they_are_read(stub: Stub, both: Both) -> None:
    whole = tensors()
    stub.answers = [Said(200, whole.body[:-5], whole.media)]
    found = both.explain(PHOTO, "bit")
    with pytest.raises(AnswerError, match="wanted a safetensors file"):
        found.tensors["integrated_grads"]


def test_nobody_there() -> None:
    with pytest.raises(UnreachableError, match="tried 2 times"):
        Client(f"http://127.0.0.1:{free_port()}", retry=Retry(attempts=2, first_s=0.01)).predict(PHOTO, "bit")


@pytest.mark.parametrize("url", ["127.0.0.1:8080", "ftp://a", "http://", "http://a?b=c"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(InputError, match="wanted an address"):
        Client(url)


def test_a_photo_comes_in_many_forms(stub: Stub, both: Both, tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    image.save(tmp_path / "photo.png")
    for photo in (tmp_path / "photo.png", str(tmp_path / "photo.png"), image, np.asarray(image)):
        both.predict(photo, "bit")
        sent = stub.asked[-1]
        assert sent.headers["content-type"] == "image/png"
        (tmp_path / "sent.png").write_bytes(sent.body)
        with Image.open(tmp_path / "sent.png") as back:
            assert np.array_equal(np.asarray(back), np.asarray(image))


def test_an_image_of_pillows_keeps_its_orientation(stub: Stub, both: Both, tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 2))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "photo.jpg", exif=exif)
    with Image.open(tmp_path / "photo.jpg") as turned:
        both.predict(turned, "bit")
    (tmp_path / "sent.png").write_bytes(stub.asked[-1].body)
    with Image.open(tmp_path / "sent.png") as back:
        assert back.getexif()[0x0112] == 6


@pytest.mark.parametrize("photo", [np.zeros((2, 2), np.float32), np.zeros((2, 2, 5), np.uint8), 3, "none.jpg", b""])
def test_what_is_no_photo_is_not_sent(stub: Stub, both: Both, photo: Any) -> None:
    with pytest.raises(InputError):
        both.predict(photo, "bit")
    assert stub.asked == []


def test_threads_share_a_client(stub: Stub) -> None:
    with Client(stub.url, connections=4) as client, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: client.predict(b"%d" % number, "bit").model, range(40)))
    assert found == ["bit"] * 40 and len({asked.body for asked in stub.asked}) == 40


def test_connections_are_kept(stub: Stub) -> None:
    """One connection answers several requests: the server sees one peer only."""
    peers = set[int]()
    original = socket.socket.accept
    with Client(stub.url) as client:
        for _ in range(3):
            client.predict(PHOTO, "bit")
            pool: Any = client._http._transport
            peers |= {id(connection) for connection in pool._pool.connections}
    assert len(peers) == 1 and socket.socket.accept is original


def test_tasks_of_one_loop_share_a_client_and_can_be_given_up(stub: Stub) -> None:
    async def run() -> None:
        async with AsyncClient(stub.url) as client:
            found = await asyncio.gather(*(client.predict(PHOTO, "bit") for _ in range(10)))
            assert len(found) == 10
            stub.answers = [Said(seconds=5)]
            started = time.monotonic()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.predict(PHOTO, "bit"), 0.1)
            assert time.monotonic() - started < 4

    asyncio.run(run())


def test_the_key_may_change(stub: Stub) -> None:
    keys = iter(["first", "second"])
    with Client(stub.url, lambda: next(keys)) as client:
        client.predict(PHOTO, "bit")
        client.predict(PHOTO, "bit")
    assert [asked.headers["authorization"] for asked in stub.asked] == ["Bearer first", "Bearer second"]


def test_the_server_of_this_machine_is_found_by_its_state(stub: Stub, tmp_path: Path) -> None:
    with pytest.raises(NoServerError, match="make serve"):
        Client.local(tmp_path)
    state = {"ports": {"inference": int(stub.url.rpartition(":")[2])}, "host": "0.0.0.0", "models": ["bit"]}
    (tmp_path / "server.json").write_text(json.dumps({**state, "pid": 2**22 + 1}))
    with pytest.raises(NoServerError, match="has ended"):
        Client.local(tmp_path)
    (tmp_path / "server.json").write_text(json.dumps({**state, "pid": 1}))
    with Client.local(tmp_path) as client:
        assert client.url == stub.url and client.models() == ("bit",)
        with pytest.raises(NoServerError, match="no inference key"):
            client.predict(PHOTO, "bit")
        (tmp_path / "key_file.json").write_text(json.dumps({"inference": {"key": "today's"}}))
        client.predict(PHOTO, "bit")
    assert stub.asked[0].headers["authorization"] == "Bearer today's"


def test_the_two_clients_have_the_same_calls() -> None:
    def signatures(kind: type) -> dict[str, str]:
        return {
            name: str(inspect.signature(value)).replace("Self", "")
            for name, value in inspect.getmembers(kind, inspect.isfunction)
            if name[0] != "_"
        }

    low_level = {"post", "photo", "close"}
    found = signatures(Client)
    assert signatures(AsyncClient) | {name: found[name] for name in low_level} == found | {"aclose": "(self) -> 'None'"}


def test_every_public_name_is_there() -> None:
    for name in imagexplain.client.__all__:
        assert name in dir(imagexplain.client) and getattr(imagexplain.client, name) is not None
    errors = [name for name in imagexplain.client.__all__ if name.endswith("Error")]
    assert all(issubclass(getattr(imagexplain.client, name), ClientError) for name in errors)
    with pytest.raises(AttributeError, match="no attribute 'Klient'"):
        imagexplain.client.Klient  # type: ignore[attr-defined]  # noqa: B018


def test_no_torch_is_imported(stub: Stub) -> None:
    """Neither by the import nor by whole calls, numpy's tensors included; nor what a server needs, by the commands."""
    stub.answers = [of(CLASSES), tensors()]
    program = f"""
import sys
from imagexplain.client import Client, AsyncClient
with Client({stub.url!r}) as client:
    client.predict(b"photo", "bit")
    assert client.explain(b"photo", "bit").tensors["integrated_grads"].sum() == 66
import imagexplain.cli.explain, imagexplain.cli.predict
print(sorted({{"torch", "timm", "skimage", "captum", "pydantic", "psutil", "yaml"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


BOTH_KINDS = (
    *("model", "method", "target_class", "target_label", "score_kind", "score", "finite", "evaluations", "top"),
    "frame",
)
MAP = {"options": {"layer": "layer4"}}
