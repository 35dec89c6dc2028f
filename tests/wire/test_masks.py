from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from imagexplain.errors import RequestError
from imagexplain.limits import Limits
from imagexplain.vision.decode import decode
from imagexplain.vision.geometry import Geometry, fit
from imagexplain.vision.masks import ModelMasks, parse_masks, to_model
from imagexplain.vision.preprocess import apply
from imagexplain.vision.preprocess_settings import Preprocess
from imagexplain.vision.rle import write
from tests.wire.photos import encoded, label_map

LIMITS = Limits(max_groups=5)
SIZE = (6, 8)


def box(top: int, left: int, bottom: int, right: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def exact(size: tuple[int, int] = SIZE) -> Geometry:
    """The model sees the photo as it is."""
    return Geometry(size, size, (0, 0, *size))


def read(value: object, size: tuple[int, int] = SIZE) -> ModelMasks:
    return to_model(parse_masks(value, size, LIMITS), exact(size))


A, B = box(0, 0, 3, 4), box(2, 3, 6, 8)


@pytest.mark.parametrize("single", [False, True])
def test_coco_masks_and_annotations(single: bool) -> None:
    entries = [write(A), {"segmentation": write(B), "category_name": "cat", "id": 3, "bbox": [1, 2, 3, 4]}]
    masks = read(entries[0] if single else entries)
    assert masks.labels == (("segment 1",) if single else ("segment 1", "cat"))
    assert torch.equal(masks.masks[0], torch.from_numpy(A))
    assert single or torch.equal(masks.masks[1], torch.from_numpy(B))
    assert (masks.cropped.abs().sum().item(), masks.rescued) == (0, ())


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
@pytest.mark.parametrize("as_text", [False, True])
def test_a_label_map(mode: str, as_text: bool) -> None:
    """Values are labels, not colours; 0 is the background, and gaps are no segments."""
    values = 7 * A + 200 * (B & ~A)
    data = label_map(values, mode)
    masks = read(base64.b64encode(data).decode() if as_text else data)
    assert masks.labels == ("segment 7", "segment 200")
    assert torch.equal(masks.masks, torch.from_numpy(np.stack([A, B & ~A])))


def test_a_bit_map_is_one_segment() -> None:
    masks = read(label_map(A, "1"))
    assert len(masks.labels) == 1 and torch.equal(masks.masks[0], torch.from_numpy(A))


@pytest.mark.parametrize("convert", [lambda mask: mask.tolist(), lambda mask: mask.astype(int).tolist()])
def test_arrays(convert: Any) -> None:
    masks = read([convert(A), convert(B)])
    assert masks.labels == ("segment 1", "segment 2")
    assert torch.equal(masks.masks, torch.from_numpy(np.stack([A, B])))
    assert torch.equal(read(convert(A)).masks, torch.from_numpy(A)[None])


def test_no_masks_are_no_error() -> None:
    assert read(label_map(np.zeros(SIZE))).masks.shape == (0, *SIZE)
    assert read([write(np.zeros(SIZE, dtype=bool))]).masks.sum() == 0


def test_an_empty_list_is_no_masks() -> None:
    assert read([]).labels == ()


@pytest.mark.parametrize(
    ("value", "status", "words"),
    [
        (3, 400, "wanted COCO run-length masks, a PNG label map or nested lists of booleans, got 3"),
        ([write(A), 3], 400, "entry 2, got 3"),
        ([{"segmentation": [[0, 0, 4, 4, 2, 2]]}], 400, "polygons are not read"),
        ([{**write(A), "label": 7}], 400, "label of 1 to 200 characters in entry 1"),
        ([write(A)] * 6, 413, "at most 5 masks, got 6"),
        ([write(box(0, 0, 1, 1, (8, 6)))], 422, "6 rows and 8 columns, got 8 and 6"),
        ([[[True, False], [True]]], 400, "ragged"),
        ([[[0.5, 0.1]]], 400, "float64"),
        ([[[0, 2]]], 400, "got 2"),
        (np.zeros((6, 6, 8), dtype=int).tolist(), 413, "at most 5 masks, got 6"),
        ([[[True]]], 422, "got 1 and 1"),
        (b"no png", 400, "PNG label map"),
        ("????", 400, "base64"),
        (label_map(A, "RGB"), 400, "got mode RGB"),
        (label_map(A)[:50], 400, "PNG label map"),
        (label_map(np.ones((8, 6))), 422, "got 8 and 6"),
        (label_map(np.arange(48).reshape(SIZE)), 413, "at most 5 masks, got 47"),
    ],
)
def test_refusals(value: object, status: int, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        read(value)
    assert (caught.value.status, caught.value.field) == (status, "masks"), caught.value
    assert words in caught.value.message


def test_a_truncated_png_is_refused() -> None:
    data = label_map(np.random.default_rng(0).integers(0, 4, (300, 300)))
    with pytest.raises(RequestError, match="can be decoded"):
        parse_masks(data[: len(data) // 2], (300, 300), LIMITS)


def test_coverage_by_hand() -> None:
    """A 4×4 photo onto 2×2: a 3×1 column covers two of the four upper left pixels, one of the lower left."""
    geometry = Geometry((4, 4), (2, 2), (0, 0, 2, 2))
    mask = box(0, 1, 3, 2, (4, 4))
    assert geometry.coverage(mask).tolist() == [[0.5, 0], [0.25, 0]]
    assert geometry.coverage(mask[:3, 1:2], (0, 1)).tolist() == [[0.5, 0], [0.25, 0]]


def test_coverage_of_an_enlarged_and_cropped_photo_by_hand() -> None:
    """A 2×2 photo onto 3×3, of which the model sees the right 3×2: edges at 2/3 and 4/3 of the photo's pixels.

    The upper left photo pixel [0, 1)² covers, of the middle column [2/3, 4/3), half; of its rows, all, half, none.
    """
    geometry = Geometry((2, 2), (3, 3), (0, 1, 3, 2))
    coverage = geometry.coverage(box(0, 0, 1, 1, (2, 2)))
    assert torch.allclose(coverage, torch.tensor([[0.5, 0], [0.25, 0], [0, 0]], dtype=torch.float64))


@pytest.mark.parametrize(("photo", "fraction"), [((37, 53), 0.8), ((53, 37), 1.0), ((20, 11), 0.6), ((64, 64), 0.875)])
def test_coverage_keeps_areas_and_complements(photo: tuple[int, int], fraction: float) -> None:
    geometry = fit(photo, Preprocess((24, 16), (0, 0, 0), (1, 1, 1), "crop", fraction))
    mask = np.random.default_rng(0).random(photo) < 0.4
    coverage, other = geometry.coverage(mask), geometry.coverage(~mask)
    assert torch.allclose(coverage + other, torch.ones(24, 16, dtype=torch.float64))
    # The same by brute force: sixteen samples a side in each of the model's pixels.
    fine = 16
    rows = ((geometry.box[0] + (np.arange(24 * fine) + 0.5) / fine) * photo[0] / geometry.resized[0]).astype(int)
    columns = ((geometry.box[1] + (np.arange(16 * fine) + 0.5) / fine) * photo[1] / geometry.resized[1]).astype(int)
    samples = mask[rows][:, columns].reshape(24, fine, 16, fine).mean((1, 3))
    assert np.abs(coverage.numpy() - samples).max() < 0.13


def test_small_masks_keep_their_best_pixel_and_cropped_ones_say_so() -> None:
    """A 40×20 photo whose centre 20×20 the model sees as 10×10."""
    geometry = Geometry((40, 20), (20, 10), (5, 0, 10, 10))
    small, outside, half = (
        write(mask) for mask in (box(21, 7, 22, 8, (40, 20)), box(0, 0, 9, 9, (40, 20)), box(0, 0, 20, 20, (40, 20)))
    )
    masks = to_model(parse_masks([small, outside, half], (40, 20), LIMITS), geometry)
    assert masks.rescued == ("segment 1",)
    assert masks.masks[0].nonzero().tolist() == [[5, 3]]  # (21 / 2 − 5, 7 / 2)
    assert masks.masks[1].sum() == 0
    assert masks.masks[2].sum() == 50
    assert masks.cropped.tolist() == pytest.approx([0, 1, 0.5])


def test_labels_come_back_at_the_photos_size() -> None:
    geometry = Geometry((8, 4), (4, 2), (1, 0, 2, 2))
    drawn = geometry.labels_to_photo(torch.tensor([[1, 2], [3, 4]]), outside=-1)
    assert drawn.tolist() == [[-1] * 4] * 2 + [[1, 1, 2, 2]] * 2 + [[3, 3, 4, 4]] * 2 + [[-1] * 4] * 2


def test_a_mask_lands_on_its_patch_in_a_rotated_photo_that_is_cropped() -> None:
    """Stored lying on its side with EXIF orientation 6; a white patch on black, masked in the upright photo."""
    upright = np.zeros((120, 80, 3), dtype=np.uint8)
    patch = box(48, 24, 72, 56, (120, 80))
    upright[patch] = 255
    stored = Image.fromarray(np.rot90(upright).copy())  # turned left: orientation 6 turns it right
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = decode(encoded(stored, exif=exif), Limits()).image
    assert np.array_equal(np.asarray(photo), upright)
    preprocess = Preprocess((32, 32), (0, 0, 0), (1, 1, 1), "crop", 0.8)
    image, geometry = apply(photo, preprocess)
    assert geometry.box[:2] != (0, 0)
    masks = to_model(parse_masks([write(patch)], (120, 80), LIMITS), geometry)
    bright = image.mean(0)
    sure = (bright < 0.2) | (bright > 0.8)  # the resize blurs the patch's rim
    assert torch.equal(masks.masks[0][sure], bright[sure] > 0.5)
    assert sure.float().mean() > 0.8
    # and back: coloured segments cover the patch again, to the model's pixel.
    drawn = geometry.labels_to_photo(masks.masks[0].long(), outside=0).bool().numpy()
    assert (drawn != patch).sum() < 0.05 * patch.size
