"""Fine-tuning itself: epochs of updates, each of several batches, and the choice of the best epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from imagexplain.errors import ArgumentError
from imagexplain.progress import say
from training.finetuning.config import FinetuneConfig
from training.finetuning.labelled_images import Batch, LabelledImages, check_sets
from training.finetuning.losses import mixing, training_loss
from training.finetuning.parameter_groups import parameter_groups, set_rate
from training.finetuning.precision import autocast
from training.finetuning.processes import ALONE, Processes
from training.finetuning.randomness import private_randomness, seed_all, seed_of, shuffled
from training.finetuning.reports import Board, EpochReport, best_of, write_lines
from training.finetuning.run_folder import NonFiniteError, RunFolder, network_fingerprint, plain
from training.finetuning.schedule import rate_at
from training.finetuning.validation import validate


@dataclass(frozen=True)
class FinetuneResult:
    """The result of a run.

    Attributes:
        epochs: Reports on all epochs.
        losses: Loss of every batch, the mean over processes.
        best: Checkpoint of the epoch with the highest accuracy on the validation images, the first of several.
        last: Checkpoint of the last step.
        finished: Flag for a run that was not stopped.
    """

    epochs: tuple[EpochReport, ...]
    losses: tuple[float, ...]
    best: Path
    last: Path
    finished: bool

    @property
    def best_epoch(self) -> EpochReport:
        """Report of the best epoch; only after at least one."""
        found = best_of(self.epochs)
        if found is None:
            raise ValueError("wanted a run of at least one epoch, got one that was stopped before")
        return found


def finetune(
    network: nn.Module,
    train: LabelledImages,
    val: LabelledImages,
    config: FinetuneConfig,
    out: Path,
    *,
    save_every: int = 0,
    processes: Processes = ALONE,
    stop: Callable[[], bool] | None = None,
    progress: bool = True,
) -> FinetuneResult:
    """Fine-tune a network, or go on with what an interrupted run left in a folder.

    A resumed run ends with the weights of one that was never interrupted, bit for bit on a CPU: what an update draws is
    a function of the seed and its number. Images that do not fill an update are left out of their epoch, others each
    time. The generators of torch, NumPy and Python are left as they were.

    Args:
        network: Network from images (B, 3, H, W) to logits (B, classes), on the device to train on. It ends in
            ``eval()``, with the weights of the best epoch; stopped, with those of the last step.
        train: Images to train on.
        val: Images by whose accuracy the best epoch is chosen; not those of the final test.
        config: Settings.
        out: Folder of the run, see :mod:`training.finetuning.run_folder`.
        save_every: Number of updates after which the last step is saved; 0 for the ends of epochs alone.
        processes: Processes that train together, each with ``config.batch`` images at once.
        stop: Function that is asked after every update; on true, the run is saved and ends.
        progress: Flag for a progress bar and a line for each epoch.

    Raises:
        ArgumentError: images of other classes than the network's or the other set's, too few for one update, or a
            folder with another run.
        NonFiniteError: with the number of the update; the last checkpoint stays.
    """
    check_sets(train, val)
    with private_randomness():
        training = _Training(network, train, val, config, Path(out), processes)
        return training.run(save_every, stop, progress and processes.is_first)


class _Training:
    """A run: the network and its optimiser between two updates."""

    def __init__(
        self,
        network: nn.Module,
        train: LabelledImages,
        val: LabelledImages,
        config: FinetuneConfig,
        out: Path,
        processes: Processes,
    ) -> None:
        self.network, self.train, self.val, self.config, self.processes = network, train, val, config, processes
        self.device = next(network.parameters()).device
        self.updates = len(train.labels) // config.effective_batch(processes.count)
        if self.updates == 0:
            wanted = f"wanted at most the {len(train.labels)} training images for one update"
            raise ArgumentError("batch", f"{wanted}, got {config.effective_batch(processes.count)}")
        groups = parameter_groups(network, config.layer_decay, config.weight_decay)
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=config.betas)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "float16")
        self.mix = mixing(config, len(train.classes))
        self.loss = training_loss(config, train.labels.ndim == 2)
        identity = processes.from_first(
            lambda: {
                **{name: plain(value) for name, value in asdict(config).items()},
                "processes": processes.count,
                "train": train.fingerprint(),
                "val": val.fingerprint(),
                "network": network_fingerprint(network),
            }
        )
        self.folder = RunFolder(out, train.classes, identity, EpochReport)
        self.parts = {"optimizer": self.optimizer, "scaler": self.scaler}
        self.progress = self.folder.load_last(network, self.parts)
        self.joint = processes.joint(network)

    def run(self, save_every: int, stop: Callable[[], bool] | None, shown: bool) -> FinetuneResult:
        """Train to the end, or until it is told to stop."""
        if self.processes.is_first:
            self.folder.start()
        board = Board(self.folder.path, len(self.progress.reports)) if self.processes.is_first else None
        total = self.config.epochs * self.updates
        bar = tqdm(total=total, initial=self.progress.step, unit="step", desc="fine-tuning", disable=not shown)
        try:
            for epoch in range(len(self.progress.reports), self.config.epochs):
                began = time.monotonic()
                for window in self.windows(epoch):
                    self.update(window)
                    bar.set_postfix_str(f"loss {self.progress.losses[-1]:.4f}", refresh=False)
                    bar.update()
                    if stop is not None and self.processes.any(stop(), self.device):
                        self.save()
                        return self.result(finished=False)
                    if save_every and self.progress.step % save_every == 0:
                        self.save()
                report = self.end_epoch(time.monotonic() - began)
                if shown:
                    bar.clear()
                    say(report.line)
                if board is not None:
                    board.add(report)
        finally:
            bar.close()
            if board is not None:
                board.close()
        self.folder.load_best(self.network)
        return self.result(finished=True)

    def windows(self, epoch: int) -> Iterator[Sequence[Batch]]:
        """Yield the batches of each update that is left of an epoch.

        Those of all processes together are the batches of one process with as many times the images.
        """
        config, processes = self.config, self.processes
        order = shuffled(len(self.train.labels), config.seed, "order", epoch)
        joint = order.split(config.batch * processes.count)[: self.updates * config.accumulation]
        own = [batch[processes.rank * config.batch :][: config.batch] for batch in joint]
        done = self.progress.step - epoch * self.updates
        left = own[done * config.accumulation :]
        batches = iter(self.train.batches(left, seed_of(config.seed, "images", epoch)))
        while window := list(islice(batches, config.accumulation)):
            yield window

    def rate_of(self, step: int) -> float:
        """Learning rate of an update, counted from 0."""
        return rate_at(
            step / self.updates,
            peak=self.config.peak_rate(self.processes.count),
            lowest=self.config.min_rate,
            warmup=self.config.warmup_epochs,
            epochs=self.config.epochs,
        )

    def update(self, window: Sequence[Batch]) -> None:
        """Make one update of the batches whose gradients it takes."""
        config, progress = self.config, self.progress
        set_rate(self.optimizer.param_groups, self.rate_of(progress.step))
        self.joint.train()
        losses = []
        for number, (images, labels) in enumerate(window):
            seed_all(config.seed, "batch", progress.step, number, self.processes.rank)
            last = number == len(window) - 1
            with nullcontext() if last else self.processes.without_sync(self.joint):
                loss = self.loss_of(images, labels)
                losses.append(self.processes.mean(loss.detach()))
                if not math.isfinite(losses[-1]):
                    place = f"batch {number + 1} of {len(window)}"
                    message = f"wanted a finite loss, got {losses[-1]} in {place}; {self.folder.kept()}"
                    raise NonFiniteError(progress.step + 1, message)
                self.scaler.scale(loss / len(window)).backward()
        if config.clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        progress.step += 1
        progress.losses += losses

    def loss_of(self, images: Tensor, labels: Tensor) -> Tensor:
        """Loss of one batch, in float32."""
        images, labels = images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
        if self.mix is not None:
            images, labels = self.mix(images, labels)
        with autocast(self.device, self.config.precision):
            logits = self.joint(images)
        wanted = (len(images), len(self.train.classes))
        if not isinstance(logits, Tensor) or tuple(logits.shape) != wanted:
            given = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ArgumentError("network", f"wanted logits {list(wanted)} of {wanted[0]} images, got {given}")
        loss: Tensor = self.loss(logits.float(), labels)
        return loss

    def end_epoch(self, seconds: float) -> EpochReport:
        """Validate at the end of an epoch, and save what it brought."""
        config, progress = self.config, self.progress
        self.processes.share_buffers(self.network)
        found = validate(self.network, self.val, config.batch, config.precision, self.processes)
        if not math.isfinite(found.loss):
            message = f"wanted a finite loss on the validation images, got {found.loss}; {self.folder.kept()}"
            raise NonFiniteError(progress.step, message)
        before = best_of(progress.reports)
        losses = progress.losses[-self.updates * config.accumulation :]
        report = EpochReport(
            epoch=len(progress.reports) + 1,
            step=progress.step,
            rate=self.rate_of(progress.step - 1),
            train_loss=sum(losses) / len(losses),
            val_loss=found.loss,
            accuracy=found.accuracy,
            top5=found.top5,
            per_class=found.per_class,
            best=before is None or found.accuracy > before.accuracy,
            seconds=round(seconds, 3),
        )
        progress.reports.append(report)
        self.save(best=report.best)
        return report

    def save(self, best: bool = False) -> None:
        """Save the last step, and as the best epoch where it is that; the other processes wait."""
        self.folder.check(self.network, self.progress)
        if self.processes.is_first:
            if best:
                self.folder.save_best(self.network, len(self.progress.reports))
            self.folder.save_last(self.network, self.parts, self.progress)
            write_lines(self.folder.path, self.progress.reports)
        self.processes.wait()

    def result(self, finished: bool) -> FinetuneResult:
        """Result of the run as far as it came."""
        self.network.eval()
        reports, losses = tuple(self.progress.reports), tuple(self.progress.losses)
        return FinetuneResult(reports, losses, self.folder.best, self.folder.last, finished)
