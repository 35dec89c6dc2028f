from __future__ import annotations

import pytest
import torch
from torch import nn

from debugging.features import feature_map, pooled, scores_and_features
from imagexplain.errors import UnsupportedModelError
from imagexplain.models.classifiers import bit, timm_network
from tests.serving.handlers import TIMM_NETWORKS


@pytest.mark.parametrize("kind", TIMM_NETWORKS)
def test_the_last_layer_scores_the_features(kind: str) -> None:
    name, arguments = TIMM_NETWORKS[kind]
    network = timm_network.create(name, {"num_classes": 4, **arguments}).eval()
    images = torch.rand(3, 3, 32, 32)
    scores, features = scores_and_features(network, images, chunk=2)
    torch.testing.assert_close(scores, network(images))
    torch.testing.assert_close(network.get_classifier()(features), scores)  # type: ignore[operator]


def test_a_convolution_as_the_last_layer() -> None:
    network = bit.bit((1, 1, 1, 1), (128, 128, 128, 128), 32, 5).eval()
    scores, features = scores_and_features(network, torch.rand(2, 3, 32, 32), chunk=8)
    last = next(module for module in network.modules() if isinstance(module, nn.Conv2d) and module.out_channels == 5)
    torch.testing.assert_close(last(features[..., None, None])[..., 0, 0], scores)


def test_a_network_without_such_a_layer_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="that gives the scores"):
        scores_and_features(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), torch.rand(1, 3, 8, 8), chunk=1)
    twice = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.Unflatten(1, (1, 5)), nn.AvgPool1d(5), nn.Flatten())
    with pytest.raises(UnsupportedModelError):
        scores_and_features(twice, torch.rand(1, 3, 8, 8), chunk=1)


def test_pooling_by_hand() -> None:
    features = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    rows = torch.arange(4)
    masks = torch.stack(
        [
            (rows[:, None] < 2) & (rows < 2),  # the first place
            (rows[:, None] < 1) & (rows >= 0),  # half of each place above
            (rows[:, None] >= 1) & (rows < 2),  # half of the first place, all of the third
            torch.zeros(4, 4, dtype=torch.bool),
        ]
    )
    assert pooled(features, masks).flatten().tolist() == pytest.approx([1, 1.5, (0.5 * 1 + 3) / 1.5, 0])


def test_a_transformer_has_a_map_of_features() -> None:
    name, arguments = TIMM_NETWORKS["vit"]
    network = timm_network.create(name, {"num_classes": 4, **arguments}).eval()
    assert feature_map(network, torch.rand(3, 32, 32)).shape == (24, 4, 4)
