"""The demonstration models over real HTTP: what a client sends, and what comes back."""

from __future__ import annotations

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import requests
import torch
from PIL import Image
from safetensors.torch import load

from tests.conftest import Served, metrics
from tests.pictures import panel
from tests.serving.over_http import post, worker_pids
from tests.tensors import unpacked
from tests.waiting import until
from tests.wire.photos import bomb, encoded
from training.scenes import CLASSES, scene

MODELS = ("bit", "lanet")


def photo(mode: str = "RGB", form: str = "JPEG", size: tuple[int, int] = (64, 48), **options: Any) -> bytes:
    ramp = np.indices((size[1], size[0])).sum(0) * 3 % 251
    image = Image.fromarray(np.stack([ramp, ramp[::-1], 255 - ramp], -1).astype(np.uint8)).convert(mode)
    return encoded(image, form, **options)


def scene_png(index: int = 0) -> bytes:
    return encoded(Image.fromarray(scene(21, index).image))


@pytest.mark.parametrize("model", MODELS)
def test_predictions_name_the_deciding_object(served: Served, model: str) -> None:
    right = 0
    for index in range(10):
        answer = post(served, f"predictions/{model}", scene_png(index), Content_Type="image/png")
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "application/json"
        right += answer.json()["predictions"][0]["label"] == CLASSES[scene(21, index).label]
    assert right >= 8


@pytest.mark.parametrize("model", MODELS)
def test_an_explanation_in_every_form(served: Served, model: str) -> None:
    body, path = photo(), f"explanations/{model}"
    packed = post(served, path, body, Content_Type="image/jpeg")
    assert packed.headers["Content-Type"] == "application/gzip"
    result = unpacked(packed.content)
    assert result["integrated_grads"].shape == (1, 3, 32, 32)
    assert result["output"].shape == (1, 10)
    # What the summary says is what the tensors hold.
    summary = post(served, path, body, Accept="application/json").json()
    assert summary["score"] == pytest.approx(result["output"][0, summary["target_class"]].item(), rel=1e-4)
    total = result["integrated_grads"].sum(dtype=torch.float64).item()
    assert result["residual"] == pytest.approx(result["score"] - result["baseline_score"] - total, abs=1e-5)
    tensors = load(post(served, path, body, Accept="application/x-safetensors").content)
    torch.testing.assert_close(tensors["integrated_grads"], result["integrated_grads"])
    assert panel(post(served, path, body, Accept="image/png").content).size == (64, 48)
    plain = {"Accept": "image/png", "X_Explain_Options": "picture=plain"}
    picture = Image.open(io.BytesIO(post(served, path, body, **plain).content))
    assert (picture.format, picture.size) == ("PNG", (64, 48))


@pytest.mark.parametrize("model", MODELS)
def test_explanations_are_complete_on_trained_models(served: Served, model: str) -> None:
    """More steps leave less of the score unexplained; one image may be an exception, ten together are not."""

    def mean_residual(steps: int) -> float:
        headers = {"Accept": "application/json", "X_Explain_Options": f"steps={steps}&quadrature=midpoint"}
        answers = [post(served, f"explanations/{model}", scene_png(index), **headers).json() for index in range(10)]
        return float(np.mean([answer["relative_residual"] for answer in answers]))

    few, many = mean_residual(10), mean_residual(300)
    assert many < few / 4
    assert many < 0.03


def test_the_same_image_in_every_request_form(served: Served) -> None:
    body = photo(form="PNG")
    pixels = np.asarray(Image.open(io.BytesIO(body)))
    as_bytes = post(
        served, "explanations/bit", body, Accept="application/json", X_Explain_Options="target_class=star&steps=8"
    )
    options = {"target_class": "star", "steps": 8}
    as_base64 = post(
        served,
        "explanations/bit",
        json.dumps({"image": base64.b64encode(body).decode(), **options}).encode(),
        Content_Type="application/json",
        Accept="application/json",
    )
    as_list = post(
        served,
        "explanations/bit",
        json.dumps({"img_data": pixels.tolist(), **options}).encode(),
        Content_Type="application/json",
        Accept="application/json",
    )
    as_form = requests.post(
        f"{served.server.inference}/explanations/bit",
        files={"image": ("photo.png", body, "image/png")},
        data={name: str(value) for name, value in options.items()},
        headers={**served.server.headers(), "Accept": "application/json"},
        timeout=120,
    )
    answers = [answer.json() for answer in (as_bytes, as_base64, as_list, as_form)]
    assert all(answer == answers[0] for answer in answers)
    assert (answers[0]["target_label"], answers[0]["steps"]) == ("star", 8)


@pytest.mark.parametrize(
    ("body", "size"),
    [
        (photo("L"), (64, 48)),
        (photo("CMYK"), (64, 48)),
        (photo("RGBA", "PNG"), (64, 48)),
        (photo("P", "PNG"), (64, 48)),
        (photo("1", "PNG"), (64, 48)),
        (photo("RGB", "WEBP"), (64, 48)),
        (photo(size=(1, 1)), (1, 1)),
        (photo(size=(700, 3)), (700, 3)),
        (photo("LA", "PNG"), (64, 48)),
    ],
    ids=["grey", "cmyk", "alpha", "palette", "bilevel", "webp", "one pixel", "strip", "grey alpha"],
)
def test_photos_of_every_mode_and_size(served: Served, body: bytes, size: tuple[int, int]) -> None:
    answer = post(served, "explanations/bit", body, Accept="image/png", X_Explain_Options="steps=2")
    assert answer.status_code == 200, answer.text
    assert panel(answer.content).size == size


def test_a_rotated_photo_comes_back_upright(served: Served) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    answer = post(served, "explanations/lanet", photo(exif=exif), Accept="image/png", X_Explain_Options="steps=2")
    assert panel(answer.content).size == (48, 64)


PIXEL = [[[1, 2, 3]]]
JSON = {"Content_Type": "application/json"}
BAD = {
    "malformed JSON": (b'{"img_data": [[', JSON, 400, "body"),
    "a JSON list": (b"[1, 2]", JSON, 400, "body"),
    "an empty body": (b"", {}, 400, "image"),
    "a truncated JPEG": (photo()[:300], {}, 400, "image"),
    "no image at all": (b"hello", {}, 415, "image"),
    "a GIF": (photo("L", "GIF"), {}, 415, "image"),
    "a decompression bomb": (bomb(60_000, 60_000), {}, 413, "image"),
    "a wrong class": (photo(), {"X_Explain_Options": "target_class=zebra"}, 422, "target_class"),
    "an index out of range": (photo(), {"X_Explain_Options": "target_class=10"}, 422, "target_class"),
    "a ragged list": (json.dumps({"img_data": [[[1, 2, 3]], []]}).encode(), JSON, 400, "img_data"),
    "a list of floats": (json.dumps({"img_data": [[[0.5, 2, 3]]]}).encode(), JSON, 400, "img_data"),
    "values above 255": (json.dumps({"img_data": [[[256, 2, 3]]]}).encode(), JSON, 400, "img_data"),
    "two images": (json.dumps({"img_data": PIXEL, "image": "AAAA"}).encode(), JSON, 400, "image"),
    "bad base64": (json.dumps({"image": "%%%"}).encode(), JSON, 400, "image"),
    "an unknown option": (photo(), {"X_Explain_Options": "colour=red"}, 400, "colour"),
    "an unknown method": (photo(), {"X_Explain_Options": "method=magic"}, 400, "method"),
    "too many steps": (photo(), {"X_Explain_Options": "steps=100000"}, 413, "steps"),
    "no steps": (photo(), {"X_Explain_Options": "steps=0"}, 400, "steps"),
    "an unknown form of answer": (photo(), {"Accept": "text/html"}, 406, "accept"),
    "too many bytes": (b"\xff\xd8\xff" + bytes(32_500_000), {}, 413, "body"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("model", MODELS)
def test_bad_input_is_answered_in_words(served: Served, model: str, case: str) -> None:
    body, headers, status, field = BAD[case]
    answer = post(served, f"explanations/{model}", body, **headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    error = answer.json()
    assert set(error) == {"code", "error", "field", "message"}
    assert error["code"] == status
    assert field in error["field"] or field in error["message"]
    assert "Traceback" not in answer.text
    assert 'File "' not in answer.text


def test_workers_survive_a_storm_of_bad_and_good_requests(served: Served) -> None:
    """Concurrent requests share batches: each gets its own answer, and no worker is restarted."""
    before = {model: worker_pids(served, model) for model in MODELS}
    good = [
        ("explanations", {"X_Explain_Options": f"target_class={index % 10}&steps={2 + index}"}) for index in range(8)
    ]
    alone = [post(served, "explanations/bit", photo(), Accept="application/json", **h).json() for _, h in good]
    storm: list[tuple[str, bytes, dict[str, str]]] = []
    for (endpoint, headers), (bad_body, bad_headers, _, _) in zip(good * 2, list(BAD.values())[:16], strict=True):
        computed = {"Accept": "application/json", "Cache_Control": "no-cache", **headers}
        storm.append((f"{endpoint}/bit", photo(), computed))
        storm.append(("explanations/bit", bad_body, bad_headers))
        storm.append(("predictions/bit", photo(), {}))
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda request: post(served, request[0], request[1], **request[2]), storm))
    for number, answer in enumerate(answers):
        kind, index = number % 3, number // 3
        if kind == 0:
            assert answer.status_code == 200
            expected, got = alone[index % 8], answer.json()
            assert (got["target_class"], got["steps"]) == (expected["target_class"], expected["steps"])
            assert got["score"] == pytest.approx(expected["score"], rel=1e-4, abs=1e-4)
        elif kind == 1:
            assert answer.status_code == list(BAD.values())[index][2]
        else:
            assert "predictions" in answer.json()
    assert {model: worker_pids(served, model) for model in MODELS} == before


@pytest.mark.parametrize("model", MODELS)
def test_the_first_answer_and_the_hundredth_are_the_same_bytes(served: Served, model: str) -> None:
    """The original servers' LaNet changed with every request; nothing here does."""
    computed = {"X_Explain_Options": "steps=3", "Cache_Control": "no-cache"}
    first = post(served, f"explanations/{model}", photo(), **computed)
    for index in range(98):
        post(served, f"predictions/{model}", scene_png(index % 5))
    evaluations = f'explain_evaluations_sum{{model_name="{model}"'
    before = sample(served, evaluations)
    last = post(served, f"explanations/{model}", photo(), **computed)
    assert first.content == last.content
    until(lambda: sample(served, evaluations) == before + 3)  # TorchServe counts when the answer has gone


def sample(served: Served, name: str) -> float:
    """The value of the first metric that starts so."""
    lines = [line for line in metrics(served.server).splitlines() if line.startswith(name)]
    return float(lines[0].split()[-1]) if lines else 0.0


def test_the_metrics_count_what_happened(served: Served) -> None:
    ok = 'explain_requests_total{model_name="bit",kind="explanation",outcome="ok"'
    bad = 'explain_requests_total{model_name="bit",kind="explanation",outcome="unprocessable"'
    evaluations, seconds = (
        'explain_evaluations_sum{model_name="bit"',
        'explain_attribute_seconds_count{model_name="bit",kind="explanation"',
    )
    before = [sample(served, name) for name in (ok, bad, evaluations, seconds)]
    post(served, "explanations/bit", photo(), X_Explain_Options="steps=7")
    post(served, "explanations/bit", photo(), X_Explain_Options="target_class=zebra")

    def counted() -> list[float]:
        after = [sample(served, name) for name in (ok, bad, evaluations, seconds)]
        return np.subtract(after, before).tolist()

    until(lambda: counted()[:3] == [1, 1, 7] and counted()[3] > 0)


def test_an_unknown_model_is_torchserves_own_404(served: Served) -> None:
    assert post(served, "explanations/resnext", photo()).status_code == 404


def test_a_request_without_a_key_is_refused(served: Served) -> None:
    answer = requests.post(f"{served.server.inference}/predictions/bit", data=photo(), timeout=10)
    assert answer.status_code in (400, 401)
    assert "predictions" not in answer.json()


def multipart(served: Served, model: str, files: dict[str, Any], accept: str = "application/json") -> requests.Response:
    headers = {**served.server.headers(), "Accept": accept}
    return requests.post(f"{served.server.inference}/explanations/{model}", files=files, headers=headers, timeout=120)


@pytest.mark.parametrize("model", MODELS)
def test_a_label_map_in_a_form_scores_its_segments(served: Served, model: str) -> None:
    """The scene's own instance masks, sent as a PNG beside it: the deciding object is a group of the answer."""
    example = scene(21, 3)
    labels = np.zeros(example.image.shape[:2], dtype=np.uint8)
    for number, instance in enumerate(example.instances, 1):
        labels[instance.mask] = number
    masks = ("labels.png", encoded(Image.fromarray(labels)))
    files = {"image": ("scene.png", scene_png(3)), "masks": masks, "steps": (None, "20")}
    answer = multipart(served, model, files)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    segments = [row for row in found["groups"] if row["kind"] == "segment"]
    areas = {f"segment {number}": int((labels == number).sum()) for number in np.unique(labels) if number}
    assert {row["label"]: row["area"] for row in segments} == areas
    parts = sum(row["attribution"] for row in found["groups"] if row["kind"] != "whole")
    assert parts == pytest.approx(found["score"] - found["baseline_score"] - found["residual"], abs=1e-4)
    picture = panel(multipart(served, model, files, "image/png").content)
    assert picture.size == (32, 32)


@pytest.mark.parametrize("model", MODELS)
def test_superpixels_to_a_tolerance(served: Served, model: str) -> None:
    options = "segments=slic&n_segments=12&tolerance=0.1&baseline=black"
    found = post(
        served, f"explanations/{model}", scene_png(5), Accept="application/json", X_Explain_Options=options
    ).json()
    assert found["converged"] is True
    assert found["stability"] <= 0.1
    assert found["evaluations"] == found["steps"] >= 5
    assert any(row["label"].startswith("slic ") for row in found["groups"])


def test_other_masks_cost_no_evaluation(served: Served) -> None:
    evaluations, hits = (
        'explain_evaluations_sum{model_name="lanet"',
        'explain_cache_total{model_name="lanet",outcome="hit"',
    )
    path, body, counted = "explanations/lanet", scene_png(77), sample(served, evaluations)
    post(served, path, body, Accept="application/json", X_Explain_Options="segments=grid&steps=9")
    until(lambda: sample(served, evaluations) >= counted + 9)  # TorchServe counts when the answer has gone
    before = sample(served, evaluations), sample(served, hits)
    again = post(served, path, body, Accept="application/json", X_Explain_Options="segments=slic&steps=9").json()
    assert again["evaluations"] == 9  # what the answer rests on, though nothing was evaluated for it now
    until(lambda: sample(served, hits) != before[1])
    assert (sample(served, evaluations), sample(served, hits)) == (before[0], before[1] + 1)
