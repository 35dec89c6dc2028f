import json
from pathlib import Path
from typing import Any

import pytest

from imagexplain.models.segmenters import mmdet_segmenter
from imagexplain.models.segmenters.mmdet_config import TUPLE, ConfigError, checked, resolve
from tests.models import mmdet_models

ROOT = Path(__file__).parents[2]

SHORT = """
model = dict(type="MaskRCNN", backbone=dict(type="ResNet", depth=50, init_cfg=dict(type="Pretrained", checkpoint="x")))
test_dataloader = dict(
    batch_size=1,
    dataset=dict(
        type="RepeatDataset",
        dataset=dict(
            type="CocoDataset",
            metainfo=dict(classes=("cat", "dog"), palette=[(0, 0, 0)]),
            pipeline=[
                dict(type="LoadImageFromFile"),
                dict(type="mmdet.Resize", scale=(60, 40), keep_ratio=True),
                dict(type="LoadAnnotations", with_mask=True),
                dict(type="PackDetInputs"),
            ],
        ),
    ),
)
work_dir = "somewhere"
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.py"
    path.write_text(text)
    return path


def test_what_is_kept(tmp_path: Path) -> None:
    assert resolve(written(tmp_path, SHORT)) == {
        "model": {"type": "MaskRCNN", "backbone": {"type": "ResNet", "depth": 50}},
        "pipeline": [
            {"type": "Resize", "scale": {TUPLE: [60, 40]}, "keep_ratio": True},
            {"type": "PackDetInputs"},
        ],
        "classes": ["cat", "dog"],
    }


def test_json_gives_back_the_same() -> None:
    resolved = resolve(mmdet_models.CONFIG)
    assert mmdet_models.through_json(resolved) == resolved
    again = checked(mmdet_models.through_json(resolved))
    assert again == checked(resolved)
    assert again["pipeline"][0]["scale"] == (333, 200)
    assert again["model"]["backbone"]["out_indices"] == (0, 1, 2, 3)
    assert again["model"]["neck"]["in_channels"] == [96, 192, 384, 768]
    assert again["classes"] is None


def test_the_published_configuration_is_the_references_at_full_size() -> None:
    full = resolve(ROOT / "archive_specs/configs/cascade_mask_rcnn_swin_tiny.py")
    small = resolve(mmdet_models.CONFIG)
    assert full["pipeline"][0].pop("scale") == {TUPLE: [1333, 800]}
    assert small["pipeline"][0].pop("scale") == {TUPLE: [333, 200]}
    full["model"].pop("train_cfg")
    small["model"].pop("train_cfg", None)
    assert full == small


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ('custom_imports = dict(imports=["antigravity"])', r"custom_imports: .*antigravity.*does not do"),
        ("model.update(depth=print)", r"model\.depth: wanted numbers, text, lists and dicts, given builtin_function"),
        (
            "model.update(neck=dict(size={1, 2}))",
            r"model\.neck\.size: wanted numbers, text, lists and dicts, given set",
        ),
        (
            'model.update(type="os.system")',
            r"model\.type: wanted a class that mmdet, mmcv or mmengine registers, given 's",
        ),
        ('model.update(_scope_="mmpretrain")', r"model: _scope_ is for mmengine's own machinery"),
        ("del model", r"config\.py: wanted 'model', as mmdet 3 has it; given test_dataloader"),
        ('test_dataloader = dict(dataset=dict(type="CocoDataset"))', r"wanted a pipeline in test_dataloader\.dataset"),
    ],
)
def test_what_is_refused(added: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(written(tmp_path, f"{SHORT}\n{added}\n"))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        resolve(tmp_path / "config.py")


def changed(path: str, value: Any) -> dict[str, Any]:
    """The small configuration with one value at a dotted path replaced or added."""
    config = mmdet_models.small_config()
    at: Any = config
    *way, last = [int(key) if key.isdecimal() else key for key in path.split(".")]
    for key in way:
        at = at[key]
    at[last] = value
    return config


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("custom_imports", {"imports": ["antigravity"]}, r"custom_imports: .*antigravity"),
        ("_base_", "x.py", r"config: wanted classes, model, pipeline, given _base_, classes, model, pipeline"),
        ("model._base_", "x.py", r"model: _base_ is for mmengine's own machinery"),
        ("model.backbone._scope_", "mmpretrain", r"model\.backbone: _scope_ is for mmengine's"),
        ("model.neck.type", "torch.nn.Identity", r"model\.neck\.type: wanted a class .* given 'torch\.nn\.Identity'"),
        ("model.neck.type", "mmengine.load", r"model\.neck\.type: wanted a class .* given 'mmengine\.load'"),
        ("model.neck.type", ["FPN"], r"model\.neck\.type: wanted a class"),
        ("model.test_cfg.rcnn.nms.type", "print('evaluated')", r"model\.test_cfg\.rcnn\.nms\.type: wanted a class"),
        (
            "model.roi_head.bbox_head.0.bbox_coder",
            {"type": "CameraMotionCompensation", "warp_mode": "print('evaluated')"},
            r"bbox_head\[0\]\.bbox_coder\.type: wanted a class",
        ),
        ("pipeline.0.type", "os.system", r"pipeline\[0\]\.type: wanted a class"),
        ("model.neck.colour", 3, r"config: mmdet makes no model of it: .*colour"),
        ("model.backbone.depths", 3, r"config: mmdet makes no model of it"),
    ],
)
def test_what_a_worker_refuses(path: str, value: Any, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=message):
        mmdet_segmenter.build(changed(path, value), {})
    assert "evaluated" not in capsys.readouterr().out


@pytest.mark.parametrize("missing", ["model", "pipeline", "classes"])
def test_parts_that_are_missing(missing: str) -> None:
    config = mmdet_models.small_config()
    del config[missing]
    with pytest.raises(ConfigError, match="config: wanted classes, model, pipeline, given"):
        checked(config)


def test_nothing_would_be_fetched() -> None:
    """Even where JSON was written by hand."""
    config = mmdet_models.small_config()
    config["model"]["pretrained"] = "open-mmlab://somewhere"
    config["model"]["backbone"]["init_cfg"] = {"type": "Pretrained", "checkpoint": "https://example.org/x.pth"}
    text = json.dumps(checked(config))
    assert "somewhere" not in text
    assert "example.org" not in text
