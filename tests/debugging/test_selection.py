from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from debugging.choice import ChoiceSettings, ClassPool, choose
from debugging.concept_files import EditedConcept, KeptConcepts
from debugging.pool import driver, rivals
from debugging.prompts import prompts
from debugging.segment_table import entropy
from debugging.selection import (
    STRATEGIES,
    active_scores,
    best,
    random_scores,
    scaled,
    similarity_scores,
    squared_distances,
)
from imagexplain import cli
from imagexplain.checkout import ROOT
from tests.debugging.scene_folder import write_scenes

REFERENCE = np.load(ROOT / "tests/fixtures/egdd/selection.npz")


def test_active_is_the_originals() -> None:
    """The original selector on twenty images of one class."""
    entropies = entropy(torch.from_numpy(REFERENCE["logits"])).numpy()
    np.testing.assert_allclose(entropies, REFERENCE["entropy"], rtol=1e-5)
    found = active_scores(entropies, REFERENCE["features"], REFERENCE["error_mean"])
    np.testing.assert_allclose(found.distance, REFERENCE["distance"], rtol=1e-5)
    np.testing.assert_allclose(found.score, REFERENCE["score"], rtol=1e-5, atol=1e-6)
    assert best(found.score, 20).tolist() == REFERENCE["order"].tolist()
    assert best(found.score, 5).tolist() == REFERENCE["order"][:5].tolist()


def test_active_by_hand() -> None:
    """Entropies scale to 0, 1, ½; squared distances to (1, 0) are 0, 4, 1 and scale to 0, 1, ¼."""
    features = np.array([[1.0, 0.0], [1.0, 2.0], [0.0, 0.0]])
    found = active_scores(np.array([0.0, 1.0, 0.5]), features, np.array([1.0, 0.0]))
    assert found.distance.tolist() == [0, 4, 1]
    assert found.score.tolist() == [0, 1, 0.375]
    assert similarity_scores(features, np.array([1.0, 0.0])).tolist() == [0, -4, -1]


def test_a_constant_pool_has_scores() -> None:
    found = active_scores(np.full(3, math.log(12)), np.ones((3, 2)), np.zeros(2))
    assert found.score.tolist() == [0, 0, 0]
    assert best(found.score, 2).tolist() == [0, 1]
    single = active_scores(np.array([1.0]), np.ones((1, 2)), np.zeros(2))
    assert single.score.tolist() == [0]
    assert scaled(np.zeros(0)).tolist() == []
    assert squared_distances(np.zeros((0, 2)), np.zeros(2)).tolist() == []


def test_ties_keep_the_images_order_and_what_has_no_score_is_left_out() -> None:
    assert best(np.array([1.0, 3.0, 1.0, 3.0, np.nan]), 3).tolist() == [1, 3, 0]
    assert best(np.array([np.nan, -5.0]), 2).tolist() == [1]


def test_random_choices_depend_on_seed_and_class_alone() -> None:
    first = random_scores(100, 0, "dog")
    assert first.tolist() == random_scores(100, 0, "dog").tolist()
    assert first.tolist()[:50] == random_scores(50, 0, "dog").tolist()
    assert first.tolist() != random_scores(100, 1, "dog").tolist()
    assert first.tolist() != random_scores(100, 0, "cat").tolist()


def test_rivals_with_and_without_a_label() -> None:
    scores = torch.tensor([1.0, 3.0, 2.0])
    assert rivals(scores, None) == (1, 2)
    assert rivals(scores, 1) == (2, 1)
    assert rivals(scores, 0) == (1, 0)


def test_the_driver_of_a_rival_by_hand() -> None:
    """16 pixels: 4 that cost the rival 2, and 12 that cost it 3; by √¼ and √¾ that is 4 against 3.46."""
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[0, 0] = True
    masks[1, 1:] = True
    falls = torch.tensor([[2.0, 5.0], [3.0, 1.0]], dtype=torch.float64)
    assert driver(falls, masks, rival=0, own=1) == (0, -3)
    assert driver(falls, masks, rival=1, own=0) == (0, 3)


def test_prompts_have_each_class_alone_and_with_each_concept() -> None:
    assert prompts({"dog": ["snow", "a\ntree", "snow"], "cat": []}) == [
        "a photo of dog",
        "a photo of dog with snow",
        "a photo of dog with a tree",
        "a photo of cat",
    ]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    write_scenes(folder / "pool", 20, misplaced=4, masks=folder / "masks", seed=78)
    (folder / "pool" / "star" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return folder / "pool"


def rows_of(results: Path, strategy: str) -> list[dict[str, str]]:
    with (results / "selection" / f"{strategy}.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def grouped(found: Path) -> Path:
    assert cli.main(["debug", "concepts", str(found)]) == 0
    return found


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategy_chooses_by_class_and_in_order(
    grouped: Path, pool: Path, strategy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["debug", "select", str(grouped), str(pool), "--strategy", strategy, "-k", "2"]
    assert cli.main(command) == 0
    said = capsys.readouterr().out
    assert "1 of the pool skipped, the first star/torn.png" in said
    rows = rows_of(grouped, strategy)
    assert rows
    for row in rows:
        assert row["image"].startswith(row["class"] + "/")
        assert row["strategy"] == strategy
    places = [(row["class"], int(row["rank"])) for row in rows]
    assert places == sorted(places)
    for name in {row["class"] for row in rows}:
        scores = [float(row["score"]) for row in rows if row["class"] == name]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) <= 2
    if strategy == "concept":
        assert all(row["concept"] for row in rows)
    if strategy == "loss":  # the scenes that lie in a wrong folder
        first = {row["image"] for row in rows if row["rank"] == "1" and float(row["loss"]) > 1}
        assert {name for name in first if int(Path(name).stem) % 4 == 0} == first
    content = (grouped / "selection" / f"{strategy}.csv").read_bytes()
    assert cli.main(command) == 0
    assert (grouped / "selection" / f"{strategy}.csv").read_bytes() == content


def test_the_pool_is_looked_at_once(grouped: Path, pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["debug", "select", str(grouped), str(pool), "--strategy", "concept", "-k", "2"]
    assert cli.main(command) == 0

    def fail(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("debugging.pool.Pool._scored", fail)
    monkeypatch.setattr("debugging.pool.Pool._driver", fail)
    assert cli.main(command) == 0


def test_too_few_are_told_and_filled_up_if_asked(grouped: Path, pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["debug", "select", str(grouped), str(pool), "--strategy", "concept", "-k", "3"]
    assert cli.main(command) == 0
    assert "of the 3 wanted" in capsys.readouterr().out
    without = rows_of(grouped, "concept")
    assert cli.main([*command, "--fill"]) == 0
    rows = rows_of(grouped, "concept")
    assert [row for row in rows if row["strategy"] == "concept"] == without
    filled = [row for row in rows if row["strategy"] == "fill"]
    assert filled and all(row["score"] == "" for row in filled)
    assert len({row["image"] for row in rows}) == len(rows)


def test_the_images_are_copied_by_class(grouped: Path, pool: Path, tmp_path: Path) -> None:
    command = ["debug", "select", str(grouped), str(pool), "--strategy", "random", "-k", "1"]
    target = tmp_path / "chosen"
    for _ in range(2):
        assert cli.main([*command, "--copy-to", str(target)]) == 0
        copied = sorted(str(file.relative_to(target)) for file in target.glob("*/*"))
        assert copied == [row["image"] for row in rows_of(grouped, "random")]
    assert all((target / name).read_bytes() == (pool / name).read_bytes() for name in copied)
    (target / "star" / "other.png").touch()
    assert cli.main([*command, "--copy-to", str(target)]) == 1


def test_a_pool_without_classes_goes_by_what_the_model_names(
    grouped: Path, pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, plain = tmp_path / "results", tmp_path / "plain"
    plain.mkdir()
    for file in sorted(pool.glob("*/0*.png"))[:6]:
        (plain / file.name).write_bytes(file.read_bytes())
    results.mkdir()
    for name in ("find.json", "errors.json", "concepts.json", "concepts.yaml"):
        (results / name).write_bytes((grouped / name).read_bytes())
    command = ["debug", "select", str(results), str(plain), "-k", "9", "--strategy"]
    assert cli.main([*command, "random"]) == 0
    assert len(rows_of(results, "random")) == 6
    assert cli.main([*command, "concept"]) == 0
    assert cli.main([*command, "loss"]) == 1
    assert "wanted class folders, by whose labels the loss is" in capsys.readouterr().err
    other = ["debug", "select", str(results), str(pool), "-k", "9", "--strategy", "active"]
    assert cli.main(other) == 1
    assert "or another folder: pool" in capsys.readouterr().err


def test_label_maps_are_wanted_of_the_pool_where_find_had_some(
    scenes: Path, pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    find = ["debug", "find", str(scenes / "val"), str(tmp_path), "--model", "vit", "--steps", "2"]
    assert cli.main([*find, "--masks", str(scenes / "masks")]) == 0
    assert cli.main(["debug", "concepts", str(tmp_path)]) == 0
    command = ["debug", "select", str(tmp_path), str(pool), "--strategy", "concept", "-k", "1"]
    assert cli.main(command) == 1
    assert "wanted label maps of the pool" in capsys.readouterr().err
    assert cli.main([*command, "--masks", str(pool.parent / "masks")]) == 0
    assert {row["concept"] for row in rows_of(tmp_path, "concept")} <= {"shape", "distractor", "rest"}


def test_prompts_are_written_from_the_kept_concepts(grouped: Path) -> None:
    assert cli.main(["debug", "select", str(grouped), "--strategy", "prompts"]) == 0
    lines = (grouped / "prompts.txt").read_text(encoding="utf-8").splitlines()
    assert any(" with concept 1" in line for line in lines)
    assert len(set(lines)) == len(lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--strategy", "active"], "wanted a folder of images"),
        (["POOL", "--strategy", "active", "-k", "0"], "at least 1"),
    ],
)
def test_arguments_that_do_not_fit(
    grouped: Path, pool: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(pool) if argument == "POOL" else argument for argument in arguments]
    assert cli.main(["debug", "select", str(grouped), *given]) == 1
    assert message in capsys.readouterr().err


def test_the_choice_by_concept_by_hand() -> None:
    """One image falls into a dropped concept; of the kept ones' the largest fall of the margin is first."""
    found = {
        "dog": {"concepts": [{"id": 1, "label": "snow", "centre": None}, {"id": 2, "label": "tree", "centre": None}]}
    }
    edited = {"dog": (EditedConcept(1, "deep snow", True), EditedConcept(2, "tree", False))}
    drops = {"1": ("snow", 0.5), "2": ("tree", 9.0), "3": ("snow", 2.0), "4": ("snow", -1.0), "5": ("sky", 3.0)}
    drivers = {image: {"label": label, "feature": [0.0], "margin_drop": drop} for image, (label, drop) in drops.items()}
    pool = ClassPool("dog", list(drops), {}, drivers, None)
    concepts = KeptConcepts(found, edited)
    rows = choose(pool, ChoiceSettings("concept", 5), concepts)
    assert [(row["image"], row["score"], row["concept"]) for row in rows] == [
        ("3", 2, "deep snow"),
        ("1", 0.5, "deep snow"),
        ("4", -1, "deep snow"),
    ]
    filled = choose(pool, ChoiceSettings("concept", 4, fill=True), concepts)
    assert [row["strategy"] for row in filled] == ["concept"] * 3 + ["fill"]
    assert filled[3]["image"] in ("2", "5") and filled[3]["score"] == ""
    assert choose(pool, ChoiceSettings("active", 5)) == []  # of a class without errors there is no mean
