"""Folder of a run, from which it is resumed and its weights are served.

- ``best.pth``: weights of the best epoch; ``last.pth``: those of the last step, with all that a resumed run needs. Both
  have the form of MAE's checkpoints, ``{"model": state dict, …}``, which archives take as weights without unpickling
  anything, and the names of the classes.
- ``labels.json``: names of the classes, by label.
- ``epochs.jsonl``: a line for each epoch.

Each file is written beside its place and renamed: an interruption leaves the one before.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import torch
from torch import nn

from imagexplain.errors import ArgumentError
from training.finetuning.labelled_images import digest
from training.finetuning.whole_files import replace, write_text

Report = TypeVar("Report")
"""Dataclass of what is said of an epoch."""

BEST = "best.pth"
LAST = "last.pth"
LABELS = "labels.json"


@dataclass
class Progress(Generic[Report]):
    """The point that a run has come to.

    Attributes:
        step: Number of updates so far.
        losses: Loss of every batch so far, the mean over processes.
        reports: Reports on the epochs so far.
    """

    step: int = 0
    losses: list[float] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)


class NonFiniteError(RuntimeError):
    """A loss or a weight that is no finite number.

    Attributes:
        step: Number of the update that was being made, from 1.
    """

    def __init__(self, step: int, message: str) -> None:
        super().__init__(step, message)
        self.step = step
        self.message = message

    def __str__(self) -> str:
        return f"step {self.step}: {self.message}"


@dataclass(frozen=True)
class RunFolder(Generic[Report]):
    """The files of a run.

    Attributes:
        path: Its folder.
        classes: Names of the classes, by label.
        identity: Facts that a resumed run shares with the one that was interrupted: settings and fingerprints.
        report: Dataclass of the reports on epochs.
    """

    path: Path
    classes: tuple[str, ...]
    identity: Mapping[str, Any]
    report: type[Report]

    @property
    def best(self) -> Path:
        """File of the best epoch."""
        return self.path / BEST

    @property
    def last(self) -> Path:
        """File of the last step."""
        return self.path / LAST

    def start(self) -> None:
        """Make the folder, and write the labels."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.path / LABELS, json.dumps(self.classes, indent=0, ensure_ascii=False) + "\n")

    def check(self, network: nn.Module, progress: Progress[Report]) -> None:
        """Check that weights are fit to be saved.

        Raises:
            NonFiniteError: one is no finite number.
        """
        odd = [name for name, tensor in network.state_dict().items() if not tensor.isfinite().all()]
        if odd:
            more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
            raise NonFiniteError(progress.step, f"wanted finite weights, got others in {odd[0]}{more}; {self.kept()}")

    def save_best(self, network: nn.Module, epoch: int) -> None:
        """Write the best weights so far."""
        self._save(self.best, {"model": network.state_dict(), "epoch": epoch})

    def save_last(self, network: nn.Module, parts: Mapping[str, Any], progress: Progress[Report]) -> None:
        """Write all of a run.

        Args:
            network: Network as it is.
            parts: Objects with a ``state_dict()``, by name.
            progress: Point that the run has come to.
        """
        content = {
            "model": network.state_dict(),
            **{name: part.state_dict() for name, part in parts.items()},
            "epoch": len(progress.reports),
            "step": progress.step,
            "losses": torch.tensor(progress.losses, dtype=torch.float64),
            "reports": [asdict(cast(Any, report)) for report in progress.reports],
        }
        self._save(self.last, content)

    def kept(self) -> str:
        """Sentence that says what is left of a run that failed."""
        if not self.last.is_file():
            return "nothing was saved before"
        return f"{self.last} has the weights after step {_load(self.last)['step']}"

    def load_last(self, network: nn.Module, parts: Mapping[str, Any]) -> Progress[Report]:
        """Give a network and the other parts what the run before left, if there was one.

        Raises:
            ArgumentError: the folder is another run's; says in what it differs.
        """
        if not self.last.is_file():
            return Progress()
        content = _load(self.last)
        before = content.get("args", {})
        for name, value in self.identity.items():
            if name not in before or before[name] != value:
                wanted = f"wanted {_short(before.get(name))}, as in the run that is in {self.path}, got {_short(value)}"
                raise ArgumentError(name, f"{wanted}; another run wants another folder")
        network.load_state_dict(content["model"])
        for name, part in parts.items():
            part.load_state_dict(content[name])
        reports = [self.report(**report) for report in content["reports"]]
        return Progress(content["step"], content["losses"].tolist(), reports)

    def load_best(self, network: nn.Module) -> None:
        """Give a network the weights of the best epoch."""
        network.load_state_dict(_load(self.best)["model"])

    def _save(self, file: Path, content: Mapping[str, Any]) -> None:
        whole = {**content, "classes": list(self.classes), "args": dict(self.identity)}
        replace(file, _writer(whole))


def _writer(content: Mapping[str, Any]) -> Callable[[Path], None]:
    return lambda partial: torch.save(content, partial)


def _load(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return content


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def plain(value: Any) -> Any:
    """Value with lists for tuples, as it comes back from a file."""
    return list(value) if isinstance(value, tuple) else value


def network_fingerprint(network: nn.Module) -> str:
    """Digest of a network's layers, with settings such as the rate of drop path, and of its weights."""
    layers = re.sub(r" at 0x[0-9a-f]+", "", repr(network))
    return hashlib.sha256(f"{layers} {digest(network.state_dict().items())}".encode()).hexdigest()
