"""The serving loop with a kind of model that nothing else knows: all that it takes is here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from imagexplain.api.request import GZIP, JSON, PNG, SAFETENSORS, Contract, Defaults, Kind, Request
from imagexplain.archive.spec import ClassifierSpec
from imagexplain.models.head import Head
from imagexplain.serving.deadline import Deadline
from imagexplain.serving.messages import RawRequest, Response
from imagexplain.serving.metrics import MetricType
from imagexplain.serving.model_facts import ModelFacts
from imagexplain.serving.task import Decoded, ExplainedScore, Payload
from imagexplain.serving.worker import Worker
from imagexplain.vision.preprocess import ModelInput, preprocess
from imagexplain.vision.preprocess_settings import Preprocess
from tests.wire.photos import jpeg

SPEC = ClassifierSpec.model_validate(
    {
        "name": "meter",
        "architecture": "lanet",
        "labels": ["dark", "bright"],
        "explain": {"steps": 3},
        "preprocess": {"size": (32, 32), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
    }
)


@dataclass(frozen=True)
class Brightness:
    """A score that is the mean of the image; its gradient is 1 / N everywhere."""

    spec: ClassifierSpec = SPEC
    head: Head = field(default_factory=Head)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    chunk: int = 4
    facts: ModelFacts = field(default_factory=ModelFacts)

    def network(self, images: Tensor) -> Tensor:
        mean = images.mean((1, 2, 3))
        return torch.stack([-mean, mean], 1)

    def original_network(self):
        return self.network


@dataclass
class Meter:
    """A kind of model that reads the brightness of a photo: it predicts a number, and explains it."""

    contract: ClassVar[Contract] = Contract(media={"prediction": (JSON,), "explanation": (JSON, SAFETENSORS, PNG)})
    batched: ClassVar[bool] = True

    model: Brightness = field(default_factory=Brightness)
    spec: ClassifierSpec = SPEC
    defaults: Defaults = field(default_factory=lambda: Defaults(steps=3))
    observed: list[int] = field(default_factory=list)

    @classmethod
    def load(cls, model_dir: Path, device: torch.device) -> Meter:
        return cls()

    def describe(self) -> str:
        return "a meter"

    def preprocess(self, request: Request) -> ModelInput:
        return preprocess(request.photo, Preprocess(**self.spec.preprocess.model_dump()))

    def predict(self, batch: Sequence[Decoded], deadline: Deadline) -> list[float]:
        if any(one.request.photo.size == (1, 1) for one in batch):
            raise RuntimeError("a photo of one pixel breaks the meter")
        return [one.seen.image.mean().item() for one in batch]

    def payload(self, decoded: Decoded, prediction: float, deadline: Deadline) -> Payload:
        return Payload({"model": self.spec.name, "brightness": prediction})

    def best(self, prediction: float, count: int) -> list[int]:
        return [1, 0][:count]

    def explained_score(self, decoded: Decoded, prediction: float) -> ExplainedScore:
        scores = torch.tensor([-prediction, prediction])
        return ExplainedScore(self.model, 1, scores, 1e-3, result={"brightness": prediction})

    def seconds_per_image(self, image: Tensor) -> float:
        return 1e-4

    def observe(self, image: Tensor, points: int, seconds: float) -> None:
        self.observed.append(points)


@dataclass
class Sink:
    written: list[tuple[str, str, float]] = field(default_factory=list)

    def write(self, metric: MetricType, name: str, value: float, labels: Sequence[str]) -> None:
        self.written.append((name, ",".join(labels), value))


@pytest.fixture
def worker(tmp_path: Path) -> Worker[Meter]:
    return Worker.start(Meter(), tmp_path, Sink())


def asked(kind: Kind, options: str = "", accept: str = "*/*", **parts: bytes) -> RawRequest:
    headers = {"accept": accept, "x-explain-options": options}
    return RawRequest(parts or {"body": jpeg()}, headers, kind)


def content(response: Response) -> dict[str, object]:
    answer: dict[str, object] = json.loads(response.body)
    return answer


def test_a_new_kind_predicts_and_explains(worker: Worker[Meter]) -> None:
    predicted, explained = worker.handle([asked("prediction"), asked("explanation", "baseline=black")])
    assert (predicted.status, predicted.media_type) == (200, JSON)
    brightness = content(predicted)["brightness"]
    answer = content(explained)
    assert answer["brightness"] == brightness == pytest.approx(answer["score"], rel=1e-6)
    assert (answer["target_label"], answer["steps"], answer["baseline_score"]) == ("bright", 3, -1)
    assert answer["relative_residual"] == pytest.approx(0, abs=1e-6)  # the score is linear
    assert worker.task.observed == [5]


def test_its_contract_holds(worker: Worker[Meter]) -> None:
    refused, drawn = worker.handle([asked("explanation", accept=GZIP), asked("explanation", accept=PNG)])
    assert refused.status == 406 and "application/json, application/x-safetensors, image/png" in refused.body.decode()
    assert (drawn.status, drawn.media_type, drawn.body[:4]) == (200, PNG, b"\x89PNG")


def test_methods_segments_and_the_cache_are_the_workers(worker: Worker[Meter]) -> None:
    options = "method=occlusion&size=8&stride=8&segments=grid&rows=1&columns=2"
    first, again = (content(worker.handle([asked("explanation", options)])[0]) for _ in range(2))
    assert first == again and len(first["groups"]) == 3  # type: ignore[arg-type]
    sink = worker.metrics.sink
    assert isinstance(sink, Sink)
    assert [(label, value) for name, label, value in sink.written if name == "explain_cache_total" and value] == [
        ("meter,miss,1.0", 1),
        ("meter,hit,1.0", 1),
    ]


def test_who_breaks_fails_alone(worker: Worker[Meter]) -> None:
    broken = asked("prediction", body=jpeg(1, 1))
    responses = worker.handle([asked("prediction"), broken, asked("explanation", "steps=no"), asked("explanation")])
    assert [response.status for response in responses] == [200, 500, 400, 200]


def test_what_no_kind_of_model_supports_is_refused_by_name(worker: Worker[Meter]) -> None:
    (response,) = worker.handle([asked("explanation", "method=grad_cam")])
    assert response.status == 422 and content(response)["field"] == "method"
