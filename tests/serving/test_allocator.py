import platform
import subprocess
import sys

import pytest

from imagexplain.ops.server import ROOT
from imagexplain.serving.allocator import keep_freed_memory, return_freed_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_glibc_takes_the_settings() -> None:
    assert keep_freed_memory()


def test_another_allocator_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagexplain.serving.allocator.ctypes.CDLL", lambda _: object())
    assert not keep_freed_memory()
    return_freed_memory()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc_trim is glibc's")
def test_freed_memory_is_returned_when_asked() -> None:
    code = """
import psutil, torch
from imagexplain.serving.allocator import keep_freed_memory, return_freed_memory
keep_freed_memory()
rows = [torch.ones(1_000_000) for _ in range(100)]  # 400 MB
del rows
kept = psutil.Process().memory_info().rss
return_freed_memory()
print(kept - psutil.Process().memory_info().rss)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 300_000_000


def test_a_lanet_needs_neither_timm_nor_torchvision() -> None:
    """They take a hundred megabytes, and seconds to import."""
    code = """
import sys
from pathlib import Path
import handlers.classifier
from imagexplain import models
from imagexplain.models.checkpoints.checkpoint import read
from imagexplain.models.optimize.folding import fold
fold(models.build("lanet", read(Path("archive_specs/weights/lanet_scenes.safetensors"))))
print([name for name in ("timm", "torchvision", "captum", "matplotlib", "mmdet") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
