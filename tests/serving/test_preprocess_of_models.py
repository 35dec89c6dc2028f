"""Models of one, three and four channels, of other ranges and of padded photos, from a photo to its explanation."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load

from handlers.classifier import ClassifierHandler
from imagexplain.vision.geometry import Geometry, fit
from imagexplain.vision.preprocess import apply
from imagexplain.vision.preprocess_settings import Preprocess
from tests.serving.asking import ask, explanation, rle
from tests.serving.fake_torchserve import Context
from tests.serving.handlers import classifier_of, write_timm
from tests.wire.photos import encoded

HEIGHT, WIDTH = 90, 141
SQUARE = (25, 95, 45, 120)
"""Rows and columns of the one bright square: top, left, bottom, right."""

FIELDS: dict[str, dict[str, Any]] = {
    "grey": {"size": (28, 28), "channels": "grey", "mean": (0.1307,), "std": (0.3081,)},
    "rgba": {"channels": "rgba", "mean": (0.5,) * 4, "std": (0.5,) * 4, "fit": "crop", "resize": (30, 50)},
    "bgr": {"channels": "bgr", "scale": 255.0, "mean": (104.0, 117.0, 124.0), "std": (60.0,) * 3},
    "letterboxed": {"fit": "pad", "pad_value": 114.0, "interpolation": "bicubic", "resampling": "torch"},
    "mirrored": {"fit": "pad", "pad_mode": "reflect", "size": (32, 40), "pad_extra": "before"},
    "standardised": {"standardize": True, "mean": (0.0,) * 3, "std": (1.0,) * 3, "fit": "pad", "scale": 255.0},
}


@pytest.fixture(scope="module", params=FIELDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ClassifierHandler:
    """The handler of a small ViT with each of the preprocessings."""
    return handler_of(tmp_path_factory.mktemp(request.param), request.param)


def handler_of(folder: Path, name: str) -> ClassifierHandler:
    """The handler of a small ViT with the preprocessing of that name."""
    fields = FIELDS[name]
    size, channels = fields.get("size", (32, 32)), {"grey": 1, "rgba": 4}.get(name, 3)
    arguments = {"in_chans": channels, "img_size": size, "patch_size": 7 if size[0] == 28 else 8}
    return classifier_of(write_timm(folder, "vit", arguments, fields))


def preprocess_of(handler: ClassifierHandler) -> Preprocess:
    """Preprocessing of a handler's model."""
    return handler.worker.task.model.preprocess


def mask(margin: int) -> NDArray[np.bool_]:
    """The square with so many pixels around it."""
    top, left, bottom, right = SQUARE
    found = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
    found[top - margin : bottom + margin, left - margin : right + margin] = True
    return found


def photo() -> Image.Image:
    """Black, but for the square."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    pixels[mask(0)] = (250, 160, 40)
    return Image.fromarray(pixels)


def geometry_of(handler: ClassifierHandler) -> Geometry:
    """Map from the photo to a model's input."""
    return fit((HEIGHT, WIDTH), preprocess_of(handler))


def explained(handler: ClassifierHandler, image: Image.Image | None = None, **options: Any) -> dict[str, Any]:
    """The JSON answer of an explanation."""
    body = {"image": base64.b64encode(encoded(image or photo())).decode(), "steps": 8, **options}
    context = Context(headers=[explanation() | {"Content-Type": "application/json"}])
    (answer,) = handler.handle([{"body": body}], context)
    found: dict[str, Any] = json.loads(answer)
    assert context.statuses[0] == 200, found
    return found


def test_tensors_stand_where_the_square_is(model: ClassifierHandler) -> None:
    headers = explanation("baseline=black&steps=8", "application/x-safetensors")
    (body,), context = ask(model, (headers, encoded(photo())))
    assert context.statuses[0] == 200, body
    shape = preprocess_of(model).shape
    maps = load(body)["integrated_grads"]
    assert maps.shape == (1, *shape)
    # All else equals the baseline, the padding too, and gets nothing.
    geometry, deciding = geometry_of(model), maps[0].abs().sum(0) > 0
    pixel = max(HEIGHT / geometry.resized[0], WIDTH / geometry.resized[1])
    drawn = geometry.labels_to_photo(deciding.long(), outside=0).bool().numpy()
    assert drawn[mask(-5)].all()
    assert not drawn[~mask(round(2.5 * pixel))].any()
    rows, columns = geometry.inside
    if preprocess_of(model).pad_mode == "constant":
        outside = torch.ones(shape[1:], dtype=torch.bool)
        outside[rows, columns] = False
        assert not deciding[outside].any()


def test_a_table_of_segments(model: ClassifierHandler) -> None:
    square = mask(17)
    masks = [rle(square) | {"label": "square"}, rle(~square) | {"label": "elsewhere"}]
    found = explained(model, baseline="black", masks=masks)
    rows = {row["label"]: row for row in found["groups"]}
    difference = found["score"] - found["baseline_score"] - found["residual"]
    assert rows["elsewhere"]["attribution"] == 0
    whole = rows["whole image"]["attribution"]
    assert whole == pytest.approx(difference, abs=1e-5 * max(1, abs(found["score"])))
    if preprocess_of(model).pad_mode == "constant":  # else the square's reflection has its part
        assert rows["square"]["attribution"] == pytest.approx(whole, rel=1e-4)


def test_a_picture_of_the_photos_size(model: ClassifierHandler) -> None:
    (body,), context = ask(model, (explanation("baseline=black&steps=8&picture=plain", "image/png"), encoded(photo())))
    assert context.statuses[0] == 200, body
    picture = np.asarray(Image.open(io.BytesIO(body)).convert("RGB")).astype(int)
    assert picture.shape == (HEIGHT, WIDTH, 3)
    coloured = np.ptp(picture, axis=2) > 40
    assert coloured[mask(0)].mean() > 0.3
    assert not coloured[~mask(24)].any()


def test_the_score_is_that_of_the_prepared_photo(model: ClassifierHandler) -> None:
    found = explained(model, baseline="white", target_class="owl")
    network, preprocess = model.worker.task.model.original_network(), preprocess_of(model)
    assert found["score"] == pytest.approx(network(apply(photo(), preprocess)[0][None])[0, 3].item(), rel=1e-4)
    if not preprocess.standardize:
        white, _ = apply(Image.new("RGB", (WIDTH, HEIGHT), "white"), preprocess)
        assert found["baseline_score"] == pytest.approx(network(white[None])[0, 3].item(), rel=1e-4)


@pytest.mark.parametrize("baseline", ["zero", "mean", "blur", "uniform"])
def test_other_baselines(model: ClassifierHandler, baseline: str) -> None:
    found = explained(model, baseline=baseline)
    assert found["baseline"] == baseline and found["finite"] is True


def test_a_second_photo_and_a_tensor(model: ClassifierHandler) -> None:
    black = base64.b64encode(encoded(Image.new("RGB", (WIDTH, HEIGHT)))).decode()
    tensor = np.zeros(preprocess_of(model).shape).tolist()
    by_photo = explained(model, baseline="image", baseline_image=black)
    assert by_photo["baseline_score"] == pytest.approx(explained(model, baseline="black")["baseline_score"], rel=1e-4)
    by_tensor = explained(model, baseline="tensor", baseline_tensor=tensor)
    assert by_tensor["baseline_score"] == pytest.approx(explained(model, baseline="zero")["baseline_score"], rel=1e-4)


def test_a_tensor_of_another_shape_is_refused(model: ClassifierHandler) -> None:
    shape = preprocess_of(model).shape
    body = {"baseline": "tensor", "baseline_tensor": np.zeros((shape[0] + 1, *shape[1:])).tolist()}
    image = base64.b64encode(encoded(photo())).decode()
    context = Context(headers=[explanation() | {"Content-Type": "application/json"}])
    (answer,) = model.handle([{"body": {"image": image, **body}}], context)
    found = json.loads(answer)
    assert (context.statuses[0], found["field"]) == (422, "baseline_tensor")
    assert f"wanted {shape}" in found["message"]


@pytest.mark.parametrize("options", [{"segments": "grid", "rows": 3, "columns": 4}, {"segments": "slic"}])
def test_padding_is_in_no_segment(model: ClassifierHandler, options: dict[str, Any]) -> None:
    rows, columns = geometry_of(model).inside
    found = explained(model, **options)
    areas = [row["area"] for row in found["groups"] if row["kind"] == "segment"]
    assert sum(areas) == (rows.stop - rows.start) * (columns.stop - columns.start)
    if options["segments"] == "grid":
        assert len(areas) == 12 and max(areas) < 2 * min(areas)


@pytest.mark.parametrize("method", ["xrai", "grad_cam", "occlusion", "kernel_shap", "blur_ig", "guided_ig"])
def test_other_methods(model: ClassifierHandler, method: str) -> None:
    body = base64.b64encode(encoded(photo())).decode()
    context = Context(headers=[explanation() | {"Content-Type": "application/json"}])
    (answer,) = model.handle([{"body": {"image": body, "method": method}}], context)
    assert context.statuses[0] == 200, answer
    assert json.loads(answer)["finite"] is True


def test_transparency_reaches_a_model_that_takes_it(tmp_path: Path) -> None:
    handler = handler_of(tmp_path, "rgba")
    transparent = photo()
    transparent.putalpha(Image.fromarray(np.where(mask(9), 255, 40).astype(np.uint8)))
    network, preprocess = handler.worker.task.model.original_network(), preprocess_of(handler)
    wanted = [network(apply(image, preprocess)[0][None])[0, 0].item() for image in (transparent, photo())]
    assert abs(wanted[0] - wanted[1]) > 1e-3
    for image, score in zip((transparent, photo()), wanted, strict=True):
        assert explained(handler, image, target_class="cat")["score"] == pytest.approx(score, rel=1e-4)
    as_list = {"img_data": np.asarray(transparent).tolist(), "target_class": "cat", "steps": 2}
    context = Context(headers=[explanation() | {"Content-Type": "application/json"}])
    (answer,) = handler.handle([{"body": as_list}], context)
    assert json.loads(answer)["score"] == pytest.approx(wanted[0], rel=1e-4)
