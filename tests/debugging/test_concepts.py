from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from debugging.clustering import agreement, cluster, directions, nearest
from debugging.concept import concept_of, concepts_of
from debugging.concept_files import read_concepts
from debugging.results import write_json
from imagexplain import cli
from imagexplain.errors import ArgumentError
from tests.debugging.entries import content, error, segment, write_crop

NASTY = '<script>alert("1")</script> & snow'


def blobs(*sizes: int, seed: int = 0) -> np.ndarray:
    """Features around axes, so many around each."""
    generator = np.random.default_rng(seed)
    axes = np.repeat(np.eye(len(sizes), 8), sizes, axis=0)
    return (axes + generator.normal(0, 0.05, axes.shape)) * generator.uniform(1, 9, (len(axes), 1))


def test_clusters_are_of_directions_and_the_largest_comes_first() -> None:
    found = cluster(blobs(4, 9, 6))
    assert found.assigned.tolist() == [2] * 4 + [0] * 9 + [1] * 6
    assert found.stability == 1
    np.testing.assert_allclose(found.centres[0], directions(blobs(4, 9, 6))[4:13].mean(0))


def test_the_number_of_clusters_is_what_the_features_show() -> None:
    assert len(cluster(blobs(8, 8)).centres) == 2
    assert len(cluster(blobs(8, 8, 8, 8)).centres) == 4
    noise = np.random.default_rng(0).normal(size=(30, 64))
    assert len(cluster(noise).centres) == 1
    assert len(cluster(blobs(8, 8), clusters=3).centres) == 3
    assert len(cluster(np.ones((1, 4))).centres) == 1
    assert len(cluster(blobs(1, 1, 1, 1, 1)).centres) == 1  # five that have nothing in common are no five concepts
    assert len(cluster(blobs(3, 3, 3)).centres) == 3
    assert len(cluster(np.ones((5, 4)), clusters=3).centres) == 1  # of one direction there is one cluster


@pytest.mark.parametrize("seed", range(5))
def test_clusters_are_the_same_under_every_seed(seed: int) -> None:
    features = blobs(12, 9, 6, 5)
    found = cluster(features, seed)
    assert found.assigned.tolist() == cluster(features).assigned.tolist()
    assert found.stability == 1


def test_the_adjusted_rand_index_by_hand() -> None:
    """{ab}{cd} and {ab}{c}{d}: one pair agrees; Σ(n choose 2) are 1, 2 and 1, expected 2·1/6: (1−⅓)/(1½−⅓) = 4/7."""
    assert agreement([np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2])]) == pytest.approx(4 / 7)


@pytest.mark.parametrize(("features", "count"), [(np.zeros((0, 3)), None), (np.ones((2, 3)), 3), (np.ones((2, 3)), 0)])
def test_what_cannot_be_clustered(features: np.ndarray, count: int | None) -> None:
    with pytest.raises(ArgumentError, match="wanted"):
        cluster(features, clusters=count)


def test_the_nearest_centre_is_that_of_the_direction() -> None:
    centres = np.eye(2)
    assert nearest(np.array([[9.0, 1.0], [0.1, 0.3], [0.0, 0.0]]), centres).tolist() == [0, 1, 0]


def test_concepts_by_label_are_ranked_by_what_they_carry() -> None:
    found = concepts_of(
        [
            error("dog/1.png", "wolf", segment("snow", 2.0), segment("tree", 0.5, rank=2)),
            error("dog/2.png", "wolf", segment("tree", 1.0), segment("sky", 9.0, rank=0)),
            error("dog/3.png", "fox", segment("snow", 4.0, area=0.75)),
            error("dog/4.png", "fox", segment("snow", 4.0, rank=0)),
        ],
        by_label=True,
    )
    snow, tree = found.concepts
    assert (found.errors, found.unexplained, found.stability) == (4, 1, None)
    assert (snow.name, snow.carried, snow.area_share, snow.errors) == ("snow", 6, 0.5, 2)
    assert snow.named == [("fox", 1), ("wolf", 1)]
    assert [member.image for member in snow.members] == ["dog/3.png", "dog/1.png"]
    assert (tree.name, tree.carried, tree.errors) == ("tree", 1.5, 2)
    assert found.share(snow) == 0.8


def test_what_a_segment_carries_is_the_mean_of_both_measures_and_not_negative() -> None:
    mixed, against = segment("a", 0), segment("b", -3)
    mixed["wrong"] = {"attribution": 1.0, "replaced": 4.0}
    found = concepts_of([error("dog/1.png", "wolf", mixed, against)], by_label=True)
    assert [concept.carried for concept in found.concepts] == [2.5, 0]


def test_concepts_by_clusters_have_numbers_and_centres() -> None:
    errors = [error(f"dog/{n}.png", "wolf", segment(f"slic {n}", n, feature)) for n, feature in enumerate(blobs(5, 7))]
    found = concepts_of(errors, by_label=False)
    assert [(concept.name, len(concept.members)) for concept in found.concepts] == [("concept 1", 7), ("concept 2", 5)]
    assert found.stability == 1
    assert len(concepts_of(errors[:2], by_label=False, clusters=9).concepts) == 2
    empty = concepts_of([error("dog/1.png", "wolf")], by_label=False)
    assert (empty.errors, empty.unexplained, empty.concepts) == (1, 1, ())


def test_the_concept_that_a_segment_falls_into() -> None:
    labels = [{"label": "snow", "centre": None}, {"label": "tree", "centre": None}]
    assert concept_of("tree", np.zeros(2), labels) == 1
    assert concept_of("sky", np.zeros(2), labels) is None
    clusters = [{"label": None, "centre": [1.0, 0.0]}, {"label": None, "centre": [0.0, 1.0]}]
    assert concept_of("slic 3", np.array([0.2, 5.0]), clusters) == 1


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Results of `find` with names of classes, segments and images that a page must not take for its own."""
    write_crop(tmp_path)
    errors = [
        error(f"{NASTY}/{number}.png", "<b>wolf", segment(NASTY, 1.0 + number), segment("tree", 0.1, rank=2))
        for number in range(10)
    ]
    for each in errors:  # folders have no slashes, which the tag's end has
        each["truth"] = NASTY
    write_json(tmp_path / "errors.json", content(*errors))
    write_json(tmp_path / "find.json", {"model": "<i>model", "named": True})
    return tmp_path


class Tags(HTMLParser):
    """The tags, texts and pictures of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_no_other_file_and_shows_text_as_text(results: Path) -> None:
    assert cli.main(["debug", "concepts", str(results)]) == 0
    page = Tags((results / "concepts.html").read_text(encoding="utf-8"))
    kinds = [tag for tag, _ in page.tags]
    assert not {"script", "link", "iframe", "i", "b"} & set(kinds)
    assert NASTY in page.text and "<b>wolf (10)" in page.text and "<i>model" in page.text
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 2 * 8  # eight of the ten errors for each concept
    assert all(str(one["src"]).startswith("data:image/webp;base64,") and one["alt"] for one in images)
    assert ("html", {"lang": "en"}) in page.tags
    assert [kinds.count(heading) for heading in ("h1", "h2", "h3")] == [1, 1, 2]
    targets = {one["id"] for _, one in page.tags if "id" in one}
    assert {str(one["href"]).removeprefix("#") for tag, one in page.tags if tag == "a"} <= targets
    assert "and 2 segments more" in page.text


def test_the_file_to_edit_keeps_what_carries_a_tenth(results: Path) -> None:
    assert cli.main(["debug", "concepts", str(results)]) == 0
    text = (results / "concepts.yaml").read_text(encoding="utf-8")
    (concepts,) = yaml.safe_load(text).values()
    assert text.startswith("# Concepts of each class's errors")
    assert [(one["id"], one["name"], one["keep"]) for one in concepts] == [(1, NASTY, True), (2, "tree", False)]
    assert concepts[0]["errors"] == "10 of 10"
    kept = read_concepts(results)
    assert [one.name for one in kept.kept(NASTY)] == [NASTY]
    assert kept.concept_of(NASTY, "tree", np.zeros(2)) is None
    assert kept.kept("cat") == []


def test_edits_stay_until_the_concepts_are_others(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["debug", "concepts", str(results)]) == 0
    edited = results / "concepts.yaml"
    text = edited.read_text(encoding="utf-8").replace("name: tree\n  keep: false", "name: forest\n  keep: true")
    edited.write_text(text, encoding="utf-8")
    before = [(results / name).read_bytes() for name in ("concepts.json", "concepts.html")]
    assert cli.main(["debug", "concepts", str(results)]) == 0
    assert edited.read_text(encoding="utf-8") == text
    assert [(results / name).read_bytes() for name in ("concepts.json", "concepts.html")] == before
    assert [one.name for one in read_concepts(results).kept(NASTY)] == [NASTY, "forest"]
    found = json.loads((results / "errors.json").read_text())
    found["errors"][0]["segments"][0]["wrong"]["replaced"] = 99.0
    write_json(results / "errors.json", found)
    assert cli.main(["debug", "concepts", str(results)]) == 1
    assert "--overwrite replaces it, with all that was edited" in capsys.readouterr().err
    assert edited.read_text(encoding="utf-8") == text
    assert cli.main(["debug", "concepts", str(results), "--overwrite"]) == 0
    assert "forest" not in edited.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("keep: true", "keep: maybe"), "keep: wanted true or false, got 'maybe'"),
        (lambda text: text.replace("id: 2", "id: 7"), "concept 7: wanted each id once"),
        (lambda text: text.replace("id: 2", "id: 1"), "concept 1: wanted each id once"),
        (lambda text: text.replace("name: tree", "name: ''"), "name: wanted words"),
        (lambda text: text + "cat:\n- id: 1\n", "wanted classes of concepts.json"),
        (lambda text: "- 1", "wanted concepts by class"),
        (lambda text: "a: [", "cannot be read as YAML"),
    ],
)
def test_edits_that_do_not_fit_are_refused(results: Path, change: Any, message: str) -> None:
    assert cli.main(["debug", "concepts", str(results)]) == 0
    file = results / "concepts.yaml"
    file.write_text(change(file.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(ArgumentError, match=re.escape(message)):
        read_concepts(results)


def test_a_deleted_concept_is_dropped(results: Path) -> None:
    assert cli.main(["debug", "concepts", str(results)]) == 0
    file = results / "concepts.yaml"
    (name,) = yaml.safe_load(file.read_text(encoding="utf-8"))
    file.write_text(yaml.safe_dump({name: None}), encoding="utf-8")
    assert read_concepts(results).kept(name) == []


def test_the_step_on_what_find_wrote(found: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["debug", "concepts", str(found)]) == 0
    said = capsys.readouterr().out
    assert "agreement over five seeds 1.00" in said
    assert set(read_concepts(found).found) == set(yaml.safe_load((found / "concepts.yaml").read_text()))


def test_a_step_before_it_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["debug", "concepts", str(tmp_path)]) == 1
    assert "errors.json, which find writes, got none" in capsys.readouterr().err
    assert cli.main(["debug", "concepts", str(tmp_path), "--clusters", "0"]) == 1
    assert "clusters: wanted at least 1" in capsys.readouterr().err


def test_what_is_not_installed_is_named(
    found: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("sklearn.cluster", "sklearn.metrics"):
        monkeypatch.setitem(sys.modules, name, None)
    assert cli.main(["debug", "concepts", str(found)]) == 1
    assert (
        "wanted scikit-learn, which is not installed: pip install 'imagexplain[debugging]'" in capsys.readouterr().err
    )
