"""Features of a classifier: those that its last layer scores, and a map of them over the image."""

from __future__ import annotations

from contextlib import ExitStack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagexplain.attribution.network.layers import default_layer, scores_and_activation
from imagexplain.attribution.network.tokens import stated_layout
from imagexplain.errors import UnsupportedModelError


@torch.no_grad()
def scores_and_features(network: nn.Module, images: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """Scores of images, and the penultimate features: the input of the layer that gives the scores.

    Args:
        network: Network in ``eval()`` from (N, 3, H, W) to scores (N, classes), the last of whose linear layers or
            convolutions gives the scores.
        images: Images (B, 3, H, W).
        chunk: Largest number of images evaluated at once.

    Returns:
        (B, classes) scores and (B, K) features; features that still have places are averaged over them.

    Raises:
        UnsupportedModelError: no such layer.
    """
    scores, features = [], []
    for rows in images.split(chunk):
        seen: list[tuple[nn.Module, Tensor]] = []

        def keep(module: nn.Module, given: tuple[Tensor, ...], seen: list[tuple[nn.Module, Tensor]] = seen) -> None:
            seen[:] = [(module, given[0])]

        with ExitStack() as stack:
            for module in network.modules():
                if isinstance(module, nn.Linear | nn.Conv2d):
                    stack.callback(module.register_forward_pre_hook(keep).remove)
            scores.append(network(rows))
        if not seen or _outputs(seen[0][0]) != scores[-1].shape[1]:
            raise UnsupportedModelError("model", "wanted a linear layer or a convolution that gives the scores")
        last, given = seen[0]
        if given.ndim > 2:  # (B, …, K) or (B, K, h, w)
            given = given.flatten(1, -2).mean(1) if isinstance(last, nn.Linear) else given.flatten(2).mean(2)
        features.append(given)
    return torch.cat(scores), torch.cat(features)


def feature_map(network: nn.Module, image: Tensor, layer: nn.Module | None = None) -> Tensor:
    """Features (K, h, w) of one image (3, H, W) at its places, of the layer that Grad-CAM looks at by default.

    Raises:
        LayerError: no layer of the network has places.
    """
    images = image.unsqueeze(0)
    chosen = default_layer(network, images) if layer is None else layer
    _, activation = scores_and_activation(network, images, chosen)
    return stated_layout(network, chosen, activation.shape, images.shape).maps(activation.detach())[0]


def pooled(features: Tensor, masks: Tensor) -> Tensor:
    """Means (G, K) of features (K, h, w) over masks (G, H, W) bool, each place by the part of it that a mask covers.

    A mask without pixels has zeros.
    """
    grid = (features.shape[1], features.shape[2])
    weights = F.adaptive_avg_pool2d(masks.to(features.dtype), grid).flatten(1)  # (G, h·w)
    sums = weights @ features.flatten(1).T
    return sums / weights.sum(1, keepdim=True).clamp_min(torch.finfo(features.dtype).tiny)


def _outputs(layer: nn.Module) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else int(getattr(layer, "out_channels", -1))
