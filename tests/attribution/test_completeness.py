from collections.abc import Callable

import pytest
import timm
import torch
from torch import Tensor, nn

from imagexplain.attribution.completeness import LARGEST_SHARE, missing_share
from imagexplain.attribution.methods.deep_lift import deep_lift
from tests.attribution.networks import pictures, prepared, resnet


def test_by_hand() -> None:
    """8 of 2 + 7 is 1 too much, beside 9 + 8; 10 is made up of 4 and 6."""
    parts = [torch.tensor([[1.0, 1.0], [5.0, -1.0]]), torch.tensor([[7.0], [6.0]])]
    assert missing_share(torch.tensor([8.0, 10.0]), parts).tolist() == pytest.approx([1 / 17, 0], abs=1e-5)


def test_rounding_of_what_cancels_is_not_missing() -> None:
    """In float32 1000 − 1000 + 1 is 1 to 1e-4; in float64 a ten-thousandth is missing."""
    part = torch.tensor([[1000.0, -1000.0, 1.0]])
    assert missing_share(torch.tensor([1.0001]), [part]).item() == 0
    assert missing_share(torch.tensor([1.0001]).double(), [part.double()]).item() == pytest.approx(1e-4 / 2, rel=1e-2)


def test_a_difference_of_large_scores_rounds_as_they_do() -> None:
    ends = torch.tensor([5000.0]), torch.tensor([4999.0])
    part = torch.tensor([[1.001]])
    assert missing_share(ends[0] - ends[1], [part], ends).item() == 0
    assert missing_share(ends[0] - ends[1], [part]).item() > LARGEST_SHARE


REFUSED: dict[str, Callable[[], nn.Module]] = {
    "group norms": lambda: timm.create_model("poolformer_s12", num_classes=5),
    "gates": lambda: timm.create_model("ghostnet_050", num_classes=5),
    "squeeze and excitation": lambda: timm.create_model("seresnet18", num_classes=5),
}


@pytest.mark.parametrize("network", REFUSED)
def test_deep_lift_refuses_what_it_has_no_rule_for(network: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=r"^model: wanted only non-linearities that have a rule, got maps that miss"):
        deep_lift(prepared(REFUSED[network]()), pictures(2, (64, 64)), 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_deep_lift_does_not_take_rounding_for_a_fault(dtype: torch.dtype) -> None:
    model, images = resnet(dtype), pictures(3, (64, 64), dtype)
    near = images + 1e-3 * images.flip(0)
    for baselines in (None, near, images):
        maps = deep_lift(model, images, 1, baselines=baselines)
        change = (model(images) - model(torch.zeros_like(images) if baselines is None else baselines))[:, 1]
        assert ((maps.sum((1, 2, 3)) - change).abs() <= 1e-5 * (model(images)[:, 1].abs() + maps.abs().sum())).all()


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e9])
def test_deep_lift_does_not_depend_on_the_scale_of_activations(scale: float) -> None:
    """relu(x₁ − 2x₂ − 1) is 0 at (0, 0) and 2 at (5, 1): the ratio is 2/3 of the 3 that x₁ − 2x₂ changed by."""

    def model(x: Tensor) -> Tensor:
        return ((x.flatten(1) @ x.new_tensor([[1.0], [-2.0]]) - 1) * scale).relu()

    got = deep_lift(model, torch.tensor([5.0, 1.0]).view(1, 1, 1, 2)).flatten() / scale
    torch.testing.assert_close(got, torch.tensor([5 * 2 / 3, -2 * 2 / 3]))
