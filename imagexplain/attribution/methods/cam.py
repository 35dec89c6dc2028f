"""Class activation maps: a layer's channels, weighted by what they or their gradients say of one class.

All methods but Eigen-CAM share one forward and one backward pass, which gives the layer's output A (B, K, h, w) and the
gradient G = ∂y/∂A of the target's score; each is then one small function of A and G. Every map is ReLU'd and otherwise
as the formula gives it: not scaled.

Our own, for Captum has only Grad-CAM (without second derivatives or token layers), and pytorch_grad_cam scales every
map to 0..1 in NumPy.

All take the same arguments.

Args:
    model: a module in ``eval()``, (B, C, H, W) to scores (B, classes); left as it was.
    images: (B, C, H, W) in model-input space.
    targets: a class for all images, one for each, or None for the predicted ones.
    layer: its dotted name or the module itself; None for :func:`imagexplain.attribution.network.layers.default_layer`,
        whose search costs one further pass of one image. Outputs may be maps, channels-last maps or tokens.
    upsample: resize the map to the images' (bilinear, ``align_corners=False``) or leave it at the layer's size.
    create_graph: keep the map differentiable, by the images and by the parameters.

Returns:
    (B, 1, H, W), or (B, 1, h, w) without upsampling, at least 0.

Raises:
    ValueError: a layer that is not there, does not run once, has no places or does not matter to the scores; targets as
        :func:`imagexplain.attribution.targets.classes_of`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagexplain.attribution.network.forward import check_graph, isolated
from imagexplain.attribution.network.layers import Layer, chosen_layer, scores_and_activation
from imagexplain.attribution.network.tokens import stated_layout
from imagexplain.attribution.targets import Targets, classes_of, target_scores

Rule = Callable[[Tensor, Tensor], Tensor]
"""A and G, both (B, K, h, w), to a map (B, 1, h, w) before its ReLU."""


@isolated
def grad_cam(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    layer: Layer = None,
    upsample: bool = True,
    create_graph: bool = False,
) -> Tensor:
    """Grad-CAM: channels weighted by their mean gradient (Selvaraju et al. 2017, arXiv 1610.02391, eq. 1, 2)."""
    return _cam(_grad_cam, model, images, targets, layer, upsample, create_graph)


@isolated
def grad_cam_plusplus(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    layer: Layer = None,
    upsample: bool = True,
    create_graph: bool = False,
) -> Tensor:
    """Grad-CAM++ (Chattopadhay et al. 2018, arXiv 1710.11063, eq. 19).

    The paper's Y = exp(y) multiplies an image's whole map by exp(y), which is left out as in the authors' code.
    """
    return _cam(_grad_cam_plusplus, model, images, targets, layer, upsample, create_graph)


@isolated
def hires_cam(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    layer: Layer = None,
    upsample: bool = True,
    create_graph: bool = False,
) -> Tensor:
    """HiResCAM: Σ_k G_k ⊙ A_k (Draelos, Carin 2020, arXiv 2011.08891)."""
    return _cam(_hires_cam, model, images, targets, layer, upsample, create_graph)


@isolated
def xgrad_cam(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    layer: Layer = None,
    upsample: bool = True,
    create_graph: bool = False,
) -> Tensor:
    """XGrad-CAM: weights are gradients averaged over A_k's mass (Fu et al. 2020, arXiv 2008.02312).

    A channel that sums to 0 gets the weight 0.
    """
    return _cam(_xgrad_cam, model, images, targets, layer, upsample, create_graph)


@isolated
def layer_cam(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    layer: Layer = None,
    upsample: bool = True,
    create_graph: bool = False,
) -> Tensor:
    """LayerCAM: Σ_k relu(G_k) ⊙ A_k (Jiang et al. 2021, IEEE TIP 30)."""
    return _cam(_layer_cam, model, images, targets, layer, upsample, create_graph)


@isolated
def bag_cam(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    layer: Layer = None,
    upsample: bool = True,
    create_graph: bool = False,
) -> Tensor:
    """BagCAM: Σ_k relu(u_k · G_k ⊙ A_k) with u_k = mean(G_k ⊙ A_k + 1) (Zhu et al. 2022, arXiv 2207.07818).

    G is the score's own gradient, as in the other methods. The authors' code takes that of log y, with the backward
    pass of guided backpropagation. u_k is not homogeneous in G, so that their map is not a multiple of this one.
    """
    return _cam(_bag_cam, model, images, targets, layer, upsample, create_graph)


@isolated
def eigen_cam(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    layer: Layer = None,
    upsample: bool = True,
    create_graph: bool = False,
) -> Tensor:
    """Eigen-CAM: A's first principal component, the same for every class (Muhammad, Yeasin 2020, arXiv 2008.00299).

    Channels are centred first. Of the two signs the component gets that of the mean activation's part in it; where
    that is 0, as behind a plain layer norm, its largest value is positive. Targets are only checked.
    """
    module = chosen_layer(model, images, layer)
    with torch.set_grad_enabled(create_graph):
        scores, activation = scores_and_activation(model, images, module, create_graph=create_graph)
        classes_of(scores, targets)
        component = _first_component(stated_layout(model, module, activation.shape, images.shape).maps(activation))
        return shown(component, images, upsample, create_graph)


@isolated
def eigen_grad_cam(
    model: nn.Module,
    images: Tensor,
    targets: Targets = None,
    *,
    layer: Layer = None,
    upsample: bool = True,
    create_graph: bool = False,
) -> Tensor:
    """Eigen-Grad-CAM: the first principal component of G ⊙ A, its sign as in :func:`eigen_cam` (pytorch_grad_cam)."""
    return _cam(_eigen_grad_cam, model, images, targets, layer, upsample, create_graph)


def weighted(activation: Tensor, weights: Tensor) -> Tensor:
    """Σ_k w_k A_k: (B, K, h, w) and (B, K) to (B, 1, h, w)."""
    return torch.einsum("bk,bkhw->bhw", weights, activation).unsqueeze(1)


def shown(raw: Tensor, images: Tensor, upsample: bool, create_graph: bool = False) -> Tensor:
    """The map's positive part, at the images' size if that is wanted: (B, 1, h, w) to (B, 1, H, W)."""
    positive = raw.relu() if create_graph else raw.detach().relu()
    if not upsample:
        return positive
    return F.interpolate(positive, images.shape[-2:], mode="bilinear", align_corners=False)


def _cam(
    rule: Rule,
    model: nn.Module,
    images: Tensor,
    targets: Targets,
    layer: Layer,
    upsample: bool,
    create_graph: bool,
) -> Tensor:
    module = chosen_layer(model, images, layer)
    scores, activation = scores_and_activation(model, images, module, create_graph=create_graph)
    check_graph(scores.requires_grad)
    with torch.enable_grad():
        score = target_scores(scores, targets).sum()  # rows do not interact
        (gradient,) = torch.autograd.grad(score, activation, create_graph=create_graph)
    layout = stated_layout(model, module, activation.shape, images.shape)
    if layout.prefix and gradient.any() and not layout.maps(gradient).any():
        read = f"got one of which they read only the {layout.prefix} tokens before the patches"
        raise ValueError(f"layer: wanted one on whose places the scores depend, {read}")
    with torch.set_grad_enabled(create_graph):
        raw = rule(layout.maps(activation), layout.maps(gradient))
        return shown(raw, images, upsample, create_graph)


def _grad_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    return weighted(activation, gradient.mean((2, 3)))


def _grad_cam_plusplus(activation: Tensor, gradient: Tensor) -> Tensor:
    # g² / (2g² + ΣA · g³), reduced by g²: where g is small, its powers are no longer numbers. Only positive g count.
    share = _quotient(torch.ones_like(gradient), 2 + activation.sum((2, 3), keepdim=True) * gradient)
    return weighted(activation, (share * gradient.relu()).sum((2, 3)))


def _hires_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    return (gradient * activation).sum(1, keepdim=True)


def _xgrad_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    return weighted(activation, _quotient((gradient * activation).sum((2, 3)), activation.sum((2, 3))))


def _layer_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    return _hires_cam(activation, gradient.relu())


def _bag_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    product = gradient * activation
    return (product * (product + 1).mean((2, 3), keepdim=True)).relu().sum(1, keepdim=True)


def _eigen_grad_cam(activation: Tensor, gradient: Tensor) -> Tensor:
    return _first_component(gradient * activation)


def _first_component(maps: Tensor) -> Tensor:
    """The projection of each place on the first right singular vector of the (hw × K) matrix, centred by column.

    By eigenvectors of the smaller Gram matrix, in float64 to make up for the squares. For ResNet-18's last maps,
    singular values take seven times as long.
    """
    places = maps.flatten(2).transpose(1, 2)
    places = places - places.mean(1, keepdim=True)
    by_channel = maps.shape[1] < places.shape[1]
    thin = places.mT if by_channel else places  # (B, n, m) with n ≤ m
    exact = thin.detach().double()
    squares, left = (
        found.to(thin) for found in torch.linalg.eigh((exact @ exact.mT).nan_to_num())
    )  # in ascending order
    vector = left[..., -1]
    if thin.requires_grad:
        vector = vector + _vector_change(thin, left, squares)
    if not by_channel:  # from the left vector to the right one
        vector = F.normalize(torch.einsum("bn,bnm->bm", vector, thin), dim=1)
    component = torch.einsum("bpk,bk->bp", places, vector)
    agreement = (component * places.mean(2)).sum(1, keepdim=True)
    # Behind a layer norm the channels' mean is 0 but for rounding, which would draw the sign by lot.
    most = (component.abs() * places.abs().mean(2)).sum(1, keepdim=True)
    largest = component.gather(1, component.abs().argmax(1, keepdim=True))
    tells = agreement.abs() > torch.finfo(component.dtype).eps ** 0.5 * most
    positive = torch.where(tells, agreement, largest) >= 0
    return torch.where(positive, component, -component).unflatten(1, maps.shape[2:]).unsqueeze(1)


def _vector_change(thin: Tensor, left: Tensor, squares: Tensor) -> Tensor:
    """Zero, with the last eigenvector's derivative: dv = Σ_j u_j (u_jᵀ dC v) / (λ − λ_j), C = M Mᵀ.

    The derivative of torch's eigenvectors is that of all of them, and NaN as soon as any two eigenvalues are equal, as
    those of dead channels are; this one needs only the last to be single.
    """
    vector = left[..., -1:]
    gram = thin @ thin.mT
    change = left.mT @ ((gram - gram.detach()) @ vector)
    gaps = (squares[:, -1:] - squares).unsqueeze(2)
    return (left @ _quotient(change, gaps)).squeeze(2)


def _quotient(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient, and 0 where the denominator is 0; there its derivative is 0 too, not NaN."""
    zero = denominator == 0
    return torch.where(zero, 0.0, numerator / torch.where(zero, 1.0, denominator))
