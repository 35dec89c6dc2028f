"""Handlers of small seeded models, from archives as TorchServe unpacks them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from handlers.captioner import CaptionerHandler
from handlers.classifier import ClassifierHandler
from handlers.segmenter import SegmenterHandler
from imagexplain.archive.captioner_archive import FEATURES_FILE
from imagexplain.archive.spec import SPEC_FILE, WEIGHTS_FILE, CaptionerSpec, ClassifierSpec, SegmenterSpec
from imagexplain.models.captioners import captioner
from imagexplain.models.captioners.captioner import Captioner, Dimensions
from imagexplain.models.captioners.features import EncodedRegions
from imagexplain.models.captioners.region_encoder import GEOMETRY, RegionEncoder
from imagexplain.models.captioners.vocabulary import SIGNS
from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.classifiers import bit, timm_network
from imagexplain.models.segmenters import tensormask
from imagexplain.models.segmenters.resnet_fpn import Stage
from imagexplain.models.segmenters.tensormask import TensorMask, TensorMaskSettings, TensorMaskSize
from imagexplain.serving.cache import Cache
from tests.serving.fake_torchserve import Context

CIFAR_LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
TIMM_LABELS = ("cat", "dog", "fox", "owl")
TIMM_NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet": ("resnet18", {"channels": [8, 8, 16, 16]}),
    "vit": (
        "vit_tiny_patch16_224",
        {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2},
    ),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"img_size": 32, "window_size": 4, "embed_dim": 12, "depths": [2, 2], "num_heads": [1, 2]},
    ),
}
SHAPE_LABELS = ("circle", "square", "star")
TENSORMASK_SIZE = TensorMaskSize(
    classes=len(SHAPE_LABELS),
    stem=8,
    stages=(Stage(1, 4, 8), Stage(1, 4, 8), Stage(1, 4, 8), Stage(1, 4, 8)),
    channels=8,
    convs=1,
    towers=(8, 8, 8),
)
TENSORMASK_SETTINGS = {"mask_sizes": [5, 7], "detections": 6, "candidates": 300}


def write_bit(folder: Path, **changes: Any) -> Path:
    """An unpacked archive of a small seeded BiT."""
    torch.manual_seed(0)
    network = bit.bit((1, 1, 1, 1), (128, 256, 512, 512), 32, len(CIFAR_LABELS))
    save_file(bit.export(network), folder / WEIGHTS_FILE)
    preprocess = {"size": (32, 32), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    spec = {"name": "bit", "architecture": "bit", "preprocess": preprocess, "labels": CIFAR_LABELS} | changes
    (folder / SPEC_FILE).write_text(ClassifierSpec.model_validate(spec).to_json())
    return folder


def write_timm(
    folder: Path,
    kind: str,
    arguments: Mapping[str, Any] | None = None,
    preprocess: Mapping[str, Any] | None = None,
    *,
    outputs: int = len(TIMM_LABELS),
    **changes: Any,
) -> Path:
    """An unpacked archive of a small seeded network of timm, perhaps with arguments or fields that are not usual."""
    name, usual = TIMM_NETWORKS[kind]
    arguments = usual | dict(arguments or {})
    torch.manual_seed(0)
    network = timm_network.create(name, {"num_classes": outputs, **arguments})
    for module in network.modules():  # as after training, with statistics that are not those of an untouched network
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_var is not None and module.running_mean is not None
            module.running_var.uniform_(0.5, 1.5)
            module.running_mean.uniform_(-0.2, 0.2)
            module.bias.data.uniform_(0, 0.5)
    save_file(checkpoint.exported(network), folder / WEIGHTS_FILE)
    fields = {"size": (32, 32), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)} | dict(preprocess or {})
    spec = {"name": kind, "architecture": f"timm/{name}", "arguments": arguments, "labels": TIMM_LABELS}
    spec |= {"preprocess": fields, **changes}
    (folder / SPEC_FILE).write_text(ClassifierSpec.model_validate(spec).to_json())
    return folder


def write_tensormask(folder: Path, bias: float = -1.0, size: TensorMaskSize = TENSORMASK_SIZE, **changes: Any) -> Path:
    """An unpacked archive of a seeded network; its classes have about the probability that the bias says."""
    torch.manual_seed(0)
    network = TensorMask(size, TensorMaskSettings(mask_sizes=(5, 7)), torch.nn.BatchNorm2d)
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
    head = network.head
    mask_pred = head.get_submodule("mask_pred_05")
    assert isinstance(mask_pred, torch.nn.Conv2d)
    for layer, factor in ((head.cls_score, 5e-3), (head.bbox_pred, 5e-4), (mask_pred, 5e-3)):
        assert layer.bias is not None
        layer.weight.data *= factor  # activations are some hundreds
        layer.bias.data.fill_(bias if layer is head.cls_score else 0.0)
    save_file(tensormask.export(network), folder / WEIGHTS_FILE)
    spec = {
        "name": "tensormask",
        "handler": "segmenter",
        "engine": "torchvision",
        "settings": TENSORMASK_SETTINGS,
        "threshold": 0.05,
        "labels": SHAPE_LABELS,
        "img_data": {"layout": "chw", "order": "bgr"},
        "explain": {"steps": 8},
        "serving": {"response_timeout_s": 1200},  # so that a busy machine refuses nothing
    }
    (folder / SPEC_FILE).write_text(SegmenterSpec.model_validate(spec | changes).to_json())
    return folder


CAPTION_WORDS = (*SIGNS, "a", "red", "blue", "star", "ring", "left", "of", "ein", "звезда")
CAPTION_WIDTH = 9 + GEOMETRY


def seeded_captioner(seed: int = 0) -> Captioner:
    """A small captioner whose words depend on what it sees: its weights are larger than at the start of a training."""
    torch.manual_seed(seed)
    network = Captioner(Dimensions(len(CAPTION_WORDS), CAPTION_WIDTH, CAPTION_WIDTH, 24))
    for parameter in network.parameters():
        parameter.data *= 3
    return network.eval()


def seeded_regions(seed: int = 0) -> RegionEncoder:
    """A small region encoder, whose features have about the size of a trained one's."""
    torch.manual_seed(seed)
    encoder = RegionEncoder(CAPTION_WIDTH - GEOMETRY).eval()
    encoder.last.weight.data *= 30
    return encoder


def write_captioner(folder: Path, *, extractor: bool = True, **changes: Any) -> Path:
    """An unpacked archive of a small seeded captioner, with a network that makes features or without."""
    parts = captioner.export(seeded_captioner()).items()
    save_file({f"{part}.{name}": tensor for part, own in parts for name, tensor in own.items()}, folder / WEIGHTS_FILE)
    if extractor:
        save_file(checkpoint.exported(EncodedRegions(seeded_regions())), folder / FEATURES_FILE)
    spec = {
        "name": "captioner",
        "handler": "captioner",
        "labels": CAPTION_WORDS,
        "features": {"extractor": "region_encoder", "longer": 64} if extractor else None,
        "captions": {"beams": 3, "max_words": 8},
        "explain": {"steps": 10},
        "serving": {"response_timeout_s": 1200},  # so that a busy machine refuses nothing
    }
    (folder / SPEC_FILE).write_text(CaptionerSpec.model_validate(spec | changes).to_json())
    return folder


def captioner_of(folder: Path) -> CaptionerHandler:
    """The handler of an unpacked archive of a captioner."""
    handler = CaptionerHandler()
    handler.initialize(Context(model_dir=folder))
    return handler


def classifier_of(folder: Path) -> ClassifierHandler:
    """The handler of an unpacked archive of a classifier."""
    handler = ClassifierHandler()
    handler.initialize(Context(model_dir=folder))
    return handler


def segmenter_of(folder: Path) -> SegmenterHandler:
    """The handler of an unpacked archive of a segmenter."""
    handler = SegmenterHandler()
    handler.initialize(Context(model_dir=folder))
    return handler


def forget(handler: ClassifierHandler) -> None:
    """Empty the caches of a classifier's handler."""
    handler.worker.task.scores, handler.worker.explanations = Cache(1_000_000), Cache(10_000_000)
