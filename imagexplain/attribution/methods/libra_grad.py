"""LibraGrad: input × gradient and biases × gradient at the tokens of every block, by gradients that add up."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from imagexplain.attribution.completeness import LARGEST_SHARE, missing_share
from imagexplain.attribution.network.backward_rules import BackwardRules
from imagexplain.attribution.network.constants import Constants
from imagexplain.attribution.network.forward import class_scores, isolated
from imagexplain.attribution.network.token_blocks import TokenBlocks, token_blocks
from imagexplain.attribution.network.visibility import check_visible
from imagexplain.attribution.registry import register
from imagexplain.attribution.targets import Targets, check, classes_of, classes_to_explain, target_scores
from imagexplain.errors import UnsupportedModelError


@register(
    family="attention",
    needs={"gradients", "module", "attention", "nonlinearities"},
    forward_passes=lambda work: 1,
    gradient_passes=lambda work: 1,
)
@isolated
def libra_grad(
    model: nn.Module, images: Tensor, targets: Targets = None, *, upsample: bool = True, chunk: int = 8
) -> Tensor:
    """Libra-FullGrad+: the mean over blocks of Σ x ⊙ ∇x and Σ b ⊙ ∇b at each token, by balanced gradients.

    LibraGrad is no map but a change of what gradients come back: norms hold their divisor, activations their ratio of
    output to input, attention its weights, and products halve
    (:mod:`imagexplain.attribution.network.backward_rules`). Then the input of any block and the biases from there on
    make up the score, in each of these terms, so that their mean over blocks does, too. Of the methods that the authors
    put on these gradients this is the one that they found best.

    Args:
        model: Transformer in ``eval()`` that turns (B, C, H, W) into scores (B, classes), whose blocks keep one row of
            tokens (ViT, DeiT, BEiT, DINOv2, EVA, torchvision's).
        images: Images (B, C, H, W) in model-input space.
        targets: Classes to explain: one for all images, one for each, or None for the predicted ones.
        upsample: Size of the map: the images' (bilinear, ``align_corners=False``) if True, else the patches' grid.
        chunk: Largest number of images evaluated at once.

    Returns:
        (B, 1, H, W), or (B, 1, h, w) without upsampling, signed, in units of the score. At the grid it sums to the
        score less what lies at prefix tokens and behind them, such as the head's bias.

    Raises:
        ValueError: a model without such blocks, with functions that have no rule, or whose parts do not make up the
            score; or what does not fit the model.

    Source: Mehri, Soleymani Baghshah, Pilehvar 2025, arXiv 2411.16760; FullGrad+ sums over blocks there.

    Example:
        >>> import timm
        >>> from torch import rand
        >>> from imagexplain import libra_grad
        >>> network = timm.create_model("test_vit", num_classes=5)
        >>> libra_grad(network, rand(1, 3, 160, 160), targets=3).shape
        torch.Size([1, 1, 160, 160])
    """
    check(images, chunk)
    blocks = token_blocks(model, images)
    check_visible(model, "nonlinearities")
    given = None if targets is None else classes_to_explain(model, images, targets, chunk)
    maps = []
    for rows in torch.arange(len(images), device=images.device).split(chunk):
        maps.append(blocks.maps(_token_parts(model, images[rows], None if given is None else given[rows], blocks)))
    grids = torch.cat(maps)
    return F.interpolate(grids, images.shape[-2:], mode="bilinear", align_corners=False) if upsample else grids


def _token_parts(model: nn.Module, images: Tensor, targets: Tensor | None, blocks: TokenBlocks) -> Tensor:
    """Parts (B, tokens) of each image's score.

    Raises:
        UnsupportedModelError: parts that do not make up the score.
    """
    begun: list[tuple[Tensor, int]] = []  # input of each block, and the number of constants before it
    constants = Constants()

    def begin(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        begun.append((inputs[0], len(constants.found)))

    with ExitStack() as stack:
        for module in blocks.modules:
            stack.callback(module.register_forward_pre_hook(begin).remove)
        stack.enter_context(torch.enable_grad())
        stack.enter_context(constants)
        stack.enter_context(BackwardRules(hold_attention=True))
        scores = class_scores(model, images.detach().clone().requires_grad_())
        score = target_scores(scores, classes_of(scores, targets))
        total_score = score.sum()
    starts = [count for _, count in begun]
    found = constants.found[starts[0] :]
    tensors = [tensor for tensor, _ in begun]
    edges = [*map(get_gradient_edge, tensors), *(one.edge for one in found)]
    gradients: tuple[Tensor | None, ...] = torch.autograd.grad(total_score, edges, allow_unused=True)
    products = [x.detach() * own for x, own in zip(tensors, gradients, strict=False) if own is not None]
    total = torch.stack([product.sum(-1) for product in products]).sum(0)
    others = []
    for number, (constant, gradient) in enumerate(zip(found, gradients[len(tensors) :], strict=True), starts[0]):
        if gradient is None:
            continue
        part = constant.value * gradient
        others.append(part)
        if part.ndim > 2 and part.shape[1] == blocks.tokens:
            total = total + sum(start <= number for start in starts) * part.flatten(2).sum(2)
    missing = missing_share(score.detach(), [products[0], *others]).max().item()
    if not missing <= LARGEST_SHARE:
        raise UnsupportedModelError(
            "model", f"wanted one whose blocks' inputs and biases make up the score, got one that misses {missing:.2%}"
        )
    return total / len(tensors)
