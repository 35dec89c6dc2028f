from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from debugging.debug_sets import DebugSet, equal_counts, read_set, repeated, shortages
from imagexplain.errors import ArgumentError
from tests.debugging.scene_folder import write_png
from training.finetuning.image_folder import Listing, Photo

CLASSES = ("cat", "dog")
PIXELS = np.zeros((4, 4, 3), dtype=np.uint8)


def photos(name: str, count: int) -> tuple[Photo, ...]:
    label = CLASSES.index(name)
    return tuple(Photo(Path(f"/{name}/{number}.png"), label, f"{name}/{number}.png") for number in range(count))


def debug_set(name: str, **counts: int) -> DebugSet:
    return DebugSet(name, {class_name: photos(class_name, count) for class_name, count in counts.items()})


def test_every_set_gives_as_many_images_of_a_class() -> None:
    sets = [debug_set("a", cat=5, dog=2), debug_set("b", cat=3)]
    assert equal_counts(sets, CLASSES) == {"cat": 3, "dog": 0}
    assert equal_counts(sets, CLASSES, 2) == {"cat": 2, "dog": 0}
    assert equal_counts(sets[:1], CLASSES, 4) == {"cat": 4, "dog": 2}


def test_sets_with_fewer_are_named_with_their_numbers() -> None:
    sets = [debug_set("a", cat=5, dog=2), debug_set("b", cat=3)]
    assert shortages(sets, {"cat": 3, "dog": 0}) == [("b", "cat", 3, 5), ("b", "dog", 0, 2)]
    assert shortages(sets, {"cat": 2, "dog": 0}, 2) == [("b", "dog", 0, 2)]
    assert shortages(sets, {"cat": 3, "dog": 0}, 4) == [
        ("b", "cat", 3, 4), ("a", "dog", 2, 4), ("b", "dog", 0, 4)
    ]  # fmt: skip


def test_the_first_images_of_a_set_are_taken() -> None:
    chosen = debug_set("a", cat=5, dog=2).first({"cat": 2, "dog": 1})
    assert [photo.name for photo in chosen] == ["cat/0.png", "cat/1.png", "dog/0.png"]


def test_training_images_come_once_more_before_any_comes_twice() -> None:
    train = Listing(Path("/"), CLASSES, photos("cat", 3) + photos("dog", 4))
    found = repeated(train, {"cat": 7, "dog": 2}, seed=0)
    times = Counter(photo.name for photo in found)
    assert sorted(times[f"cat/{number}.png"] for number in range(3)) == [2, 2, 3]
    assert (
        sum(times[f"dog/{number}.png"] for number in range(4))
        == 2
        == max(times[name] for name in times if "dog" in name) * 2
    )
    assert found == repeated(train, {"cat": 7, "dog": 2}, seed=0)
    assert found != repeated(train, {"cat": 7, "dog": 2}, seed=1)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for name in ("cat/a.png", "cat/b.png", "dog/c.png"):
        write_png(tmp_path / "pool" / name, PIXELS)
    folder = tmp_path / "results" / "selection"
    folder.mkdir(parents=True)
    (folder / "loss.csv").write_text("class,rank,image\ncat,2,cat/a.png\ncat,1,cat/b.png\ndog,1,dog/c.png\n")
    return tmp_path / "results"


def test_a_selection_is_in_the_order_of_its_ranks(results: Path) -> None:
    pool = results.parent / "pool"
    found = read_set("loss", results, pool, CLASSES, 0)
    assert found.name == "loss"
    assert [photo.file for photo in found.photos["cat"]] == [pool / "cat/b.png", pool / "cat/a.png"]
    assert [photo.label for photo in found.first({"cat": 1, "dog": 1})] == [0, 1]


def test_a_folder_is_a_set_under_its_own_name(results: Path) -> None:
    found = read_set(str(results.parent / "pool"), results, None, ("cat", "dog", "fox"), 0)
    assert found.name == "pool" and [found.count(name) for name in ("cat", "dog", "fox")] == [2, 1, 0]


def test_mistakes_are_named(results: Path) -> None:
    pool = results.parent / "pool"
    with pytest.raises(ArgumentError, match=r"sets: wanted a folder, or a selection \('loss'\), got 'los'"):
        read_set("los", results, pool, CLASSES, 0)
    with pytest.raises(ArgumentError, match="pool: wanted the folder that the images of"):
        read_set("loss", results, None, CLASSES, 0)
    with pytest.raises(ArgumentError, match=r"line 4: wanted a class of the model \('cat', 'fox'\), got 'dog'"):
        read_set("loss", results, pool, ("cat", "fox"), 0)
    (pool / "cat" / "b.png").unlink()
    with pytest.raises(ArgumentError, match=r"line 3: wanted .*cat/b.png, which is not there"):
        read_set("loss", results, pool, CLASSES, 0)
    (results / "selection" / "loss.csv").write_text("class,image\n")
    with pytest.raises(ArgumentError, match="wanted columns class, rank and image, got no 'rank'"):
        read_set("loss", results, pool, CLASSES, 0)
    pool.rename(results.parent / "none")
    with pytest.raises(ArgumentError, match="and not none or original, got 'none'"):
        read_set(str(results.parent / "none"), results, None, CLASSES, 0)
