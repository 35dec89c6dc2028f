"""Lists of a job's images: what is new, what is twice, and chunks whose names follow from their images alone."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import pytest

from imagexplain.cluster import table
from imagexplain.cluster.inputs import InputError, Item
from imagexplain.cluster.lists import chunks, extend, images_of


def images(*names: str) -> Iterator[Item]:
    return (Item(name, f"shard of {name}.tar", 512, 7) for name in names)


def test_chunks_are_lines_and_are_named_by_their_images(tmp_path: Path) -> None:
    assert extend(tmp_path, images("a", "b\n", "ç", "d", "e")) == 5
    found = list(chunks(tmp_path, 2))
    assert [chunk.images for chunk, _ in found] == [2, 2, 1]
    assert [images_of(tmp_path, chunk) for chunk, _ in found] == [
        list(images(*names)) for names in (("a", "b\n"), ("ç", "d"), ("e",))
    ]
    assert [name for _, name in found] == [table.digest(names) for names in (["a", "b\n"], ["ç", "d"], ["e"])]
    assert list(chunks(tmp_path, 2)) == found


def test_what_is_new_is_another_list_and_changes_no_chunk(tmp_path: Path) -> None:
    assert extend(tmp_path, images("b", "d", "f")) == 3
    before = list(chunks(tmp_path, 2))
    assert extend(tmp_path, images("a", "b", "c", "d")) == 5
    after = list(chunks(tmp_path, 2))
    assert after[:2] == before and images_of(tmp_path, after[2][0]) == list(images("a", "c"))
    assert extend(tmp_path, images("f", "a", "a")) == 5
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["0000.jsonl", "0001.jsonl"]


def test_an_image_that_comes_twice_leaves_no_list(tmp_path: Path) -> None:
    # a digest that ends in 0, as one of 256 does: arrays of bytes drop that
    name = next(name for name in map(str, range(9999)) if blake2b(name.encode(), digest_size=16).digest()[-1] == 0)
    with pytest.raises(InputError, match=rf"^{name}: wanted each image once, got it twice"):
        extend(tmp_path, images("a", name, "b", name))
    with pytest.raises(InputError, match=r"wanted each image once, got it and others twice"):
        extend(tmp_path, images("a", "b", "b", "a"))
    assert list(tmp_path.iterdir()) == []
    extend(tmp_path, images("a", name))
    assert extend(tmp_path, images(name)) == 2


def test_a_name_that_a_table_cannot_hold_is_told_before_anything_is_explained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wanted a name in UTF-8, as the table has them"):
        extend(tmp_path, images("a", b"caf\xe9.jpg".decode("utf-8", "surrogateescape")))
    assert list(tmp_path.iterdir()) == []


def test_a_list_is_not_held(tmp_path: Path) -> None:
    """Names of 200 letters cost their digests, and a batch of them."""
    count = 60_000
    tracemalloc.start()
    try:
        extend(tmp_path, (Item(f"{index:0200}", "one.tar") for index in range(count)))
        assert sum(chunk.images for chunk, _ in chunks(tmp_path, 64)) == count
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 * count  # the names alone are 200
