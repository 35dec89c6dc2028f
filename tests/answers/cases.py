"""The requests whose answers are recorded: every model, form of request and of answer, and status."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as run_length

from tests.wire.photos import encoded
from training.scenes import SceneSettings, scene

CLASSIFIERS = ("lanet", "bit", "resnet", "vit", "swin_classifier")
SEGMENTERS = ("tensormask", "swin")

GZIP, JSON, PNG, SAFETENSORS = "application/gzip", "application/json", "image/png", "application/x-safetensors"

METHODS = {
    "lanet": (
        *("gradient", "smoothgrad&samples=3", "guided_backprop", "blur_ig&steps=6", "guided_ig&steps=4"),
        *("expected_gradients&samples=6", "occlusion&size=8", "rise&samples=40", "idgi&steps=5"),
        *(
            "kernel_shap&samples=60&n_segments=6",
            "gaussian_shap&samples=20&n_segments=6",
            "shapley_sampling&permutations=3&n_segments=6",
            "feature_ablation&n_segments=6",
            "lime&samples=20&n_segments=6",
            "xrai&steps=5",
        ),
    ),
    "resnet": (
        *(
            "grad_cam",
            "grad_cam&layer=layer3",
            "ablation_cam",
            "score_cam",
            "eigen_cam",
            "full_grad",
            "deep_lift",
            "lrp",
        ),
        *("guided_grad_cam", "input_x_gradient&segments=slic&n_segments=9"),
    ),
    "vit": (
        "attention_rollout",
        "gradient_rollout",
        "transformer_attribution",
        "attn_lrp",
        "libra_grad",
        "legrad",
        "layer_cam",
    ),
    "swin_classifier": ("hires_cam",),
}

SMOOTHED = "method=input_x_gradient&" + 'smooth={"samples":3,"std":0.1}'
COMBINED = "combine=blur_ig,grad_cam&steps=5&segments=slic&n_segments=9"


@dataclass(frozen=True)
class Asked:
    """One row of a batch.

    Attributes:
        row: Its body, or its parts, as TorchServe hands them over.
        headers: As a client sends them.
        explains: It came to ``/explanations``.
    """

    row: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    explains: bool = True


@dataclass(frozen=True)
class Case:
    """A batch for one model.

    Attributes:
        model: Its name.
        batch: Its rows.
        alone: No other model of the server answers.
        broken: The network fails.
    """

    model: str
    batch: tuple[Asked, ...]
    alone: bool = False
    broken: bool = False


def photo(seed: int = 0, height: int = 60, width: int = 80, form: str = "PNG") -> bytes:
    """A scene as a file."""
    return encoded(Image.fromarray(scene(seed, 0, SceneSettings(size=(height, width))).image), form, quality=90)


def asked(
    options: str = "", accept: str = JSON, body: bytes | None = None, *, explains: bool = True, **headers: str
) -> Asked:
    """A photo as the body, with options in the header."""
    sent = {"Accept": accept, **({"X-Explain-Options": options} if options else {}), **headers}
    return Asked({"body": bytearray(body or photo())}, sent, explains)


def as_json(content: Mapping[str, Any], accept: str = JSON, *, explains: bool = True) -> Asked:
    """A JSON body."""
    headers = {"Accept": accept, "Content-Type": "application/json"}
    return Asked({"body": bytearray(json.dumps(content).encode())}, headers, explains)


def cases() -> dict[str, Case]:
    """All of them, by name."""
    return {
        **_models(),
        **_forms(),
        **_paths(),
        **_methods(),
        **_groups(),
        **_over_photo(),
        **_segmenters(),
        **_captions(),
        **_batches(),
        **errors(),
    }


def _models() -> dict[str, Case]:
    found = {}
    for model in (*CLASSIFIERS, *SEGMENTERS):
        side = 96 if model in SEGMENTERS else 60
        body = photo(1, side, side + 20, "JPEG")
        for accept in (JSON, GZIP, SAFETENSORS, *((PNG,) if model in SEGMENTERS else ())):
            found[f"{model} predicts {accept}"] = Case(model, (asked("", accept, body, explains=False),))
        for accept in (JSON, GZIP, PNG, SAFETENSORS):
            options = "steps=6" + ("&threshold=0.1" if model in SEGMENTERS else "")
            found[f"{model} explains {accept}"] = Case(model, (asked(options, accept, body),))
    return found


def _forms() -> dict[str, Case]:
    pixels = np.asarray(Image.open(io.BytesIO(photo(2, 32, 36)))).tolist()
    text = base64.b64encode(photo(2)).decode()
    mask = np.zeros((60, 80), np.uint8)
    mask[10:40, 20:50] = 255
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    parts = {"image": bytearray(photo(2)), "target_class": bytearray(b"star"), "steps": bytearray(b"5")}
    rows = {
        "original": as_json({"img_data": pixels, "target_class": "star"}, GZIP),
        "original without a class": as_json({"img_data": pixels}, GZIP),
        "list and options": as_json({"img_data": pixels, "steps": 5, "target_class": 2}),
        "base64": as_json({"image": text, "steps": 5, "target_class": "cross"}),
        "multipart": Asked(parts, {"Accept": JSON}),
        "multipart with masks": Asked(
            {**parts, "masks": bytearray(json.dumps([{"size": [60, 80], "counts": [100, 900, 3800]}]).encode())},
            {"Accept": JSON},
        ),
        "multipart with a mask file": Asked({**parts, "masks": bytearray(file.getvalue())}, {"Accept": JSON}),
        "data": Asked({"data": bytearray(photo(2))}, {"Accept": JSON, "X-Explain-Options": "steps=5"}),
        "webp": asked("steps=5", body=photo(2, form="WEBP")),
        "jpeg": asked("steps=5", body=photo(2, form="JPEG")),
        "any type": asked("steps=5", "*/*"),
        "types by weight": asked("steps=5", "image/png;q=0.2, application/json;q=0.9, */*;q=0.1"),
    }
    return {f"form: {name}": Case("lanet", (row,)) for name, row in rows.items()}


def _paths() -> dict[str, Case]:
    options = {
        "midpoint": "steps=7&quadrature=midpoint",
        "tolerance": "tolerance=0.05",
        "white": "steps=5&baseline=white",
        "blurred": "steps=5&baseline=blur",
        "mean": "steps=5&baseline=mean",
        "draws": "steps=5&baseline=uniform&draws=3&seed=4",
        "outputs": "steps=5&outputs=integrated_grads,step_sizes,intermediates,integrated_directional_grads",
        "pixels": "steps=5&pixels=true",
    }
    found = {
        f"path: {name}, {accept}": Case("bit", (asked(text, accept),))
        for name, text in options.items()
        for accept in (JSON, SAFETENSORS)
    }
    pictures = ("picture=plain", "picture_sigma=0", "picture_sigma=0.05")
    return found | {f"path: {name}": Case("bit", (asked(f"steps=5&{name}", PNG),)) for name in pictures}


def _methods() -> dict[str, Case]:
    return {
        **{
            f"method: {name} on {model}, {accept}": Case(model, (asked(f"method={name}", accept),))
            for model, names in METHODS.items()
            for name in names
            for accept in (JSON, SAFETENSORS, PNG)
        },
        "method: smoothed": Case("bit", (asked(SMOOTHED, SAFETENSORS),)),
        "method: combined": Case("resnet", (asked(COMBINED, SAFETENSORS),)),
        "method: combined, normalized": Case("resnet", (asked(f"{COMBINED}&normalized=true", SAFETENSORS),)),
    }


def _groups() -> dict[str, Case]:
    half = np.asfortranarray(np.arange(60 * 80, dtype=np.uint8).reshape(60, 80) % 80 < 40, dtype=np.uint8)
    masks = [
        {"size": [60, 80], "counts": [0, 1800, 3000]},
        {"label": "run", "segmentation": {"size": [60, 80], "counts": [100, 900, 3800]}},
        {"label": "text", "size": [60, 80], "counts": run_length.encode(half)["counts"].decode()},
    ]
    text = base64.b64encode(photo()).decode()
    found = {
        f"groups: masks on {model}, {accept}": Case(
            model, (as_json({"image": text, "masks": masks, "steps": 5, "outputs": ["absolute_directional"]}, accept),)
        )
        for model in ("lanet", "resnet")
        for accept in (JSON, GZIP, SAFETENSORS, PNG)
    }
    for name in ("slic&n_segments=8", "grid&rows=3&columns=4", "tensormask", "swin", "swin&fallback=slic&n_segments=8"):
        for accept in (JSON, PNG):
            found[f"groups: {name}, {accept}"] = Case("lanet", (asked(f"steps=5&segments={name}", accept),))
    gone = asked("steps=5&segments=swin&fallback=grid&rows=2&columns=2")
    return found | {"groups: fallback": Case("bit", (gone,), alone=True)}


def _over_photo() -> dict[str, Case]:
    """Groups over the photo, and predictions of photos without some of them."""
    half = [{"size": [60, 80], "counts": [100, 900, 3800]}]
    text = base64.b64encode(photo()).decode()
    summary = f"{SAFETENSORS};summary=true"
    found = {
        f"over the photo: {name}, {accept}": Case("resnet", (asked(f"{options}&outputs=photo_masks", accept),))
        for name, options in (
            ("slic", "steps=5&segments=slic&n_segments=8"),
            ("a segmenter's", "steps=5&segments=swin"),
            ("a map's", "method=gradient&segments=grid"),
            ("two classes", 'steps=5&segments=grid&target_class=["star",1]'),
        )
        for accept in (JSON, GZIP, summary)
    }
    found["over the photo: sent"] = Case(
        "lanet", (as_json({"image": text, "masks": half, "outputs": ["photo_masks"]}),)
    )
    found["over the photo: found"] = Case(
        "tensormask",
        (asked("threshold=0.05&steps=5&segments=tensormask&outputs=photo_runs", summary, photo(1, 96, 116, "JPEG")),),
    )
    rows = {
        "cells": "segments=grid&rows=2&columns=2&baseline=black&absent=0,3",
        "draws": "segments=slic&n_segments=6&baseline=uniform&draws=3&absent=1&target_class=star",
        "a segmenter's": "segments=tensormask&baseline=blur&absent=0",
    }
    return found | {
        f"absent: {name}, {accept}": Case("lanet", (asked(options, accept, explains=False),))
        for name, options in rows.items()
        for accept in (JSON, SAFETENSORS)
    }


def _segmenters() -> dict[str, Case]:
    body = photo(1, 96, 116, "JPEG")
    options = {
        "second detection": ("threshold=0.05&detection=1&steps=5", SAFETENSORS),
        "picture": ("threshold=0.05&detection=1&steps=5", PNG),
        "by class": ("threshold=0.05&target_class=hexagon&steps=5", JSON),
        "own segments": ("threshold=0.05&steps=5&segments=slic&n_segments=6", JSON),
        "method": ("threshold=0.05&method=gradient", SAFETENSORS),
        "its own instances": ("threshold=0.05&steps=5&segments=tensormask", JSON),
        "another's segments": ("threshold=0.05&steps=5&segments=swin", JSON),
    }
    found = {
        f"segmenter: {name}": Case("tensormask", (asked(text, accept, body),))
        for name, (text, accept) in options.items()
    }
    pixels = np.asarray(Image.open(io.BytesIO(body))).transpose(2, 0, 1)[::-1].tolist()
    found["segmenter: original"] = Case("swin", (as_json({"img_data": pixels}, GZIP, explains=False),))
    plain = asked("threshold=0.05&picture=plain", PNG, body, explains=False)
    return found | {"segmenter: plain picture": Case("swin", (plain,))}


GRAPH = {
    "objects": [{"box": [5, 5, 30, 30], "attributes": ["red"], "name": "star"}, {"box": [40, 20, 30, 30]}],
    "relationships": [[0, 1]],
}
"""Graph over the photo: four nodes."""


def _captions() -> dict[str, Case]:
    text = base64.b64encode(photo(6)).decode()
    one, both = {"image": text, "graph": GRAPH}, {"image": text, "graphs": {"a": GRAPH, "b": GRAPH}}
    form = {"image": bytearray(photo(6)), "graph": bytearray(json.dumps(GRAPH).encode()), "beams": bytearray(b"2")}
    features = {"image": [0.1] * 71, "regions": [[0.1] * 71, [0.2] * 71, [0.3] * 71, [0.4] * 71]}
    rows = {
        **{f"predicts {accept}": as_json(both, accept, explains=False) for accept in (JSON, GZIP, SAFETENSORS)},
        **{f"explains {accept}": as_json({**one, "steps": 5}, accept) for accept in (JSON, GZIP, SAFETENSORS, PNG)},
        "multipart": Asked(form, {"Accept": JSON}, explains=False),
        "features": as_json({"graph": GRAPH, "features": features, "n_best": 3}, explains=False),
        "given caption": as_json({**one, "caption": "a red star", "words": "star", "score": "logit", "steps": 5}),
        "tolerance": as_json({**one, "caption": "a red star", "tolerance": 0.05, "steps": 200}),
    }
    return {f"captions: {name}": Case("captioner", (row,)) for name, row in rows.items()}


def _batches() -> dict[str, Case]:
    mixed = (
        asked("", explains=False),
        asked("steps=5", GZIP),
        asked("steps=no"),
        asked("method=occlusion&size=8", body=photo(3)),
        asked("steps=5&segments=slic&n_segments=5", PNG, photo(3)),
        Asked({"body": bytearray(b"no photo")}, {"Accept": JSON}),
    )
    same = asked("steps=5", SAFETENSORS, photo(4))
    pair = (asked("steps=3&threshold=0.1", body=photo(5)), asked("", explains=False))
    return {
        "batch: mixed": Case("lanet", mixed),
        "batch: mixed, on another": Case("vit", mixed),
        "batch: the same twice": Case("bit", (same, same)),
        "batch: two for a segmenter": Case("tensormask", pair),
    }


def errors() -> dict[str, Case]:
    """Refusals, whose answers are words alone: the same on every machine."""
    text = base64.b64encode(photo()).decode()
    rows: dict[str, tuple[str, Asked]] = {
        "400 option": ("lanet", asked("stepps=5")),
        "400 value": ("lanet", asked("steps=0")),
        "400 both": ("tensormask", asked("detection=0&target_class=star")),
        "400 layer": ("resnet", asked("method=grad_cam&layer=layer9")),
        "400 JSON": ("lanet", Asked({"body": bytearray(b'{"image": ')}, {"Content-Type": "application/json"})),
        "400 mask": ("lanet", as_json({"image": text, "masks": [{"label": "a", "polygon": [[0, 0], [0, 5]]}]})),
        "400 run lengths": (
            "lanet",
            as_json({"image": text, "masks": [{"segmentation": {"size": [60, 80], "counts": [9, 2**62]}}]}),
        ),
        "400 no groups over the photo": ("lanet", asked("outputs=photo_masks")),
        "400 absent": ("lanet", asked("segments=grid&absent=", explains=False)),
        "400 absent without groups": ("lanet", asked("absent=0", explains=False)),
        "413 absent": ("lanet", asked(f"segments=grid&absent={'0,' * 600}", explains=False)),
        "422 absent": ("lanet", asked("segments=grid&absent=17", explains=False)),
        "422 absent whole": ("lanet", asked("segments=grid&absent=16", explains=False)),
        "400 truncated": ("lanet", asked(body=photo(form="JPEG")[:900])),
        "400 no graph": ("captioner", asked(explains=False)),
        "400 dangling id": ("captioner", as_json({"image": text, "graph": {**GRAPH, "relationships": [[0, 7]]}})),
        "400 box": ("captioner", as_json({"image": text, "graph": {"objects": [{"box": [70, 5, 30, 9]}]}})),
        "413 nodes": ("captioner", as_json({"image": text, "graph": {"objects": [{"box": [0, 0, 9, 9]}] * 300}})),
        "422 word": ("captioner", as_json({"image": text, "graph": GRAPH, "caption": "a redd star"})),
        "406": ("lanet", asked(accept="text/html")),
        "406 of a segmenter": ("tensormask", asked(accept="text/html", explains=False)),
        "413 steps": ("lanet", asked("steps=1000000")),
        "413 samples": ("lanet", asked("method=rise&samples=100000000")),
        "413 samples of a method": ("lanet", asked("method=gaussian_shap&samples=5000")),
        "413 segments of a method": ("lanet", asked("method=gaussian_shap&segments=grid&rows=16&columns=17")),
        "413 answer": (
            "resnet",
            asked("steps=1000&outputs=intermediates,integrated_directional_grads", GZIP, photo(1)),
        ),
        "415": ("lanet", asked(body=b"GIF89b is none")),
        "422 class": ("lanet", asked("target_class=crosss")),
        "422 index": ("lanet", asked("target_class=99")),
        "422 method": ("lanet", asked("method=attention_rollout")),
        "422 segmenter": ("lanet", asked("segments=resnet")),
        "422 detection": ("tensormask", asked("detection=99", body=photo(1, 96, 116))),
    }
    found = {f"error: {name}": Case(model, (row,)) for name, (model, row) in rows.items()}
    return found | {
        "error: 500": Case("lanet", (asked("steps=5", body=photo(9)), asked("steps=no")), broken=True),
        "error: 503": Case("bit", (asked("steps=5&segments=tensormask"),), alone=True),
    }
