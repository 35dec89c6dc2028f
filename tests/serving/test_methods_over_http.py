"""Attribution methods over real HTTP, on the demonstration models."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from PIL import Image

from imagexplain.attribution import iou, localize, normalize
from tests.conftest import Served
from tests.pictures import panel
from tests.serving.over_http import post
from tests.tensors import unpacked
from tests.wire.photos import encoded
from training.scenes import SceneSettings, scene
from training.train_classifier import HELD_OUT_SEED, RECIPES

METHODS = ("gradient", "grad_cam", "idgi", "occlusion", "kernel_shap")
FAMILIES = {
    "bit": (*METHODS, "guided_grad_cam"),
    "lanet": (*METHODS, "guided_grad_cam"),
    "resnet": (*METHODS, "guided_grad_cam"),
    "vit": (*METHODS, "attention_rollout", "gradient_rollout"),
    "swin_classifier": (*METHODS, "attention_rollout", "gradient_rollout"),
}
"""Of each demonstration classifier, a method of every family that it supports."""


def classifier_scene(model: str, index: int = 3) -> tuple[bytes, torch.Tensor]:
    """A held-out scene of the model's size, and the (1, H, W) mask of its deciding object."""
    made = scene(HELD_OUT_SEED, index, SceneSettings(size=(RECIPES[model].size,) * 2))
    return encoded(Image.fromarray(made.image)), torch.from_numpy(made.deciding.mask)[None]


@pytest.mark.parametrize("model", FAMILIES)
def test_maps_of_every_family(served: Served, model: str) -> None:
    photo, _ = classifier_scene(model)
    size = RECIPES[model].size
    for method in FAMILIES[model]:
        options = f"method={method}&segments=slic&n_segments=10"
        answer = post(served, f"explanations/{model}", photo, X_Explain_Options=options)
        assert answer.status_code == 200, answer.text
        result = unpacked(answer.content)
        assert result["map"].shape[-2:] == (size, size) and result["finite"]
        assert result["attribution"].shape == result["area"].shape == (len(result["labels"]),)


def test_a_method_without_meaning_and_a_layer_that_is_none(served: Served) -> None:
    for model, options, status, said in (
        ("resnet", "method=attention_rollout", 422, "Those that are: ablation_cam, bag_cam"),
        ("vit", "method=guided_backprop", 422, "Those that are: ablation_cam, attention_rollout"),
        ("resnet", "method=grad_cam&layer=layer5", 400, "such as layer"),
        ("swin_classifier", "method=grad_cam&layer=layers.2", 400, "such as layers"),
    ):
        photo, _ = classifier_scene(model)
        answer = post(served, f"explanations/{model}", photo, X_Explain_Options=options, Accept="application/json")
        assert answer.status_code == status and said in answer.json()["message"]


@pytest.mark.parametrize(
    ("model", "method"),
    [("resnet", "layer_cam&layer=layer3"), ("vit", "gradient_rollout"), ("swin_classifier", "gradient_rollout")],
)
def test_a_map_finds_the_deciding_object(served: Served, model: str, method: str) -> None:
    overlaps = []
    for index in range(8):
        photo, mask = classifier_scene(model, index)
        answer = post(served, f"explanations/{model}", photo, X_Explain_Options=f"method={method}")
        overlaps.append(iou(localize(normalize(unpacked(answer.content)["map"])).masks, mask).item())
    assert sum(overlaps) / len(overlaps) > 0.3


def test_options_as_json_and_a_picture(served: Served) -> None:
    import base64

    photo, _ = classifier_scene("resnet")
    body = {
        "image": base64.b64encode(photo).decode(),
        "combine": ["blur_ig", "grad_cam"],
        "smooth": {"samples": 2, "std": 0.1},
        "steps": 5,
    }
    asked = {"Content_Type": "application/json"}
    answer = post(served, "explanations/resnet", json.dumps(body).encode(), Accept="application/json", **asked)
    assert answer.status_code == 200, answer.text
    summary = answer.json()
    assert summary["method"] == "blur_ig × grad_cam" and summary["smooth"]["samples"] == 2
    assert summary["options"]["steps"] == 5 and summary["layer"] == "layer4"
    picture = post(served, "explanations/resnet", json.dumps(body).encode(), Accept="image/png", **asked)
    assert panel(picture.content).size == (128, 128)


def test_many_methods_at_once(served: Served) -> None:
    photo, _ = classifier_scene("resnet")
    options = ["method=gradient", "method=score_cam&layer=layer2", "method=nonsense", "steps=5", "method=full_grad"] * 4

    def status(given: str) -> int:
        return post(served, "explanations/resnet", photo, X_Explain_Options=given).status_code

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(status, options)) == [200, 200, 400, 200, 200] * 4


def test_a_segmenters_detection_by_other_methods(served: Served) -> None:
    photo = encoded(Image.fromarray(scene(HELD_OUT_SEED, 0, SceneSettings(size=(128, 128))).image))
    ask = {"X_Explain_Options": "method=occlusion&size=32&stride=32&threshold=0.1", "Accept": "application/json"}
    answer = post(served, "explanations/tensormask", photo, **ask)
    assert answer.status_code == 200, answer.text
    assert answer.json()["method"] == "occlusion" and "detection" in answer.json()
    ask["X_Explain_Options"] = "method=grad_cam&threshold=0.1"
    answer = post(served, "explanations/tensormask", photo, **ask)
    assert answer.status_code == 422 and "a network to look into" in answer.json()["message"]
