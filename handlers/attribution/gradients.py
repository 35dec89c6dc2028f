"""The gradient of a class's score with respect to the image: the attribution that all others here are made from."""

from __future__ import annotations

import torch
from torch import Tensor

from handlers.attribution.path import Forward
from handlers.attribution.targets import Targets, check_images, target_scores


def gradient(model: Forward, images: Tensor, targets: Targets = None, *, create_graph: bool = False) -> Tensor:
    """Gradient of the target's score, signed: how the score answers to a small change of each value.

    Args:
        model: maps (B, C, H, W) to pre-softmax scores (B, classes), each row independent of the others.
        images: (B, C, H, W) in model-input space.
        targets: see :data:`~handlers.attribution.targets.Targets`.
        create_graph: keep the result differentiable, with respect to the model's parameters and to images that
            require a gradient, so that it can be part of a training loss.

    Returns:
        (B, C, H, W), in units of the score per unit of input.

    Raises:
        ValueError: images, scores or targets of the wrong shape, or a class that the model does not have.

    Source: Simonyan, Vedaldi, Zisserman 2013, arXiv 1312.6034, section 3, with its sign and for each channel.
    """
    return _at(model, _points(images, create_graph), targets, create_graph)


def input_x_gradient(model: Forward, images: Tensor, targets: Targets = None, *, create_graph: bool = False) -> Tensor:
    """Image times gradient, signed; complete for a piecewise linear model without biases.

    Args:
        model, images, targets, create_graph: as for :func:`gradient`.

    Returns:
        (B, C, H, W), in units of the score.

    Raises:
        ValueError: as for :func:`gradient`.

    Source: Shrikumar et al. 2016, arXiv 1605.01713.
    """
    points = _points(images, create_graph)
    product = points * _at(model, points, targets, create_graph)
    return product if create_graph else product.detach()


def _points(images: Tensor, create_graph: bool) -> Tensor:
    """What to differentiate by: the images themselves only where their own graph is to go on."""
    check_images(images)
    return images if create_graph and images.requires_grad else images.detach().requires_grad_()


def _at(model: Forward, points: Tensor, targets: Targets, create_graph: bool) -> Tensor:
    with torch.enable_grad():
        # Rows do not interact, so the gradient of the sum holds each row's own gradient.
        (gradients,) = torch.autograd.grad(
            target_scores(model(points), targets).sum(), points, create_graph=create_graph
        )
    return gradients
