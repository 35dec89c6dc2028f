from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from debugging.annotation import (
    DESCRIPTION,
    KIND,
    RATING,
    Answer,
    difficulties,
    image_of,
    read_answers,
    scene_graphs,
    tasks_of,
)
from debugging.annotation_page import SCRIPT
from debugging.results import write_json
from imagexplain import cli
from imagexplain.checkout import ROOT
from imagexplain.errors import ArgumentError
from tests.debugging.entries import content, error, segment, write_crop

REFERENCE = json.loads((ROOT / "tests/fixtures/ega/difficulty.json").read_text())
BOX = {"x": 1, "y": 2, "w": 3, "h": 4}
NASTY = '</script><script>alert("1")</script>'


def task(number: int, filename: str, status: str = "completed", **annotations: str) -> dict[str, Any]:
    names = {"kind": KIND, "description": DESCRIPTION, "rating": RATING}
    found = {names[name]: value for name, value in annotations.items()}
    response = {"response": {"annotations": found}} if status == "completed" else {}
    return {"task_id": str(number), "status": status, "metadata": {"filename": filename}, **response}


def crowd() -> list[dict[str, Any]]:
    """The 134 ratings of the reference as tasks, with a blank one and three that are not finished."""
    filenames = [
        (f"p1_COCO_val2014_{int(image):012}__caption_{number}_attr_result.jpg", str(rating))
        for image, own in REFERENCE.items()
        for number, rating in enumerate(own["ratings"])
    ]
    rated = [
        task(number, name, kind="object", description="street", rating=rating)
        for number, (name, rating) in enumerate(filenames)
    ]
    name = "p1_COCO_val2014_000000353409__caption_9_attr_result.jpg"
    return [task(1000, name), *rated, *(task(1001 + number, name, "processing") for number in range(3))]


def test_difficulties_are_the_originals() -> None:
    answers = read_answers(crowd())
    assert (len(answers.rated), answers.blank, answers.unfinished) == (134, 1, 3)
    found = difficulties(answers.rated)
    assert found.keys() == REFERENCE.keys()
    for image, own in REFERENCE.items():
        assert found[image]["ratings"] == own["ratings"]
        assert found[image]["difficulty"] == pytest.approx(own["difficulty"], abs=1e-12)
    values = [one["difficulty"] for one in found.values()]
    assert values == sorted(values, reverse=True)
    assert next(reversed(found)) == "534428" and values[-1] == pytest.approx(0.22)
    assert sum(values) / 30 == pytest.approx(0.5627, abs=1e-4)
    assert sum(value < 0.5 for value in values) == 13


@pytest.mark.parametrize(
    ("metadata", "image"),
    [
        ({"filename": "p1_COCO_val2014_000000353409__caption_8_attr_result.jpg"}, "353409"),
        ({"filename": "photo_7__segment_2.png"}, "photo_7"),
        ({"filename": "x.png", "image": "dog/7.png"}, "dog/7.png"),
    ],
)
def test_the_image_of_a_task(metadata: dict[str, str], image: str) -> None:
    assert image_of(metadata) == image


@pytest.mark.parametrize("rating", ["0", "5.5", "nan", "four"])
def test_a_rating_that_is_none_is_refused(rating: str) -> None:
    with pytest.raises(ArgumentError, match=re.escape(f"task 7: {RATING}: wanted 1 … 5, got {rating!r}")):
        read_answers([task(7, "x.png", rating=rating)])


@pytest.mark.parametrize("tasks", [{}, [1], [{"status": "completed"}], [{"task_id": "1", "status": "", "metadata": 3}]])
def test_what_is_no_list_of_tasks(tasks: Any) -> None:
    with pytest.raises(ArgumentError, match="wanted"):
        read_answers(tasks)


def test_a_blank_rating_is_no_rating() -> None:
    blanks = [task(1, "x.png", rating=" "), {**task(2, "x.png"), "response": None}]
    assert read_answers(blanks).blank == 2


def answer(kind: str, description: str, rating: float = 4.0, box: dict[str, int] | None = BOX) -> Answer:
    return Answer("dog/1.png", kind, description, rating, box)


def test_a_scene_graph_by_hand() -> None:
    far = {"x": 100, "y": 0, "w": 5, "h": 5}
    graphs = scene_graphs(
        [
            answer("relationship", "(People, on ,street)"),
            answer("object", "people"),
            answer("object", "people", box=far),
            answer("object", "people"),
            answer("attribute", "(red,hydrant)"),
            answer("attribute", "very wet street"),
            answer("relationship", "(people,on,street)"),
        ]
    )
    region = graphs.by_image["dog/1.png"].region()
    assert [(one["object_id"], one["name"], one["attributes"], one["x"]) for one in region["objects"]] == [
        (1, "people", [], 1),
        (2, "people", [], 100),
        (3, "hydrant", ["red"], 1),
        (4, "street", ["very wet"], 1),
    ]
    assert region["relationships"] == [{"relationship_id": 1, "name": "on", "subject_id": 1, "object_id": 4}]
    assert region["phrase"] == "people on very wet street and people and red hydrant"
    assert graphs.left_out == {}


def test_what_is_in_no_graph_is_counted() -> None:
    graphs = scene_graphs(
        [
            answer("object", "sky", rating=2.0),
            answer("object", "tree", box=None),
            answer("relationship", "(on,street)"),
            answer("relationship", "beside"),
            answer("object", ""),
            answer("", "dog"),
            answer("Object", "dog"),
        ],
        least_rating=3,
    )
    assert graphs.left_out == {
        "rated below 3": 1,
        "without a box": 1,
        "described by other parts than their kind has": 3,
        "of no known kind": 1,
    }
    assert [one["name"] for one in graphs.by_image["dog/1.png"].objects] == ["dog"]


def test_tasks_are_of_responsible_segments_the_most_responsible_first_where_there_are_too_many() -> None:
    errors = [
        error("dog/1.png", "wolf", segment("a", 1, rank=2), segment("b", 1), segment("c", 1, rank=0), confidence=0.6),
        error("dog/2.png", "wolf", segment("a", 1), confidence=0.9),
    ]
    tasks = tasks_of(errors)
    assert [(one["metadata"]["image"], one["metadata"]["segment"]) for one in tasks] == [
        ("dog/1.png", 1),
        ("dog/1.png", 0),
        ("dog/2.png", 0),
    ]
    assert tasks[0]["status"] == "pending" and "response" not in tasks[0]
    assert tasks[0]["metadata"]["filename"] == "dog_1.png__segment_1.png"
    assert tasks[0]["metadata"]["question"] == "How relevant is the outlined part for telling that this is dog?"
    assert len({one["task_id"] for one in tasks}) == 3
    assert [one["metadata"]["image"] for one in tasks_of(errors, most=1)] == ["dog/2.png"]
    assert [one["metadata"]["segment"] for one in tasks_of(errors, most=2)] == [1, 0]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Results of `find` with two errors of a class whose name would end a script."""
    write_crop(tmp_path)
    errors = [error(f"dog/{number}.png", "wolf", segment("slic 1", 1.0)) for number in range(2)]
    for each in errors:
        each["truth"] = NASTY
    write_json(tmp_path / "errors.json", content(*errors))
    return tmp_path


class Page(HTMLParser):
    """The elements of a page, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.scripts and self.tags[-1][0] == "script":
            self.scripts[-1] += data


def page_of(results: Path) -> Page:
    assert cli.main(["debug", "annotate", str(results)]) == 0
    return Page((results / "annotate.html").read_text(encoding="utf-8"))


def test_the_page_holds_its_tasks_and_needs_no_other_file(results: Path) -> None:
    page = page_of(results)
    tasks = json.loads((results / "tasks.json").read_text(encoding="utf-8"))
    assert [script.strip() for script in page.scripts] == [page.scripts[0].strip(), SCRIPT.strip()]
    assert json.loads(page.scripts[0]) == tasks
    loaded = [one for _, one in page.tags if "src" in one or "href" in one]
    assert len(loaded) == 2 and all(str(one["src"]).startswith("data:image/") and one["alt"] for one in loaded)
    forms = [one for tag, one in page.tags if tag == "form"]
    assert [one["data-task"] for one in forms] == [one["task_id"] for one in tasks]
    identifiers = [one["id"] for _, one in page.tags if "id" in one]
    assert len(set(identifiers)) == len(identifiers)
    assert {str(one["aria-labelledby"]) for one in forms} <= set(map(str, identifiers))
    kinds = [tag for tag, _ in page.tags]
    assert kinds.count("legend") == kinds.count("fieldset") == 4
    assert kinds.count("label") == kinds.count("input") == 2 * (5 + 3 + 1)


def run_page(results: Path, inputs: list[tuple[int, str, str]], stored: str | None = None, **more: Any) -> Any:
    """The state after inputs, by the page's own script in Node."""
    if (node := shutil.which("node")) is None:
        pytest.skip("no node here to run the page's script")
    page = page_of(results)
    body = next(one for tag, one in page.tags if tag == "body")
    given = {
        "script": page.scripts[1],
        "tasks": json.loads(page.scripts[0]),
        "stored": stored,
        "place": body["data-place"],
        "names": body["data-names"],
        "inputs": inputs,
        **more,
    }
    script = ROOT / "tests/debugging/page_in_node.js"
    done = subprocess.run(
        [node, script], input=json.dumps(given), capture_output=True, text=True, check=True, timeout=60
    )
    return json.loads(done.stdout)


def test_answers_survive_a_reload_and_are_downloaded(results: Path) -> None:
    inputs = [
        (1, "rating", "4"),
        (1, "kind", "attribute"),
        (1, "description", " (red,hydrant) "),
        (0, "kind", "object"),
    ]
    first = run_page(results, inputs)
    assert (first["rated"], first["done"], first["lost"]) == ("1 of 2 rated", [False, True], False)
    again = run_page(results, [], first["stored"])
    assert again["checked"] == ["", "4"]
    assert again["downloaded"] == first["downloaded"]
    assert first["name"] == "answered.json"
    tasks = json.loads((results / "tasks.json").read_text(encoding="utf-8"))
    assert first["downloaded"][0] == tasks[0]  # without a rating it is not answered
    assert first["downloaded"][1] == tasks[1] | {
        "status": "completed",
        "response": {"annotations": {KIND: "attribute", DESCRIPTION: "(red,hydrant)", RATING: "4"}},
    }


def test_a_browser_that_keeps_nothing_is_told(results: Path) -> None:
    state = run_page(results, [(0, "rating", "1")], blocked=True)
    assert state["lost"]
    assert state["downloaded"][0]["response"]["annotations"][RATING] == "1"


def test_answers_become_difficulties_and_region_files(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = run_page(results, [(1, "rating", "4"), (1, "kind", "attribute"), (1, "description", "(red,hydrant)")])
    write_json(results / "answered.json", state["downloaded"])
    stale = results / "regionfiles" / "dog" / "9.json"
    write_json(stale, {})
    assert cli.main(["debug", "annotate", str(results), "--answers", str(results / "answered.json")]) == 0
    said = capsys.readouterr().out
    assert "1 rated, 0 without a rating and 1 unfinished were skipped" in said
    assert "1 image, mean 0.800, hardest dog/1.png with 0.8" in said
    assert json.loads((results / "difficulty.json").read_text()) == {"dog/1.png": {"ratings": [4.0], "difficulty": 0.8}}
    assert not stale.exists()
    assert json.loads((results / "regionfiles" / "dog" / "1.json").read_text()) == {
        "1": {
            "objects": [{"object_id": 1, "name": "hydrant", "attributes": ["red"], "x": 1, "y": 2, "w": 3, "h": 4}],
            "relationships": [],
            "phrase": "red hydrant",
        }
    }


@pytest.mark.parametrize("image", ["../out.png", "/etc/out.png", "a\\..\\out.png", "."])
def test_an_image_elsewhere_gets_no_file(tmp_path: Path, image: str, capsys: pytest.CaptureFixture[str]) -> None:
    rated = task(1, "x.png", kind="object", description="dog", rating="3")
    rated["metadata"] |= {"image": image, "box": BOX}
    write_json(tmp_path / "answered.json", [rated])
    (tmp_path / "r").mkdir()
    assert cli.main(["debug", "annotate", str(tmp_path / "r"), "--answers", str(tmp_path / "answered.json")]) == 1
    assert "wanted the path of an image in its folder" in capsys.readouterr().err


def test_the_step_on_what_find_wrote(found: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["debug", "annotate", str(found), "--most", "3"]) == 0
    assert re.search(r"3 tasks of \d+; --most asks for more", capsys.readouterr().out)
    assert len(json.loads((found / "tasks.json").read_text())) == 3
    assert cli.main(["debug", "annotate", str(found), "--most", "0"]) == 1


def test_without_errors_there_is_nothing_to_ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(tmp_path / "errors.json", content())
    assert cli.main(["debug", "annotate", str(tmp_path)]) == 1
    assert "wanted errors with responsible segments" in capsys.readouterr().err
