"""Gradient of a class's score with respect to the image: the attribution that all others here are made from."""

from __future__ import annotations

from torch import Tensor

from imagexplain.attribution.network.forward import isolated
from imagexplain.attribution.paths.path_integral import Forward, score_gradients
from imagexplain.attribution.registry import Peer, register
from imagexplain.attribution.targets import Targets, check_images


@register(family="gradients", needs={"gradients"}, speckled=True, sensitivity=True, peer=Peer("Captum", "Saliency"))
@isolated
def gradient(model: Forward, images: Tensor, targets: Targets = None, *, create_graph: bool = False) -> Tensor:
    """Gradient of the target's score, signed: the change of the score with a small change of each value.

    Args:
        model: Module or function from (B, C, H, W) to pre-softmax scores (B, classes), each row independent of the
            others.
        images: Images (B, C, H, W) in model-input space.
        targets: Classes to explain: one for all images, one for each, or None for the predicted ones.
        create_graph: Result stays differentiable, with respect to the model's parameters and to images that require a
            gradient, so that it can be part of a training loss.

    Returns:
        (B, C, H, W), in units of the score per unit of input.

    Raises:
        ValueError: images, scores or targets of the wrong shape, or a class that the model does not have.

    Source: Simonyan, Vedaldi, Zisserman 2013, arXiv 1312.6034, section 3, with its sign and for each channel.

    Example:
        >>> from torch import nn, rand
        >>> from imagexplain import gradient
        >>> linear = nn.Linear(192, 5)
        >>> maps = gradient(nn.Sequential(nn.Flatten(), linear), rand(2, 3, 8, 8), targets=[1, 4])
        >>> maps.flatten(1).equal(linear.weight[[1, 4]])
        True
    """
    check_images(images)
    return score_gradients(model, images, targets, create_graph=create_graph)[1]
