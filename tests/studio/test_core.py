"""The studio's core in Chromium, held to other implementations and to the service's own document."""

from __future__ import annotations

import base64
import itertools
import json
import math
import re
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from numpy.typing import NDArray
from playwright.sync_api import Error
from pycocotools import mask as coco
from scipy.ndimage import gaussian_filter
from skimage.color import deltaE_ciede2000, rgb2lab

from imagexplain.api.body import header_options, plain
from imagexplain.api.openapi import document
from imagexplain.api.option_schemas import Interface
from imagexplain.api.request import Defaults
from imagexplain.attribution.registry import METHODS
from imagexplain.serving.interface import GENERIC
from tests.studio.browser import Modules

BYTES = "Uint8Array.from(atob(a[0]), (c) => c.charCodeAt(0))"


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def random_mask(generator: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """A mask whose pixels are on with some probability, in patches of some size."""
    patch = int(generator.integers(1, 6))
    coarse = generator.random((-(-height // patch), -(-width // patch))) < generator.random()
    return np.kron(coarse, np.ones((patch, patch), dtype=np.uint8))[:height, :width].astype(np.uint8)


# Tensors

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def test_tensors_of_every_type(core: Modules) -> None:
    values = torch.tensor([[0, 1, 2.5], [-3, 100, 0.125]])
    tensors = {name: values.to(dtype) for name, dtype in DTYPES.items()}
    tensors |= {"scalar": torch.tensor(7.0), "empty": torch.zeros(0, 3)}
    data = safetensors.torch.save(tensors, metadata={"result": json.dumps({"score": 1.5, "label": "Füße"})})
    code = f"const found = m.parse({BYTES}.buffer); return [found.result, Object.fromEntries("
    code += "Object.entries(found.tensors).map(([k, t]) => [k, [t.dtype, t.shape, Array.from(m.numbers(t))]]))];"
    result, found = core.run("safetensors", code, encoded(data))
    assert result == {"score": 1.5, "label": "Füße"}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        dtype, shape, numbers = found[name]
        assert dtype == (name if name in DTYPES else "F32") and shape == list(tensor.shape)
        assert numbers == tensor.to(torch.float64).flatten().tolist(), name


def test_halves_that_are_not_normal(core: Modules) -> None:
    every = np.arange(2**16, dtype=np.uint16)
    for name, kept in (("F16", every.view(np.float16).astype(np.float64)), ("BF16", None)):
        halves = torch.from_numpy(every.view(np.int16)).view(torch.float16 if kept is not None else torch.bfloat16)
        data = safetensors.torch.save({"all": halves})
        code = (
            f"const bits = new Uint32Array(m.parse({BYTES}.buffer).tensors.all.data.buffer); return Array.from(bits);"
        )
        found = np.array(core.run("safetensors", code, encoded(data)), dtype=np.uint32).view(np.float32)
        np.testing.assert_array_equal(found, halves.to(torch.float32).numpy(), err_msg=name)


def test_tensors_that_lie_askew(core: Modules) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [1, 5]}}).encode()
    data = len(header).to_bytes(8, "little") + header + b"\0" + np.float32(2.5).tobytes()
    code = f"m.parse({BYTES}.buffer).tensors.a.data[0]"
    assert core.value("safetensors", code, encoded(data)) == 2.5


@pytest.mark.parametrize(
    ("header", "tail"),
    [
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, 4),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, 3),
        ({"a": {"dtype": "F31", "shape": [1], "data_offsets": [0, 4]}}, 4),
        ({"a": {"dtype": "constructor", "shape": [1], "data_offsets": [0, 4]}}, 4),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}}, 4),
        ({"a": None}, 4),
        ([], 0),
    ],
)
def test_bytes_that_are_no_tensors(core: Modules, header: Any, tail: int) -> None:
    text = json.dumps(header).encode()
    for data in (len(text).to_bytes(8, "little") + text + bytes(tail), b"", (2**60).to_bytes(8, "little")):
        with pytest.raises(Error, match="wanted"):
            core.value("safetensors", f"m.parse({BYTES}.buffer)", encoded(data))


def test_maps_are_summed_and_smoothed(core: Modules) -> None:
    values = np.random.default_rng(0).normal(size=(2, 3, 7, 9)).astype(np.float32)
    values[0, 1, 2, 3] = np.nan
    data = encoded(safetensors.numpy.save({"integrated_grads": values}))
    code = "const {parse} = await import('./safetensors.js'); const {tensors} = parse(" + BYTES + ".buffer);"
    code = code.replace("./safetensors.js", "http://studio.test/core/safetensors.js")
    code += "const map = m.smoothed(m.heatMap(tensors, a[1]), a[2]);"
    code += "return [map.height, map.width, Array.from(map.values)];"
    for place, sigma in itertools.product((0, 1), (0, 1.5)):
        height, width, found = core.run("maps", code, data, place, sigma)
        wanted = np.nan_to_num(values[place]).sum(0)
        wanted = gaussian_filter(wanted, sigma, mode="reflect") if sigma else wanted
        np.testing.assert_allclose(np.reshape(found, (height, width)), wanted, atol=1e-5)


# Masks


def test_runs_are_pycocotools(core: Modules) -> None:
    generator = np.random.default_rng(0)
    masks = [random_mask(generator, *generator.integers(1, 40, 2)) for _ in range(200)]
    masks += [np.zeros((3, 4), np.uint8), np.ones((3, 4), np.uint8), np.ones((1, 1), np.uint8), np.eye(70, dtype="u1")]
    runs = [coco.encode(np.asfortranarray(mask)) for mask in masks]
    theirs = [{"size": each["size"], "counts": each["counts"].decode()} for each in runs]
    decoded = core.value("rle", "a[0].map((each) => Array.from(m.decode(each)))", theirs)
    for mask, found in zip(masks, decoded, strict=True):
        assert found == mask.flatten().tolist()
    given = [[mask.flatten().tolist(), *mask.shape] for mask in masks]
    ours = core.value("rle", "a[0].map((each) => m.encode(...each))", given)
    assert ours == theirs
    assert core.value("rle", "a[0].map(m.area)", theirs) == [int(mask.sum()) for mask in masks]
    for mask, found in zip(masks, core.value("rle", "a[0].map(m.bounds)", theirs), strict=True):
        rows, columns = np.nonzero(mask)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else None
        assert found == box


def test_runs_of_large_masks(core: Modules) -> None:
    mask = np.zeros((3000, 4000), np.uint8)
    mask[1000:2900, 5:3990] = 1
    runs = coco.encode(np.asfortranarray(mask))
    text = {"size": runs["size"], "counts": runs["counts"].decode()}
    code = "const mask = m.decode(a[0]); return [mask.reduce((s, v) => s + v, 0), m.encode(mask, 3000, 4000).counts];"
    assert core.run("rle", code, text) == [int(mask.sum()), text["counts"]]
    assert core.value("rle", "m.outlineOf(a[0])", text) == "M5 1000H3990V2900H5Z"


@pytest.mark.parametrize(
    "runs",
    [
        {"size": [2, 2], "counts": [1, 2]},
        {"size": [2, 2], "counts": [5, -1]},
        {"size": [2, 2], "counts": "1"},
        {"size": [2, 2], "counts": "~"},
        {"size": [2, 2], "counts": "P"},
    ],
)
def test_runs_that_are_none(core: Modules, runs: Any) -> None:
    with pytest.raises(Error, match="wanted"):
        core.value("rle", "m.decode(a[0])", runs)


def filled(path: str, height: int, width: int) -> NDArray[np.bool_]:
    """The pixels within a path of lines, by the even-odd rule: a ray from each pixel's centre to the left."""
    inside = np.zeros((height, width), dtype=np.bool_)
    for part in filter(None, path.split("Z")):
        start = re.match(r"M(\d+) (\d+)", part)
        assert start is not None
        x, y = first = (int(start[1]), int(start[2]))
        steps = [(kind, int(value)) for kind, value in re.findall(r"([HV])(\d+)", part)]
        assert [kind for kind, _ in steps] == list(
            itertools.islice(itertools.cycle(steps[0][0] + "HV"["VH".index(steps[0][0])]), len(steps))
        )
        steps.append(("H", first[0]) if steps[-1][0] == "V" else ("V", first[1]))
        for kind, value in steps:
            if kind == "V":
                inside[min(y, value) : max(y, value), x:] ^= True
                y = value
            else:
                x = value
        assert (x, y) == first
    return inside


def test_outlines_enclose_the_mask(core: Modules) -> None:
    generator = np.random.default_rng(1)
    masks = [random_mask(generator, *generator.integers(1, 24, 2)) for _ in range(200)]
    masks += [np.array([[1, 0], [0, 1]]), np.array([[0, 1], [1, 0]]), np.ones((3, 2), int), np.zeros((2, 2), int)]
    masks.append(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]]))
    given = [[mask.flatten().tolist(), *mask.shape] for mask in masks]
    for mask, path in zip(masks, core.value("rle", "a[0].map((each) => m.outline(...each))", given), strict=True):
        np.testing.assert_array_equal(filled(path, *mask.shape), mask.astype(bool))
    assert core.value("rle", "m.outline([1, 1, 1, 0, 1, 1], 2, 3)") == "M0 0H3V2H1V1H0Z"


def test_the_browser_fills_what_the_outline_encloses(core: Modules) -> None:
    mask = random_mask(np.random.default_rng(3), 40, 50)
    code = "const canvas = new OffscreenCanvas(50, 40); const context = canvas.getContext('2d');"
    code += "context.fill(new Path2D(m.outline(a[0], 40, 50)), 'evenodd');"
    code += "return Array.from(context.getImageData(0, 0, 50, 40).data.filter((_, index) => index % 4 === 3));"
    assert core.run("rle", code, mask.flatten().tolist()) == (mask.flatten() * 255).tolist()


def test_masks_of_a_label_map(core: Modules) -> None:
    labels = np.random.default_rng(2).integers(-1, 4, (9, 11)).repeat(3, 0)
    code = "return [...m.ofLabels(a[0], 27, 11)].map(([label, runs]) => [label, Array.from(m.decode(runs))]);"
    found = dict(core.run("rle", code, labels.flatten().tolist()))
    assert found.keys() == {0, 1, 2, 3}
    for label, mask in found.items():
        assert mask == (labels == label).astype(int).flatten().tolist()


# Colours

SCALES = ("red-blue", "orange-blue", "green-purple")

# Machado, Oliveira and Fernandes 2009, full severity, on linear sRGB.
BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def seen_by(colours: NDArray[np.float64], blindness: str) -> NDArray[np.float64]:
    """Colours (N, 3) in 0…1 as somebody without one kind of cones sees them."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    linear = (linear @ np.array(BLINDNESS[blindness]).T).clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def test_there_are_no_other_scales(core: Modules) -> None:
    assert core.value("colour", "m.SCALES") == list(SCALES)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_scales_are_symmetric_even_and_safe(core: Modules, scheme: str, scale: str) -> None:
    levels = np.linspace(-1, 1, 41)
    code = "a[0].map((value) => m.diverging(value, a[1], a[2]))"
    colours = np.array(core.value("colour", code, levels.tolist(), scheme, scale)) / 255
    assert colours.min() >= 0 and colours.max() <= 1
    lab = rgb2lab(colours[None])[0]
    lightness = lab[:, 0]
    assert np.abs(lightness - lightness[::-1]).max() < 0.6, "as light for either sign"
    towards = np.diff(lightness[20:]) * (-1 if scheme == "light" else 1)
    assert (towards > 0).all() and np.abs(towards - towards.mean()).max() < 0.7, "monotone, in even steps"
    steps = np.linalg.norm(np.diff(lab, axis=0), axis=1)
    assert steps.min() > 0.75 * steps.mean() and steps.max() < 1.25 * steps.mean(), "even steps in CIELAB"
    assert np.linalg.norm(lab[20, 1:]) < 1, "a grey in the middle"
    for blindness in BLINDNESS:
        simulated = rgb2lab(seen_by(colours, blindness)[None])[0]
        for magnitude in (0.25, 0.5, 1):
            offset = round(20 * magnitude)
            apart = deltaE_ciede2000(simulated[20 - offset], simulated[20 + offset])
            assert apart > 20 * min(1, 1.6 * magnitude), f"the signs at {magnitude} with {blindness}"


def test_scales_are_clipped(core: Modules) -> None:
    assert core.value("colour", "[5, -Infinity, NaN, 0].map((v) => m.diverging(v))") == core.value(
        "colour", "[1, -1, 0, 0].map((v) => m.diverging(v))"
    )
    assert core.value("colour", "[m.css([1, 2, 3]), m.ink([250, 240, 200]), m.ink([90, 0, 0])]") == [
        "rgb(1 2 3)",
        [0, 0, 0],
        [255, 255, 255],
    ]
    key = core.value("colour", "m.key(5, 'dark')")
    assert [stop["value"] for stop in key] == [-1, -0.5, 0, 0.5, 1]


def test_full_colour_is_reached_at_a_percentile(core: Modules) -> None:
    values = np.random.default_rng(0).normal(size=1000)
    values[:100] = 0
    wanted = np.percentile(np.abs(values[values != 0]), 99.5)
    assert core.value("colour", "m.limit(a[0])", values.tolist()) == pytest.approx(wanted)
    assert core.value("colour", "m.limit([0, 0])") == 0


def test_a_painted_map(core: Modules) -> None:
    code = "const image = m.paint([-2, 0, 1, NaN, 4, 2], 2, 3, a[0]); return [image.width, Array.from(image.data)];"
    width, data = core.run("colour", code, {"limit": 2, "opacity": 0.5})
    pixels = np.reshape(data, (6, 4)).tolist()
    ends = core.value("colour", "[-1, 0, 1].map((v) => m.diverging(v))")
    assert width == 3 and pixels[3] == [0, 0, 0, 0]
    assert [pixels[place] for place in (0, 1, 4, 5)] == [[*ends[place], 128] for place in (0, 1, 2, 2)]
    _, data = core.run("colour", code, {"limit": 2, "fade": True})
    assert data[3::4] == [255, 0, 128, 0, 255, 255]
    assert not any(core.value("colour", "Array.from(m.paint([0, 0], 1, 2, {fade: true}).data)")[3::4])


# Frames

CROPPED = {"photo": [480, 640], "input": [224, 224], "box": [80, 0, 560, 480]}
PADDED = {"photo": [100, 200], "input": [50, 50], "box": [0, -50, 200, 150]}


def test_places_go_back_and_forth(core: Modules) -> None:
    assert core.value("frame", "m.toPhoto(a[0], [0, 224])", CROPPED) == [80, 480]
    assert core.value("frame", "m.boxToInput(a[0], [80, 0, 320, 480])", CROPPED) == [0, 0, 112, 224]
    code = "m.toInput(a[0], m.toPhoto(a[0], [3.5, 7]))"
    for frame in (CROPPED, PADDED):
        assert core.value("frame", code, frame) == pytest.approx([3.5, 7])
    assert core.value("frame", "m.boxToPhoto(a[0], m.boxToInput(a[0], [1, 2, 3, 4]))", PADDED) == pytest.approx(
        [1, 2, 3, 4]
    )


def test_what_the_model_sees(core: Modules) -> None:
    assert core.value("frame", "m.seen(a[0])", CROPPED) == [80, 0, 560, 480]
    assert core.value("frame", "m.seen(a[0])", PADDED) == [0, 0, 200, 100]
    assert core.value("frame", "m.unseenPath(a[0])", PADDED) == ""
    unseen = filled(core.value("frame", "m.unseenPath(a[0])", CROPPED), 480, 640)
    assert unseen.sum() == 160 * 480 and unseen[:, :80].all()
    assert core.value("frame", "m.placement(a[0])", PADDED) == {"x": 0, "y": -50, "width": 200, "height": 200}
    stretched = {"photo": [10, 20], "input": [5, 5], "box": [0, 0, 20, 10]}
    assert core.value("frame", "m.stretched([10, 20], [5, 5])") == stretched


# Groups

ROWS = [
    {"label": "cat", "kind": "segment", "attribution": 2.0, "area": 50, "parent": 3, "directional": 0.5},
    {"label": "ear", "kind": "segment", "attribution": 1.5, "area": 10, "parent": 0, "directional": 0.9},
    {"label": "mat", "kind": "segment", "attribution": -0.5, "area": 40, "parent": 3, "directional": None},
    {"label": "whole", "kind": "whole", "attribution": 2.0, "area": 110, "parent": -1, "directional": 0.1},
    {"label": "rest", "kind": "rest", "attribution": 0.3, "area": 20, "parent": 3, "directional": 0.2},
]
# The mat lies half on the cat, and the ear within the cat.
PARTS = [
    {"segments": ["cat"], "attribution": 0.7, "area": 30},
    {"segments": ["cat", "ear"], "attribution": 1.5, "area": 10},
    {"segments": ["cat", "mat"], "attribution": -0.2, "area": 10},
    {"segments": ["mat"], "attribution": -0.3, "area": 30},
    {"segments": [], "attribution": 0.3, "area": 20},
]
SUMMARY = {"score": 3.0, "baseline_score": 1.0, "groups": ROWS, "refinement": PARTS}


def test_rows_in_the_order_of_a_column(core: Modules) -> None:
    def order(*given: Any) -> list[int]:
        return [each["index"] for each in core.value("groups", "m.sorted(...a)", ROWS, *given)]

    assert order("attribution") == [0, 3, 1, 4, 2]
    assert order("attribution", "ascending") == [2, 4, 1, 0, 3]
    assert order("directional", "ascending")[-1] == order("directional")[-1] == 2
    assert order("label", "ascending") == [0, 1, 2, 4, 3]
    assert dict(core.value("groups", "[...m.children(a[0])]", ROWS)) == {3: [0, 2, 4], 0: [1], -1: [3]}


def test_strengths_leave_the_whole_out(core: Modules) -> None:
    rows = [*ROWS[:3], {**ROWS[3], "attribution": 100}]
    assert core.value("groups", "m.strengths(a[0])", rows) == [1, 0.75, -0.25, 1]
    assert core.value("groups", "m.strengths(a[0], 'directional')", rows)[2] == 0
    assert core.value("groups", "m.strengths([])") == []


@pytest.mark.parametrize(
    ("absent", "left"),
    [([], 3), ([1], 1.5), ([0, 1], 1), ([0, 2], 1.3), ([1, 2], 2), ([4], 2.7), ([0, 1, 2, 4], 1), ([3, 0], 1)],
)
def test_the_foretold_score_counts_overlaps_once(core: Modules, absent: list[int], left: float) -> None:
    assert core.value("groups", "m.foretold(a[0], new Set(a[1]))", SUMMARY, absent) == pytest.approx(left)


def test_groups_of_one_label(core: Modules) -> None:
    twice = {"kind": "segment", "label": "cat", "area": 10}
    rows = [{**twice, "attribution": 2.0}, {**twice, "attribution": 0.5}, {**ROWS[2], "attribution": 1.0}]
    apart = [{"segments": [row["label"]], "attribution": row["attribution"]} for row in rows]
    code = "a[1].map((absent) => m.foretold(a[0], new Set(absent)))"
    summary = {"score": 5.0, "baseline_score": 0.0, "groups": rows, "refinement": apart}
    assert core.value("groups", code, summary, [[0], [1], [0, 2], [0, 1]]) == [3, 4.5, 2, 2.5]
    overlapping = {**summary, "refinement": [*apart, {"segments": ["cat", "mat"], "attribution": 0.1}]}
    assert core.value("groups", code, overlapping, [[0], [1], [0, 2]]) == [3, 4.5, None]


def test_what_foretells_no_score(core: Modules) -> None:
    other = {name: value for name, value in SUMMARY.items() if name != "baseline_score"}
    assert core.value("groups", "m.foretold(a[0], new Set([0]))", other) is None
    with pytest.raises(Error, match="wanted a row of 5 groups"):
        core.value("groups", "m.foretold(a[0], new Set([9]))", SUMMARY)


# Options

LABELS = ("cat", "dog, hound")
MODELS = [
    Interface("bit", "classifier", "Ten classes.", labels=LABELS, methods=("grad_cam", "integrated_gradients")),
    Interface("noisy", "classifier", defaults=Defaults(baseline="uniform", method="deep_lift")),
    Interface("swin/2.0", "segmenter", contract=GENERIC[1].contract, threshold=0.5, labels=LABELS),
    Interface("captioner", "captioner", defaults=GENERIC[2].defaults),
]
DOCUMENT = json.loads(json.dumps(document(MODELS)))
AS_PATHS = ("method", "combine")


def controls(core: Modules, model: str, method: Any, endpoint: str = "explanation") -> dict[str, dict[str, Any]]:
    found = core.value("options", "m.controls(...a)", DOCUMENT, model, method, endpoint)
    return {control["name"]: control for control in found}


def test_the_models_of_a_document(core: Modules) -> None:
    found = core.value("document", "m.models(a[0])", DOCUMENT)
    assert [model["name"] for model in found] == ["bit", "noisy", "swin/2.0", "captioner"]
    bit, noisy, swin, captioner = found
    assert (bit["kind"], bit["labels"], bit["methods"]) == ("classifier", list(LABELS), list(MODELS[0].methods or ()))
    assert (noisy["labels"], noisy["method"]) == (None, "deep_lift") and set(noisy["methods"]) == set(METHODS)
    assert swin["kind"] == "segmenter" and captioner["methods"] == []
    assert bit["operation"]["operationId"] == "explain_bit"
    assert core.value("document", "m.media(a[0], 'bit', 'explanation')", DOCUMENT)[0] == "application/gzip"
    with pytest.raises(Error, match="unknown model none"):
        core.value("document", "m.schemas(a[0], 'none', 'prediction')", DOCUMENT)


def test_the_model_to_begin_with_is_the_classifier_of_the_most_classes(core: Modules) -> None:
    def model(name: str, kind: str, count: int | None) -> dict[str, Any]:
        return {"name": name, "kind": kind, "labels": None if count is None else ["a"] * count}

    words, shapes, own = (model(name, "classifier", count) for name, count in (("w", None), ("a", 9), ("b", 1000)))
    segmenter, captioner = model("s", "segmenter", 2000), model("c", "captioner", 3000)
    for models, wanted in (
        ([captioner, segmenter, words, shapes, own, own | {"name": "c"}], "b"),
        ([words, words | {"name": "x"}], "w"),
        ([captioner, segmenter], "s"),
        ([captioner], None),
    ):
        assert core.value("document", "m.first(a[0])?.name ?? null", models) == wanted


def every_control(core: Modules, model: Interface) -> dict[Any, dict[str, dict[str, Any]]]:
    """The controls of a model's explanations, by method."""
    methods = [None] if model.kind == "captioner" else [None, *METHODS]
    code = "a[2].map((method) => m.controls(a[0], a[1], method))"
    found = core.value("options", code, DOCUMENT, model.address, methods)
    return {method: {control["name"]: control for control in each} for method, each in zip(methods, found, strict=True)}


def test_every_option_has_a_control_with_the_methods_that_take_it(core: Modules) -> None:
    for model in MODELS:
        offered = every_control(core, model)
        if model.kind != "captioner":
            offered["both"] = controls(core, model.address, ["blur_ig", "grad_cam"])
        assert set().union(*offered.values()) == set(model.options("explanation")) - {*AS_PATHS}
        for name in set(METHODS) & offered.keys():
            taken = METHODS[name].parameters.keys()
            own = {"quadrature" if option == "rule" else option for option in METHODS[name].options}
            assert own <= offered[name].keys(), name
            assert ("layer" in offered[name]) == ("layer" in taken)
            assert ("baseline" in offered[name]) == (not taken.isdisjoint(("baselines", "fill", "references")))
            assert ("tolerance" in offered[name]) == (name in ("integrated_gradients", "gaussian_shap"))
        predicted = set(model.options("prediction")) - {*AS_PATHS}
        assert predicted - {"pixels"} <= controls(core, model.address, None, "prediction").keys() <= predicted


def test_no_control_is_of_an_unknown_part_or_kind(core: Modules) -> None:
    unforeseen = {"absent", "masks", "baseline_tensor", "graph", "graphs", "features", "caption", "words"}
    for model in MODELS:
        for found in every_control(core, model).values():
            for name, control in found.items():
                assert control["part"] != "other" and control["help"], name
                assert (control["kind"] == "json") == (name in unforeseen), name


def test_controls_have_bounds_defaults_and_words(core: Modules) -> None:
    found = controls(core, "bit", "integrated_gradients")
    assert {"kind": "integer", "minimum": 1, "maximum": 1000, "default": 50}.items() <= found["steps"].items()
    assert {"kind": "number", "minimum": 0, "maximum": 1}.items() <= found["tolerance"].items()
    assert {"kind": "number", "minimum": 0, "exclusive": True, "maximum": 1}.items() <= found["blur"].items()
    assert (found["baseline"]["kind"], found["baseline"]["default"]) == ("choice", "zero")
    assert found["segments"]["choices"] == ["slic", "grid", "swin"]
    assert (found["target_class"]["kind"], found["contrast_class"]["kind"]) == ("classes", "class")
    assert found["target_class"]["choices"] == list(LABELS)
    assert (found["pixels"]["kind"], found["outputs"]["kind"]) == ("boolean", "choices")
    assert {"step_sizes", "photo_masks"} < {*found["outputs"]["choices"]}
    assert controls(core, "bit", "rise")["outputs"]["choices"] == ["photo_masks", "photo_runs"]
    shap = controls(core, "bit", "gaussian_shap")
    assert (shap["samples"]["maximum"], shap["n_segments"]["maximum"]) == (4096, 256)
    kernel_shap = controls(core, "bit", "kernel_shap")["samples"]
    assert (kernel_shap["minimum"], kernel_shap["maximum"]) == (2, 20_000)
    assert found["baseline_image"]["kind"] == "file"
    assert found["blur"]["needs"] == {"option": "baseline", "values": ["blur"]}
    assert [field["name"] for field in found["smooth"]["fields"]] == ["samples", "std", "seed", "statistic"]
    assert "null" not in json.dumps(found["baseline"]["choices"])


def test_defaults_are_the_methods_own(core: Modules) -> None:
    rise = controls(core, "bit", "rise")
    assert (rise["samples"]["default"], rise["keep"]["default"], rise["seed"]["needs"]) == (4000, 0.5, None)
    assert "Probability in (0, 1]" in rise["keep"]["help"] and "Default" not in rise["keep"]["help"]
    shap = controls(core, "bit", "kernel_shap")
    assert shap["segments"]["default"] == "slic" and "size" not in shap
    assert controls(core, "bit", "blur_ig")["steps"]["default"] == 100
    assert controls(core, "noisy", "deep_lift")["baseline"]["default"] == "uniform"
    assert controls(core, "noisy", "rise")["baseline"]["default"] == "black"
    assert controls(core, "bit", "expected_gradients")["draws"]["default"] == 16
    both = controls(core, "bit", ["blur_ig", "grad_cam"])
    assert {"normalized", "layer", "max_sigma"} <= both.keys() and "normalized" not in rise


def test_options_without_their_choice(core: Modules) -> None:
    code = "const all = m.controls(a[0], 'bit', a[1]); const one = (name) => all.find((each) => each.name === name);"
    code += "return a[3].map((name) => m.applies(one(name), a[2], all));"

    def applies(method: str, values: dict[str, Any], *names: str) -> list[bool]:
        found: list[bool] = core.run("options", code, DOCUMENT, method, values, names)
        return found

    path = "integrated_gradients"
    assert applies(path, {}, "steps", "blur", "rows", "fallback") == [True, False, False, False]
    assert applies(path, {"baseline": "blur", "segments": "grid"}, "blur", "draws", "rows") == [True, False, True]
    assert applies(path, {"segments": "swin"}, "fallback", "threshold", "n_segments") == [True, True, False]
    assert applies("kernel_shap", {}, "n_segments", "seed") == [True, True]


def test_faults_are_told_before_the_service_is_asked(core: Modules) -> None:
    control = controls(core, "bit", "integrated_gradients")
    code = "m.fault(...a)"
    assert core.value("options", code, control["steps"], "12") == ""
    assert core.value("options", code, control["steps"], 1.5) == "steps: wanted a whole number"
    assert core.value("options", code, control["steps"], "") == "steps: wanted a number"
    assert core.value("options", code, control["steps"], 1001) == "steps: wanted at most 1000"
    assert core.value("options", code, control["blur"], 0) == "blur: wanted more than 0"
    assert core.value("options", code, control["tolerance"], -0.1) == "tolerance: wanted at least 0"
    assert "wanted one of" in core.value("options", code, control["quadrature"], "none")


VALUES: dict[str, Any] = {
    "target_class": ["dog, hound", 1],
    "contrast_class": "Größe & mehr = 1+1",
    "steps": 7,
    "tolerance": 0.05,
    "pixels": True,
    "outputs": ["output", "step_sizes"],
    "combine": ["blur_ig", "grad_cam"],
    "smooth": {"samples": 3, "std": 0.5},
    "absent": [0, 3],
    "masks": [{"size": [2, 2], "counts": "112", "label": "ear"}],
}


def test_options_are_read_back(core: Modules) -> None:
    text = core.value("options", "m.encode(a[0])", {**VALUES, "segments": None})
    assert text.isascii() and "segments" not in text
    read = header_options(text)
    assert read == core.value("options", "m.decode(a[0])", text)
    from imagexplain.api.body import _from_form

    for name, value in VALUES.items():
        found = _from_form(name, read[name])
        assert plain(name, found) == value or found == value or (name == "outputs" and found == ",".join(value)), name


# The service

ANSWER = safetensors.numpy.save(
    {"integrated_grads": np.ones((1, 3, 2, 2), np.float32)}, metadata={"result": json.dumps({"score": 2.5})}
)
FAKE = """
const calls = [];
const answer = (status, body, headers) => async (url, settings) => {
    const body_ = settings.body;
    calls.push({url, method: settings.method ?? "GET", headers: settings.headers,
        body: body_ instanceof FormData ? [...body_].map(([k, v]) => [k, v instanceof Blob ? v.size : v])
            : body_ instanceof Blob ? body_.size : null});
    return new Response(body, {status, headers});
};
"""


def test_an_explanation_is_asked_and_read(core: Modules) -> None:
    code = (
        FAKE
        + f"""
    const bytes = {BYTES};
    const headers = {{"Content-Type": "application/x-safetensors", "X-Request-Id": "abc",
        "Content-Length": String(bytes.length)}};
    const service = new m.Service({{base: "http://here/", key: "secret", fetch: answer(200, bytes, headers)}});
    const photo = new Blob([new Uint8Array(10)], {{type: "image/png"}});
    const progress = [];
    const found = await service.explain("bit", photo, {{steps: 5, target_class: "dog"}},
        {{progress: (...told) => progress.push(told), fresh: true}});
    return [calls, found.summary, found.tensors.integrated_grads.shape, found.media, found.id, found.bytes.length,
        progress.at(-1), found.seconds >= 0];
    """
    )
    calls, summary, shape, media, request_id, length, progress, timed = core.run("service", code, encoded(ANSWER))
    assert summary == {"score": 2.5} and shape == [1, 3, 2, 2] and timed
    assert (media, request_id, length) == ("application/x-safetensors", "abc", len(ANSWER))
    assert progress == [len(ANSWER), len(ANSWER)]
    (call,) = calls
    assert (call["url"], call["method"], call["body"]) == ("http://here/explanations/bit", "POST", 10)
    assert call["headers"] == {
        "Authorization": "Bearer secret",
        "Accept": "application/x-safetensors; summary=true",
        "Cache-Control": "no-cache",
        "Content-Type": "image/png",
        "X-Explain-Options": "steps=5&target_class=dog",
    }


def test_long_options_and_files_go_into_a_form(core: Modules) -> None:
    code = (
        FAKE
        + """
    const service = new m.Service({fetch: answer(200, "{}", {"Content-Type": "application/json"})});
    const photo = new Blob([new Uint8Array(10)]);
    await service.predict("bit", photo, {masks: [{size: [1, 1], counts: "x".repeat(5000)}], steps: 3});
    await service.explain("bit", photo, {baseline: "image", baseline_image: new Blob([new Uint8Array(4)])});
    return calls;
    """
    )
    predicted, explained = core.run("service", code)
    assert [name for name, _ in predicted["body"]] == ["image", "masks", "steps"]
    assert "X-Explain-Options" not in predicted["headers"] and "Content-Type" not in predicted["headers"]
    assert "Authorization" not in predicted["headers"] and predicted["url"] == "/predictions/bit"
    assert explained["body"] == [["image", 10], ["baseline", "image"], ["baseline_image", 4]]


def test_errors_are_the_services_own(core: Modules) -> None:
    code = (
        FAKE
        + """
    const told = async (fetch, signal) => {
        const service = new m.Service({fetch});
        try { await service.predict("bit", new Blob([]), {}, {signal}); } catch (error) {
            return [error.constructor.name, error.status, error.field, error.message, error.retryAfter, error.word]; }
    };
    const body = JSON.stringify({code: 503, error: "busy", field: "model", message: "later"});
    return [
        await told(answer(503, body, {"Retry-After": "5"})),
        await told(answer(502, "<html>", {})),
        await told(async () => { throw new TypeError("Failed to fetch"); }),
        (await told(async () => { throw new DOMException("stopped", "AbortError"); }))[0],
    ];
    """
    )
    assert core.run("service", code) == [
        ["ServiceError", 503, "model", "later", 5, "busy"],
        ["ServiceError", 502, "server", "502", None, ""],
        ["ServiceError", 0, "server", "the server does not answer", None, ""],
        "DOMException",
    ]


def test_the_document_is_asked_for_once_and_again_after_a_failure(core: Modules) -> None:
    code = (
        FAKE
        + """
    let fails = true;
    const fetch = (...given) => answer(fails ? 503 : 200, JSON.stringify(a[0]), {})(...given);
    const service = new m.Service({fetch});
    const failed = await service.document().then(() => 200, (error) => error.status);
    fails = false;
    const names = (await service.models()).map((model) => model.name);
    await service.models();
    return [failed, names.length, calls.map((call) => call.url)];
    """
    )
    assert core.run("service", code, DOCUMENT) == [503, 4, ["/openapi.json", "/openapi.json"]]


def test_readiness_is_told_ready_or_not(core: Modules) -> None:
    code = (
        FAKE
        + """
    const body = JSON.stringify({code: 503, message: "not ready: bit", ready: false, models: {bit: "LOADING"}});
    return [await new m.Service({fetch: answer(503, body, {})}).readiness(),
        await new m.Service({fetch: answer(200, '{"ready": true}', {})}).readiness()];
    """
    )
    loading, ready = core.run("service", code)
    assert loading["models"] == {"bit": "LOADING"} and ready == {"ready": True}


def test_convergence_asks_with_more_and_more_steps(core: Modules) -> None:
    code = """
    const asked = [];
    const service = {explain: async (model, photo, options, {accept, fresh}) => {
        asked.push([model, options, accept, fresh]);
        return {summary: {evaluations: options.steps, residual: 1 / options.steps}, seconds: 0};
    }};
    const points = [];
    const options = {tolerance: 0.1, baseline: "black"};
    for await (const point of m.convergence(service, "bit", null, options, {steps: [2, 4]})) {
        points.push([point.steps, point.evaluations, point.residual]);
    }
    return [asked, points];
    """
    asked, points = core.run("convergence", code)
    method = {"baseline": "black", "method": "integrated_gradients"}
    assert asked == [["bit", {**method, "steps": steps}, "application/json", True] for steps in (2, 4)]
    assert points == [[2, 2, 0.5], [4, 4, 0.25]]


# Snippets


def test_literals_of_python(core: Modules) -> None:
    value = {"a": [1, 2.5, None, True, 'it\'s "so" \\ \n ü 𝄞'], "b": {"c": False}, "d": math.pi}
    text = core.value("snippets", "m.literal(a[0])", value)
    assert eval(text) == value


def test_words_of_a_shell(core: Modules) -> None:
    import shlex

    for word in ("photo.jpg", "my photo.jpg", "it's", "$HOME `x`", "a;b", "", "-"):
        assert shlex.split(core.value("snippets", "m.quoted(a[0])", word)) == [word]
