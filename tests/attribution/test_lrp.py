"""LRP: each rule by hand, Captum's rules where it has them, and zennit's composites where it is installed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from captum.attr import LRP
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from imagexplain import contrast, lrp
from imagexplain.errors import ArgumentError, UnsupportedModelError
from tests.attribution.closeness import close
from tests.attribution.networks import assert_untouched, footprint, pictures, prepared, resnet, tiny_cnn, vit

COMPOSITES = ("epsilon", "epsilon_gamma", "epsilon_plus")


class OneByOne(nn.Module):
    """Two channels of a single pixel, weights 1 and −2, bias 0.5, as a convolution; the other class is its negative."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(2, 1, 1).double()
        self.layer.weight.data = torch.tensor([1.0, -2.0]).double().view(1, 2, 1, 1)
        nn.init.constant_(self.layer.bias, 0.5)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        score = self.layer(x).flatten(1)
        return torch.cat([score, -score], 1)


@pytest.mark.parametrize(
    ("composite", "pixels", "expected"),
    [
        ("epsilon", (3.0, 1.0), (3, -2)),  # 3 − 2 + 0.5
        ("epsilon_gamma", (3.0, 1.0), (1.5 * 6 / 5, -1.5 * 2 / 5)),  # γ = 1: 6 − 2 + 1
        ("epsilon_plus", (3.0, 1.0), (1.5 * 3 / 3.5, 0)),
        ("epsilon_gamma", (3.0, -1.0), (5.5 * 6 / 11, 5.5 * 4 / 11)),  # 6 + 4 + 1
        ("epsilon_plus", (3.0, -1.0), (3, 2)),
        ("epsilon_gamma", (1.0, 3.0), (-4.5 * 1 / -10.5, -4.5 * -12 / -10.5)),  # of −4.5: 1 − 12 + 0.5
    ],
)
def test_the_rules_by_hand(composite: Any, pixels: tuple[float, float], expected: tuple[float, float]) -> None:
    image = torch.tensor(pixels).double().view(1, 2, 1, 1)
    found = lrp(OneByOne(), image, 0, composite=composite, gamma=1.0, epsilon=1e-12)
    assert found.flatten().tolist() == pytest.approx(expected, abs=3e-6)


def test_sums_means_and_maxima_by_hand() -> None:
    """Of (1, 3) and its double the sum is divided 1 to 2; a mean divides as 1 to 3, a maximum gives all to 3."""
    image = torch.tensor([1.0, 3.0]).double().view(1, 1, 1, 2)

    def network(x: Tensor) -> Tensor:
        both = x + 2 * x.relu()
        return torch.stack([both.mean((1, 2, 3)), both.amax((1, 2, 3)), (both - x).sum((1, 2, 3))], 1)

    for target, expected in ((0, [1.5, 4.5]), (1, [0, 9]), (2, [2, 6])):
        assert lrp(network, image, target).flatten().tolist() == pytest.approx(expected, rel=1e-5)


class Stages(nn.Module):
    """Convolutions, pools and a head, as modules or as functions and in place."""

    def __init__(self, bias: bool, inplace: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1, bias=bias), nn.Conv2d(6, 8, 3, bias=bias)
        self.relu, self.other, self.pool = nn.ReLU(inplace), nn.ReLU(inplace), nn.MaxPool2d(2)
        self.mean, self.head = nn.AdaptiveAvgPool2d(2), nn.Linear(32, 4, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.first(x)))
        scores: Tensor = self.head(self.mean(self.other(self.second(x))).flatten(1))
        return scores


@pytest.mark.parametrize("bias", [False, True])
def test_agrees_with_captum(bias: bool) -> None:
    """On pixels of one sign, for which alone its γ and z⁺ are defined, and so large that nobody's ε counts."""
    model, images, classes = Stages(bias).double().eval(), 1e4 * pictures(2, (12, 12)).abs(), torch.tensor([1, 3])
    for composite, rule in zip(COMPOSITES, (EpsilonRule, GammaRule, Alpha1_Beta0_Rule), strict=True):
        if bias and composite != "epsilon":
            continue  # Captum's γ and z⁺ leave biases as they are
        for layer in (model.first, model.second):
            layer.rule = rule()
        expected = LRP(model).attribute(images.clone(), target=classes).detach()
        got = lrp(model, images, classes, composite=composite)  # type: ignore[arg-type]
        assert close(got, expected, 1e-6), composite


def test_the_score_is_handed_back_whole_where_there_are_no_biases() -> None:
    model, images = Stages(bias=False).double().eval(), pictures(2, (12, 12))
    for composite in COMPOSITES:
        found = lrp(model, images, [1, 3], composite=composite, epsilon=1e-9)  # type: ignore[arg-type]
        torch.testing.assert_close(found.sum((1, 2, 3)), model(images)[[0, 1], [1, 3]], rtol=1e-3, atol=1e-5)


def test_in_place_or_not_and_a_norm_within_its_convolution() -> None:
    images = pictures(2, (12, 12))
    apart, inplace = (lrp(Stages(True, inplace).double().eval(), images, 1) for inplace in (False, True))
    torch.testing.assert_close(apart, inplace)
    model = tiny_cnn()
    fused = nn.Sequential(fuse_conv_bn_eval(model[0], model[1]), *model[2:]).eval()
    for composite in COMPOSITES:
        got, expected = (lrp(network, images, 1, composite=composite) for network in (model, fused))  # type: ignore
        assert close(got, expected, 1e-8), composite


def test_a_norm_of_other_channels_than_a_linear_layers_is_none_of_its_own() -> None:
    """Behind a linear layer along rows a norm scales channels, and hands its relevance on."""
    torch.manual_seed(0)
    rows, head = nn.Linear(4, 4, bias=False), nn.Linear(16, 3, bias=False)
    norm = nn.BatchNorm1d(4)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.uniform_(norm.bias, 1, 2)
    model = nn.Sequential(rows, norm, nn.Flatten(), head).double().eval()
    images = torch.rand(2, 4, 4, dtype=torch.float64)

    given = images.clone().requires_grad_()
    normed = norm(rows(given)).detach()
    relevance = normed * head.weight.detach()[1].view(4, 4)  # of the head's values
    share = relevance / rows(images)
    (expected,) = torch.autograd.grad(rows(given), given, share)
    torch.testing.assert_close(
        lrp(nn.Sequential(nn.Flatten(1, 2), model), images.unsqueeze(1), 1)[:, 0],
        expected * images,
        rtol=1e-4,
        atol=1e-4,
    )


def test_batch_equals_one_by_one_and_the_model_is_untouched() -> None:
    model, images, classes = resnet(), pictures(3, (64, 48)), [0, 1, 3]
    before = footprint(model)
    together = lrp(model, images, classes)
    assert_untouched(before, model)
    alone = torch.cat([lrp(model, images[[b]], classes[b]) for b in range(3)])
    assert close(together, alone, 1e-6)


@pytest.mark.upstream
@pytest.mark.parametrize("network", ["tiny", "resnet18", "vgg11_bn"])
def test_agrees_with_zennit(network: str) -> None:
    """Whose norms keep an ε of their own when they are merged, so that it is 0 here."""
    zennit = pytest.importorskip("zennit")
    composites, rules, kinds = zennit.composites, zennit.rules, zennit.types
    torch.manual_seed(0)
    model = tiny_cnn() if network == "tiny" else prepared(getattr(torchvision.models, network)(num_classes=4))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
    canonizer = (
        zennit.torchvision.ResNetCanonizer if "resnet" in network else zennit.canonizers.SequentialMergeBatchNorm
    )
    images, start = pictures(2, (64, 64)), torch.eye(4)[[1, 3]].double()
    own = {"epsilon": rules.Epsilon(1e-3), "epsilon_gamma": rules.Gamma(0.25), "epsilon_plus": rules.ZPlus()}
    for composite, rule in own.items():
        layers = [(kinds.Convolution, rule), (nn.Linear, rules.Epsilon(1e-3))]
        made = composites.LayerMapComposite(composites.layer_map_base() + layers, [canonizer()])
        with zennit.attribution.Gradient(model, made) as attributor:
            _, expected = attributor(images.clone(), start * model(images))
        got = lrp(model, images, [1, 3], composite=composite, epsilon=1e-3)  # type: ignore[arg-type]
        assert close(got, expected, 1e-5), composite


def test_a_difference_of_two_classes_is_divided_between_them() -> None:
    """Of a linear head: the relevance of a score of its own, whose weights are the difference."""
    torch.manual_seed(0)
    head, images = nn.Linear(12, 3, bias=False).double(), pictures(1, (2, 2))
    model = nn.Sequential(nn.Flatten(), head)
    with contrast(model, [(2, 0)]) as (differences, columns):
        found = lrp(differences, images, columns)
    expected = (head.weight[2] - head.weight[0]).detach().view(1, 3, 2, 2) * images
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: vit(), "layer_norm"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4), nn.Flatten()).double(), "group_norm"),
        (lambda: lambda x: (x * x.sigmoid()).mean((2, 3)), "mul"),
        (lambda: lambda x: x.flatten(1).softmax(1), "softmax"),
        (lambda: lambda x: torch.div(2.0, x + 3).mean((2, 3)), "div"),
        (lambda: lambda x: 1 / (x + 3).mean((2, 3)), "r.*div"),
    ],
)
def test_what_has_no_rule_is_refused(make: Any, said: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"model: wanted one of convolutions, .*, got {said}"):
        lrp(make(), pictures(1), 0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"composite": "flat"}, "composite: wanted epsilon, epsilon_gamma or epsilon_plus, got 'flat'"),
        ({"epsilon": 0.0}, "epsilon: wanted a number above 0, got 0.0"),
        ({"gamma": -1.0}, "gamma: wanted a number of at least 0, got -1.0"),
    ],
)
def test_bad_arguments(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        lrp(tiny_cnn(), pictures(1, (8, 8)), 0, **options)
