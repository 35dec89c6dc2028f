"""LeGrad: what each layer's attention could add to the class that the head reads from the layer's tokens."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from imagexplain.attribution.class_activation_maps import shown
from imagexplain.attribution.network.attention_capture import AttentionWatch, attention_layers
from imagexplain.attribution.network.forward import isolated
from imagexplain.attribution.network.layers import main_tensor
from imagexplain.attribution.network.partial_forward import split_at
from imagexplain.attribution.network.token_blocks import TokenBlocks, token_blocks
from imagexplain.attribution.registry import register
from imagexplain.attribution.rollout import split_heads, to_row
from imagexplain.attribution.targets import Targets, check, classes_of, classes_to_explain, target_scores
from imagexplain.errors import ArgumentError

Reading = Literal["mean", "model"]


@register(
    family="attention",
    needs={"gradients", "module", "attention"},
    forward_passes=lambda work: 2,
    coarse=True,
)
@isolated
def legrad(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    layers: int = 0,
    reading: Reading = "mean",
    upsample: bool = True,
    chunk: int = 8,
) -> Tensor:
    """LeGrad: the mean over layers, heads and queries of (∂s/∂A)⁺, s the class's score by the layer's own tokens.

    s is what the model's head, with the norm before it, makes of the tokens after the layer, as if it were the last.
    Where attention with learned queries pools the tokens, as SigLIP's does, A is the attention of the pooling.

    Args:
        model: Transformer in ``eval()`` that turns (B, C, H, W) into scores (B, classes), whose blocks keep one row of
            tokens (ViT, DeiT, BEiT, DINOv2, EVA, SigLIP, torchvision's).
        images: Images (B, C, H, W) in model-input space.
        targets: Classes to explain: one for all images, one for each, or None for the predicted ones.
        layers: Number of layers, from the last one; 0 for all. The authors' code takes 2 where nothing is said.
        reading: Tokens that the head reads: "mean" gives it the mean of all tokens in the place of each, as the
            authors' code does; "model" the tokens as they are, of which it takes those that it always takes, and as
            attention that pools always has them.
        upsample: Size of the map: the images' (bilinear, ``align_corners=False``) if True, else the patches' grid.
        chunk: Largest number of images evaluated at once.

    Returns:
        (B, 1, H, W), or (B, 1, h, w) without upsampling, at least 0; not scaled to 0..1, as the authors do last.

    Raises:
        ValueError: a model without such blocks, a number of layers that it does not have, or what does not fit it.

    Source: Bousselham et al. 2025, ICCV, arXiv 2404.03214.

    Example:
        >>> import timm
        >>> from torch import rand
        >>> from imagexplain import legrad
        >>> network = timm.create_model("test_vit", num_classes=5)
        >>> maps = legrad(network, rand(1, 3, 160, 160), targets=3)
        >>> maps.shape, maps.min().item() >= 0
        (torch.Size([1, 1, 160, 160]), True)
    """
    check(images, chunk)
    if reading not in ("mean", "model"):
        raise ArgumentError("reading", f"wanted one of mean, model, got {reading!r}")
    if layers < 0:
        raise ArgumentError("layers", f"wanted at least 0, got {layers}")
    blocks = token_blocks(model, images)
    if layers > len(blocks.modules):
        raise ArgumentError("layers", f"wanted 0 to {len(blocks.modules)}, those of the model, got {layers}")
    given = None if targets is None else classes_to_explain(model, images, targets, chunk)
    maps = []
    for rows in torch.arange(len(images), device=images.device).split(chunk):
        own = None if given is None else given[rows]
        maps.append(blocks.maps(_sensitivity(model, images[rows], own, blocks, layers, reading)))
    return shown(torch.cat(maps), images, upsample)


def _sensitivity(
    model: nn.Module, images: Tensor, targets: Tensor | None, blocks: TokenBlocks, layers: int, reading: Reading
) -> Tensor:
    """Sensitivity (B, tokens) to what each token gives, the mean over the last layers."""
    chosen = blocks.modules[-layers:] if layers else blocks.modules
    outputs: list[Tensor] = []

    def end(_: nn.Module, __: object, output: object) -> None:
        found = main_tensor(output)
        assert found is not None
        outputs.append(found)

    with ExitStack() as stack:
        for module in chosen:
            stack.callback(module.register_forward_hook(end).remove)
        scores, found = attention_layers(model, images)
    classes = classes_of(scores, targets)
    after = split_at(model, images, blocks.modules[-1])
    pooling = found.pop() if found[-1].pools else None
    attention: list[Tensor] = []
    watch = nullcontext() if pooling is None else AttentionWatch(lambda output, _: attention.append(output))
    with torch.enable_grad(), watch:
        tokens = torch.cat([output.detach() for output in outputs]).requires_grad_()  # (layers · B, tokens, K)
        read = tokens.mean(1, keepdim=True).expand_as(tokens) if reading == "mean" and pooling is None else tokens
        by_layer = after.run(torch.arange(len(images), device=images.device).repeat(len(chosen)), read)
        score = target_scores(by_layer, classes.repeat(len(chosen))).sum()
        (flow,) = torch.autograd.grad(score, tokens if pooling is None else attention[-1])
    if pooling is not None:
        heads = flow.reshape(len(chosen), *pooling.shape)  # (layers, B, 1, heads, Q, T)
        return to_row(heads.relu().mean((0, 3, 4)), pooling)
    total = torch.zeros(len(images), blocks.tokens).to(tokens)
    for layer, output, gradient in zip(found[-len(chosen) :], outputs, flow.chunk(len(chosen)), strict=True):
        (own,) = torch.autograd.grad(output, layer.output, gradient, retain_graph=True)
        total += split_heads(layer, own).relu().mean((1, 2, 3))
    return total / len(chosen)
