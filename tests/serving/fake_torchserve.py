"""TorchServe's side of a handler, without TorchServe: a context that records what is set in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ts.metrics.metric_type_enum import MetricTypes


@dataclass
class Context:
    """Stands for ``ts.context.Context``: the headers of a batch come in, statuses and types go out."""

    headers: list[dict[str, str]] = field(default_factory=list)
    model_dir: Path = Path()
    statuses: dict[int, int] = field(default_factory=dict)
    types: dict[int, str] = field(default_factory=dict)
    answered: dict[int, dict[str, str]] = field(default_factory=dict)
    request_ids: dict[int, str] = field(default_factory=dict)
    written: list[tuple[str, float, tuple[str, ...]]] = field(default_factory=list)

    @property
    def system_properties(self) -> dict[str, Any]:
        return {"model_dir": str(self.model_dir), "gpu_id": None}

    @property
    def metrics(self) -> Context:
        return self

    def get_metric(self, metric_name: str, metric_type: MetricTypes) -> _Metric:
        return _Metric(self, metric_name)

    def get_all_request_header(self, index: int) -> dict[str, str]:
        return self.headers[index]

    def get_request_header(self, index: int, key: str) -> str | None:
        return self.headers[index].get(key)

    def set_response_status(self, code: int, phrase: str, index: int) -> None:
        assert phrase.isascii()
        self.statuses[index] = code

    def set_response_content_type(self, index: int, value: str) -> None:
        self.types[index] = value

    def set_response_header(self, index: int, key: str, value: str) -> None:
        self.answered.setdefault(index, {})[key] = value


@dataclass
class _Metric:
    context: Context
    name: str

    def add_or_update(self, value: float, dimension_values: list[str]) -> None:
        self.context.written.append((self.name, value, tuple(dimension_values)))
