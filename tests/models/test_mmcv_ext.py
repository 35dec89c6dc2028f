import os
import subprocess
import sys
from importlib import import_module, metadata
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

from imagexplain.models.segmenters import mmcv_ext
from tests.models.reference import distance

if not mmcv_ext.install():
    pytest.skip("a compiled mmcv is installed, and used", allow_module_level=True)

ops = import_module("mmcv.ops")


def features_and_rois() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 20, 30, generator=generator, dtype=torch.float64)
    corner, size = torch.rand(2, 12, 2, generator=generator, dtype=torch.float64)
    batch = torch.arange(12, dtype=torch.float64)[:, None] % 2
    # From boxes of a fraction of a pixel to boxes that leave the picture.
    return features, torch.cat([batch, 100 * corner - 10, 100 * corner + 60 * size], dim=1)


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
def test_roi_align_and_its_gradient_equal_torchvision(aligned: bool, sampling_ratio: int) -> None:
    features, rois = features_and_rois()
    mine = features.clone().requires_grad_()
    theirs = features.clone().requires_grad_()
    output = ops.RoIAlign((4, 7), 0.25, sampling_ratio, aligned=aligned)(mine, rois)
    wanted = torchvision.ops.roi_align(theirs, rois, (4, 7), 0.25, sampling_ratio or -1, aligned)
    assert torch.equal(output, wanted)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (output * weights).sum().backward()
    (wanted * weights).sum().backward()
    assert mine.grad is not None and theirs.grad is not None
    assert torch.equal(mine.grad, theirs.grad)


def test_roi_align_gradient_equals_differences() -> None:
    features, rois = features_and_rois()
    align = ops.RoIAlign((2, 3), 0.25, 0)
    assert torch.autograd.gradcheck(lambda x: align(x, rois[:3]), features[:, :1, :8, :8].requires_grad_())


def test_roi_align_of_a_plane_is_the_plane_at_the_bins_centres() -> None:
    """Interpolation is exact on a plane: bins of 2×1 pixels, whose centres lie at x = 1, 3 and y = 2.5, 3.5."""
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    roi = torch.tensor([[0.0, 0.5, 2.5, 4.5, 4.5]])
    output = ops.roi_align((10 * y + x)[None, None], roi, (2, 2), 1.0, 0, "avg", True)
    # `aligned` puts the value of pixel i at i + 1/2.
    assert output[0, 0].tolist() == [[26.0, 28.0], [36.0, 38.0]]


def test_backward_adds_to_the_gradient_that_is_there() -> None:
    features, rois = features_and_rois()
    empty = features.new_zeros(0)
    options: dict[str, Any] = {
        "aligned_height": 2,
        "aligned_width": 2,
        "spatial_scale": 0.25,
        "sampling_ratio": 0,
        "pool_mode": mmcv_ext.AVERAGE,
        "aligned": True,
    }
    grad = torch.ones(12, 3, 2, 2, dtype=torch.float64)
    fresh, used = torch.zeros_like(features), torch.ones_like(features)
    mmcv_ext.roi_align_backward(grad, rois, empty, empty, fresh, **options)
    mmcv_ext.roi_align_backward(grad, rois, empty, empty, used, **options)
    assert fresh.abs().sum() > 0
    assert distance(used - 1, fresh) < 1e-14


def test_nms_keeps_the_best_of_what_overlaps() -> None:
    boxes = torch.tensor([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [0, 0, 10, 9.0]])
    scores = torch.tensor([0.5, 0.9, 0.3, 0.7])
    dets, kept = ops.nms(boxes, scores, 0.5)
    assert kept.tolist() == [1, 2]
    assert dets[:, 4].tolist() == pytest.approx([0.9, 0.3])


def test_nms_offset() -> None:
    """Boxes of 2×2 and 2×1: their IoU is 1/2 with offset 0, and 6/9 with offset 1."""
    boxes, scores = torch.tensor([[0, 0, 2, 2], [0, 0, 2, 1.0]]), torch.tensor([2.0, 1.0])
    assert mmcv_ext.nms(boxes, scores, 0.6, 0).tolist() == [0, 1]
    assert mmcv_ext.nms(boxes, scores, 0.6, 1).tolist() == [0]
    assert mmcv_ext.nms(boxes, scores, 0.7, 1).tolist() == [0, 1]


def test_nothing_to_suppress() -> None:
    assert mmcv_ext.nms(torch.zeros(0, 4), torch.zeros(0), 0.5, 0).tolist() == []


def test_other_operators_say_what_to_install() -> None:
    deform = ops.DeformConv2dPack(2, 2, 3, padding=1)
    with pytest.raises(mmcv_ext.MissingOperatorError, match=r"deform_conv_forward: .* install a compiled mmcv"):
        deform(torch.zeros(1, 2, 8, 8))
    features, rois = features_and_rois()
    with pytest.raises(mmcv_ext.MissingOperatorError, match="roi_align with maximum pooling"):
        ops.roi_align(features, rois, (2, 2), 1.0, 0, "max", True)


def test_install_is_idempotent_and_leaves_a_compiled_module_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = sys.modules[mmcv_ext.NAME]
    assert mmcv_ext.install()
    assert sys.modules[mmcv_ext.NAME] is stand_in
    monkeypatch.setitem(sys.modules, mmcv_ext.NAME, type(sys)(mmcv_ext.NAME))
    assert not mmcv_ext.install()
    assert sys.modules[mmcv_ext.NAME] is not stand_in


def test_a_compiled_module_that_is_not_yet_imported_is_left_to_the_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, mmcv_ext.NAME)
    monkeypatch.setattr(mmcv_ext, "find_spec", lambda name: ModuleSpec(name, loader=None))
    assert not mmcv_ext.install()
    assert mmcv_ext.NAME not in sys.modules


def test_without_mmcv(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError("No module named 'mmcv'", name="mmcv")

    monkeypatch.delitem(sys.modules, mmcv_ext.NAME)
    monkeypatch.setattr(mmcv_ext, "find_spec", absent)
    with pytest.raises(ModuleNotFoundError, match=r"wanted mmcv-lite==2\.1\.0"):
        mmcv_ext.install()


@pytest.mark.parametrize("users", [True, False], ids=["XDG_CACHE_HOME", "HOME"])
def test_a_damaged_cache_of_yapfs_is_no_obstacle(tmp_path: Path, users: bool) -> None:
    """It is what a process finds whose neighbour, or predecessor, has begun to write it."""
    caches = tmp_path if users else tmp_path / ".cache"
    environment = {**os.environ, "HOME": str(tmp_path)}
    environment.pop("XDG_CACHE_HOME", None)
    if users:
        environment["XDG_CACHE_HOME"] = str(caches)

    def run(program: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)

    run("import yapf")
    grammars = list((caches / "YAPF").rglob("*.pickle"))
    assert len(grammars) == 2
    for grammar in grammars:
        grammar.write_bytes(b"")
    assert "EOFError" in run("import yapf").stderr
    install = "from imagexplain.models.segmenters import mmcv_ext; mmcv_ext.install()"
    found = run(f"import os; {install}; import mmdet.models; print(os.environ.get('XDG_CACHE_HOME'))")
    assert found.stdout.split() == [environment.get("XDG_CACHE_HOME", "None")], found.stderr


def test_only_the_headless_opencv() -> None:
    """The others need libGL, which a bare Debian lacks, and overwrite the headless one's files."""
    installed = {str(distribution.metadata["Name"]).lower() for distribution in metadata.distributions()}
    assert {name for name in installed if name.startswith("opencv")} == {"opencv-python-headless"}


def test_opencv_maps_no_display_libraries() -> None:
    """Nor does importing mmdet: the libraries that such a process has mapped are read from the system."""
    program = (
        "from imagexplain.models.segmenters import mmcv_ext; mmcv_ext.install(); import cv2, mmdet.models; "
        "print(open('/proc/self/maps').read())"
    )
    maps = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    libraries = {line.split("/")[-1] for line in maps.splitlines() if "/" in line}
    assert any(library.startswith("cv2") for library in libraries)
    display = ("libGL", "libEGL", "libX11", "libQt", "libgtk")
    assert not {library for library in libraries if library.startswith(display)}
