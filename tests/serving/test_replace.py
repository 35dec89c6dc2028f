"""Another version in the place of the one that is served, while requests come without a pause."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request

import pytest

from imagexplain.client.loopback import urlopen
from imagexplain.ops.replace import replace
from imagexplain.ops.server import Server, ServerError, find, free_port, start
from tests.serving import archives

CLIENTS = 6


def version(store: Path, number: str, handler: str = archives.WORKING) -> Path:
    """An archive whose answer, after a twentieth of a second, is its version."""
    slow = handler.replace('return [b"fine"', f'import time; time.sleep(0.05); return [b"{number}"')
    return archives.write(store, "small", slow, version=number)


@contextmanager
def requests_without_a_pause(server: Server) -> Iterator[Counter[str]]:
    """What several clients get, one request after the other, until the end of the block."""
    got: Counter[str] = Counter()
    done, lock = threading.Event(), threading.Lock()

    def ask() -> None:
        request = Request(f"{server.inference}/predictions/small", b"x", server.headers())
        while not done.is_set():
            try:
                with urlopen(request, timeout=120) as answer:
                    found = answer.read().decode()
            except HTTPError as error:
                found = f"status {error.code}: {error.read().decode()[:200]}"
            except OSError as error:
                found = repr(error)
            with lock:
                got[found] += 1

    clients = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        yield got
    finally:
        done.set()
        for client in clients:
            client.join()


def test_no_request_fails_while_a_version_is_replaced(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, elsewhere = tmp_path / "store", tmp_path / "elsewhere"
    version(store, "1.0")
    archives.write(store, "other")
    port = free_port()
    server = start(store=store, run=run, port=port, replaceable=True)

    with requests_without_a_pause(server) as got:
        time.sleep(1)
        with pytest.raises(ServerError, match=r"(?s)small 1\.1 cannot be loaded: .*ValueError: rust"):
            replace(run, version(elsewhere, "1.1", archives.WORKING.replace("pass", "raise ValueError('rust')")))
        assert set(got) == {"1.0"} and sorted(path.name for path in store.iterdir()) == ["other.mar", "small.mar"]

        replace(run, version(elsewhere, "2.0"))
        before = got["2.0"]
        time.sleep(1)
        assert got["2.0"] > before > 0 and set(got) == {"1.0", "2.0"}

        replace(run, store / "replaced" / "small.mar")
        old, new = got["1.0"], got["2.0"]
        time.sleep(1)
        assert got["1.0"] > old and got["2.0"] == new
    print(dict(got))
    assert set(got) == {"1.0", "2.0"}, got
    assert sorted(path.name for path in store.rglob("*.mar")) == ["other.mar", "small.mar", "small@2.0.mar"]
    assert [path.name for path in (store / "replaced").iterdir()] == ["small@2.0.mar"]

    replaced = find(run)
    assert replaced is not None and replaced.models == ("other", "small")
    assert replaced.archives["other"] == server.archives["other"]
    capsys.readouterr()
    assert start(store=store, run=run, port=port, replaceable=True) == replaced, "a start serves what is served"
    assert "with the same archives" in capsys.readouterr().out

    for archive, words in (
        (store / "small.mar", r"version 1\.0 of small is served already: wanted an archive of another one"),
        (archives.write(elsewhere, "smal", version="2.0"), r"unknown model 'smal' \(did you mean 'small'\?\)"),
        (torn(elsewhere), r"torn\.mar is not a model archive"),
    ):
        with pytest.raises(ServerError, match=words):
            replace(run, archive)


def torn(folder: Path) -> Path:
    path = folder / "torn.mar"
    path.write_bytes((folder / "small@2.0.mar").read_bytes()[:100])
    return path


def test_a_server_that_takes_no_archives_is_left_alone(tmp_path: Path, run: Path) -> None:
    """Its management API refuses a registration with the management key, too."""
    store = tmp_path / "store"
    version(store, "1.0")
    with pytest.raises(ServerError, match="no server runs with"):
        replace(run, store / "small.mar")
    server = start(store=store, run=run, port=free_port())
    new = version(tmp_path, "2.0")
    with pytest.raises(ServerError, match="takes no archives while it runs: start it with --replaceable"):
        replace(run, new)
    shutil.copy(new, store)
    request = Request(f"{server.management}/models?url={new.name}", b"", server.headers("management"))
    with pytest.raises(HTTPError, match="405"):
        urlopen(request, timeout=10)
