import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d, box_iou

from benchmarks import deterministic
from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.checkpoints.checkpoint import CheckpointError
from imagexplain.models.segmenters import tensormask
from imagexplain.models.segmenters.resnet_fpn import NormedConv2d, Stage, padded
from imagexplain.models.segmenters.swap_align2nat import swap_align2nat
from imagexplain.models.segmenters.tensormask import HeadOutputs, TensorMask, TensorMaskSettings, TensorMaskSize
from imagexplain.models.segmenters.tensormask_head import Rectangle, within
from tests.models.reference import FIXTURES, distance, shapes
from tests.models.same import assert_close_outputs, assert_same_weights
from tests.models.tensormasks import untrained_state

DIRECTORY = FIXTURES / "tensormask"

SAMPLED = 13
"""The fixtures keep every thirteenth value, in memory's order, of upstream's network-sized tensors."""

LEVELS = range(6)

SMALL = TensorMaskSize(
    classes=3,
    stem=8,
    stages=(Stage(1, 4, 8), Stage(2, 8, 16), Stage(1, 8, 24), Stage(1, 8, 32)),
    channels=16,
    convs=2,
    towers=(12, 8, 10),
)

SMALL_SETTINGS = TensorMaskSettings(mask_sizes=(4, 5, 7))


@pytest.fixture(scope="module", autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def reference() -> dict[str, Tensor]:
    with np.load(DIRECTORY / "det_small_intermediates.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.fixture(scope="module")
def full() -> TensorMask:
    """The published architecture with the reference's weights."""
    return tensormask.build(deterministic.reference_tensormask()).requires_grad_(False)


@pytest.fixture(scope="module")
def image(full: TensorMask, reference: dict[str, Tensor]) -> Tensor:
    return tensormask.normalised(reference["image"].permute(2, 0, 1)[None].float(), full.settings)


@pytest.fixture(scope="module")
def outputs(full: TensorMask, image: Tensor) -> HeadOutputs:
    return full(image)


@pytest.fixture(scope="module")
def small() -> TensorMask:
    """A network with random weights and, for lack of training, half of its windows above the threshold."""
    return tensormask.build(untrained_state(SMALL, SMALL_SETTINGS), SMALL_SETTINGS).requires_grad_(False)


def _image(height: int, width: int, pictures: int = 1) -> Tensor:
    return torch.randn(pictures, 3, height, width, generator=torch.Generator().manual_seed(height))


def _sampled(x: Tensor) -> Tensor:
    return x.flatten()[::SAMPLED]


def _of_picture(anchors: Tensor, picture: int = 0) -> Tensor:
    return torch.cat([torch.full_like(anchors[:, :1], picture), anchors], dim=1)


def _everywhere(model: TensorMask, features: tuple[Tensor, ...]) -> list[list[Tensor]]:
    """All masks (B, S·S, H, W), per level and window: what upstream computes."""
    head = model.head
    finest = head.mask_subnet(features[0])
    fused = [head.fused(finest, head.mask_subnet(x), level) for level, x in enumerate(features)]
    predict = [head.get_submodule(f"mask_pred_{size:02d}") for size in head.mask_sizes]
    return [[swap_align2nat(predictor(x), 2**level) for predictor in predict] for level, x in enumerate(fused)]


# The reference's network: relative errors of at most 5e-6 in every intermediate.


@pytest.mark.upstream
def test_state_dict_names_equal_upstream(full: TensorMask) -> None:
    wanted = shapes("tensormask/keys.json")
    assert {name: tuple(tensor.shape) for name, tensor in full.state_dict().items()} == wanted
    assert tensormask.size_of(full.state_dict(), 2) == TensorMaskSize()
    assert sum(parameter.numel() for parameter in full.parameters()) == 36_514_370


@pytest.mark.upstream
@pytest.mark.parametrize("level", LEVELS)
def test_maps_logits_and_deltas_equal_upstream(level: int, outputs: HeadOutputs, reference: dict[str, Tensor]) -> None:
    given = {
        f"fpn_p{level + 2}": outputs.features[level],
        f"logits_{level}": outputs.logits[level],
        f"deltas_{level}": outputs.deltas[level],
    }
    for name, tensor in given.items():
        assert distance(_sampled(tensor), reference[name]) < 2e-5, name


@pytest.mark.upstream
@pytest.mark.parametrize("level", LEVELS)
def test_mask_features_and_masks_equal_upstream(
    level: int, full: TensorMask, outputs: HeadOutputs, reference: dict[str, Tensor]
) -> None:
    features = outputs.features
    finest, coarse = (full.head.mask_subnet(x) for x in (features[0], features[level]))
    assert distance(_sampled(full.head.fused(finest, coarse, level)), reference[f"mask_fuse_{level}"]) < 2e-5
    anchors = tensormask.identities([(x.shape[2], x.shape[3]) for x in features], 2)
    for window in range(2):
        chosen = anchors[(anchors[:, 0] == level) & (anchors[:, 3] == window)]
        masks = torch.stack(full.head.masks(features, _of_picture(chosen)))
        assert distance(_sampled(masks.flatten(1).T.contiguous()), reference[f"masks_l{level}_a{window}"]) < 2e-5


@pytest.mark.upstream
def test_anchors_equal_upstream(full: TensorMask, outputs: HeadOutputs, reference: dict[str, Tensor]) -> None:
    anchors = tensormask.identities([(x.shape[2], x.shape[3]) for x in outputs.features], 2)
    boxes = tensormask.anchor_boxes(anchors, full.settings)
    for level in LEVELS:
        assert torch.equal(_sampled(boxes[anchors[:, 0] == level]), reference[f"anchors_{level}"])


@pytest.mark.upstream
def test_selection_equals_upstream(full: TensorMask, outputs: HeadOutputs, reference: dict[str, Tensor]) -> None:
    selected = tensormask.select(full, outputs.features)
    assert torch.equal(selected.labels, reference["pre_classes"])
    assert distance(selected.boxes, reference["pre_boxes"]) < 2e-5
    assert distance(selected.scores, reference["pre_scores"]) < 2e-5
    assert torch.equal(tensormask.anchor_boxes(selected.anchors, full.settings), reference["pre_mask_anchors"])
    masks = full.head.masks(outputs.features, _of_picture(selected.anchors))
    assert [len(mask) for mask in masks] == reference["pre_mask_sizes"].tolist()
    for index, mask in enumerate(masks[:10]):
        assert distance(mask.sigmoid(), reference[f"pre_mask_{index}"][0]) < 2e-5


@pytest.mark.upstream
def test_detections_equal_upstream(full: TensorMask, image: Tensor) -> None:
    """All 80 of them; no pixel of the masks differed where this was written, a few may where rounding differs."""
    with np.load(DIRECTORY / "det_small_result.npz") as arrays:
        boxes, scores, labels = (torch.from_numpy(arrays[name]) for name in ("boxes", "scores", "classes"))
        shape = tuple(arrays["masks_shape"])
        masks = torch.from_numpy(np.unpackbits(arrays["masks_packed"])[: np.prod(shape)].reshape(shape).astype(bool))
    found = tensormask.detect(full, image)
    assert torch.equal(found.labels, labels)
    assert distance(found.boxes, boxes) < 2e-5
    assert distance(found.scores, scores) < 2e-5
    assert found.masks.shape == masks.shape
    assert (found.masks != masks).sum() <= 50 < 1e-4 * masks.sum()


def test_the_logits_of_a_window_are_those_of_the_whole(full: TensorMask, image: Tensor, outputs: HeadOutputs) -> None:
    for level, row, column, index in tensormask.detect(full, image).anchors[:3].tolist():
        logits = tensormask.class_logits_at(full, image, (level, row, column, index))
        assert torch.allclose(logits[0], outputs.logits[level][0, index, :, row, column], rtol=1e-4, atol=1e-4)


# A small network of the same code.


def test_dimensions_are_inferred(small: TensorMask) -> None:
    state = tensormask.export(small)
    assert tensormask.size_of(state, 3) == SMALL
    rebuilt = tensormask.build(state, SMALL_SETTINGS)
    assert not rebuilt.training
    images = _image(40, 70, pictures=2)
    for given, wanted in zip(rebuilt(images).logits, small(images).logits, strict=True):
        assert torch.equal(given, wanted)


def test_a_state_dict_is_not_changed(small: TensorMask) -> None:
    state = tensormask.export(small) | {"pixel_std": torch.ones(3, 1, 1)}
    before = {name: tensor.clone() for name, tensor in state.items()}
    tensormask.detect(tensormask.build(state, SMALL_SETTINGS), _image(40, 70))
    assert state.keys() == before.keys()
    assert all(torch.equal(state[name], before[name]) for name in before)
    assert not any(tensor.requires_grad for tensor in state.values())


def test_shapes_of_the_outputs(small: TensorMask) -> None:
    outputs = small(_image(45, 70, pictures=2))
    sizes = [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]
    assert [tuple(x.shape) for x in outputs.features] == [(2, 16, *size) for size in sizes]
    assert [tuple(x.shape) for x in outputs.logits] == [(2, 3, 3, *size) for size in sizes]
    assert [tuple(x.shape) for x in outputs.deltas] == [(2, 3, 4, *size) for size in sizes]


@pytest.mark.parametrize("size", [(45, 70), (130, 33)])
def test_masks_of_windows_are_those_of_the_whole(small: TensorMask, size: tuple[int, int]) -> None:
    """Every window alone, so that each has a crop of its own; and all of them at once, of two pictures."""
    features = small(_image(*size, pictures=2)).features
    everywhere = _everywhere(small, features)
    anchors = tensormask.identities([(x.shape[2], x.shape[3]) for x in features], 3)
    anchors = torch.cat([_of_picture(anchors), _of_picture(anchors, 1)])
    masks = small.head.masks(features, anchors)
    for mask, (picture, level, row, column, index) in zip(masks, anchors.tolist(), strict=True):
        wanted = everywhere[level][index][picture, :, row, column].reshape(mask.shape)
        assert torch.allclose(mask, wanted, rtol=1e-4, atol=1e-4)
    for which in range(0, len(anchors), 37):
        (alone,) = small.head.masks(features, anchors[which : which + 1])
        assert torch.allclose(alone, masks[which], rtol=1e-4, atol=1e-4)


def test_a_part_of_a_convolution_is_that_of_the_whole() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 3, padding=1))
    x = torch.randn(1, 2, 12, 9)
    whole = layers(x)
    for part in (Rectangle(0, 0, 1, 1), Rectangle(5, 4, 6, 7), Rectangle(11, 8, 12, 9), Rectangle(0, 0, 12, 9)):
        assert torch.allclose(within(layers, x, part, reach=2), part.of(whole), atol=1e-6)
    assert not torch.allclose(within(layers, x, Rectangle(5, 4, 6, 7), 1), whole[..., 5:6, 4:7], atol=1e-3)


@pytest.mark.parametrize(
    "anchor", [(0, 0, 0, 0), (0, 15, 23, 2), (0, 8, 11, 1), (1, 3, 5, 0), (3, 1, 2, 1), (4, 0, 1, 2), (5, 0, 0, 0)]
)
def test_class_logits_of_one_window_and_their_gradients(small: TensorMask, anchor: tuple[int, int, int, int]) -> None:
    level, row, column, index = anchor
    model = tensormask.build(tensormask.export(small), SMALL_SETTINGS).double().requires_grad_(False)
    with torch.enable_grad():
        images = _image(45, 70, pictures=2).double().requires_grad_()
        given = tensormask.class_logits_at(model, images, anchor)
        wanted = model(images).logits[level][:, index, :, row, column]
        assert given.shape == (2, 3)
        assert torch.allclose(given, wanted, rtol=1e-10)
        gradients = [torch.autograd.grad(logits[:, 1].sum(), images)[0] for logits in (given, wanted)]
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-8, atol=1e-12)
    assert gradients[0].abs().sum() > 0


def test_the_logits_of_one_window_cost_one_crop_of_one_level(small: TensorMask) -> None:
    seen = []
    model = tensormask.build(tensormask.export(small), SMALL_SETTINGS)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and not name.startswith("backbone.bottom_up"):
            module.register_forward_hook(lambda _, inputs, __, name=name: seen.append((name, tuple(inputs[0].shape))))
    tensormask.class_logits_at(model, _image(256, 256), (1, 16, 16, 0))
    assert {name for name, _ in seen} == {
        *(f"backbone.fpn_lateral{level}" for level in (3, 4, 5)),
        "backbone.fpn_output3",
        "head.cls_subnet.0",
        "head.cls_subnet.2",
        "head.cls_score",
    }
    assert all(shape[2:] == (7, 7) for name, shape in seen if name.startswith("head."))


@pytest.mark.parametrize(
    ("anchor", "message"),
    [
        ((6, 0, 0, 0), r"anchor: wanted \(level, row, column, window\) of 6 levels and 3 windows"),
        ((0, 0, 0, 3), "6 levels and 3 windows, given"),
        ((0, 8, 0, 0), "anchor: wanted a position of 8 × 16 at level 0"),
        ((0, 0, -1, 0), "anchor: wanted a position of 8 × 16 at level 0"),
    ],
)
def test_windows_that_do_not_exist(small: TensorMask, anchor: tuple[int, int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tensormask.class_logits_at(small, _image(32, 64), anchor)


def test_anchors_by_hand() -> None:
    anchors = tensormask.identities([(1, 2), (1, 1)], 2)
    assert anchors.tolist() == [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 1, 1], [1, 0, 0, 0], [1, 0, 0, 1]]
    boxes = tensormask.anchor_boxes(torch.tensor([[0, 0, 0, 0], [0, 1, 2, 1], [5, 0, 1, 0]]), TensorMaskSettings())
    assert boxes.tolist() == [[-22, -22, 22, 22], [-22, -26, 38, 34], [128 - 704, -704, 128 + 704, 704]]
    assert TensorMaskSettings().anchor_sizes == (
        (44, 60),
        (88, 120),
        (176, 240),
        (352, 480),
        (704, 960),
        (1408, 1920),
    )


def test_deltas_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 20]] * 3)
    log2 = 0.75 * float(np.log(2))
    deltas = torch.tensor([[0.0, 0, 0, 0], [1.5, -0.75, log2, -log2], [0, 0, 100, 0]])
    wanted = torch.tensor([[0.0, 0, 10, 20], [5, -5, 25, 5], [5 - 312.5, 0, 5 + 312.5, 20]])
    assert torch.allclose(tensormask.decoded(deltas, boxes), wanted, atol=1e-4)


def test_normalised_by_hand() -> None:
    settings = TensorMaskSettings(pixel_mean=(1, 2, 3), pixel_std=(1, 2, 4))
    image = torch.tensor([5.0, 6, 7]).reshape(1, 3, 1, 1)
    assert tensormask.normalised(image, settings).flatten().tolist() == [4, 2, 1]
    assert padded(torch.ones(1, 3, 1, 33)).shape == (1, 3, 32, 64)
    assert padded(torch.ones(1, 3, 1, 33)).sum() == 99


@pytest.mark.parametrize("settings", [{}, {"nms_threshold": 0.2, "candidates": 90}, {"detections": 7}])
def test_selection_by_definition(small: TensorMask, settings: dict[str, Any]) -> None:
    """Against all windows sorted, and suppression one by one."""
    model = tensormask.build(tensormask.export(small), replace(SMALL_SETTINGS, **settings))
    outputs = model(_image(90, 70))
    anchors = tensormask.identities([(x.shape[2], x.shape[3]) for x in outputs.features], 3)
    probabilities = torch.cat([x[0].permute(2, 3, 0, 1).reshape(-1, 3) for x in outputs.logits]).sigmoid()
    deltas = torch.cat([x[0].permute(2, 3, 0, 1).reshape(-1, 4) for x in outputs.deltas])
    boxes = tensormask.decoded(deltas, tensormask.anchor_boxes(anchors, model.settings))
    pairs = [(float(probabilities[m, k]), m, k) for m, k in (probabilities > 0.05).nonzero().tolist()]
    kept: list[tuple[float, int, int]] = []
    for score, m, k in sorted(pairs, reverse=True)[: model.settings.candidates]:
        rivals = [other for _, other, label in kept if label == k]
        if not rivals or box_iou(boxes[m : m + 1], boxes[rivals]).max() <= model.settings.nms_threshold:
            kept.append((score, m, k))
    kept = kept[: model.settings.detections]
    assert len(pairs) > 100 and len(kept) > 5

    selected = tensormask.select(model, outputs.features)
    assert selected.anchors.tolist() == anchors[[m for _, m, _ in kept]].tolist()
    assert selected.labels.tolist() == [k for _, _, k in kept]
    assert torch.allclose(selected.scores, torch.tensor([score for score, _, _ in kept]))
    assert torch.allclose(selected.boxes, boxes[[m for _, m, _ in kept]], atol=1e-3)


def test_detections_in_a_photo_of_another_size(small: TensorMask) -> None:
    image = _image(60, 90)
    same = tensormask.detect(small, image)
    double = tensormask.detect(small, image, size=(120, 180))
    assert same.masks.shape == (len(same.scores), 60, 90)
    assert double.masks.shape == (len(same.scores), 120, 180)
    assert torch.allclose(double.boxes, 2 * same.boxes, atol=1e-4)
    assert torch.equal(double.anchors, same.anchors)
    # Every other pixel of the larger mask lies a quarter of a pixel beside one of the smaller.
    assert (double.masks[:, ::2, ::2] != same.masks).float().mean() < 0.05
    assert same.masks.any()


def test_boxes_lie_within_the_photo(small: TensorMask) -> None:
    found = tensormask.detect(small, _image(60, 90))
    assert len(found.boxes) > 5
    assert found.boxes.dtype == torch.float32 and found.labels.dtype == torch.int64
    assert found.boxes.min() >= 0 and found.boxes[:, 2].max() <= 90 and found.boxes[:, 3].max() <= 60
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    assert torch.equal(found.scores, found.scores.sort(descending=True).values)


def test_empty_boxes_are_dropped(small: TensorMask) -> None:
    """A window beside the photo, in the padding, is selected like any other; its box is empty after clipping."""
    outputs = small(_image(33, 33))
    boxes = torch.tensor([[40.0, 40, 60, 60], [0, 0, 8, 8]])
    anchors = torch.tensor([[0, 12, 12, 0], [0, 1, 1, 0]])
    selected = tensormask.Selection(boxes, torch.tensor([0.9, 0.8]), torch.tensor([1, 2]), anchors)
    found = tensormask.in_photo(small, outputs.features, selected, (33, 33), (33, 33))
    assert found.labels.tolist() == [2] and found.anchors.tolist() == [[0, 1, 1, 0]]
    assert found.masks.shape == (1, 33, 33)


@pytest.mark.parametrize("size", [(1, 1), (4, 600), (600, 4), (32, 32), (33, 65)])
def test_pictures_of_every_shape(small: TensorMask, size: tuple[int, int]) -> None:
    found = tensormask.detect(small, _image(*size), threshold=0.0)
    assert len(found.scores) > 0
    assert found.masks.shape == (len(found.scores), *size)
    level, row, column, index = found.anchors[0].tolist()
    logits = tensormask.class_logits_at(small, _image(*size), (level, row, column, index))
    assert torch.allclose(logits[0, found.labels[0]].sigmoid(), found.scores[0], atol=1e-5)


def test_nothing_found(small: TensorMask) -> None:
    found = tensormask.detect(small, _image(40, 50), size=(20, 30), threshold=1.0)
    given = [found.boxes, found.scores, found.labels, found.anchors, found.masks]
    assert [tuple(x.shape) for x in given] == [(0, 4), (0,), (0,), (0, 4), (0, 20, 30)]
    assert [x.dtype for x in given] == [torch.float32, torch.float32, torch.int64, torch.int64, torch.bool]


def test_hundreds_of_detections(small: TensorMask) -> None:
    settings = replace(SMALL_SETTINGS, detections=700, nms_threshold=0.999, score_threshold=0.0)
    model = tensormask.build(tensormask.export(small), settings)
    found = tensormask.detect(model, _image(200, 120))
    assert 400 < len(found.scores) <= 700
    assert found.masks.shape == (len(found.scores), 200, 120)
    few = tensormask.detect(
        tensormask.build(tensormask.export(small), replace(settings, detections=20)), _image(200, 120)
    )
    assert torch.equal(found.anchors[: len(few.anchors)], few.anchors)
    # Another copy of the network: rounding may move a pixel that lies on a mask's threshold.
    assert (found.masks[: len(few.masks)] != few.masks).float().mean() < 1e-3


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 3, 8, 8), (1, 4, 8, 8), (1, 3, 0, 8)])
def test_images_of_wrong_shapes(small: TensorMask, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"image: wanted \(1, 3, H, W\), given"):
        tensormask.detect(small, torch.zeros(shape))


def test_constants_in_old_checkpoints_have_to_agree(small: TensorMask) -> None:
    state = tensormask.export(small)
    settings = SMALL_SETTINGS
    constants = {
        "pixel_mean": torch.tensor(settings.pixel_mean).reshape(3, 1, 1),
        "pixel_std": torch.ones(3, 1, 1),
        "anchor_generator.cell_anchors.1": torch.tensor([[-h, -h, h, h] for h in (16.0, 20.0, 28.0)]),
    }
    assert tensormask.build(state | constants, settings).state_dict().keys() == state.keys()
    for name, constant in constants.items():
        with pytest.raises(CheckpointError, match=f"{name}: wanted .* given"):
            tensormask.build(state | {name: constant + 1}, settings)
        with pytest.raises(CheckpointError, match=f"{name}: wanted .* given"):
            tensormask.build(state | {name: constant[:1]}, settings)


def test_tensors_that_do_not_fit(small: TensorMask) -> None:
    state = tensormask.export(small)
    with pytest.raises(CheckpointError, match=r"missing: head\.mask_pred_11\.weight"):
        tensormask.build(state, replace(SMALL_SETTINGS, mask_sizes=(4, 5, 11)))
    with pytest.raises(CheckpointError) as caught:
        tensormask.build(state | {"roi_heads.weight": torch.zeros(1)}, SMALL_SETTINGS)
    assert caught.value.unexpected == ("roi_heads.weight",)
    del state["backbone.bottom_up.res3.1.conv2.norm.running_var"]
    with pytest.raises(CheckpointError, match=r"missing: backbone\.bottom_up\.res3\.1\.conv2\.norm\.running_var"):
        tensormask.build(state, SMALL_SETTINGS)
    with pytest.raises(CheckpointError, match=r"wanted a tensor backbone\.bottom_up\.res2\.0\.conv1\.weight"):
        tensormask.build({"stem.0.weight": torch.zeros(1, 1, 1, 1)})


def test_a_norm_in_the_filters() -> None:
    torch.manual_seed(0)
    conv = NormedConv2d(3, 5, 3, 2, FrozenBatchNorm2d)
    for buffer in conv.norm.buffers():
        buffer.uniform_(0.5, 2)
    x = torch.randn(2, 3, 9, 8)
    assert torch.allclose(conv(x), conv.norm(nn.functional.conv2d(x, conv.weight, stride=2, padding=1)), atol=1e-5)


def test_training_with_ordinary_norms() -> None:
    torch.manual_seed(0)
    model = TensorMask(SMALL, SMALL_SETTINGS, norm=nn.BatchNorm2d).train()
    with torch.enable_grad():
        outputs = model(_image(64, 64, pictures=2))
        anchors = torch.tensor([[0, 0, 3, 3, 0], [1, 2, 1, 1, 1], [1, 5, 0, 0, 2]])
        masks = model.head.masks(outputs.features, anchors)
        values = [*outputs.logits, *outputs.deltas, *masks]
        sum(x.square().sum() for x in values).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert model.get_buffer("backbone.bottom_up.stem.conv1.norm.running_mean").abs().max() > 0

    images = _image(40, 40)
    frozen = tensormask.build(tensormask.export(model), SMALL_SETTINGS)
    for given, wanted in zip(frozen(images).logits, model.eval()(images).logits, strict=True):
        assert torch.allclose(given, wanted, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu(small: TensorMask) -> None:
    image = _image(60, 90)
    model = tensormask.build(tensormask.export(small), SMALL_SETTINGS).cuda()
    with torch.backends.cudnn.flags(allow_tf32=False):
        found = tensormask.detect(model, image.cuda())
    wanted = tensormask.detect(small, image)
    assert torch.equal(found.anchors, wanted.anchors)
    assert (found.masks != wanted.masks).float().mean() < 1e-3


def test_a_pickle_of_the_model_zoo(small: TensorMask, tmp_path: Path) -> None:
    arrays = {name: tensor.numpy() for name, tensor in tensormask.export(small).items()}
    (tmp_path / "model_final.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "x"}, 2))
    model = tensormask.build(checkpoint.read(tmp_path / "model_final.pkl"), SMALL_SETTINGS)
    assert_same_weights(model, small)
    assert_close_outputs(model(_image(32, 32)).logits[0], small(_image(32, 32)).logits[0])
