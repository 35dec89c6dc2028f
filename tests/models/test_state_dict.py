"""Which of the tensors in a checkpoint file are taken, and under which names."""

from __future__ import annotations

from argparse import Namespace
from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from imagexplain.models.checkpoints.state_dict import CheckpointError, state_dict

RAW = {"stem.weight": torch.zeros(2), "head.bias": torch.zeros(1)}
AVERAGED = {name: tensor + 1 for name, tensor in RAW.items()}


def values(tensors: dict[str, Tensor]) -> dict[str, list[float]]:
    return {name: tensor.tolist() for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    "wrapper",
    ["state_dict", "model", "model_state", "model_state_dict", "ema", "teacher", "network", "net", "weights", "module"],
)
def test_wrappers(wrapper: str) -> None:
    found = state_dict({"epoch": 3, wrapper: OrderedDict(RAW), "args": Namespace(lr=0.1)}, "m.pth")
    assert values(found.tensors) == values(RAW)
    assert (found.taken, found.beside) == (wrapper, ())


@pytest.mark.parametrize(
    ("content", "taken", "beside"),
    [
        ({"state_dict": RAW, "state_dict_ema": AVERAGED}, "state_dict_ema", ("state_dict",)),
        ({"state_dict_ema": AVERAGED}, "state_dict_ema", ()),
        ({"model": RAW, "model_ema": AVERAGED}, "model_ema", ("model",)),
        ({"model_ema": RAW, "state_dict_ema": AVERAGED}, "state_dict_ema", ("model_ema",)),
        ({"model": RAW, "ema": {"decay": 0.9, "module": AVERAGED}}, "ema/module", ("model",)),
        ({"student": RAW, "teacher": AVERAGED}, "teacher", ("student",)),
        # Knowledge of a larger network, by a trainer that distils it.
        ({"teacher": RAW, "model": AVERAGED}, "model", ("teacher",)),
        ({"state_dict_ema": None, "state_dict": AVERAGED}, "state_dict", ()),
        ({"state_dict_ema": {}, "state_dict": AVERAGED}, "state_dict", ()),
        ({"step": torch.tensor(3), "model": {"state_dict": AVERAGED}}, "model/state_dict", ()),
    ],
)
def test_the_averaged_weights_are_taken_where_there_are_some(content: Any, taken: str, beside: tuple[str, ...]) -> None:
    found = state_dict(content, "m.pth")
    assert values(found.tensors) == values(AVERAGED)
    assert (found.taken, found.beside) == (taken, beside)


def test_the_choice_is_timms(tmp_path: Any) -> None:
    from timm.models import load_state_dict

    contents: list[dict[str, Any]] = [
        {"state_dict": RAW, "state_dict_ema": AVERAGED},
        {"model": RAW, "model_ema": AVERAGED},
        {"state_dict": AVERAGED, "model": RAW},
        {"state_dict": {f"module.{name}": tensor for name, tensor in RAW.items()}},
        {f"_orig_mod.{name}": tensor for name, tensor in RAW.items()},
        {f"_orig_mod.module.{name}": tensor for name, tensor in RAW.items()},
        {f"module._orig_mod.{name}": tensor for name, tensor in RAW.items()},
    ]
    for content in contents:
        torch.save(content, tmp_path / "m.pth")
        assert values(state_dict(content, "m.pth").tensors) == values(load_state_dict(str(tmp_path / "m.pth")))


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "net.", "backbone.", "encoder.", "model._orig_mod.module."]
)
def test_prefixes_of_all_names(prefix: str) -> None:
    wrapped = {f"{prefix}{name}": tensor for name, tensor in RAW.items()}
    assert values(state_dict({"state_dict": wrapped}, "m.pth").tensors) == values(RAW)
    some = wrapped | {"other": torch.zeros(1)}
    assert state_dict(some, "m.pth").tensors.keys() == some.keys()


def test_a_model_in_parts_is_one_state_dict() -> None:
    parts = {"first": {"a": torch.ones(1), "b.c": torch.ones(2)}, "second": {"a": torch.zeros(3)}}
    wanted = {"first.a": torch.ones(1), "first.b.c": torch.ones(2), "second.a": torch.zeros(3)}
    assert values(state_dict(parts, "m.th").tensors) == values(wanted)
    within = state_dict({"state_dict": parts, "epoch": 3}, "m.th")
    assert values(within.tensors) == values(wanted) and within.taken == "state_dict"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"first": {"a": torch.ones(1)}, "epoch": 3}, r"wanted tensors only; given: first \(dict\), epoch \(int\)"),
        ({"first": {"a": torch.ones(1)}, "second": {}}, r"wanted tensors only; given: first \(dict\), second \(dict\)"),
        ({"first": {"a": torch.ones(1), "n": 3}}, r"wanted tensors only; given: first \(dict\)"),
        ({"first": {"a": torch.ones(1)}, "w": torch.ones(1)}, r"wanted tensors only; given: first \(dict\)"),
        ({"first": {"deeper": {"a": torch.ones(1)}}}, r"wanted tensors only; given: first \(dict\)"),
        ({"first": {0: torch.ones(1)}}, "wanted text as names; given: 0"),
        ({3: {"a": torch.ones(1)}}, "wanted text as names; given: 3"),
        ({"a.b": {"c": torch.ones(1)}, "a": {"b.c": torch.ones(1)}}, r"wanted each name once; given twice: a\.b\.c"),
    ],
)
def test_parts_are_read_as_strictly(content: dict[Any, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=f"^m\\.th: .*{message}$"):
        state_dict(content, "m.th")


def test_an_average_of_a_network() -> None:
    network = nn.Linear(2, 1)
    averaged = torch.optim.swa_utils.AveragedModel(network)
    averaged.update_parameters(network)
    assert values(state_dict(averaged.state_dict(), "m.pth").tensors) == values(dict(network.state_dict()))
    assert "n_averaged" in state_dict({"n_averaged": torch.tensor(1), "a": torch.zeros(1)}, "m.pth").tensors


@pytest.mark.parametrize(
    ("content", "classes"),
    [
        ({"meta": {"CLASSES": ("cat", "dog")}}, ("cat", "dog")),
        ({"meta": {"dataset_meta": {"classes": ["cat", "dog"]}}}, ("cat", "dog")),
        ({"meta": {"dataset_meta": {"CLASSES": ("cat", "dog")}, "classes": ("wolf",)}}, ("cat", "dog")),
        ({"class_to_idx": {"dog": 1, "cat": 0}}, ("cat", "dog")),
        ({"classes": 2}, None),
        ({"class_to_idx": {"dog": 1, "cat": 1}}, None),
        ({"meta": "a run"}, None),
    ],
)
def test_classes_that_the_file_names(content: dict[str, Any], classes: tuple[str, ...] | None) -> None:
    assert state_dict({"state_dict": RAW, **content}, "m.pth").classes == classes


def test_numbers_that_no_network_here_has() -> None:
    for tensor in (torch.zeros(1, dtype=torch.complex64), torch.zeros(2, 2).to_sparse()):
        with pytest.raises(CheckpointError, match=r"m\.pth: w: wanted real numbers, dense, given torch\."):
            state_dict({"w": tensor}, "m.pth")


def test_messages_hold_nothing_that_a_terminal_obeys() -> None:
    with pytest.raises(CheckpointError) as caught:
        state_dict({"\x1b[31mred\x07": 3, "a": torch.zeros(1)}, "m.pth")
    assert str(caught.value).isprintable() and r"\x1b[31mred\x07 (int)" in str(caught.value)
