"""Explain many images by models of the store, in this process: those of JSON lines, or a data set into a table.

imagexplain batch instances.jsonl --model bit --out results.jsonl
imagexplain batch --input photos --model resnet --output results
imagexplain batch --input "shards/*.tar" --model imagenet --segments swin --maps --actors 4 --output results

The lines are those of Vertex AI's batch jobs: {"instance", "prediction", "explanation"}, in the order of the instances;
one that is refused has its "error". Several models answer each instance in turn, and each result has its "model".

A data set is a folder, a glob, an image, a tar file, a Parquet file with a column of bytes, or a .txt file that lists
such. Its table has a row for each image, and the same command again goes on where a run stopped. With --actors the work
is done by Ray's actors, on this machine or on the cluster at an address, whose nodes share the output's folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from hashlib import sha256
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, cast

import msgspec

from imagexplain.checkout import ROOT
from imagexplain.cluster.archive import load
from imagexplain.ops.store import archive_of
from imagexplain.progress import say
from imagexplain.serving import batch
from imagexplain.serving.metrics import NoMetrics
from imagexplain.serving.tasks.classifier import Classifier
from imagexplain.serving.worker import Worker

MAX_LINE = 64_000_000
"""Bytes of a line, at most: a photo of the size that requests may have, in base64."""

LINES, IMAGES = "JSON lines", "a data set"
"""Groups of arguments, of which a call has those of one."""


def lines_of(files: Iterable[Path]) -> Iterator[bytes]:
    """Yield the lines of files in turn, without those that are blank; ``-`` is standard input.

    Raises:
        ValueError: a line of more than :data:`MAX_LINE` bytes.
    """
    for path in files:
        with ExitStack() as stack:
            file: BinaryIO = sys.stdin.buffer if str(path) == "-" else stack.enter_context(path.open("rb"))
            number = 0
            while line := file.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    raise ValueError(f"{path}:{number}: wanted a line of at most {MAX_LINE:,} bytes")
                if line.strip():
                    yield line.strip()


def finished(out: Path) -> list[bytes]:
    """The SHA-256 of the instances whose results stand in a file, whose last line is cut off where it has no end.

    Raises:
        ValueError: a line that is no result.
    """
    found: list[bytes] = []
    if not out.exists():
        return found
    with out.open("r+b") as file:
        end = 0
        for line in file:
            if not line.endswith(b"\n"):
                break
            found.append(_digest(_instance(line, out, len(found) + 1)))
            end += len(line)
        file.truncate(end)
    return found


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", action="append", required=True, help="name, name/version or .mar file; repeatable")
    made.add_argument("--store", type=Path, default=ROOT / "model_store", help="where the archives are")
    lines = made.add_argument_group(LINES)
    lines.add_argument("instances", type=Path, nargs="*", metavar="FILE", help="JSON lines; - for standard input")
    lines.add_argument("--out", type=Path, help="JSON lines to write")
    lines.add_argument("--explanation-spec", type=Path, metavar="FILE", help="JSON of an ExplanationSpec")
    lines.add_argument("--parameters", type=Path, metavar="FILE", help="JSON of the parameters of each call")
    lines.add_argument("--predict", action="store_true", help="predictions alone")
    lines.add_argument("--at-once", type=int, default=batch.AT_ONCE, metavar="N", help="instances held (%(default)s)")
    lines.add_argument("--resume", action="store_true", help="keep what stands in the file and go on after it")
    images = made.add_argument_group(IMAGES)
    images.add_argument("--input", action="append", metavar="WHERE", help="images; may be repeated")
    images.add_argument("--output", type=Path, metavar="DIR", help="folder of the table and the maps")
    images.add_argument("--method", help="of attribution, see docs/methods.md (default: the archive's)")
    images.add_argument("--segments", help="groups to score: slic, grid, or the name or .mar file of a segmenter")
    images.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="any other option")
    images.add_argument("--threshold", type=float, help="score that a segmenter's instances must exceed")
    images.add_argument("--maps", action="store_true", help="keep the tensors of each explanation, as safetensors")
    images.add_argument("--actors", type=int, default=0, metavar="N", help="Ray's actors (default: this process alone)")
    images.add_argument("--segmenters", type=int, metavar="N", help="actors that find segments (default: 1)")
    images.add_argument("--address", help="address of a Ray cluster (default: a Ray of this command's own)")
    images.add_argument("--cpus", type=float, help="cores of each actor (default: 1)")
    images.add_argument("--gpus", type=float, help="GPUs of each actor (default: 0)")
    images.add_argument("--chunk", type=int, help="images that are written together (default: 64, of few images fewer)")
    return made


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    made = parser(prog)
    given = made.parse_args(arguments)
    of_lines, of_images = (_given(made, given, title) for title in (LINES, IMAGES))
    if given.input:
        if of_lines or given.output is None or len(given.model) > 1:
            made.error(f"--input wants --output and one --model, and no JSON lines{_but(of_lines)}")
        from imagexplain.cli.batch_images import run  # the table's library is an extra

        return run(given)
    if not given.instances or given.out is None or of_images:
        made.error(f"wanted JSON lines and --out, or --input and --output{_but(of_images)}")
    try:
        if given.at_once < 1:
            raise ValueError(f"--at-once: wanted at least 1, got {given.at_once}")
        if given.predict and given.explanation_spec is not None:
            raise ValueError("--explanation-spec: wanted explanations, got --predict")
        if given.out.exists() and not given.resume:
            raise ValueError(f"{given.out} is there: --resume goes on after it")
        job = batch.Job(not given.predict, _object(given.parameters), _object(given.explanation_spec), given.at_once)
        with ExitStack() as stack:
            workers = [_worker(archive_of(model, given.store), stack) for model in given.model]
            failed, done = _write(job, workers, given)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    say(f"{given.out}: {done} results, {failed} of them errors")
    return 0


def _given(made: argparse.ArgumentParser, given: argparse.Namespace, title: str) -> list[str]:
    """The names of a group's arguments that were given."""
    (group,) = (group for group in made._action_groups if group.title == title)
    actions = (each for each in group._group_actions if getattr(given, each.dest) not in (each.default, []))
    return [each.option_strings[0] if each.option_strings else str(each.metavar) for each in actions]


def _but(names: list[str]) -> str:
    return f"; got {', '.join(names)}" if names else ""


def _write(job: batch.Job, workers: list[Worker[Classifier]], given: argparse.Namespace) -> tuple[int, int]:
    """Write the results; numbers of errors and of results, without those that were there."""
    before = finished(given.out) if given.resume else []
    done = failed = 0
    with given.out.open("ab") as out:
        for index, results in enumerate(_in_turn(job, workers, _rest(given.instances, before, len(workers)))):
            skipped = len(before) % len(workers) if index == 0 else 0  # of an instance that some models have answered
            for worker, result in list(zip(workers, results, strict=True))[skipped:]:
                if len(workers) > 1:
                    result = {"model": worker.task.spec.address, **result}
                out.write(msgspec.json.encode(result) + b"\n")
                out.flush()
                done, failed = done + 1, failed + ("error" in result)
    return failed, done


def _rest(files: list[Path], before: list[bytes], models: int) -> Iterator[bytes]:
    """Yield the instances that are not finished, once those that are have been found to be the same."""
    for index, line in enumerate(lines_of(files)):
        for place in range(index * models, min((index + 1) * models, len(before))):
            if before[place] != _digest(_canonical(line)):
                raise ValueError(f"--resume: result {place + 1} is of another instance than line {index + 1}")
        if len(before) < (index + 1) * models:
            yield line


def _in_turn(
    job: batch.Job, workers: list[Worker[Classifier]], lines: Iterator[bytes]
) -> Iterator[list[dict[str, Any]]]:
    """Yield the results of each instance by all models."""
    while chunk := list(islice(lines, job.at_once)):
        yield from map(list, zip(*(job.results(worker, chunk) for worker in workers), strict=True))


def _worker(archive: Path, stack: ExitStack) -> Worker[Classifier]:
    """The model of an archive, unpacked for the time of the command."""
    folder = stack.enter_context(TemporaryDirectory(prefix="imagexplain-batch-"))
    return cast("Worker[Classifier]", load(archive, Path(folder), NoMetrics(), ("classifier",)))


def _object(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path}: wanted a JSON object")
    return found


def _instance(line: bytes, out: Path, number: int) -> bytes:
    try:
        return _canonical(bytes(msgspec.json.decode(line, type=dict[str, msgspec.Raw])["instance"]))
    except (msgspec.DecodeError, KeyError):
        raise ValueError(f"{out}:{number}: wanted a result of a batch") from None


def _canonical(text: bytes) -> bytes:
    """The same bytes for the same JSON value; of what is none, its text as a result has it."""
    try:
        return msgspec.json.encode(msgspec.json.decode(text), order="deterministic")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return msgspec.json.encode(text.decode("utf-8", "replace"))


def _digest(value: bytes) -> bytes:
    return sha256(value).digest()


if __name__ == "__main__":
    raise SystemExit(main())
