"""Handlers, scenes and run directories of the serving tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from handlers.captioner import CaptionerHandler
from handlers.classifier import ClassifierHandler
from handlers.segmenter import SegmenterHandler
from imagexplain.ops.server import stop
from tests.serving.handlers import (
    captioner_of,
    classifier_of,
    forget,
    segmenter_of,
    write_bit,
    write_captioner,
    write_tensormask,
    write_timm,
)
from training.scenes import SceneSettings, scene


@pytest.fixture(scope="module")
def bit(tmp_path_factory: pytest.TempPathFactory) -> ClassifierHandler:
    """The handler of a small BiT."""
    return classifier_of(write_bit(tmp_path_factory.mktemp("bit")))


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> ClassifierHandler:
    """The handler of a small ResNet."""
    return classifier_of(write_timm(tmp_path_factory.mktemp("resnet"), "resnet"))


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> SegmenterHandler:
    """The handler of a small TensorMask."""
    return segmenter_of(write_tensormask(tmp_path_factory.mktemp("segmenter")))


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> CaptionerHandler:
    """The handler of a small captioner that makes its features."""
    return captioner_of(write_captioner(tmp_path_factory.mktemp("captioner")))


@pytest.fixture
def handler(bit: ClassifierHandler) -> ClassifierHandler:
    """The BiT's, which remembers nothing of other tests; a file about another model has a handler of its own."""
    forget(bit)
    return bit


@pytest.fixture
def secret_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's key without the server's file."""
    monkeypatch.setattr("imagexplain.serving.remote_segments._key", lambda: "secret")


@pytest.fixture
def scene_file(tmp_path: Path) -> Path:
    """A scene of 64 by 48 pixels as a file."""
    path = tmp_path / "scene.png"
    Image.fromarray(scene(11, 0, SceneSettings(size=(48, 64))).image).save(path)
    return path


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    """A run directory; the server that a failing test leaves in it is stopped."""
    yield tmp_path / "run"
    stop(tmp_path / "run", quiet=True, drain_s=0)
