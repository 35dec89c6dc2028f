from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from imagexplain.vision.mask_crops import CroppedMask, crop_to_content, stack_full_masks

MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.booleans())


def test_by_hand() -> None:
    mask = np.zeros((5, 6), dtype=bool)
    mask[1, 2] = mask[3, 4] = True
    cut_out = crop_to_content(mask)
    assert cut_out.corner == (1, 2) and cut_out.area == 2
    assert cut_out.mask.tolist() == [[True, False, False], [False, False, False], [False, False, True]]
    assert cut_out.window == (slice(1, 4), slice(2, 5))


@given(MASKS)
def test_nothing_of_a_mask_is_lost(mask: np.ndarray) -> None:
    cut_out = crop_to_content(mask)
    assert np.array_equal(stack_full_masks([cut_out], (mask.shape[0], mask.shape[1]))[0], mask)
    edges = (cut_out.mask[0], cut_out.mask[-1], cut_out.mask[:, 0], cut_out.mask[:, -1]) if mask.any() else ()
    assert all(edge.any() for edge in edges)
    assert cut_out.mask.base is None  # holds no photo


def test_no_masks() -> None:
    assert stack_full_masks([], (3, 4)).shape == (0, 3, 4)
    assert crop_to_content(np.zeros((3, 4), dtype=bool)).area == 0
    assert not stack_full_masks([CroppedMask(np.zeros((0, 2), dtype=bool), (3, 1))], (3, 4)).any()
