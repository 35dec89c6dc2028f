"""The adapter over detectron2, as far as it goes without detectron2; with it: test_detectron2_upstream.py."""

import sys
from dataclasses import replace

import pytest
import torch

from imagexplain.models.checkpoints.checkpoint import CheckpointError
from imagexplain.models.segmenters import detectron2_tensormask, tensormask
from imagexplain.models.segmenters.resnet_fpn import RESNET50, Stage
from imagexplain.models.segmenters.tensormask import TensorMaskSettings, TensorMaskSize

SETTINGS = TensorMaskSettings()


@pytest.mark.parametrize("mask_sizes", [(11, 15), (8, 11), (4, 5, 7)])
def test_a_window_is_known_by_its_box(mask_sizes: tuple[int, ...]) -> None:
    settings = TensorMaskSettings(mask_sizes=mask_sizes)
    shapes = [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2), (1, 1)]
    anchors = tensormask.identities(shapes, len(mask_sizes))
    anchors = anchors[torch.randperm(len(anchors), generator=torch.Generator().manual_seed(0))]
    boxes = tensormask.anchor_boxes(anchors, settings)
    assert torch.equal(detectron2_tensormask._identities(boxes, settings), anchors)
    none = detectron2_tensormask._identities(boxes[:0], settings)
    assert none.shape == (0, 4) and none.dtype == torch.int64


def test_windows_that_are_the_same_box() -> None:
    with pytest.raises(ValueError, match=r"mask_sizes: wanted none that is 2, 4, … times another, given \(4, 7, 8\)"):
        detectron2_tensormask.build({}, TensorMaskSettings(mask_sizes=(4, 7, 8)))


@pytest.mark.parametrize(
    "stages",
    [
        (Stage(1, 4, 8), Stage(1, 8, 16), Stage(1, 16, 32), Stage(1, 32, 64)),
        (*RESNET50[:3], Stage(3, 512, 2000)),
        (Stage(3, 64, 256), Stage(4, 64, 512), *RESNET50[2:]),
    ],
)
def test_backbones_that_detectron2_has_not(stages: tuple[Stage, ...]) -> None:
    with pytest.raises(CheckpointError, match="backbone: detectron2 has only ResNet-50, -101, -152 with channels that"):
        detectron2_tensormask._options(TensorMaskSize(stages=stages), SETTINGS)


def test_configurations() -> None:
    deeper = replace(TensorMaskSize(), stages=(*RESNET50[:2], Stage(23, 256, 1024), RESNET50[3]))
    assert detectron2_tensormask._options(TensorMaskSize(), SETTINGS)["MODEL.RESNETS.DEPTH"] == 50
    assert detectron2_tensormask._options(deeper, SETTINGS)["MODEL.RESNETS.DEPTH"] == 101


def test_without_detectron2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "detectron2.config", None)
    with pytest.raises(ModuleNotFoundError, match="detectron2"):
        detectron2_tensormask._network(TensorMaskSize(), SETTINGS)
