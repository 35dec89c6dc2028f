"""Answers as the API's types. An entry that a newer server has and these types lack is left out of them."""

from __future__ import annotations

import json
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import msgspec
from numpy.typing import NDArray

from imagexplain.api.schema import (
    CaptionExplanation,
    CaptionPrediction,
    ClassPrediction,
    ExplainedGraph,
    Explanations,
    InstancePrediction,
    MapExplanation,
    PathExplanation,
)
from imagexplain.client.errors import AnswerError, InputError
from imagexplain.client.message import PNG, SAFETENSORS, Answer

if TYPE_CHECKING:
    from torch import Tensor

Prediction: TypeAlias = ClassPrediction | InstancePrediction | CaptionPrediction
ClassExplanation: TypeAlias = PathExplanation | MapExplanation
"""The explanation of one class."""
Summary: TypeAlias = PathExplanation | MapExplanation | Explanations | CaptionExplanation

T = TypeVar("T")

_KEYS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Tensors(Mapping[str, NDArray[Any]]):
    """Tensors of an answer by name, as arrays of numpy; they are read when the first is asked for."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    @cached_property
    def _arrays(self) -> dict[str, NDArray[Any]]:
        import safetensors.numpy

        try:
            return safetensors.numpy.load(self._body)
        except (safetensors.SafetensorError, KeyError, ValueError) as error:
            raise AnswerError(f"wanted a safetensors file: {error}") from None

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def torch(self) -> dict[str, Tensor]:
        """The same as tensors of torch, which is imported now."""
        import safetensors.torch

        return safetensors.torch.load(self._body)


@dataclass(frozen=True, eq=False)
class Explanation:
    """An explanation: its summary as a type of the API, its tensors, and the answer as it came.

    Attributes:
        answer: Answer of the server.
        summary: All of it but for tensors.
    """

    answer: Answer
    summary: Summary

    @cached_property
    def tensors(self) -> Tensors:
        """Tensors by name. Raises AnswerError where they were not asked for."""
        if _media(self.answer) != SAFETENSORS:
            raise AnswerError("tensors: wanted an explanation that was asked for with tensors=True")
        return Tensors(self.answer.body)

    @cached_property
    def result(self) -> dict[str, Any]:
        """The summary as plain values, with entries that the types lack."""
        result: dict[str, Any] = json.loads(summary_of(self.answer))
        return result

    @cached_property
    def classes(self) -> tuple[ClassExplanation, ...]:
        """The explanation of each class that was asked for: one, or several; none of a captioner's."""
        if isinstance(self.summary, Explanations):
            return tuple(_of_class(msgspec.json.encode(each)) for each in self.summary.explanations)
        return () if isinstance(self.summary, CaptionExplanation) else (self.summary,)

    @property
    def captions(self) -> tuple[ExplainedGraph, ...]:
        """The explained caption of each graph; none but of a captioner."""
        return tuple(self.summary.graphs) if isinstance(self.summary, CaptionExplanation) else ()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the explanation, all at once or not at all: tensors and summary as .safetensors, the summary as .json.

        Raises:
            InputError: a name that ends otherwise.
        """
        path = Path(path)
        if path.suffix == ".safetensors":
            assert self.tensors is not None
            return write(path, self.answer.body)
        if path.suffix == ".json":
            return write(path, summary_of(self.answer))
        raise InputError(f"{path}: wanted a name that ends in .safetensors or .json")


def prediction_of(answer: Answer) -> Prediction:
    """The prediction in an answer in JSON. Raises AnswerError."""
    keys = _keys(answer.body)
    if "predictions" in keys:
        return _decode(answer.body, ClassPrediction)
    if "detections" in keys:
        return _decode(answer.body, InstancePrediction)
    if "graphs" in keys:
        return _decode(answer.body, CaptionPrediction)
    raise AnswerError(f"wanted a prediction, got an answer with {', '.join(keys) or 'nothing'}")


def explanation_of(answer: Answer) -> Explanation:
    """The explanation in an answer: safetensors with a summary, or JSON. Raises AnswerError."""
    body = summary_of(answer)
    keys = _keys(body)
    summary: Summary
    if "explanations" in keys:
        summary = _decode(body, Explanations)
    elif "graphs" in keys:
        summary = _decode(body, CaptionExplanation)
    else:
        summary = _of_class(body)
    return Explanation(answer, summary)


def picture_of(answer: Answer) -> bytes:
    """The picture in an answer. Raises AnswerError."""
    if _media(answer) != PNG:
        raise AnswerError(f"wanted a picture, got {answer.media or 'an answer without a type'}")
    return answer.body


def write(path: Path, data: bytes) -> Path:
    """Write a file all at once or not at all, and the folders above it; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def _of_class(body: bytes) -> ClassExplanation:
    if "residual" in _keys(body):
        return _decode(body, PathExplanation)
    return _decode(body, MapExplanation)


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise AnswerError(f"wanted a {kind.__name__}: {error}") from None


def _keys(body: bytes) -> Mapping[str, Any]:
    try:
        return _KEYS.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise AnswerError(f"wanted an object of JSON: {error}") from None


def summary_of(answer: Answer) -> bytes:
    """The bytes of the summary, which in safetensors is an entry of the metadata. Raises AnswerError."""
    if _media(answer) != SAFETENSORS:
        return answer.body
    try:
        (size,) = struct.unpack_from("<Q", answer.body)
        head = json.loads(answer.body[8 : 8 + size])
        return str(head["__metadata__"]["result"]).encode()
    except (struct.error, ValueError, KeyError, TypeError, RecursionError) as error:
        raise AnswerError(f"wanted safetensors with a summary: {error!r}") from None


def _media(answer: Answer) -> str:
    return answer.media.partition(";")[0].strip().lower()
