import numpy as np
import pytest
import torch
from torch import Tensor

from imagexplain.models.segmenters.mask_pasting import paste_masks
from imagexplain.vision.mask_crops import MasksTooLargeError, stack_full_masks
from tests.models.reference import FIXTURES


def pasted_masks(masks: list[Tensor], boxes: Tensor, size: tuple[int, int]) -> Tensor:
    return torch.from_numpy(stack_full_masks(paste_masks(masks, boxes, size), size))


@pytest.mark.upstream
def test_pasted_masks_equal_upstream() -> None:
    with np.load(FIXTURES / "tensormask/paste_masks.npz") as arrays:
        boxes, wanted = (torch.from_numpy(arrays[name]) for name in ("boxes", "pasted"))
        masks = [torch.from_numpy(arrays[f"mask_{index}"])[0] for index in range(len(boxes))]
    assert torch.equal(pasted_masks(masks, boxes, (100, 150)), wanted)


def test_by_hand() -> None:
    """The left half of a box of 4 × 4 pixels, from pixel (1, 2); and the centre of one pixel."""
    boxes = torch.tensor([[2.0, 1, 6, 5], [0, 0, 1, 1]])
    masks = [torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.ones(1, 1)]
    pasted = pasted_masks(masks, boxes, (6, 8))
    wanted = torch.zeros(2, 6, 8, dtype=torch.bool)
    # Half a mask pixel from the box's upper and lower edge the mask is 1 and 0 around it: ¾ remains there at the
    # pixels' centres, and ¾ · ¾ > ½ in the corners.
    wanted[0, 1:5, 2:4] = True
    wanted[1, 0, 0] = True
    assert torch.equal(pasted, wanted)


def test_boxes_beyond_the_photo() -> None:
    boxes = torch.tensor([[-4.0, -4, 4, 4], [6, 6, 14, 14], [20, 20, 30, 30], [-9, 2, -3, 4], [3, 3, 3, 3]])
    pasted = pasted_masks([torch.ones(8, 8)] * 5, boxes, (8, 10))
    assert pasted[0].nonzero().tolist() == [[y, x] for y in range(4) for x in range(4)]
    assert pasted[1].nonzero().tolist() == [[y, x] for y in (6, 7) for x in range(6, 10)]
    assert not pasted[2:].any()


def test_the_threshold_is_reached() -> None:
    boxes = torch.tensor([[0.0, 0, 2, 2]] * 2)
    pasted = pasted_masks([torch.full((2, 2), 0.5), torch.full((2, 2), 0.499)], boxes, (2, 2))
    assert pasted[0].all() and not pasted[1].any()


def test_masks_of_too_many_pixels_are_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the second box, 3 × 2 pixels lie in the photo: 16 + 6."""
    boxes = torch.tensor([[0.0, 0, 4, 4], [5, 8, 30, 30]])
    monkeypatch.setattr("imagexplain.vision.mask_crops.MOST_PIXELS", 22)
    assert len(paste_masks([torch.ones(1, 1)] * 2, boxes, (10, 8))) == 2
    monkeypatch.setattr("imagexplain.vision.mask_crops.MOST_PIXELS", 21)
    with pytest.raises(MasksTooLargeError, match="wanted masks of at most 21 pixels in all, got 22"):
        paste_masks(iter(()), boxes, (10, 8))


def test_no_masks() -> None:
    pasted = pasted_masks([], torch.zeros(0, 4), (3, 5))
    assert pasted.shape == (0, 3, 5) and pasted.dtype == torch.bool
