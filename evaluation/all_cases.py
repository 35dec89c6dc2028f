"""Scores all methods on many cases, on all cores: a process of one thread for each."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context

import torch
from torch import Tensor

import imagexplain.attribution as library
from evaluation.cases import Case
from evaluation.every_method import Outcome, scores_of_case, sensitivity_of
from evaluation.line_up import Entry
from evaluation.randomisation import untaught
from evaluation.settings import Settings
from evaluation.subject import Subject


@dataclass(frozen=True, eq=False)
class Work:
    """What is scored.

    Attributes:
        subject: the model.
        entries: that have a meaning for it.
        cases: that it classifies rightly.
        references: (R, 3, H, W) for expected gradients.
        settings: of the metrics.
        redrawn: cases, from the first, that are explained with weights drawn anew too, for each case others.
        noisy: cases, from the first, on which max-sensitivity is measured.
    """

    subject: Subject
    entries: Sequence[Entry]
    cases: Sequence[Case]
    references: Tensor
    settings: Settings
    redrawn: int
    noisy: int

    @property
    def parts(self) -> list[tuple[int, Entry | None]]:
        """Case numbers, each with the entry whose sensitivity is measured, or None for all else."""
        noisy = [(number, entry) for number in range(len(self.cases[: self.noisy])) for entry in self.entries]
        whole: list[tuple[int, Entry | None]] = [(number, None) for number in range(len(self.cases))]
        return whole + [part for part in noisy if part[1].name != "random"]  # chance has no input

    def outcome(self, part: tuple[int, Entry | None]) -> Outcome:
        """Of one of the parts."""
        number, entry = part
        case = self.cases[number]
        if entry is not None:
            return sensitivity_of(entry, self.subject, case, self.references, self.settings)
        other = None
        if number < self.redrawn:
            other = replace(self.subject, network=untaught(self.subject.network, case.index, self.references))
        return scores_of_case(self.subject, other, self.entries, case, self.references, self.settings)


def outcomes(work: Work, workers: int) -> Iterator[Outcome]:
    """Of all parts, in their order; with one worker in this process."""
    if workers == 1:
        yield from map(work.outcome, work.parts)
        return
    given = pickle.dumps(work)  # not left to the pool, which would share each tensor by a file descriptor
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin, initargs=(given,)) as pool:
        yield from pool.map(_outcome, work.parts)


_work: Work | None = None


def _begin(given: bytes) -> None:
    global _work
    torch.set_num_threads(1)
    _work = pickle.loads(given)
    assert _work is not None
    for method in {method for entry in _work.entries if entry.plan for method in entry.plan.methods}:
        getattr(library, method)  # what they import is no part of the time that they take


def _outcome(part: tuple[int, Entry | None]) -> Outcome:
    assert _work is not None
    return _work.outcome(part)
