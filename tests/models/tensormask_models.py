"""The reference's TensorMask: the published architecture with weights made from their names."""

from __future__ import annotations

import json
import re

from torch import Tensor

from tests.fixtures import deterministic
from tests.models.reference import FIXTURES, shapes

DIRECTORY = FIXTURES / "tensormask"


def reference_state() -> dict[str, Tensor]:
    """The tensors with which the reference was made."""
    state = deterministic.state(shapes("tensormask/keys.json"))
    for pattern, factor in json.loads((DIRECTORY / "det_scales.json").read_text()):
        for name in filter(re.compile(pattern).search, state):
            state[name] *= factor
    state["head.cls_score.bias"] -= 4
    return state
