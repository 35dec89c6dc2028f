"""Groups, baselines and tolerances through the handler, called as TorchServe calls it."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

from handlers.classifier import ClassifierHandler
from imagexplain.serving.cache import Cache
from imagexplain.serving.render import short
from tests.pictures import panel
from tests.serving.asking import HEIGHT, WIDTH, ask_json, base64_png, rle
from tests.serving.handlers import forget
from tests.tensors import unpacked
from tests.wire.photos import encoded


def answer(handler: ClassifierHandler, **options: Any) -> dict[str, Any]:
    ((status, found),) = ask_json(handler, {"steps": 8, **options} if "tolerance" not in options else options)
    assert status == 200, found
    return found


def refused_options(handler: ClassifierHandler, **options: Any) -> tuple[int, str, str]:
    ((status, found),) = ask_json(handler, options)
    assert status == found["code"]
    return status, found["field"], found["message"]


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def test_a_grid_adds_up_to_the_score_difference(handler: ClassifierHandler) -> None:
    found = answer(handler, segments="grid", rows=3, columns=2, target_class="cat")
    rows = {row["label"]: row for row in found["groups"]}
    assert list(rows) == [*(f"grid {index}" for index in range(1, 7)), "whole image"]
    parts = sum(row["attribution"] for label, row in rows.items() if label != "whole image")
    difference = found["score"] - found["baseline_score"]
    assert parts == pytest.approx(difference - found["residual"], abs=1e-5)
    assert rows["whole image"]["attribution"] == pytest.approx(parts, abs=1e-5)
    assert rows["whole image"]["value"] == pytest.approx(1)
    assert sum(row["dividend"] for row in rows.values()) == pytest.approx(1)
    assert sum(row["area"] for row in rows.values()) == 2 * 32 * 32
    for row in rows.values():
        assert row["directional"] * row["norm"] == pytest.approx(row["attribution"], abs=1e-5)
    biggest = max((row for row in found["groups"] if row["kind"] != "whole"), key=lambda row: abs(row["attribution"]))
    assert found["largest"] == biggest["label"]
    assert found["finite"] is True


def test_tensors_by_group(handler: ClassifierHandler) -> None:
    (body,) = ask_json(handler, {"segments": "grid", "steps": 5}, accept="application/gzip")
    found = unpacked(body)
    for name in ("attribution", "directional", "dividend", "value", "area", "norm"):
        assert found[name].shape == (17,), name
    assert found["group_masks"].shape == (17, 32, 32) and found["group_masks"].dtype == torch.bool
    assert len(found["labels"]) == 17
    image = found["integrated_grads"][0].sum(0)
    wanted = torch.stack([image[mask].sum() for mask in found["group_masks"]])
    assert torch.allclose(found["attribution"], wanted, atol=1e-5)


def test_masks_that_were_sent(handler: ClassifierHandler) -> None:
    """The photo is stretched to 32×32; the left half, its upper part, nothing, and the left half again."""
    masks = [
        rle(box(0, 0, 40, 24)) | {"label": "left"},
        rle(box(0, 0, 20, 24)) | {"label": "upper left"},
        rle(box(0, 0, 0, 0)) | {"label": "nothing"},
        rle(box(0, 0, 40, 24)) | {"label": "left again"},
    ]
    found = answer(handler, masks=masks)
    rows = {row["label"]: row for row in found["groups"]}
    assert list(rows) == ["left", "upper left", "rest", "whole image"]
    assert [row["area"] for row in rows.values()] == [512, 256, 512, 1024]
    assert [row["parent"] for row in rows.values()] == [3, 0, 3, -1]
    assert (found["dropped"], found["merged"]) == (["nothing"], [["left again", "left"]])
    inner = rows["left"]["dividend"] + rows["upper left"]["dividend"]
    assert rows["left"]["value"] == pytest.approx(inner)
    parts = {tuple(part["segments"]): part for part in found["refinement"]}
    assert {names: part["area"] for names, part in parts.items()} == {
        ("left", "upper left"): 256, ("left",): 256, (): 512
    }  # fmt: skip
    total = sum(part["attribution"] for part in parts.values())
    assert total == pytest.approx(rows["whole image"]["attribution"], abs=1e-5)


def test_masks_and_superpixels_together(handler: ClassifierHandler) -> None:
    ramps = np.stack(np.meshgrid(np.arange(WIDTH) * 5, np.arange(HEIGHT) * 6), axis=-1)
    photo = encoded(Image.fromarray(np.dstack([ramps, ramps[..., :1]]).astype(np.uint8)))
    image = base64.b64encode(photo).decode()
    found = answer(handler, image=image, masks=[rle(box(0, 0, 40, 24))], segments="slic", n_segments=12)
    labels = [row["label"] for row in found["groups"]]
    assert labels[0] == "segment 1" and labels[-1] == "whole image"
    superpixels = [row for row in found["groups"] if row["label"].startswith("slic ")]
    assert 6 <= len(superpixels) <= 20
    assert sum(row["area"] for row in superpixels) == 32 * 32


def test_single_pixels_join_only_when_asked(handler: ClassifierHandler) -> None:
    without, with_pixels = (answer(handler, segments="grid", pixels=pixels) for pixels in (False, True))
    for a, b in zip(without["groups"], with_pixels["groups"], strict=True):
        assert a["directional"] == b["directional"]
        assert a["dividend"] > b["dividend"]
    (body,) = ask_json(handler, {"segments": "grid", "pixels": True, "steps": 8}, accept="application/gzip")
    found = unpacked(body)
    assert found["pixel_dividend"].shape == (32, 32)
    total = found["pixel_dividend"].sum() + found["dividend"].sum()
    assert total.item() == pytest.approx(1, abs=1e-5)


def test_without_the_sign_inside_the_integral(handler: ClassifierHandler) -> None:
    found = answer(handler, segments="grid", outputs=["absolute_directional"])
    for row in found["groups"]:
        assert row["absolute_directional"] >= abs(row["directional"]) - 1e-6
    assert any(row["absolute_directional"] > 1.01 * abs(row["directional"]) for row in found["groups"])
    assert refused_options(handler, outputs=["absolute_directional"])[:2] == (400, "outputs")


@pytest.mark.parametrize("name", ["zero", "black", "white", "mean", "blur", "uniform"])
def test_every_baseline_is_complete(handler: ClassifierHandler, name: str) -> None:
    found = answer(handler, baseline=name, segments="grid", steps=64)
    whole = found["groups"][-1]
    assert found["baseline"] == name
    assert whole["attribution"] + found["residual"] == pytest.approx(found["score"] - found["baseline_score"], abs=1e-4)


def test_a_second_image_as_baseline(handler: ClassifierHandler) -> None:
    found = answer(handler, baseline="image", baseline_image=base64_png(1))
    ((_, other),) = ask_json(handler, {"image": base64_png(1), "target_class": found["target_class"], "steps": 2})
    assert found["baseline_score"] == pytest.approx(other["score"], rel=1e-4)


def test_a_tensor_as_baseline(handler: ClassifierHandler) -> None:
    grey = torch.full((3, 32, 32), -1.0)  # black under mean and deviation of a half
    found, wanted = answer(handler, baseline="tensor", baseline_tensor=grey.tolist()), answer(handler, baseline="black")
    assert found["residual"] == wanted["residual"]
    status, field, message = refused_options(handler, baseline="tensor", baseline_tensor=[[[0.0]]])
    assert (status, field) == (422, "baseline_tensor") and "(3, 32, 32)" in message and "(1, 1, 1)" in message


def test_noise_is_averaged_over_its_draws(handler: ClassifierHandler) -> None:
    one, two, again = (answer(handler, baseline="uniform", draws=draws, seed=5, segments="grid") for draws in (1, 2, 2))
    assert (two["draws"], two["evaluations"]) == (2, 16)
    assert two["groups"] == again["groups"]
    assert all(row["directional_spread"] > 0 for row in two["groups"])
    assert "directional_spread" not in one["groups"][0]


def test_a_tolerance_is_met_or_said_not_to_be(handler: ClassifierHandler) -> None:
    found = answer(handler, tolerance=0.2, segments="grid")
    assert (found["tolerance"], found["converged"]) == (0.2, True)
    assert found["relative_residual"] <= 0.2 and found["stability"] <= 0.2
    assert found["steps"] == found["evaluations"] <= 1000
    hopeless = answer(handler, tolerance=1e-9, steps=20, segments="grid")
    assert hopeless["converged"] is False
    assert hopeless["evaluations"] <= 20
    assert max(hopeless["relative_residual"], hopeless["stability"]) > 1e-9


def test_a_mixed_batch_equals_each_alone(handler: ClassifierHandler) -> None:
    requests: list[dict[str, Any]] = [
        {"segments": "grid", "steps": 7, "target_class": 3},
        {"masks": [rle(box(3, 3, 20, 30))], "steps": 12, "baseline": "white", "target_class": 5},
        {"tolerance": 0.3, "segments": "grid", "rows": 2, "target_class": 1},
        {"steps": 5, "target_class": 2, "baseline": "uniform", "draws": 3},
    ]
    together = [found for _, found in ask_json(handler, *requests)]
    handler.worker.task.scores, handler.worker.explanations = Cache(0), Cache(0)
    alone = [ask_json(handler, request)[0][1] for request in requests]
    for a, b in zip(together, alone, strict=True):
        assert a.get("evaluations") == b.get("evaluations")
        parts = sum(abs(part["attribution"]) for part in a.get("refinement", []))
        scale = max(abs(a["score"] - a["baseline_score"]), parts, 1e-6)
        for x, y in zip(a.get("groups", []), b.get("groups", []), strict=True):
            assert x["attribution"] == pytest.approx(y["attribution"], abs=1e-5 * scale)
        assert a["residual"] == pytest.approx(b["residual"], abs=1e-4 * scale)


def test_other_masks_on_a_known_image_evaluate_nothing(
    handler: ClassifierHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = answer(handler, segments="grid")

    def broken(*_: Any) -> Any:
        raise AssertionError("the model was evaluated")

    monkeypatch.setattr("imagexplain.serving.worker.integrate_paths", broken)
    monkeypatch.setattr("imagexplain.serving.tasks.classifier.predict", broken)
    second = answer(handler, masks=[rle(box(0, 0, 10, 10))])
    assert second["groups"][-1]["attribution"] == first["groups"][-1]["attribution"]
    for changed in ({"steps": 9}, {"target_class": 9}, {"baseline": "white"}, {"quadrature": "left"}):
        ((status, _),) = ask_json(handler, {"steps": 8, **changed})
        assert status == 500, changed  # the broken model was asked


def test_a_full_cache_forgets_and_another_image_is_another(handler: ClassifierHandler) -> None:
    handler.worker.explanations = Cache(2 * 3 * 32 * 32 * 4)  # room for one
    answer(handler)
    taken = handler.worker.explanations.bytes
    ((_, other),) = ask_json(handler, {"image": base64_png(1), "steps": 8})
    assert handler.worker.explanations.bytes == taken == 2 * 3 * 32 * 32 * 4
    assert other["score"] != answer(handler)["score"]


def test_segments_as_a_picture_of_the_photos_size(handler: ClassifierHandler) -> None:
    pictures = []
    for options in ({"segments": "grid"}, {}):
        (body,) = ask_json(handler, {"steps": 8, **options}, accept="image/png")
        pictures.append(panel(body))
    assert [picture.size for picture in pictures] == [(WIDTH, HEIGHT)] * 2
    assert not np.array_equal(np.asarray(pictures[0]), np.asarray(pictures[1]))


def test_the_legend_gives_each_segments_signed_part_of_the_score_difference(handler: ClassifierHandler) -> None:
    masks = [rle(box(0, 0, 20, 48)) | {"label": "猫\u202e"}, rle(box(20, 0, 40, 24)) | {"label": "\n"}]
    found = answer(handler, masks=masks, target_class="cat")
    (body,) = ask_json(handler, {"steps": 8, "masks": masks, "target_class": "cat"}, accept="image/png")
    picture = Image.open(io.BytesIO(body))
    shown = [line.split("  ") for line in picture.info["Description"].splitlines() if line[:3] in ("1  ", "2  ", "3  ")]
    rows = sorted((row for row in found["groups"] if row["kind"] != "whole"), key=lambda row: -abs(row["attribution"]))
    total = abs(found["score"] - found["baseline_score"])
    shares = [f"{row['attribution'] / total:+,.1%}".replace("-", "−") for row in rows]
    assert [line[3] for line in shown] == shares
    assert sorted(line[1] for line in shown) == ["(no label)", "U+732B U+202E", "rest"]
    assert picture.info["Title"] == "Evidence for cat"


def test_a_plain_picture_has_the_photos_size_and_says_how_it_was_smoothed(handler: ClassifierHandler) -> None:
    (body,) = ask_json(handler, {"method": "gradient", "picture": "plain", "picture_sigma": 0.1}, accept="image/png")
    picture = Image.open(io.BytesIO(body))
    assert picture.size == (WIDTH, HEIGHT) and "σ 10% of the input's shorter side" in picture.info["Description"]


def test_a_title_has_the_first_of_a_labels_synonyms() -> None:
    labels = ["great white shark, man-eater", "maillot", "maillot, tank suit", "crane, bird", "crane, machine", "a cat"]
    assert [short(labels, index) for index in range(6)] == ["great white shark", *labels[1:]]


def test_a_probability_is_never_rounded_to_none_or_to_certainty(handler: ClassifierHandler) -> None:
    labels = handler.worker.task.spec.labels
    scores = torch.tensor([20.0 * (label == "cat") for label in labels])
    with mock.patch("imagexplain.serving.tasks.classifier.predict", return_value=[scores]):
        lines = []
        for target in ("cat", labels[-1]):
            forget(handler)
            options = {"steps": 2, "target_class": target}
            (body,) = ask_json(handler, options, accept="image/png")
            lines.append(Image.open(io.BytesIO(body)).info["Description"].splitlines()[0])
    assert lines[0].startswith("probability above 99.9%, score ") and lines[0].endswith(", the predicted class")
    assert lines[1].startswith("probability below 0.1%, score ") and lines[1].endswith("; predicted: cat, above 99.9%")


def test_what_is_hatched_is_explained_on_a_photo_of_one_pixel_as_well(handler: ClassifierHandler) -> None:
    """It is enlarged, and only then has it a rim that the crop leaves out."""
    task = handler.worker.task
    cropping = replace(task.model.preprocess, fit="crop", crop_fraction=0.8)
    with mock.patch.object(task, "model", replace(task.model, preprocess=cropping)):
        image = base64.b64encode(encoded(Image.new("RGB", (1, 1), "red"))).decode()
        (body,) = ask_json(handler, {"image": image, "steps": 2}, accept="image/png")
    assert "hatched: outside the model's view" in Image.open(io.BytesIO(body)).info["Description"]


@pytest.mark.parametrize(
    ("options", "status", "field", "words"),
    [
        ({"masks": [rle(np.ones((10, 10), dtype=bool))]}, 422, "masks", "40"),
        ({"masks": [{"size": [40, 48], "counts": [5]}]}, 400, "masks", ""),
        ({"masks": "not base64 !"}, 400, "masks", ""),
        ({"masks": [rle(box(0, 0, 5, 5))] * 501}, 413, "masks", "500"),
        ({"segments": "slic", "n_segments": 501}, 413, "n_segments", "500"),
    ],
)
def test_groups_that_cannot_be_had(
    handler: ClassifierHandler, options: dict[str, Any], status: int, field: str, words: str
) -> None:
    got = refused_options(handler, **options)
    assert got[:2] == (status, field), got
    assert words in got[2]


def test_a_score_that_is_not_finite_is_marked(handler: ClassifierHandler, monkeypatch: pytest.MonkeyPatch) -> None:
    real = handler.worker.task.model.network

    class Broken(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return real(x) * torch.where(x.mean((1, 2, 3)) < -0.5, float("nan"), 1.0)[:, None]

    object.__setattr__(handler.worker.task.model, "network", Broken())
    try:
        found = answer(handler, segments="grid", baseline="black")
        assert found["finite"] is False
        assert "residual" in found["non_finite"]
        adaptive = answer(handler, segments="grid", baseline="black", tolerance=0.1, steps=30)
        assert (adaptive["finite"], adaptive["converged"]) == (False, False)
    finally:
        object.__setattr__(handler.worker.task.model, "network", real)
