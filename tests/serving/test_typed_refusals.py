"""An error of the library is an answer to the client by its type; one of a network or of torch never is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from PIL import Image
from torch import nn

from handlers.classifier import ClassifierHandler
from imagexplain.archive.segmenter_backends import MMDetBackend
from imagexplain.errors import ArgumentError, LayerError, RequestError, UnsupportedModelError
from imagexplain.models.segmenters.mmdet_segmenter import PhotoError
from imagexplain.vision.decode import Photo
from tests.serving.asking import explain_one


@pytest.fixture(scope="module")
def handler(resnet: ClassifierHandler) -> ClassifierHandler:
    """The ResNet's, which knows the photo's scores and the layer."""
    assert explain_one(resnet, "method=grad_cam")[0] == 200
    return resnet


@pytest.fixture
def networks(handler: ClassifierHandler) -> Iterator[list[nn.Module]]:
    """The handler's networks, whose hooks are taken off again."""
    found = [
        part
        for part in (handler.worker.task.model.network, handler.worker.task.model.original_network())
        if isinstance(part, nn.Module)
    ]
    assert found
    yield found
    for network in found:
        network._forward_pre_hooks.clear()


def failing(networks: list[nn.Module], error: Exception) -> None:
    def fail(*_: object) -> None:
        raise error

    for network in networks:
        network.register_forward_pre_hook(fail)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("method=occlusion", "size: wanted 7, got 32"),
        ("method=occlusion&stride=4", "stride: of the second axis"),
        ("method=rise&samples=8", "seed: Expected a 'cpu' device type for generator"),
        ("method=idgi&steps=3", "steps: nothing is left"),
        ("method=occlusion", "fill: no such mode"),
        ("method=occlusion", "images: wanted others"),
        ("method=gradient", "model: broken"),
        ("method=score_cam", "layer: broken"),
        ("method=score_cam&layer=layer2", "layer: broken"),
    ],
)
def test_an_error_of_the_network_is_not_the_clients(
    handler: ClassifierHandler, networks: list[nn.Module], options: str, text: str
) -> None:
    failing(networks, ValueError(text))
    status, answer = explain_one(handler, options)
    assert (status, answer["error"]) == (500, "internal"), answer


def test_an_error_of_a_users_pipeline_is_not_the_clients() -> None:
    class Segmenter:
        def __init__(self, error: ValueError) -> None:
            self.error = error

        def preprocess(self, _: object) -> None:
            raise self.error

    photo = Photo(Image.new("RGB", (8, 8)), "image", "RGB")
    with pytest.raises(ValueError, match="size: not understood") as own:
        MMDetBackend(Segmenter(ValueError("size: not understood"))).preprocess(photo)  # type: ignore[arg-type]
    assert not isinstance(own.value, RequestError)
    with pytest.raises(RequestError, match="422 image: photo: too narrow"):
        MMDetBackend(Segmenter(PhotoError("photo: too narrow"))).preprocess(photo)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "status", "field"),
    [
        (UnsupportedModelError("model", "wanted another"), 422, "method"),
        (LayerError("layer", "wanted one"), 422, "method"),
        (ArgumentError("images", "wanted smaller ones"), 422, "method"),
        (ArgumentError("size", "wanted a smaller one"), 400, "size"),
        (ArgumentError("samples", "which occlusion does not take"), 500, "request"),
        (ArgumentError("targets", "which the service has settled"), 500, "request"),
    ],
)
def test_an_error_of_the_library_is_told_by_its_type_and_field(
    handler: ClassifierHandler, networks: list[nn.Module], error: ArgumentError, status: int, field: str
) -> None:
    failing(networks, error)
    got, answer = explain_one(handler, "method=occlusion")
    assert (got, answer["field"]) == (status, field), answer
    assert status == 500 or error.message in answer["message"]
