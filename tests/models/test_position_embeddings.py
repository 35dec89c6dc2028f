"""Position embeddings of another grid: MAE's own, recorded, and grids that it does not have."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from imagexplain.errors import ArgumentError
from imagexplain.models.checkpoints.position_embeddings import resize_position_embedding
from tests.models.reference import FIXTURES


@pytest.mark.parametrize(("old", "new"), [(14, 10), (14, 24), (7, 14), (14, 14)])
def test_equals_mae(old: int, new: int) -> None:
    with np.load(FIXTURES / "egdd/pos_embed.npz") as arrays:
        given, wanted = (torch.from_numpy(arrays[f"from{old}_to{new}_{end}"]) for end in ("in", "out"))
    assert torch.equal(resize_position_embedding(given, (new, new), prefix_tokens=1), wanted)


def test_rows_are_not_columns() -> None:
    """A ramp down the rows stays one: three rows of two equal columns, after two tokens of the prefix."""
    rows = torch.arange(3.0).repeat_interleave(3)
    embedding = torch.cat((torch.tensor([7.0, 8.0]), rows)).reshape(1, 11, 1)
    resized = resize_position_embedding(embedding, (3, 2), prefix_tokens=2)
    torch.testing.assert_close(resized.flatten(), torch.tensor([7.0, 8.0, 0.0, 0.0, 1.0, 1.0, 2.0, 2.0]))


@pytest.mark.parametrize(
    ("shape", "grid", "prefix", "message"),
    [
        ((1, 197, 8), (10, 10), 0, "embedding: wanted position embeddings (1, 0 + a square, D), got [1, 197, 8]"),
        ((2, 197, 8), (10, 10), 1, "embedding: wanted position embeddings (1, 1 + a square, D), got [2, 197, 8]"),
        ((197, 8), (10, 10), 1, "embedding: wanted position embeddings (1, 1 + a square, D), got [197, 8]"),
        ((1, 1, 8), (10, 10), 1, "embedding: wanted position embeddings (1, 1 + a square, D), got [1, 1, 8]"),
        ((1, 197, 8), (0, 10), 1, "grid: wanted at least one row and one column, got [0, 10]"),
    ],
)
def test_not_a_grid(shape: tuple[int, ...], grid: tuple[int, int], prefix: int, message: str) -> None:
    with pytest.raises(ArgumentError, match=f"^{re.escape(message)}$"):
        resize_position_embedding(torch.zeros(shape), grid, prefix)
