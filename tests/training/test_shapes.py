import numpy as np
import pytest

from training.shapes import CLASS_SHAPES, DISTRACTOR_SHAPES, Outline, coverage, place


def rectangle(x0: float, y0: float, x1: float, y1: float) -> Outline:
    return (np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]),)


def area(outline: Outline) -> float:
    """By the shoelace formula; contours of the other sense count negative."""
    total = 0.0
    for contour in outline:
        x, y = contour.T
        total += float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2
    return abs(total)


def test_coverage_is_the_exact_area_of_each_pixel() -> None:
    covered = coverage(rectangle(0.5, 0.75, 2.25, 2.0), (3, 4))
    expected = np.array([[0.125, 0.25, 0.0625, 0.0], [0.5, 1.0, 0.25, 0.0], [0.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(covered, expected, atol=1e-12)


def test_coverage_of_a_slanted_edge() -> None:
    triangle = (np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]]),)
    np.testing.assert_allclose(coverage(triangle, (2, 2)), [[1, 0.5], [0.5, 0]], atol=1e-12)


def test_coverage_does_not_depend_on_the_sense() -> None:
    outline = place(CLASS_SHAPES["star"](np.random.default_rng(0)), (8.0, 7.0), 6.0, 0.3)
    np.testing.assert_allclose(coverage((outline[0][::-1],), (16, 16)), coverage(outline, (16, 16)), atol=1e-12)


def test_a_reversed_contour_cuts_a_hole_and_equal_senses_unite() -> None:
    outer, inner = rectangle(0, 0, 4, 4)[0], rectangle(1, 1, 3, 3)[0]
    holed = coverage((outer, inner[::-1]), (4, 4))
    assert holed.sum() == pytest.approx(12)
    assert holed[1:3, 1:3].max() == 0
    assert coverage((outer, inner), (4, 4)).sum() == pytest.approx(16)


@pytest.mark.parametrize(
    ("corners", "expected"),
    [((-5, -5, 1, 1), 1.0), ((3, 1, 9, 2), 1.0), ((-3, -3, 7, 7), 16.0), ((5, 5, 6, 6), 0.0), ((-4, 1, -1, 3), 0.0)],
)
def test_coverage_cuts_off_at_the_frame(corners: tuple[float, float, float, float], expected: float) -> None:
    assert coverage(rectangle(*corners), (4, 4)).sum() == pytest.approx(expected)


@pytest.mark.parametrize("name", [*CLASS_SHAPES, "bar", "blob", "shard"])
def test_every_shape_covers_its_area_within_its_circle(name: str) -> None:
    rng = np.random.default_rng(3)
    for _ in range(5):
        outline = {**CLASS_SHAPES, **DISTRACTOR_SHAPES}[name](rng)
        assert max(np.linalg.norm(contour, axis=1).max() for contour in outline) == pytest.approx(1, abs=1e-9)
        drawn = place(outline, (rng.uniform(12, 20), rng.uniform(12, 20)), 11.5, rng.uniform(0, 6))
        covered = coverage(drawn, (32, 33))
        assert covered.sum() == pytest.approx(area(drawn), rel=1e-9)
        assert (covered.min(), covered.max()) == (0, 1)


def test_no_rotation_makes_a_square_of_a_diamond() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        sides = np.ptp(CLASS_SHAPES["diamond"](rng)[0], axis=0)
        assert sides[1] < 0.62 * sides[0]
