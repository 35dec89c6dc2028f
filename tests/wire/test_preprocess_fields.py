"""Fields of a preprocessing that are none, or contradict each other."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from imagexplain.archive.spec import PreprocessSpec
from imagexplain.vision.preprocess_fields import PreprocessFields
from imagexplain.vision.preprocess_settings import Preprocess

USUAL: dict[str, Any] = {"size": (4, 4), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"resize": 8}, "resize: goes with fit: crop"),
        ({"fit": "pad", "longer": 8}, "longer: goes with fit: crop"),
        ({"fit": "crop", "resize": 8, "crop_fraction": 0.5}, "crop_fraction: says the size"),
        ({"fit": "crop", "resize": (8, 8), "longer": 9}, "longer: limits a resize by the shorter side"),
        ({"fit": "crop", "resize": 8, "longer": 8}, "longer: wanted more than resize, 8, got 8"),
        ({"fit": "crop", "resize": (8, 0)}, "resize: wanted a number of pixels, at least 1, or (height, width)"),
        ({"fit": "crop", "longer": (8, 8)}, "longer: wanted a number of pixels, at least 1, got"),
        ({"mean": (0.5,)}, "mean: wanted one number for each channel of rgb, 3, got 1"),
        ({"channels": "grey"}, "mean: wanted one number for each channel of grey, 1, got 3"),
        ({"channels": "rgba", "mean": (0.5,) * 4}, "std: wanted one number for each channel of rgba, 4, got 3"),
        ({"channels": "cmyk"}, "channels: wanted one of rgb, bgr, grey, rgba"),
        ({"standardize": True}, "standardize: takes each photo's own mean and std"),
        ({"scale": 0.0}, "scale: wanted a positive number"),
        ({"antialias": False}, "antialias: Pillow always does"),
        ({"antialias": False, "resampling": "torch", "interpolation": "lanczos"}, "antialias: torch's lanczos always"),
        ({"resampling": "torch", "interpolation": "box"}, "interpolation: wanted one of bicubic, bilinear"),
        ({"interpolation": "nearest_exact"}, "interpolation: wanted one of bicubic, bilinear, box"),
        ({"pad_value": 9.0}, "pad_value: goes with fit: pad or crop"),
        ({"fit": "pad", "pad_value": (1.0, 2.0)}, "pad_value: wanted one number, or one for each channel of rgb, 3"),
        ({"fit": "pad", "pad_value": 256.0}, "pad_value: wanted numbers in 0..255"),
        ({"fit": "pad", "pad_mode": "reflect", "pad_value": 9.0}, "pad_value: goes with pad_mode: constant"),
    ],
)
def test_contradictions_name_the_field(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="^" + message.replace("(", r"\(").replace(")", r"\)")):
        Preprocess(**USUAL | given)
    with pytest.raises(ValueError, match=message.partition(":")[0]):
        PreprocessSpec(**USUAL | given)


def test_a_spec_states_what_is_not_usual() -> None:
    assert set(PreprocessSpec(**USUAL).model_dump()) == {*USUAL, "fit", "crop_fraction", "interpolation"}
    told = PreprocessSpec(**USUAL, fit="crop", resize=[8, 9], antialias=True, scale=255)
    assert told.model_dump()["resize"] == (8, 9) and told.model_dump()["scale"] == 255.0
    assert "antialias" not in told.model_dump()
    assert PreprocessSpec.model_validate_json(told.model_dump_json()) == told
    assert Preprocess(**told.model_dump()).resize == (8, 9)


def test_statistics_of_each_photo_need_not_be_given() -> None:
    spec = PreprocessSpec(size=(4, 4), channels="grey", standardize=True)  # type: ignore[call-arg]
    assert (spec.mean, spec.std) == ((0.0,), (1.0,))
    assert Preprocess(**spec.model_dump()).standardize is True


def test_the_spec_has_the_fields_of_the_preprocessing() -> None:
    assert list(PreprocessSpec.model_fields) == [field.name for field in fields(PreprocessFields)]
    for field in fields(PreprocessFields)[3:]:
        assert PreprocessSpec.model_fields[field.name].default == field.default


def test_another_size_keeps_the_proportions() -> None:
    cropped = Preprocess(**USUAL | {"size": (224, 224)}, fit="crop", resize=256)
    assert cropped.at_size((112, 112)).resize == 128
    squashed = Preprocess(**USUAL | {"size": (200, 100)}, fit="crop", resize=(220, 120))
    assert squashed.at_size((100, 200)).resize == (110, 240)
    assert Preprocess(**USUAL, fit="crop", longer=6).at_size((8, 8)).longer == 12


def test_it_is_written_as_a_spec_states_it() -> None:
    wanted = "size=(4, 4), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), fit='crop', crop_fraction=1.0"
    written = f"{wanted}, interpolation='bilinear', resize=8"
    assert repr(Preprocess(**USUAL, fit="crop", resize=8)) == f"Preprocess({written})"
