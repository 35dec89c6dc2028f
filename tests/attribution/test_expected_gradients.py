import numpy as np
import pytest
import torch
from captum.attr import GradientShap
from torch import Tensor

from imagexplain.attribution.methods.expected_gradients import expected_gradients
from imagexplain.attribution.paths.path_integral import integrate
from imagexplain.attribution.paths.quadrature import quadrature
from tests.attribution.closeness import close
from tests.attribution.inputs import noise_images, row_batch
from tests.attribution.models import columns, linear, smooth_network


def squares(x: Tensor) -> Tensor:
    return columns(x.square().sum((1, 2, 3)))


def test_linear_with_one_reference_is_exact_whatever_the_draws() -> None:
    got = expected_gradients(
        linear(torch.tensor([1.0, 2.0])), row_batch(3, 4), 0, references=row_batch(1, 1), samples=3, seed=5
    )
    torch.testing.assert_close(got.flatten(), torch.tensor([2.0, 6.0], dtype=torch.float64))


def test_the_draws_by_hand() -> None:
    """Σ x² has (x − b)⊙2(b + α(x − b)) for each draw of b and α."""
    x, references = row_batch(3, 4), torch.cat([row_batch(0, 0), row_batch(1, -1), row_batch(5, 2)])
    generator = torch.Generator().manual_seed(9)
    drawn = references[torch.randint(3, (6,), generator=generator)]
    alpha = torch.rand(6, 1, 1, 1, generator=generator, dtype=torch.float64)
    expected = ((x - drawn) * 2 * (drawn + alpha * (x - drawn))).mean(0, keepdim=True)
    got = expected_gradients(squares, x, references=references, samples=6, seed=9)
    torch.testing.assert_close(got, expected, rtol=1e-13, atol=0)


def test_tends_to_the_mean_of_integrated_gradients() -> None:
    """Of Σ x² that is x² − mean b²; the error is held against the standard error of the samples' own spread."""
    x, references, samples = row_batch(3, 4), torch.cat([row_batch(0, 0), row_batch(1, -1), row_batch(5, 2)]), 4000
    got = expected_gradients(squares, x, references=references, samples=samples, chunk=samples)
    limit = x.square() - references.square().mean(0)
    single = [expected_gradients(squares, x, references=references, samples=1, seed=seed) for seed in range(200)]
    error = torch.cat(single).std(0) / samples**0.5
    assert ((got - limit).abs() < 4 * error).all() and error.max() < 0.02 * limit.abs().max()


def test_tends_with_captum_to_the_same_limit() -> None:
    """GradientShap without noise has the same expectation, but draws of its own: both stay within their own spread."""
    network, image, references = smooth_network(), noise_images(1), noise_images(4, seed=1)
    rules, targets = [quadrature("gauss_legendre", 40)] * 4, torch.ones(4, dtype=torch.int64)
    paths = integrate(network, image.expand(4, -1, -1, -1), references, targets, rules, chunk=200)
    limit = torch.stack([path.attribution for path in paths]).mean(0)
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 – what Captum draws from
    shap = GradientShap(network)
    theirs = [shap.attribute(image, references, n_samples=400, stdevs=0.0, target=1).detach() for _ in range(20)]
    ours = [
        expected_gradients(network, image, 1, references=references, samples=400, seed=seed, chunk=400)
        for seed in range(20)
    ]
    for maps in (torch.cat(theirs), torch.cat(ours)):
        difference, error = maps.mean(0) - limit, maps.std(0) / 20**0.5
        assert (difference.abs() < 5 * error).all()
        assert difference.abs().max() < 0.02 * limit.abs().max()


def test_neither_batch_mates_nor_chunk_matter() -> None:
    network, images, references = smooth_network(), noise_images(), noise_images(4, seed=1)
    together = expected_gradients(network, images, references=references, samples=10)
    alone = [expected_gradients(network, x[None], references=references, samples=10) for x in images]
    assert close(together, torch.cat(alone))
    for chunk in (1, 3, 10):
        assert close(expected_gradients(network, images, references=references, samples=10, chunk=chunk), together)


def test_float32_agrees_with_float64() -> None:
    exact = expected_gradients(smooth_network(), noise_images(), 1, references=noise_images(4, seed=1))
    got = expected_gradients(
        smooth_network(torch.float32),
        noise_images(dtype=torch.float32),
        1,
        references=noise_images(4, torch.float32, 1),
    )
    assert got.dtype == torch.float32 and close(got.double(), exact, 1e-5)


def test_the_model_is_left_as_it_was() -> None:
    network, state = smooth_network().requires_grad_().train(), torch.get_rng_state()
    with torch.no_grad():
        assert not expected_gradients(network, noise_images(), references=noise_images(), samples=2).requires_grad
    assert all(parameter.grad is None for parameter in network.parameters()) and network.training
    smooth_network()  # seeds the global generator, as above
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"samples": 0}, "samples"),
        ({"chunk": 0}, "chunk"),
        ({"references": torch.zeros(2, 3, 8, 9)}, "references"),
        ({"references": torch.zeros(0, 3, 8, 8)}, "references"),
        ({"targets": 3}, "targets"),
        ({"images": noise_images()[0]}, "images"),
    ],
)
def test_what_does_not_fit_names_the_argument(options: dict, named: str) -> None:
    with pytest.raises(ValueError, match=rf"^{named}: "):
        expected_gradients(smooth_network(), **({"images": noise_images(), "references": noise_images()} | options))
