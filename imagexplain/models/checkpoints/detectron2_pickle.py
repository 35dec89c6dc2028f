"""Reader of the pickles of NumPy arrays that detectron2 publishes, which runs nothing of what is in them.

A ``.pkl`` of detectron2's model zoo (https://github.com/facebookresearch/detectron2) is a pickle of ``{"model": {name:
array}, "__author__": …, "matching_heuristics": …}``, or of ``{name: array}`` alone. A pickle is a program that may call
whatever it names. Here it may name the few constructors with which NumPy writes arrays of numbers, and even these are
stand-ins of our own: they note what the array would be, and NumPy sees it only after it was checked. Everything else
ends the reading before anything is called.

The stand-ins refuse what pickled state could change about them, so that one file leaves nothing behind for the next.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import torch

_NUMBERS = re.compile(r"f[248]|[iu][1248]|b1")


def load(path: Path) -> Any:
    """Content of a pickle, its arrays as tensors.

    Raises:
        pickle.UnpicklingError: the file names something else than NumPy's constructors of arrays, holds an array of
            something else than numbers, or is damaged. A damaged file raises other exceptions too: EOFError,
            ValueError, TypeError, LookupError, AttributeError, RecursionError.
    """
    with path.open("rb") as file:
        try:
            # Python 2 wrote the bytes of an array as text.
            return _with_tensors(_Reader(file, encoding="latin1").load())
        except (MemoryError, OverflowError) as error:
            raise pickle.UnpicklingError("a length in it is beyond the memory") from error


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"wanted arrays of numbers only, given {module}.{name}")
        return _ADMITTED[module, name]

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError(f"wanted arrays of numbers only, given a persistent id {pid!r}")


class _Constructor:
    """Stand-in for a function or class that the pickle may call."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __setstate__(self, state: Any) -> NoReturn:
        raise pickle.UnpicklingError("wanted arrays of numbers only, given a change of NumPy itself")


class _Type:
    """Stand-in for a ``numpy.dtype``: a code as ``f4``, then its byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any, *_: Any) -> None:
        if not (isinstance(code, str) and _NUMBERS.fullmatch(code)):
            raise pickle.UnpicklingError(f"wanted arrays of numbers only, given the type {code!r}")
        self.code = code
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, subarray, names, fields, *_ = state
        if order not in ("<", ">", "=", "|") or (subarray, names, fields) != (None, None, None):
            raise pickle.UnpicklingError(f"wanted arrays of numbers only, given a structure of {self.code}")
        self.order = order

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.code)


class _Array:
    """Stand-in for a ``numpy.ndarray``, empty until its state arrives."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, columns_first, content = state
        self.value = _array(shape, kind, content, "F" if columns_first else "C")

    def tensor(self) -> torch.Tensor:
        if self.value is None:
            raise pickle.UnpicklingError("wanted arrays of numbers only, given one without content")
        # A copy: in the machine's byte order, and with memory that may be written.
        return torch.from_numpy(np.array(self.value, self.value.dtype.newbyteorder("="), order="C"))


def _array(shape: Any, kind: Any, content: Any, order: Literal["C", "F"]) -> np.ndarray:
    if not isinstance(kind, _Type):
        raise pickle.UnpicklingError(f"wanted a type of numbers, given {type(kind).__name__}")
    if isinstance(content, str):
        content = content.encode("latin1")
    if not isinstance(content, bytes):
        raise pickle.UnpicklingError(f"wanted the bytes of an array, given {type(content).__name__}")
    dtype = kind.numpy()
    wanted = prod(shape) * dtype.itemsize
    if len(content) != wanted or min(shape, default=0) < 0:
        raise pickle.UnpicklingError(f"wanted {wanted} bytes for shape {shape}, given {len(content)}")
    return np.ndarray(shape, dtype, content, order=order)


def _reconstruct(kind: Any, *_: Any) -> _Array:
    if kind is not _NDARRAY:
        raise pickle.UnpicklingError(f"wanted numpy.ndarray, given {kind!r}")
    return _Array()


def _scalar(kind: Any, content: Any) -> _Array:
    scalar = _Array()
    scalar.value = _array((), kind, content, "C")
    return scalar


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError(f"wanted text in latin1, given {type(text).__name__} in {encoding!r}")
    return text.encode("latin1")


def _never(*_: Any) -> NoReturn:
    raise pickle.UnpicklingError("wanted numpy.ndarray through numpy's _reconstruct only")


_NDARRAY = _Constructor(_never)

_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Constructor(_Type),
    # How protocol 2 writes bytes; none at all are a call without arguments.
    ("_codecs", "encode"): _Constructor(_encode),
    ("__builtin__", "bytes"): _Constructor(lambda: b""),
    ("collections", "OrderedDict"): dict,
    # NumPy 1 and 2 call the same module differently.
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Constructor(_reconstruct) for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _Constructor(_scalar) for core in ("core", "_core")},
}


def _with_tensors(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _with_tensors(value) for name, value in content.items()}
    return content.tensor() if isinstance(content, _Array) else content
