"""ViT-B/16 itself, for one step; its training to the end would take weeks here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from imagexplain.checkout import ROOT
from tests.training.finetuning import full_size

MAX_BYTES = 5 * 10**9
"""Bound of the peak of memory. Weights, gradients and AdamW's two moments are 1.4 GB; measured in all were 2.3 GB by
one thread, and up to 3.7 GB by two."""


def test_one_step_of_the_full_size_network(tmp_path: Path) -> None:
    command = [sys.executable, "-m", full_size.__name__, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=True)
    assert int(done.stdout) < MAX_BYTES
    last = torch.load(tmp_path / "last.pth", weights_only=True, mmap=True)
    assert len(last["model"]) == 152 and len(last["optimizer"]["state"]) == 152
    assert len(last["optimizer"]["param_groups"]) == 28
    for file in tmp_path.glob("*.pth"):  # 1.4 GB
        file.unlink()
