from __future__ import annotations

import base64
from typing import Any

import pytest
import safetensors.torch
import torch

from imagexplain.api.options import (
    Baseline,
    PathOptions,
    Segments,
    baseline_options,
    path_options,
    segment_options,
    switch,
)
from imagexplain.errors import RequestError
from imagexplain.limits import Limits
from tests.wire.photos import png

LIMITS = Limits(max_steps=100, max_groups=50, max_draws=8)
USUAL = PathOptions(20)
ADAPTIVE = PathOptions(30, 0.05)


@pytest.mark.parametrize(
    ("given", "default", "wanted"),
    [
        ({}, USUAL, PathOptions(20)),
        ({"steps": 7, "quadrature": "left"}, USUAL, PathOptions(7, None, "left")),
        ({"tolerance": 0.01}, USUAL, PathOptions(100, 0.01)),  # as many steps as it takes, up to the limit
        ({"tolerance": 1, "steps": 40}, USUAL, PathOptions(40, 1.0)),
        ({}, ADAPTIVE, PathOptions(30, 0.05)),
        ({"steps": 7}, ADAPTIVE, PathOptions(7)),  # who names the steps wants so many
        ({"tolerance": 0.5}, ADAPTIVE, PathOptions(30, 0.5)),
        ({"tolerance": 0}, USUAL, USUAL),
        ({"tolerance": 0}, ADAPTIVE, PathOptions(30)),  # without its own
    ],
)
def test_steps_or_a_tolerance(given: dict[str, Any], default: PathOptions, wanted: PathOptions) -> None:
    assert path_options(given, LIMITS, default) == wanted


def test_the_usual_baselines() -> None:
    for name in ("zero", "black", "white", "mean"):
        assert baseline_options({"baseline": name}, LIMITS, "zero").name == name
    assert baseline_options({}, LIMITS, "black").name == "black"
    noise = baseline_options({"baseline": "uniform", "draws": 8, "seed": 0}, LIMITS, "zero")
    assert (noise.name, noise.draws, noise.seed) == ("uniform", 8, 0)
    assert baseline_options({"blur": 0.5}, LIMITS, "blur").blur == 0.5


def test_a_second_image() -> None:
    for value in (png(), base64.b64encode(png()).decode()):
        baseline: Baseline = baseline_options({"baseline": "image", "baseline_image": value}, LIMITS, "zero")
        assert baseline.photo is not None and baseline.photo.size == (2, 3)


def test_a_tensor_as_a_list_or_as_safetensors() -> None:
    values = torch.arange(12.0).view(3, 2, 2)
    for given in (values.tolist(), safetensors.torch.save({"any name": values.half()})):
        baseline = baseline_options({"baseline": "tensor", "baseline_tensor": given}, LIMITS, "zero")
        assert baseline.tensor is not None
        assert baseline.tensor.dtype == torch.float32 and torch.equal(baseline.tensor, values[None])


def test_segments() -> None:
    assert segment_options({}, LIMITS) is None
    assert segment_options({"segments": "slic"}, LIMITS) == Segments("slic")
    wanted = Segments("slic", n_segments=30, compactness=2.5)
    assert segment_options({"segments": "slic", "n_segments": 30, "compactness": 2.5}, LIMITS) == wanted
    assert segment_options({"segments": "grid", "rows": 2}, LIMITS) == Segments("grid", rows=2, columns=4)
    by_model = {"segments": "swin", "threshold": 0.25, "fallback": "grid", "rows": 2}
    wanted = Segments("swin", rows=2, threshold=0.25, fallback="grid")
    assert segment_options(by_model, LIMITS) == wanted and wanted.is_remote


def test_switches() -> None:
    assert (switch("pixels", None), switch("pixels", True), switch("pixels", False)) == (False, True, False)


def nan() -> bytes:
    return safetensors.torch.save({"x": torch.full((3, 1, 1), float("nan"))})


@pytest.mark.parametrize(
    ("given", "status", "field", "words"),
    [
        ({"tolerance": -0.1}, 400, "tolerance", "in 0..1, got -0.1"),
        ({"tolerance": 1.5}, 400, "tolerance", "1.5"),
        ({"tolerance": float("nan")}, 400, "tolerance", "nan"),
        ({"tolerance": True}, 400, "tolerance", "True"),
        ({"tolerance": "tight"}, 400, "tolerance", "'tight'"),
        ({"tolerance": 0.1, "quadrature": "left"}, 400, "quadrature", "placed where they are needed"),
        ({"tolerance": 0.1, "steps": 101}, 413, "steps", "1..100"),
        ({"baseline": "blur", "blur": 2}, 400, "blur", "up to 1, got 2"),
        ({"blur": 0.1}, 400, "blur", "wanted baseline=blur beside it, got baseline=zero"),
        ({"baseline": "black", "draws": 3}, 400, "draws", "baseline=uniform"),
        ({"baseline": "uniform", "draws": 9}, 413, "draws", "1..8, got 9"),
        ({"baseline": "uniform", "draws": 0}, 400, "draws", "1..8, got 0"),
        ({"baseline": "uniform", "seed": -1}, 400, "seed", "-1"),
        ({"baseline": "image"}, 400, "baseline_image", "got none"),
        ({"baseline": "image", "baseline_image": b"GIF"}, 415, "baseline_image", "JPEG"),
        ({"baseline": "image", "baseline_image": "???"}, 400, "baseline_image", "base64"),
        ({"baseline_image": png()}, 400, "baseline_image", "baseline=image"),
        ({"baseline": "tensor"}, 400, "baseline_tensor", "got none"),
        ({"baseline": "tensor", "baseline_tensor": [[1, 2], [3]]}, 400, "baseline_tensor", "nested list of numbers"),
        ({"baseline": "tensor", "baseline_tensor": [[1, 2]]}, 400, "baseline_tensor", "three axes"),
        ({"baseline": "tensor", "baseline_tensor": [[["x"]]]}, 400, "baseline_tensor", "nested list of numbers"),
        ({"baseline": "tensor", "baseline_tensor": nan()}, 400, "baseline_tensor", "finite"),
        ({"baseline": "tensor", "baseline_tensor": b"no tensors"}, 400, "baseline_tensor", "safetensors"),
        ({"segments": "of my own"}, 400, "segments", "known: slic, grid; or the name of a segmenter"),
        ({"segments": "slic", "threshold": 0.5}, 400, "threshold", "wanted segments=<name of a segmenter>"),
        ({"threshold": 0.5}, 400, "threshold", "wanted segments=<name of a segmenter>"),
        ({"segments": "swin", "threshold": 2}, 400, "threshold", "in 0..1, got 2"),
        ({"segments": "swin", "fallback": "tensormask"}, 400, "fallback", "known: slic, grid"),
        ({"segments": "grid", "fallback": "slic"}, 400, "fallback", "wanted segments=<name of a segmenter>"),
        ({"segments": "swin", "rows": 2}, 400, "rows", "wanted segments=grid beside it, got segments=swin"),
        ({"segments": ["slic"]}, 400, "segments", "slic"),
        ({"n_segments": 10}, 400, "n_segments", "wanted segments=slic beside it"),
        ({"segments": "grid", "compactness": 1}, 400, "compactness", "segments=slic beside it, got segments=grid"),
        ({"segments": "slic", "n_segments": 51}, 413, "n_segments", "1..50"),
        ({"segments": "slic", "compactness": 0}, 400, "compactness", "above 0"),
        ({"segments": "grid", "rows": 10, "columns": 10}, 413, "rows", "at most 50 cells, got 10 × 10"),
    ],
)
def test_refusals(given: dict[str, Any], status: int, field: str, words: str) -> None:
    def read() -> None:
        path_options(given, LIMITS, USUAL)
        baseline_options(given, LIMITS, "zero")
        segment_options(given, LIMITS)

    with pytest.raises(RequestError) as caught:
        read()
    assert (caught.value.status, caught.value.field) == (status, field), caught.value
    assert words in caught.value.message


@pytest.mark.parametrize("value", [0, 1, "true", []])
def test_no_switch(value: object) -> None:
    with pytest.raises(RequestError, match="pixels: wanted true or false"):
        switch("pixels", value)


def test_lists_of_numbers_that_numpy_would_take_for_objects() -> None:
    with pytest.raises(RequestError, match="baseline_tensor"):
        baseline_options({"baseline": "tensor", "baseline_tensor": [[[None]]]}, LIMITS, "zero")
