"""The part of a worker's loop that every kind of model has: a batch of requests in, a response for each out.

What happens between is a worker's own: :class:`imagexplain.serving.worker.Worker` explains one score of a photo,
:class:`imagexplain.serving.caption_worker.CaptionWorker` the words of captions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from imagexplain.limits import Limits
from imagexplain.serving.cache import Cache
from imagexplain.serving.deadline import Deadline
from imagexplain.serving.messages import RawRequest, Response
from imagexplain.serving.metrics import Metrics
from imagexplain.serving.request_state import RequestState
from imagexplain.serving.task import LoadedModel

M = TypeVar("M", bound=LoadedModel)


@dataclass
class RequestLoop(ABC, Generic[M]):
    """A model that answers requests.

    Attributes:
        task: The model.
        limits: Upper bounds of one request.
        metrics: Metrics for operators.
    """

    task: M
    limits: Limits
    metrics: Metrics

    def deadline(self) -> Deadline:
        """The time that what has just come may take."""
        spec = self.task.spec
        return Deadline.starting_now(spec.serving.deadline_s, 0, spec.explain.steps + 2)

    def handle(self, requests: Sequence[RawRequest], deadline: Deadline | None = None) -> list[Response]:
        """One response for each request, in order.

        Args:
            requests: Requests of one batch.
            deadline: Time that they share with others; by default a batch's whole.
        """
        deadline = deadline or self.deadline()
        states = [RequestState(raw) for raw in requests]
        self._answer(states, deadline)
        responses = [state.respond(self.metrics) for state in states]
        self.measure_memory()
        return responses

    def measure_memory(self) -> None:
        """Set the metrics of what the caches hold, and of what PyTorch holds on the GPU, if it uses one."""
        held = (*vars(self).values(), *vars(self.task).values())
        gpus = {str(torch.cuda.current_device()): torch.cuda.memory_reserved()} if torch.cuda.is_initialized() else {}
        self.metrics.memory(sum(cache.bytes for cache in held if isinstance(cache, Cache)), gpus)

    @abstractmethod
    def _answer(self, states: Sequence[RequestState], deadline: Deadline) -> None:
        """Answer a batch; the answers, and what was refused, go into its states."""


AnyLoop = RequestLoop[Any]
