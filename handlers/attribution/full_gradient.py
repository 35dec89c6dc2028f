"""FullGrad: the gradient times the input, and the gradients times the biases, which together make up the score."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from handlers.attribution.forward import check_graph, class_scores, isolated
from handlers.attribution.layers import output_replaced
from handlers.attribution.targets import Targets, check_images, target_scores

LARGEST_RESIDUAL = 1e-2
"""Of the score's parts: what float32 leaves in deep networks is far less, what a norm that divides leaves is more."""

NOT_SUCH = (
    "wanted one whose scores are made of gradients times input and biases (ReLU networks with batch norms in eval)"
)


@dataclass(frozen=True)
class FullGradient:
    """The parts of each image's score.

    Attributes:
        score: (B,) y.
        input: (B, C, H, W) x ⊙ ∂y/∂x.
        biases: for each run of a layer with a bias b, in order, b ⊙ ∂y/∂(output), shaped like the output: (B, K, h, w)
            or (B, …, K) for linear layers.
    """

    score: Tensor
    input: Tensor
    biases: list[Tensor]

    @property
    def residual(self) -> Tensor:
        """(B,) y − Σ input − Σ biases: 0 if the network is linear between its kinks, but for rounding."""
        return self.score - sum(_totals([self.input, *self.biases]))

    @property
    def relative_residual(self) -> Tensor:
        """(B,) |residual| beside the sum of the parts' sizes, those of the layers, not of the places."""
        sizes = sum(total.abs() for total in _totals([self.input, *self.biases])) + self.score.abs()
        return self.residual.abs() / sizes.clamp_min(torch.finfo(sizes.dtype).tiny)


@isolated
def full_gradient(model: nn.Module, images: Tensor, targets: Targets = None) -> FullGradient:
    """Decompose each image's score into what its pixels and what the model's biases contribute.

    Biases are those of convolutions, linear layers and batch norms; in ``eval()`` the latter is β − μγ / √(σ² + ε).

    Args:
        model: a module in ``eval()``, (B, C, H, W) to scores (B, classes).
        images: (B, C, H, W).
        targets: see :data:`handlers.attribution.targets.Targets`.

    Raises:
        ValueError: targets as :func:`handlers.attribution.targets.classes_of`; images that are not (B, C, H, W); a
            model that takes images apart, as windowed attention does.

    Source: Srinivas, Fleuret 2019, arXiv 1905.00780, proposition 1. Own, for Captum has no such method.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"model: wanted a module, whose layers have biases, got {type(model).__name__}")
    check_images(images)
    inputs = images.detach().clone().requires_grad_()
    biases: list[Tensor] = []
    outputs: list[Tensor] = []
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        for module in model.modules():
            if (bias := _bias(module)) is not None:

                def keep(output: Tensor, bias: Tensor = bias) -> Tensor:
                    if len(output) != len(images):
                        raise ValueError(f"model: {NOT_SUCH}, got one with a layer whose rows are not the images'")
                    biases.append(bias if output.ndim != 4 or bias.ndim != 1 else bias.view(-1, 1, 1))
                    outputs.append(output)
                    return output.clone()  # which the model may overwrite

                stack.enter_context(output_replaced(module, keep))
        score = target_scores(class_scores(model, inputs), targets)
        check_graph(score.requires_grad)
        gradient, *gradients = torch.autograd.grad(score.sum(), [inputs, *outputs], materialize_grads=True)
    return FullGradient(
        score=score.detach(),
        input=gradient * images.detach(),
        biases=[bias * g for bias, g in zip(biases, gradients, strict=True)],
    )


@isolated
def full_grad(model: nn.Module, images: Tensor, targets: Targets = None) -> Tensor:
    """FullGrad's map: Σ ψ(part) over the input's channels and those of every convolution and batch norm.

    ψ takes the absolute value, scales it to 0..1 within its channel, and resizes it to the image (bilinear,
    ``align_corners=False``). Equation 8 has ψ for each channel; the authors' code scales all of a layer together.
    Biases of linear layers have no place in the image.

    Args:
        model, images, targets: as for :func:`full_gradient`.

    Returns:
        (B, 1, H, W), at least 0.

    Raises:
        ValueError: as :func:`full_gradient`, or a model whose scores are not made of these parts, as in transformers
            and other networks with layer or group norms: input and biases are not all that counts there.

    Source: arXiv 1905.00780, section 4.
    """
    parts = full_gradient(model, images, targets)
    if (worst := parts.relative_residual.max().item()) > LARGEST_RESIDUAL:
        raise ValueError(f"model: {NOT_SUCH}, got one in which {worst:.0%} is something else")
    maps = [part for part in parts.biases if part.ndim == 4]
    return sum((_scaled_up(part, images) for part in maps), start=_scaled_up(parts.input, images))


def _bias(module: nn.Module) -> Tensor | None:
    """(K,) what the module adds to each place of a channel, if it adds anything."""
    if isinstance(module, _BatchNorm):
        if module.running_mean is None or module.running_var is None:
            return None
        scale = (module.running_var + module.eps).rsqrt()
        shift = -module.running_mean * scale
        if module.weight is not None:
            shift = shift * module.weight + module.bias
        return shift.detach()
    if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
        return module.bias.detach()
    return None


def _totals(parts: list[Tensor]) -> list[Tensor]:
    return [part.flatten(1).sum(1) for part in parts]


def _scaled_up(part: Tensor, images: Tensor) -> Tensor:
    """Σ_k ψ(part_k): (B, K, h, w) to (B, 1, H, W). Resizing is linear, so that the sum may come first."""
    sizes = part.abs()
    low, high = sizes.amin((2, 3), keepdim=True), sizes.amax((2, 3), keepdim=True)
    scaled = (sizes - low) / torch.where(high > low, high - low, 1.0)
    return F.interpolate(scaled.sum(1, keepdim=True), images.shape[-2:], mode="bilinear", align_corners=False)
