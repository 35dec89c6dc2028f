from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks import deterministic
from imagexplain.models.checkpoints import torch_file
from imagexplain.models.checkpoints.checkpoint import CheckpointError
from imagexplain.models.segmenters import mmcv_ext, mmdet_segmenter
from imagexplain.models.segmenters.mmcv_ext import MissingOperatorError
from imagexplain.models.segmenters.mmdet_config import ConfigError
from imagexplain.models.segmenters.mmdet_segmenter import MMDetSegmenter, build
from imagexplain.vision.detections import Detections
from imagexplain.vision.mask_crops import MasksTooLargeError
from tests.models import mmdet_models
from tests.models.reference import FIXTURES, distance
from tests.models.same import assert_close_outputs

ROOT = Path(__file__).parents[2]

SAMPLES = 8192
"""Larger tensors of the reference are kept at every k-th number, with the smallest odd k that leaves no more."""


def photo(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def sampled(tensor: Tensor) -> Tensor:
    step = -(-tensor.numel() // SAMPLES)
    return tensor.flatten()[:: step | 1] if step > 1 else tensor


@dataclass(frozen=True)
class Walk:
    """One pass through the reference's model and photo, with all that happens in between."""

    segmenter: MMDetSegmenter
    inputs: Tensor
    detections: Detections
    between: dict[str, Tensor]
    upstream: dict[str, Tensor]


@pytest.fixture(scope="module")
def walk() -> Walk:
    """Built once: 85 million parameters, and ten seconds of inference."""
    config = mmdet_models.through_json(mmdet_segmenter.resolve(mmdet_models.CONFIG))
    segmenter = build(config, deterministic.reference_cascade())
    with np.load(FIXTURES / "swin/intermediates.npz") as arrays:
        upstream = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    seen = segmenter.preprocess(np.array(Image.open(FIXTURES / "swin/china_bgr.png"))[:, :, ::-1])
    between: dict[str, Tensor] = {"inputs": seen.inputs}
    model, roi_head = segmenter.model, segmenter.model.roi_head
    spied = {
        (model.backbone, "forward"): lambda out: {f"backbone_{i}": x for i, x in enumerate(out)},
        (model.neck, "forward"): lambda out: {f"fpn_{i}": x for i, x in enumerate(out)},
        (model.rpn_head, "forward"): lambda out: {
            f"rpn_{kind}_{i}": x for kind, maps in zip(("cls", "box"), out, strict=True) for i, x in enumerate(maps)
        },
        (model.rpn_head, "predict"): lambda out: {"rpn_proposals": out[0].bboxes, "rpn_scores": out[0].scores},
        (roi_head, "_refine_roi"): lambda out: {
            f"cascade_final_{kind}": x[0] for kind, x in zip(("rois", "cls", "reg"), out, strict=True)
        },
    }
    with pytest.MonkeyPatch.context() as patch:
        for (module, method), named in spied.items():
            patch.setattr(module, method, spy(getattr(module, method), named, between))
        detections = segmenter.predict(seen)
    features = [between[f"fpn_{i}"] for i in range(5)]
    rois = upstream["fixed_rois"]
    with torch.no_grad():  # every stage of the reference sees the same regions
        for stage in range(3):
            found = roi_head._bbox_forward(stage, features, rois)
            if stage == 0:
                between["stage0_roifeat"] = found["bbox_feats"]
            if stage < 2:
                between[f"mask{stage}_logits"] = roi_head._mask_forward(stage, features, rois)["mask_preds"]
            between |= {f"stage{stage}_cls": found["cls_score"], f"stage{stage}_reg": found["bbox_pred"]}
            labels = found["cls_score"][:, :-1].argmax(1)
            boxes = roi_head.bbox_head[stage].regress_by_class(
                rois[:, 1:], labels, found["bbox_pred"], seen.sample.metainfo
            )
            between[f"stage{stage}_refined"] = boxes
    return Walk(segmenter, seen.inputs, detections, between, upstream)


def spy(method: Any, named: Any, into: dict[str, Tensor]) -> Any:
    def spying(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        into.update({name: tensor.clone() for name, tensor in named(result).items()})
        return result

    return spying


@pytest.mark.upstream
def test_every_intermediate_equals_upstream(walk: Walk) -> None:
    """Upstream is mmdet over the compiled operators. Largest error over a tensor's largest value, in every tensor."""
    assert set(walk.upstream) - {"fixed_rois"} <= set(walk.between)
    errors = {}
    for name, wanted in walk.upstream.items():
        if name != "fixed_rois":
            given = walk.between[name]
            given = given if given.shape == wanted.shape else sampled(given)
            assert given.shape == wanted.shape, name
            errors[name] = float((given - wanted).abs().max() / wanted.abs().max())
    print({name: f"{error:.1e}" for name, error in errors.items()})
    assert max(errors.values()) < 1e-4, errors


@pytest.mark.upstream
def test_detections_equal_upstream(walk: Walk) -> None:
    with np.load(FIXTURES / "swin/result.npz") as arrays:
        upstream = {name: arrays[name] for name in arrays.files}
    found = walk.detections
    assert len(found) == 100
    assert found.labels.tolist() == upstream["labels"].tolist()
    assert (found.boxes - torch.from_numpy(upstream["boxes"])).abs().max() < 1e-2  # pixels of 640
    assert (found.scores - torch.from_numpy(upstream["scores"])).abs().max() < 1e-4
    shape = upstream["masks_shape"]
    masks = np.unpackbits(upstream["masks_packed"], count=shape.prod()).reshape(shape).astype(bool)
    assert found.masks.shape == tuple(shape)
    # Pixels where a mask's value is one half to seven digits.
    assert (found.masks.numpy() != masks).sum() < 1e-4 * masks.sum()


@pytest.mark.upstream
def test_class_logits_are_the_mean_of_upstreams_stages(walk: Walk) -> None:
    anchor = walk.upstream["fixed_rois"][5, 1:].expand(3, 4)
    wanted = torch.stack([walk.upstream[f"stage{stage}_cls"] for stage in range(3)]).mean(0)
    with torch.no_grad():
        given = walk.segmenter.class_logits(walk.inputs, anchor)
    assert given.shape == (1, 80)
    assert distance(given[0], wanted[5, :80]) < 1e-4


@pytest.fixture(scope="module", params=["cascade", "plain"])
def small(request: pytest.FixtureRequest) -> MMDetSegmenter:
    config = mmdet_models.small_config() if request.param == "cascade" else mmdet_models.plain_config()
    return build(config, mmdet_models.small_state(config))


def plainly(segmenter: MMDetSegmenter, picture: NDArray[np.uint8]) -> Any:
    """What mmdet itself finds."""
    with torch.no_grad():
        seen = segmenter.preprocess(picture)
        return segmenter.model.predict(seen.inputs, [seen.sample], rescale=True)[0].pred_instances


def assert_same_instances(given: Detections, wanted: Any) -> None:
    assert torch.equal(given.labels, wanted.labels)
    torch.testing.assert_close(given.scores, wanted.scores, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(given.boxes, wanted.bboxes, rtol=1e-4, atol=1e-3)
    assert torch.equal(given.masks, wanted.masks)


@pytest.mark.parametrize("threshold", [None, 0.5, 0.3])
def test_finds_what_mmdet_finds(small: MMDetSegmenter, threshold: float | None) -> None:
    """A threshold changes nothing about the detections that lie above it."""
    picture = photo(40, 70)
    wanted = plainly(small, picture)
    given = small.segment(picture, threshold)
    assert len(given) >= 2 and given.masks.any()
    if threshold is not None:
        wanted = wanted[wanted.scores > threshold]
    assert_same_instances(given, wanted)
    assert given.scores.tolist() == sorted(given.scores.tolist(), reverse=True)
    assert given.masks.shape == (len(given), 40, 70)
    assert (given.boxes.dtype, given.scores.dtype) == (torch.float32, torch.float32)
    assert (given.labels.dtype, given.masks.dtype) == (torch.int64, torch.bool)


def test_a_lower_threshold_than_the_configurations_finds_more(small: MMDetSegmenter) -> None:
    picture = photo(40, 70)
    scores = small.segment(picture, 0).scores
    small.model.roi_head.test_cfg.score_thr = float(scores[3])
    try:
        assert len(small.segment(picture)) == 3
        assert torch.equal(small.segment(picture, 0).scores, scores)
    finally:
        small.model.roi_head.test_cfg.score_thr = 0.05


def test_only_masks_above_the_threshold_are_computed(small: MMDetSegmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    original = small.model.roi_head.predict_mask

    def counting(features: Any, metas: Any, results: Any, rescale: bool) -> Any:
        seen.append(len(results[0]))
        return original(features, metas, results, rescale=rescale)

    monkeypatch.setattr(small.model.roi_head, "predict_mask", counting)
    everything = small.segment(photo(40, 70))
    some = small.segment(photo(40, 70), float(everything.scores[3]))
    assert seen == [len(everything), 3]
    assert len(some) == 3


def test_masks_of_too_many_pixels_are_not_begun(small: MMDetSegmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask lies within its box but for the rounding of its sides."""
    picture = photo(40, 64)
    found = small.segment(picture, 0.2)
    sides = (found.boxes[:, 2:] - found.boxes[:, :2]).double()
    pixels = sides.prod(1).sum().item()
    monkeypatch.setattr("imagexplain.vision.mask_crops.MOST_PIXELS", pixels * 1.001)
    assert len(small.segment(picture, 0.2)) == len(found) > 0
    monkeypatch.setattr("imagexplain.vision.mask_crops.MOST_PIXELS", pixels * 0.999)
    monkeypatch.setattr(small.model.roi_head, "predict_mask", None)
    with pytest.raises(MasksTooLargeError):
        small.segment(picture, 0.2)


def test_nothing_found(small: MMDetSegmenter) -> None:
    found = small.segment(photo(40, 70), 1.0)
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert found.masks.shape == (0, 40, 70)
    assert found.masks.dtype == torch.bool
    assert found.anchors.shape[0] == 0


def test_no_proposals(small: MMDetSegmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small.model.rpn_head.test_cfg, "min_bbox_size", 1000)
    found = small.segment(photo(40, 70))
    assert found.masks.shape == (0, 40, 70)


def test_the_score_at_the_photo_is_the_detections(small: MMDetSegmenter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Softmax over the classes and the background, which is asked for by counting it as a class."""
    seen = small.preprocess(photo(40, 70))
    found = small.predict(seen, 0)
    monkeypatch.setattr(small._box_heads()[-1], "num_classes", 4)
    for anchor, label, score in zip(found.anchors, found.labels, found.scores, strict=True):
        with torch.no_grad():
            probabilities = small.class_logits(seen.inputs, anchor)[0].softmax(0)
        assert float(probabilities[label]) == pytest.approx(float(score), rel=1e-4)


def test_anchors_are_in_the_inputs_pixels(small: MMDetSegmenter) -> None:
    """A photo of half the model's size: the last stage's region lies near the box, twice as far."""
    seen = small.preprocess(photo(32, 48))
    assert (seen.image_size, seen.photo_size) == ((64, 96), (32, 48))
    assert seen.inputs.shape == (1, 3, 64, 96)
    found = small.predict(seen)
    assert found.anchors.shape == (len(found), len(small._box_heads()), 4)
    assert float(found.anchors.max()) > 48
    assert (found.anchors >= 0).all() and (found.anchors <= torch.tensor([96, 64, 96, 64])).all()


def test_gradient_equals_differences(small: MMDetSegmenter) -> None:
    """In float64, along random directions, by steps so short that hardly a ReLU meets its kink."""
    seen = small.preprocess(photo(40, 70))
    anchor = small.predict(seen).anchors[1]
    small.model.double()
    try:
        inputs = torch.cat([seen.inputs, 0.5 * seen.inputs]).double().requires_grad_()
        (grads,) = torch.autograd.grad(small.class_logits(inputs, anchor)[:, 1].sum(), inputs)
        generator = torch.Generator().manual_seed(0)
        for _ in range(3):
            direction = torch.randn(inputs.shape, generator=generator, dtype=torch.float64)
            with torch.no_grad():
                ahead, behind = (small.class_logits(inputs + h * direction, anchor)[:, 1] for h in (1e-8, -1e-8))
            slopes = (ahead - behind) / 2e-8
            torch.testing.assert_close(slopes, (grads * direction).sum((1, 2, 3)), rtol=1e-5, atol=1e-7)
            assert slopes.abs().min() > 1e-4
    finally:
        small.model.float()


def test_batches_do_not_mix(small: MMDetSegmenter) -> None:
    first, second = (small.preprocess(photo(40, 70, seed)).inputs for seed in (0, 1))
    anchor = small.predict(small.preprocess(photo(40, 70))).anchors[0]
    with torch.no_grad():
        together = small.class_logits(torch.cat([first, second]), anchor)
        apart = torch.cat([small.class_logits(x, anchor) for x in (first, second)])
    assert together.shape == (2, 3)
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-5)
    assert distance(together[0], together[1]) > 1e-3


def test_nothing_of_the_model_changes(small: MMDetSegmenter) -> None:
    before = {name: tensor.clone() for name, tensor in small.model.state_dict().items()}
    seen = small.preprocess(photo(40, 70))
    anchor = small.predict(seen).anchors[0]
    torch.autograd.grad(small.class_logits(seen.inputs.requires_grad_(), anchor).sum(), seen.inputs)
    assert not any(parameter.requires_grad for parameter in small.model.parameters())
    assert not any(module.training for module in small.model.modules())
    assert not any(module._forward_pre_hooks for module in small.model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.model.state_dict().items())


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (60, 2), (300, 400)])
def test_photos_of_unusual_sizes(small: MMDetSegmenter, shape: tuple[int, int]) -> None:
    found = small.segment(photo(*shape))
    assert found.masks.shape[1:] == shape


def test_photos_as_tensors_and_views(small: MMDetSegmenter) -> None:
    picture = photo(40, 70)
    wanted = small.segment(picture)
    assert_close_outputs(small.segment(torch.from_numpy(picture)).boxes, wanted.boxes)
    assert_close_outputs(small.segment(picture[:, ::-1].copy()[:, ::-1]).boxes, wanted.boxes)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (np.zeros((4, 4), np.uint8), r"photo: wanted \(H, W, 3\) uint8, given \(4, 4\) uint8"),
        (np.zeros((4, 4, 4), np.uint8), r"given \(4, 4, 4\) uint8"),
        (np.zeros((0, 4, 3), np.uint8), r"given \(0, 4, 3\) uint8"),
        (np.zeros((4, 4, 3), np.float32), r"given \(4, 4, 3\) float32"),
        (np.zeros((1, 1000, 3), np.uint8), r"photo: 1×1000 pixels are too narrow"),
    ],
)
def test_photos_that_are_none(small: MMDetSegmenter, picture: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small.segment(picture)


def test_anchors_of_another_model(small: MMDetSegmenter) -> None:
    with pytest.raises(ValueError, match=r"anchor: wanted \([13], 4\), given \(2, 4\)"):
        small.class_logits(torch.zeros(1, 3, 64, 96), torch.zeros(2, 4))


@pytest.fixture(scope="module")
def single_stage() -> tuple[dict[str, Any], dict[str, Tensor]]:
    import mmdet

    configs = Path(mmdet.__file__).parent / ".mim/configs"
    config = mmdet_models.through_json(
        mmdet_segmenter.resolve(configs / "condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py")
    )
    config["pipeline"][0]["scale"] = {"__tuple__": [96, 64]}
    torch.manual_seed(0)
    return config, mmdet_models.built(config).state_dict()


def test_any_other_segmenter_goes_mmdets_own_way(single_stage: tuple[dict[str, Any], dict[str, Tensor]]) -> None:
    segmenter = build(*single_stage)
    picture = photo(40, 70)
    found = segmenter.segment(picture)
    assert not segmenter.explains
    assert len(found) > 10
    assert_same_instances(found, plainly(segmenter, picture))
    some = segmenter.segment(picture, float(found.scores[4]))
    assert len(some) == (found.scores > found.scores[4]).sum()
    assert found.anchors.shape == (len(found), 0, 4)
    with pytest.raises(ConfigError, match="CondInst scores no regions"):
        segmenter.class_logits(segmenter.preprocess(picture).inputs, found.anchors[0])


def test_published_names(small: MMDetSegmenter) -> None:
    """A state dict under the authors' names, of a downsampling that is its own permutation's image."""
    config = mmdet_models.small_config()
    state = mmdet_models.small_state(config)
    old = {authors_name(name): tensor for name, tensor in state.items()}
    assert old.keys() != state.keys()
    model = build(config, old).model
    for name, tensor in model.state_dict().items():
        if "downsample" not in name and not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, state[name]), name


def authors_name(name: str) -> str:
    for new, old in (
        ("backbone.stages.", "backbone.layers."),
        (".attn.w_msa.", ".attn."),
        (".ffn.layers.0.0.", ".mlp.fc1."),
        (".ffn.layers.1.", ".mlp.fc2."),
        ("backbone.patch_embed.projection.", "backbone.patch_embed.proj."),
    ):
        name = name.replace(new, old)
    return name


def test_from_a_training_run(tmp_path: Path) -> None:
    """What mmengine saves beside the weights, among it classes of its own."""
    from mmengine.config import Config
    from mmengine.logging import HistoryBuffer

    config = mmdet_models.small_config()
    state = mmdet_models.small_state(config)
    history = HistoryBuffer([0.5, 0.25], [1, 1])
    meta = {"epoch": 12, "cfg": Config({"a": 1}), "dataset_meta": {"classes": ("a",)}, "seed": np.int64(3)}
    torch.save({"meta": meta, "message_hub": {"train/loss": history}, "state_dict": state}, tmp_path / "epoch_12.pth")
    model = build(config, torch_file.read(tmp_path / "epoch_12.pth")).model
    assert torch.equal(model.state_dict()["rpn_head.rpn_cls.weight"], state["rpn_head.rpn_cls.weight"])


def test_every_tensor_is_accounted_for() -> None:
    config = mmdet_models.small_config()
    state = mmdet_models.small_state(config)
    state["neck.extra"] = state.pop("rpn_head.rpn_cls.bias")
    state["rpn_head.rpn_reg.bias"] = torch.zeros(7)
    with pytest.raises(CheckpointError) as caught:
        build(config, state)
    assert caught.value.missing == ("rpn_head.rpn_cls.bias",)
    assert caught.value.unexpected == ("neck.extra",)
    assert caught.value.misshapen == (("rpn_head.rpn_reg.bias", (12,), (7,)),)


@pytest.mark.skipif(not mmcv_ext.install(), reason="a compiled mmcv has every operator")
def test_a_missing_operator_is_found_when_the_model_is_built() -> None:
    config = mmdet_models.small_config()
    config["model"]["backbone"] = {
        "type": "ResNet",
        "depth": 50,
        "base_channels": 8,
        "norm_cfg": {"type": "BN"},
        "dcn": {"type": "DCN", "deform_groups": 1, "fallback_on_stride": False},
        "stage_with_dcn": [False, True, True, True],
    }
    with pytest.raises(MissingOperatorError, match=r"deform_conv_forward: .* install a compiled mmcv"):
        build(config, mmdet_models.small_state(config))


def test_detectors_without_masks_are_refused() -> None:
    config = mmdet_models.small_config()
    state = mmdet_models.small_state(config)
    for part in ("mask_head", "mask_roi_extractor"):
        del config["model"]["roi_head"][part]
    with pytest.raises(ConfigError, match="CascadeRCNN without a mask head; wanted an instance segmenter"):
        build(config, {name: tensor for name, tensor in state.items() if "mask" not in name})


def test_synchronised_norms_become_plain_ones(small: MMDetSegmenter) -> None:
    kinds = {type(module).__name__ for module in small.model.modules()}
    assert "BatchNorm2d" in kinds
    assert not {kind for kind in kinds if "Sync" in kind}
    assert small.classes == ("circle", "square", "star")
    assert small.num_classes == 3


def test_labels_of_coco() -> None:
    from mmdet.datasets.coco import CocoDataset

    labels = (ROOT / "archive_specs/labels/coco.txt").read_text().splitlines()
    assert tuple(labels) == CocoDataset.METAINFO["classes"]
    assert len(labels) == 80
