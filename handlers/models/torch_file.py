"""Reads ``torch.save`` files that hold more than tensors, as training frameworks write them, without running any of it.

A pickle names classes and functions, and unpickling calls them. ``torch.load(weights_only=True)`` refuses a file that
names any it does not know: a log history, a configuration, an optimiser. Here the few names from which tensors and
containers are built stand for functions of this file, and every other name, whatever it names, stands for
:class:`Placeholder`, which takes any arguments and does nothing. Nothing is imported, nothing of the file's is called,
and what is no tensor is dropped.

Both containers are read: the ZIP archive of torch 1.6 and later, and the pickles in a row that came before. A tensor's
bytes are read only when it is in the state dict: an optimiser's, twice as many, are not.

Provenance: the layouts are facts of PyTorch's ``torch/serialization.py`` (https://github.com/pytorch/pytorch,
BSD-3-Clause); no code of PyTorch's is here.
"""

from __future__ import annotations

import math
import pickle
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import torch
from torch import Tensor

from handlers.models.checkpoint import CheckpointError, named_tensors

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
"""Storage classes of the ``torch`` module by name, and what they hold."""


def read(path: Path | str) -> dict[str, Tensor]:
    """The state dict of a file, floats as float32, on the CPU; everything beside it is dropped.

    Args:
        path: what ``torch.save`` wrote: a state dict, flat or under one of :data:`checkpoint.WRAPPERS`.

    Raises:
        CheckpointError: a damaged file, one that is no ``torch.save`` file, or a state dict that holds something else
            than tensors. Nothing in the file is executed.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    with path.open("rb") as file:
        try:
            return named_tensors(_tensors(_content(file)), path.name)
        except _DAMAGE as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise CheckpointError(f"{path.name}: damaged, or not written by torch.save: {reason}") from error


class Placeholder:
    """Stands for an object of a class that is not built. Swallows whatever a pickle does to an object."""

    __slots__ = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> Placeholder:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Placeholder:
        return self

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, item: Any) -> None:
        """What a pickle calls on a list's heir."""

    def extend(self, items: Any) -> None:
        """The same for many items."""

    def add(self, item: Any) -> None:
        """What a pickle calls on a set's heir."""


class _Names(dict):
    """Stands for ``OrderedDict``; a state dict carries attributes (versions of its modules), which are dropped."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None: ...


class _Storage(Protocol):
    """Numbers of one type in a file."""

    def load(self) -> Tensor:
        """All of them, (n,)."""


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor before its storage is read: which numbers of the storage it shows."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def load(self) -> Tensor:
        """The tensor, sharing no memory with another.

        Raises:
            ValueError: the view does not lie within the storage.
        """
        numbers = self.storage.load()
        whole = (self.offset, *self.shape, *self.strides)
        if not all(type(number) is int and number >= 0 for number in whole) or len(self.shape) != len(self.strides):
            raise ValueError(f"a tensor at offset {self.offset} of shape {self.shape} and strides {self.strides}")
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        count = math.prod(map(int, self.shape))
        # A stride of zero repeats a number; what was saved from an expanded tensor must not fill the memory here.
        if count > len(numbers) or (count and last >= len(numbers)):
            raise ValueError(f"a tensor of {list(self.shape)} in a storage of {len(numbers)} numbers")
        return numbers.as_strided(self.shape, self.strides, self.offset).clone(memory_format=torch.contiguous_format)


class _RebuildTensor:
    """Stands for torch's function that builds a tensor; an object, since a pickle can write into a function."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: int, shape: Any, strides: Any, *flags: Any) -> Any:
        return _View(storage, offset, tuple(shape), tuple(strides))

    def __setstate__(self, state: Any) -> None: ...


class _RebuildParameter:
    """Stands for torch's function that makes a parameter of a tensor."""

    __slots__ = ()

    def __call__(self, tensor: Any, *flags: Any) -> Any:
        return tensor

    def __setstate__(self, state: Any) -> None: ...


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Names,
    ("torch._utils", "_rebuild_tensor"): _RebuildTensor(),
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
    # A storage class is named only to say what it holds.
    **{("torch", name): name for name in DTYPES},
}


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows :data:`_KNOWN` and :class:`Placeholder`."""

    def __init__(self, file: BinaryIO, storage: Callable[[tuple[Any, ...]], Any]) -> None:
        super().__init__(file, encoding="utf-8")
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the pickle stands for; imports nothing."""
        return _KNOWN.get((module, name), Placeholder)

    def persistent_load(self, identifier: Any) -> Any:
        """A storage, or a class of a model with its source code, which is not built."""
        return self._storage(identifier) if identifier[0] == "storage" else Placeholder()


def _content(file: BinaryIO) -> Any:
    """The outermost object, with a :class:`_View` for every tensor and a :class:`Placeholder` for every other class."""
    archive = zipfile.is_zipfile(file)
    file.seek(0)
    return _zipped(zipfile.ZipFile(file)) if archive else _legacy(file)


def _tensors(content: Any) -> Any:
    """Reads the tensors of a state dict, or of the state dicts that a mapping holds."""
    if not isinstance(content, Mapping):
        return content
    return {
        name: value.load()
        if isinstance(value, _View)
        else {inner: view.load() if isinstance(view, _View) else view for inner, view in value.items()}
        if isinstance(value, Mapping)
        else value
        for name, value in content.items()
    }


@dataclass(frozen=True, slots=True)
class _Record:
    """A storage in an archive."""

    archive: zipfile.ZipFile
    name: str
    dtype: torch.dtype

    def load(self) -> Tensor:
        """The record's numbers."""
        return _numbers(_stored(self.archive, self.name), self.dtype)


def _zipped(archive: zipfile.ZipFile) -> Any:
    names = archive.namelist()
    pickles = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise ValueError(f"wanted one data.pkl in the archive, given {len(pickles)}")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in names and _stored(archive, f"{folder}byteorder") != b"little":
        raise ValueError("wanted little-endian numbers")

    def storage(identifier: tuple[Any, ...]) -> _Record:
        _, kind, key, *_ = identifier
        return _Record(archive, f"{folder}data/{key}", _dtype(kind))

    return _Unpickler(BytesIO(_stored(archive, pickles[0])), storage).load()


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """A record's bytes. None is larger than the file: torch compresses nothing, so neither may others."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    return archive.read(name)


@dataclass(slots=True)
class _Part:
    """A storage in a file of pickles in a row: where its numbers lie is known only at the end of the pickles."""

    dtype: torch.dtype
    count: int
    numbers: Tensor | None = None

    def load(self) -> Tensor:
        """The part's numbers."""
        if self.numbers is None:
            raise ValueError("a tensor whose numbers are not in the file")
        return self.numbers


def _legacy(file: BinaryIO) -> Any:
    parts: dict[Any, _Part] = {}

    def storage(identifier: tuple[Any, ...]) -> _Part:
        _, kind, key, _, count, view = identifier
        if view is not None:
            raise ValueError("a storage that is part of another")
        return parts.setdefault(key, _Part(_dtype(kind), count))

    def following() -> Any:
        return _Unpickler(file, storage).load()

    if following() != LEGACY_MAGIC or following() != LEGACY_PROTOCOL:
        raise ValueError("neither an archive nor the older format")
    if not following()["little_endian"]:
        raise ValueError("wanted little-endian numbers")
    content = following()
    for key in following():
        part = parts[key]
        if int.from_bytes(_exactly(file, 8), "little") != part.count:
            raise ValueError(f"a storage of another size than {part.count}")
        part.numbers = _numbers(_exactly(file, part.count * part.dtype.itemsize), part.dtype)
    return content


def _exactly(file: BinaryIO, count: int) -> bytes:
    content = file.read(count) if count >= 0 else b""
    if len(content) != count:
        raise EOFError(f"wanted {count} more bytes, given {len(content)}")
    return content


def _numbers(content: bytes, dtype: torch.dtype) -> Tensor:
    """The numbers in these bytes, (n,); a part of a number at the end is an error."""
    return torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.empty(0, dtype=dtype)


def _dtype(kind: Any) -> torch.dtype:
    if kind not in DTYPES:
        raise ValueError(f"wanted a storage of {', '.join(DTYPES)}")
    return DTYPES[kind]


# What reading such files, truncated at every length and with any byte changed, was seen to raise.
_DAMAGE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    EOFError,
    OSError,
    MemoryError,
    OverflowError,
)
