"""Photo on which models are tried before anybody sends one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 48, 64


def example_photo() -> NDArray[np.uint8]:
    """Three ramps (48, 64, 3): no two pixels are the same, and turned over or in other colours it is another photo."""
    rows, columns = np.meshgrid(np.arange(HEIGHT) * 5, np.arange(WIDTH) * 3, indexing="ij")
    return np.stack([rows, columns, (rows + columns) // 2], axis=2).astype(np.uint8)
