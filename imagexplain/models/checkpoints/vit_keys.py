"""Checkpoints of ViTs, as MAE's fine-tuning and timm write them: facts that their names tell, and their positions.

The names are those of timm's ``VisionTransformer``, which MAE's networks extend. The last norm is ``norm.*`` where the
class token is the feature, and ``fc_norm.*`` where the average of the patches is.

Provenance: names are facts of https://github.com/facebookresearch/mae and of timm (Apache-2.0); no code of MAE's is
here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isqrt
from typing import Any

from timm.models import VisionTransformer
from torch import Tensor, nn

from imagexplain.models.checkpoints.position_embeddings import resize_position_embedding
from imagexplain.models.checkpoints.state_dict import CheckpointError

POSITIONS = "pos_embed"
POOLINGS = {"norm.weight": "token", "fc_norm.weight": "avg"}
"""Names of the last norm's weight, and the pooling of a network that has this one alone."""


class NoClassifierError(CheckpointError):
    """A checkpoint of a pretrained network, which names no classes yet."""


def pooling_arguments(names: Iterable[str], network: nn.Module) -> dict[str, Any]:
    """The argument of timm's for the pooling that a checkpoint's names tell, where it is not the network's.

    Args:
        names: Names of the checkpoint's tensors.
        network: Network by the name that the user gave, on any device.

    Example:
        >>> import timm
        >>> from imagexplain.models.checkpoints.vit_keys import pooling_arguments
        >>> network = timm.create_model("vit_tiny_patch16_224", depth=1)
        >>> pooling_arguments(["pos_embed", "fc_norm.weight", "head.weight"], network)
        {'global_pool': 'avg'}
    """
    if not isinstance(network, VisionTransformer):
        return {}
    given, own = POOLINGS.keys() & set(names), POOLINGS.keys() & network.state_dict().keys()
    return {"global_pool": POOLINGS[given.pop()]} if len(given) == len(own) == 1 and given != own else {}


def resized_positions(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Position embeddings of a ViT's checkpoint for the network's grid, resized as MAE does, under their name.

    There are none where they are of no square grid, or of a file that timm translates in a way of its own.
    """
    if not isinstance(network, VisionTransformer) or POSITIONS not in state or "mask_token" in state:
        return {}
    prefix = 0 if network.no_embed_class else network.num_prefix_tokens
    patches = state[POSITIONS].shape[1] - prefix if state[POSITIONS].ndim == 3 else 0
    if patches < 1 or isqrt(patches) ** 2 != patches:
        return {}
    rows, columns = network.patch_embed.grid_size
    return {POSITIONS: resize_position_embedding(state[POSITIONS], (rows, columns), prefix)}


def check_classifier(names: Iterable[str], network: nn.Module, classifier: str) -> None:
    """Refuse a checkpoint that has all of a network but its classifier, as pretraining leaves it.

    Args:
        names: Names of the checkpoint's tensors.
        network: Network with a classifier, on any device.
        classifier: Name of the classifier's layer.

    Raises:
        NoClassifierError: says what to do.
    """
    missing = network.state_dict().keys() - set(names)
    of_classifier = {name for name in network.state_dict() if name.startswith(f"{classifier}.")}
    if of_classifier and of_classifier <= missing <= of_classifier | {"fc_norm.weight", "fc_norm.bias"}:
        raise NoClassifierError(
            "the checkpoint is of a pretrained network without a classifier "
            f"(wanted {', '.join(sorted(of_classifier))}), which names no classes yet: fine-tune it on labelled photos "
            "by `imagexplain finetune`, and serve the checkpoint that this writes"
        )
