"""Reader of ``torch.save`` files that hold more than tensors, as training frameworks write them; it runs none of it.

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
from collections.abc import Callable
from dataclasses import dataclass
from io import SEEK_CUR, SEEK_END, BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from imagexplain.models.checkpoints.state_dict import CheckpointError, StateDict, state_dict

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
"""Storage classes of the ``torch`` module by name, and the dtypes that they hold."""

OTHERS = {
    "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16,
    "QInt8Storage": 1,
    "QUInt8Storage": 1,
    "QInt32Storage": 4,
}
"""Storage classes of numbers that no network here has, by name, and the bytes of a number: they are passed over."""

UNTYPED = "UntypedStorage"
UNTYPED_DTYPES = ("float8_e4m3fn", "float8_e5m2", "uint16", "uint32", "uint64")
"""Types that have no storage class of their own: their tensors say what the bytes are."""

SIZES = {**{name: dtype.itemsize for name, dtype in DTYPES.items()}, **OTHERS, UNTYPED: 1}
"""Bytes of a number of each storage class."""


EXPANDED = 1 << 24
"""Largest number of values of a tensor that repeats those of its storage, as one saved from an expanded tensor does."""


def read(path: Path | str) -> dict[str, Tensor]:
    """Tensors from :func:`load`, whose argument and errors these are."""
    return load(path).tensors


def load(path: Path | str) -> StateDict:
    """Read the state dict of a file, floats as float32, on the CPU; everything beside it is dropped.

    Args:
        path: File that ``torch.save`` wrote: a state dict, flat or under one of :data:`state_dict.WRAPPERS`.

    Returns:
        Tensors that share a storage in the file are views of one storage here: it is read once, however many names it
        has.

    Raises:
        CheckpointError: a damaged file, one that is no ``torch.save`` file, or a state dict that holds something else
            than tensors. Nothing in the file is executed.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    with path.open("rb") as file:
        try:
            return state_dict(_content(file), path.name)
        except _DAMAGE as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise CheckpointError(f"{path.name}: damaged, or holds more than tensors: {reason}") from error


class Placeholder:
    """Stand-in for an object of a class that is not built. Swallows whatever a pickle does to an object.

    Attributes:
        stands_for: Name of the class or function in the file.
    """

    __slots__ = ()
    stands_for = "an unnamed class"

    def __new__(cls, *args: Any, **kwargs: Any) -> Placeholder:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Placeholder:
        return self

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, item: Any) -> None:
        """Accept the call of a pickle to a list's heir."""

    def extend(self, items: Any) -> None:
        """Accept the same call for many items."""

    def add(self, item: Any) -> None:
        """Accept the call of a pickle to a set's heir."""


class _Names(dict):
    """Stand-in for ``OrderedDict``; a state dict carries attributes (versions of its modules), which are dropped."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None: ...


class _Storage:
    """Numbers of one type in a file, read when a tensor first wants them."""

    __slots__ = ("_kind", "_numbers", "_read")

    def __init__(self, kind: Any, read: Callable[[], bytes]) -> None:
        self._kind = kind
        self._read = read
        self._numbers: dict[torch.dtype, Tensor] = {}

    def numbers(self, dtype: torch.dtype | None) -> Tensor:
        """Read all numbers, (n,), floats as float32.

        Args:
            dtype: Type that a storage of plain bytes holds, which the tensor says; for others, the storage's class says
                it.

        Raises:
            ValueError: another class than those of :data:`DTYPES`.
        """
        if dtype is None or self._kind != UNTYPED:
            if self._kind not in DTYPES:
                raise ValueError(f"wanted a storage of {', '.join(DTYPES)}, given {self._kind}")
            dtype = DTYPES[self._kind]
        if dtype not in self._numbers:
            content = self._read()
            # A part of a number at the end is an error.
            numbers = torch.frombuffer(bytearray(content), dtype=dtype) if content else torch.empty(0, dtype=dtype)
            self._numbers[dtype] = numbers.float() if dtype.is_floating_point else numbers
        return self._numbers[dtype]


@dataclass(frozen=True, slots=True)
class _View:
    """Tensor before its storage is read: which numbers of the storage it shows, and their type where it says so."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype | None = None

    def load(self) -> Tensor:
        """Load the tensor, a view of its storage.

        Raises:
            ValueError: the view does not lie within the storage, or shows it more often than memory allows.
        """
        numbers = self.storage.numbers(self.dtype)
        whole = (self.offset, *self.shape, *self.strides)
        if not all(type(number) is int and number >= 0 for number in whole) or len(self.shape) != len(self.strides):
            raise ValueError(f"a tensor at offset {self.offset} of shape {self.shape} and strides {self.strides}")
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        count = math.prod(self.shape)
        # A stride of zero repeats a number: whoever copies such a tensor fills the memory.
        if count > max(len(numbers), EXPANDED) or (count and last >= len(numbers)):
            raise ValueError(f"a tensor of {list(self.shape)} in a storage of {len(numbers)} numbers")
        return numbers.as_strided(self.shape, self.strides, self.offset)


class _RebuildTensor:
    """Stand-in for torch's functions that build a tensor; an object, since a pickle can write into a function."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: int, shape: Any, strides: Any, *more: Any) -> Any:
        # The third of the functions names the type, behind the flag for gradients and the hooks.
        dtype = next((each for each in more if isinstance(each, torch.dtype)), None)
        return _View(storage, offset, tuple(shape), tuple(strides), dtype)

    def __setstate__(self, state: Any) -> None: ...


class _RebuildParameter:
    """Stand-in for torch's functions that make a parameter of a tensor."""

    __slots__ = ()

    def __call__(self, tensor: Any, *flags: Any) -> Any:
        return tensor

    def __setstate__(self, state: Any) -> None: ...


class _RebuildFromType:
    """Stand-in for torch's function that builds a tensor with attributes or of its own class: the plain tensor."""

    __slots__ = ()

    def __call__(self, rebuild: Any, kind: Any, arguments: Any, state: Any) -> Any:
        return rebuild(*arguments)

    def __setstate__(self, state: Any) -> None: ...


_KNOWN: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Names,
    ("torch._utils", "_rebuild_tensor"): _RebuildTensor(),
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_tensor_v3"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
    ("torch._utils", "_rebuild_parameter_with_state"): _RebuildParameter(),
    ("torch._tensor", "_rebuild_from_type_v2"): _RebuildFromType(),
    # A storage class is named only to say what it holds, and so is a type of numbers.
    **{("torch", name): name for name in (*DTYPES, *OTHERS)},
    ("torch.storage", UNTYPED): UNTYPED,
    **{("torch", name): getattr(torch, name) for name in UNTYPED_DTYPES if hasattr(torch, name)},
}


class _Unpickler(pickle.Unpickler):
    """An unpickler that knows :data:`_KNOWN` and :class:`Placeholder`."""

    def __init__(self, file: BinaryIO, storage: Callable[[tuple[Any, ...]], Any]) -> None:
        super().__init__(file, encoding="utf-8")
        self._storage = storage
        self._placeholders: dict[tuple[str, str], type[Placeholder]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Stand-in for what a name in the pickle means; imports nothing."""
        known = _KNOWN.get((module, name))
        return self._placeholder(module, name) if known is None else known

    def persistent_load(self, identifier: Any) -> Any:
        """Storage, or a class of a model with its source code, which is not built."""
        return self._storage(identifier) if identifier[0] == "storage" else identifier[1]

    def _placeholder(self, module: str, name: str) -> type[Placeholder]:
        if (module, name) not in self._placeholders:
            named = {"__slots__": (), "stands_for": f"{module}.{name}"}
            self._placeholders[module, name] = type("Placeholder", (Placeholder,), named)
        return self._placeholders[module, name]


def _content(file: BinaryIO) -> Any:
    """Outermost object, with a :class:`_View` for every tensor and a :class:`Placeholder` for every other class."""
    if zipfile.is_zipfile(file):
        return _zipped(zipfile.ZipFile(file))
    file.seek(0)
    if file.read(4) == b"PK\x03\x04":
        raise ValueError("an archive without its end, as an interrupted download leaves it")
    file.seek(0)
    return _legacy(file)


def _zipped(archive: zipfile.ZipFile) -> Any:
    names = archive.namelist()
    pickles = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise ValueError(f"wanted one data.pkl in the archive, given {len(pickles)}")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in names:
        save = "torch.save(torch.jit.load(file).state_dict(), other)"
        raise ValueError(f"a TorchScript archive, which is a program; wanted its weights alone: {save}")
    if f"{folder}byteorder" in names and _stored(archive, f"{folder}byteorder") != b"little":
        raise ValueError("wanted little-endian numbers")
    storages: dict[Any, _Storage] = {}

    def storage(identifier: tuple[Any, ...]) -> _Storage:
        _, kind, key, *_ = identifier
        record = _Storage(kind, lambda: _stored(archive, f"{folder}data/{key}"))
        return storages.setdefault((kind, key), record)

    return _Unpickler(BytesIO(_stored(archive, pickles[0])), storage).load()


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    """Bytes of a record. None is larger than the file: torch compresses nothing, so neither may others."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    return archive.read(name)


def _legacy(file: BinaryIO) -> Any:
    """Pickles in a row, then the storages: where their numbers lie is known only at the end of the pickles."""
    sizes: dict[Any, int] = {}
    places: dict[Any, int] = {}
    storages: dict[Any, _Storage] = {}

    def read(key: Any) -> bytes:
        if key not in places:
            raise ValueError("a tensor whose numbers are not in the file")
        file.seek(places[key])
        return _exactly(file, sizes[key])

    def storage(identifier: tuple[Any, ...]) -> _Storage:
        _, kind, key, _, count, view = identifier
        if view is not None:
            raise ValueError("a storage that is part of another")
        if kind not in SIZES:
            raise ValueError(f"wanted a storage of {', '.join(DTYPES)}, given {kind}")
        sizes.setdefault(key, count * SIZES[kind])
        return storages.setdefault((kind, key), _Storage(kind, lambda: read(key)))

    def following() -> Any:
        return _Unpickler(file, storage).load()

    if following() != LEGACY_MAGIC or following() != LEGACY_PROTOCOL:
        raise ValueError("neither an archive nor the older format")
    if not following()["little_endian"]:
        raise ValueError("wanted little-endian numbers")
    content, keys = following(), following()
    end = _length(file)
    sizes_of_numbers = {key: SIZES[kind] for kind, key in storages}
    for key in keys:
        count = int.from_bytes(_exactly(file, 8), "little")
        if count * sizes_of_numbers[key] != sizes[key]:
            raise ValueError(f"a storage of {count} numbers, of which its tensors know otherwise")
        places[key] = file.tell()
        if places[key] + sizes[key] > end:
            raise EOFError(f"wanted {sizes[key]} more bytes, given {end - places[key]}")
        file.seek(sizes[key], SEEK_CUR)
    return content


def _length(file: BinaryIO) -> int:
    here = file.tell()
    end = file.seek(0, SEEK_END)
    file.seek(here)
    return end


def _exactly(file: BinaryIO, count: int) -> bytes:
    content = file.read(count) if count >= 0 else b""
    if len(content) != count:
        raise EOFError(f"wanted {count} more bytes, given {len(content)}")
    return content


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
