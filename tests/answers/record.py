"""Digests of answers on a CPU, by which two versions of the service on one machine are compared.

    python -m tests.answers.record --out before.json [--only form method]
    python -m tests.answers.record --against before.json

The demonstration archives are built and their handlers called as TorchServe calls them, in this process. Numbers may
differ in their last digits from machine to machine, and so may digests.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

from imagexplain.archive.build import ROOT, build_all
from imagexplain.ops.unpack import unpack
from imagexplain.serving import remote_segments
from tests.answers.cases import Asked, Case, cases
from tests.listening import listening
from tests.serving.fake_torchserve import Context
from tests.threads import one_thread

CHUNK = 8
"""Rows evaluated at once: by default the free memory says how many."""


class Models:
    """The demonstration models by name, each loaded when it is first asked for."""

    def __init__(self, folder: Path, archives: Iterable[Path]) -> None:
        self.folder, self.loaded = folder, dict[str, Any]()
        for archive in archives:
            unpack(archive, folder / archive.stem)
            spec = folder / archive.stem / "spec.json"
            content = json.loads(spec.read_text())
            content["serving"]["chunk"] = CHUNK
            spec.write_text(json.dumps(content))

    def answers(self, model: str, batch: Sequence[Asked]) -> list[tuple[int, str, bytes]]:
        """Status, media type and body of each row."""
        context = Context(
            headers=[{**asked.headers, **({"explain": "True"} if asked.explains else {})} for asked in batch]
        )
        bodies = self._handler(model).handle([dict(asked.row) for asked in batch], context)
        return [(context.statuses[index], context.types[index], body) for index, body in enumerate(bodies)]

    def _handler(self, model: str) -> Any:
        if model not in self.loaded:
            folder = self.folder / model
            kind = json.loads((folder / "spec.json").read_text())["handler"]
            self.loaded[model] = getattr(import_module(f"handlers.{kind}"), f"{kind.capitalize()}Handler")()
            self.loaded[model].initialize(Context(model_dir=folder))
        return self.loaded[model]


def record(models: Models, asked: dict[str, Case]) -> dict[str, list[str]]:
    """For each case, of each of its answers: status, media type and SHA-256."""
    found = {}
    with one_thread(), served(models) as address:
        for name, case in asked.items():
            with ExitStack() as stack:
                # nothing listens at port 1
                other = "http://127.0.0.1:1" if case.alone else address
                stack.enter_context(mock.patch.dict("os.environ", TS_INFERENCE_ADDRESS=other))
                if case.broken:
                    stack.enter_context(
                        mock.patch("imagexplain.serving.tasks.classifier.predict", side_effect=RuntimeError("broken"))
                    )
                answers = models.answers(case.model, case.batch)
            found[name] = [f"{status} {media} {hashlib.sha256(body).hexdigest()}" for status, media, body in answers]
    return found


@contextmanager
def served(models: Models) -> Iterator[str]:
    """The address of an endpoint for predictions, which the models ask one another at."""

    def predict(request: BaseHTTPRequestHandler) -> None:
        body = bytearray(request.rfile.read(int(request.headers["Content-Length"])))
        row = Asked({"body": body}, dict(request.headers), explains=False)
        ((status, media, answer),) = models.answers(request.path.rpartition("/")[2], [row])
        request.send_response(status)
        request.send_header("Content-Type", media)
        request.send_header("Content-Length", str(len(answer)))
        request.end_headers()
        request.wfile.write(answer)

    with listening(predict) as address, mock.patch.object(remote_segments, "_key", return_value="none"):
        yield address


def differences(before: dict[str, list[str]], after: dict[str, list[str]]) -> list[str]:
    """The names of the cases whose answers are not the same in both records."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def main() -> int:
    """The command line; the exit status is 1 where an answer differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where the record goes")
    parser.add_argument("--against", type=Path, help="a record to compare with")
    parser.add_argument("--only", nargs="*", default=(), help="cases whose names begin so")
    options = parser.parse_args()
    asked = {name: case for name, case in cases().items() if name.startswith(tuple(options.only) or ("",))}
    with tempfile.TemporaryDirectory() as folder:
        archives = build_all(sorted((ROOT / "archive_specs").glob("*.yaml")), Path(folder), environ={})
        found = record(Models(Path(folder), archives), asked)
    print(f"{sum(map(len, found.values()))} answers to {len(found)} requests")
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    if not options.against:
        return 0
    before = json.loads(options.against.read_text())
    different = differences({name: before[name] for name in before if name in asked}, found)
    for name in different:
        print(f"{name}\n  before {before.get(name)}\n  after  {found.get(name)}")
    print(f"{len(different)} differ")
    return int(bool(different))


if __name__ == "__main__":
    raise SystemExit(main())
