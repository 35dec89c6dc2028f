"""FullGrad: the gradient times the input, and the gradients times the biases, which together make up the score."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagexplain.attribution.completeness import LARGEST_SHARE, missing_share
from imagexplain.attribution.network.constants import Constant, Constants
from imagexplain.attribution.network.forward import check_graph, class_scores, isolated
from imagexplain.attribution.network.tokens import fits, layout_of
from imagexplain.attribution.network.visibility import check_visible
from imagexplain.attribution.registry import Peer, register
from imagexplain.attribution.targets import Targets, check_images, target_scores
from imagexplain.errors import UnsupportedModelError

NOT_SUCH = (
    "wanted one whose scores are made of gradients times input and biases (ReLU networks with batch norms in eval)"
)


@dataclass(frozen=True)
class FullGradient:
    """Parts of each image's score.

    Attributes:
        score: Score y of each image, (B,).
        input: Part x ⊙ ∂y/∂x of the input, (B, C, H, W).
        biases: Part b ⊙ ∂y/∂(output) of each constant b that is added, in order: (B, K, h, w) where the output has
            places, else (B, n).
    """

    score: Tensor
    input: Tensor
    biases: list[Tensor]

    @property
    def residual(self) -> Tensor:
        """Residual y − Σ input − Σ biases, (B,): 0 if the network is linear between its kinks, but for rounding."""
        return self.score - sum(_totals([self.input, *self.biases]))

    @property
    def relative_residual(self) -> Tensor:
        """Residual's size (B,) relative to the sum of the parts' sizes, those of the layers, not of the places."""
        sizes = sum(total.abs() for total in _totals([self.input, *self.biases])) + self.score.abs()
        return self.residual.abs() / sizes.clamp_min(torch.finfo(sizes.dtype).tiny)


@isolated
def full_gradient(model: nn.Module, images: Tensor, targets: Targets = None) -> FullGradient:
    """Decompose each image's score into what its pixels and what the model's biases contribute.

    Biases are those of convolutions, linear layers and batch norms (in ``eval()`` the latter is β − μγ / √(σ² + ε)),
    constants that the model adds by itself, and the bounds of a ReLU6 where it is at one.

    Args:
        model: Module in ``eval()`` that turns (B, C, H, W) into scores (B, classes).
        images: Images (B, C, H, W).
        targets: Classes to explain: one for all images, one for each, or None for the predicted ones.

    Raises:
        ValueError: targets as :func:`imagexplain.attribution.targets.classes_of`; images that are not (B, C, H, W); a
            model that takes images apart, as windowed attention does, or does not depend on them.

    Source: Srinivas, Fleuret 2019, arXiv 1905.00780, proposition 1. Own, for Captum has no such method.
    """
    if not isinstance(model, nn.Module):
        raise UnsupportedModelError("model", f"wanted a module, whose layers have biases, got {type(model).__name__}")
    for need in ("module", "nonlinearities"):
        check_visible(model, need)
    check_images(images)
    inputs = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        with Constants() as constants:
            scores = class_scores(model, inputs)
        score = target_scores(scores, targets)
        check_graph(score.requires_grad)
        if any(constant.shape[:1] != images.shape[:1] for constant in constants.found):
            raise UnsupportedModelError("model", f"{NOT_SUCH}, got one with a layer whose rows are not the images'")
        outputs = [constant.edge for constant in constants.found]
        gradient, *gradients = torch.autograd.grad(score.sum(), [inputs, *outputs], allow_unused=True)
    parts = zip(constants.found, gradients, strict=True)
    return FullGradient(
        score=score.detach(),
        input=images.detach() * (0 if gradient is None else gradient),
        biases=[_placed(constant, g, images) for constant, g in parts if g is not None],
    )


@register(
    family="gradients",
    needs={"gradients", "module"},
    coarse=True,
    peer=Peer("pytorch-grad-cam", "FullGrad", "the peer adds 1e-7 to each channel's range"),
)
@isolated
def full_grad(model: nn.Module, images: Tensor, targets: Targets = None) -> Tensor:
    """FullGrad's map: Σ ψ(part) over the input's channels and those of every bias that has places.

    ψ takes the absolute value, scales it to 0..1 within its channel, and resizes it to the image (bilinear,
    ``align_corners=False``). Equation 8 has ψ for each channel; the authors' code scales all of a layer together.
    Biases of linear layers have no place in the image, unless these are applied to each place of maps whose channels
    are last.

    Args:
        model, images, targets: Arguments as for :func:`full_gradient`.

    Returns:
        (B, 1, H, W), at least 0.

    Raises:
        ValueError: as :func:`full_gradient`, or a model whose scores are not made of these parts, as in transformers
            and other networks with layer or group norms, smooth activations or gates: input and biases are not all
            that counts there.

    Source: arXiv 1905.00780, section 4.

    Example:
        >>> from torch import nn, rand
        >>> from imagexplain import full_grad
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
        >>> maps = full_grad(network, rand(2, 3, 8, 8), targets=[1, 4])
        >>> maps.shape, maps.min().item() >= 0
        (torch.Size([2, 1, 8, 8]), True)
    """
    parts = full_gradient(model, images, targets)
    missing = missing_share(parts.score, [parts.input, *parts.biases]).max().item()
    if not missing <= LARGEST_SHARE:
        raise UnsupportedModelError("model", f"{NOT_SUCH}, got one in which {missing:.2%} is something else")
    maps = [part for part in parts.biases if part.ndim == 4]
    return sum((_scaled_up(part, images) for part in maps), start=_scaled_up(parts.input, images))


def _placed(constant: Constant, gradient: Tensor, images: Tensor) -> Tensor:
    """Part of a constant in the score, (B, K, h, w) where its output has places, else (B, n)."""
    part, channels = constant.value * gradient, constant.channels
    if part.ndim == 4 and channels == -1 and not fits(part.shape[1], part.shape[2], images.shape):
        return part.flatten(1)
    if part.ndim == 4 and channels is None:
        try:
            channels = layout_of(part.shape, images.shape).channels
        except ValueError:
            return part.flatten(1)
    return part.movedim(channels, 1) if part.ndim == 4 and channels is not None else part.flatten(1)


def _totals(parts: list[Tensor]) -> list[Tensor]:
    return [part.flatten(1).sum(1) for part in parts]


def _scaled_up(part: Tensor, images: Tensor) -> Tensor:
    """Sum Σ_k ψ(part_k): (B, K, h, w) to (B, 1, H, W). Resizing is linear, so that the sum may come first."""
    sizes = part.abs()
    low, high = sizes.amin((2, 3), keepdim=True), sizes.amax((2, 3), keepdim=True)
    scaled = (sizes - low) / torch.where(high > low, high - low, 1.0)
    return F.interpolate(scaled.sum(1, keepdim=True), images.shape[-2:], mode="bilinear", align_corners=False)
