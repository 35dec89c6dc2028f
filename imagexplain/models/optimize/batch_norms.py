"""Folding of the batch norms of any network, as it runs: where one follows a convolution, it goes into the filters.

What follows what is not read off the code but seen in a forward pass: a norm whose input is the output of a
convolution, both of which run once. That nothing else takes that output is then checked by the scores, in float64.
"""

from __future__ import annotations

import copy
import sys
from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from imagexplain.models.optimize.folding import affine

MAX_DIFFERENCE = 1e-9
"""Largest difference of the folded scores, relative to the largest score, in float64: far above rounding, far below the
effect of a norm that was folded although something else takes its input."""


def fold_batch_norms(network: nn.Module, example: Tensor) -> nn.Module:
    """Fold batch norms into the convolutions that they follow: same scores, same gradients for the input.

    Args:
        network: Network in ``eval()`` from (N, C, H, W) to scores; it is left as it is.
        example: Input (1, C, H, W) on which the network is tried, of a photo: on zeros nothing can be seen.

    Returns:
        A frozen copy, its layers under their own names; without a change where nothing can be folded.
    """
    # Rounded once, from float64.
    double = copy.deepcopy(network).double().eval().requires_grad_(False)
    image = example.double()
    with torch.no_grad():
        wanted = double(image)
        pairs = list(_pairs(double, image))
        for convolution, norm in pairs:
            _fold(double, convolution, norm)
        if not pairs or not _is_close(double(image), wanted):
            return copy.deepcopy(network).eval().requires_grad_(False)
    return _rounded(double, network)


def _rounded(double: nn.Module, network: nn.Module) -> nn.Module:
    """The folded network in the dtypes of the original."""
    kinds = {name: tensor.dtype for name, tensor in (*network.named_parameters(), *network.named_buffers())}
    usual = next(iter(kinds.values()), torch.get_default_dtype())
    for module_name, module in double.named_modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensor.data = tensor.data.to(kinds.get(f"{module_name}.{name}".lstrip("."), usual))
    return double


def _pairs(network: nn.Module, image: Tensor) -> Iterator[tuple[str, str]]:
    """Yield the names of each convolution and the norm that takes its output, where both run once."""
    runs: Counter[str] = Counter()
    # By the output's number, which nobody else gets while the output is kept; its version tells in-place changes.
    made: dict[int, tuple[str, Tensor, int]] = {}
    found: dict[str, str] = {}

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def hook(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
            runs[name] += 1
            if isinstance(module, nn.Conv2d):
                made[id(output)] = (name, output, output._version)
            elif (source := made.get(id(given[0]))) and source[2] == given[0]._version:
                found[name] = source[0]

        return module.register_forward_hook(hook)

    handles = [watch(name, module) for name, module in network.named_modules() if _is_foldable(module)]
    try:
        network(image)
    finally:
        for handle in handles:
            handle.remove()
    users = Counter(found.values())
    for norm, convolution in found.items():
        if runs[norm] == runs[convolution] == users[convolution] == 1:
            yield convolution, norm


def _fold(network: nn.Module, convolution: str, norm: str) -> None:
    """Put a norm's scale and shift into the convolution before it; of the norm an activation is left, if it has one."""
    layer, after = network.get_submodule(convolution), network.get_submodule(norm)
    assert isinstance(layer, nn.Conv2d) and isinstance(after, nn.BatchNorm2d)
    scale, shift = affine(after)
    layer.weight.data = layer.weight.data * scale[:, None, None, None]
    layer.bias = nn.Parameter(shift if layer.bias is None else shift + scale * layer.bias.data, requires_grad=False)
    parent, _, name = norm.rpartition(".")
    activation = getattr(after, "act", None)
    setattr(network.get_submodule(parent), name, nn.Identity() if activation is None else activation)


def _is_close(scores: Tensor, wanted: Tensor) -> bool:
    return bool((scores - wanted).abs().max() <= MAX_DIFFERENCE * wanted.abs().max())


def _is_foldable(module: nn.Module) -> bool:
    """Test for a convolution or a batch norm of a kind whose forward pass is known."""
    kinds: tuple[type, ...] = (nn.Conv2d, nn.BatchNorm2d)
    if "timm" in sys.modules:
        from timm.layers import BatchNormAct2d, Conv2dSame

        kinds += (BatchNormAct2d, Conv2dSame)
    return type(module) in kinds and not (isinstance(module, nn.BatchNorm2d) and module.running_mean is None)
