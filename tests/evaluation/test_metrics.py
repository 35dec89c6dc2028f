"""Every metric on a case small enough to derive by hand.

The image has four pixels in a row, one channel, all 1; the baseline is 0; the score of class 0 is linear with weights
(3, 2, −1, 0.5), that of class 1 is 0. The groups are the four pixels, so taking group g away costs its weight.
"""

import math

import numpy as np
import pytest
import torch
from captum.attr import KernelShap
from torch import Tensor

from evaluation.coalition_game import CoalitionGame, feature_ablation, leave_one_out
from evaluation.curves import deletion, insertion
from evaluation.faithfulness import infidelity, removals, sensitivity
from evaluation.pointing import pointing_game, relevance_mass_accuracy
from evaluation.ranks import spearman
from evaluation.shapley import by_orders, exact, joining, kernel_shap
from evaluation.summary import difference, mean, means
from imagexplain.attribution.paths.path_integral import integrate
from imagexplain.attribution.paths.quadrature import quadrature

WEIGHTS = torch.tensor([3.0, 2.0, -1.0, 0.5])
IMAGE = torch.ones(1, 1, 4)
BASELINE = torch.zeros(1, 1, 4)
PIXELS = torch.arange(4).view(1, 4)
EQUAL = torch.ones(4, dtype=torch.int64)


def linear(x: Tensor) -> Tensor:
    score = x.flatten(1) @ WEIGHTS.to(x)
    return torch.stack([score, torch.zeros_like(score)], 1)


def product(x: Tensor) -> Tensor:
    """x₁x₂ + x₃ of three pixels."""
    return (x[:, 0, 0, 0] * x[:, 0, 0, 1] + x[:, 0, 0, 2]).unsqueeze(1)


@pytest.fixture
def game() -> CoalitionGame:
    return CoalitionGame(linear, IMAGE, BASELINE, PIXELS, target=0)


@pytest.fixture
def product_game() -> CoalitionGame:
    return CoalitionGame(product, torch.ones(1, 1, 3), torch.zeros(1, 1, 3), torch.arange(3).view(1, 3), target=0)


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def assert_near(found: Tensor, wanted: object) -> None:
    """The wanted numbers, up to the rounding of float32."""
    np.testing.assert_allclose(found.numpy(), np.asarray(wanted), atol=1e-6)


def test_hit_is_the_top_group_mostly_inside() -> None:
    inside = doubles(1.0, 0.5, 0.6, 0.0)
    assert pointing_game(doubles(5, 1, 2, 3), inside) == 1
    assert pointing_game(doubles(1, 5, 2, 3), inside) == 0, "half inside is not mostly inside"
    assert pointing_game(doubles(1, 2, 5, 3), inside) == 1
    assert pointing_game(doubles(-4, -1, -2, -3), inside) == 0


def test_tied_tops_count_in_part() -> None:
    assert pointing_game(doubles(7, 7, 7, 0), doubles(1, 0, 0, 1)) == pytest.approx(1 / 3)
    assert pointing_game(doubles(0, 0, 0, 0), doubles(1, 0, 0, 0)) == 0.25


def test_hit_among_some_groups() -> None:
    assert pointing_game(doubles(9, 1, 2), doubles(0, 0, 1)) == 0
    assert pointing_game(doubles(9, 1, 2), doubles(0, 0, 1), torch.tensor([False, True, True])) == 1


def test_mass_is_the_positive_part_inside() -> None:
    """(4 · 1 + 1 · 0.5 + 0) / (4 + 1 + 3): the negative score does not count."""
    assert relevance_mass_accuracy(doubles(4, 1, -6, 3), doubles(1, 0.5, 1, 0)) == pytest.approx(4.5 / 8)
    assert relevance_mass_accuracy(doubles(-1, 0), doubles(1, 1)) == 0


def test_random_scores_hit_by_chance() -> None:
    """One group of five is the deciding one: a fifth of the draws, within four standard deviations of 2,000 draws."""
    generator = torch.Generator().manual_seed(0)
    inside = doubles(0, 0, 1, 0, 0)
    hits = [pointing_game(torch.rand(5, generator=generator), inside) for _ in range(2000)]
    assert abs(np.mean(hits) - 0.2) < 4 * math.sqrt(0.2 * 0.8 / 2000)


def test_spearman_by_hand() -> None:
    """Ranks 1 2 3 4 against 1 2 4 3: 1 − 6 · (1 + 1) / (4 · 15) = 0.8. With ties, 1.5 1.5 3 against 1 2 3: √3/2."""
    assert spearman(doubles(1, 2, 3, 4), doubles(10, 20, 40, 30)) == pytest.approx(0.8)
    assert spearman(doubles(1, 1, 3), doubles(1, 2, 3)) == pytest.approx(math.sqrt(3) / 2)
    assert spearman(doubles(1, 2, 3), doubles(3, 2, 1)) == pytest.approx(-1)
    assert spearman(doubles(2, 2, 2), doubles(3, 2, 1)) == 0


def test_spearman_as_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        first, second = torch.randint(0, 6, (2, 9), generator=generator).double()
        assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-12)


def test_effects_of_a_linear_model_are_its_weights(game: CoalitionGame) -> None:
    assert_near(leave_one_out(game), WEIGHTS)
    assert_near(feature_ablation(linear, IMAGE, BASELINE, PIXELS, 0), WEIGHTS)
    assert_near(exact(game), WEIGHTS)


def test_integrated_gradients_of_a_linear_model_are_its_effects(game: CoalitionGame) -> None:
    (path,) = integrate(
        linear, IMAGE[None], BASELINE[None], torch.tensor([0]), [quadrature("gauss_legendre", 3)], chunk=5
    )
    scores = path.attribution.flatten().double()
    assert_near(scores, leave_one_out(game))
    assert spearman(scores, leave_one_out(game)) == pytest.approx(1)
    taken = removals(4, 32, torch.Generator().manual_seed(0))
    assert infidelity(game, scores, taken, scaled=False) == pytest.approx(0, abs=1e-10)


def test_a_coalition_is_evaluated_once(game: CoalitionGame) -> None:
    leave_one_out(game)
    assert game.evaluations == 5
    leave_one_out(game)
    assert game.evaluations == 5
    assert_near(game.play(torch.tensor([[True, False, False, True]])), [[3.5, 1 / (1 + math.exp(-3.5))]])


def test_groups_joining() -> None:
    wanted = [[0, 0, 0], [0, 0, 1], [1, 0, 1], [1, 1, 1]]
    assert joining(torch.tensor([2, 0, 1])).int().tolist() == wanted


def test_deletion_and_insertion_by_hand(game: CoalitionGame) -> None:
    """In the order 0, 1, 3, 2 the score runs 4.5, 1.5, −0.5, −1, 0 as groups go, and 0, 3, 5, 5.5, 4.5 as they come.

    Each step is a quarter of the pixels: (4.5/2 + 1.5 − 0.5 − 1 + 0/2) / 4 = 0.5625, (0/2 + 3 + 5 + 5.5 + 4.5/2) / 4 =
    3.9375. The probability is σ of the score, as the other class scores 0.
    """
    gone, come = [4.5, 1.5, -0.5, -1.0, 0.0], [0.0, 3.0, 5.0, 5.5, 4.5]
    scores = leave_one_out(game)
    for found, heights, logit in (
        (deletion(game, scores, EQUAL), gone, 0.5625),
        (insertion(game, scores, EQUAL), come, 3.9375),
    ):
        assert found.logit == pytest.approx(logit)
        sigmoid = [1 / (1 + math.exp(-height)) for height in heights]
        assert found.probability == pytest.approx((sum(sigmoid) - (sigmoid[0] + sigmoid[-1]) / 2) / 4)


def test_curves_go_by_area(game: CoalitionGame) -> None:
    """Group 0 covers 7 of 10 pixels, the others one each; deletion: 0.7 · 3 + 0.1 · (0.5 − 0.75 − 0.5) = 2.025."""
    found = deletion(game, leave_one_out(game), torch.tensor([7, 1, 1, 1]))
    assert found.logit == pytest.approx(0.7 * 3 + 0.1 * (0.5 - 0.75 - 0.5))


def test_infidelity_by_hand(game: CoalitionGame) -> None:
    """Taking away {0}, {1} costs 3, 2. Scores (1, 2) foretell 1, 2: errors 4 + 0 of 9 + 4 without any explanation.

    Scaled by β = (1 · 3 + 2 · 2) / (1 + 4) = 1.4 the errors are 1.6² + 0.8² = 3.2.
    """
    taken = torch.tensor([[True, False, False, False], [False, True, False, False]])
    scores = doubles(1, 2, 0, 0)
    assert infidelity(game, scores, taken, scaled=False) == pytest.approx(4 / 13)
    assert infidelity(game, scores, taken, scaled=True) == pytest.approx(3.2 / 13)
    assert infidelity(game, 5 * scores, taken, scaled=True) == pytest.approx(3.2 / 13)
    assert infidelity(game, torch.zeros(4), taken, scaled=True) == 1


def test_removals_take_something() -> None:
    counts = removals(5, 3000, torch.Generator().manual_seed(0)).sum(1).bincount(minlength=6)
    assert counts[0] == 0
    assert counts[1:].min() > 450, "each number from 1 to 5 a fifth of the time"


def test_sensitivity_by_hand() -> None:
    """An explanation that is the image itself moves by the noise: at most √4 · r over ‖(1, 1, 1, 1)‖ = 2; one that
    does not look at the image does not move."""
    found = sensitivity(lambda images: images.flatten(1), IMAGE, radius=0.1, samples=200, seed=0)
    assert 0.07 < found < 0.1
    assert sensitivity(lambda images: torch.ones(len(images), 3), IMAGE, radius=0.1, samples=5, seed=0) == 0


def test_shapley_values_of_a_product(product_game: CoalitionGame) -> None:
    """x₁x₂ + x₃: the two factors share their product, x₃ has its own; leave-one-out gives each factor all of it."""
    assert_near(exact(product_game), [0.5, 0.5, 1])
    assert_near(leave_one_out(product_game), [1, 1, 1])
    # Forwards and backwards, each factor comes second once.
    assert_near(by_orders(product_game, 1, torch.Generator().manual_seed(0)), [0.5, 0.5, 1])


def test_exact_shapley_values_are_for_few_groups() -> None:
    segments = torch.arange(20).view(4, 5)
    with pytest.raises(ValueError, match="groups: wanted at most 12 to enumerate, got 20"):
        exact(CoalitionGame(linear, torch.ones(1, 4, 5), torch.zeros(1, 4, 5), segments, 0))


def test_kernel_shap_of_linear_and_product() -> None:
    assert_near(kernel_shap(linear, IMAGE, BASELINE, PIXELS, 0, samples=40, seed=0), WEIGHTS)
    state = torch.random.get_rng_state()
    image = torch.ones(1, 1, 3)
    found = kernel_shap(product, image, 0 * image, torch.arange(3).view(1, 3), 0, samples=3000, seed=0)
    np.testing.assert_allclose(found, [0.5, 0.5, 1], atol=0.05)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("samples", [6, 40])
def test_kernel_shap_as_captum_fits_it(samples: int) -> None:
    """Fewer samples than the groups need, and more; the third power makes the groups interact."""
    pytest.importorskip("sklearn")
    segments = torch.arange(9).view(1, 9)
    image = torch.rand(1, 1, 9, generator=torch.Generator().manual_seed(0))

    def cubed(x: Tensor) -> Tensor:
        return x.flatten(1).sum(1, keepdim=True) ** 3

    found = kernel_shap(cubed, image, 0 * image, segments, 0, samples, seed=5)
    torch.manual_seed(5)
    wanted = KernelShap(cubed).attribute(
        image[None], baselines=0 * image[None], target=0, feature_mask=segments[None, None], n_samples=samples
    )
    np.testing.assert_allclose(found, wanted.flatten(), rtol=1e-3, atol=1e-3)


def test_mean_and_interval() -> None:
    """Half of 400 values are 1: the mean's standard error is 0.025, so the interval is about 0.5 ± 0.049."""
    found = mean([0.0, 1.0] * 200)
    assert found.mean == 0.5
    assert found.half_width == pytest.approx(1.96 * 0.025, rel=0.15)
    constant = mean([0.3] * 7)
    assert [constant.low, constant.high] == pytest.approx([0.3, 0.3])
    assert constant.scenes == 7
    with pytest.raises(ValueError, match="values: wanted at least one"):
        mean([])


def test_rows_are_averaged_over_the_cases_that_have_them() -> None:
    cases = [{"a": 1.0, "b": 5.0}, {"a": 3.0}, {"a": 2.0, "b": 1.0}]
    found = means(cases)
    assert (found["a"].mean, found["a"].scenes) == (2, 3)
    assert (found["b"].mean, found["b"].scenes) == (3, 2)
    assert difference(cases, "a", "b").mean == pytest.approx((-4 + 1) / 2)
