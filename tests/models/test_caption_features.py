"""Features of photos for a captioner: by the region encoder, and by torchvision's networks with seeded weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet101
from torchvision.models.detection import fasterrcnn_resnet50_fpn

from imagexplain.models.captioners import features
from imagexplain.models.captioners.captioner import Captioner, Dimensions
from imagexplain.models.captioners.features import EncodedRegions
from imagexplain.models.captioners.graph_tensors import graph_tensors, lay_out
from imagexplain.models.captioners.pixel_scores import PixelScores
from imagexplain.models.captioners.region_encoder import GEOMETRY, RegionEncoder
from imagexplain.models.captioners.torchvision_features import MEAN, STD
from imagexplain.models.captioners.word_scores import WordScores, pack
from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.checkpoints.checkpoint import CheckpointError
from imagexplain.vision import scene_graph

BOXES = torch.tensor([[2.0, 3.0, 30.0, 20.0], [10.0, 5.0, 60.0, 40.0], [0.0, 0.0, 5.0, 48.0]])


@pytest.fixture
def encoder() -> RegionEncoder:
    torch.manual_seed(0)
    return RegionEncoder(9).eval()


def test_photos_share_boxes_and_do_not_meet(encoder: RegionEncoder) -> None:
    photos = torch.rand(4, 3, 48, 64)
    regions, image = EncodedRegions(encoder)(photos, BOXES)
    for photo, own, whole in zip(photos, regions, image, strict=True):
        wanted = encoder(photo, torch.cat([BOXES, torch.tensor([[0.0, 0.0, 64.0, 48.0]])]))
        assert torch.allclose(own, wanted[:-1], atol=1e-5) and torch.allclose(whole, wanted[-1], atol=1e-5)


def test_a_region_encoder_from_its_tensors(encoder: RegionEncoder) -> None:
    state = {f"regions.{name}": tensor for name, tensor in checkpoint.exported(encoder).items()}
    built = features.build("region_encoder", state)
    photo = torch.rand(1, 3, 40, 40)
    assert all(map(torch.equal, built(photo, BOXES), EncodedRegions(encoder)(photo, BOXES)))
    with pytest.raises(CheckpointError, match=r"unexpected.*image\.weight"):
        features.build("region_encoder", state | {"image.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="more than 7 values"):
        features.build("region_encoder", state | {"regions.feature_mean": torch.zeros(GEOMETRY)})
    with pytest.raises(ValueError, match="extractor: wanted one of region_encoder, torchvision"):
        features.build("clip", state)


def test_pixels_to_scores_are_the_features_scores(encoder: RegionEncoder) -> None:
    layout = lay_out(
        scene_graph.read({"objects": [{"box": [2, 3, 28, 17], "attributes": 1}, {"box": [10, 5, 50, 35]}]})
    )
    network = Captioner(Dimensions(8, encoder.width, encoder.width, 12)).eval()
    extractor = EncodedRegions(encoder)
    scores = WordScores(network, graph_tensors([layout]), (3, 4, 1))
    photos = torch.rand(2, 3, 48, 64)
    through = PixelScores(scores, extractor, BOXES[:2], torch.tensor([0, 0, 1]))
    regions, image = extractor(photos, BOXES[:2])
    wanted = torch.stack([pack(own[[0, 0, 1]], whole) for own, whole in zip(regions, image, strict=True)])
    assert torch.allclose(through(photos), scores(wanted), atol=1e-6)


def test_torchvisions_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean pool before the classes, and the box head on its own pooling; published names load as they are."""
    torch.manual_seed(0)
    detector = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3).eval()
    whole = resnet101(weights=None, num_classes=5).eval()
    parts: tuple[tuple[str, nn.Module], ...] = (("regions", detector), ("image", whole))
    state = {f"{part}.{name}": tensor for part, own in parts for name, tensor in checkpoint.exported(own).items()}
    built = features.build("torchvision", state)
    photo = torch.rand(1, 3, 64, 96)
    seen = (photo - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    heads = detector.roi_heads
    found: list[Tensor] = []
    whole.fc.register_forward_pre_hook(lambda module, inputs: found.append(inputs[0]))
    with torch.no_grad():
        regions, image = built(photo, BOXES)
        pooled = heads.box_roi_pool(detector.backbone(seen), [BOXES], [(64, 96)])
        wanted = heads.box_head(pooled)
        whole(seen)
    assert regions.shape == (1, 3, 1024) and image.shape == (1, 2048)
    assert torch.allclose(regions[0], wanted, atol=1e-4) and torch.allclose(image, found[0], atol=1e-4)
    del state["image.conv1.weight"]
    with pytest.raises(CheckpointError, match=r"missing.*image\.conv1\.weight"):
        features.build("torchvision", state)
