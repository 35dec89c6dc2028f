from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from imagexplain.attribution.groups.directional import GroupScores, group_scores
from imagexplain.attribution.groups.families import Family, disjoint_parts, family
from imagexplain.attribution.paths.path_integral import PathIntegral, integrate
from imagexplain.attribution.paths.quadrature import quadrature
from tests.attribution.inputs import families, noise_image, row_image, row_masks
from tests.attribution.integrals import integral_of
from tests.attribution.models import cubic, linear, product, smooth_network


def table(integral: PathIntegral, groups: Family) -> GroupScores:
    return group_scores(integral.attribution, integral.difference, groups)


def pixels(count: int) -> list[str]:
    return ["".join("1" if place == index else "0" for place in range(count)) for index in range(count)]


def assert_rounded(given: Tensor, wanted: list[float], digits: int = 5) -> None:
    """Values that these decimals are the rounding of."""
    assert given.tolist() == pytest.approx(wanted, abs=0.51 * 10**-digits)


def test_golden_segments_of_a_linear_model() -> None:
    """f = x₁ + 2x₂ + 3x₃ at (1, 1, 1): IDG({1,2}) = 3/√2, IDG({3}) = 3, IDG(all) = 6/√3."""
    scores = table(
        integral_of(linear(row_image(1, 2, 3).flatten()), row_image(1, 1, 1), steps=1), family(row_masks("110"), ["12"])
    )
    assert_rounded(scores.attribution, [3, 3, 6])
    assert_rounded(scores.directional, [2.12132, 3, 3.46410])
    assert_rounded(scores.dividend, [0.24708, 0.34943, 0.40349])
    assert_rounded(scores.value, [0.24708, 0.34943, 1])
    assert scores.area.tolist() == [2, 1, 3]
    assert_rounded(scores.norm, [2**0.5, 1, 3**0.5], digits=12)


@pytest.mark.parametrize("listed", [True, False], ids=["pixels as segments", "pixels"])
def test_golden_pixels_of_a_linear_model(listed: bool) -> None:
    integral = integral_of(linear(row_image(1, 2, 3).flatten()), row_image(1, 1, 1), steps=1)
    if listed:
        scores = table(integral, family(row_masks(*pixels(3), "110"), ["1", "2", "3", "12"]))
        assert_rounded(scores.directional, [1, 2, 3, 2.12132, 3.46410])
        assert_rounded(scores.dividend, [0.08632, 0.17263, 0.25895, 0.18310, 0.29901])
        assert_rounded(scores.value[3:], [0.44205, 1])
        assert scores.pixel_dividend is None
    else:  # the rest is the third pixel, which must not count twice
        scores = table(integral, family(row_masks("110"), ["12"], pixels=True))
        assert_rounded(scores.directional, [2.12132, 3, 3.46410])
        assert_rounded(scores.dividend, [0.18310, 0.25895, 0.29901])
        assert_rounded(scores.value, [0.44205, 0.25895, 1])
        assert scores.pixel_dividend is not None
        assert_rounded(scores.pixel_dividend.flatten(), [0.08632, 0.17263, 0])


def test_golden_product() -> None:
    scores = table(integral_of(product, row_image(3, 4), steps=1), family(row_masks("10", "01"), ["1", "2"]))
    assert_rounded(scores.attribution, [6, 6, 12], digits=12)
    assert_rounded(scores.directional, [2, 1.5, 2.4], digits=12)
    assert_rounded(scores.dividend, [0.33898, 0.25424, 0.40678])


def test_golden_whole_image() -> None:
    x = noise_image()
    integral = integral_of(smooth_network(), x, steps=30)
    scores = table(integral, family(torch.zeros(0, 8, 8, dtype=torch.bool), []))
    assert scores.dividend.tolist() == scores.value.tolist() == [1]
    difference = integral.score - integral.baseline_score
    assert (scores.directional * scores.norm).item() == pytest.approx(difference, rel=1e-10)


@pytest.mark.parametrize("steps", [2, 3, 50])
def test_golden_cubic_needs_the_weights(steps: int) -> None:
    """f = Σ x³/3 from 0: IG_p = x_p³/3, so that IDG({1}) = 1/3 and IDG({2}) = 8/3 / 2."""
    scores = table(integral_of(cubic, row_image(1, 2), steps=steps), family(row_masks("10"), ["1"]))
    assert_rounded(scores.directional, [1 / 3, 4 / 3, 3 / 5**0.5], digits=12)


def test_input_equal_to_the_baseline_is_all_zero() -> None:
    x = torch.rand(3, 8, 8, dtype=torch.float64)
    segment = torch.zeros(1, 8, 8, dtype=torch.bool)
    segment[:, :4] = True
    scores = table(integral_of(smooth_network(), x, x, steps=30), family(segment, ["top"], pixels=True))
    for name in ("attribution", "directional", "dividend", "value", "norm"):
        assert getattr(scores, name).tolist() == [0, 0, 0], name
    assert scores.pixel_dividend is not None and scores.pixel_dividend.abs().sum() == 0


def test_a_group_equal_to_the_baseline_is_zero_and_no_nan() -> None:
    """Δ = (0, 2) with gradients (5, 1): the first group has no direction; IDG({2}) = 2/2 = 1, IDG(all) = 2/2 = 1."""
    scores = group_scores(row_image(0, 2), row_image(0, 2), family(row_masks("10"), ["flat"]))
    assert scores.directional.tolist() == [0, 1, 1]
    assert scores.dividend.tolist() == [0, 0.5, 0.5]


@pytest.mark.parametrize("count", [1, 4, 16, 64])
def test_directional_grows_with_the_root_of_the_area(count: int) -> None:
    """n pixels with IG = 0.5 and Δ = 1 each: 0.5·n / √n."""
    scores = group_scores(
        torch.full((1, 1, count), 0.5), torch.ones(1, 1, count), family(row_masks("1" * count), ["all"])
    )
    assert scores.directional.item() == pytest.approx(0.5 * count**0.5, rel=1e-12)


def test_draws_are_averaged_as_ratios() -> None:
    """Draws with IG (1, 3) and Δ (1, 2) on one pixel: mean of ratios (1 + 1.5) / 2, not the ratio of means 2 / 1.5."""
    attribution = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)
    difference = torch.tensor([1.0, 2.0]).view(2, 1, 1, 1)
    scores = group_scores(attribution, difference, family(torch.zeros(0, 1, 1, dtype=torch.bool), []))
    assert scores.directional.tolist() == [1.25]
    assert scores.directional_spread.tolist() == [0.25]
    assert (scores.attribution.tolist(), scores.attribution_spread.tolist()) == ([2], [1])
    assert scores.norm.tolist() == [1.5]


def test_errors_name_what_was_given() -> None:
    groups = family(row_masks("11"), ["all"])
    with pytest.raises(
        ValueError, match=r"attribution, difference: wanted the same .*, got \(1, 1, 2\) and \(1, 1, 3\)"
    ):
        group_scores(row_image(1, 2), row_image(1, 2, 3), groups)
    with pytest.raises(ValueError, match=r"family: wanted masks of \(1, 3\), got \(1, 2\)"):
        group_scores(row_image(1, 2, 3), row_image(1, 2, 3), groups)


def image_like(segments: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (3, *segments.shape[1:])
    difference = torch.randn(shape, generator=generator, dtype=torch.float64)
    difference[:, :, 0] = 0  # one pixel equals the baseline
    return difference * torch.randn(shape, generator=generator, dtype=torch.float64), difference


def names(segments: Tensor) -> list[str]:
    return [str(index) for index in range(len(segments))]


@given(families(), st.integers(0, 99))
def test_the_refinement_adds_up(segments: Tensor, seed: int) -> None:
    """The disjoint parts sum to the total; each group is the sum of its parts."""
    attribution, difference = image_like(segments, seed)
    groups = family(segments, names(segments))
    parts = disjoint_parts(groups.masks)
    sums = parts.sums(attribution)
    assert sums.sum().item() == pytest.approx(attribution.sum().item(), abs=1e-12)
    shares = group_scores(attribution, difference, groups).attribution
    assert shares.tolist() == pytest.approx((parts.members.double().T @ sums).tolist(), abs=1e-12)


@given(families(), st.integers(0, 99), st.booleans())
def test_values_are_a_belief_function(segments: Tensor, seed: int, pixels: bool) -> None:
    """In [0, 1], 1 for the whole image, monotone, and superadditive over disjoint groups."""
    attribution, difference = image_like(segments, seed)
    groups = family(segments, names(segments), pixels=pixels)
    scores = group_scores(attribution, difference, groups)
    if not attribution.abs().any():
        assert not scores.value.any()
        return
    value, sets = scores.value.tolist(), [set(row.flatten().nonzero().flatten().tolist()) for row in groups.masks]
    whole = max(range(len(sets)), key=lambda index: len(sets[index]))
    assert value[whole] == pytest.approx(1)
    for s, inner in enumerate(sets):
        assert -1e-12 <= value[s] <= 1 + 1e-12
        for t, outer in enumerate(sets):
            if inner < outer:
                assert value[s] <= value[t] + 1e-12
            for u, union in enumerate(sets):
                if not inner & outer and inner | outer == union:
                    assert value[s] + value[t] <= value[u] + 1e-12


@given(families(), st.integers(0, 99), st.randoms(use_true_random=False))
def test_order_sign_and_scale(segments: Tensor, seed: int, random) -> None:
    """Permuting segments permutes rows; −f flips signs only; 3f changes attribution and directional by 3."""
    attribution, difference = image_like(segments, seed)
    scores = group_scores(attribution, difference, family(segments, names(segments)))
    order = list(range(len(segments)))
    random.shuffle(order)
    shuffled = family(segments[order], [str(index) for index in order])
    again = group_scores(attribution, difference, shuffled)
    by_mask = {tuple(mask.flatten().tolist()): index for index, mask in enumerate(shuffled.masks)}
    rows = [by_mask[tuple(mask.flatten().tolist())] for mask in family(segments, names(segments)).masks]
    for name in ("attribution", "directional", "dividend", "value", "norm"):
        assert getattr(again, name)[rows].tolist() == pytest.approx(getattr(scores, name).tolist(), abs=1e-12)
    groups = family(segments, names(segments))
    flipped, tripled = (group_scores(factor * attribution, difference, groups) for factor in (-1, 3))
    assert flipped.directional.tolist() == pytest.approx((-scores.directional).tolist())
    assert tripled.attribution.tolist() == pytest.approx((3 * scores.attribution).tolist())
    for other in (flipped, tripled):
        assert other.dividend.tolist() == pytest.approx(scores.dividend.tolist())
        assert other.value.tolist() == pytest.approx(scores.value.tolist())


def test_a_partition_is_complete_and_a_wrong_gradient_is_not() -> None:
    """Σ ‖Δ_S‖·IDG(S) = f(x) − f(b); with the gradient of another class it must not be."""
    x = noise_image()
    integral = integral_of(smooth_network(), x, steps=30)
    segments = torch.arange(4).view(4, 1, 1) == (torch.arange(64).view(8, 8) // 16)
    scores = table(integral, family(segments, names(segments)))
    total = (scores.norm * scores.directional)[:4].sum().item()
    assert total == pytest.approx(integral.score - integral.baseline_score, rel=1e-10)
    wrong = integral_of(lambda rows: smooth_network()(rows)[:, 1:], x, steps=30)
    scores = group_scores(wrong.attribution, wrong.difference, family(segments, names(segments)))
    total = (scores.norm * scores.directional)[:4].sum().item()
    assert abs(total - (integral.score - integral.baseline_score)) > 0.01


def test_the_sign_can_be_dropped_inside_the_integral() -> None:
    """f = x₁² + x₂² − 2x₂ from (0, 0) to (1, 1): along the path the shares are 2α and 2α − 2.

    Together 4α − 2, whose integral is 0 and whose absolute value integrates to 1; alone 1 and, without its sign, 1.
    """

    def parabola(x: Tensor) -> Tensor:
        a, b = x.flatten(1).unbind(1)
        return (a**2 + b**2 - 2 * b).unsqueeze(1)

    x = row_image(1, 1)
    groups = family(row_masks("10", "01"), ["1", "2"])
    for chunk in (1, 7, 64):
        (integral,) = integrate(
            parabola,
            x[None],
            torch.zeros_like(x)[None],
            torch.tensor([0]),
            [quadrature("midpoint", 100)],
            chunk=chunk,
            groups=[groups.masks],
        )
        assert table(integral, groups).attribution.tolist() == pytest.approx([1, -1, 0])
        assert integral.absolute is not None
        assert integral.absolute.tolist() == pytest.approx([1, 1, 1])


def test_groups_of_a_batch_keep_to_their_image() -> None:
    x, other = row_image(3, 4), row_image(1, 2)
    groups = [row_masks("10", "11"), None]
    both = integrate(
        product,
        torch.stack([x, other]),
        torch.zeros(2, 1, 1, 2, dtype=torch.float64),
        torch.tensor([0, 0]),
        [quadrature("midpoint", 3), quadrature("midpoint", 4)],
        chunk=3,
        groups=groups,
    )
    assert both[0].absolute is not None and both[1].absolute is None
    assert both[0].absolute.tolist() == pytest.approx([6, 12])
