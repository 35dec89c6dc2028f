"""Workers that ask one another: who may be asked, when nobody is, and who pays for the waiting."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from imagexplain.api.request import Request, parse
from imagexplain.errors import RequestError
from imagexplain.limits import Limits
from imagexplain.serving.remote_segments import RemoteSegments, fetch_segments
from tests.listening import listening
from tests.serving.asking import explanation, noise_png, prediction
from tests.serving.fake_torchserve import Context
from tests.serving.handlers import classifier_of, write_bit
from tests.wire.photos import encoded

pytestmark = pytest.mark.usefixtures("secret_key")

FOUND = json.dumps({"detections": [{"label": "cat", "segmentation": {"size": [4, 6], "counts": [0, 6, 18]}}]}).encode()
KINDS = {"swin": "segmenter", "tensormask": "segmenter", "lanet": "classifier", "bit": "classifier"}


@contextmanager
def server(answer: Callable[[str], bytes], environment: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """TorchServe's endpoint: a model's name to the answer's body; yields the names that were asked."""
    asked: list[str] = []

    def answer_with_body(request: BaseHTTPRequestHandler) -> None:
        request.rfile.read(int(request.headers["Content-Length"]))
        name = request.path.rpartition("/")[2]
        asked.append(name)
        body = answer(name)
        try:
            request.send_response(200)
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            request.wfile.write(body)
        except OSError:
            pass  # nobody waits any longer

    with listening(answer_with_body) as address:
        environment.setenv("TS_INFERENCE_ADDRESS", address)
        yield asked


@pytest.fixture
def unpacked(tmp_path: Path) -> Path:
    """Where TorchServe unpacks archives."""
    for name, kind in KINDS.items():
        (tmp_path / f"hash of {name}").mkdir()
        (tmp_path / f"hash of {name}" / "spec.json").write_text(json.dumps({"name": name, "handler": kind}))
    return tmp_path


def remote(unpacked: Path, own: str, budget: float = 50) -> RemoteSegments:
    return RemoteSegments(own, unpacked / f"hash of {own}", Limits(), budget)


def wanting(name: str, colour: str = "red", **options: str) -> Request:
    sent = "&".join(f"{key}={value}" for key, value in {"segments": name, **options}.items())
    return parse({"body": encoded(Image.new("RGB", (6, 4), colour))}, {"x-explain-options": sent}, kind="explanation")


def joined(asking: RemoteSegments, *batch: Request) -> list[tuple[str, ...] | str]:
    """For each request of a batch the labels of its segments, its fallback's name, or the refusal."""
    ends = asking.clock() + asking.budget
    ask, outcomes = asking.ask([(request, False) for request in batch], ends), []
    for request in batch:
        try:
            left, found = fetch_segments(request, asking.own, Limits(), ends, ask=ask)
            outcomes.append(found.labels if found else left.segments.name if left.segments else "none")
        except RequestError as refusal:
            outcomes.append(f"{refusal.status} {refusal.message}")
    return outcomes


@pytest.mark.parametrize("own", ["bit", "swin"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lanet", "'lanet', which finds no masks"),
        ("bit", "'bit', which finds no masks"),
        ("nothing", "a segmenter that is served here (swin, tensormask), got 'nothing'"),
        ("Tensormask", "a segmenter that is served here"),
        ("tensormask_", "a segmenter that is served here"),
    ],
)
def test_nobody_but_a_segmenter_is_asked(
    unpacked: Path, monkeypatch: pytest.MonkeyPatch, own: str, name: str, words: str
) -> None:
    with server(lambda _: FOUND, monkeypatch) as asked:
        (outcome,) = joined(remote(unpacked, own), wanting(name))
        (allowed,) = joined(remote(unpacked, own), wanting(name, fallback="slic"))
    assert isinstance(outcome, str) and outcome.startswith("422") and words in outcome
    assert allowed == outcome and asked == []


def test_what_is_no_archive_of_ours_is_no_segmenter(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("torn", '{"name": '), ("foreign", '{"name": 5}'), ("list", "[]"), ("binary", "\udcff")):
        (unpacked / name).mkdir()
        (unpacked / name / "spec.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    (unpacked / "file").touch()
    with server(lambda _: FOUND, monkeypatch):
        assert joined(remote(unpacked, "bit"), wanting("swin")) == [("cat",)]


def test_equal_questions_of_a_batch_go_out_once_and_all_of_them_together(
    unpacked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(3, timeout=20)

    def answer(name: str) -> bytes:
        together.wait()
        return FOUND

    batch = [
        wanting("swin"),
        wanting("swin", "blue"),
        wanting("swin", steps="5"),
        wanting("slic"),
        wanting("tensormask"),
        wanting("lanet"),
    ]
    with server(answer, monkeypatch) as asked:
        outcomes = joined(remote(unpacked, "bit"), *batch)
    assert outcomes[:5] == [("cat",), ("cat",), ("cat",), "slic", ("cat",)]
    assert str(outcomes[5]).startswith("422")
    assert sorted(asked) == ["swin", "swin", "tensormask"]


def test_equal_bytes_of_another_size_are_another_photo(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = [
        parse(
            {"body": json.dumps({"img_data": [[[5, 5, 5]] * columns] * rows}).encode()},
            {"x-explain-options": "segments=swin"},
            kind="explanation",
        )
        for rows, columns in ((2, 12), (4, 6))
    ]
    with server(lambda _: FOUND, monkeypatch) as asked:
        joined(remote(unpacked, "bit"), *batch)
    assert asked == ["swin", "swin"]


def test_who_does_not_answer_is_left_alone_for_a_while_and_then_tried(
    unpacked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung, later = threading.Event(), 0.0
    asking, counted = remote(unpacked, "bit", budget=2), list[str]()
    asking.count = counted.append
    asking.clock = lambda: time.monotonic() + later

    def answer(name: str) -> bytes:
        if name == "swin":
            hung.wait(20)
        return FOUND

    with server(answer, monkeypatch) as asked:
        first = joined(asking, wanting("swin"), wanting("tensormask"), wanting("swin", "blue", fallback="grid"))
        assert "503 the segmenter swin did not answer in time" in first[0]
        assert first[1:] == [("cat",), "grid"]
        assert sorted(asked) == ["swin", "swin", "tensormask"]
        assert sorted(counted) == ["no_answer", "no_answer", "ok"]

        (again,) = joined(asking, wanting("swin"))
        assert "503" in again and "is not asked for another 2 s" in again
        assert counted[3:] == ["not_asked"]
        assert joined(asking, wanting("swin", fallback="slic"), wanting("tensormask")) == ["slic", ("cat",)]
        assert asked.count("swin") == 2

        later = 2.5
        assert "did not answer in time" in joined(asking, wanting("swin"))[0]
        assert asked.count("swin") == 3 and "is not asked" in joined(asking, wanting("swin"))[0]

        hung.set()
        later = 5
        assert joined(asking, wanting("swin")) == [("cat",)]
        assert asking.down == {} and joined(asking, wanting("swin")) == [("cat",)]


def test_a_refusal_is_no_silence(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asking, counted = remote(unpacked, "bit"), list[str]()
    asking.count = counted.append
    monkeypatch.setenv("TS_INFERENCE_ADDRESS", "http://127.0.0.1:9")
    assert "cannot be reached" in joined(asking, wanting("swin"))[0]
    with server(lambda _: b'{"detections": 5}', monkeypatch):
        assert "finds no masks" in joined(asking, wanting("swin"))[0]
    joined(asking, wanting("lanet"), wanting("nobody"))
    assert asking.down == {} and counted == ["failed", "refused"]


def test_an_answer_that_drips_in_is_none(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket's own time limit starts anew with each byte."""

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        try:
            while True:
                time.sleep(0.05)
                request.wfile.write(b" ")
        except OSError:
            pass

    with listening(drip) as address:
        monkeypatch.setenv("TS_INFERENCE_ADDRESS", address)
        assert "did not answer in time" in joined(remote(unpacked, "bit", budget=2), wanting("swin"))[0]
        asking = [thread for thread in threading.enumerate() if thread.name.startswith("remote-segments")]
        for thread in asking:
            thread.join(10)  # a process cannot end while one waits
        assert not any(thread.is_alive() for thread in asking)


class Workers:
    """One worker for each model: what it is asked waits until it is free, and it is not while it asks."""

    def __init__(self, unpacked: Path, *names: str) -> None:
        self.unpacked = unpacked
        self.busy = {name: threading.Lock() for name in names}

    def answer(self, name: str) -> bytes:
        with self.busy[name]:
            return FOUND

    def explain(self, own: str, segmenter: str, all_busy: threading.Barrier | None = None) -> tuple[str, ...] | str:
        with self.busy[own]:
            if all_busy is not None:
                all_busy.wait()
            return joined(remote(self.unpacked, own), wanting(segmenter))[0]


@pytest.mark.parametrize("ring", [("swin", "tensormask"), ("swin", "tensormask", "third")])
def test_no_ring_of_segmenters_waits_for_itself(
    unpacked: Path, monkeypatch: pytest.MonkeyPatch, ring: tuple[str, ...]
) -> None:
    (unpacked / "hash of third").mkdir()
    (unpacked / "hash of third" / "spec.json").write_text('{"name": "third", "handler": "segmenter"}')
    workers, all_busy = Workers(unpacked, *ring), threading.Barrier(len(ring), timeout=20)
    outcomes: dict[str, tuple[str, ...] | str] = {}

    def explain(place: int) -> None:
        own = ring[place]
        outcomes[own] = workers.explain(own, ring[(place + 1) % len(ring)], all_busy)

    with server(workers.answer, monkeypatch):
        threads = [threading.Thread(target=explain, args=(place,)) for place in range(len(ring))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        refused = [outcome for outcome in outcomes.values() if isinstance(outcome, str)]
        assert refused and all("503" in told and "ask" in told for told in refused)
        assert not any("in time" in told for told in refused)
        for place, own in enumerate(ring):  # nothing is left behind
            assert workers.explain(own, ring[(place + 1) % len(ring)]) == ("cat",)


def test_a_classifier_may_ask_a_segmenter_that_asks(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks a classifier, so that it closes no ring."""
    asking, answered = threading.Event(), threading.Event()
    outcomes: dict[str, list[tuple[str, ...] | str]] = {}

    def answer(name: str) -> bytes:
        if name == "tensormask":
            asking.set()
            answered.wait(20)
        return FOUND

    with server(answer, monkeypatch):
        swin = threading.Thread(
            target=lambda: outcomes.update(swin=joined(remote(unpacked, "swin"), wanting("tensormask")))
        )
        swin.start()
        assert asking.wait(20)
        (refused,) = joined(remote(unpacked, "tensormask"), wanting("swin"))
        assert joined(remote(unpacked, "bit"), wanting("swin")) == [("cat",)]
        answered.set()
        swin.join()
    assert "503 tensormask is being asked itself" in refused and outcomes == {"swin": [("cat",)]}


def test_a_worker_that_dies_leaves_no_lock(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = unpacked / "hash of tensormask" / "spec.json"
    hold = f"import fcntl; file = open({str(spec)!r}); fcntl.flock(file, fcntl.LOCK_EX); print(flush=True); input()"
    with (
        subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other,
        server(lambda _: FOUND, monkeypatch),
    ):
        assert other.stdout is not None and other.stdout.readline()
        asking = remote(unpacked, "swin")
        assert "tensormask is asking another one itself" in joined(asking, wanting("tensormask"))[0]
        other.kill()
        other.wait()
        assert joined(asking, wanting("tensormask")) == [("cat",)]


def test_many_may_ask_one_segmenter(unpacked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(3, timeout=20)

    def answer(_: str) -> bytes:
        together.wait()
        return FOUND

    outcomes: list[Any] = []

    def explain(own: str) -> None:
        outcomes.extend(joined(remote(unpacked, own), wanting("swin")))

    with server(answer, monkeypatch):
        threads = [threading.Thread(target=explain, args=(own,)) for own in ("bit", "lanet", "tensormask")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert outcomes == [("cat",)] * 3


def test_a_hung_segmenter_harms_those_alone_who_wait_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = tmp_path / "a", tmp_path / "b"
    model.mkdir()
    other.mkdir()
    (other / "spec.json").write_text('{"name": "swin", "handler": "segmenter"}')
    handler = classifier_of(write_bit(model))
    assert handler.worker.remote_segments.budget == handler.worker.task.model.spec.serving.deadline_s
    handler.worker.remote_segments.budget = 2
    never = threading.Event()

    def answer(_: str) -> bytes:
        never.wait(30)
        return FOUND

    headers = [
        explanation("segments=swin&steps=5"),
        prediction(),
        explanation("segments=slic&steps=5"),
        explanation("segments=swin&fallback=grid&steps=5"),
        explanation("segments=nobody&steps=5"),
    ]
    with server(answer, monkeypatch) as asked:
        context = Context(headers=headers)
        bodies = handler.handle([{"body": bytearray(noise_png(1))}] * len(headers), context)
        never.set()
    assert [context.statuses[index] for index in range(len(headers))] == [503, 200, 200, 200, 422]
    assert json.loads(bodies[3])["segments"] == "grid" and asked == ["swin"]
