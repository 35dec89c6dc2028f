"""From decoded requests to results: the prediction and the explanation of a batch by one served model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from handlers.attribution.path import PathIntegral, integrate
from handlers.attribution.quadrature import Quadrature, quadrature
from handlers.served_model import ServedModel
from handlers.wire.geometry import Geometry, apply
from handlers.wire.request import Request

TOP = 5
"""How many of the best classes a summary lists."""


@dataclass(frozen=True)
class Sample:
    """A request with its image in model space.

    Attributes:
        request: as parsed.
        image: (3, H, W) model input on the CPU.
        geometry: the map from the photo to it.
    """

    request: Request
    image: Tensor
    geometry: Geometry


def prepare(request: Request, model: ServedModel) -> Sample:
    """Bring a request's photo into model space; raises what :func:`handlers.wire.geometry.apply` raises."""
    image, geometry = apply(request.photo.image, model.preprocess)
    return Sample(request, image, geometry)


def predict(model: ServedModel, samples: Sequence[Sample]) -> Tensor:
    """(B, classes) pre-softmax scores on the CPU."""
    inputs = torch.stack([sample.image for sample in samples]).to(model.device)
    with torch.no_grad():
        return torch.cat([model.network(rows) for rows in inputs.split(model.chunk)]).cpu()


def explain(
    model: ServedModel,
    samples: Sequence[Sample],
    targets: Sequence[int],
    before_chunk: Callable[[int], None] | None = None,
) -> list[PathIntegral]:
    """The path integral of each sample's target score, all in one pass."""
    return integrate(
        model.network,
        torch.stack([sample.image for sample in samples]).to(model.device),
        torch.stack([baseline(model, sample.request.baseline) for sample in samples]).to(model.device),
        torch.tensor(targets, device=model.device),
        [rule(sample.request) for sample in samples],
        chunk=model.chunk,
        keep_steps=[wants_steps(sample.request) for sample in samples],
        before_chunk=before_chunk,
    )


def rule(request: Request) -> Quadrature:
    """The quadrature that a request asks for."""
    return quadrature(request.quadrature, request.steps)


def baseline(model: ServedModel, name: str) -> Tensor:
    """(3, H, W) where the path starts: zero in model space, or a black or white photo."""
    if name == "zero":
        return torch.zeros(3, *model.preprocess.size)
    return model.preprocess.grey({"black": 0.0, "white": 1.0}[name])


def wants_steps(request: Request) -> bool:
    """Whether the answer holds a tensor with one entry for each step."""
    return not {"integrated_directional_grads", "intermediates"}.isdisjoint(request.outputs)


def prediction_result(model: ServedModel, scores: Tensor) -> dict[str, Any]:
    """What ``/predictions`` answers with, from one row of scores (classes,)."""
    return {"model": model.spec.name, "predictions": ranking(model, scores), "output": scores.unsqueeze(0)}


def explanation_result(
    model: ServedModel, sample: Sample, target: int, scores: Tensor, integral: PathIntegral
) -> dict[str, Any]:
    """Everything ``/explanations`` can answer with; :func:`handlers.wire.response.select` picks from it."""
    request = sample.request
    result = {
        "integrated_grads": integral.attribution.unsqueeze(0),
        "output": scores.unsqueeze(0),
        "target_class": target,
        "target_label": model.spec.labels[target],
        "score": integral.score,
        "baseline_score": integral.baseline_score,
        "residual": integral.residual,
        "relative_residual": integral.relative_residual,
        "method": request.method,
        "baseline": request.baseline,
        "quadrature": request.quadrature,
        "steps": request.steps,
        "evaluations": integral.evaluations,
        "model": model.spec.name,
        "top": ranking(model, scores),
        "step_sizes": rule(request).weights.unsqueeze(1),
    }
    if integral.steps is not None:
        result["integrated_directional_grads"] = integral.steps.gradients
        result["intermediates"] = integral.steps.points
    return result


def ranking(model: ServedModel, scores: Tensor) -> list[dict[str, Any]]:
    """The best classes of one row of scores (classes,), best first."""
    probabilities = scores.softmax(0)
    best = scores.topk(min(TOP, len(scores)))
    return [
        {
            "label": model.spec.labels[index],
            "index": index,
            "score": score,
            "probability": probabilities[index].item(),
        }
        for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
