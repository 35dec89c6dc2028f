"""Two processes with half the batch each, against one: the same losses, without drop path and augmentation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from imagexplain import cli
from imagexplain.checkout import ROOT
from tests.training.finetuning.folders import photos
from tests.training.finetuning.networks import TINY

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ARGUMENTS = [
    *("--model", "vit_tiny_patch16_224", "--arguments", json.dumps(TINY), "--workers", "0", "--skip-faulty"),
    *("--no-augmentation", "--mixup", "0", "--cutmix", "0", "--drop-path", "0"),
    *("--epochs", "3", "--warmup-epochs", "1", "--accumulation", "2", "--rate", "0.01"),
]


def run(out: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The last checkpoint, and the lines of the epochs."""
    lines = (out / "epochs.jsonl").read_text("utf-8").splitlines()
    return torch.load(out / "last.pth", weights_only=True), [json.loads(line) for line in lines]


def test_two_processes_are_one_with_twice_the_batch(tmp_path: Path) -> None:
    """By the command: photos are checked and told of once, and validated by both."""
    folder, one, two = photos(tmp_path / "photos", train=9), tmp_path / "one", tmp_path / "two"
    (folder / "val" / "dark" / "bad.png").write_bytes(b"")
    assert cli.main(["finetune", str(folder), "--out", str(one), "--batch", "4", *ARGUMENTS]) == 0
    done = subprocess.run(
        [*TORCHRUN, "scripts/finetune.py", str(folder), "--out", str(two), "--batch", "2", *ARGUMENTS],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("1 of 37 photos left out\n") == done.stdout.count("best: epoch") == 1
    (last, lines), (wanted, expected) = run(two), run(one)
    assert (last["args"]["processes"], wanted["args"]["processes"]) == (2, 1)
    assert len(last["losses"]) == 3 * 3 * 2
    assert last["losses"].tolist() == pytest.approx(wanted["losses"].tolist(), rel=1e-4)
    for line, other in zip(lines, expected, strict=True):
        for name in ("step", "rate", "train_loss", "val_loss", "accuracy"):
            assert line[name] == pytest.approx(other[name], rel=1e-4), name
        assert line["per_class"] == other["per_class"]
