"""mmdet models of the tests: the Swin reference's, and small ones of the same parts.

The reference was computed by mmdet 3.3.0 over the compiled operators of mmcv 2.1.0, on the CPU, with weights made from
their names. Its photo is scikit-learn's ``china.jpg`` (photo by danielbuechele,
https://www.flickr.com/photos/danielbuechele/6061409035, CC BY 2.0), as PNG.
"""

from __future__ import annotations

import copy
import json
from typing import Any

from torch import Tensor

from benchmarks import deterministic
from imagexplain.models.segmenters import mmdet_config, mmdet_segmenter
from tests.models.reference import FIXTURES

CONFIG = FIXTURES / "swin/config_333x200.py"


def through_json(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration as an archive gives it back."""
    loaded: dict[str, Any] = json.loads(json.dumps(config))
    return loaded


def small_config() -> dict[str, Any]:
    """The reference's configuration with few and narrow layers, three classes, and photos of at most 96×64."""
    config = through_json(mmdet_segmenter.resolve(CONFIG))
    model = config["model"]
    model["backbone"].update(embed_dims=8, depths=[1, 2, 1, 1], num_heads=[1, 2, 2, 4], window_size=4)
    model["neck"].update(in_channels=[8, 16, 32, 64], out_channels=16)
    model["rpn_head"].update(in_channels=16, feat_channels=16)
    roi_head = model["roi_head"]
    for head in roi_head["bbox_head"]:
        head.update(in_channels=16, conv_out_channels=16, fc_out_channels=32, num_classes=3)
    roi_head["mask_head"].update(in_channels=16, conv_out_channels=16, num_classes=3)
    for extractor in ("bbox_roi_extractor", "mask_roi_extractor"):
        roi_head[extractor]["out_channels"] = 16
    model["test_cfg"]["rpn"].update(max_per_img=60)
    model["test_cfg"]["rcnn"].update(max_per_img=20)
    config["pipeline"][0]["scale"] = {mmdet_config.TUPLE: [96, 64]}
    config["classes"] = ["circle", "square", "star"]
    return config


def plain_config() -> dict[str, Any]:
    """The same as a Mask R-CNN: one stage."""
    config = small_config()
    roi_head = config["model"]["roi_head"]
    roi_head.update(type="StandardRoIHead", bbox_head=roi_head["bbox_head"][0])
    del roi_head["num_stages"], roi_head["stage_loss_weights"]
    config["model"].update(type="MaskRCNN", train_cfg=None)
    return config


def built(config: dict[str, Any]) -> Any:
    """mmdet's model of a configuration, as mmdet initialises it."""
    model = mmdet_config.checked(config)["model"]
    from mmdet.registry import MODELS
    from mmengine.config import ConfigDict
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope("mmdet"):
        return MODELS.build(ConfigDict(copy.deepcopy(model)))


def small_state(config: dict[str, Any]) -> dict[str, Tensor]:
    """Tensors for :func:`small_config` or :func:`plain_config`, from their names."""
    return deterministic.mmdet_state(
        {name: tuple(tensor.shape) for name, tensor in built(config).state_dict().items()}, window=4
    )
