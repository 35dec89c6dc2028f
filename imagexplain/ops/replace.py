"""Another version of a served model in the place of the one that is served, without a request that fails.

TorchServe loads the new version beside the old one, sends it the requests that name no version, and is rid of the old
one once that has answered what it had accepted. For this its management API must take archives while it runs, which it
does for a server that was started as replaceable: on the loopback alone, and only with the management key, which the
server's user alone can read. Whoever has that key can then run code as the server's user, by registering a directory.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace as changed
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import Request

import psutil

from imagexplain.archive.spec import DEFAULT_VERSION, in_file_name
from imagexplain.checkout import ROOT
from imagexplain.client.loopback import urlopen
from imagexplain.errors import unknown
from imagexplain.ops.check_archive import ArchiveError, Identity, check, identify
from imagexplain.ops.drain import describe, settle
from imagexplain.ops.observation import READY, Model, observe
from imagexplain.ops.server import (
    DRAIN_SECONDS,
    Server,
    ServerError,
    alone,
    chosen_archives,
    find,
    fingerprint,
    log_size,
    own_error,
    sha256_of_file,
    write_state,
)
from imagexplain.ops.signals import undisturbed
from imagexplain.progress import say, with_progress

REPLACED = "replaced"
"""Folder of the store for archives that are no longer served; a start does not look into it."""
LOAD_SECONDS = 900.0
LOOK_SECONDS = 0.2
LOG_SECONDS = 1.0
"""Time for a worker's last words to reach the log."""
GRACE_SECONDS = 1.0
"""Time for requests that chose the old version to reach its queue."""


def replace(run: Path, archive: Path, *, root: Path = ROOT, drain_s: float = DRAIN_SECONDS) -> Server:
    """Serve an archive in the place of the version of its model that is served.

    The archive is copied into the store if it is not there, and the one that it replaces moved to the store's folder
    `replaced`, so that a restart serves what is served now. Back it goes the same way, with that file.

    Args:
        run: Directory of the server's state.
        archive: Archive with another version of a model that is served in one version.
        root: Checkout with the server's settings.
        drain_s: Seconds for the old version to answer what it has accepted.

    Raises:
        ServerError: no server, one that is not replaceable, an archive that is damaged or of no served model, the same
            version, or a worker that cannot load it (with its own error); the old version is served on.
    """
    server = find(run)
    if server is None:
        raise ServerError(f"no server runs with {run}: make serve starts one with the archives of the store")
    if not server.replaceable:
        raise ServerError("the server takes no archives while it runs: start it with --replaceable")
    try:
        new = check(archive)
    except ArchiveError as error:
        raise ServerError(str(error)) from None
    archive, store = archive.resolve(), Path(server.store)
    with alone(run):
        old = _served(server, new)
        file = _into_store(store, archive, new)
        with _unless_it_fails(server, new, None if file == archive else file):
            with_progress(f"loading {new.name} {new.version}", lambda: _load(server, file.name, new))
            _ask(server, "PUT", f"models/{new.name}/{new.version}/set-default")
        with undisturbed():
            if archive.parent == store / REPLACED:
                archive.unlink()  # it is served again
            return _finish(root, server, file, old, new, drain_s)


def _finish(root: Path, server: Server, file: Path, old: Identity, new: Identity, drain_s: float) -> Server:
    """Be rid of the old version: its workers, and its archive among those that a start serves."""
    time.sleep(GRACE_SECONDS)
    if not settle(server, f"{old.name}/{old.version}", drain_s):
        say(f"requests of {old.name} {old.version} may be left after {drain_s:.0f} s: they are given up")
    try:
        _ask(server, "DELETE", f"models/{old.name}/{old.version}")
    except ServerError as error:
        say(f"version {old.version} takes memory until the server is restarted: {error}")
    store = Path(server.store)
    for path in store.glob("*.mar"):
        if path != file and _is(path, old):
            (store / REPLACED).mkdir(exist_ok=True)
            path.replace(store / REPLACED / path.name)
            say(f"{path.name} is now in {store / REPLACED}")
    before, now = f"{old.name}/{old.version}", f"{new.name}/{new.version}"
    chosen = tuple(now if name == before else name for name in server.chosen)
    server = changed(
        server,
        chosen=chosen,
        archives=server.archives | {new.name: sha256_of_file(file)},
        fingerprint=fingerprint(root, chosen_archives(store, chosen)),
    )
    write_state(server)
    say(f"{new.name}: version {new.version} is served in the place of {old.version}")
    return server


def _is(path: Path, identity: Identity) -> bool:
    try:
        return identify(path) == identity
    except ArchiveError:
        return False


def _served(server: Server, new: Identity) -> Identity:
    """The version that is served of the new one's model. Raises ServerError if there is none, or more than one."""
    names = [address.partition("/")[0] for address in server.models]
    if new.name not in names:
        raise ServerError(f"{unknown('model', new.name, names)}; a model that is not served is added by a restart")
    if new.name not in server.models:
        versions = ", ".join(address for address in server.models if address.startswith(f"{new.name}/"))
        raise ServerError(f"{new.name} is served in several versions: wanted one to replace, got {versions}")
    try:
        old = Identity(new.name, describe(server, new.name)["modelVersion"])
    except (OSError, ValueError, LookupError) as error:
        raise ServerError(f"{server.management} does not answer: {error}") from None
    if old == new:
        raise ServerError(f"version {new.version} of {new.name} is served already: wanted an archive of another one")
    return old


def _into_store(store: Path, archive: Path, identity: Identity) -> Path:
    """The archive's place in the store, where it is copied if it is not there."""
    if archive.parent == store:
        return archive
    address = identity.name if identity.version == DEFAULT_VERSION else f"{identity.name}/{identity.version}"
    target = store / f"{in_file_name(address)}.mar"
    if target.exists():
        raise ServerError(f"{target} is there already: replace with that one, or move it away")
    partial = target.with_suffix(".partial")
    try:
        shutil.copyfile(archive, partial)
        partial.replace(target)
    except OSError as error:
        raise ServerError(f"{archive} cannot be copied to {store}: {error}") from None
    finally:
        partial.unlink(missing_ok=True)
    return target


@contextmanager
def _unless_it_fails(server: Server, new: Identity, copy: Path | None) -> Iterator[None]:
    """Be rid of a version that could not be made the one that is served, and of the copy of its archive."""
    try:
        yield
    except BaseException:
        with undisturbed():
            with suppress(ServerError):  # TorchServe may have done so itself
                _ask(server, "DELETE", f"models/{new.name}/{new.version}")
            if copy:
                copy.unlink(missing_ok=True)
        raise


def _load(server: Server, file: str, new: Identity) -> None:
    """Have TorchServe load an archive of the store, and wait for its workers.

    TorchServe could be asked to answer once they are ready. It would hold up one of its few threads until then, and
    with it every client whose connection is that thread's.
    """
    begin = log_size(server)
    _ask(server, "POST", f"models?{urlencode({'url': file, 'synchronous': 'false'})}")
    ends, begun = time.monotonic() + LOAD_SECONDS, set[psutil.Process]()
    while time.monotonic() < ends:
        (seen,) = _observed(server, new)
        if seen.workers and all(worker.state == READY for worker in seen.workers):
            return
        if not all(process.is_running() for process in begun):
            time.sleep(LOG_SECONDS)
            own = own_error(server, f"{new.name}_{new.version}", begin) or f"a worker ended; see {server.logs}"
            raise ServerError(f"{new.name} {new.version} cannot be loaded: {own}")
        begun |= {worker.process for worker in seen.workers if worker.process}
        time.sleep(LOOK_SECONDS)
    raise ServerError(f"{new.name} {new.version} cannot be loaded: it was not ready after {LOAD_SECONDS:.0f} s")


def _observed(server: Server, new: Identity) -> tuple[Model, ...]:
    try:
        return observe(server, [f"{new.name}/{new.version}"])
    except (OSError, ValueError, LookupError) as error:
        raise ServerError(f"{server.management} does not answer: {error}") from None


def _ask(server: Server, method: str, path: str) -> None:
    """Send a command to the management API. Raises ServerError with its reason."""
    address = f"{server.management}/{quote(path, safe='/?=&%')}"
    request = Request(address, method=method, headers=server.headers("management"))
    try:
        with urlopen(request, timeout=LOAD_SECONDS):
            pass
    except HTTPError as error:
        raise ServerError(f"{method} {path}: {error.code} {_message(error)}") from None
    except (OSError, HTTPException) as error:
        raise ServerError(f"{method} {path}: {error}") from None


def _message(error: HTTPError) -> str:
    text = error.read().decode(errors="replace")
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return re.sub(r"\s+", " ", text)[:200]
