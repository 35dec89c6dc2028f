"""Networks with which a fine-tuning begins: from nothing, from a classifier, or from MAE's pretraining.

A pretraining file has no classifier and may have a decoder; with average pooling its last norm is not used, and a new
one begins as the identity. The new classifier's weights are next to nothing, so that at first all classes are equally
likely.

Source: ``main_finetune.py`` of https://github.com/facebookresearch/mae.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timm.layers import trunc_normal_
from timm.models import VisionTransformer
from torch import Tensor, nn

from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.checkpoints.checkpoint import CheckpointError
from imagexplain.models.checkpoints.position_embeddings import resize_position_embedding
from imagexplain.models.classifiers import timm_network

CLASSIFIER_STD = 2e-5
DECODER = ("decoder_", "mask_token")
"""Prefixes of what MAE's pretraining has beside the encoder."""
POSITIONS = "pos_embed"


@dataclass(frozen=True)
class Start:
    """A network to fine-tune.

    Attributes:
        network: The network, on the CPU.
        new: Names of the parameters that the weights file does not have, initialised anew.
        unused: Names of the file's tensors that the network has no place for.
    """

    network: nn.Module
    new: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def starting_network(
    name: str, arguments: Mapping[str, Any], classes: int, weights: Path | None = None, drop_path: float = 0.0
) -> Start:
    """Create a network of timm with as many classes, and give it the weights of a file.

    Args:
        name: Name of the model in timm.
        arguments: Arguments of ``timm.create_model`` and of the architecture.
        classes: Number of classes.
        weights: Checkpoint to begin with: of a classifier, whose head is kept if it has as many classes, or of MAE's
            pretraining. None to begin with random weights.
        drop_path: Rate of stochastic depth in the last block; it rises linearly from 0 in the first.

    Raises:
        ArgumentError: timm has no such model, or it does not take the arguments.
        CheckpointError: the file fits another network; lists what is missing, unexpected and wrongly shaped.
        FileNotFoundError: there is no such file.
    """
    depth = {"drop_path_rate": drop_path} if drop_path else {}
    network = timm_network.create(name, {**arguments, **depth, "num_classes": classes})
    return Start(network) if weights is None else begin_with(network, checkpoint.read(weights))


def begin_with(network: nn.Module, state: Mapping[str, Tensor]) -> Start:
    """Give a network the tensors of a checkpoint, and a new classifier where that has none for its classes.

    Args:
        network: Network with all classes, on the CPU; it is changed.
        state: Tensors of the checkpoint.

    Raises:
        CheckpointError: other tensors than those of a classifier or of MAE's pretraining are missing or not used.
    """
    own = network.state_dict()
    head = _classifier(network)
    given = {key: tensor for key, tensor in state.items() if not key.startswith(DECODER)}
    given = _translated(given, network)
    of_head = {key for key in own if key.startswith(f"{head}.")}
    if any(key not in given or given[key].shape != own[key].shape for key in of_head):
        given = {key: tensor for key, tensor in given.items() if not key.startswith(f"{head}.")}
        of_norm = {key for key in own if key.startswith("fc_norm.") and key not in given}
        spare = {key for key in given if key.startswith("norm.") and key not in own} if of_norm else set()
    else:
        of_head, of_norm, spare = set(), set(), set()
    new = of_head | of_norm
    new |= {key for key in own if key.endswith(checkpoint.COUNTER) and key not in given}
    missing = [key for key in own if key not in given and key not in new]
    unexpected = [key for key in given if key not in own and key not in spare]
    misshapen = [
        (key, tuple(own[key].shape), tuple(tensor.shape))
        for key, tensor in given.items()
        if key in own and own[key].shape != tensor.shape
    ]
    if missing or unexpected or misshapen:
        wanted = "the checkpoint does not fit the network, apart from its classifier"
        raise CheckpointError(wanted, missing, unexpected, misshapen)
    network.load_state_dict({key: given.get(key, tensor) for key, tensor in own.items()})
    for key, tensor in network.named_parameters():
        if key in of_head:
            if tensor.ndim > 1:
                trunc_normal_(tensor, std=CLASSIFIER_STD)
            else:
                nn.init.zeros_(tensor)
    parameters = {key for key, _ in network.named_parameters()}
    unused = sorted(key for key in state if key not in given or key in spare)
    return Start(network, tuple(key for key in own if key in new & parameters), tuple(unused))


def _translated(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Tensors under timm's names, with position embeddings for the network's grid.

    These are resized here, as MAE does, and kept from timm, which would antialias.
    """
    translate = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    positions = {}
    if POSITIONS in state and isinstance(network, VisionTransformer):
        prefix = 0 if network.no_embed_class else network.num_prefix_tokens
        rows, columns = network.patch_embed.grid_size
        positions = {POSITIONS: resize_position_embedding(state[POSITIONS], (rows, columns), prefix)}
    rest = {key: tensor for key, tensor in state.items() if key not in positions}
    return {**(translate(rest, network) if translate else rest), **positions}


def _classifier(network: nn.Module) -> str:
    """Name of the layer that gives the scores."""
    layer = network.get_classifier()  # type: ignore[operator]
    return next(name for name, module in network.named_modules() if module is layer)
