from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import imagexplain.attribution as library
from imagexplain.archive.find import find_classifier
from imagexplain.cli import compare_methods
from imagexplain.cli.compare_methods import BOX, DIRECTIONAL, Question, ask, directional, main, named
from imagexplain.serving.method_attribution import watched
from imagexplain.vision.contact_sheet import Tile, places
from imagexplain.vision.geometry import fit
from imagexplain.vision.heatmap import overlay
from training.scenes import CLASSES, scene


def cells(count: int, columns: int) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    return places([Tile(Image.new("RGB", (BOX[0], BOX[0] * 48 // 64)), "")] * count, columns)


def test_every_method_is_compared_once_and_has_a_family() -> None:
    names = named(None)
    assert set(library.METHODS) <= set(names) and DIRECTIONAL in names
    assert "others" not in names.values()
    families = list(names.values())
    assert sorted(families, key=list(dict.fromkeys(families)).index) == families  # each in one piece


def test_chosen_methods_come_in_the_order_of_their_families() -> None:
    chosen = named(["guided_ig*hires_cam", "xrai", "gradient", DIRECTIONAL, "smooth:gradient"])
    assert list(chosen) == ["gradient", "xrai", DIRECTIONAL, "guided_ig*hires_cam", "smooth:gradient"]
    assert chosen["guided_ig*hires_cam"] == "combinations"


def test_a_sheet_of_a_model_for_which_one_method_has_no_meaning(
    scene_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "sheet.png"
    methods = ["integrated_gradients", "full_grad", DIRECTIONAL]
    run = ["--methods", *methods, "--steps", "4", "--columns", "2", "--out", str(out)]
    assert main([str(scene_file), "--model", "bit", *run]) == 0
    first, refused, path, segments, last = capsys.readouterr().out.splitlines()
    assert first.startswith("bit · ") and first.endswith(" · scene.png")
    assert refused.startswith("full_grad ") and "is not supported by this model: wanted one whose scores" in refused
    assert path.startswith("integrated_gradients ") and path.endswith(" 4 evaluations")
    assert segments.startswith(DIRECTIONAL) and segments.endswith(" 6 evaluations")
    assert last.startswith("3 methods in ") and last.endswith(f"s: {out}")
    corners, size = cells(4, 2)
    with Image.open(out) as sheet:
        assert sheet.format == "PNG" and sheet.size == size
        pixels = np.asarray(sheet).astype(int)
    drawn = [pixels[top : top + BOX[0] * 48 // 64, left : left + BOX[0]] for left, top in corners]
    colour = [np.ptp(tile, axis=2).max() for tile in drawn]
    assert colour[1] < 12 and min(colour[0], colour[2], colour[3]) > 60


@pytest.fixture(scope="module")
def question(tmp_path_factory: pytest.TempPathFactory) -> Question:
    path = tmp_path_factory.mktemp("photos") / "scene.png"
    Image.fromarray(scene(11, 0).image).save(path)
    return ask(path, find_classifier("lanet", compare_methods.SPECS), target="star", steps=4)


def test_a_tile_is_the_methods_map_over_the_photo(question: Question) -> None:
    target = CLASSES.index("star")
    assert question.target == target
    photo, path = compare_methods.tiles(question, named(["input_x_gradient"]))
    assert photo.name == "star" and photo.picture.size == (BOX[0], BOX[0])
    maps = library.input_x_gradient(question.network, question.image, target)
    geometry = fit((BOX[0], BOX[0]), question.preprocess)
    assert np.array_equal(np.asarray(path.picture), np.asarray(overlay(question.photo, maps, geometry)))
    assert path.name == "input_x_gradient" and path.note.endswith(", 1 evaluation")


def test_steps_and_lengths_reach_the_methods(question: Question) -> None:
    options = dict(compare_methods.plan("guided_ig*hires_cam", question).options)
    assert options["steps"] == 4 and options["rule"] == "gauss_legendre"
    assert 32 * options["max_sigma"] == pytest.approx(50 * 32**2 / 224)
    assert (options["size"], options["stride"], options["least"]) == (2, 1, 1)
    smoothed = compare_methods.plan("smooth:gradient", question)
    assert smoothed.methods == ("gradient",) and smoothed.smoothing is not None


def test_superpixels_that_are_the_whole_image_have_the_whole_directional_gradient(question: Question) -> None:
    value = directional(question, torch.zeros(32, 32, dtype=torch.int64), 3)
    start = question.baselines[:, 0]
    maps = library.integrated_gradients(question.network, question.image, question.target, baselines=start, steps=4)
    assert torch.allclose(value, (maps.double().sum() / (question.image - start).double().norm()).reshape(1), rtol=1e-5)


def test_a_contrast_is_of_the_difference_of_two_classes(question: Question, tmp_path: Path) -> None:
    Image.fromarray(scene(11, 0).image).save(tmp_path / "scene.png")
    lanet = find_classifier("lanet", compare_methods.SPECS)
    other, both = (
        ask(tmp_path / "scene.png", lanet, target, steps=4, contrast=contrast)
        for target, contrast in (("ring", None), ("star", "ring"))
    )
    groups = torch.arange(32).view(1, 32).expand(32, 32) // 8
    each = [directional(one, groups, chunk=8) for one in (question, other, both)]
    torch.testing.assert_close(each[2], each[0] - each[1], rtol=1e-3, atol=1e-5)
    assert "star rather than ring" in compare_methods.heading(both, "scene.png")
    assert ("scores", "logits") in compare_methods.plan("rise", both).options
    assert both.layer is not None and question.layer is None
    with pytest.raises(ValueError, match="contrast: wanted another class than star"):
        ask(tmp_path / "scene.png", lanet, "star", contrast="star")


def test_what_a_method_gets_wrong_is_not_a_refusal(question: Question, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ValueError("steps: a bug")

    monkeypatch.setattr(compare_methods, "run", fails)
    with pytest.raises(ValueError, match="steps: a bug"):
        list(compare_methods.tiles(question, named(["gradient"])))
    assert not question.network._forward_pre_hooks


def test_a_map_of_zeros_says_so(question: Question, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_methods, "run", lambda *_, **__: torch.zeros(1, 1, 32, 32))
    _, tile = compare_methods.tiles(question, named(["gradient"]))
    assert np.ptp(np.asarray(tile.picture).astype(int), axis=2).max() < 12


def test_rows_are_counted(question: Question) -> None:
    so_far: list[int] = []
    with watched(question.network, so_far.append) as (_, rows), torch.no_grad():
        question.network(question.image.expand(3, -1, -1, -1))
        question.network(question.image)
    question.network(question.image)
    assert so_far == [3, 3 + 1] and rows == [3 + 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "lanett"], "did you mean 'lanet'"),
        (["--model", "swin"], "unknown classifier 'swin'"),
        (["--model", "none.yaml"], "none.yaml: cannot be read"),
        (["--model", "bit", "--methods", "grad_cm"], "did you mean 'grad_cam'"),
        (["--model", "bit", "--methods", "grad_cam*gradient"], "wanted a product of one map and one of"),
        (["--model", "bit", "--methods", f"smooth:{DIRECTIONAL}"], "cannot be smoothed"),
        (["--model", "bit", "--target", "zebra"], "unknown class 'zebra'"),
        (["--model", "bit", "--steps", "0"], "steps: wanted at least 1, got 0"),
        (["--model", "bit", "--columns", "0"], "columns: wanted at least 1, got 0"),
    ],
)
def test_errors_are_one_line(
    scene_file: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(scene_file), *arguments]) == 1
    written = capsys.readouterr()
    assert message in written.err and written.err.startswith("error: ") and written.err.count("\n") == 1
    assert not written.out


def test_files_that_are_no_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.png"
    text.write_text("no photo")
    assert main([str(text), "--model", "bit"]) == 1
    assert main([str(tmp_path / "nowhere.png"), "--model", "bit"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("error: ")
    assert "nowhere.png" in second


def test_a_spec_file_whose_weights_are_not_named(
    scene_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("BIT_WEIGHTS", raising=False)
    assert main([str(scene_file), "--model", str(compare_methods.SPECS / "bit_full.yaml")]) == 1
    assert "is not set" in capsys.readouterr().err
    assert main([str(scene_file), "--model", str(compare_methods.SPECS / "swin.yaml")]) == 1
    assert "wanted a classifier, got a segmenter" in capsys.readouterr().err
