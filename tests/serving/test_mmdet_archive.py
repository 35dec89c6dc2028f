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

from handlers.segmenter import SegmenterHandler
from imagexplain.archive import segmenter_backends as engines
from imagexplain.archive.build import build_all
from imagexplain.archive.spec import CONFIG_FILE, SPEC_FILE, WEIGHTS_FILE, SegmenterSpec, SpecError
from imagexplain.limits import Limits
from imagexplain.models.segmenters.mmdet_config import checked, resolve
from imagexplain.ops.server import ROOT
from imagexplain.vision.decode import decode
from tests.models.mmdet_models import built, small_config, small_state
from tests.pictures import panel
from tests.serving.asking import answer_to, coarse_pixels, coarse_png, detected, explanation
from tests.serving.handlers import SHAPE_LABELS, segmenter_of
from tests.tensors import unpacked
from training.scenes import CLASSES

SPEC = {
    "name": "swin",
    "handler": "segmenter",
    "engine": "mmdet",
    "labels": SHAPE_LABELS,
    "threshold": 0.05,
    "serving": {"response_timeout_s": 1200},  # so that a busy machine refuses nothing
}


@pytest.fixture(scope="module")
def handler(tmp_path_factory: pytest.TempPathFactory) -> SegmenterHandler:
    folder = tmp_path_factory.mktemp("model")
    config = small_config()
    save_file({name: tensor.contiguous() for name, tensor in small_state(config).items()}, folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    (folder / SPEC_FILE).write_text(SegmenterSpec.model_validate(SPEC | {"img_data": {"order": "bgr"}}).to_json())
    return segmenter_of(folder)


def test_predictions(handler: SegmenterHandler) -> None:
    result = unpacked(answer_to(handler, {}, coarse_png()))
    assert len(result["scores"]) > 0 and result["pred_masks"].shape[1:] == (70, 50)
    body = json.dumps({"img_data": coarse_pixels()[..., ::-1].tolist()}).encode()
    original = unpacked(answer_to(handler, {"Content-Type": "application/json"}, body))
    assert set(original) == {"pred_masks"} and torch.equal(original["pred_masks"], result["pred_masks"])


def test_an_explanation_is_of_the_resized_photo_and_drawn_on_the_photo(handler: SegmenterHandler) -> None:
    photo = coarse_png(height=40, width=60)
    options = "quadrature=midpoint&baseline=zero&segments=grid&rows=2&columns=1"
    coarse, answer = (
        json.loads(answer_to(handler, explanation(f"{options}&steps={steps}"), photo)) for steps in (10, 400)
    )
    assert answer["target_label"] == detected(handler, body=coarse_png(height=40, width=60))[0]["label"]
    assert answer["relative_residual"] < 0.1 < coarse["relative_residual"]
    cells = [row for row in answer["groups"] if row["kind"] == "segment"]
    assert [row["area"] for row in cells] == [32 * 96, 32 * 96]  # the photo becomes 64 × 96
    picture = answer_to(handler, explanation("steps=2", "image/png"), coarse_png(height=40, width=60))
    assert panel(picture).size == (60, 40)


def test_its_instances_are_segments(handler: SegmenterHandler) -> None:
    answer = json.loads(answer_to(handler, explanation("segments=swin&steps=2"), coarse_png()))
    assert any(row["kind"] == "segment" for row in answer["groups"])


def test_what_the_model_sees_is_its_photo(handler: SegmenterHandler) -> None:
    seen = handler.worker.task.engine.preprocess(decode(coarse_png(height=64, width=96), Limits()))
    rgb = (seen.preprocess.rgb(seen.image) * 255).round().permute(1, 2, 0).numpy()
    assert np.array_equal(rgb, coarse_pixels(height=64, width=96))


def test_a_photo_too_narrow_for_the_resize(handler: SegmenterHandler) -> None:
    assert json.loads(answer_to(handler, {}, coarse_png(height=1, width=400), 422))["field"] == "image"


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
    handler = segmenter_of(tmp_path / "model")
    assert handler.worker.task.engine.classes == len(CLASSES)
    (tmp_path / "swin.yaml").write_text(yaml.safe_dump(content | {"labels": ["one", "two"]}))
    with pytest.raises(SpecError, match="labels: the weights have 10 classes, given are 2 labels"):
        build_all([tmp_path / "swin.yaml"], tmp_path / "store", environ={})


def trained(folder: Path, classes: tuple[str, ...], *steps: dict[str, object], **meta: object) -> Path:
    """The spec of a small detector of these classes, with its configuration and what a training of it leaves."""
    config = small_config()
    roi_head = config["model"]["roi_head"]
    for head in (*roi_head["bbox_head"], roi_head["mask_head"]):
        head["num_classes"] = len(classes)
    torch.save({"state_dict": small_state(config), "meta": meta, "optimizer": {}}, folder / "model.pth")
    safe = checked(config)
    pipeline = list(steps) or safe["pipeline"]
    loader = {"dataset": {"pipeline": pipeline, "metainfo": {"classes": classes}}}
    (folder / "model.py").write_text(f"model = {safe['model']!r}\ntest_dataloader = {loader!r}\n")
    return spec_of(folder, classes)


def spec_of(folder: Path, labels: tuple[str, ...]) -> Path:
    content = SPEC | {"weights": "model.pth", "config": "model.py", "labels": list(labels)}
    (folder / "swin.yaml").write_text(yaml.safe_dump(content))
    return folder / "swin.yaml"


def test_a_detector_of_one_class(tmp_path: Path) -> None:
    """The commonest detector of one's own: built, served, predicting, explaining."""
    (archive,) = build_all([trained(tmp_path, ("balloon",))], tmp_path / "store", environ={})
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path / "model")
    handler = segmenter_of(tmp_path / "model")
    assert handler.worker.task.engine.classes == 1
    assert {row["label"] for row in detected(handler)} == {"balloon"}
    answer = json.loads(answer_to(handler, explanation("target_class=balloon&steps=2&segments=grid"), coarse_png()))
    assert (answer["target_class"], answer["target_label"]) == (0, "balloon")
    assert np.isfinite([row["attribution"] for row in answer["groups"]]).all()


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (("kite", "balloon"), "differing: 0 'kite' (there 'balloon'), 1 'balloon' (there 'kite')"),
        (("Kite", "Ballon"), "differing: 0 'Kite' (there 'balloon')"),
    ],
)
def test_labels_in_another_order_than_the_configurations(labels: tuple[str, ...], told: str, tmp_path: Path) -> None:
    trained(tmp_path, ("balloon", "kite"))
    with pytest.raises(SpecError) as caught:
        build_all([spec_of(tmp_path, labels)], tmp_path / "store", environ={})
    assert "swin.yaml: labels: wanted the order of the configuration model.py; " in str(caught.value)
    assert told in str(caught.value)


def test_other_names_for_the_same_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(tmp_path, ("balloon", "kite"))
    build_all([spec_of(tmp_path, ("ballon", "cerf-volant"))], tmp_path / "store", environ={})
    assert "2 labels are not those of the configuration model.py, the first 'ballon' for" in capsys.readouterr().out


@pytest.mark.parametrize("key", ["CLASSES", "classes"])
def test_labels_in_another_order_than_the_checkpoints(key: str, tmp_path: Path) -> None:
    spec = trained(tmp_path, ("balloon", "kite"), dataset_meta={key: ("kite", "balloon")})
    with pytest.raises(
        SpecError, match=r"labels: wanted the order of the checkpoint model\.pth; differing: 0 'balloon'"
    ):
        build_all([spec], tmp_path / "store", environ={})


RESIZE: dict[str, object] = {"type": "Resize", "scale": (96, 64), "keep_ratio": True}
PACK: dict[str, object] = {"type": "PackDetInputs"}


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        (
            [{"type": "TestTimeAug", "transforms": [[RESIZE], [{"type": "RandomFlip", "prob": 1.0}], [PACK]]}],
            "wanted steps that make one input of a photo, with PackDetInputs at the end and no TestTimeAug; given list",
        ),
        ([RESIZE], "wanted steps that make one input of a photo"),
        ([RESIZE, {"type": "RandomFlip", "prob": 1.0}, PACK], "one turns it over"),
        ([RESIZE, {"type": "CopyPaste"}, PACK], "wanted steps that make an input of a photo; on one, "),
    ],
)
def test_a_pipeline_that_photos_do_not_come_through(steps: list[dict[str, object]], told: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        build_all([trained(tmp_path, ("balloon", "kite"), *steps)], tmp_path / "store", environ={})
    assert f"swin.yaml: config: {tmp_path / 'model.py'}: pipeline: " in str(caught.value)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model = (", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
        ("a = 1", "wanted 'model'"),
        ("_base_ = 'gone.py'", ""),
    ],
)
def test_a_configuration_that_cannot_be_read(text: str, told: str, tmp_path: Path) -> None:
    spec = trained(tmp_path, ("balloon", "kite"))
    (tmp_path / "model.py").write_text(text)
    with pytest.raises(SpecError) as caught:
        build_all([spec], tmp_path / "store", environ={})
    assert f"swin.yaml: config: {tmp_path / 'model.py'}: " in str(caught.value)
    assert told in str(caught.value)


def test_weights_without_numbers(tmp_path: Path) -> None:
    spec = trained(tmp_path, ("balloon", "kite"))
    content = torch.load(tmp_path / "model.pth", weights_only=True)
    content["state_dict"]["roi_head.bbox_head.2.fc_cls.bias"][:] = torch.nan
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(SpecError, match=r"swin\.yaml: weights: .*scores: wanted finite numbers"):
        build_all([spec], tmp_path / "store", environ={})
