from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from debugging.images import any_folder, labelled_folder, read_photo
from debugging.pictures import MOST_PIXELS, box_around, segment_picture
from debugging.segmentation import Grid, Instances, LabelMaps, Superpixels, label_map, over_photo
from imagexplain.errors import ArgumentError
from imagexplain.vision.preprocess import preprocess
from imagexplain.vision.preprocess_settings import Preprocess
from imagexplain.vision.superpixels import GridSettings, SlicSettings
from tests.debugging.scene_folder import write_png
from tests.serving.asking import rle

SETTINGS = Preprocess((8, 8), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.fixture
def photo_file(tmp_path: Path) -> Path:
    file = tmp_path / "photos" / "cat" / "1.png"
    write_png(file, np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3))
    return file


def test_images_are_sorted_by_class_and_name(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/10.PNG", "a/x.jpg", "a/notes.txt", ".hidden/y.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    folder = labelled_folder(tmp_path)
    assert folder.names == ("a/x.jpg", "b/10.PNG", "b/2.png")
    assert folder.classes == ("a", "b")
    assert folder.label("b/2.png") == "b"


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="got no class folder"):
        labelled_folder(tmp_path / "absent")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArgumentError, match=r"got none in .*empty"):
        labelled_folder(tmp_path)


def test_a_plain_folder_has_no_labels_and_is_not_mixed(tmp_path: Path) -> None:
    (tmp_path / "x.png").touch()
    folder = any_folder(tmp_path)
    assert (folder.names, folder.label("x.png")) == (("x.png",), None)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "y.png").touch()
    with pytest.raises(ArgumentError, match="got both"):
        any_folder(tmp_path)


def test_what_is_no_photo_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    with pytest.raises(ArgumentError, match=r"x\.png"):
        read_photo(tmp_path / "x.png")
    with pytest.raises(ArgumentError, match="cannot be read"):
        read_photo(tmp_path / "y.png")


def test_label_maps_with_names(photo_file: Path, tmp_path: Path) -> None:
    values = np.zeros((16, 16), dtype=np.uint8)
    values[:8] = 3
    values[8:, 8:] = 7
    write_png(tmp_path / "masks" / "cat" / "1.png", values)
    photo = read_photo(photo_file)
    seen = preprocess(photo, SETTINGS)
    found = LabelMaps(tmp_path / "masks").segments("cat/1.png", photo, seen)
    assert found.labels == ("segment 3", "segment 7")
    assert found.masks.flatten(1).sum(1).tolist() == [32, 16]
    (tmp_path / "masks" / "labels.json").write_text(json.dumps({"3": "sky"}))
    maps = LabelMaps(tmp_path / "masks")
    assert maps.named
    assert maps.segments("cat/1.png", photo, seen).labels == ("sky", "segment 7")
    request = maps.request("cat/1.png", photo)
    assert base64.b64decode(request.fields["masks"]) == (tmp_path / "masks" / "cat" / "1.png").read_bytes()
    assert request.names == {"segment 3": "sky"}


@pytest.mark.parametrize(
    ("names", "message"), [("[1]", "wanted names by value"), ("{", "wanted JSON"), ('{"1": ""}', "wanted names")]
)
def test_names_that_are_none(tmp_path: Path, names: str, message: str) -> None:
    (tmp_path / "labels.json").write_text(names)
    with pytest.raises(ArgumentError, match=message):
        _ = LabelMaps(tmp_path).named


def test_a_label_map_that_is_missing_or_does_not_fit(photo_file: Path, tmp_path: Path) -> None:
    photo = read_photo(photo_file)
    seen = preprocess(photo, SETTINGS)
    with pytest.raises(ArgumentError, match=r"wanted the label map .*1\.png"):
        LabelMaps(tmp_path).segments("cat/1.png", photo, seen)
    write_png(tmp_path / "masks" / "cat" / "1.png", np.zeros((4, 4), dtype=np.uint8))
    with pytest.raises(ArgumentError, match=r"cat/1\.png: wanted masks of the upright photo's 16 rows"):
        LabelMaps(tmp_path / "masks").segments("cat/1.png", photo, seen)


def test_of_instances_the_smaller_lies_over_the_larger(photo_file: Path) -> None:
    photo = read_photo(photo_file)
    large, small = np.zeros((2, 16, 16), dtype=bool)
    large[:8] = True
    small[:4, :4] = True
    detections = [rle(large) | {"label": "dog"}, rle(small) | {"label": "ball"}]
    asked: list[Any] = []

    def find(given: Any) -> dict[str, Any]:
        asked.append(given)
        return {"detections": detections}

    found = Instances(find).segments("cat/1.png", photo, preprocess(photo, SETTINGS))
    assert found.labels == ("dog", "ball")
    assert found.masks.flatten(1).sum(1).tolist() == [32 - 4, 4]
    assert asked == [photo]
    assert Instances(find).request("cat/1.png", photo).names == {"segment 1": "dog", "segment 2": "ball"}


def test_nothing_found_is_no_segment(photo_file: Path) -> None:
    photo = read_photo(photo_file)
    found = Instances(lambda _: {"detections": []}).segments("cat/1.png", photo, preprocess(photo, SETTINGS))
    assert len(found.masks) == 0


def test_label_maps_hold_more_than_a_byte_does() -> None:
    masks = torch.eye(300).bool().reshape(300, 15, 20)
    read = np.asarray(Image.open(io.BytesIO(label_map(masks))))
    assert read.flatten().tolist() == list(range(1, 301))


def test_superpixels_and_grids_cover_the_input(photo_file: Path) -> None:
    photo = read_photo(photo_file)
    seen = preprocess(photo, SETTINGS)
    for source in (Superpixels(SlicSettings(4)), Grid(GridSettings(2, 2))):
        found = source.segments("cat/1.png", photo, seen)
        assert found.masks.sum(0).eq(1).all()
        assert not source.named
    assert Superpixels(SlicSettings(4)).request("", photo).fields["n_segments"] == 4


def test_masks_go_back_to_where_they_were_in_the_photo(photo_file: Path) -> None:
    photo = read_photo(photo_file)
    seen = preprocess(photo, Preprocess((8, 8), (0.5,) * 3, (0.5,) * 3, fit="crop", crop_fraction=0.5))
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[0, :4] = True
    (back,) = over_photo(mask, seen).numpy()
    assert box_around(back) == (4, 4, 8, 12)


def test_the_picture_of_a_segment() -> None:
    photo = Image.new("RGB", (40, 20), (10, 20, 30))
    mask = np.zeros((20, 40), dtype=bool)
    mask[5:15, 10:20] = True
    crop = Image.open(io.BytesIO(segment_picture(photo, mask)))
    factor = MOST_PIXELS // 14  # 10 pixels and 2 on each side
    assert crop.size == (14 * factor, 14 * factor)
    middle = (crop.width // 2, crop.height // 2)
    assert crop.getpixel(middle) == (10, 20, 30)
    assert crop.getpixel((0, 0)) == (181, 184, 186)  # a quarter of it, and three of 238
    whole = Image.open(io.BytesIO(segment_picture(photo, mask, whole=True)))
    assert whole.size == (40 * 6, 20 * 6)
    assert box_around(np.zeros((3, 4), dtype=bool)) == (0, 0, 3, 4)


def test_a_large_photo_is_made_smaller() -> None:
    photo, mask = Image.new("RGB", (1000, 500)), np.ones((500, 1000), dtype=bool)
    assert Image.open(io.BytesIO(segment_picture(photo, mask))).size == (MOST_PIXELS, MOST_PIXELS // 2)
