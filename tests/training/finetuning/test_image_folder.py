"""Labelled folders: what is in them, what is wrong with them, and the batches that come of them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from imagexplain.errors import ArgumentError
from tests.training.finetuning.folders import CLASSES, labelled_folder
from tests.wire.photos import encoded, jpeg, noise_photo, png
from training.finetuning import image_folder
from training.finetuning.image_folder import ImageFolder, find_faults, list_folder, refuse
from training.finetuning.pipeline import Augmentation, Pipeline, recipe_preprocess

PREPROCESS = recipe_preprocess((32, 32))
ORDER = [torch.tensor([0, 3]), torch.tensor([5, 1])]


def folder(root: Path) -> Path:
    return labelled_folder(root, counts=(2, 2, 2))


def test_classes_and_photos_are_in_the_order_of_their_names(tmp_path: Path) -> None:
    listing = list_folder(folder(tmp_path))
    assert listing.classes == CLASSES
    assert [photo.label for photo in listing.photos] == [0, 0, 1, 1, 2, 2]
    files = [photo.file.relative_to(tmp_path).as_posix() for photo in listing.photos]
    assert files == sorted(files) and len(files) == 6


def test_photos_lie_at_any_depth_and_hidden_files_are_none(tmp_path: Path) -> None:
    root = folder(tmp_path)
    (root / "light" / "more" / ".cache").mkdir(parents=True)
    (root / "light" / "more" / "deep.png").write_bytes(png())
    (root / "light" / ".DS_Store").write_bytes(b"x")
    (root / ".DS_Store").write_bytes(b"x")
    (root / "light" / "more" / ".cache" / "hidden.png").write_bytes(b"x")
    files = [photo.file.name for photo in list_folder(root).photos if photo.label == 1]
    assert files == ["0.png", "1.png", "deep.png"]


BROKEN: dict[str, tuple[bytes, str]] = {
    "empty.jpg": (b"", "got nothing"),
    "truncated.jpg": (jpeg()[:-200], "truncated"),
    "truncated.png": (encoded(noise_photo(40, 40))[:-900], "truncated|incomplete|damaged|unreadable|broken"),
    "notes.txt": (b"these are the classes", "wanted JPEG, PNG or WebP"),
    "page.jpg": (b"<html>not found</html>", "markup"),
    "old.bmp": (encoded(noise_photo(4, 4), "BMP"), "BMP"),
    "line.png": (png(1, 101), "at most 100 times as long as it is wide, got 101 × 1"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_photo_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    content, reason = BROKEN[name]
    root = folder(tmp_path / "train")
    (root / "dark" / name).write_bytes(content)
    listing = list_folder(root)
    faults = find_faults([listing], tmp_path / "checked.json", progress=False)
    assert list(faults) == [root / "dark" / name]
    with pytest.raises(ArgumentError, match=f"(?s)^photos: wanted photos that can be read, got\n.*{re.escape(name)}: "):
        refuse(faults)
    assert re.search(reason, faults[root / "dark" / name]), faults
    assert [photo.file.name for photo in listing.without(faults).photos if photo.label == 0] == ["0.png", "1.png"]


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    root = folder(tmp_path / "train")
    listing = list_folder(root)
    listing.photos[0].file.unlink()
    assert image_folder.fault(listing.photos[0].file).startswith("[Errno 2]")


def test_palettes_and_transparency_become_rgb(tmp_path: Path) -> None:
    root = folder(tmp_path / "train")
    red = Image.new("RGB", (40, 40), (255, 0, 0))
    red.convert("P").save(root / "dark" / "0.png")
    red.convert("P", palette=Image.Palette.ADAPTIVE).save(root / "dark" / "1.png", transparency=0)
    assert find_faults([list_folder(root)], tmp_path / "c.json", progress=False) == {}
    images, _ = next(ImageFolder(list_folder(root), Pipeline(PREPROCESS)).batches([torch.tensor([0, 1])], 0))
    pixels = torch.stack([PREPROCESS.picture(image)[16, 16] for image in images])
    assert pixels.tolist() == [[255, 0, 0], [255, 255, 255]], "transparency shows white, as in the service"


def test_what_was_checked_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, memory = folder(tmp_path / "train"), tmp_path / "run" / "checked.json"
    (root / "dark" / "bad.png").write_bytes(b"")
    read: list[str] = []
    check = image_folder.fault

    def watched(file: Path) -> str:
        read.append(file.name)
        return check(file)

    monkeypatch.setattr(image_folder, "fault", watched)
    first = find_faults([list_folder(root)], memory, progress=False)
    assert len(read) == 7 and len(first) == 1
    assert find_faults([list_folder(root)], memory, progress=False) == first and len(read) == 7
    (root / "dark" / "bad.png").write_bytes(png())
    os.utime(root / "dark" / "0.png", (1, 1))
    assert find_faults([list_folder(root)], memory, progress=False) == {}
    assert sorted(read[7:]) == ["0.png", "bad.png"]


def without(*names: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        for name in names:
            for file in (root / name).iterdir():
                file.unlink()

    return change


def renamed(old: str, new: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        (root / old).rename(root / new)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("light"), "train: wanted a photo in every class's folder, got none in {root}/light"),
        (
            lambda root: (root / "list.csv").write_text(""),
            "train: wanted folders of classes alone, got {root}/list.csv",
        ),
    ],
)
def test_a_folder_that_is_not_as_wanted_is_refused(
    change: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    root = folder(tmp_path / "train")
    change(root)
    with pytest.raises(ArgumentError, match=f"^{re.escape(message.format(root=root))}$"):
        list_folder(root)


def test_more_photos_of_some_classes_come_behind_the_others(tmp_path: Path) -> None:
    train = list_folder(folder(tmp_path / "train"))
    more = folder(tmp_path / "more")
    for name in ("dark", "middle"):
        (more / name).rename(tmp_path / name)
    both = train.joined([list_folder(more, train.classes, some=True)])
    assert both.photos[:6] == train.photos and both.count_classes() == {"dark": 2, "light": 4, "middle": 2}
    assert [(photo.name, photo.label) for photo in both.photos[6:]] == [("light/0.png", 1), ("light/1.png", 1)]
    fingerprint = ImageFolder(both, Pipeline(PREPROCESS)).fingerprint()
    assert fingerprint != ImageFolder(train, Pipeline(PREPROCESS)).fingerprint()
    (more / "light").rename(more / "odd")
    with pytest.raises(ArgumentError, match=r"^more: wanted the classes of the training images.*odd besides"):
        list_folder(more, train.classes, some=True)


def test_links_are_followed_and_those_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    root = folder(tmp_path / "train")
    labelled_folder(tmp_path / "elsewhere", counts=(1, 1, 1))
    (root / "dark" / "linked").symlink_to(tmp_path / "elsewhere" / "dark")
    (root / "dark" / "nowhere.png").symlink_to(tmp_path / "nothing.png")
    listing = list_folder(root)
    assert [photo.name for photo in listing.photos][2:4] == ["dark/linked/0.png", "dark/nowhere.png"]
    assert list(find_faults([listing], tmp_path / "c.json", progress=False)) == [root / "dark" / "nowhere.png"]


def test_a_class_of_which_nothing_can_be_read_is_refused(tmp_path: Path) -> None:
    root = folder(tmp_path / "train")
    for file in (root / "light").iterdir():
        file.write_bytes(b"")
    listing = list_folder(root)
    with pytest.raises(ArgumentError, match=f"got none in {root}/light"):
        listing.without(find_faults([listing], tmp_path / "c.json", progress=False))


def test_no_folder_and_a_single_class_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=f"^absent: wanted a folder <class>/<photo>, got none at {tmp_path}/absent"):
        list_folder(tmp_path / "absent")
    (tmp_path / "only").mkdir()
    with pytest.raises(ArgumentError, match=r"wanted at least two classes, got \['only'\]"):
        list_folder(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("light"), "val: wanted a photo in every class's folder, got none in {root}/light"),
        (renamed("light", "middle2"), "val: wanted the classes of the training images, got no light, middle2 besides"),
    ],
)
def test_a_class_that_is_missing_from_val_is_named(
    change: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    root = folder(tmp_path / "val")
    change(root)
    with pytest.raises(ArgumentError, match=f"^{re.escape(message.format(root=root))}"):
        list_folder(root, CLASSES)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_augmented_image_is_a_function_of_the_seed_and_its_number(workers: int, tmp_path: Path) -> None:
    images = ImageFolder(list_folder(folder(tmp_path)), Pipeline(PREPROCESS, Augmentation()), workers)
    (first, labels), (second, _) = images.batches(ORDER, seed=3)
    assert labels.tolist() == [0, 1] and first.shape == (2, 3, 32, 32)
    here = ImageFolder(images.listing, images.pipeline)
    (alone, _), *_ = here.batches([torch.tensor([1])], seed=3)
    assert torch.equal(alone[0], second[1])
    (other, _), *_ = here.batches([torch.tensor([1])], seed=4)
    assert not torch.equal(other, alone)


def test_a_fingerprint_tells_other_photos_and_other_pipelines(tmp_path: Path) -> None:
    root = folder(tmp_path / "one" / "train")
    images = ImageFolder(list_folder(root), Pipeline(PREPROCESS))
    before = images.fingerprint()
    assert ImageFolder(list_folder(root), Pipeline(PREPROCESS, Augmentation())).fingerprint() != before
    (tmp_path / "one").rename(tmp_path / "two")
    moved = tmp_path / "two" / "train"
    assert ImageFolder(list_folder(moved), Pipeline(PREPROCESS)).fingerprint() == before
    (moved / "light" / "1.png").write_bytes(png())
    assert ImageFolder(list_folder(moved), Pipeline(PREPROCESS)).fingerprint() != before


def test_a_photo_that_goes_away_is_named(tmp_path: Path) -> None:
    images = ImageFolder(list_folder(folder(tmp_path)), Pipeline(PREPROCESS))
    images.listing.photos[3].file.unlink()
    with pytest.raises(ValueError, match=r"light/1\.png: wanted the photo that was there when the training began"):
        list(images.batches(ORDER, 0))
