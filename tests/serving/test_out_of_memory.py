"""Memory that runs out in the middle of a request: smaller chunks, then a clear refusal, and a worker that goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from handlers.captioner import CaptionerHandler
from handlers.classifier import ClassifierHandler
from handlers.segmenter import SegmenterHandler
from imagexplain.errors import RequestError
from imagexplain.serving.cache import Cache
from imagexplain.serving.out_of_memory import halving_chunks, is_out_of_memory
from tests.serving.asking import ask, coarse_png, explain_one, explanation, noise_png, prediction
from tests.serving.captions import explained, predicted, refused
from tests.serving.fake_torchserve import Context
from tests.serving.handlers import forget

OF_THE_HOST = "[enforce fail at alloc_cpu.cpp:130] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"


@contextmanager
def memory_for(rows: int, network: nn.Module, error: Exception | None = None) -> Iterator[list[int]]:
    """A network whose device holds so many rows at once; the sizes of the batches that were tried."""
    tried: list[int] = []

    def exhausted(_: nn.Module, given: tuple[Any, ...]) -> None:
        tried.append(len(given[0]))
        if len(given[0]) > rows:
            raise error or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    handle = network.register_forward_pre_hook(exhausted)
    try:
        yield tried
    finally:
        handle.remove()


def numbers(value: Any) -> Iterator[float]:
    """All numbers within an answer, in its order."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from numbers(part)
    elif isinstance(value, int | float):
        yield value


def test_a_chunk_is_halved_until_it_fits() -> None:
    tried: list[int] = []

    def work(chunk: int) -> str:
        tried.append(chunk)
        if chunk > 4:
            raise torch.OutOfMemoryError
        return "done"

    assert halving_chunks(work, 18) == "done"
    assert tried == [18, 9, 4]


def test_not_even_one_row_fits() -> None:
    tried: list[int] = []

    def work(chunk: int) -> None:
        tried.append(chunk)
        raise MemoryError

    with pytest.raises(RequestError, match="memory") as refused:
        halving_chunks(work, 5)
    assert refused.value.status == 503
    assert tried == [5, 2, 1]


def test_other_errors_are_not_tried_again() -> None:
    tried: list[int] = []

    def work(chunk: int) -> None:
        tried.append(chunk)
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        halving_chunks(work, 8)
    assert tried == [8]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError(OF_THE_HOST), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("DefaultCPUAllocator"), False),
    ],
)
def test_errors_that_say_so(error: Exception, said: bool) -> None:
    assert is_out_of_memory(error) is said


def test_the_host_says_so_as_expected() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(refused.value)


@pytest.mark.parametrize(
    "options",
    [
        "method=integrated_gradients&steps=20",
        "method=integrated_gradients&steps=20&baseline=uniform&draws=3",
        "method=integrated_gradients&steps=9&outputs=integrated_directional_grads",
        'method=gradient&smooth={"samples": 12, "std": 0.1}',
        "method=rise&samples=32",
        "method=occlusion",
    ],
)
def test_an_explanation_in_smaller_chunks_is_the_same(handler: ClassifierHandler, options: str) -> None:
    network = handler.worker.task.model.network
    status, wanted = explain_one(handler, options, "application/gzip")
    assert status == 200, wanted
    forget(handler)
    with memory_for(2, list(network.modules())[-1]) as tried:
        status, given = explain_one(handler, options, "application/gzip")
    assert status == 200, given
    assert max(tried) > 2
    assert min(tried) <= 2
    assert given["evaluations"] == wanted["evaluations"]
    assert given["score"] == pytest.approx(wanted["score"], abs=1e-5)
    name = "integrated_grads" if "integrated_grads" in wanted else "map"
    torch.testing.assert_close(given[name], wanted[name], rtol=1e-4, atol=1e-5)


def test_a_tolerance_is_reached_in_smaller_chunks(handler: ClassifierHandler) -> None:
    """Rounding decides between intervals of a like error, so that the nodes may be others."""
    options = "method=integrated_gradients&tolerance=0.05"
    _, wanted = explain_one(handler, options)
    forget(handler)
    with memory_for(2, list(handler.worker.task.model.network.modules())[-1]) as tried:
        status, given = explain_one(handler, options)
    assert status == 200, given
    assert max(tried) > 2
    assert min(tried) <= 2
    assert given["converged"] == wanted["converged"]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError(OF_THE_HOST)])
@pytest.mark.parametrize(
    "options", ["method=integrated_gradients", "method=grad_cam", "method=integrated_gradients&tolerance=0.05"]
)
def test_what_never_fits_is_refused_and_the_worker_goes_on(
    handler: ClassifierHandler, options: str, error: Exception
) -> None:
    _, wanted = explain_one(handler, options)
    forget(handler)
    with memory_for(0, handler.worker.task.model.network, error):
        status, refusal = explain_one(handler, options)
        assert (status, refusal["error"]) == (503, "busy"), refusal
    assert "memory" in refusal["message"]
    assert explain_one(handler, options) == (200, wanted)


def test_a_prediction_and_an_explanation_in_one_batch(handler: ClassifierHandler) -> None:
    network = handler.worker.task.model.network
    requests = [(prediction(), noise_png(seed)) for seed in range(5)] + [(explanation("steps=6"), noise_png(9))]
    with memory_for(2, network) as tried:
        answers, context = ask(handler, *requests)
    assert [context.statuses[index] for index in range(6)] == [200] * 6
    assert max(tried) > 2
    assert len(answers) == 6


def test_a_segmenter_refuses_and_goes_on(segmenter: SegmenterHandler) -> None:
    headers = {"Accept": "application/json"}
    with memory_for(0, next(segmenter.worker.task.engine.network.children())):
        context = Context(headers=[headers])
        (body,) = segmenter.handle([{"body": bytearray(coarse_png())}], context)
        assert context.statuses[0] == 503
        assert "memory" in json.loads(body)["message"]
    context = Context(headers=[headers])
    segmenter.handle([{"body": bytearray(coarse_png())}], context)
    assert context.statuses.get(0, 200) == 200


def test_a_captioner_explains_in_smaller_chunks(captioner: CaptionerHandler) -> None:
    wanted = explained(captioner, steps=7)
    captioner.worker.captions, captioner.worker.explanations = Cache(10_000_000), Cache(10_000_000)
    with memory_for(2, captioner.worker.task.model.network.mp_encoder) as tried:
        given = explained(captioner, steps=7)
    assert max(tried) > 2
    assert given["caption"] == wanted["caption"]
    assert list(numbers(given)) == pytest.approx(list(numbers(wanted)), abs=1e-4)


def test_a_captioner_refuses_and_goes_on(captioner: CaptionerHandler) -> None:
    captioner.worker.captions = Cache(10_000_000)
    with memory_for(0, captioner.worker.task.model.network.mp_encoder):
        status, _, message = refused(captioner)
    assert (status, "memory" in message) == (503, True)
    assert predicted(captioner)
