from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imagexplain.api.request import Defaults, parse
from imagexplain.cli.prepare_input import main
from imagexplain.serving.tasks.segmenter import Segmenter
from imagexplain.vision.decode import Layout, from_list
from tests.wire.photos import PIXELS, encoded

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "prepare_input.py"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(Image.fromarray(PIXELS)))
    return path


def written(*arguments: object) -> dict[str, object]:
    main([str(argument) for argument in arguments])
    return dict(json.loads(Path(str(arguments[-1])).read_bytes()))


def test_classifier_form(photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert written(photo, "airplane", out) == {"img_data": PIXELS.tolist(), "target_class": "airplane"}
    request = parse({"body": out.read_bytes()}, {"content-type": "application/json"}, kind="explanation")
    assert request.legacy
    assert request.target == "airplane"
    assert np.array_equal(np.asarray(request.photo.image), PIXELS)


@pytest.mark.parametrize(
    ("options", "layout"), [([], "hwc"), (["--layout", "hwc"], "hwc"), (["--layout", "chw"], "chw")]
)
def test_mask_form(photo: Path, tmp_path: Path, options: list[str], layout: str) -> None:
    content = written(*options, photo, tmp_path / "out.json")
    assert list(content) == ["img_data"]
    bgr = PIXELS[..., ::-1]
    assert content["img_data"] == (bgr if layout == "hwc" else bgr.transpose(2, 0, 1)).tolist()
    again = from_list(content["img_data"], "hwc" if layout == "hwc" else "chw", "bgr")
    assert np.array_equal(np.asarray(again.image), PIXELS)


def test_photos_are_upright_and_in_colour(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "grey.png"
    path.write_bytes(encoded(Image.fromarray(np.array([[1, 2, 3]], dtype=np.uint8)), exif=exif.tobytes()))
    assert written(path, "cat", tmp_path / "out.json")["img_data"] == [[[1, 1, 1]], [[2, 2, 2]], [[3, 3, 3]]]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["missing.png", "cat", "out.json"], 1, "missing.png: No such file"),
        (["text.png", "cat", "out.json"], 1, "text.png: wanted JPEG, PNG or WebP"),
        (["photo.png", "cat", "no/out.json"], 1, "no/out.json: No such file"),
        (["photo.png"], 2, "OUT.json"),
        (["photo.png", "cat", "out.json", "more"], 2, "4 arguments"),
        (["photo.png", "cat", "out.json", "--layout", "chw"], 2, "--layout is for"),
        (["photo.png", "out.json", "--layout", "cwh"], 2, "hwc"),
    ],
)
def test_errors_are_one_line(photo: Path, arguments: list[str], code: int, words: str) -> None:
    (photo.parent / "text.png").write_text("not a photo")
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], cwd=photo.parent, capture_output=True, text=True, check=False
    )
    assert ended.returncode == code
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("layout", ["hwc", "chw"])
def test_every_mask_server_takes_what_is_written_by_default(photo: Path, tmp_path: Path, layout: Layout) -> None:
    written(photo, tmp_path / "out.json")
    row, defaults = {"body": (tmp_path / "out.json").read_bytes()}, Defaults(layout=layout, order="bgr")
    request = parse(row, {}, kind="prediction", defaults=defaults, contract=Segmenter.contract)
    assert np.array_equal(np.asarray(request.photo.image), PIXELS)


def test_three_rows_of_pixels_need_a_flag(tmp_path: Path) -> None:
    """3×W×3 is a photo in both layouts."""
    path = tmp_path / "flat.png"
    path.write_bytes(encoded(Image.fromarray(np.zeros((3, 5, 3), dtype=np.uint8))))
    with pytest.raises(SystemExit, match="say --layout hwc for Swin or --layout chw for TensorMask"):
        written(path, tmp_path / "out.json")
    assert len(written("--layout", "chw", path, tmp_path / "out.json")["img_data"]) == 3  # type: ignore[arg-type]
    assert written(path, "cat", tmp_path / "out.json")["target_class"] == "cat"
