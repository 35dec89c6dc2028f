"""Maps as pytorch-grad-cam scales them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def scaled(maps: NDArray[np.floating]) -> NDArray[np.floating]:
    """Maps (B, H, W), each from 0 to 1; one that is the same everywhere is 0."""
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    result: NDArray[np.floating] = (maps - low) / np.where(high > low, high - low, 1)
    return result
