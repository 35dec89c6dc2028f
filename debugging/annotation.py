"""Questions to people about segments, their answers, and the difficulty of images that follows from these.

A task is ``{"task_id", "status", "metadata": {"filename", …}, "response": {"annotations": {…}}}``; an answered one has
the status ``completed`` and the annotations ``Content Type Identification`` (object, attribute or relationship),
``Content Description`` and ``Relevance Rating``, 1 … 5 as text. Tasks of ours have more in their metadata: ``image``,
``segment``, ``truth``, ``named``, ``question``, ``picture`` and ``box``.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from imagexplain.errors import ArgumentError

KINDS = ("object", "attribute", "relationship")
KIND, DESCRIPTION, RATING = "Content Type Identification", "Content Description", "Relevance Rating"
COMPLETED, PENDING = "completed", "pending"
LEAST_RATING, TOP_RATING = 1, 5

_COCO = re.compile(r"COCO_[a-z]+\d{4}_0*(\d+)")


@dataclass(frozen=True)
class Answer:
    """A rated task.

    Attributes:
        image: Name or number of the image.
        kind: Kind of the content, one of :data:`KINDS`; empty where nobody said.
        description: Description of the content, such as ``hydrant`` or ``(people,on,street)``.
        rating: Relevance, 1 … 5.
        box: Box ``x``, ``y``, ``w``, ``h`` of the segment, photo pixels; None where the task has none.
    """

    image: str
    kind: str
    description: str
    rating: float
    box: Mapping[str, int] | None


@dataclass(frozen=True)
class Answers:
    """The answers to some tasks.

    Attributes:
        rated: Tasks with a rating, in their order.
        blank: Number of completed tasks without a rating.
        unfinished: Number of tasks that are not completed.
    """

    rated: tuple[Answer, ...]
    blank: int
    unfinished: int


def question(truth: str) -> str:
    """The question about a segment of an image of a class."""
    return f"How relevant is the outlined part for telling that this is {truth}?"


def tasks_of(errors: Iterable[Mapping[str, Any]], most: int | None = None) -> list[dict[str, Any]]:
    """Tasks for the responsible segments of errors, as ``errors.json`` has them, by image and rank.

    Args:
        errors: Errors with their segments.
        most: Largest number of tasks, of the most responsible segments of the most confident errors; all, if not given.
    """
    found = [
        (segment["rank"], -entry["confidence"], _task(entry, number, segment))
        for entry in errors
        for number, segment in sorted(enumerate(entry["segments"]), key=lambda item: item[1]["rank"])
        if segment["rank"]
    ]
    kept = {task["task_id"] for *_, task in sorted(found, key=lambda item: item[:2])[:most]}
    return [task for *_, task in found if task["task_id"] in kept]


def image_of(metadata: Mapping[str, Any]) -> str:
    """The image of a task: named in its metadata, or the number in the name of a COCO photo, or the file's name."""
    if "image" in metadata:
        return str(metadata["image"])
    name = str(metadata["filename"])
    coco = _COCO.search(name)
    return coco[1] if coco else name.partition("__")[0]


def read_answers(tasks: Any) -> Answers:
    """The answers in a list of tasks; tasks that are blank or not finished are counted, and not among them.

    Raises:
        ArgumentError: no list of tasks, or a rating that is no number of 1 … 5.
    """
    if not isinstance(tasks, list):
        raise ArgumentError("answers", f"wanted a list of tasks, got {type(tasks).__name__}")
    rated, blank, unfinished = [], 0, 0
    for number, task in enumerate(tasks, 1):
        try:
            metadata, completed = task["metadata"], task["status"] == COMPLETED
            image, place = image_of(metadata), f"task {task['task_id']}"
            annotations = (task.get("response") or {}).get("annotations") or {}
            kind, words, rating = (str(annotations.get(name) or "").strip() for name in (KIND, DESCRIPTION, RATING))
        except (AttributeError, KeyError, TypeError):
            wanted = "wanted task_id, status, metadata with a filename, and a response with annotations"
            raise ArgumentError("answers", f"{wanted} in entry {number}") from None
        if not completed:
            unfinished += 1
        elif not rating:
            blank += 1
        else:
            rated.append(Answer(image, kind, words, _rating(rating, place), metadata.get("box")))
    return Answers(tuple(rated), blank, unfinished)


def difficulties(answers: Iterable[Answer]) -> dict[str, dict[str, Any]]:
    """Ratings and difficulty of each image, Σ ratings / (5 n) in (0, 1], the easiest first, then by name.

    Near 1 all of its contents are relevant, which is easy; near 0 hardly any is, which is hard.

    Example:
        >>> from debugging.annotation import Answer, difficulties
        >>> difficulties([Answer("1", "object", "dog", 4.0, None), Answer("1", "object", "sky", 1.0, None)])
        {'1': {'ratings': [4.0, 1.0], 'difficulty': 0.5}}
    """
    ratings: dict[str, list[float]] = {}
    for answer in answers:
        ratings.setdefault(answer.image, []).append(answer.rating)
    values = {image: sum(own) / (TOP_RATING * len(own)) for image, own in ratings.items()}
    order = sorted(values, key=lambda image: (-values[image], image))
    return {image: {"ratings": ratings[image], "difficulty": values[image]} for image in order}


@dataclass
class SceneGraph:
    """Objects and relationships of one image, as a region of a file for scene graphs has them.

    Attributes:
        objects: Objects: ``object_id``, ``name``, ``attributes`` and the box ``x``, ``y``, ``w``, ``h``.
        relationships: Relationships: ``relationship_id``, ``name``, ``subject_id`` and ``object_id``.
    """

    objects: list[dict[str, Any]] = field(default_factory=list)
    relationships: list[dict[str, Any]] = field(default_factory=list)

    def object_named(self, name: str, box: Mapping[str, int], *, exactly: bool = False) -> dict[str, Any]:
        """The object of that name, the one with that box if there are several; a new one where there is none.

        Args:
            name: Name, in which case does not count.
            box: Box of the segment that it was named in.
            exactly: Flag for an object with just that box.
        """
        same = [one for one in self.objects if one["name"].casefold() == name.casefold()]
        here = [one for one in same if all(one[side] == box[side] for side in "xywh")]
        if here or (same and not exactly):
            return (here or same)[0]
        sides = {side: int(box[side]) for side in "xywh"}
        self.objects.append({"object_id": len(self.objects) + 1, "name": name, "attributes": [], **sides})
        return self.objects[-1]

    def relate(self, subject: Mapping[str, Any], name: str, other: Mapping[str, Any]) -> None:
        """Add a relationship, once."""
        ends = {"name": name, "subject_id": subject["object_id"], "object_id": other["object_id"]}
        if not any(ends.items() <= one.items() for one in self.relationships):
            self.relationships.append({"relationship_id": len(self.relationships) + 1, **ends})

    @property
    def phrase(self) -> str:
        """Words for it: relationships, then the objects in none of them, each with its attributes."""
        names = {one["object_id"]: " ".join([*one["attributes"], one["name"]]) for one in self.objects}
        related = {one[end] for one in self.relationships for end in ("subject_id", "object_id")}
        said = [f"{names[one['subject_id']]} {one['name']} {names[one['object_id']]}" for one in self.relationships]
        return " and ".join([*said, *(name for number, name in names.items() if number not in related)])

    def region(self) -> dict[str, Any]:
        """The region: objects, relationships and phrase."""
        return {"objects": self.objects, "relationships": self.relationships, "phrase": self.phrase}


@dataclass(frozen=True)
class Graphs:
    """The scene graphs of images.

    Attributes:
        by_image: Graph of each image that has one.
        left_out: Reasons why answers are in no graph, with their numbers.
    """

    by_image: Mapping[str, SceneGraph]
    left_out: Mapping[str, int]


def scene_graphs(answers: Sequence[Answer], least_rating: float = LEAST_RATING) -> Graphs:
    """Scene graphs of what people described, objects first, so that attributes and relationships find theirs.

    An attribute is ``(red,hydrant)`` or ``red hydrant``; a relationship is ``(people,on,street)``. What these name and
    nobody described as an object becomes one, with the box of the segment.

    Args:
        answers: Answers.
        least_rating: Rating from which a content is in the graph.
    """
    graphs: dict[str, SceneGraph] = {}
    left_out: dict[str, int] = {}
    for kind in KINDS:
        for answer in answers:
            if answer.kind.casefold() != kind:
                continue
            reason = _misses(answer, least_rating)
            if reason is None:
                _add(graphs.setdefault(answer.image, SceneGraph()), kind, _parts(answer), answer.box or {})
            else:
                left_out[reason] = left_out.get(reason, 0) + 1
    unknown = sum(answer.kind.casefold() not in KINDS for answer in answers)
    return Graphs(graphs, left_out | ({"of no known kind": unknown} if unknown else {}))


def _task(entry: Mapping[str, Any], number: int, segment: Mapping[str, Any]) -> dict[str, Any]:
    key = hashlib.sha256(f"{entry['image']} {number}".encode()).hexdigest()[:24]
    metadata = {
        "filename": f"{entry['image'].replace('/', '_')}__segment_{number}.png",
        "image": entry["image"],
        "segment": number,
        "truth": entry["truth"],
        "named": entry["named"],
        "question": question(entry["truth"]),
        "picture": segment["overview"],
        "box": segment["box"],
    }
    return {"task_id": key, "status": PENDING, "metadata": metadata}


def _rating(text: str, place: str) -> float:
    try:
        rating = float(text)
    except ValueError:
        rating = math.nan
    if not LEAST_RATING <= rating <= TOP_RATING:
        raise ArgumentError("answers", f"{place}: {RATING}: wanted {LEAST_RATING} … {TOP_RATING}, got {text!r}")
    return rating


def _parts(answer: Answer) -> list[str]:
    """Parts of a description: those in brackets, or of an attribute its words but the last, and the last."""
    words = answer.description
    if words.startswith("(") and words.endswith(")"):
        parts = words[1:-1].split(",")
    elif answer.kind.casefold() == "attribute":
        parts = words.rsplit(maxsplit=1)
    else:
        parts = [words]
    return [part.strip() for part in parts if part.strip()]


def _misses(answer: Answer, least_rating: float) -> str | None:
    """The reason why an answer can be in no graph, None if it can."""
    if answer.rating < least_rating:
        return f"rated below {least_rating:g}"
    if answer.box is None:
        return "without a box"
    wanted = {"object": 1, "attribute": 2, "relationship": 3}[answer.kind.casefold()]
    return None if len(_parts(answer)) == wanted else "described by other parts than their kind has"


def _add(graph: SceneGraph, kind: str, parts: Sequence[str], box: Mapping[str, int]) -> None:
    if kind == "object":
        graph.object_named(parts[0], box, exactly=True)
    elif kind == "attribute":
        attributes = graph.object_named(parts[1], box)["attributes"]
        if parts[0] not in attributes:
            attributes.append(parts[0])
    else:
        subject, other = (graph.object_named(name, box) for name in (parts[0], parts[2]))
        graph.relate(subject, parts[1], other)
