"""The loop over a study's parts, in this process or on all cores: a process of one thread for each."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
from tqdm import tqdm

from evaluation.harness import Part, Result, Study


def run(study: Study, workers: int = 1, label: str = "") -> list[Result]:
    """Score all parts of a study, in their order, with a line of progress.

    Args:
        study: Study of one model.
        workers: Number of processes; with one, this process does the work.
        label: Words beside the model's name in the line of progress.
    """
    title = ", ".join(filter(None, (study.model.name, label)))
    return list(tqdm(results(study, workers), desc=title, total=len(study.parts), unit="part"))


def results(study: Study, workers: int) -> Iterator[Result]:
    """Results of all parts, in their order, as they are found."""
    if workers == 1:
        study.prepare()
        yield from map(study.score, study.parts)
        return
    given = pickle.dumps(study)  # not left to the pool, which would share each tensor by a file descriptor
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin, initargs=(given,)) as pool:
        yield from pool.map(_score, study.parts)


_study: Study | None = None


def _begin(given: bytes) -> None:
    global _study
    torch.set_num_threads(1)
    _study = pickle.loads(given)
    assert _study is not None
    _study.prepare()


def _score(part: Part) -> Result:
    assert _study is not None
    return _study.score(part)
