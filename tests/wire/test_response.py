from __future__ import annotations

import gzip
import io
import json
import math
from typing import Any

import msgspec
import pytest
import safetensors
import safetensors.torch
import torch
from PIL import Image

from imagexplain.api.request import GZIP, JSON, PNG, SAFETENSORS, Request, parse
from imagexplain.api.response import LEGACY, Encoded, encode, select
from imagexplain.errors import RequestError
from tests.tensors import unpacked
from tests.wire.photos import png

RESULT: dict[str, Any] = {
    "integrated_grads": torch.arange(12.0).reshape(1, 3, 2, 2),
    "output": torch.tensor([[1.0, 2.0]]),
    "target_class": 1,
    "target_label": "cat",
    "score": 2.0,
    "baseline_score": 0.5,
    "residual": 1e-7,
    "relative_residual": 1e-8,
    "steps": 2,
    "evaluations": 4,
    "quadrature": "gauss_legendre",
    "model": "bit",
    "top": [{"label": "cat", "index": 1, "score": 2.0, "probability": 0.73}],
    "integrated_directional_grads": torch.randn(2, 3, 2, 2),
    "step_sizes": torch.tensor([[0.5], [0.5]]),
    "intermediates": torch.rand(2, 3, 2, 2),
}


def request(options: str = "", accept: str = "") -> Request:
    return parse({"body": png()}, {"x-explain-options": options, "accept": accept}, kind="explanation")


def legacy() -> Request:
    return parse({"body": b'{"img_data": [[[1,2,3]]], "target_class": "cat"}'}, {}, kind="explanation")


def test_the_original_way_has_the_original_keys() -> None:
    assert set(select(RESULT, legacy())) == set(LEGACY)
    with pytest.raises(KeyError):
        select({"output": RESULT["output"]}, legacy())


def test_per_step_tensors_only_when_named() -> None:
    every_time = {"integrated_grads", "output", "target_class", "score", "baseline_score", "residual", "evaluations"}
    plain = set(select(RESULT, request()))
    assert every_time <= plain
    assert not plain & {"integrated_directional_grads", "step_sizes", "intermediates", "top", "model", "target_label"}
    assert set(select(RESULT, request("outputs=step_sizes"))) - plain == {"step_sizes"}


def test_the_summary_is_for_json() -> None:
    assert set(select(RESULT, request(accept=JSON))) >= {"top", "model", "target_label"}


def test_the_original_reading_snippet(tmp_path: Any) -> None:
    encoded = encode(select(RESULT, legacy()), GZIP)
    assert encoded.media_type == "application/gzip"
    path = tmp_path / "answer.gz"
    path.write_bytes(encoded.body)
    with gzip.open(path, "rb") as file:
        result = torch.load(io.BytesIO(file.read()))
    assert set(result) == set(LEGACY)
    assert result["target_class"] == 1
    assert torch.equal(result["integrated_grads"], RESULT["integrated_grads"])


def test_gzip_holds_tensors_of_their_own() -> None:
    large = torch.randn(100, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    result = {
        "view": large[3:4],
        "strided": large[:1].permute(0, 1, 3, 2),
        "half": torch.ones(2, dtype=torch.float16),
        "masks": torch.ones(2, 2, dtype=torch.bool),
        "last": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    }
    encoded = encode(result, GZIP)
    loaded = unpacked(encoded.body)
    for name in ("view", "strided", "half", "last"):
        tensor = loaded[name]
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous()
        assert tensor.untyped_storage().nbytes() == tensor.nelement() * 4
        assert not tensor.requires_grad
        assert torch.equal(tensor, result[name].detach().float())
    assert loaded["masks"].dtype == torch.bool
    assert len(encoded.body) < 6_000
    assert large.requires_grad


@pytest.mark.parametrize("media", [GZIP, SAFETENSORS, JSON])
def test_equal_results_give_equal_bytes(media: str) -> None:
    again = {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in RESULT.items()}
    assert encode(RESULT, media) == encode(again, media)


def test_gzip_has_no_time_stamp() -> None:
    assert encode(RESULT, GZIP).body[4:8] == bytes(4)


def test_numbers_that_are_not_finite_survive_gzip() -> None:
    loaded = unpacked(encode({"a": torch.tensor([math.nan]), "b": math.inf}, GZIP).body)
    assert loaded["a"].isnan().all()
    assert loaded["b"] == math.inf


def test_safetensors(tmp_path: Any) -> None:
    encoded = encode(select(RESULT, request("outputs=step_sizes", accept=SAFETENSORS)), SAFETENSORS)
    tensors = safetensors.torch.load(encoded.body)
    assert set(tensors) == {"integrated_grads", "output", "step_sizes"}
    assert torch.equal(tensors["integrated_grads"], RESULT["integrated_grads"])
    path = tmp_path / "answer.safetensors"
    path.write_bytes(encoded.body)
    with safetensors.safe_open(path, "pt") as file:
        values = json.loads(file.metadata()["result"])
    assert values["score"] == 2.0
    assert values["target_class"] == 1
    assert values["quadrature"] == "gauss_legendre"


def test_json_is_the_plain_values() -> None:
    encoded = encode(select(RESULT, request(accept=JSON)), JSON)
    values = json.loads(encoded.body)
    assert encoded.media_type == "application/json"
    assert values["top"] == RESULT["top"]
    assert (values["model"], values["target_class"], values["target_label"]) == ("bit", 1, "cat")
    assert not set(values) & {"integrated_grads", "output", "non_finite"}


def test_json_marks_numbers_that_are_not_finite() -> None:
    result = {"score": math.nan, "residual": -math.inf, "steps": 3, "top": [{"score": math.inf}, {"score": 1.0}]}
    values = json.loads(encode(result, JSON).body, parse_constant=pytest.fail)
    assert values == {
        "score": None,
        "residual": None,
        "steps": 3,
        "top": [{"score": None}, {"score": 1.0}],
        "non_finite": ["residual", "score", "top"],
    }


def test_png_is_the_picture() -> None:
    picture = Image.new("RGB", (5, 4), (1, 2, 3))
    encoded = encode(RESULT, PNG, picture=picture)
    assert encoded.media_type == "image/png"
    assert Image.open(io.BytesIO(encoded.body)).convert("RGB").tobytes() == picture.tobytes()


def test_png_needs_a_picture_and_a_known_media_type() -> None:
    with pytest.raises(ValueError, match="image/png"):
        encode(RESULT, PNG)
    with pytest.raises(ValueError, match="text/html"):
        encode(RESULT, "text/html")


def test_an_answer_too_large_is_refused() -> None:
    size = len(encode(RESULT, SAFETENSORS).body)
    assert isinstance(encode(RESULT, SAFETENSORS, max_bytes=size), Encoded)
    with pytest.raises(RequestError, match=f"413 outputs: wanted an answer of at most {size - 1:,} bytes"):
        encode(RESULT, SAFETENSORS, max_bytes=size - 1)


def test_unserialisable_values_are_the_handlers_fault() -> None:
    with pytest.raises((TypeError, msgspec.MsgspecError)):
        encode({"a": object()}, JSON)
