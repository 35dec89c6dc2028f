from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from imagexplain.cli import accuracy, demo, explain
from imagexplain.cli.accuracy import Scored
from tests.conftest import Served
from tests.tensors import unpacked
from training.scenes import CLASSES, scene
from training.train_classifier import RECIPES

OF_SCENES = (*RECIPES, "places")
"""Classifiers that know the shapes of the scenes."""


def test_the_report_counts_by_class_and_says_what_went_wrong() -> None:
    scores = [
        Scored(Path("cat/1.png"), "cat", ("cat", "dog")),
        Scored(Path("cat/2.png"), "cat", ("dog", "cat")),
        Scored(Path("dog/1.png"), "dog", ("dog", "cat")),
        Scored(Path("newt/1.png"), "newt", ("cat", "dog")),
        Scored(Path("newt/2.png"), "newt", fault="415 image: unknown format"),
    ]
    assert list(accuracy.report(scores)) == [
        "class  images   right  accuracy  most often mistaken for",
        "cat         2       1    50.00%  dog (1)",
        "dog         1       1   100.00%",
        "newt        2       0     0.00%  cat (1)",
        "warning: no answer names 'newt': is it a label of this model?",
        "no answer for newt/2.png: 415 image: unknown format",
        "accuracy 40.00% (2 of 5, 1 without an answer)",
    ]


def test_a_folder_without_images_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert accuracy.main([str(tmp_path), "--model", "bit"]) == 1
    assert "wanted" in capsys.readouterr().err


def test_no_server_is_an_error(tmp_path: Path, scene_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert explain.main([str(scene_file), "--model", "bit", "--run", str(tmp_path)]) == 1
    assert "no server runs" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["bit", "lanet"])
def test_accuracy_of_a_served_model(
    served: Served, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(30):
        example = scene(11, index)
        folder = tmp_path / CLASSES[example.label]
        folder.mkdir(exist_ok=True)
        Image.fromarray(example.image).save(folder / f"{index}.png")
    assert accuracy.main([str(tmp_path), "--model", model, "--run", served.server.run, "--connections", "4"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    right = int(last.split("(")[1].split()[0])
    assert last.endswith("of 30)")
    assert right >= 25


def test_explain_writes_the_tensors_and_the_heat_map(served: Served, tmp_path: Path, scene_file: Path) -> None:
    run = ["--run", served.server.run, "--out", str(tmp_path)]
    assert explain.main([str(scene_file), "--model", "bit", "--target", "star", "--steps", "10", *run]) == 0
    result = unpacked((tmp_path / "scene_bit.gzip").read_bytes())
    assert result["integrated_grads"].shape == (1, 3, 32, 32)
    assert result["steps"] == 10
    with Image.open(tmp_path / "scene_bit.png") as picture:
        assert picture.format == "PNG"


def test_a_refusal_is_shown_in_the_servers_words(
    served: Served, tmp_path: Path, scene_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = ["--run", served.server.run, "--out", str(tmp_path)]
    assert explain.main([str(scene_file), "--model", "bit", "--target", "zebra", *run]) == 1
    error = capsys.readouterr().err
    assert "422 target_class" in error
    assert "zebra" in error


def names(folder: Path, photo: str) -> set[str]:
    """Files of a photo in a folder, without its name."""
    return {path.name.removeprefix(photo) for path in folder.iterdir() if path.name.startswith(photo)}


def test_the_demonstration_explains_photos_and_a_scene(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each by the models that know what is in it, real photos first."""
    assert demo.main(["--run", served.server.run, "--out", str(tmp_path)]) == 0
    of_photos = {f"_imagenet{end}" for end in (".gzip", ".png")}
    for photo in ("cat", "coffee"):
        assert names(tmp_path, photo) == {".png", "_overview.png", *of_photos}
        assert names(tmp_path / "segments", photo) == of_photos
    scene = next(tmp_path.glob("scene_*_overview.png")).name.removesuffix("_overview.png")
    answers = {f"_{model}{end}" for model in OF_SCENES for end in (".gzip", ".png")}
    instances = {f"_{model}{end}" for model in ("swin", "tensormask") for end in ("_instances.png", ".gzip", ".png")}
    assert names(tmp_path, scene) == {".png", "_overview.png", *answers, *instances}
    assert names(tmp_path / "segments", scene) == answers
    captions = {f"{number}{end}" for number in "12" for end in (".json", "_captioner.png")}
    assert names(tmp_path, "captions_graph_") == captions
    told = capsys.readouterr().out
    assert "captioner, captions_graph_1.json: " in told and " ← " in told
    assert told.index("cat.png") < told.index("coffee.png") < told.index(f"{scene}.png")
    assert "imagenet: tiger cat 39" in told and "imagenet: espresso 95" in told


def test_a_photo_of_ones_own_goes_to_every_model(
    served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Segmenters that know none of it say so."""
    Image.new("RGB", (120, 90), "grey").save(tmp_path / "grey.png")
    out = tmp_path / "out"
    assert demo.main(["--run", served.server.run, "--out", str(out), "--image", str(tmp_path / "grey.png")]) == 0
    answers = {f"_{model}{end}" for model in (*OF_SCENES, "imagenet") for end in (".gzip", ".png")}
    assert names(out, "grey") == {"_overview.png", *answers}
    told = capsys.readouterr().out
    for model in ("swin", "tensormask"):
        assert f"{model}: finds nothing here, for it knows the 10 shapes of the scenes alone" in told
