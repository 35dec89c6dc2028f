"""Answers for many photos: asked for at once within a bound, written as they come, and not asked for twice."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from imagexplain.cli import answer_rows
from imagexplain.cli.forms import FORMS, check, values
from imagexplain.cli.journal import FolderError, Journal, fingerprint
from imagexplain.cli.photos import NamedPhoto
from imagexplain.client import (
    AnswerError,
    AsyncClient,
    ClientError,
    InputError,
    NoServerError,
    Retry,
    StatusError,
    UnauthorizedError,
    UnknownModelError,
    UnreachableError,
)
from imagexplain.client.answers import write
from imagexplain.client.build import from_text
from imagexplain.client.message import Endpoint
from imagexplain.client.photos import read
from imagexplain.client.transport import Key
from imagexplain.plain_text import escaped, in_file_name
from imagexplain.progress import say

TABLES = ("csv", "jsonl")
"""Forms that hold all photos in one file, made of the answers in JSON."""

SHOWN = 20
"""Rows of a table that are printed, at most."""

PATIENCE = Retry(attempts=8)
"""Patience of half a minute, in which a server may start anew."""

HOPELESS = (FolderError, NoServerError, UnauthorizedError, UnknownModelError, UnreachableError)
"""Errors that every other photo would meet as well."""

WORDS: Mapping[str, str] = {"done": "answered", "kept": "answered before", "failed": "failed", "left": "left"}
"""Words for what became of a photo."""

MASK_SUFFIXES = (".json", ".png")


@dataclass(frozen=True)
class Order:
    """A request that is made of every photo.

    Attributes:
        endpoint: Endpoint to ask.
        models: Names of models, or name/version.
        forms: Forms of answers, tables among them.
        options: Options, as text.
        files: Options that are files.
        masks: Folder with a file of masks for each photo, None for none.
        out: Folder for the answers.
        redo: Flag for asking again what is done.
    """

    endpoint: Endpoint
    models: tuple[str, ...]
    forms: tuple[str, ...]
    options: Mapping[str, str]
    files: Mapping[str, Path]
    out: Path
    masks: Path | None = None
    redo: bool = False

    @property
    def summary(self) -> str:
        """Name of the table of photos."""
        return f"{self.endpoint}_summary.csv"

    @property
    def failures(self) -> str:
        """Name of the list of what failed."""
        return f"{self.endpoint}_failures.json"

    @property
    def asked_forms(self) -> tuple[str, ...]:
        """Forms of the answers of each photo, JSON where tables are made of it."""
        tables = ("json",) if any(form in TABLES for form in self.forms) else ()
        return tuple(dict.fromkeys((*tables, *(form for form in self.forms if form in FORMS))))


@dataclass(frozen=True)
class Unit:
    """A photo and a model to ask."""

    photo: NamedPhoto
    model: str

    def file(self, endpoint: Endpoint, form: str) -> str:
        """The name of an answer's file, in a folder of the model's."""
        kind = ".prediction" if endpoint == "predictions" else ""
        return f"{in_file_name(self.model)}/{self.photo.name}{kind}{FORMS[form].suffix}"


@dataclass
class Result:
    """Outcome of a photo: still left, answered now, answered before, or failed, and why."""

    unit: Unit
    outcome: Literal["left", "done", "kept", "failed"] = "left"
    seconds: float = 0.0
    about: dict[str, Any] = field(default_factory=dict)
    form: str = ""
    error: ClientError | None = None

    def row(self) -> dict[str, Any]:
        """The row of a table of photos."""
        seconds = {"seconds": round(self.seconds, 3)} if self.seconds else {}
        answer = {"answer": str(self.error)} if self.error else self.about
        return {"photo": self.unit.photo.name, "model": self.unit.model, "outcome": self.outcome, **answer, **seconds}

    def failure(self) -> dict[str, Any]:
        """The same for a machine, of one that failed."""
        told: dict[str, Any] = {"photo": str(self.unit.photo.file), "model": self.unit.model, "format": self.form}
        if isinstance(self.error, StatusError):
            told |= {"status": self.error.status, "field": self.error.field, "request_id": self.error.request_id}
        attempts = self.error.attempts if self.error else 0
        return told | {"error": type(self.error).__name__, "message": str(self.error), "attempts": attempts}


class Bulk:
    """An order for many photos.

    Args:
        order: Request that is made of each.
        photos: Photos.
        url: Address of the server.
        key: Inference key.
        certificate: File of the certificate that the server is trusted by.
        connections: Requests under way at once.
        retry: Patience with a server that is busy or gone; half a minute by default.
    """

    def __init__(
        self,
        order: Order,
        photos: Sequence[NamedPhoto],
        url: str,
        key: Key,
        *,
        certificate: Path | None = None,
        connections: int = 4,
        retry: Retry | None = None,
    ) -> None:
        self.order = order
        self.results = [Result(Unit(photo, model)) for photo in photos for model in order.models]
        self._server = (url, key)
        self._settings: dict[str, Any] = {"certificate": certificate, "retry": retry or PATIENCE}
        self._connections = connections
        self._options = from_text(order.options)
        self._files = {name: read(file) for name, file in order.files.items()}

    def run(self) -> int:
        """Ask for what is not done, write it, and tell what became of it.

        Returns:
            The exit status: 0 where all is done, 1 where something failed, 130 after an interruption.

        Raises:
            ClientError: the folder is in use, or cannot be written.
        """
        status, stopped = 0, ""
        with Journal(self.order.out) as journal:
            bar = tqdm(total=len(self.results), unit=" answers", disable=None, file=sys.stderr, dynamic_ncols=True)
            try:
                with bar:
                    asyncio.run(self._all(journal, bar.update))
            except KeyboardInterrupt:
                status, stopped = 130, "stopped"
            except HOPELESS as error:
                status, stopped = 1, f"error: {error}"
            self._write_tables()
        failed = [result for result in self.results if result.outcome == "failed"]
        self._tell(failed, stopped)
        return status or int(bool(failed))

    async def _all(self, journal: Journal, advance: Callable[[], Any]) -> None:
        results = iter(self.results)
        async with AsyncClient(*self._server, connections=self._connections, **self._settings) as client:

            async def work() -> None:
                for result in results:
                    await self._one(client, journal, result)
                    advance()

            tasks = [asyncio.create_task(work()) for _ in range(self._connections)]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, client: AsyncClient, journal: Journal, result: Result) -> None:
        """Ask for all forms of a photo's answer that are not done."""
        unit, order = result.unit, self.order
        fresh = False
        try:
            photo = await asyncio.to_thread(read, unit.photo.file)
            files = {**self._files, **self._own_files(unit)}
            for form in order.asked_forms:
                result.form = form
                name, asked = unit.file(order.endpoint, form), self._fingerprint(unit, form, photo, files)
                if not order.redo and await asyncio.to_thread(journal.has, name, asked):
                    if form == "json":
                        result.about = _short(self._json_of(unit))
                    continue
                answer = await client.ask(
                    order.endpoint,
                    photo,
                    unit.model,
                    accept=FORMS[form].accept,
                    options={**self._options, **files},
                )
                content = check(answer, FORMS[form])
                if content is not None:
                    result.about = _short(content)
                entry = {"photo": str(unit.photo.file), "model": unit.model, "format": form}
                journal.add(name, asked, answer.body, {**entry, "seconds": round(answer.seconds, 3)})
                result.seconds += answer.seconds
                fresh = True
        except HOPELESS:
            raise
        except ClientError as error:
            result.outcome, result.error = "failed", error
        else:
            result.outcome = "done" if fresh else "kept"

    def _own_files(self, unit: Unit) -> dict[str, bytes]:
        """The photo's file of masks. Raises InputError where it has none."""
        if self.order.masks is None:
            return {}
        stem = self.order.masks / Path(unit.photo.name).with_suffix("")
        for suffix in MASK_SUFFIXES:
            if (file := stem.with_name(stem.name + suffix)).is_file():
                return {"masks": read(file)}
        raise InputError(f"masks: wanted {stem}{' or '.join(MASK_SUFFIXES)}, got none")

    def _fingerprint(self, unit: Unit, form: str, photo: bytes, files: Mapping[str, bytes]) -> str:
        """The request's, without the server's address: another server of the same model answers the same."""
        about = {
            "endpoint": self.order.endpoint,
            "model": unit.model,
            "accept": FORMS[form].accept,
            "options": dict(self.order.options),
            "files": sorted(files),
        }
        return fingerprint(about, photo, *(files[name] for name in sorted(files)))

    def _json_of(self, unit: Unit) -> dict[str, Any]:
        return values(read(self.order.out / unit.file(self.order.endpoint, "json")))

    def _answered(self) -> Iterator[tuple[Unit, dict[str, Any]]]:
        for result in self.results:
            if result.outcome in ("done", "kept"):
                yield result.unit, self._json_of(result.unit)

    def _write_tables(self) -> None:
        order = self.order
        explains = order.endpoint == "explanations"
        for form in (form for form in order.forms if form in TABLES):
            if form == "jsonl":
                lines = ({"photo": unit.photo.name, **found} for unit, found in self._answered())
                table = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            else:
                rows_of = answer_rows.group_rows if explains else answer_rows.prediction_rows
                columns = answer_rows.GROUP_COLUMNS if explains else answer_rows.PREDICTION_COLUMNS
                rows = (row for unit, found in self._answered() for row in rows_of(unit.photo.name, unit.model, found))
                table = _table(columns, rows)
            write(order.out / self._name_of(form), table.encode())
        summary = _table(answer_rows.SUMMARY_COLUMNS, (result.row() for result in self.results))
        write(order.out / order.summary, summary.encode())
        failures = [result.failure() for result in self.results if result.outcome == "failed"]
        if failures:
            write(order.out / order.failures, json.dumps(failures, indent=2, ensure_ascii=False).encode() + b"\n")
        else:
            (order.out / order.failures).unlink(missing_ok=True)

    def _name_of(self, form: str) -> str:
        if self.order.endpoint == "predictions":
            return f"predictions.{form}"
        return "groups.csv" if form == "csv" else f"explanations.{form}"

    def _tell(self, failed: Sequence[Result], stopped: str) -> None:
        order, rows = self.order, [result.row() for result in self.results if result.outcome != "left"]
        for line in _lines(rows, order.summary):
            say(line)
        counted = Counter(WORDS[result.outcome] for result in self.results)
        tables = [str(order.out / self._name_of(form)) for form in order.forms if form in TABLES]
        say(
            f"{', '.join(f'{count} {word}' for word, count in counted.items())}: {', '.join([str(order.out), *tables])}"
        )
        for result in failed[:SHOWN]:
            say_error(f"failed: {result.unit.photo.file} by {result.unit.model}: {result.error}")
        if failed:
            more = f"and {len(failed) - SHOWN} more, " if len(failed) > SHOWN else ""
            say_error(f"{more}all of them in {order.out / order.failures}; the same command asks for these again")
        if stopped:
            say_error(f"{stopped}: {counted[WORDS['left']]} left; the same command goes on there")


def say_error(line: str) -> None:
    """Print a line to the standard error, fit for a terminal."""
    print(escaped(line), file=sys.stderr, flush=True)


def _short(content: Mapping[str, Any]) -> dict[str, Any]:
    """An answer in short. Raises AnswerError where it lacks what every answer has."""
    try:
        return answer_rows.in_short(content)
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise AnswerError(f"wanted an answer of the API's: {error!r}") from None


def _table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, extrasaction="ignore", restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def _lines(rows: Sequence[Mapping[str, Any]], file: str) -> list[str]:
    """A table for people: its columns aligned, those without a value left out."""
    columns = [name for name in answer_rows.SUMMARY_COLUMNS if any(row.get(name) not in (None, "") for row in rows)]
    if not rows:
        return []
    cells = [list(columns), *([_cell(row.get(name)) for name in columns] for row in rows[:SHOWN])]
    widths = [max(len(row[place]) for row in cells) for place in range(len(columns))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return [*lines, f"and {len(rows) - SHOWN} more, in {file}"] if len(rows) > SHOWN else lines


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    text = "" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
