"""Classifiers of timm (PyTorch Image Models), any by its name there: timm has the code, the checkpoint is the user's.

Nothing is downloaded. What the shapes of a checkpoint do not tell, such as the number of heads, the name and its
arguments do.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import timm
import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from imagexplain.errors import ArgumentError
from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.checkpoints.efficientnet_keys import from_efficientnet_pytorch, is_efficientnet_pytorch
from imagexplain.models.checkpoints.vit_keys import check_classifier, pooling_arguments, resized_positions


def create(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Create an untrained network, on the default device.

    Args:
        name: Name as ``timm.list_models()`` has it, with or without the tag of pretrained weights (``.a1_in1k``).
        arguments: Arguments of ``timm.create_model`` and of the architecture (``num_classes``, ``img_size``, …).

    Raises:
        ArgumentError: timm has no such architecture, or it does not take such arguments.
    """
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        near = get_close_matches(architecture, timm.list_models(), n=3)
        hint = f", such as {', '.join(near)}" if near else ""
        raise ArgumentError("architecture", f"wanted timm/ and the name of one of its models{hint}, given {name!r}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    try:
        network: nn.Module = timm.create_model(name, pretrained=False, **values)
    except (TypeError, RuntimeError, AssertionError, ValueError) as error:
        raise ArgumentError("arguments", f"{name} does not take {dict(arguments)}: {error}") from error
    return network


def build(name: str, state: Mapping[str, Tensor], arguments: Mapping[str, Any]) -> nn.Module:
    """Build the network of a checkpoint, in ``eval()``: images (B, 3, H, W) to logits (B, classes).

    Args:
        name: Name as for :func:`create`.
        state: Tensors of the checkpoint as timm or MAE's fine-tuning writes them, as timm publishes them, or as
            EfficientNet-PyTorch does. Its classifier says how many classes, and the last norm of a ViT its pooling.
        arguments: Arguments as for :func:`create`; ``num_classes`` need not be among them, nor ``global_pool`` of a
            ViT.

    Raises:
        ArgumentError: as for :func:`create`.
        NoClassifierError: the network is there, but for its classifier.
        CheckpointError: listing every missing, unexpected and wrongly shaped tensor.
    """
    with torch.device("meta"):
        outline = create(name, arguments)
        if told := pooling_arguments(state, outline):
            arguments = told | dict(arguments)
            outline = create(name, arguments)
    classifier = _classifier(outline)
    check_classifier(state, outline, classifier)
    state = _translated(state, outline)
    if (head := f"{classifier}.weight") in state:
        arguments = {"num_classes": len(state[head])} | dict(arguments)
    # Not on meta: some networks compute buffers that no checkpoint holds.
    return checkpoint.fill(create(name, arguments), state)


def preprocess(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Preprocessing of photos by timm's own account: the fields of a spec's ``preprocess``.

    Raises:
        ArgumentError: as for :func:`create`.
    """
    size = arguments.get("img_size")
    given = {} if size is None else {"input_size": (3, size, size) if isinstance(size, int) else (3, *size)}
    with torch.device("meta"):
        return fields_of(resolve_model_data_config(create(name, arguments), given))


def fields_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a spec's ``preprocess`` for a data configuration of timm's, ``resolve_data_config``."""
    return {
        "size": tuple(config["input_size"][1:]),
        "mean": tuple(config["mean"]),
        "std": tuple(config["std"]),
        "interpolation": config["interpolation"],
        **_way_to_size(config),
    }


def _way_to_size(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a preprocessing that say how timm brings a photo to its size, by ``transforms_imagenet_eval``."""
    size, fraction = config["input_size"][1:], config["crop_pct"]
    match config["crop_mode"]:
        case "squash" if fraction < 1:
            return {"fit": "crop", "resize": tuple(math.floor(side / fraction) for side in size)}
        case "squash":
            return {"fit": "stretch", "crop_fraction": fraction}
        case "border":
            filled = tuple(float(round(255 * value)) for value in config["mean"])
            return {"fit": "pad", "crop_fraction": fraction, "resize_rounding": "round", "pad_value": filled}
    # Of a square, timm takes torchvision's resize.
    rounding = {} if size[0] == size[1] else {"resize_rounding": "round"}
    return {"fit": "crop", "crop_fraction": fraction, **rounding}


def _translated(state: Mapping[str, Tensor], outline: nn.Module) -> Mapping[str, Tensor]:
    """Tensors by timm's names: published files may have those of their authors, which timm translates as it loads."""
    if is_efficientnet_pytorch(state):
        return from_efficientnet_pytorch(state, outline.state_dict())
    translate = getattr(sys.modules[type(outline).__module__], "checkpoint_filter_fn", None)
    if translate is None:
        return state
    # Not by timm, which antialiases, and takes some grids for another one.
    positions = resized_positions(state, outline)
    rest = {key: tensor for key, tensor in state.items() if key not in positions}
    return {**translate(rest, outline), **positions}


def _classifier(network: nn.Module) -> str:
    """Name of the layer that gives the scores, of the first if there are several."""
    get = getattr(network, "get_classifier", None)
    layers = get() if callable(get) else None
    layer = layers[0] if isinstance(layers, tuple | list) else layers
    return next((name for name, module in network.named_modules() if module is layer), "")
