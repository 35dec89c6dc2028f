from math import sqrt

import pytest
import torch
from torch import nn

from benchmarks import deterministic
from imagexplain import models
from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.classifiers import lanet
from tests.models.reference import FIXTURES, distance, explained, gradients, integrated, shapes
from tests.models.same import assert_same_network


@pytest.fixture(scope="module")
def small() -> nn.Module:
    return models.build("lanet", checkpoint.read(FIXTURES / "lanet/C8_L4_calib.pth")).requires_grad_(False)


@pytest.mark.upstream
def test_logits_equal_upstream(small: nn.Module) -> None:
    expected = explained("lanet/C8_L4_calib_eval.npz")
    assert distance(small(expected.input), expected.output) < 1e-5


@pytest.mark.upstream
def test_gradients_on_the_path_equal_upstream(small: nn.Module) -> None:
    """To 2e-7 where the convolutions round as they did for the reference.

    On another processor, or in another batch, a point that lies on a ReLU's kink gets the other one-sided derivative:
    upstream's own code, one image at a time, is then 2e-3 to 7e-3 off at three of its fifty points.
    """
    expected = explained("lanet/C8_L4_calib_eval.npz")
    grads = gradients(small, expected.intermediates)
    errors = sorted(map(distance, grads, expected.integrated_directional_grads))
    assert errors[40] < 1e-4
    assert errors[-1] < 0.05
    error = (integrated(expected, grads) - expected.integrated_grads).abs().max()
    assert error < 1e-4 * expected.integrated_grads.abs().sum()


@pytest.mark.upstream
@pytest.mark.parametrize(("name", "parameters"), [("C8_L4", None), ("C128_L24_full", 45_256_340)])
def test_state_dict_names_equal_upstream(name: str, parameters: int | None) -> None:
    wanted = shapes(f"lanet/{name}_keys.json")
    model = models.build("lanet", {key: torch.empty(shape, device="meta") for key, shape in wanted.items()})
    assert {key: tuple(value.shape) for key, value in model.state_dict().items()} == wanted
    assert parameters in (None, sum(parameter.numel() for parameter in model.parameters()))


def test_searched_cell() -> None:
    skip, pool, sep = "skip_connect", "max_pool_3x3", "sep_conv_3x3"
    genotype = lanet.decode(lanet.SEARCHED_CELL)
    assert genotype.outputs == (5, 6, 7, 8)
    assert genotype.nodes == (
        ((skip, 0), (skip, 1)),
        ((sep, 1), (skip, 1)),
        ((pool, 2), (skip, 1)),
        ((sep, 1), (skip, 0)),
        ((skip, 3), ("sep_conv_5x5", 4)),
        ((skip, 3), (pool, 0)),
        ((skip, 3), (sep, 1)),
    )


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ([], "four numbers per node, given 0"),
        ([0, 0, 0], "four numbers per node, given 3"),
        ([0, 4, 0, 1], "operations from 0 to 3"),
        ([0, 0, 0, 2], "node 0 wants a state from 0 to 1, given 2"),
    ],
)
def test_cells_that_mean_nothing(cell: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lanet.decode(cell)


def test_another_cell() -> None:
    """One node, max-pool of state 0 plus state 1: no operation has a tensor except the strided skip."""
    model = lanet.LaNet(channels=2, layers=3, classes=4, cell=(1, 2, 0, 1)).eval()
    assert model(torch.zeros(1, 3, 8, 8)).shape == (1, 4)
    rebuilt = lanet.build(lanet.export(model), cell=(1, 2, 0, 1))
    images = torch.randn(2, 3, 8, 8)
    assert_same_network(rebuilt, model, images)
    with pytest.raises(checkpoint.CheckpointError, match="missing"):
        lanet.build(lanet.export(model))


def test_filters_are_standardised_with_the_unbiased_deviation() -> None:
    weight = torch.tensor([[1.0, 3.0], [0.0, 0.0]])[:, :, None, None]
    high = 1 / (sqrt(2) + 1e-5)
    wanted = torch.tensor([[-high, high], [0.0, 0.0]])[:, :, None, None]
    assert torch.allclose(lanet.standardised(weight, 1e-5), wanted, atol=1e-7)


def test_factorised_reduction_sees_even_and_odd_positions() -> None:
    reduce = lanet.FactorizedReduce(1, 2).eval()
    nn.init.ones_(reduce.conv_1.weight)
    nn.init.ones_(reduce.conv_2.weight)
    reduce.bn = nn.Identity()
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert reduce(image).tolist() == [[[[0, 2], [8, 10]], [[5, 7], [13, 15]]]]


def test_drop_path_keeps_the_mean() -> None:
    torch.manual_seed(0)
    x = torch.ones(4000, 1, 1, 1)
    dropped = lanet.drop_path(x, 0.25)
    assert sorted(set(dropped.flatten().tolist())) == pytest.approx([0, 4 / 3])
    assert dropped.mean() == pytest.approx(1, abs=0.05)
    assert lanet.drop_path(x, 0.0) is x
    assert x.eq(1).all()


def test_training_returns_both_logits_and_eval_one() -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 32, 32)
    model = lanet.LaNet(channels=2, layers=3, classes=5, auxiliary=True).train()
    model.drop_path_prob = 0.5
    logits, auxiliary = model(images)
    assert logits.shape == auxiliary.shape == (2, 5)
    assert not torch.equal(model(images)[0], logits)
    assert lanet.LaNet(channels=2, layers=3, classes=5).train()(images)[1] is None

    assert model.auxiliary_head is not None
    model.auxiliary_head.register_forward_hook(lambda *_: pytest.fail("eval() evaluates the auxiliary head"))
    model.eval()
    assert torch.equal(model(images), model(images))


@pytest.mark.parametrize("auxiliary", [False, True])
def test_export_and_build(auxiliary: bool) -> None:
    torch.manual_seed(0)
    model = lanet.LaNet(channels=6, layers=5, classes=7, auxiliary=auxiliary).eval()
    state = lanet.export(model)
    assert not any(name.endswith("num_batches_tracked") for name in state)
    images = torch.randn(2, 3, 16, 16)
    assert_same_network(models.build("lanet", state), model, images)


@pytest.mark.parametrize(
    ("arguments", "field"), [((3, 4, 10), "channels"), ((0, 4, 10), "channels"), ((4, 2, 10), "layers")]
)
def test_impossible_dimensions(arguments: tuple[int, int, int], field: str) -> None:
    with pytest.raises(ValueError, match=f"{field}: wanted .* given"):
        lanet.LaNet(*arguments)


def test_deterministic_weights_fit_the_key_list() -> None:
    assert not models.build("lanet", deterministic.state(shapes("lanet/C8_L4_keys.json"))).training
