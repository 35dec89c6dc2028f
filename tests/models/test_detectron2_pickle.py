import os
import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.checkpoints.checkpoint import CheckpointError
from tests.models.pickles import Calls

ARRAYS: dict[str, Any] = {
    "conv.weight": np.arange(12, dtype=np.float32).reshape(2, 3, 2, 1),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "swapped": np.arange(3, dtype=">f4"),
    "half": np.array([0.5, -2], dtype=np.float16),
    "steps": np.array(7),
    "flags": np.array([True, False]),
    "empty": np.zeros((0, 4), dtype=np.float32),
    "scalar": np.float32(1.5),
}


def _read(content: Any, tmp_path: Path, protocol: int = 2) -> dict[str, Tensor]:
    return _read_bytes(pickle.dumps(content, protocol), tmp_path)


def _read_bytes(content: bytes, tmp_path: Path) -> dict[str, Tensor]:
    path = tmp_path / "weights.pkl"
    path.write_bytes(content)
    return checkpoint.read(path)


@pytest.mark.parametrize(
    ("protocol", "core"),
    [(2, "numpy.core"), (2, "numpy._core"), (3, "numpy.core"), (3, "numpy._core"), (4, "")],
)
def test_published_files(protocol: int, core: str, tmp_path: Path) -> None:
    """The model zoo's form, with the module names of NumPy 1 and 2; with protocol 4 those of the installed NumPy."""
    content = {"model": ARRAYS, "__author__": "the authors", "matching_heuristics": True}
    written = pickle.dumps(content, protocol)
    if protocol < 4:  # names have no length before them
        written = re.sub(rb"numpy\._?core(?=\.multiarray)", core.encode(), written)
        assert f"c{core}.multiarray\n_reconstruct\n".encode() in written
    tensors = _read_bytes(written, tmp_path)
    assert list(tensors) == list(ARRAYS)
    for name, array in ARRAYS.items():
        wanted = torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
        wanted = wanted.float() if wanted.is_floating_point() else wanted
        assert tensors[name].dtype == wanted.dtype
        assert torch.equal(tensors[name], wanted), name


def test_arrays_alone_and_in_order(tmp_path: Path) -> None:
    plain = {"a": np.ones(2, np.float32), "b": np.zeros(1, np.float32)}
    for content in (plain, OrderedDict(plain), {"model": OrderedDict(plain), "__author__": "x"}):
        tensors = _read(content, tmp_path)
        assert {name: tensor.tolist() for name, tensor in tensors.items()} == {"a": [1, 1], "b": [0]}


def test_python_2_wrote_bytes_as_text(tmp_path: Path) -> None:
    """{"w": array([1.5, -2], float32)} as Python 2 pickled it: the bytes are a string, to be read as latin1."""
    content = np.array([1.5, -2], "<f4").tobytes()
    written = (
        b"\x80\x02}U\x01wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x08" + content + b"tbs."
    )
    assert _read_bytes(written, tmp_path)["w"].tolist() == [1.5, -2]


def test_tensors_may_be_written_to(tmp_path: Path) -> None:
    tensor = _read({"a": np.ones(2, np.float32)}, tmp_path)["a"]
    tensor += 1
    assert tensor.tolist() == [2, 2]


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_runs_a_command(protocol: int, tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    runs = Calls(os.system, f"touch {harm}")
    for content in (runs, {"model": {"a": runs}}, {"model": ARRAYS, "__author__": runs}):
        with pytest.raises(CheckpointError, match=r"weights\.pkl: .* given (posix|nt)\.system"):
            _read(content, tmp_path, protocol)
    assert not harm.exists()
    pickle.loads(pickle.dumps({"a": runs}, protocol))
    assert harm.exists(), "the pickle would not have run anything"


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("numpy", "load"),
        ("numpy", "ndarray.tofile"),
        ("numpy.core.multiarray", "fromfile"),
        ("torch", "load"),
        ("imagexplain.models.checkpoints.detectron2_pickle", "_Constructor"),
    ],
)
def test_other_names_are_refused(module: str, name: str, tmp_path: Path) -> None:
    written = b"\x80\x04\x8c" + bytes([len(module)]) + module.encode() + b"\x8c" + bytes([len(name)]) + name.encode()
    with pytest.raises(CheckpointError, match=f"given {module}.{name}"):
        _read_bytes(written + b"\x93.", tmp_path)


@pytest.mark.parametrize(
    "array",
    [
        np.array([None, {}], dtype=object),
        np.array(["text"]),
        np.array([b"bytes"]),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.array(["2019-10-27"], dtype="datetime64[D]"),
        np.array([1j]),
    ],
)
def test_arrays_of_something_else_than_numbers(array: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="wanted arrays of numbers only, given the type"):
        _read({"model": {"a": array}}, tmp_path)


def test_pickled_state_changes_nothing(tmp_path: Path) -> None:
    """A file that tries to replace what the reader calls, in the dict and in the slots of an admitted name."""
    reconstruct = b"cnumpy.core.multiarray\n_reconstruct\n"
    for state in (b"}U\x05_makeNs", b"N}U\x05_makeNs\x86"):
        with pytest.raises(CheckpointError, match="a change of NumPy itself"):
            _read_bytes(b"\x80\x02" + reconstruct + state + b"b.", tmp_path)
    assert _read({"a": np.ones(1)}, tmp_path)["a"].tolist() == [1]


def test_constructors_with_other_arguments(tmp_path: Path) -> None:
    ndarray, dtype = b"cnumpy\nndarray\n", b"cnumpy\ndtype\n"
    for written, message in [
        (ndarray + b"K\x05\x85R.", "numpy's _reconstruct only"),
        (b"cnumpy.core.multiarray\n_reconstruct\n" + dtype + b"K\x00\x85U\x01b\x87R.", "wanted numpy.ndarray"),
        (b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.", "text in latin1"),
        (b"}U\x01acnumpy.core.multiarray\n_reconstruct\n" + ndarray + b"K\x00\x85U\x01b\x87Rs.", "without content"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            _read_bytes(b"\x80\x02" + written, tmp_path)


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("protocol", [2, 4])
def test_truncated_files(kept: float, protocol: int, tmp_path: Path) -> None:
    written = pickle.dumps({"model": {"a": np.ones(1000, np.float32)}}, protocol)
    with pytest.raises(CheckpointError, match=r"^weights\.pkl: damaged"):
        _read_bytes(written[: int(kept * len(written))], tmp_path)


def test_damaged_bytes_are_an_error_or_tensors(tmp_path: Path) -> None:
    """Any one byte changed: whatever the reader raises is a CheckpointError."""
    written = bytearray(pickle.dumps({"model": {"a": np.ones(3, np.float32)}}, 2))
    failed = 0
    for position in range(len(written)):
        for value in (0, 46, 82, 98, 255):
            damaged = bytes(written[:position]) + bytes([value]) + bytes(written[position + 1 :])
            try:
                _read_bytes(damaged, tmp_path)
            except CheckpointError:
                failed += 1
    assert failed > len(written)


def test_a_length_beyond_the_memory(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="damaged"):
        _read_bytes(b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"abc.", tmp_path)


def test_bytes_that_do_not_fill_the_shape(tmp_path: Path) -> None:
    array = np.ones(4, np.float32)
    reduced: Any = array.__reduce__()
    function, arguments, (version, _, *rest) = reduced
    for shape in ((5,), (-4,), (2, 1)):
        wrong = (version, shape, *rest)
        with pytest.raises(CheckpointError, match="bytes for shape"):
            _read({"a": Calls(function, *arguments, state=wrong)}, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": {"a": np.ones(1), "epoch": 3}}, r"wanted tensors only; given: epoch \(int\)"),
        ({"a": np.ones(1), "__author__": "x"}, r"wanted tensors only; given: __author__ \(str\)"),
        ([np.ones(1)], "wanted a mapping of names to tensors, given list"),
        ({"model": {}}, "wanted tensors only; given none"),
        ({"model": {3: np.ones(1)}}, "wanted text as names; given: 3"),
    ],
)
def test_what_is_no_state_dict(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        _read(content, tmp_path)
