"""An mmdet segmenter as an archive: the handler on a small Cascade Mask R-CNN."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from handlers import engines
from handlers.models.mmdet_config import resolve
from handlers.segmenter import SegmenterHandler
from handlers.spec import CONFIG_FILE, SPEC_FILE, WEIGHTS_FILE, SegmenterSpec, SpecError
from handlers.wire.image import decode
from handlers.wire.limits import Limits
from scripts.build_archives import build_all
from scripts.server import ROOT
from tests.models.mmdet_models import built, small_config, small_state
from tests.pictures import panel
from tests.serving.fake_torchserve import Context
from tests.serving.test_segmenter import LABELS, ask, explanation, found, pixels, png, unpacked
from training.scenes import CLASSES

SPEC = {"name": "swin", "handler": "segmenter", "engine": "mmdet", "labels": LABELS, "threshold": 0.05}


@pytest.fixture(scope="module")
def handler(tmp_path_factory: pytest.TempPathFactory) -> SegmenterHandler:
    folder = tmp_path_factory.mktemp("model")
    config = small_config()
    save_file({name: tensor.contiguous() for name, tensor in small_state(config).items()}, folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    (folder / SPEC_FILE).write_text(SegmenterSpec.model_validate(SPEC | {"img_data": {"order": "bgr"}}).to_json())
    handler = SegmenterHandler()
    handler.initialize(Context(model_dir=folder))
    return handler


def test_predictions(handler: SegmenterHandler) -> None:
    result = unpacked(ask(handler, {}, png()))
    assert len(result["scores"]) > 0 and result["pred_masks"].shape[1:] == (70, 50)
    body = json.dumps({"img_data": pixels()[..., ::-1].tolist()}).encode()
    original = unpacked(ask(handler, {"Content-Type": "application/json"}, body))
    assert set(original) == {"pred_masks"} and torch.equal(original["pred_masks"], result["pred_masks"])


def test_an_explanation_is_of_the_resized_photo_and_drawn_on_the_photo(handler: SegmenterHandler) -> None:
    photo = png(height=40, width=60)
    options = "quadrature=midpoint&baseline=zero&segments=grid&rows=2&columns=1"
    coarse, answer = (json.loads(ask(handler, explanation(f"{options}&steps={steps}"), photo)) for steps in (10, 400))
    assert answer["target_label"] == found(handler, body=png(height=40, width=60))[0]["label"]
    assert answer["relative_residual"] < 0.1 < coarse["relative_residual"]
    cells = [row for row in answer["groups"] if row["kind"] == "segment"]
    assert [row["area"] for row in cells] == [32 * 96, 32 * 96]  # the photo becomes 64 × 96
    picture = ask(handler, explanation("steps=2", "image/png"), png(height=40, width=60))
    assert panel(picture).size == (60, 40)


def test_its_instances_are_segments(handler: SegmenterHandler) -> None:
    answer = json.loads(ask(handler, explanation("segments=swin&steps=2"), png()))
    assert any(row["kind"] == "segment" for row in answer["groups"])


def test_what_the_model_sees_is_its_photo(handler: SegmenterHandler) -> None:
    seen = handler.engine.look(decode(png(height=64, width=96), Limits()))
    rgb = (seen.preprocess.rgb(seen.image) * 255).round().permute(1, 2, 0).numpy()
    assert np.array_equal(rgb, pixels(height=64, width=96))


def test_a_photo_too_narrow_for_the_resize(handler: SegmenterHandler) -> None:
    assert json.loads(ask(handler, {}, png(height=1, width=400), 422))["field"] == "image"


def test_without_mmdet_the_worker_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config()
    state = small_state(config)
    monkeypatch.setitem(sys.modules, "mmdet.registry", None)
    spec = SegmenterSpec.model_validate(SPEC)
    with pytest.raises(ImportError, match=r"engine mmdet: .*mmdet.*; wanted mmengine, mmdet and mmcv-lite"):
        engines.build(spec, state, config, torch.device("cpu"))


def test_an_archive_is_built_from_a_configuration(tmp_path: Path) -> None:
    config = ROOT / "archive_specs" / "configs" / "swin_scenes.py"
    torch.manual_seed(0)
    torch.save({"state_dict": built(resolve(config)).state_dict(), "meta": {"epoch": 1}}, tmp_path / "model.pth")
    content = SPEC | {"weights": "model.pth", "config": str(config), "labels": list(CLASSES)}
    (tmp_path / "swin.yaml").write_text(yaml.safe_dump(content))
    (archive,) = build_all([tmp_path / "swin.yaml"], tmp_path / "store", environ={})
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path / "model")
    assert json.loads((tmp_path / "model" / CONFIG_FILE).read_text()) == resolve(config)
    handler = SegmenterHandler()
    handler.initialize(Context(model_dir=tmp_path / "model"))
    assert handler.engine.classes == len(CLASSES)
    (tmp_path / "swin.yaml").write_text(yaml.safe_dump(content | {"labels": ["one", "two"]}))
    with pytest.raises(SpecError, match="labels: the weights have 10 classes, given are 2 labels"):
        build_all([tmp_path / "swin.yaml"], tmp_path / "store", environ={})
