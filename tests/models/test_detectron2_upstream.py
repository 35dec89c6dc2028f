"""Ours beside detectron2's TensorMask itself: the same weights and photos. Skipped where detectron2 is not installed.

detectron2's SwapAlign2Nat runs on CUDA only, so that on a CPU both use ours; the reference tensors of
test_swap_align2nat.py compare the operators.
"""

import copy
import re
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks import deterministic
from imagexplain.archive import segmenter_backends as engines
from imagexplain.archive.spec import SegmenterSpec
from imagexplain.models.checkpoints.checkpoint import CheckpointError
from imagexplain.models.segmenters import detectron2_tensormask, tensormask
from imagexplain.models.segmenters.resnet_fpn import DIVISOR, Stage
from imagexplain.models.segmenters.tensormask import TensorMask, TensorMaskSettings, TensorMaskSize
from imagexplain.vision.decode import Photo
from imagexplain.vision.detections import Detections
from tests.models.reference import FIXTURES, distance
from tests.models.tensormasks import untrained_state

DIRECTORY = FIXTURES / "tensormask"

pytestmark = [pytest.mark.upstream, pytest.mark.filterwarnings("ignore")]  # detectron2 warns of much

pytest.importorskip("detectron2", reason="detectron2 is not installed")
pytest.importorskip("tensormask", reason="detectron2's projects/TensorMask is not installed")

THRESHOLD = 0.05

SMALL = TensorMaskSize(
    classes=3,
    stem=8,
    stages=(Stage(3, 4, 8), Stage(4, 8, 16), Stage(6, 16, 32), Stage(3, 32, 64)),
    channels=16,
    convs=2,
    towers=(12, 8, 10),
)

SMALL_SETTINGS = TensorMaskSettings(mask_sizes=(4, 5, 7), candidates=400, nms_threshold=0.4, detections=30)


def small_state() -> dict[str, Tensor]:
    """Of a network with half of its windows above the threshold."""
    state = untrained_state(SMALL, SMALL_SETTINGS)
    for name in filter(re.compile(r"conv3\.norm\.weight").search, state):
        state[name] *= 0.3  # sixteen blocks whose outputs do not add up to saturated classes
    return state


Pair = tuple[TensorMask, Any, Tensor]


@pytest.fixture(scope="module", params=["published", "small"])
def pair(request: pytest.FixtureRequest) -> Pair:
    """Our network, upstream's, and a normalised photo."""
    if request.param == "small":
        state, settings = small_state(), SMALL_SETTINGS
        image = torch.randn(1, 3, 90, 70, generator=torch.Generator().manual_seed(0))
    else:
        state, settings = deterministic.reference_tensormask(), TensorMaskSettings()
        with np.load(DIRECTORY / "det_small_intermediates.npz") as arrays:
            pixels = torch.from_numpy(arrays["image"])
        image = tensormask.normalised(pixels.permute(2, 0, 1)[None].float(), settings)
    ours = tensormask.build(state, settings).requires_grad_(False)
    return ours, detectron2_tensormask.build(state, settings), image


def assert_same_detections(ours: Any, theirs: Detections) -> None:
    assert torch.equal(ours.anchors, theirs.anchors)
    assert torch.equal(ours.labels, theirs.labels)
    assert distance(ours.boxes, theirs.boxes) < 2e-5
    assert distance(ours.scores, theirs.scores) < 2e-5
    assert ours.masks.shape == theirs.masks.shape and theirs.masks.dtype == torch.bool
    assert theirs.masks.any()
    assert (ours.masks != theirs.masks).sum() <= 1e-4 * theirs.masks.sum()


def test_maps_logits_and_deltas(pair: Pair) -> None:
    ours, theirs, image = pair
    given = ours(image)
    features = detectron2_tensormask._features(theirs, image)
    logits, deltas, _ = theirs.head(features)
    for level in range(6):
        assert distance(given.features[level], features[level]) < 2e-5
        assert distance(given.logits[level].flatten(1, 2), logits[level]) < 2e-5
        assert distance(given.deltas[level].flatten(1, 2), deltas[level]) < 2e-5


@pytest.mark.parametrize("scale", [1, 1.7])
def test_detections(pair: Pair, scale: float) -> None:
    ours, theirs, image = pair
    size = (round(image.shape[2] * scale), round(image.shape[3] * scale))
    found = detectron2_tensormask.detect(theirs, image, size, THRESHOLD)
    assert len(found) > 10 and found.masks.shape == (len(found), *size)
    assert_same_detections(tensormask.detect(ours, image, size, THRESHOLD), found)


def test_upstreams_own_forward(pair: Pair) -> None:
    """The photo in 0 … 255 through upstream's ``forward``; the steps that the adapter takes are the same."""
    _, theirs, image = pair
    height, width = (side // DIVISOR * DIVISOR for side in image.shape[2:])
    image = image[..., :height, :width]  # without padding: upstream fails to paste windows that lie in it
    pixels = image[0] * theirs.pixel_std + theirs.pixel_mean
    theirs.score_threshold = THRESHOLD
    with torch.no_grad():
        (wanted,) = (answer["instances"] for answer in theirs([{"image": pixels, "height": 100, "width": 130}]))
    found = detectron2_tensormask.detect(theirs, image, (100, 130), THRESHOLD)
    assert torch.equal(found.labels, wanted.pred_classes)
    assert distance(found.boxes, wanted.pred_boxes.tensor) < 2e-5
    assert (found.masks != wanted.pred_masks).sum() <= 1e-4 * found.masks.sum()


def test_the_threshold_is_the_requests(pair: Pair) -> None:
    _, theirs, image = pair
    size = (image.shape[2], image.shape[3])
    found = detectron2_tensormask.detect(theirs, image, size, THRESHOLD)
    middle = float(found.scores[len(found) // 2])
    fewer = detectron2_tensormask.detect(theirs, image, size, middle)
    assert len(fewer) == int((found.scores > middle).sum())
    assert len(detectron2_tensormask.detect(theirs, image, size, THRESHOLD)) == len(found)
    nothing = detectron2_tensormask.detect(theirs, image, size, 1.0)
    tensors = [nothing.boxes, nothing.scores, nothing.labels, nothing.masks, nothing.anchors]
    assert [tuple(x.shape) for x in tensors] == [(0, 4), (0,), (0,), (0, *size), (0, 4)]
    assert [x.dtype for x in tensors] == [torch.float32, torch.float32, torch.int64, torch.bool, torch.int64]


def test_class_logits_and_their_gradients(pair: Pair) -> None:
    ours, theirs, image = pair
    found = detectron2_tensormask.detect(theirs, image, (image.shape[2], image.shape[3]), THRESHOLD)
    # Doubles: in floats, rounding moves ReLUs' kinks, and the gradient by some thousandths.
    ours, theirs = copy.deepcopy(ours).double(), copy.deepcopy(theirs).double()
    for anchor, label, score in list(zip(found.anchors.tolist(), found.labels, found.scores, strict=True))[:2]:
        logits, gradients = [], []
        for implementation, network in ((tensormask, ours), (detectron2_tensormask, theirs)):
            images = torch.cat([image, 0.5 * image]).double().requires_grad_()
            logits.append(implementation.class_logits_at(network, images, tuple(anchor)))
            gradients.append(torch.autograd.grad(logits[-1][:, label].sum(), images)[0])
        assert float(logits[1][0, label].sigmoid()) == pytest.approx(float(score), rel=1e-4)
        assert distance(logits[0], logits[1]) < 1e-10
        assert distance(gradients[0], gradients[1]) < 1e-8
        assert gradients[1].abs().sum() > 0


def test_every_tensor_is_accounted_for() -> None:
    state = small_state()
    network = detectron2_tensormask.build(state, SMALL_SETTINGS)
    assert not network.training and not any(parameter.requires_grad for parameter in network.parameters())
    assert network.state_dict().keys() == state.keys()
    with pytest.raises(CheckpointError, match=r"unexpected: roi_heads\.weight"):
        detectron2_tensormask.build(state | {"roi_heads.weight": torch.zeros(1)}, SMALL_SETTINGS)
    with pytest.raises(CheckpointError, match="pixel_mean: wanted"):
        detectron2_tensormask.build(state | {"pixel_mean": torch.zeros(3, 1, 1)}, SMALL_SETTINGS)
    del state["backbone.top_block.p7.bias"]
    with pytest.raises(CheckpointError, match=r"missing: backbone\.top_block\.p7\.bias"):
        detectron2_tensormask.build(state, SMALL_SETTINGS)


def test_upstreams_package_stays_as_it_is() -> None:
    from tensormask.layers import SwapAlign2Nat

    before = SwapAlign2Nat.forward
    network: nn.Module = detectron2_tensormask.build(small_state(), SMALL_SETTINGS)
    detectron2_tensormask.detect(network, torch.zeros(1, 3, 32, 32), (32, 32), THRESHOLD)
    assert SwapAlign2Nat.forward is before


def test_both_engines_see_and_find_the_same() -> None:
    spec = {
        "name": "tensormask",
        "handler": "segmenter",
        "settings": {"mask_sizes": [4, 5, 7], "detections": 20, "pixel_std": [57.0, 57.0, 58.0]},
        "resize": {"shorter": 70, "longer": 100},
        "labels": ["circle", "square", "star"],
    }
    pixels = np.random.default_rng(0).integers(0, 256, (120, 90, 3), dtype=np.uint8)
    photo = Photo(Image.fromarray(pixels), "PNG", "RGB")
    answers = []
    for engine in ("torchvision", "detectron2"):
        model = SegmenterSpec.model_validate(spec | {"engine": engine})
        segmenter = engines.build(model, small_state(), None, torch.device("cpu"))
        assert segmenter.classes == 3
        seen = segmenter.preprocess(photo)
        found = segmenter.predict(seen, THRESHOLD)
        answers.append((found, segmenter.score_function(seen, found.anchors[0])(seen.image[None])))
    (ours, our_scores), (theirs, their_scores) = answers
    assert theirs.masks.shape[1:] == (120, 90)
    assert_same_detections(ours, theirs)
    assert distance(our_scores, their_scores) < 2e-5
