"""Images of a data set, from wherever they are: their order, their ids and their bytes."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imagexplain.cluster.inputs import InputError, items, read
from tests.wire.photos import noise_photo


def contents(seed: int) -> bytes:
    file = io.BytesIO()
    noise_photo(4, 5, seed).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "b").mkdir(parents=True)
    for seed, name in enumerate(("b/two.PNG", "one.jpg", "b/one.jpg", "z.webp")):
        (folder / name).write_bytes(contents(seed))
    (folder / "notes.md").write_text("no image")
    return folder


def test_a_folder_is_listed_in_order_with_all_below_it(photos: Path) -> None:
    found = list(items([str(photos)]))
    assert [item.id for item in found] == [
        str(photos / name) for name in ("one.jpg", "z.webp", "b/one.jpg", "b/two.PNG")
    ]
    assert [item.size for item in found] == [len(contents(seed)) for seed in (1, 3, 2, 0)]
    assert list(read(found, 10**6)) == [contents(seed) for seed in (1, 3, 2, 0)]


def test_a_glob_and_a_list_name_files(photos: Path, tmp_path: Path) -> None:
    assert [item.id for item in items([str(photos / "**" / "one.*")])] == [
        str(photos / "b" / "one.jpg"),
        str(photos / "one.jpg"),
    ]
    listed = tmp_path / "list.txt"
    listed.write_text("photos/z.webp\n\nphotos/b\n")
    assert [item.id for item in items([str(listed)])] == [
        str(tmp_path / "photos" / name) for name in ("z.webp", "b/one.jpg", "b/two.PNG")
    ]


def test_members_of_a_tar_file_are_read_in_place(photos: Path, tmp_path: Path) -> None:
    shard = tmp_path / "shard.tar"
    with tarfile.open(shard, "w") as tar:
        for name in ("z.webp", "notes.md", "b/two.PNG"):
            tar.add(photos / name, name)
    found = list(items([str(shard)]))
    assert [item.id for item in found] == [f"{shard}/z.webp", f"{shard}/b/two.PNG"]
    assert list(read(found[::-1], 10**6)) == [contents(0), contents(3)]
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as tar:
        tar.add(photos / "z.webp", "z.webp")
    with pytest.raises(InputError, match=r"packed\.tar: wanted a tar file without compression"):
        list(items([str(tmp_path / "packed.tar")]))


@pytest.mark.parametrize("form", ["bytes", "image"])
def test_rows_of_a_parquet_file(tmp_path: Path, form: str) -> None:
    images = [contents(seed) for seed in range(5)]
    rows = [{"bytes": image, "path": None} for image in images] if form == "image" else images
    names = {"id": [f"photo {place}" for place in range(5)]} if form == "image" else {}
    path = tmp_path / "photos.parquet"
    pq.write_table(pa.table({form: rows, **names}), path, row_group_size=2)
    found = list(items([str(path)]))
    expected = [f"photo {place}" if form == "image" else str(place) for place in range(5)]
    assert [item.id for item in found] == [f"{path}#{name}" for name in expected]
    assert list(read(found, 10**6)) == images and list(read(found[3:], 10**6)) == images[3:]


def test_what_is_not_there_is_told_before_anything_is_explained(photos: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    plain = tmp_path / "plain.parquet"
    pq.write_table(pa.table({"caption": ["none"]}), plain)
    (tmp_path / "torn.parquet").write_bytes(plain.read_bytes()[:-4])
    for name, wanted in {
        "nowhere": "wanted a folder, a file or a glob, got nothing there",
        "empty": "wanted images .*, got none",
        "plain.parquet": "wanted a column bytes or image with the bytes of images, got caption",
        "torn.parquet": "wanted a Parquet file",
    }.items():
        with pytest.raises(InputError, match=f"{name}: {wanted}"):
            list(items([str(tmp_path / name)]))


def test_a_file_that_cannot_be_read_is_an_error_of_its_own(photos: Path) -> None:
    found = list(items([str(photos)]))
    (photos / "z.webp").unlink()
    first, gone, *_ = read(found, 10**6)
    assert first == contents(1) and isinstance(gone, FileNotFoundError)
    assert list(read(found[:1], 10)) == [contents(1)[:11]]  # enough to be refused as too large
