"""The study of the loop on scenes with a planted shortcut: its parts by hand, and its short form whole."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from debugging.shortcut_study import (
    CEILING,
    caused_by_background,
    choose,
    controls,
    debugged,
    find,
    inputs,
    interval,
    kept_concepts,
    looked_at,
    main,
    test_scores,
)
from training.scenes import SceneSettings
from training.shortcut_scenes import LABELS, ShortcutScenes, shortcut_scenes, stacked, with_background

test_scores.__test__ = False  # type: ignore[attr-defined]
SMALL = SceneSettings(size=(32, 32))


class ReadsTheBackground(nn.Module):
    """A network that names a square where colours change along the second row, and else a circle."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, 6)
        with torch.no_grad():
            self.features.weight.zero_()
            # Differences along a row, of both signs, of the three colours together; and a constant.
            for channel, sign in ((0, 1.0), (1, -1.0)):
                self.features.weight[channel, :, 1, 0], self.features.weight[channel, :, 1, 2] = -sign, sign
            self.features.get_parameter("bias")[:] = torch.tensor([0.0, 0.0, 0.0, 1.0])
            self.head.weight.zero_()
            self.head.bias.zero_()
            self.head.weight[1, :2] = 20.0
            self.head.weight[0, 3] = 6.0

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images)[:, :, 1].relu().mean(2))


@pytest.fixture(scope="module")
def scenes() -> ShortcutScenes:
    return shortcut_scenes(11, 96, 1 / 6, SMALL)


def test_find_and_concepts_name_the_background_that_a_model_reads(scenes: ShortcutScenes) -> None:
    model = debugged(ReadsTheBackground(), 32)
    errors = find(model, scenes, looked_at(model, scenes))
    bare = [not scenes.segments[int(error["image"])][:4].any() for error in errors]  # no object in the first rows
    caused = [error for error, alone in zip(errors, bare, strict=True) if alone and error["of_background"]]
    striped = [error for error in caused if error["named"] == "square"]
    assert len(striped) > 5
    for error in striped:
        first = next(segment for segment in error["segments"] if segment["rank"] == 1)
        assert first["label"] == "background"
    assert "background" in {concept["label"] for concept in kept_concepts(striped, striped[0]["truth"])}


def test_images_that_a_strategy_chooses(scenes: ShortcutScenes) -> None:
    model = debugged(ReadsTheBackground(), 32)
    looked = looked_at(model, scenes)
    errors = find(model, scenes, looked)
    for strategy in ("random", "similarity", "active", "concept", "loss"):
        chosen = choose(strategy, model, scenes, looked, errors, 4, seed=0)
        assert len(set(chosen.tolist())) == len(chosen)
        assert np.bincount(scenes.labels[chosen], minlength=6).max() <= 4
        assert np.array_equal(chosen, choose(strategy, model, scenes, looked, errors, 4, seed=0))
    by_loss = choose("loss", model, scenes, looked, errors, 1, seed=0)
    losses = nn.functional.cross_entropy(looked.scores, torch.from_numpy(scenes.labels), reduction="none")
    for label in range(len(LABELS)):
        own = np.flatnonzero(scenes.labels == label)
        assert losses[own].argmax() == own.tolist().index(by_loss[label])
    ceiling = choose(CEILING, model, scenes, looked, errors, 4, seed=0)
    assert sorted(ceiling.tolist()) == np.flatnonzero(scenes.conflicting).tolist()


def test_scores_of_a_model_that_reads_the_background(scenes: ShortcutScenes) -> None:
    found = test_scores(debugged(ReadsTheBackground(), 32), scenes)
    right = found["aligned"] * (~scenes.conflicting).sum() + found["conflicting"] * scenes.conflicting.sum()
    assert found["accuracy"] == pytest.approx(right / len(scenes.labels))
    assert 0 <= found["background"] <= 1


class Remembers(nn.Module):
    """A network that knows some images, and gives each its answer."""

    def __init__(self, images: Tensor, answers: list[int]) -> None:
        super().__init__()
        self.images = images.flatten(1)
        self.head = nn.Linear(len(images), len(LABELS), bias=False)
        self.head.weight = nn.Parameter(torch.eye(len(LABELS))[answers].T)

    def forward(self, images: Tensor) -> Tensor:
        nearest = torch.cdist(images.flatten(1), self.images).argmin(1)
        return self.head(nn.functional.one_hot(nearest, len(self.images)).float())


@pytest.mark.parametrize(
    ("others", "caused"), [((2, 0, 3, 4), True), ((1, 0, 3, 4), True), ((1, 1, 3, 4), False), ((1, 1, 1, 1), False)]
)
def test_a_background_causes_an_error_that_most_others_do_not_make(others: tuple[int, ...], caused: bool) -> None:
    """A circle on the square's columns, taken for a square; with its own background as well, which does not count."""
    scenes = stacked([with_background(3, 6, texture, SMALL) for texture in range(6)])
    model = debugged(Remembers(inputs(scenes), [1, 1, *others]), 32)
    error = {"image": "6", "truth": "circle", "named": "square", "of_background": True}
    assert caused_by_background(model, 3, SMALL, error) is caused
    assert not caused_by_background(model, 3, SMALL, error | {"of_background": False})


def test_the_control_asks_of_right_answers_against_the_background(scenes: ShortcutScenes) -> None:
    model = debugged(ReadsTheBackground(), 32)
    looked = looked_at(model, scenes)
    right = looked.scores.argmax(1).numpy() == scenes.labels
    found = controls(model, scenes, looked)
    assert 0 < len(found) == (right & scenes.conflicting).sum()
    assert set(found) <= {"background", "object", "distractor", None}


def test_intervals_by_hand() -> None:
    mean, half = interval([1.0, 2.0, 3.0])
    assert mean == 2.0 and half == pytest.approx(4.303 / math.sqrt(3))
    assert math.isnan(interval([1.0])[1])


def test_the_short_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "study.json"
    assert main(["--quick", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    (seed,) = json.loads(out.read_text())["seeds"]
    assert seed["errors"] >= seed["of_background"] >= seed["caused"]
    assert list(seed["strategies"]) == ["none", "random", "concept", "ceiling"]
    assert seed["strategies"]["ceiling"]["found"] == 1
    assert seed["strategies"]["random"]["images"] == 30
    assert all(f"| {name} |" in told for name in seed["strategies"])
    assert main(["--print", "--out", str(out)]) == 0
    assert capsys.readouterr().out == told
    assert main(["--print", "--out", str(tmp_path / "none.json")]) == 1
