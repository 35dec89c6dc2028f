"""A state directory on a disk that is too small, or that fills up while the server runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import Request

import psutil
import pytest

from imagexplain.client.loopback import urlopen
from imagexplain.ops.key_renewal import renew
from imagexplain.ops.observation import READY, observe
from imagexplain.ops.server import SPARE_BYTES, Server, ServerError, free_port, start, stop
from tests.disks import fill, mounted
from tests.serving import archives


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A disk in memory, with as many bytes as the test asks for."""
    with mounted(tmp_path / "disk", request.param) as place:
        yield place
        stop(place / "run", quiet=True, drain_s=0)


def ask(server: Server, body: bytes = b"x") -> bytes:
    headers = {**server.headers(), "Content-Type": "application/octet-stream"}
    request = Request(f"{server.inference}/predictions/small", body, headers)
    with urlopen(request, timeout=60) as answer:
        return answer.read()


@pytest.mark.parametrize("disk", [SPARE_BYTES // 2], indirect=True)
def test_too_little_room_is_told_before_anything_starts(tmp_path: Path, disk: Path) -> None:
    archives.write(tmp_path / "store", "small")
    with pytest.raises(ServerError, match=r"run directory \S+ has too little room: wanted 64,\d+,\d+ bytes, got 3"):
        start(store=tmp_path / "store", run=disk / "run", port=free_port())
    fill(disk)
    with pytest.raises(ServerError, match=r"run directory \S+ cannot be written: No space left on device"):
        start(store=tmp_path / "store", run=disk / "run", port=free_port())


@pytest.mark.parametrize("disk", [SPARE_BYTES + (8 << 20)], indirect=True)
def test_a_server_whose_disk_is_full_answers_and_gets_new_workers(tmp_path: Path, disk: Path) -> None:
    """What it would have logged is lost; all else needs no room."""
    slow = "import time; time.sleep(2 * (bytes(rows[0]['body']) == b'slow')); return"
    archives.write(tmp_path / "store", "small", archives.WORKING.replace("return", slow))
    server = start(store=tmp_path / "store", run=disk / "run", port=free_port())
    filler = fill(disk)
    logged = (server.logs / "access_log.log").stat().st_size
    assert [ask(server) for _ in range(100)] == [b"fine"] * 100
    for _ in range(2):
        ((worker,),) = [model.workers for model in observe(server)]
        assert worker.process is not None
        worker.process.kill()
        psutil.wait_procs([worker.process], timeout=10)
        time.sleep(1)  # what is sent within .1 s of its end gets an error, for TorchServe has not seen the end
        assert ask(server) == b"fine"
    assert [model.state for model in observe(server)] == [READY]
    with pytest.raises(OSError, match="No space left on device"):
        renew(server, "inference")
    with ThreadPoolExecutor(1) as threads:
        slow_answer = threads.submit(ask, server, b"slow")
        time.sleep(0.5)
        assert stop(disk / "run") and server.process() is None
        assert slow_answer.result() == b"fine"
    assert logged < 1 << 20 and sorted(path.name for path in (disk / "run").iterdir()) == ["logs"]
    filler.unlink()
