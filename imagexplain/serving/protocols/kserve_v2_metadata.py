"""The Open Inference Protocol's metadata of a model: the tensors that it takes and answers.

The front door asks a worker for them, which knows its model, by an empty request. Nothing is predicted.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from imagexplain.api.request import JSON
from imagexplain.archive.spec import ClassifierSpec, ModelSpec
from imagexplain.serving.messages import RawRequest, Response
from imagexplain.serving.protocols.kserve_v2 import outputs_of


def split(raw: RawRequest, spec: ModelSpec) -> list[RawRequest]:
    """No instances."""
    return []


def join(raw: RawRequest, spec: ModelSpec, instances: Sequence[RawRequest], responses: Sequence[Response]) -> Response:
    """The metadata; −1 is a number that the request or the model decides."""
    sizes = {"scores": len(spec.labels) if isinstance(spec, ClassifierSpec) else -1, "json": 1}
    told = {
        "name": spec.name,
        "versions": [spec.version],
        "platform": "imagexplain",
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": name, "datatype": output.datatype, "shape": [-1, sizes.get(name, -1)]}
            for name, output in outputs_of(spec).items()
        ],
    }
    return Response(200, JSON, msgspec.json.encode(told))
