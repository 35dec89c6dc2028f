"""Tensors of an answer, and its JSON: what a protocol makes its own answer of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from imagexplain.api.request import SAFETENSORS
from imagexplain.serving.messages import Response

ATTRIBUTIONS = ("integrated_grads", "map")
"""Names of the tensor of an explanation, of which it has one."""


@dataclass(frozen=True)
class Answer:
    """An answer to an instance.

    Attributes:
        json: Text that the answer in JSON has.
        tensors: Tensors by name; none of an answer in JSON.
    """

    json: bytes
    tensors: Mapping[str, NDArray[np.generic]]

    @property
    def size(self) -> int:
        """Number of values of the attributions."""
        return sum(self.tensors[name].size for name in ATTRIBUTIONS if name in self.tensors)

    def attributions(self) -> NDArray[np.generic] | None:
        """The attributions (C, H, W), of several classes with a first axis for them; None where there are none."""
        found = next((self.tensors[name] for name in ATTRIBUTIONS if name in self.tensors), None)
        return found[0] if found is not None and len(found) == 1 else found


def read(response: Response) -> Answer:
    """The answer in a response, of JSON or of :data:`imagexplain.serving.protocols.instances.TENSORS`."""
    if response.media_type != SAFETENSORS:
        return Answer(response.body, {})
    length = int.from_bytes(response.body[:8], "little")
    header = msgspec.json.decode(response.body[8 : 8 + length])
    return Answer(header["__metadata__"]["result"].encode(), safetensors.numpy.load(response.body))
