import pytest
import torch

from imagexplain.serving import chunk_size as chunk
from imagexplain.serving.chunk_size import MAX_CHUNK, bytes_per_point, chunk_size
from tests.serving.networks import sigmoid_network


def test_counts_what_the_backward_pass_keeps() -> None:
    # The sigmoid keeps its output, 4 × 8 × 8 float32, and the choice of the target one index of 8 bytes and the scores,
    # a copy of that output; a frozen convolution may keep its input, 3 × 8 × 8 float32, besides.
    kept = bytes_per_point(sigmoid_network(), torch.zeros(1, 3, 8, 8))
    assert kept in (2 * 1024 + 8, 2 * 1024 + 8 + 768)


def test_more_memory_more_points(monkeypatch: pytest.MonkeyPatch) -> None:
    example = torch.zeros(1, 3, 8, 8)
    assert chunk_size(sigmoid_network(), example) == MAX_CHUNK
    monkeypatch.setattr(chunk, "CPU_BUDGET", 5 * bytes_per_point(sigmoid_network(), example))
    assert chunk_size(sigmoid_network(), example) == 5
    monkeypatch.setattr(chunk, "CPU_BUDGET", 1)
    assert chunk_size(sigmoid_network(), example) == 1
