"""Visibility of a model's inside: what methods that look into it cannot see in a saved program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from imagexplain.errors import UnsupportedModelError

if TYPE_CHECKING:
    from imagexplain.attribution.registry import Need


def check_visible(model: object, need: Need) -> None:
    """Check that a method can look into a model as far as it has to.

    A module says what cannot be seen in it by an attribute ``unseen``, reasons by need; of TorchScript's it is known.

    Raises:
        UnsupportedModelError: with the reason.
    """
    reason = _unseen(model).get(need)
    if reason is not None:
        raise UnsupportedModelError("model", f"wanted one whose {_SEEN[need]} can be seen, and {reason}")


_SEEN: dict[Need, str] = {"module": "layers", "attention": "attention", "nonlinearities": "non-linearities"}


def _unseen(model: object) -> Mapping[Need, str]:
    if isinstance(model, torch.jit.ScriptModule):
        return dict.fromkeys(_SEEN, "a TorchScript program shows no layers")
    unseen = getattr(model, "unseen", None)
    return unseen if isinstance(unseen, Mapping) else {}
