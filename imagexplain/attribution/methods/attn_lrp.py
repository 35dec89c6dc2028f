"""AttnLRP: layer-wise relevance propagation through transformers, as the image times a gradient by other rules."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from imagexplain.attribution.network.attention_capture import attention_layers
from imagexplain.attribution.network.backward_rules import BackwardRules
from imagexplain.attribution.network.forward import class_scores, isolated
from imagexplain.attribution.network.visibility import check_visible
from imagexplain.attribution.registry import register
from imagexplain.attribution.targets import Targets, check, classes_of, classes_to_explain, target_scores
from imagexplain.errors import ArgumentError

MAX_GAMMA = 1e6
"""Largest strength γ, at which only what has the output's sign counts."""


@register(
    family="attention",
    needs={"gradients", "module", "attention", "nonlinearities"},
    gradient_passes=lambda work: 4,
    speckled=True,
)
@isolated
def attn_lrp(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    gamma: float = 0.05,
    conv_gamma: float = 0.25,
    through_softmax: bool = False,
    chunk: int = 8,
) -> Tensor:
    """AttnLRP: relevance of each value of the image, by LRP rules for attention, norms, activations and products.

    The rules are those of :mod:`imagexplain.attribution.network.backward_rules`: norms hold their divisor, activations
    their ratio of output to input, products halve; linear layers and convolutions follow the γ rule. Biases take their
    part, so that a map does not add up to the score.

    Args:
        model: Transformer in ``eval()`` that turns (B, C, H, W) into scores (B, classes), made of functions that have a
            rule, in windows or not.
        images: Images (B, C, H, W) in model-input space.
        targets: Classes to explain: one for all images, one for each, or None for the predicted ones.
        gamma: Strength γ of the rule of linear layers, 0 for the ε rule with ε to 0. By default γ is the middle of the
            values that the authors try for vision transformers, as is the next.
        conv_gamma: Strength γ of the rule of convolutions.
        through_softmax: Relevance for queries and keys too, as in the paper; the authors' code for vision transformers
            gives all to the values (CP-LRP), for there the softmax makes the maps noisy.
        chunk: Largest number of images evaluated at once.

    Returns:
        (B, C, H, W), signed.

    Raises:
        ValueError: as for :func:`~imagexplain.attribution.methods.attention_rollout.attention_rollout`, a model with
            functions that have no rule, or a γ out of its bounds.

    Source: Achtibat et al. 2024, arXiv 2402.05602, section 3.3; as gradients: Arras et al. 2025, arXiv 2502.15886.

    Example:
        >>> import timm
        >>> from torch import rand
        >>> from imagexplain import attn_lrp
        >>> network = timm.create_model("test_vit", num_classes=5)
        >>> attn_lrp(network, rand(1, 3, 160, 160), targets=3).shape
        torch.Size([1, 3, 160, 160])
    """
    check(images, chunk)
    for name, value in (("gamma", gamma), ("conv_gamma", conv_gamma)):
        if not 0 <= value <= MAX_GAMMA:
            raise ArgumentError(name, f"wanted a number from 0 to {MAX_GAMMA:g}, got {value}")
    attention_layers(model, images[:1])  # of a kind that is known
    check_visible(model, "nonlinearities")
    given = None if targets is None else classes_to_explain(model, images, targets, chunk)
    maps = []
    for rows in torch.arange(len(images), device=images.device).split(chunk):
        inputs = images[rows].detach().clone().requires_grad_()
        rules = BackwardRules(hold_attention=not through_softmax, gamma=gamma, conv_gamma=conv_gamma)
        with torch.enable_grad(), rules:
            scores = class_scores(model, inputs)
        with torch.enable_grad():
            score = target_scores(scores, classes_of(scores, None if given is None else given[rows])).sum()
        (gradient,) = torch.autograd.grad(score, inputs)
        maps.append(inputs.detach() * gradient)
    return torch.cat(maps)
