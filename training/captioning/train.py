"""Training of a captioner by cross-entropy: resumable at any step, keeping the epoch of the best captions.

Source: asg2cap's and SA³'s recipe (``EGA/ega2caption.py`` of https://github.com/LuQiCode/SAAA): Adam at 2e-4, batches
of 128, 100 epochs, dropout 0.5; the loss is the mean over all words of a batch. The best epoch is that of the highest
CIDEr-D on the validation items; there each score has its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from imagexplain.errors import ArgumentError
from imagexplain.models.captioners.captioner import Captioner, export, losses
from imagexplain.progress import say
from training.captioning.config import CaptionConfig
from training.captioning.items import Batch, CaptionItem, batch_of
from training.captioning.sources import Items, SameItems, Source, check_vocabulary
from training.captioning.validation import validate
from training.captioning.vocabulary import Vocabulary
from training.finetuning.randomness import private_randomness, seed_all, shuffled
from training.finetuning.reports import write_lines
from training.finetuning.run_folder import NonFiniteError, RunFolder, network_fingerprint, plain
from training.finetuning.whole_files import replace

WEIGHTS = "captioner.th"
"""File of the best epoch's weights in the original's form, ``{submodule: {name: tensor}}``."""


@dataclass(frozen=True)
class CaptionReport:
    """The report on one epoch.

    Attributes:
        epoch: Number of the epoch, from 1.
        step: Number of updates so far.
        rate: Learning rate of the last update.
        train_loss: Mean loss of the epoch's batches.
        val_loss: Mean cross-entropy of the validation items' words.
        bleu4: BLEU-4 of their greedy captions, 0 … 1.
        cider: CIDEr-D of their greedy captions, 0 … 10.
        best: Flag for a CIDEr-D above that of all epochs before.
        seconds: Seconds since the epoch before, as far as this process trained it.
    """

    epoch: int
    step: int
    rate: float
    train_loss: float
    val_loss: float
    bleu4: float
    cider: float
    best: bool
    seconds: float

    @property
    def line(self) -> str:
        """Line for whoever watches."""
        best = ", the best so far" if self.best else ""
        scores = f"BLEU-4 {self.bleu4:.3f}, CIDEr-D {self.cider:.3f}"
        return f"epoch {self.epoch}: loss {self.train_loss:.4f}, on val {self.val_loss:.4f}, {scores}{best}"


@dataclass(frozen=True)
class CaptionTraining:
    """The result of a run.

    Attributes:
        epochs: Reports on all epochs.
        losses: Loss of every update.
        best: Checkpoint of the epoch with the highest CIDEr-D, the first of several.
        last: Checkpoint of the last step.
        finished: Flag for a run that was not stopped.
    """

    epochs: tuple[CaptionReport, ...]
    losses: tuple[float, ...]
    best: Path
    last: Path
    finished: bool


def train_captioner(
    model: Captioner,
    vocabulary: Vocabulary,
    train: Source,
    val: Items,
    config: CaptionConfig,
    out: Path,
    *,
    save_every: int = 0,
    stop: Callable[[], bool] | None = None,
    progress: bool = True,
) -> CaptionTraining:
    """Train a captioner, or go on with what an interrupted run left in a folder.

    A resumed run ends with the weights of one that was never interrupted, bit for bit on a CPU. Items that do not fill
    a batch are left out of their epoch, others each time. The generators of torch, NumPy and Python are left as they
    were.

    Args:
        model: Captioner, on the CPU. It ends in ``eval()``, with the weights of the best epoch; stopped, with those of
            the last step.
        vocabulary: Its words.
        train: Items to train on.
        val: Items by whose captions the best epoch is chosen.
        config: Settings.
        out: Folder of the run, see :mod:`training.finetuning.run_folder`; ``captioner.th`` has the best epoch too.
        save_every: Number of updates after which the last step is saved; 0 for the ends of epochs alone.
        stop: Function that is asked after every update; on true, the run is saved and ends.
        progress: Flag for a progress bar and a line for each epoch.

    Raises:
        ArgumentError: another number of words than the captioner's, too few items for one update, or a folder with
            another run.
        NonFiniteError: with the number of the update; the last checkpoint stays.
    """
    check_vocabulary(vocabulary, model.dimensions.words)
    with private_randomness():
        return _Training(model, vocabulary, train, val, config, Path(out)).run(save_every, stop, progress)


class _Training:
    """A run: the captioner and its optimiser between two updates."""

    def __init__(
        self,
        model: Captioner,
        vocabulary: Vocabulary,
        train: Source,
        val: Items,
        config: CaptionConfig,
        out: Path,
    ) -> None:
        self.model, self.vocabulary, self.train, self.val, self.config = model, vocabulary, train, val, config
        self.updates = len(train) // config.batch
        if self.updates == 0:
            raise ArgumentError("batch", f"wanted at most the {len(train)} items to train on, got {config.batch}")
        if not len(val):
            raise ArgumentError("val", "wanted at least one item, got none")
        self.optimizer = torch.optim.Adam(model.parameters(), config.rate, betas=(0.9, config.beta2))
        identity = {
            **{name: plain(value) for name, value in asdict(config).items()},
            "train": train.fingerprint(),
            "val": SameItems(val).fingerprint(),
            "network": network_fingerprint(model),
        }
        self.folder = RunFolder(out, vocabulary.words, identity, CaptionReport)
        self.progress = self.folder.load_last(model, {"optimizer": self.optimizer})

    def run(self, save_every: int, stop: Callable[[], bool] | None, shown: bool) -> CaptionTraining:
        """Train to the end, or until it is told to stop."""
        self.folder.start()
        total = self.config.epochs * self.updates
        bar = tqdm(total=total, initial=self.progress.step, unit="step", desc="captioner", disable=not shown)
        try:
            for epoch in range(len(self.progress.reports), self.config.epochs):
                began = time.monotonic()
                for batch in self.batches(epoch):
                    self.update(batch, total)
                    bar.set_postfix_str(f"loss {self.progress.losses[-1]:.4f}", refresh=False)
                    bar.update()
                    if stop is not None and stop():
                        self.save()
                        return self.result(finished=False)
                    if save_every and self.progress.step % save_every == 0:
                        self.save()
                report = self.end_epoch(time.monotonic() - began)
                if shown:
                    bar.clear()
                    say(report.line)
        finally:
            bar.close()
        self.folder.load_best(self.model)
        return self.result(finished=True)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches that are left of an epoch."""
        config, items = self.config, self.train.epoch(epoch)
        order = shuffled(len(items), config.seed, "order", epoch)[: self.updates * config.batch]
        done = self.progress.step - epoch * self.updates
        for bucket, numbers in enumerate(order.split(config.batch * config.bucket)):
            first, count = bucket * config.bucket, len(numbers) // config.batch
            if first + count <= done:
                continue
            chosen = [items[number] for number in numbers.tolist()]
            if config.bucket > 1:
                chosen.sort(key=_length)
            for place, number in enumerate(shuffled(count, config.seed, "bucket", epoch, bucket).tolist()):
                if first + place >= done:
                    yield batch_of(chosen[number * config.batch :][: config.batch], self.vocabulary)

    def update(self, batch: Batch, steps: int) -> None:
        """Make one update."""
        config, progress = self.config, self.progress
        for group in self.optimizer.param_groups:
            group["lr"] = config.rate_at(progress.step, steps)
        self.model.train()
        seed_all(config.seed, "step", progress.step)
        length = int(batch.mask.sum(1).max())  # of the longest caption
        trace = self.model(batch.nodes, batch.image, batch.graph, batch.words[:, : length - 1])
        loss, _ = losses(trace.logits, batch.words[:, 1:length], batch.mask[:, 1:length])
        if not math.isfinite(value := loss.item()):
            raise NonFiniteError(progress.step + 1, f"wanted a finite loss, got {value}; {self.folder.kept()}")
        self.optimizer.zero_grad()
        loss.backward()
        if config.clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        self.optimizer.step()
        progress.step += 1
        progress.losses.append(value)

    def end_epoch(self, seconds: float) -> CaptionReport:
        """Validate at the end of an epoch, and save what it brought."""
        progress = self.progress
        found = validate(self.model, self.val, self.vocabulary, self.config.batch)
        before = max((report.cider for report in progress.reports), default=-math.inf)
        own = progress.losses[-self.updates :]
        report = CaptionReport(
            epoch=len(progress.reports) + 1,
            step=progress.step,
            rate=self.config.rate_at(progress.step - 1, self.config.epochs * self.updates),
            train_loss=sum(own) / len(own),
            val_loss=found.loss,
            bleu4=found.bleu4,
            cider=found.cider,
            best=found.cider > before,
            seconds=round(seconds, 3),
        )
        progress.reports.append(report)
        self.save(best=report.best)
        return report

    def save(self, best: bool = False) -> None:
        """Save the last step, and as the best epoch where it is that."""
        self.folder.check(self.model, self.progress)
        if best:
            self.folder.save_best(self.model, len(self.progress.reports))
            weights = export(self.model)
            replace(self.folder.path / WEIGHTS, lambda partial: torch.save(weights, partial))
        self.folder.save_last(self.model, {"optimizer": self.optimizer}, self.progress)
        write_lines(self.folder.path, self.progress.reports)

    def result(self, finished: bool) -> CaptionTraining:
        """Result of the run as far as it came."""
        self.model.eval()
        reports, losses_ = tuple(self.progress.reports), tuple(self.progress.losses)
        return CaptionTraining(reports, losses_, self.folder.best, self.folder.last, finished)


def _length(item: CaptionItem) -> int:
    return len(item.caption.split())
