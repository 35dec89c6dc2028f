"""The table of a job: a row for each image, in Parquet files that are each written as a whole or not at all.

A part's name is the digest of its images' ids. Whoever computes the same images again, after a death between the
writing and the word of it, writes the same file, so that no image has two rows. What a part holds is what the job has
done: there is no second record that could say otherwise.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from imagexplain.cluster.inputs import Item

GROUP = pa.struct(
    [
        ("label", pa.string()),
        ("kind", pa.string()),
        ("attribution", pa.float64()),
        ("directional", pa.float64()),
        ("dividend", pa.float64()),
        ("value", pa.float64()),
        ("standard_error", pa.float64()),
        ("area", pa.int64()),
    ]
)

ERROR = pa.struct([("status", pa.int32()), ("field", pa.string()), ("message", pa.string())])

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        ("path", pa.string()),
        ("offset", pa.int64()),
        ("row_group", pa.int32()),
        ("column", pa.string()),
        ("size", pa.int64()),
        ("model", pa.string()),
        ("method", pa.string()),
        ("prediction", pa.string()),
        ("probability", pa.float64()),
        ("target", pa.string()),
        ("score", pa.float64()),
        ("baseline_score", pa.float64()),
        ("residual", pa.float64()),
        ("relative_residual", pa.float64()),
        ("evaluations", pa.int64()),
        ("frame", pa.list_(pa.float64())),
        ("groups", pa.list_(GROUP)),
        ("maps", pa.string()),
        ("error", ERROR),
    ]
)
"""Columns of the table. Where an image is, its ``path``, ``offset``, ``row_group`` and ``column`` say, as those of
:class:`imagexplain.cluster.inputs.Item` do; ``size`` is in bytes; ``frame`` is the part of the upright photo that the
model saw (left, top, right, bottom), and ``maps`` the file of the image's tensors, relative to the job's folder. An
image that was refused has its ``error``, and nothing of an explanation."""


def row(item: Item, size: int | None, answer: Mapping[str, Any], maps: str | None = None) -> dict[str, Any]:
    """A row of the table, of an image of so many bytes, from the answer to an explanation or from a refusal."""
    found: dict[str, Any] = {**asdict(item), "size": size}
    if "code" in answer:
        error = {"status": answer["code"], "field": answer["field"], "message": answer["message"]}
        return found | {"error": error}
    best = answer["top"][0] if answer.get("top") else {}
    groups = answer.get("groups")
    return found | {
        "model": answer["model"],
        "method": answer["method"],
        "prediction": best.get("label"),
        "probability": best.get("probability"),
        "target": answer["target_label"],
        **{name: answer.get(name) for name in ("score", "baseline_score", "residual", "relative_residual")},
        "evaluations": answer["evaluations"],
        "frame": answer["frame"]["box"],
        "groups": groups and [{name: group.get(name) for name in GROUP.names} for group in groups],
        "maps": maps,
    }


def write_part(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as one part.

    Args:
        folder: Folder of the table.
        rows: Rows, as :func:`row` makes them.

    Returns:
        The part's file.

    Raises:
        OSError: no room, or no such folder; no part is there then.
    """
    path = folder / f"{digest(one['id'] for one in rows)}.parquet"
    with written_whole(path) as own:
        pq.write_table(pa.Table.from_pylist(list(rows), SCHEMA), own, compression="zstd")
    return path


def parts(folder: Path) -> list[Path]:
    """The parts of a table, in the order of their names."""
    return sorted(folder.glob("*.parquet"))


def finished(folder: Path) -> set[str]:
    """The names of the parts that are there.

    Raises:
        ValueError: a part that cannot be read, which is damage: none is left half-written.
    """
    found: set[str] = set()
    for part in parts(folder):
        try:
            pq.read_metadata(part)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{part}: wanted a part of the table, got {error}: move it away to explain anew") from None
        found.add(part.stem)
    return found


def rows(folder: Path, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table, part by part.

    Raises:
        ValueError: a part that cannot be read, or lacks a column that others have, as one of another version does.
    """
    names = list(columns or SCHEMA.names)
    for part in parts(folder):
        try:
            with pq.ParquetFile(part) as file:
                types = {field.name: field.type for field in file.schema_arrow}
                if other := [name for name in names if types.get(name) != SCHEMA.field(name).type]:
                    got = ", ".join(f"{name} {types.get(name, 'missing')}" for name in other)
                    wanted = "wanted the columns of this version"
                    raise ValueError(f"{part}: {wanted}, got {got}: explain anew to another folder")
                yield from file.read(columns=names).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{part}: wanted a part of the table, got {error}") from None


def digest(ids: Iterable[str]) -> str:
    """A name for images: the same for the same ids in the same order."""
    return sha256(json.dumps(list(ids)).encode()).hexdigest()[:32]


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """The name of a file to write, which takes its place once it is whole and on the disk."""
    own = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield own
        with own.open("rb") as file:
            os.fsync(file.fileno())
        own.replace(path)
    finally:
        own.unlink(missing_ok=True)
