"""Instance segmenters of mmdet, any from its configuration and its weights.

The network and its test pipeline are mmdet's own (https://github.com/open-mmlab/mmdetection, Apache-2.0), with
torchvision's operators where there is no compiled mmcv. This file adds what serving needs: building from plain values,
a threshold that spares the masks of what is dropped, and a class score that stays smooth along a path.

**The score that explanations differentiate.** A two-stage detector scores a region of the photo; a cascade refines the
region between its stages. Which region that is depends on the photo by ranking and suppression, hence not smoothly. So
the regions of a detection, one for each stage, are recorded when it is found, and :meth:`MMDetSegmenter.class_logits`
keeps them where they are: of the network, the backbone, the neck, RoIAlign and the box heads are on the path, and
proposals, suppression and masks are not. At the photo itself, the softmax over these scores and the background's is
the detection's score.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from imagexplain.models.checkpoints import checkpoint, swin_keys
from imagexplain.models.example_photo import example_photo
from imagexplain.models.segmenters import mmcv_ext
from imagexplain.models.segmenters.mmdet_config import ConfigError, checked, resolve
from imagexplain.vision.detections import Detections
from imagexplain.vision.mask_crops import CroppedMask, check_room, crop_to_content

__all__ = ["ConfigError", "MMDetInput", "MMDetSegmenter", "build", "resolve"]

REHEARSAL = 32
"""Side, in pixels, of the input that a new segmenter is tried on."""

LOOKS = 8
"""Number of trials of the pipeline on one photo: a step that is taken by chance shows in one of them, nearly always."""

PASTED = 64_000_000
"""Number of pixels of the masks that stand in memory together."""


@dataclass(frozen=True)
class MMDetInput:
    """A photo as the model sees it: resized, normalised, padded at the right and at the bottom.

    Attributes:
        inputs: Input of the model, (1, 3, h, w) float32.
        image_size: Height and width of the photo within it, without the padding.
        photo_size: Height and width of the photo.
        sample: Record of the same that mmdet keeps.
    """

    inputs: Tensor
    image_size: tuple[int, int]
    photo_size: tuple[int, int]
    sample: Any


class PhotoError(ValueError):
    """A photo that the model cannot see."""


class MMDetSegmenter:
    """An mmdet model and its test pipeline.

    Attributes:
        model: Detector of mmdet, in ``eval()``, without gradients of parameters.
        classes: The labels by index, or None where the configuration does not name them.
    """

    def __init__(self, model: Any, pipeline: Any, classes: tuple[str, ...] | None) -> None:
        self.model = model
        self.classes = classes
        self._pipeline = pipeline

    @property
    def explains(self) -> bool:
        """Test whether :meth:`class_logits` is there.

        It is for two-stage detectors that find boxes as mmdet's plain ones do.
        """
        from mmdet.models import BaseRoIHead, CascadeRoIHead, StandardRoIHead, TwoStageDetector

        roi_head: Any = type(getattr(self.model, "roi_head", None))
        return (
            isinstance(self.model, TwoStageDetector)
            and type(self.model).predict is TwoStageDetector.predict
            and roi_head.predict is BaseRoIHead.predict
            and roi_head.predict_bbox in (StandardRoIHead.predict_bbox, CascadeRoIHead.predict_bbox)
        )

    @property
    def num_classes(self) -> int | None:
        """Number of classes that the model tells apart; None where its heads do not say."""
        if self.explains:
            return int(self._box_heads()[-1].num_classes)
        roi_head = getattr(self.model, "roi_head", None)
        heads = [*_listed(getattr(roi_head, "bbox_head", None))[-1:], *map(self._head, ("bbox_head", "mask_head"))]
        counts = [getattr(head, "num_classes", None) for head in heads]
        counts.append(getattr(self._head("panoptic_head"), "num_things_classes", None))
        return next((count for count in counts if isinstance(count, int)), None)

    def _head(self, name: str) -> Any:
        return getattr(self.model, name, None)

    def to(self, device: torch.device | str) -> MMDetSegmenter:
        """Move the model; photos follow it."""
        self.model.to(device)
        return self

    def preprocess(self, photo: NDArray[np.uint8] | Tensor) -> MMDetInput:
        """Prepare a photo as the model sees it.

        Args:
            photo: Photo (H, W, 3), uint8; blue, green, red.

        Raises:
            PhotoError: another shape or type, or so narrow that a side vanishes when resized.
            ConfigError: the pipeline makes something else of it than one input.
        """
        array = photo.cpu().numpy() if isinstance(photo, Tensor) else photo
        if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape or array.dtype != np.uint8:
            raise PhotoError(f"photo: wanted (H, W, 3) uint8, given {tuple(array.shape)} {array.dtype}")
        height, width = array.shape[:2]
        import cv2

        try:
            packed = self._pipeline(
                {"img": np.ascontiguousarray(array), "img_shape": (height, width), "ori_shape": (height, width)}
            )
        except cv2.error as error:
            raise PhotoError(f"photo: {height}×{width} pixels are too narrow for the model's resize") from error
        if not (isinstance(packed, Mapping) and isinstance(packed.get("inputs"), Tensor)):
            inner = packed.get("inputs") if isinstance(packed, Mapping) else packed
            wanted = "wanted steps that make one input of a photo, with PackDetInputs at the end and no TestTimeAug"
            raise ConfigError(f"pipeline: {wanted}; given {type(inner).__name__}")
        data = self.model.data_preprocessor(
            {"inputs": [packed["inputs"]], "data_samples": [packed["data_samples"]]}, training=False
        )
        (sample,) = data["data_samples"]
        return MMDetInput(data["inputs"], tuple(sample.img_shape[:2]), (height, width), sample)

    def segment(self, photo: NDArray[np.uint8] | Tensor, threshold: float | None = None) -> Detections:
        """Find the instances in a photo: :meth:`predict` in what :meth:`preprocess` sees."""
        return self.predict(self.preprocess(photo), threshold)

    @torch.no_grad()
    def predict(self, seen: MMDetInput, threshold: float | None = None) -> Detections:
        """Find the instances in a photo.

        Args:
            seen: Photo as :meth:`preprocess` prepared it.
            threshold: Score that every instance exceeds; default, the configuration's. A single-stage model applies its
                own first, so that a lower one finds no more.

        Returns:
            ``anchors`` are (N, stages, 4) float32: the region x0, y0, x1, y1, in pixels of the model's input, that each
            stage of a two-stage detector scored. For others they are empty, (N, 0, 4).

        Raises:
            MasksTooLargeError: a two-stage detector's boxes are of more pixels of the photo than masks may have.
        """
        with _quiet():
            return self._predict_in_stages(seen, threshold) if self.explains else self._predict(seen, threshold)

    def class_logits(self, inputs: Tensor, anchor: Tensor) -> Tensor:
        """Class scores of one detection's regions, differentiable with respect to the inputs.

        Args:
            inputs: Inputs (B, 3, h, w), as :attr:`MMDetInput.inputs`.
            anchor: Regions (stages, 4), a row of :attr:`Detections.anchors`; the same for all inputs.

        Returns:
            (B, classes), before the softmax, the mean over stages; the background's, which mmdet has last, is left out.

        Raises:
            ConfigError: the model has no regions.
            ValueError: an anchor of another shape.
        """
        if not self.explains:
            raise ConfigError(f"model: {type(self.model).__name__} scores no regions, so there is nothing to explain")
        heads = self._box_heads()
        if anchor.shape != (len(heads), 4):
            raise ValueError(f"anchor: wanted ({len(heads)}, 4), given {tuple(anchor.shape)}")
        features = self.model.extract_feat(inputs)
        index = torch.arange(len(inputs), dtype=inputs.dtype, device=inputs.device)[:, None]
        roi_head = self.model.roi_head
        total = inputs.new_zeros(())
        for stage, region in enumerate(anchor.to(inputs)):
            rois = torch.cat([index, region.expand(len(inputs), 4)], dim=1)
            which = (stage,) if isinstance(roi_head.bbox_head, nn.ModuleList) else ()
            total = total + roi_head._bbox_forward(*which, features, rois)["cls_score"]
        return total[:, : heads[-1].num_classes] / len(heads)

    @torch.no_grad()
    def dry_run(self) -> None:
        """Run the pipeline and every part of the model on something small, to find at the start what is amiss.

        Raises:
            ConfigError: a pipeline that fails on a photo, makes several inputs of it, turns it over, or makes another
                one each time.
            MissingOperatorError: the model needs an operator of the compiled mmcv, which is not installed.
        """
        from mmdet.structures import DetDataSample
        from mmengine.structures import InstanceData

        self._rehearse_pipeline()
        size = (REHEARSAL, REHEARSAL)
        meta = dict.fromkeys(("img_shape", "ori_shape", "pad_shape", "batch_input_shape"), size)
        sample = DetDataSample(metainfo={**meta, "scale_factor": (1.0, 1.0), "img_id": 0, "img_path": None})
        seen = MMDetInput(torch.zeros(1, 3, *size), size, size, sample)
        if not self.explains:
            self.predict(seen, 0)
            return
        # One region instead of all that are proposed: hundreds would take seconds.
        region = torch.tensor([[4.0, 4.0, 28.0, 28.0]])
        features = self.model.extract_feat(seen.inputs)
        self.model.rpn_head.predict(features, [sample], rescale=False)
        self.class_logits(seen.inputs, region.expand(len(self._box_heads()), 4))
        instance = InstanceData(bboxes=region, scores=torch.ones(1), labels=torch.zeros(1, dtype=torch.int64))
        with _quiet():
            self.model.roi_head.predict_mask(features, [sample.metainfo], [instance], rescale=True)

    def _rehearse_pipeline(self) -> None:
        try:
            looks = [self.preprocess(example_photo()) for _ in range(LOOKS)]
        except ConfigError:
            raise
        except Exception as error:  # a step may raise anything
            reason = f"{type(error).__name__}: {error}"
            raise ConfigError(f"pipeline: wanted steps that make an input of a photo; on one, {reason}") from error
        same = all(look.inputs.shape == looks[0].inputs.shape and look.inputs.equal(looks[0].inputs) for look in looks)
        if not same or any(look.sample.metainfo.get("flip") for look in looks):
            raise ConfigError("pipeline: wanted steps that keep a photo as it is but for its size; one turns it over")

    def _predict_in_stages(self, seen: MMDetInput, threshold: float | None) -> Detections:
        """Find instances in stages: proposals, boxes, suppression, then the masks of what is left."""
        from mmdet.models.layers import multiclass_nms
        from mmengine.structures import InstanceData

        roi_head, settings = self.model.roi_head, self.model.roi_head.test_cfg
        features = self.model.extract_feat(seen.inputs)
        proposals = self.model.rpn_head.predict(features, [seen.sample], rescale=False)
        metas = [seen.sample.metainfo]
        with _recorded(_listed(roi_head.bbox_roi_extractor)) as rois:
            (raw,) = roi_head.predict_bbox(features, metas, proposals, rcnn_test_cfg=None, rescale=False)
        minimum = settings.score_thr if threshold is None else threshold
        boxes, labels, places = multiclass_nms(
            raw.bboxes, raw.scores, minimum, settings.nms, settings.max_per_img, return_inds=True
        )
        found = InstanceData(bboxes=boxes[:, :4], scores=boxes[:, 4], labels=labels)
        check_room(_area_in_photo(found.bboxes, seen))
        # mmdet pastes masks into as many photos: some at a time, of which the cut-outs remain.
        some = max(1, PASTED // (seen.photo_size[0] * seen.photo_size[1]))
        parts, cut_outs = [], []
        for start in range(0, max(len(found), 1), some):
            (part,) = roi_head.predict_mask(features, metas, [found[start : start + some]], rescale=True)
            cut_outs += _cut_outs(part.pop("masks"))
            parts.append(part)
        found = InstanceData.cat(parts)
        # A place counts regions times classes, without the background.
        regions = places // (raw.scores.shape[1] - 1)
        stages = [each[regions, 1:] for each in rois] if rois else [boxes.new_zeros(0, 4)] * len(self._box_heads())
        return _detections(found, cut_outs, seen, torch.stack(stages, dim=1))

    def _predict(self, seen: MMDetInput, threshold: float | None) -> Detections:
        """Find instances by mmdet's own way through any detector."""
        (sample,) = self.model.predict(seen.inputs, [seen.sample], rescale=True)
        found = sample.pred_instances
        if "masks" not in found:
            raise ConfigError(f"model: {type(self.model).__name__} finds no masks; wanted an instance segmenter")
        if threshold is not None:
            found = found[found.scores > threshold]
        return _detections(found, _cut_outs(found.pop("masks")), seen, found.bboxes.new_zeros(len(found), 0, 4))

    def _box_heads(self) -> list[Any]:
        return _listed(self.model.roi_head.bbox_head)


def build(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> MMDetSegmenter:
    """Build the segmenter of a checkpoint, in ``eval()``, on the CPU.

    Args:
        config: Result of :func:`resolve`, possibly by way of JSON; no code in it is run.
        state: Tensors of the checkpoint, under mmdet 3's names or those of the published Swin detectors.

    Raises:
        ConfigError: a configuration that is not resolved, wants code imported, or does not fit mmdet; the message says
            where.
        MissingOperatorError: the model needs an operator of the compiled mmcv, which is not installed.
        CheckpointError: listing every missing, unexpected and wrongly shaped tensor.
        ModuleNotFoundError: mmdet or mmcv is not installed.
    """
    mmcv_ext.install()
    safe = checked(config)
    from mmcv.transforms import Compose
    from mmdet.registry import MODELS
    from mmengine.config import ConfigDict
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope("mmdet"):
        try:
            model = MODELS.build(ConfigDict(safe["model"]))
            pipeline = Compose(safe["pipeline"])
        except (TypeError, KeyError, AssertionError, AttributeError, ValueError) as error:
            raise ConfigError(f"config: mmdet makes no model of it: {error}") from error
    if hasattr(model, "roi_head") and not model.with_mask:
        raise ConfigError(f"model: {type(model).__name__} without a mask head; wanted an instance segmenter")
    if swin_keys.is_authors(state):
        state = swin_keys.from_authors(state)
    checkpoint.fill(model, state)
    classes = safe["classes"]
    segmenter = MMDetSegmenter(model.requires_grad_(False), pipeline, tuple(classes) if classes else None)
    segmenter.dry_run()
    return segmenter


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence, within the block, the warning that mmdet's way of copying masks brings."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="To copy construct from a tensor", category=UserWarning)
        yield


@contextmanager
def _recorded(extractors: list[nn.Module]) -> Iterator[list[Tensor]]:
    """Record the regions (R, 5) that each of these is asked for, in the order in which they are asked."""
    rois: list[Tensor] = []
    hooks = [each.register_forward_pre_hook(lambda _, arguments: rois.append(arguments[1])) for each in extractors]
    try:
        yield rois
    finally:
        for hook in hooks:
            hook.remove()


def _listed(modules: Any) -> list[Any]:
    """List of modules: a cascade has a list of them, a plain detector one."""
    return list(modules) if isinstance(modules, nn.ModuleList) else [modules]


def _area_in_photo(boxes: Tensor, seen: MMDetInput) -> float:
    """Pixels of the photo that boxes (N, 4) x0, y0, x1, y1 in pixels of the model's input cover, one by one."""
    height, width = seen.image_size
    corners = boxes.double().clamp(min=0).minimum(boxes.new_tensor([width, height] * 2, dtype=torch.float64))
    sides = (corners[:, 2:] - corners[:, :2]).clamp(min=0)
    scale = seen.photo_size[0] * seen.photo_size[1] / (height * width)
    return sides.prod(1).sum().item() * scale


def _cut_outs(masks: Tensor) -> list[CroppedMask]:
    return [crop_to_content(mask) for mask in masks.bool().cpu().numpy()]


def _detections(found: Any, cut_outs: list[CroppedMask], seen: MMDetInput, anchors: Tensor) -> Detections:
    # Heads that rate their masks change the scores after the boxes were sorted.
    order = found.scores.argsort(descending=True, stable=True)
    found, anchors = found[order].cpu(), anchors[order].float().cpu()
    sorted_masks = tuple(cut_outs[place] for place in order.tolist())
    return Detections(found.bboxes.float(), found.scores.float(), found.labels, sorted_masks, seen.photo_size, anchors)
