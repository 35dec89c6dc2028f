"""Scene graphs of a request: one or several, in a region file's form or the minimal one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from imagexplain.errors import ArgumentError, RequestError, shown
from imagexplain.limits import CaptionLimits
from imagexplain.vision import scene_graph
from imagexplain.vision.scene_graph import SceneGraph


@dataclass(frozen=True)
class GivenGraph:
    """A graph as a client sent it.

    Attributes:
        field: Place in the request, for messages.
        graph: The graph, consistent.
        name: Name in a region file, which has one for each of its graphs; None elsewhere.
    """

    field: str
    graph: SceneGraph
    name: str | None = None


def graphs_of(options: Mapping[str, Any], limits: CaptionLimits) -> tuple[GivenGraph, ...]:
    """The graphs under ``graph`` (one) or ``graphs`` (a list, or a region file: graphs by name).

    Raises:
        RequestError: 400 for none, both, or one that is no consistent graph; 413 for too many of them, or of what is in
            them.
    """
    given = [name for name in ("graph", "graphs") if name in options]
    if len(given) != 1:
        got = "both" if given else "neither"
        hint = ": send JSON, or a multipart form with the photo as the part image" if not given else ""
        raise RequestError(400, "graph", f"wanted a graph, or graphs, got {got}{hint}")
    entries = list(_entries(given[0], options[given[0]]))
    if not entries:
        raise RequestError(400, "graphs", "wanted at least one graph, got none")
    if len(entries) > limits.max_graphs:
        raise RequestError(413, "graphs", f"wanted at most {limits.max_graphs} graphs, got {len(entries)}")
    size = sum(_size(entry) for _, entry, _ in entries)
    if size > limits.max_parsed:
        wanted = f"wanted at most {limits.max_parsed:,} nodes in all"
        raise RequestError(413, given[0], f"{wanted}, got {size:,} objects, attributes and relationships")
    return tuple(GivenGraph(field, _read(field, entry), name) for field, entry, name in entries)


def check_nodes(given: GivenGraph, node_limit: int | None, limits: CaptionLimits) -> None:
    """Refuse a graph of which the model would see too many nodes. Raises RequestError 413."""
    nodes = len(given.graph.nodes)
    if min(nodes, node_limit or nodes) > limits.max_nodes:
        wanted = f"wanted at most {limits.max_nodes} nodes (objects, attributes and relationships), got {nodes:,}"
        raise RequestError(413, given.field, f"{wanted}; node_limit takes the first of them and drops the others")


def _entries(name: str, value: Any) -> Iterator[tuple[str, Any, str | None]]:
    """Field, content and name of each graph."""
    if name == "graph":
        yield name, value, None
    elif isinstance(value, Mapping) and "objects" not in value:
        for key, entry in value.items():
            yield f"graphs[{shown(key)}]", entry, str(key)
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield f"graphs[{index}]", entry, None
    else:
        raise RequestError(400, name, f"wanted a list of graphs, or graphs by name, got {shown(value)}")


def _size(entry: Any) -> int:
    """Number of an entry's nodes, whatever it is; malformed parts count as what they hold."""
    if not isinstance(entry, Mapping):
        return 1
    objects, relationships = entry.get("objects"), entry.get("relationships")
    count = len(relationships) if isinstance(relationships, list) else 0
    for one in objects if isinstance(objects, list) else ():
        attributes = one.get("attributes") if isinstance(one, Mapping) else None
        count += 1 + (len(attributes) if isinstance(attributes, list) else 0)
    return count


def _read(field: str, entry: Any) -> SceneGraph:
    try:
        return scene_graph.read(entry)
    except ArgumentError as error:
        within = "" if error.field == "graph" else f".{error.field}"
        raise RequestError(400, f"{field}{within}", error.message) from None
