from __future__ import annotations

from pathlib import Path

import pytest
import torch

from imagexplain.serving import chunk_size as chunk
from imagexplain.serving.chunk_size import bytes_per_point, chunk_size
from imagexplain.serving.free_memory import least_free
from tests.serving.networks import sigmoid_network

HOST = 1000


def tree(folder: Path, own: str, **files: str) -> tuple[Path, Path]:
    """Control groups as the kernel shows them; ``__`` in a name parts folders, ``_`` stands for a dot after memory."""
    root, told = folder / "cgroup", folder / "own"
    root.mkdir()
    told.write_text(own)
    for name, text in files.items():
        *path, last = name.split("__")
        file = root.joinpath(*path, last.replace("memory_", "memory.", 1))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
    return root, told


@pytest.mark.parametrize(
    ("own", "files", "free"),
    [
        ("0::/\n", {}, HOST),
        ("0::/\n", {"memory_max": "400", "memory_current": "100"}, 300),
        ("0::/\n", {"memory_max": "max", "memory_current": "100"}, HOST),
        ("0::/\n", {"memory_max": "400", "memory_high": "250", "memory_current": "100"}, 150),
        ("0::/\n", {"memory_max": "max", "memory_high": "250", "memory_current": "100"}, 150),
        ("0::/\n", {"memory_max": "5000", "memory_current": "100"}, HOST),
        ("0::/\n", {"memory_max": "400", "memory_current": "500"}, 0),
        (
            "0::/\n",
            {"memory_max": "400", "memory_current": "300", "memory_stat": "anon 9\ninactive_file 120"},
            220,
        ),
        ("0::/a/b\n", {"a__memory_max": "300", "a__memory_current": "20", "a__b__memory_max": "max"}, 280),
        ("0::/a/b\n", {"a__memory_max": "300", "a__b__memory_max": "200", "a__b__memory_current": "50"}, 150),
        ("0::/docker/1f\n", {"memory_max": "400", "memory_current": "100"}, 300),  # mounted as the root, path unseen
        ("0::/../other\n", {"memory_max": "400"}, 400),
        ("4:memory:/c\n0::/\n", {"memory__c__memory_limit_in_bytes": "400"}, 400),
        (
            "5:cpu,memory:/c\n",
            {
                "memory__c__memory_limit_in_bytes": "400",
                "memory__c__memory_usage_in_bytes": "300",
                "memory__c__memory_stat": "cache 70\ninactive_file 1\ntotal_inactive_file 50",
            },
            150,
        ),
        ("4:memory:/c\n", {"memory__memory_limit_in_bytes": "9223372036854771712"}, HOST),
        ("4:memory:/c\n", {"memory__memory_limit_in_bytes": "300", "memory__memory_usage_in_bytes": "100"}, 200),
        ("nonsense\n", {"memory_max": "nonsense"}, HOST),
    ],
)
def test_the_least_of_host_and_groups(tmp_path: Path, own: str, files: dict[str, str], free: int) -> None:
    assert least_free(HOST, *tree(tmp_path, own, **files)) == free


def test_nothing_to_read_bounds_nothing(tmp_path: Path) -> None:
    assert least_free(HOST, tmp_path / "none", tmp_path / "none") == HOST


def test_chunks_fit_what_the_container_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    example = torch.zeros(1, 3, 8, 8)
    monkeypatch.setattr(chunk, "free_memory", lambda: 12 * bytes_per_point(sigmoid_network(), example))
    assert chunk_size(sigmoid_network(), example) == 3  # a quarter
