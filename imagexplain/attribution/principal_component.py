"""The first principal component of maps, and its derivative."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from imagexplain.attribution.quotients import quotient


def first_component(maps: Tensor) -> Tensor:
    """Projection of each place on the first right singular vector of the (hw × K) matrix, centred by column.

    It is computed from eigenvectors of the smaller Gram matrix, in float64 to make up for the squares. For ResNet-18's
    last maps, singular values take seven times as long.
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
    component = _with_sign(torch.einsum("bpk,bk->bp", places, vector), places)
    return component.unflatten(1, maps.shape[2:]).unsqueeze(1)


def first_kernel_component(maps: Tensor, kernel: Literal["sigmoid", "rbf", "linear"], scale: float) -> Tensor:
    """First component (B, 1, h, w) by kernel PCA of the places of maps (B, K, h, w), centred by channel.

    It is √λ₁ v₁ of the matrix of kernels between all places, centred by row and column, in float64; 0 where that matrix
    has no eigenvalue above what rounding leaves of equal places.

    Args:
        maps: Maps, not differentiated.
        kernel: Kernel of two places a and b: tanh(γ a·b + 1), exp(−γ ‖a − b‖²) or a·b.
        scale: Factor γ.
    """
    places = maps.detach().flatten(2).transpose(1, 2).double()
    finite = places.isfinite().flatten(1).all(1, keepdim=True)
    places = places.nan_to_num()
    size = places.square().sum(2).amax(1)  # (B,)
    places = places - places.mean(1, keepdim=True)
    gram = places @ places.mT
    if kernel == "sigmoid":
        gram = torch.tanh(scale * gram + 1)
    elif kernel == "rbf":
        squares = gram.diagonal(dim1=1, dim2=2)
        gram = torch.exp(-scale * (squares.unsqueeze(1) + squares.unsqueeze(2) - 2 * gram).clamp(min=0))
    if kernel != "linear":
        size = gram.abs().amax((1, 2))
    gram = gram - gram.mean(1, keepdim=True)
    gram = gram - gram.mean(2, keepdim=True)
    values, vectors = torch.linalg.eigh(gram)  # in ascending order
    told = values[:, -1:] > torch.finfo(gram.dtype).eps * len(gram[0]) * size.unsqueeze(1)
    component = torch.where(told, values[:, -1:].clamp(min=0).sqrt() * vectors[..., -1], 0.0).where(finite, torch.nan)
    return _with_sign(component.to(maps), places.to(maps)).unflatten(1, maps.shape[2:]).unsqueeze(1)


def _with_sign(component: Tensor, places: Tensor) -> Tensor:
    """Component (B, n) with the sign of its agreement with the places' (B, n, K) mean, or else of its largest value."""
    agreement = (component * places.mean(2)).sum(1, keepdim=True)
    # Behind a layer norm the channels' mean is 0 but for rounding, which would draw the sign by lot.
    most = (component.abs() * places.abs().mean(2)).sum(1, keepdim=True)
    largest = component.gather(1, component.abs().argmax(1, keepdim=True))
    tells = agreement.abs() > torch.finfo(component.dtype).eps ** 0.5 * most
    positive = torch.where(tells, agreement, largest) >= 0
    return torch.where(positive, component, -component)


def _vector_change(thin: Tensor, left: Tensor, squares: Tensor) -> Tensor:
    """Zero, with the last eigenvector's derivative: dv = Σ_j u_j (u_jᵀ dC v) / (λ − λ_j), C = M Mᵀ.

    The derivative of torch's eigenvectors is that of all of them, and NaN as soon as any two eigenvalues are equal, as
    those of dead channels are; this one needs only the last to be single.
    """
    vector = left[..., -1:]
    gram = thin @ thin.mT
    change = left.mT @ ((gram - gram.detach()) @ vector)
    gaps = (squares[:, -1:] - squares).unsqueeze(2)
    return (left @ quotient(change, gaps)).squeeze(2)
