"""Our operators beside those of a compiled mmcv. Skipped where there is none."""

from importlib import import_module

import pytest
import torch
from torch import Tensor

from imagexplain.models.segmenters import mmcv_ext
from tests.models.reference import distance

pytestmark = pytest.mark.upstream

if mmcv_ext.install():
    pytest.skip("no compiled mmcv is installed", allow_module_level=True)

compiled = import_module(mmcv_ext.NAME)


def boxes(count: int) -> Tensor:
    """Of 1 … 60 pixels in a picture of 100 × 100, some of which leave it."""
    corner, size = torch.rand(2, count, 2, generator=torch.Generator().manual_seed(0))
    return torch.cat([100 * corner - 5, 100 * corner - 5 + 1 + 59 * size], dim=1)


@pytest.mark.parametrize("offset", [0, 1])
def test_nms(offset: int) -> None:
    scores = torch.rand(500, generator=torch.Generator().manual_seed(1))
    wanted = compiled.nms(boxes(500), scores, iou_threshold=0.5, offset=offset)
    assert 5 < len(wanted) < 400
    assert torch.equal(mmcv_ext.nms(boxes(500), scores, 0.5, offset), wanted)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align_and_its_gradient(aligned: bool, sampling_ratio: int) -> None:
    features = torch.randn(2, 3, 20, 30, generator=torch.Generator().manual_seed(2))
    rois = torch.cat([torch.arange(40.0)[:, None] % 2, boxes(40)], dim=1)
    weights = torch.randn(40, 3, 4, 7, generator=torch.Generator().manual_seed(3))
    empty = features.new_zeros(0)
    outputs, gradients = [], []
    for module in (mmcv_ext, compiled):
        options = {
            "aligned_height": 4,
            "aligned_width": 7,
            "spatial_scale": 0.25,
            "sampling_ratio": sampling_ratio,
            "pool_mode": mmcv_ext.AVERAGE,
            "aligned": aligned,
        }
        output, gradient = torch.zeros_like(weights), torch.zeros_like(features)
        module.roi_align_forward(features, rois, output, empty, empty, **options)
        module.roi_align_backward(weights, rois, empty, empty, gradient, **options)
        outputs.append(output)
        gradients.append(gradient)
    assert distance(*outputs) < 1e-5
    assert distance(*gradients) < 1e-5
