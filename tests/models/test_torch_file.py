import logging
import os
import pickle
import zipfile
from collections import Counter, OrderedDict, UserDict, deque
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from imagexplain.models.checkpoints import torch_file
from imagexplain.models.checkpoints.checkpoint import CheckpointError
from tests.models.pickles import Calls
from tests.models.reference import FIXTURES
from tests.models.same import assert_same_tensors

FORMATS = pytest.mark.parametrize("archive", [True, False], ids=["archive", "older"])


class Scheduler:
    """A class of a training script: unpickling it would want this module."""

    def __init__(self) -> None:
        self.history = [1.0]


def state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(6, 4, generator=generator)
    return {
        "float": rows,
        "view": rows[1::2, 1:3],
        "transposed": rows.T,
        "half": rows.half(),
        "bfloat": rows.bfloat16(),
        "double": rows.double(),
        "int": torch.arange(5),
        "bool": torch.tensor([True, False]),
        "scalar": torch.tensor(7),
        "none": torch.zeros(0, 3),
        "parameter": nn.Parameter(rows[0]),
    }


def as_read(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def save(path: Path, content: Any, archive: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=archive)
    return path


@FORMATS
def test_tensors_beside_a_training_run(archive: bool, tmp_path: Path) -> None:
    """What a framework saves: objects of many classes, of which none may be imported or kept."""
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.randn(5, 4)).sum().backward()
    optimiser.step()
    content = {
        "meta": {
            "date": date(2021, 4, 1),
            "array": np.arange(4.0),
            "number": np.float64(0.5),
            "counter": Counter("abc"),
            "queue": deque([1, 2], maxlen=3),
            "set": {1, 2},
            "user": UserDict(a=1),
            "path": Path("work_dirs"),
            "slice": slice(1, 2),
            "type": torch.float16,
            "logger": logging.INFO,
        },
        "state_dict": OrderedDict(state()),
        "optimizer": optimiser.state_dict(),
        "message_hub": Scheduler(),
        "model_class": type(model),
    }
    with pytest.raises(pickle.UnpicklingError):
        torch.load(save(tmp_path / "run.pth", content, archive), weights_only=True)
    assert_same_tensors(torch_file.read(tmp_path / "run.pth"), as_read(state()))


@FORMATS
def test_state_dict_of_a_module(archive: bool, tmp_path: Path) -> None:
    """It carries an attribute `_metadata`."""
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    assert_same_tensors(
        torch_file.read(save(tmp_path / "m.pth", model.state_dict(), archive)), as_read(dict(model.state_dict()))
    )


def test_a_file_of_the_repository() -> None:
    wanted = torch.load(FIXTURES / "lanet/C8_L4_calib.pth", weights_only=True)["model_state_dict"]
    assert_same_tensors(torch_file.read(FIXTURES / "lanet/C8_L4_calib.pth"), as_read(dict(wanted)))


@FORMATS
@pytest.mark.parametrize("where", ["beside", "within"])
def test_nothing_is_run(archive: bool, where: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    calls = [
        Calls(os.system, f"touch {victim}"),
        Calls(eval, f"open({str(victim)!r}, 'w')"),
        Calls(exec, f"open({str(victim)!r}, 'w')"),
        Calls(Path.touch, victim),
        Calls(getattr, Path, "touch"),
        Calls(__import__, "antigravity"),
    ]
    tensors: dict[str, Any] = dict(state())
    content = {"state_dict": tensors, "hook": calls}
    if where == "within":
        tensors["hook"] = calls[0]
    path = save(tmp_path / "hostile.pth", content, archive)
    if where == "within":
        with pytest.raises(CheckpointError, match=r"wanted tensors only; given: hook \(Placeholder\)"):
            torch_file.read(path)
    else:
        assert_same_tensors(torch_file.read(path), as_read(state()))
    assert not victim.exists()
    torch.load(path, weights_only=False)
    assert victim.exists()  # the file was armed


def hostile(content: bytes) -> BytesIO:
    """An archive around a pickle of our own."""
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/data/0", bytes(4 * 4))
    return file


def tensor_pickle(offset: Any, shape: Any, strides: Any, kind: str = "FloatStorage", count: Any = 4) -> bytes:
    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", getattr(torch, kind), "0", "cpu", count) if value is Storage else None

    class Storage: ...

    class Rebuild:
        def __reduce__(self) -> Any:
            return torch._utils._rebuild_tensor_v2, (Storage, offset, shape, strides, False, OrderedDict())

    file = BytesIO()
    Pickler(file, protocol=2).dump({"weight": Rebuild()})
    return file.getvalue()


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (2, 3), (3, 1)),
        (1, (4,), (1,)),
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (3, (2,), (1,)),
        (0, (-2,), (1,)),
        (0, (1 << 40,), (0,)),
        (0, (1 << 62, 1 << 62), (0, 0)),
        (0, (2, 2), (1,)),
        (0.0, (2,), (1,)),
        (0, (True,), (1,)),
        (0, 3, 1),
    ],
)
def test_tensors_beyond_their_storage(offset: Any, shape: Any, strides: Any, tmp_path: Path) -> None:
    (tmp_path / "m.pth").write_bytes(hostile(tensor_pickle(offset, shape, strides)).getvalue())
    with pytest.raises(CheckpointError, match=r"m.pth: damaged"):
        torch_file.read(tmp_path / "m.pth")


def test_a_tensor_within_its_storage(tmp_path: Path) -> None:
    """The counterpart: the archive of the other tests is read where it is right."""
    (tmp_path / "m.pth").write_bytes(hostile(tensor_pickle(1, (3,), (1,))).getvalue())
    assert torch_file.read(tmp_path / "m.pth")["weight"].tolist() == [0, 0, 0]


def test_unknown_numbers(tmp_path: Path) -> None:
    (tmp_path / "m.pth").write_bytes(hostile(tensor_pickle(0, (1,), (1,), "ComplexFloatStorage")).getvalue())
    with pytest.raises(CheckpointError, match="wanted a storage of DoubleStorage"):
        torch_file.read(tmp_path / "m.pth")


@pytest.mark.parametrize(
    "program",
    [
        # builds state into the stand-ins themselves: a class, a function, a placeholder class
        b"ccollections\nOrderedDict\n}(S'update'\nNub.",
        b"ctorch._utils\n_rebuild_tensor_v2\n}(S'__call__'\nNub.",
        b"cos\nsystem\n}(S'__call__'\nNub.",
        b"cos\nsystem\n(N}(S'__new__'\nNutb.",
        b"\x82\x01.",  # an extension that nobody registered
        b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a bytearray of 2^63 − 1
        b"(lp0\n0g1\n.",
        b".",
        b"",
    ],
)
def test_pickles_that_write_into_the_reader(program: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.pth").write_bytes(hostile(b"\x80\x02" + program).getvalue())
    with pytest.raises(CheckpointError):
        torch_file.read(tmp_path / "m.pth")
    test_state_dict_of_a_module(True, tmp_path)


def test_compressed_records_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))
    with pytest.raises(CheckpointError, match=r"data.pkl is compressed"):
        torch_file.read(tmp_path / "bomb.pth")


@FORMATS
def test_truncated_at_every_length(archive: bool, tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.pth", {"state_dict": state(), "run": Scheduler()}, archive).read_bytes()
    path = tmp_path / "part.pth"
    for length in [*range(0, len(whole), 41), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="damaged"):
            torch_file.read(path)


@FORMATS
def test_changed_bytes_never_escape_as_another_error(archive: bool, tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.pth", {"state_dict": state(), "run": Scheduler()}, archive).read_bytes()
    path = tmp_path / "changed.pth"
    refused = 0
    for position in range(0, len(whole), 17):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x15]) + whole[position + 1 :])
        try:
            torch_file.read(path)
        except CheckpointError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": {}}, {"epoch": 3}, Scheduler(), torch.zeros(2)])
def test_no_state_dict(content: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="wanted"):
        torch_file.read(save(tmp_path / "m.pth", content))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        torch_file.read(tmp_path / "m.pth")


def bytes_of(tensors: dict[str, Tensor]) -> int:
    """Memory of all storages, each once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors.values()}
    return sum(storages.values())


@FORMATS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_shared_storage_is_in_memory_once(archive: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    table = torch.arange(1000.0).to(dtype)
    tied = {f"same{index}": table for index in range(60)}
    sliced = {f"part{index}": table[index:] for index in range(60)}
    expanded = {"expanded": table[:1].expand(2000), "row": table[:10].expand(30, 10)}
    read = torch_file.read(save(tmp_path / "m.pth", tied | sliced | expanded, archive))
    assert_same_tensors(read, as_read(tied | sliced | expanded))
    assert bytes_of(read) == 4 * 1000


def test_what_is_expanded_beyond_memory_is_refused(tmp_path: Path) -> None:
    wide = {"w": torch.zeros(1).expand(torch_file.EXPANDED + 1)}
    with pytest.raises(CheckpointError, match=r"w: a tensor of \[16777217\] in a storage of 1 numbers"):
        torch_file.read(save(tmp_path / "m.pth", wide))


def test_types_without_a_storage_class_of_their_own(tmp_path: Path) -> None:
    eighth = torch.tensor([0.5, -2.0]).to(torch.float8_e4m3fn)
    count = torch.tensor([1, 65535], dtype=torch.uint16)
    read = torch_file.read(save(tmp_path / "m.pth", {"eighth": eighth, "count": count}))
    assert read["eighth"].tolist() == [0.5, -2.0] and read["eighth"].dtype == torch.float32
    assert read["count"].tolist() == [1, 65535]


class Tagged(Tensor):
    """A tensor of a class of its own."""


def test_tensors_with_attributes_and_of_other_classes(tmp_path: Path) -> None:
    plain, parameter = torch.arange(3.0), nn.Parameter(torch.ones(2))
    parameter.group = "decayed"  # type: ignore[attr-defined]
    tagged = plain.as_subclass(Tagged)
    read = torch_file.read(save(tmp_path / "m.pth", {"tagged": tagged, "parameter": parameter}))
    assert read["tagged"].tolist() == [0, 1, 2] and read["parameter"].tolist() == [1, 1]
    assert type(read["tagged"]) is Tensor


@FORMATS
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_whole_model_is_refused_and_told_what_to_save(archive: bool, tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    told = r"an object of torch\.nn\.modules\.linear\.Linear, .*torch\.save\(model\.state_dict\(\), file\)"
    with pytest.raises(CheckpointError, match=f"wanted a state dict, given {told}"):
        torch_file.read(save(tmp_path / "m.pth", model, archive))
    with pytest.raises(CheckpointError, match=r"model \(Placeholder\), epoch \(int\); objects of: torch\.nn.*Linear"):
        torch_file.read(save(tmp_path / "m.pth", {"model": model, "epoch": 3}, archive))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_program_is_refused_and_told_what_to_save(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 1)).save(str(tmp_path / "m.pth"))
    with pytest.raises(CheckpointError, match=r"a TorchScript archive.*torch\.jit\.load\(file\)\.state_dict\(\)"):
        torch_file.read(tmp_path / "m.pth")


@FORMATS
def test_numbers_of_an_optimiser_are_passed_over(archive: bool, tmp_path: Path) -> None:
    content = {"optimizer": {"z": torch.zeros(3, dtype=torch.complex64), "m": torch.zeros(5)}, "state_dict": state()}
    assert_same_tensors(torch_file.read(save(tmp_path / "m.pth", content, archive)), as_read(state()))
