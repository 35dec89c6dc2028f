from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.overrides import TorchFunctionMode

from imagexplain.attribution.groups import group_sums as dispatch
from imagexplain.attribution.groups.group_sums import group_sums
from imagexplain.attribution.paths.quadrature import quadrature
from tests.attribution.inputs import row_masks

DTYPES = (torch.float32, torch.bfloat16)
SHAPES = ((1, 3, 5, 7), (3, 3, 17, 31), (40, 2, 1, 300), (2, 1, 16, 32))  # (N, C, H, W): 35 to 527 pixels, tiles of 256


def example(
    count: int, channels: int, height: int, width: int, groups: int, dtype: torch.dtype = torch.float32, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients, Δ and overlapping masks."""
    generator = torch.Generator().manual_seed(seed)
    gradients = torch.randn(count, channels, height, width, generator=generator).to(dtype)
    difference = torch.randn(channels, height, width, generator=generator).to(dtype)
    return gradients, difference, torch.rand(groups, height, width, generator=generator) < 0.4


def by_loop(gradients: Tensor, difference: Tensor, groups: Tensor) -> np.ndarray:
    """(N, G) float64, one sum at a time."""
    products = (gradients.cpu().double() * difference.cpu().double()).numpy()
    sums = [[product[:, mask].sum() for mask in groups.cpu().numpy()] for product in products]
    return np.array(sums).reshape(len(gradients), len(groups))


def assert_sums(given: Tensor, gradients: Tensor, difference: Tensor, groups: Tensor) -> None:
    """Within float32 rounding, relative to what a group would hold if nothing cancelled."""
    wanted = by_loop(gradients, difference, groups)
    scale = by_loop(gradients.abs(), difference.abs(), groups)
    assert given.shape == wanted.shape
    assert (np.abs(given.cpu().numpy() - wanted) <= 5e-7 * scale).all()


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the kernel runs: on a GPU, or else in Triton's interpreter.

    TRITON_INTERPRET counts only if it is set before Triton is first imported, which another test may have done. The
    kernel uses nothing but Triton's primitives, so it can be handed to the interpreter at any time.
    """
    kernel = pytest.importorskip("imagexplain.attribution.groups.triton_group_sums")
    if torch.cuda.is_available():
        return "cuda"
    interpreter = pytest.importorskip("triton.runtime.interpreter")
    monkeypatch.setattr(kernel, "_partial_sums", interpreter.InterpretedFunction(kernel._partial_sums.fn))
    monkeypatch.setattr(dispatch, "_triton_obstacle", lambda *_: None)
    return "cpu"


@pytest.mark.parametrize("capability", [80, 90])
def test_kernel_compiles_and_fits(capability: int, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes what a compiler does not. No GPU is needed; the smaller ones have 99 KB to a program.

    It comes before the interpreted tests: Triton 3.4's interpreter leaves the language unfit to compile.
    """
    triton = pytest.importorskip("triton")
    compiler, backends = pytest.importorskip("triton.compiler"), pytest.importorskip("triton.backends.compiler")
    kernel = pytest.importorskip("imagexplain.attribution.groups.triton_group_sums")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    if not isinstance(kernel._partial_sums, triton.JITFunction):
        pytest.skip("TRITON_INTERPRET is set")
    names = kernel._partial_sums.arg_names
    constants = {"ROWS": kernel.MOST_ROWS, "TILE": kernel.TILE, "GROUPS": kernel.GROUPS, "pixel_stride": 1}
    pointers = {"gradients": "*bf16", "difference": "*fp32", "masks": "*u8", "partial": "*fp32"}
    signature = {name: "constexpr" if name in constants else pointers.get(name, "i32") for name in names}
    positions = {(names.index(name),): value for name, value in constants.items()}
    divisible = {(names.index(name),): [["tt.divisibility", 16]] for name in (*pointers, "pixels", "row_stride")}
    source = compiler.ASTSource(kernel._partial_sums, signature, positions, divisible)
    compiled = triton.compile(source, target=backends.GPUTarget("cuda", capability, 32), options=kernel.SCHEDULE)
    assert ("wgmma" if capability == 90 else "mma.sync") in compiled.asm["ptx"]  # on tensor cores
    assert compiled.metadata.shared <= 99 * 1024


HAND = (
    torch.tensor([[[[1.0, 2, 3]], [[4, 5, 6]]], [[[0, -1, 0]], [[1, 0, -2]]]]),
    torch.tensor([[[1.0, 10, 100]], [[2, 20, 200]]]),
    row_masks("100", "011", "110", "000", "111"),
)
# By pixel: 1·1 + 4·2, 2·10 + 5·20, 3·100 + 6·200 = 9, 120, 1500, and 0 + 2, −10 + 0, 0 − 400 = 2, −10, −400.
HAND_SUMS = [[9, 1620, 129, 0, 1629], [2, -410, -8, 0, -408]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_by_hand(dtype: torch.dtype) -> None:
    gradients, difference, groups = HAND
    sums = group_sums(gradients.to(dtype), difference.to(dtype), groups)
    assert sums.tolist() == HAND_SUMS
    assert sums.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_kernel_by_hand(device: str, dtype: torch.dtype) -> None:
    gradients, difference, groups = (tensor.to(device) for tensor in HAND)
    sums = group_sums(gradients.to(dtype), difference.to(dtype), groups, backend="triton")
    assert (sums.tolist(), sums.dtype) == (HAND_SUMS, torch.float32)


@pytest.mark.parametrize("inside", [True, False])
def test_absolute_value_inside_the_integral(inside: bool) -> None:
    """f = (x − 1/2)² from 0 to 1 has the gradient 2α − 1, which averages to 0 and its size to 1/2."""
    rule = quadrature("midpoint", 10)
    difference = torch.ones(1, 1, 1, dtype=torch.float64)
    sums = group_sums((2 * rule.nodes - 1).view(-1, 1, 1, 1), difference, row_masks("1"))[:, 0]
    mean = (rule.weights * (sums.abs() if inside else sums)).sum().item()
    assert mean == pytest.approx(0.5 if inside else 0, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, *DTYPES])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("groups", [1, 3, 130])
def test_agrees_with_a_loop(shape: tuple[int, int, int, int], groups: int, dtype: torch.dtype) -> None:
    given = example(*shape, groups, dtype)
    assert_sums(group_sums(*given), *given)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("groups", [1, 3, 130])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_kernel_agrees_with_a_loop(
    device: str, shape: tuple[int, int, int, int], groups: int, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    gradients, difference, chosen = (tensor.to(device) for tensor in example(*shape, groups, dtype))
    gradients = gradients.contiguous(memory_format=layout)
    assert_sums(group_sums(gradients, difference, chosen, backend="triton"), gradients, difference, chosen)


def test_kernel_reads_slices_and_transposes(device: str) -> None:
    """Every other gradient of some, channels 1 and 2 of four, height and width exchanged, broadcast rows."""
    gradients, difference, chosen = (tensor.to(device) for tensor in example(6, 4, 19, 23, 5))
    for view in (gradients[::2], gradients[:1].expand(3, -1, -1, -1)):
        assert_sums(group_sums(view, difference, chosen, backend="triton"), view, difference, chosen)
    part = (gradients[:, 1:3], difference[1:3], chosen)
    assert_sums(group_sums(*part, backend="triton"), *part)
    turned = (gradients.transpose(2, 3), difference.transpose(1, 2), chosen.transpose(1, 2))
    assert_sums(group_sums(*turned, backend="triton"), *turned)


def test_kernel_takes_gradients_and_differences_of_different_dtypes(device: str) -> None:
    gradients, difference, chosen = (tensor.to(device) for tensor in example(2, 3, 9, 9, 4))
    given = (gradients.bfloat16(), difference, chosen)
    assert_sums(group_sums(*given, backend="triton"), *given)


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("count", [0, 2])
def test_nothing_to_sum(device: str, backend: dispatch.Backend, count: int) -> None:
    gradients, difference, _ = (tensor.to(device) for tensor in example(count, 3, 4, 5, 0))
    none = torch.zeros(0, 4, 5, dtype=torch.bool, device=device)
    assert group_sums(gradients, difference, none, backend=backend).shape == (count, 0)
    empty = group_sums(gradients, difference, torch.zeros(2, 4, 5, dtype=torch.bool, device=device), backend=backend)
    assert empty.tolist() == [[0, 0]] * count


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # the interpreter's
@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_marks_its_own_row_only(
    device: str, backend: dispatch.Backend, value: float
) -> None:
    gradients, difference, chosen = (tensor.to(device) for tensor in example(3, 3, 20, 20, 70))
    gradients[1, 2, 19, 19] = value
    finite = group_sums(gradients, difference, chosen, backend=backend).isfinite()
    assert finite.all(1).tolist() == finite.any(1).tolist() == [True, False, True]


def test_no_graph_is_recorded() -> None:
    gradients, difference, chosen = example(1, 3, 4, 4, 2)
    assert not group_sums(gradients.requires_grad_(), difference, chosen).requires_grad


def test_no_more_than_a_block_of_masks_is_floating_point_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Largest(TorchFunctionMode):
        elements = 0

        def __torch_function__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if isinstance(result, Tensor) and result.is_floating_point():
                self.elements = max(self.elements, result.numel())
            return result

    monkeypatch.setattr(dispatch, "BLOCK_ELEMENTS", 8 * 400)
    gradients, difference, chosen = example(2, 3, 20, 20, 100)
    whole = group_sums(gradients, difference, chosen)
    with Largest() as largest:
        blocks = group_sums(gradients, difference, chosen)
    assert largest.elements == 8 * 400
    assert torch.equal(blocks, whole)


@st.composite
def partitions(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """An example whose masks are disjoint and cover everything; some may be empty."""
    count, channels, height, width = (draw(st.integers(1, limit)) for limit in (4, 3, 6, 6))
    groups = draw(st.integers(1, 5))
    gradients, difference, _ = example(count, channels, height, width, 0, seed=draw(st.integers(0, 99)))
    labels = draw(st.lists(st.integers(0, groups - 1), min_size=height * width, max_size=height * width))
    chosen = torch.tensor(labels).view(height, width) == torch.arange(groups).view(-1, 1, 1)
    return gradients.double(), difference.double(), chosen


@given(partitions(), st.randoms(use_true_random=False))
def test_a_partition_adds_up_and_order_does_not_matter(given: tuple[Tensor, Tensor, Tensor], random) -> None:
    gradients, difference, chosen = given
    sums = group_sums(gradients, difference, chosen)
    total = (gradients * difference).sum((1, 2, 3))
    assert sums.sum(1).tolist() == pytest.approx(total.tolist(), abs=1e-12)
    order = random.sample(range(len(chosen)), len(chosen))
    np.testing.assert_allclose(group_sums(gradients, difference, chosen[order]), sums[:, order], atol=1e-12)
    rows = random.sample(range(len(gradients)), len(gradients))
    for row in rows:  # what else is in the batch does not matter
        alone = group_sums(gradients[row : row + 1], difference, chosen)[0]
        assert alone.tolist() == pytest.approx(sums[row].tolist(), abs=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gradients": torch.zeros(3, 4, 5)}, r"gradients: wanted \(N, C, H, W\) floating point, got \(3, 4, 5\)"),
        ({"gradients": torch.zeros(2, 3, 4, 5, dtype=torch.int64)}, "gradients: wanted .* got .* torch.int64"),
        ({"difference": torch.zeros(1, 4, 5)}, r"difference: wanted \(3, 4, 5\) floating point, got \(1, 4, 5\)"),
        ({"difference": torch.zeros(3, 4, 5, dtype=torch.int64)}, "difference: wanted .* got .* torch.int64"),
        ({"difference": torch.zeros(3, 4, 5, device="meta")}, "difference: wanted on cpu like gradients, got meta"),
        ({"masks": torch.ones(1, 5, 4, dtype=torch.bool)}, r"masks: wanted \(G, 4, 5\) bool, got \(1, 5, 4\)"),
        ({"masks": torch.ones(4, 5, dtype=torch.bool)}, r"masks: wanted \(G, 4, 5\) bool, got \(4, 5\)"),
        ({"masks": torch.ones(1, 4, 5)}, r"masks: wanted \(G, 4, 5\) bool, got \(1, 4, 5\) torch.float32"),
        (
            {"masks": torch.ones(1, 4, 5, dtype=torch.bool, device="meta")},
            "masks: wanted on cpu like gradients, got meta",
        ),
        ({"backend": "cuda"}, "backend: wanted auto, torch or triton, got cuda"),
    ],
)
def test_errors_name_what_was_given(change: dict, message: str) -> None:
    gradients, difference, chosen = example(2, 3, 4, 5, 1)
    with pytest.raises(ValueError, match=message):
        group_sums(**{"gradients": gradients, "difference": difference, "masks": chosen} | change)


def test_a_kernel_that_cannot_run_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    gradients, difference, chosen = example(2, 3, 4, 5, 1)
    with pytest.raises(ValueError, match="backend: wanted triton, which needs a GPU of NVIDIA's, got cpu"):
        group_sums(gradients, difference, chosen, backend="triton")
    with pytest.raises(ValueError, match=r"backend: wanted triton, which takes .*, got difference of torch.float64"):
        group_sums(gradients, difference.double(), chosen, backend="triton")
    monkeypatch.setattr(dispatch, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match="backend: wanted triton, which is not installed"):
        group_sums(gradients, difference, chosen, backend="triton")
    assert_sums(group_sums(gradients, difference, chosen), gradients, difference, chosen)


@pytest.mark.parametrize(("backend", "used"), [("auto", False), ("torch", False), ("triton", True)])
def test_what_runs_where(monkeypatch: pytest.MonkeyPatch, backend: dispatch.Backend, used: bool) -> None:
    """On CPU tensors: the kernel only if it is asked for."""
    kernel = pytest.importorskip("imagexplain.attribution.groups.triton_group_sums")
    monkeypatch.setattr(dispatch, "_triton_obstacle", lambda *_: None)
    monkeypatch.setattr(kernel, "triton_group_sums", lambda *_: "the kernel")
    assert (group_sums(*example(1, 3, 4, 5, 1), backend=backend) == "the kernel") is used


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_what_runs_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = pytest.importorskip("imagexplain.attribution.groups.triton_group_sums")
    monkeypatch.setattr(kernel, "triton_group_sums", lambda *_: "the kernel")
    given = [tensor.cuda() for tensor in example(1, 3, 4, 5, 1)]
    assert group_sums(*given) == "the kernel"
    assert_sums(group_sums(*given, backend="torch"), *given)
    assert_sums(group_sums(given[0].double(), *given[1:]), *given)  # more bits than the kernel takes


def test_triton_is_not_imported_on_a_cpu() -> None:
    code = (
        "import sys, torch; from imagexplain.attribution.paths.path_integral import group_sums; "
        "group_sums(torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1), torch.ones(1, 1, 1, dtype=torch.bool)); "
        "sys.exit('triton' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
