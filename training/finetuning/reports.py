"""Reports on the epochs: a line of JSON for each, TensorBoard's files where it is installed, and a line to read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.finetuning.whole_files import write_text

LINES = "epochs.jsonl"
TENSORBOARD = "tensorboard"


@dataclass(frozen=True)
class EpochReport:
    """The report on one epoch.

    Attributes:
        epoch: Number of the epoch, from 1.
        step: Number of updates so far.
        rate: Learning rate of the last update, before any layer's own factor.
        train_loss: Mean loss of the epoch's batches.
        val_loss: Cross-entropy on the validation images, without smoothing.
        accuracy: Share of validation images whose highest logit is their label, 0 … 1.
        top5: Share of those whose label is among the five highest; None where there are at most five classes.
        per_class: Accuracy by class.
        best: Flag for an accuracy above that of all epochs before.
        seconds: Seconds since the epoch before, as far as this process trained it.
    """

    epoch: int
    step: int
    rate: float
    train_loss: float
    val_loss: float
    accuracy: float
    top5: float | None
    per_class: Mapping[str, float]
    best: bool
    seconds: float

    @property
    def line(self) -> str:
        """Line for whoever watches."""
        worst = min(self.per_class, key=lambda name: self.per_class[name])
        best = ", the best so far" if self.best else ""
        return (
            f"epoch {self.epoch}: loss {self.train_loss:.4f}, on val {self.val_loss:.4f}, "
            f"accuracy {self.accuracy:.2%}{best}; lowest {worst} {self.per_class[worst]:.2%}"
        )


def best_of(reports: Sequence[EpochReport]) -> EpochReport | None:
    """Report of the highest accuracy, the first of several; None without reports."""
    return max(reports, key=lambda report: report.accuracy, default=None)


def write_lines(out: Path, reports: Sequence[Any]) -> None:
    """Write all reports, dataclasses each, one JSON object a line."""
    lines = [json.dumps(asdict(report), ensure_ascii=False) for report in reports]
    write_text(out / LINES, "".join(f"{line}\n" for line in lines))


class Board:
    """TensorBoard's files of a run, or nothing where tensorboard is not installed."""

    def __init__(self, out: Path, epochs_before: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._writer: Any = None
        else:
            # What an interrupted run wrote of epochs that come again is hidden.
            self._writer = SummaryWriter(out / TENSORBOARD, purge_step=epochs_before + 1)

    def add(self, report: EpochReport) -> None:
        """Write one epoch's numbers."""
        if self._writer is None:
            return
        for name in ("train_loss", "val_loss", "accuracy", "top5", "rate"):
            if (value := getattr(report, name)) is not None:
                self._writer.add_scalar(name, value, report.epoch)
        for name, value in report.per_class.items():
            self._writer.add_scalar(f"per_class/{name}", value, report.epoch)
        self._writer.flush()

    def close(self) -> None:
        """Close the files."""
        if self._writer is not None:
            self._writer.close()
