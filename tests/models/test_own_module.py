"""Networks of a user's own code: what is imported, which class is taken, and what is told of the code's mistakes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

from imagexplain.errors import ArgumentError
from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.checkpoints.checkpoint import CheckpointError
from imagexplain.models.classifiers import own_module
from tests.models.same import assert_same_network

NET = """
from torch import nn

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)

    def forward(self, images):
        return self.conv(images).mean((2, 3))

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.model = Block(width)

    def forward(self, images):
        return self.model(images)

def make(width):
    return Net(width)
"""


def written(folder: Path, code: str, name: str = "net.py") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code)
    return path


@pytest.mark.parametrize(("factory", "arguments"), [("Net", {}), ("Net", {"width": 6}), ("make", {"width": 5})])
def test_a_class_or_a_function_makes_the_network(factory: str, arguments: dict[str, int], tmp_path: Path) -> None:
    """The names of the tensors keep a prefix that is the network's own, though it looks like a trainer's."""
    path = written(tmp_path, NET)
    network = getattr(own_module.load(path), factory)(**arguments).eval()
    torch.save(network.state_dict(), tmp_path / "net.pth")
    state = checkpoint.read(tmp_path / "net.pth")
    assert "conv.weight" in state, "without the prefix"
    before = list(sys.path)
    found = own_module.build(path, factory, state, arguments)
    assert not found.training and sys.path == before
    assert_same_network(found, network, torch.rand(2, 3, 8, 8))
    assert_same_network(
        own_module.build(path, factory, network.state_dict(), arguments), network, torch.rand(1, 3, 8, 8)
    )


def test_the_only_class_needs_no_name(tmp_path: Path) -> None:
    path = written(tmp_path, NET.replace("class Block(", "class _Block(").replace("Block(width)", "_Block(width)"))
    state = own_module.load(path).Net().state_dict()
    assert type(own_module.build(path, None, state, {})).__name__ == "Net"


def test_a_package_of_several_files(tmp_path: Path) -> None:
    written(tmp_path, "from .blocks.conv import Block as Net\n", "nets/__init__.py")
    written(tmp_path, "", "nets/blocks/__init__.py")
    written(
        tmp_path,
        NET.replace("from torch import nn", "from torch import nn\nfrom ..sizes import WIDTH"),
        "nets/blocks/conv.py",
    )
    written(tmp_path, "WIDTH = 4\n", "nets/sizes.py")
    network = own_module.load(tmp_path / "nets").Net(4)
    found = own_module.build(tmp_path / "nets", "Net", network.state_dict(), {"width": 4})
    assert_same_network(found, network.eval(), torch.rand(2, 3, 8, 8))


def test_two_files_of_one_name_are_two_modules(tmp_path: Path) -> None:
    first, second = (written(tmp_path / name, f"SIZE = {size}\n") for name, size in (("a", 1), ("b", 2)))
    assert (own_module.load(first).SIZE, own_module.load(second).SIZE) == (1, 2)
    assert "net" not in sys.modules


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "import torch\nimport nosuch.part\n",
            "net.py, line 2: wanted modules that this host has, nosuch.part is not inst",
        ),
        ("def f():\n    from nosuch import x\n", "net.py, line 2: wanted modules that this host has, nosuch is not"),
        ("import layers\n", "net.py, line 1: layers lies beside it: several files want the path of their folder"),
        (
            "from .layers import x\n",
            "net.py, line 1: from .layers import x: several files want the path of their folder",
        ),
        ("def f(:\n", "net.py, line 1: invalid syntax"),
        ("from torch import nothing\n", "net.py: net.py, line 1: ImportError: cannot import name 'nothing'"),
        ("x = 1\n\nx / 0\n", "net.py: net.py, line 3: ZeroDivisionError: division by zero"),
        (
            NET,
            "factory: net.py: wanted the name of the class or function that makes the network, one of Block, Net, make",
        ),
        ("def make():\n    return 1\n", "factory: net.py: wanted the name of the class or function"),
    ],
)
def test_mistakes_are_told_with_file_and_line(code: str, message: str, tmp_path: Path) -> None:
    written(tmp_path, "", "layers.py")
    with pytest.raises(ArgumentError, match=f"^module: {re.escape(message)}"):
        own_module.build(written(tmp_path, code), None, {}, {})


def test_imports_that_need_not_be_there(tmp_path: Path) -> None:
    code = """
from typing import TYPE_CHECKING
try:
    import nosuch
except ImportError:
    nosuch = None
if TYPE_CHECKING:
    from nosuch import Thing
"""
    own_module.check_imports(written(tmp_path, code))


def test_a_package_names_files_that_it_lacks(tmp_path: Path) -> None:
    written(tmp_path, "from .nothing import x\nfrom ..other import y\n", "nets/__init__.py")
    with pytest.raises(ArgumentError) as error:
        own_module.check_imports(tmp_path / "nets")
    assert "nets/__init__.py, line 1: from .nothing import x: there is no nets/nothing.py" in str(error.value)
    assert "nets/__init__.py, line 2: from ..other import y: leads out of the package nets" in str(error.value)


@pytest.mark.parametrize(
    ("factory", "arguments", "message"),
    [
        ("Nett", {}, "module: factory: wanted one of net.py's Block, Net, make, given Nett"),
        ("Net", {"depth": 3}, "arguments: Net(depth=3): TypeError: Net.__init__() got an unexpected keyword"),
        ("Net", {"width": "x"}, "arguments: Net(width='x'): net.py, line 7: TypeError"),
        ("nothing", {}, "module: factory: net.py: wanted one that makes a torch.nn.Module, nothing gave a NoneType"),
    ],
)
def test_a_factory_that_does_not_fit(factory: str, arguments: dict[str, object], message: str, tmp_path: Path) -> None:
    path = written(tmp_path, NET if factory != "nothing" else "def nothing():\n    return None\n")
    with pytest.raises(ArgumentError, match=f"^{re.escape(message)}"):
        own_module.build(path, factory, {}, arguments)


def test_every_tensor_is_accounted_for(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"missing: .*; unexpected: other"):
        own_module.build(written(tmp_path, NET), "Net", {"other": torch.zeros(1)}, {})
