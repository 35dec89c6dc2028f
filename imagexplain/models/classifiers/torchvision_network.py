"""Classifiers of torchvision, any by its name there: torchvision has the code, the checkpoint is the user's.

Nothing is downloaded. A name may have the tag of published weights (``resnet50.IMAGENET1K_V2``): those say how photos
are prepared, and without a tag torchvision's default ones do. The file that torchvision publishes fits, and so does any
that was trained from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models as torchvision_models

from imagexplain.errors import ArgumentError
from imagexplain.models.checkpoints import checkpoint

AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
"""Beginnings of the names in the heads that only training evaluates, of GoogLeNet and Inception."""

PREPARED_AS_OTHERS = ("googlenet", "inception_v3")
"""Networks whose published weights want values in another range than that of torchvision's preprocessing, and bring
them into it themselves (``transform_input``)."""

PUBLISHED_CLASSES = 1000


def create(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Create an untrained network, on the default device, in ``eval()``.

    Args:
        name: Name as ``torchvision.models.list_models()`` has it, with or without the tag of published weights.
        arguments: Arguments of the architecture (``num_classes``, ``image_size``, …). GoogLeNet and Inception bring
            their input into the range of the published weights unless ``transform_input`` is false.

    Raises:
        ArgumentError: torchvision has no such classifier, or it does not take such arguments.
    """
    architecture = _architecture(name)
    usual: dict[str, Any] = {}
    if architecture in PREPARED_AS_OTHERS:  # weights that take a second to draw, for nothing
        usual = {"transform_input": True, "init_weights": False}
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    if "weights" in values:
        raise ArgumentError("arguments", "weights: wanted none, for they are a file's: the spec's `weights`")
    try:
        return torchvision_models.get_model(architecture, weights=None, **usual | values).eval()
    except NotImplementedError:  # of the meta device
        raise
    except (TypeError, RuntimeError, AssertionError, ValueError) as error:
        raise ArgumentError("arguments", f"{name} does not take {dict(arguments)}: {error}") from error


def build(name: str, state: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> nn.Module:
    """Build the network of a checkpoint, in ``eval()``: images (B, 3, H, W) to logits (B, classes).

    Args:
        name: Name as for :func:`create`.
        state: Tensors of the checkpoint by torchvision's names. The last layer says how many classes, the position
            embeddings of a ViT the size of its images. Heads for training, of GoogLeNet and Inception, may be missing.
        arguments: Arguments as for :func:`create`; ``num_classes`` and a ViT's ``image_size`` need not be among them.

    Raises:
        ArgumentError: as for :func:`create`.
        CheckpointError: listing every missing, unexpected and wrongly shaped tensor.
    """
    architecture = _architecture(name)
    if architecture in PREPARED_AS_OTHERS:
        arguments = {"aux_logits": any(key.startswith(AUXILIARY) for key in state)} | dict(arguments)
    outline = _outline(name, arguments)
    if (head := f"{_classifier(outline)}.weight") in state:
        arguments = {"num_classes": len(state[head])} | dict(arguments)
    if isinstance(outline, torchvision_models.VisionTransformer):
        arguments = _image_size(state, outline) | dict(arguments)
    # Not on meta: some networks compute buffers that no checkpoint holds.
    return checkpoint.fill(create(name, arguments), state)


def preprocess(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Preprocessing of photos as the published weights state it: the fields of a spec's ``preprocess``.

    With ``image_size`` among the arguments the photos have that size, and are cropped by the same share.

    Raises:
        ArgumentError: as for :func:`create`, or a tag of no published weights.
    """
    stated = _published(name).transforms()
    (crop,), (resize,) = stated.crop_size, stated.resize_size
    size = arguments.get("image_size", crop)
    return {
        "size": (size, size),
        "mean": tuple(stated.mean),
        "std": tuple(stated.std),
        "fit": "crop",
        "resize": resize if size == crop else round(resize * size / crop),
        "interpolation": stated.interpolation.value,
        "resampling": "pillow",  # which torchvision asks for photos, and which always antialiases
        "crop_offset": "round",
    }


def _architecture(name: str) -> str:
    architecture = name.partition(".")[0]
    known = torchvision_models.list_models(module=torchvision_models)
    if architecture in known:
        return architecture
    near = get_close_matches(architecture, known, n=3)
    hint = f", such as {', '.join(near)}" if near else ""
    raise ArgumentError(
        "architecture", f"wanted torchvision/ and the name of one of its classifiers{hint}, given {name!r}"
    )


def _outline(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    try:
        with torch.device("meta"):
            return create(name, arguments)
    except NotImplementedError:  # RegNets compute their widths as tensors
        return create(name, arguments)


def _published(name: str) -> Any:
    """Member of torchvision's enumeration of published weights that the name's tag says, or the default one."""
    architecture, _, tag = _architecture(name), *name.partition(".")[1:]
    weights = torchvision_models.get_model_weights(architecture)
    if not tag:
        return weights.DEFAULT
    if tag not in weights.__members__:
        known = ", ".join(f"{architecture}.{member.name}" for member in weights)
        raise ArgumentError("architecture", f"wanted a tag of published weights, one of {known}, given {name!r}")
    return weights[tag]


def _classifier(network: nn.Module) -> str:
    """Name of the layer that gives the scores: the last with as many outputs as published weights have classes."""
    layers = [name for name, module in network.named_modules() if _outputs(module) == PUBLISHED_CLASSES]
    return layers[-1] if layers else ""


def _outputs(module: nn.Module) -> int | None:
    if isinstance(module, nn.Linear):
        return module.out_features
    return module.out_channels if isinstance(module, nn.Conv2d) else None


def _image_size(state: Mapping[str, Tensor], outline: torchvision_models.VisionTransformer) -> dict[str, int]:
    """Argument that the number of position embeddings tells, of which one is the class token's."""
    positions = state.get("encoder.pos_embedding")
    side = 0 if positions is None or positions.ndim != 3 else math.isqrt(max(positions.shape[1] - 1, 0))
    if positions is None or not side or side**2 + 1 != positions.shape[1]:
        return {}
    return {"image_size": side * int(outline.patch_size)}
