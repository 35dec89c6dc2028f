from importlib import import_module

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from imagexplain.attribution.methods.score_cam import score_cam
from tests.attribution.networks import assert_untouched, footprint, pictures, resnet, swin, tiny_cnn, vit
from tests.rows import rows_through


def test_by_hand() -> None:
    """Two channels, the image's own; y is the sum of the first less that of the second."""

    class Difference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(2, 2, 1, bias=False).double()
            nn.init.dirac_(self.layer.weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first, second = self.layer(x).sum((2, 3)).unbind(1)
            return torch.stack([first - second, second], 1)

    image = torch.tensor([[[[1.0, 3.0]], [[2.0, -2.0]]]]).double()
    # masks (0, 1), (1, 0) leave (0, 3), (0, −2) and (1, 0), (2, 0): scores 5 and −1
    first, second = np.exp([5, -1]) / np.exp([5, -1]).sum()
    got = score_cam(Difference(), image, 0, layer="layer")
    np.testing.assert_allclose(got.flatten(), [first + 2 * second, 3 * first - 2 * second], rtol=1e-12)


def test_constant_channels_show_nothing() -> None:
    model, image = tiny_cnn(stride=1), torch.zeros(1, 3, 6, 6, dtype=torch.float64)
    model[0].padding = model[3].padding = 0
    assert score_cam(model, image, 1, layer="3").isfinite().all()


@pytest.mark.parametrize(("build", "layer", "size"), [(vit, "blocks.1.norm1", (32, 32)), (swin, "norm", (32, 32))])
def test_agrees_with_the_definition(build, layer: str, size: tuple[int, int]) -> None:
    model, images = build(), pictures(1, size)
    seen = []
    with torch.no_grad():
        handle = model.get_submodule(layer).register_forward_hook(lambda *all_: seen.append(all_[-1]))
        model(images)
        handle.remove()
        tokens = seen[0][0, 1:].view(4, 4, -1) if layer != "norm" else seen[0][0]
        scores = []
        for k in range(tokens.shape[-1]):
            mask = F.interpolate(tokens[None, None, ..., k], size, mode="bilinear")
            scores.append(model(images * (mask - mask.min()) / (mask.max() - mask.min()))[0, 2])
        expected = (tokens * torch.stack(scores).softmax(0)).sum(-1).relu()
    got = score_cam(model, images, 2, layer=layer, upsample=False)[0, 0]
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-14)


def test_agrees_with_pytorch_grad_cam() -> None:
    """Where the layer is as large as the image; the peer's resizing has ``align_corners=True``."""
    peer = import_module("pytorch_grad_cam")
    model, images, classes = tiny_cnn(stride=1), pictures(2, (12, 10)), [1, 3]
    with peer.ScoreCAM(model, [model[4]]) as method:
        expected = method(images, [lambda scores, index=index: scores[index] for index in classes])
    got = score_cam(model, images, classes, layer="4").squeeze(1).numpy()
    low, high = got.min((1, 2), keepdims=True), got.max((1, 2), keepdims=True)
    assert np.abs((got - low) / (high - low) - expected).max() < 1e-6


@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_neither_chunk_nor_batch_mates_matter(chunk: int) -> None:
    model, images, classes = tiny_cnn(), pictures(3, (10, 8)), [0, 2, 3]
    before = footprint(model)
    together = score_cam(model, images, classes, chunk=chunk)
    assert_untouched(before, model)
    alone = torch.cat([score_cam(model, images[[b]], classes[b]) for b in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)
    assert not together.requires_grad and together.shape == (3, 1, 10, 8)


def test_no_more_rows_at_once_than_a_chunk() -> None:
    model = tiny_cnn()
    with rows_through(model) as rows:
        score_cam(model, pictures(2, (8, 8)), 0, layer="4", chunk=3)
    assert rows == [2, 3, 3, 3, 3, 3, 1]


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="chunk: wanted"):
        score_cam(tiny_cnn(), pictures(1, (8, 8)), chunk=0)
    with pytest.raises(ValueError, match="targets: wanted"):
        score_cam(resnet(), pictures(1, (64, 64)), 5)
