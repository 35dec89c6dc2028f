"""Product of the image and the gradient of a class's score."""

from __future__ import annotations

from torch import Tensor

from imagexplain.attribution.methods.gradient import gradient
from imagexplain.attribution.network.forward import isolated
from imagexplain.attribution.paths.path_integral import Forward
from imagexplain.attribution.registry import Peer, register
from imagexplain.attribution.targets import Targets


@register(family="gradients", needs={"gradients"}, speckled=True, peer=Peer("Captum", "InputXGradient"))
@isolated
def input_x_gradient(model: Forward, images: Tensor, targets: Targets = None, *, create_graph: bool = False) -> Tensor:
    """Input × gradient: the image times the gradient, signed; complete for a piecewise linear model without biases.

    Args:
        model, images, targets, create_graph: Arguments as for
            :func:`~imagexplain.attribution.methods.gradient.gradient`.

    Returns:
        (B, C, H, W), in units of the score.

    Raises:
        ValueError: as for :func:`~imagexplain.attribution.methods.gradient.gradient`.

    Source: Shrikumar et al. 2016, arXiv 1605.01713.

    Example:
        >>> from torch import allclose, nn, rand
        >>> from imagexplain import input_x_gradient
        >>> network = nn.Sequential(nn.Conv2d(3, 5, 8, bias=False), nn.ReLU(), nn.Flatten())
        >>> images = rand(2, 3, 8, 8)
        >>> allclose(input_x_gradient(network, images, 3).sum((1, 2, 3)), network(images)[:, 3], atol=1e-5)
        True
    """
    product = images * gradient(model, images, targets, create_graph=create_graph)
    return product if create_graph else product.detach()
