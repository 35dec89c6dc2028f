"""Networks compared as networks: their weights bit for bit, and what they compute up to rounding.

Two copies of a network lie elsewhere in memory, and libraries choose among their kernels by where that is and by how
many threads there are. The outputs of two copies are therefore promised to agree up to rounding, and no further.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

ROUNDING = 1e-5
"""Relative to the largest output, in float32."""


def assert_same_weights(given: nn.Module, wanted: nn.Module) -> None:
    """The same tensors under the same names, bit for bit; counters of batches, which no file carries, apart."""
    got, expected = given.state_dict(), wanted.state_dict()
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert name.endswith("num_batches_tracked") or torch.equal(got[name], tensor), name


def assert_same_tensors(given: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """The same tensors under the same names, without gradients."""
    assert given.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert given[name].dtype == tensor.dtype, name
        assert torch.equal(given[name], tensor), name
        assert not given[name].requires_grad, name


def assert_close_outputs(given: Tensor, wanted: Tensor) -> None:
    """The same numbers, up to rounding."""
    assert given.shape == wanted.shape and given.dtype == wanted.dtype
    torch.testing.assert_close(given, wanted, rtol=0, atol=ROUNDING * wanted.abs().max().item())


@torch.no_grad()
def assert_same_network(given: nn.Module, wanted: nn.Module, images: Tensor) -> None:
    """The same weights and, up to rounding, the same outputs."""
    assert_same_weights(given, wanted)
    assert_close_outputs(given(images), wanted(images))
