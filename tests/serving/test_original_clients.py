"""The original servers' clients, unchanged but for the address, against seeded archives with the CIFAR-10 labels.

The checkpoints are in the authors' formats, the answers are compared with what the original implementations computed.
"""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import requests
import torch
from PIL import Image

from benchmarks import deterministic
from imagexplain.archive.build import build_all
from imagexplain.ops.server import ROOT, Server, free_port, start, stop
from tests.models.reference import EXPLAINED, FIXTURES, distance, explained, shapes
from tests.tensors import LEGACY_SHAPES


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("original")
    state = deterministic.state(shapes("bit/tiny_1111_keys.json"))
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, folder / "bit.pth")
    weights = {
        "BIT_WEIGHTS": str(folder / "bit.pth"),
        "LANET_WEIGHTS": str(FIXTURES / "lanet/C8_L4_calib.pth"),
    }
    specs = [path for model in EXPLAINED for path in sorted((ROOT / "archive_specs").glob(f"{model}*.yaml"))]
    build_all(specs, folder / "store", environ=weights)
    server = start(store=folder / "store", run=folder / "run", port=free_port())
    try:
        yield server
    finally:
        stop(folder / "run")


@pytest.fixture(scope="module")
def answers(server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each model returns for the reference image and the class "cat", by the commands of the originals' README."""
    folder = tmp_path_factory.mktemp("client")
    Image.fromarray(np.load(FIXTURES / "image32.npy")).save(folder / "image.png")
    script = [sys.executable, str(ROOT / "scripts/prepare_input.py"), "image.png", "cat", "input_json_file.json"]
    subprocess.run(script, cwd=folder, check=True, capture_output=True)
    body = (folder / "input_json_file.json").read_bytes()
    results = {}
    for model in EXPLAINED:
        answer = requests.post(
            f"{server.inference}/explanations/{model}",
            data=body,
            headers={**server.headers(), "Content-Type": "application/json; charset=utf-8"},
            timeout=120,
        )
        assert answer.status_code == 200, answer.text
        (folder / "saved_file.gzip").write_bytes(answer.content)
        with gzip.open(folder / "saved_file.gzip", "rb") as fobj:
            x = BytesIO(fobj.read())
            results[model] = torch.load(x, weights_only=True)
    return results


@pytest.mark.parametrize("model", EXPLAINED)
def test_exactly_their_keys_and_shapes(answers: dict[str, dict[str, Any]], model: str) -> None:
    result = dict(answers[model])
    assert result.pop("target_class") == 3
    assert {name: tuple(tensor.shape) for name, tensor in result.items()} == LEGACY_SHAPES
    assert {tensor.dtype for tensor in result.values()} == {torch.float32}


@pytest.mark.parametrize("model", EXPLAINED)
def test_their_inputs_outputs_and_steps(answers: dict[str, dict[str, Any]], model: str) -> None:
    result, expected = answers[model], explained(EXPLAINED[model])
    assert distance(result["intermediates"], expected.intermediates) < 1e-6
    assert distance(result["step_sizes"], expected.step_sizes) < 1e-6
    assert distance(result["output"], expected.output) < 1e-4


def test_bits_gradients(answers: dict[str, dict[str, Any]]) -> None:
    result, expected = answers["bit"], explained(EXPLAINED["bit"])
    assert distance(result["integrated_directional_grads"], expected.integrated_directional_grads) < 1e-4
    assert distance(result["integrated_grads"], expected.integrated_grads) < 1e-4


def test_lanets_gradients(answers: dict[str, dict[str, Any]]) -> None:
    """Equal but at the points on a ReLU's kink, where rounding decides which of two gradients is taken.

    In float64 the folded and the unfolded network agree to 1e-15 (tests/models/test_fold.py); in float32 folding moves
    the rounding, and with it three of the 50 points of this untrained network.
    """
    result, expected = answers["lanet"], explained(EXPLAINED["lanet"])
    pairs = zip(result["integrated_directional_grads"], expected.integrated_directional_grads, strict=True)
    errors = sorted(distance(given, wanted) for given, wanted in pairs)
    assert errors[40] < 1e-4
    assert distance(result["integrated_grads"], expected.integrated_grads) < 5e-3


@pytest.mark.parametrize("model", EXPLAINED)
def test_every_class_of_theirs_is_known(server: Server, model: str) -> None:
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    pixels = np.load(FIXTURES / "image32.npy").tolist()
    for index, name in enumerate(classes):
        answer = requests.post(
            f"{server.inference}/explanations/{model}",
            json={"img_data": pixels, "target_class": name, "steps": 1},
            headers={**server.headers(), "Accept": "application/json"},
            timeout=120,
        )
        assert answer.json()["target_class"] == index
