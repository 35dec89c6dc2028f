"""SS-CAM: by its formula, and without noise Score-CAM."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from imagexplain import score_cam, ss_cam
from imagexplain.attribution.class_activation_maps import channel_masks, shown, weighted
from imagexplain.errors import ArgumentError
from tests.attribution.networks import assert_untouched, footprint, pictures, tiny_cnn, vit
from tests.rows import rows_through


@pytest.mark.parametrize(("build", "layer"), [(tiny_cnn, "4"), (vit, "blocks.1.norm1")])
def test_without_noise_it_is_score_cam(build: Any, layer: str) -> None:
    model, images = build(), pictures(2)
    found = ss_cam(model, images, [1, 3], samples=2, std=0.0, layer=layer)
    torch.testing.assert_close(found, score_cam(model, images, [1, 3], layer=layer))


def test_by_its_formula() -> None:
    model, images = tiny_cnn(), pictures(1, (10, 8))
    activation = model[:5](images)
    masks, generator = channel_masks(activation[0], images), torch.Generator().manual_seed(3)
    total = torch.zeros(8, dtype=torch.float64)
    for _ in range(2):
        noise = torch.stack([torch.randn(10, 8, generator=generator) for _ in range(8)]).unsqueeze(1)
        total += model(images * (masks + 0.5 * noise.double()))[:, 1]
    expected = shown(weighted(activation, (total / 2).softmax(0)[None]), images, upsample=True)
    torch.testing.assert_close(ss_cam(model, images, 1, samples=2, std=0.5, seed=3, layer="4"), expected)


def test_neither_chunk_nor_batch_mates_matter_and_nothing_stays() -> None:
    model, images = tiny_cnn(), pictures(3, (10, 8))
    before = footprint(model)
    together = ss_cam(model, images, [0, 2, 3], samples=3, layer="4")
    assert_untouched(before, model)
    with rows_through(model) as rows:
        alone = ss_cam(model, images[1:2], 2, samples=3, chunk=9, layer="4")
    assert rows == [1, 9, 9, 6]
    torch.testing.assert_close(together[1:2], alone, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"samples": 0}, "samples: wanted at least 1, got 0"),
        ({"chunk": 0}, "chunk: wanted at least 1, got 0"),
        ({"std": -0.1}, "std: wanted 0 or more, got -0.1"),
    ],
)
def test_bad_arguments(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        ss_cam(tiny_cnn(), pictures(1, (8, 8)), 0, **options)
