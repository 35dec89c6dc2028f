import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imagexplain.attribution.postprocess import CHANNELS, iou, localize, normalize
from tests.attribution.inputs import noise


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        ("sum", [[0, 0], [0.25, 1]]),  # −1, 0, 1, 4
        ("mean", [[0, 0], [0.25, 1]]),
        ("max", [[0, 1 / 3], [2 / 3, 1]]),  # 0, 1, 2, 3
        ("abs", [[0, 1 / 3], [2 / 3, 1]]),  # 1, 2, 3, 4
    ],
)
def test_channels_by_hand(channels: str, expected: list[list[float]]) -> None:
    maps = torch.tensor([[[[0, 1], [2, 3]], [[-1, -1], [-1, 1]]]], dtype=torch.float64)
    np.testing.assert_allclose(normalize(maps, channels=channels)[0, 0], expected, rtol=1e-15)


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("value", [0.0, -3.0, 5.0, 1e-300, 1e308, -1e308])
def test_a_constant_map_gives_zeros(channels: str, value: float) -> None:
    assert torch.equal(
        normalize(torch.full((2, 3, 4, 5), value, dtype=torch.float64), channels=channels),
        torch.zeros(2, 1, 4, 5).double(),
    )


def test_all_negative_gives_zeros() -> None:
    assert not normalize(-noise(2, 1, 4, 4).abs()).any()


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=12, max_size=12), st.sampled_from([*CHANNELS])
)
def test_never_nan_and_within_bounds(values: list[float], channels: str) -> None:
    got = normalize(torch.tensor(values, dtype=torch.float64).view(1, 3, 2, 2), channels=channels)
    assert got.shape == (1, 1, 2, 2)
    assert got.isfinite().all() and got.min() == 0 and got.max() in (0, 1)


def test_the_argument_stays_and_a_positive_scale_does_not_matter() -> None:
    maps = noise(2, 1, 5, 5)
    before = maps.clone()
    torch.testing.assert_close(normalize(maps), normalize(7 * maps), rtol=1e-14, atol=0)
    assert torch.equal(maps, before)


def test_one_map_at_a_time() -> None:
    maps = noise(3, 3, 6, 7)
    maps[1] *= 1000
    assert torch.equal(normalize(maps), torch.cat([normalize(one[None]) for one in maps]))
    together, alone = localize(maps[:, :1]), [localize(one[None, :1]) for one in maps]
    assert torch.equal(together.boxes, torch.cat([one.boxes for one in alone]))
    assert torch.equal(together.masks, torch.cat([one.masks for one in alone]))


def test_half_precision_is_scaled_in_float32() -> None:
    assert normalize(noise(1, 3, 4, 4).half()).dtype == torch.float32
    assert normalize(torch.zeros(0, 3, 4, 4)).shape == (0, 1, 4, 4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("function", [normalize, localize])
def test_what_is_not_finite_is_refused(function, bad: float) -> None:
    maps = torch.zeros(2, 1, 3, 3)
    maps[1, 0, 1, 1] = bad
    with pytest.raises(ValueError, match=r"^maps: "):
        function(maps)


def test_the_largest_component_by_hand() -> None:
    maps = torch.zeros(1, 1, 5, 6)
    maps[0, 0, 0, 0] = 10  # the peak, but alone
    maps[0, 0, 2:4, 3:5] = 3
    maps[0, 0, 4, 5] = 2.5  # touches at a corner
    maps[0, 0, 4, 0:3] = 2  # not above a fifth of the peak
    found = localize(maps)
    expected = torch.zeros(5, 6, dtype=torch.bool)
    expected[2:4, 3:5] = expected[4, 5] = True
    assert found.boxes.tolist() == [[3, 2, 6, 5]]
    assert torch.equal(found.masks[0], expected)
    assert localize(maps, threshold=0.3).boxes.tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_an_empty_map_has_an_empty_box(value: float) -> None:
    found = localize(torch.full((2, 1, 3, 4), value), threshold=0)
    assert not found.masks.any() and found.masks.shape == (2, 3, 4)
    assert found.boxes.tolist() == [[0, 0, 0, 0]] * 2


def test_iou_by_hand() -> None:
    masks, others = torch.zeros(4, 2, 3, dtype=torch.bool), torch.zeros(4, 2, 3, dtype=torch.bool)
    masks[0, 0, :2] = others[0, 0, 1:] = True  # one of three
    masks[1, 0] = others[1, 1] = True
    masks[2] = others[2] = True
    assert iou(masks, others).tolist() == [1 / 3, 0, 1, 0]


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: normalize(torch.zeros(3, 4, 4)), "maps"),
        (lambda: normalize(torch.zeros(1, 3, 4, 4), channels="median"), "channels"),
        (lambda: localize(torch.zeros(1, 3, 4, 4)), "maps"),
        (lambda: localize(torch.zeros(1, 1, 4, 4), threshold=1), "threshold"),
        (lambda: localize(torch.zeros(1, 1, 4, 4), threshold=-0.1), "threshold"),
        (lambda: iou(torch.zeros(1, 4, 4), torch.zeros(1, 4, 4).bool()), "masks"),
        (lambda: iou(torch.zeros(1, 4, 4).bool(), torch.zeros(2, 4, 4).bool()), "others"),
    ],
)
def test_what_does_not_fit_names_the_argument(call, named: str) -> None:
    with pytest.raises(ValueError, match=rf"^{named}: "):
        call()
