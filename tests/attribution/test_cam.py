from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import imagexplain.attribution as cam
from imagexplain.attribution.class_activation_maps import shown, weighted
from imagexplain.attribution.methods import eigen_grad_cam, grad_cam_plusplus, xgrad_cam
from imagexplain.attribution.network.layers import layer_named, scores_and_activation
from imagexplain.attribution.principal_component import first_component
from tests.attribution.networks import (
    assert_untouched,
    footprint,
    pictures,
    prepared,
    resnet,
    swin,
    tiny_cnn,
    to_maps,
    vit,
)

METHODS: list[Callable[..., Tensor]] = [
    cam.grad_cam,
    cam.grad_cam_plusplus,
    cam.hires_cam,
    cam.xgrad_cam,
    cam.layer_cam,
    cam.bag_cam,
    cam.eigen_cam,
    cam.eigen_grad_cam,
]
PEERS = {
    cam.grad_cam: "GradCAM",
    cam.grad_cam_plusplus: "GradCAMPlusPlus",
    cam.hires_cam: "HiResCAM",
    cam.xgrad_cam: "XGradCAM",
    cam.layer_cam: "LayerCAM",
}
NETWORKS: dict[str, tuple[Callable[..., Any], str, tuple[int, int]]] = {
    "tiny": (tiny_cnn, "4", (16, 12)),
    "resnet": (resnet, "layer3", (64, 48)),
    "vit": (vit, "blocks.1.norm1", (32, 32)),
    "swin": (swin, "norm", (32, 32)),
}


class Fixed(nn.Module):
    """A one-by-two image is the layer's output itself, with two channels; the score's gradient is given."""

    def __init__(self, gradient: Tensor) -> None:
        super().__init__()
        self.layer = nn.Conv2d(2, 2, 1, bias=False).double()
        nn.init.dirac_(self.layer.weight)
        self.gradient = gradient

    def forward(self, x: Tensor) -> Tensor:
        score = (self.layer(x) * self.gradient).sum((1, 2, 3))
        return torch.stack([score, -score], 1)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        # A = [1, 3], [2, -2]; G = [2, 4], [1, -3]
        (cam.grad_cam, [3 - 2, 9 + 2]),  # weights 3, −1
        (cam.hires_cam, [2 + 2, 12 + 6]),
        (cam.layer_cam, [2 + 2, 12]),
        (cam.xgrad_cam, [14 / 4, 42 / 4]),  # the second channel sums to 0
        # shares 1 / (2 + 4 · 2), 1 / (2 + 4 · 4); 1 / 2 of the positive gradient
        (cam.grad_cam_plusplus, [2 / 10 + 4 / 18 + 1, 3 * (2 / 10 + 4 / 18) - 1]),
        (cam.bag_cam, [8 * 2 + 5 * 2, 8 * 12 + 5 * 6]),  # means of t + 1: 8, 5
        # centred [−1, 1], [2, −2]: along (−1, 2) / √5 the places are ±√5; the mean activation is (1/2, −1/2)
        (cam.eigen_cam, [5**0.5, 0]),
        (cam.finer_cam, [2 * (3 - 2), 2 * (9 + 2)]),  # the other class has the negative score
        (cam.eigen_grad_cam, [0, 29**0.5]),  # centred [−5, 5], [−2, 2]; the mean is (−7/2, 7/2)
    ],
)
def test_by_hand(method, expected: list[float]) -> None:
    gradient = torch.tensor([[[2.0, 4.0]], [[1.0, -3.0]]]).double()
    image = torch.tensor([[[[1.0, 3.0]], [[2.0, -2.0]]]]).double()
    got = method(Fixed(gradient), image, 0, layer="layer")
    np.testing.assert_allclose(got.flatten(), expected, rtol=1e-12, atol=1e-12)


def test_pooled_linear_network_is_class_activation_mapping() -> None:
    """Global average pooling and a linear layer: all three are Σ_k w_k A_k / (h · w) (Zhou et al. 2016)."""
    model, images = tiny_cnn(), pictures(2, (8, 8))
    maps = model[:5](images)
    expected = torch.einsum("k,bkhw->bhw", model[7].weight[2], maps).relu().unsqueeze(1) / 16
    for method in (cam.grad_cam, cam.hires_cam, cam.xgrad_cam):
        torch.testing.assert_close(
            method(model, images, 2, layer="4", upsample=False), expected, rtol=1e-10, atol=1e-14
        )


def scaled(maps: np.ndarray) -> np.ndarray:
    low, high = maps.min((1, 2), keepdims=True), maps.max((1, 2), keepdims=True)
    return (maps - low) / np.where(high > low, high - low, 1)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", PEERS)
def test_agrees_with_pytorch_grad_cam(method, network: str) -> None:
    """The peer resizes a map after scaling it, in float32, and has constants in its denominators: 1e-6 of Grad-CAM++
    is absolute beside squared gradients, so that the score is multiplied by 1e6 for it."""
    build, layer, size = NETWORKS[network]
    model, images, classes = build(), pictures(2, size), [1, 3]
    factor = 1e6 if method is cam.grad_cam_plusplus else 1.0
    target = layer_named(model, layer)
    kind = getattr(import_module("pytorch_grad_cam"), PEERS[method])
    with kind(Louder(model, factor), [target], reshape_transform=lambda x: to_maps(x, images.shape)) as peer:
        expected = peer(
            images.clone().requires_grad_(), [lambda scores, index=index: scores[index] for index in classes]
        )
    if method is cam.grad_cam_plusplus:
        model = Louder(model, factor)
    got = method(model, images, classes, layer=target).squeeze(1).numpy()
    assert np.abs(scaled(got) - scaled(expected)).max() < 2e-6


@pytest.mark.parametrize("network", ["tiny", "resnet"])
def test_plusplus_is_the_papers_formula_and_the_peers_has_a_constant_more(network: str) -> None:
    """Beside squared gradients of 1e-6 and less the peer's 1e-6 counts; beside large ones the two are alike."""
    build, layer, size = NETWORKS[network]
    images, classes = pictures(2, size), [1, 3]
    kind = import_module("pytorch_grad_cam").GradCAMPlusPlus
    apart = []
    for factor in (1e-2, 1e6):
        model = Louder(build(), factor)
        target = layer_named(model.model, layer)
        with kind(model, [target]) as peer:
            theirs = peer(
                images.clone().requires_grad_(), [lambda scores, index=index: scores[index] for index in classes]
            )
        scores, activation = scores_and_activation(model, images, target)
        (g,) = torch.autograd.grad(scores[[0, 1], classes].sum(), activation)
        activation = activation.detach()
        ours = cam.grad_cam_plusplus(model, images, classes, layer=target)
        for constant, expected in ((0.0, scaled(ours.squeeze(1).numpy())), (1e-6, scaled(theirs))):
            below = 2 * g**2 + activation.sum((2, 3), keepdim=True) * g**3 + constant
            share = torch.where(g == 0, 0.0, g**2 / torch.where(below == 0, 1.0, below))
            weights = (share * g.relu()).sum((2, 3))
            raw = shown(weighted(activation, weights), images, upsample=True)
            assert np.abs(scaled(raw.squeeze(1).numpy()) - expected).max() < 2e-6
        apart.append(np.abs(scaled(ours.squeeze(1).numpy()) - scaled(theirs)).max())
    assert apart[0] > 0.01 and apart[1] < 2e-6


class Louder(nn.Module):
    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) * self.factor


@pytest.mark.parametrize("network", NETWORKS)
def test_components_agree_with_pytorch_grad_cam_but_for_the_sign(network: str) -> None:
    peer = import_module("pytorch_grad_cam.utils.svd_on_activations")
    build, layer, size = NETWORKS[network]
    model, images = build(), pictures(2, size)
    module = layer_named(model, layer)
    scores, activation = scores_and_activation(model, images, module)
    (gradient,) = torch.autograd.grad(scores[:, 2].sum(), activation)
    maps = to_maps(activation, images.shape).detach()
    for method, matrix in (
        (cam.eigen_cam, maps),
        (cam.eigen_grad_cam, maps * to_maps(gradient, images.shape)),
    ):
        expected = torch.from_numpy(peer.get_2d_projection(matrix.numpy())).double()
        mean = matrix.mean(1)
        agreement = (expected * (mean - mean.mean((1, 2), keepdim=True))).sum((1, 2), keepdim=True)
        largest = torch.stack([own.flatten()[own.abs().argmax()] for own in expected]).view(-1, 1, 1)
        sign = torch.where(agreement.abs() > 1e-9, agreement, largest).sign()  # behind a layer norm the mean is 0
        got = method(model, images, 2, layer=layer, upsample=False)
        reference = (sign * expected).relu().unsqueeze(1)
        assert (got - reference).abs().max() / reference.abs().max() < 1e-6


def test_rank_one_activation_is_recovered_whatever_its_sign() -> None:
    shape, channels = torch.tensor([0.0, 0.0, 3.0, 1.0]), torch.tensor([1.0, 2.0, 2.0])
    maps = torch.einsum("p,k->kp", shape, channels).view(1, 3, 2, 2).double()
    component = first_component(maps)
    torch.testing.assert_close(component.flatten(), (3 * (shape - 1)).double())
    torch.testing.assert_close(first_component(-maps), -component)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", METHODS)
def test_batch_equals_one_by_one_and_the_model_is_untouched(method, network: str) -> None:
    build, layer, size = NETWORKS[network]
    model, images, classes = build(), pictures(3, size), [0, 1, 3]
    before = footprint(model)
    together = method(model, images, classes, layer=layer)
    assert_untouched(before, model)
    assert together.shape == (3, 1, *size) and together.min() >= 0 and together.amax((1, 2, 3)).min() > 0
    assert not together.requires_grad
    for row in range(3):
        alone = method(model, images[row : row + 1], classes[row], layer=layer)
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-10, atol=1e-10 * float(alone.max()))


def test_predicted_class_default_layer_and_size_of_the_layer() -> None:
    model, images = resnet(), pictures(2, (64, 96))
    predicted = model(images).argmax(1)
    expected = cam.grad_cam(model, images, predicted, layer="layer4", upsample=False)
    assert expected.shape == (2, 1, 2, 3)
    torch.testing.assert_close(cam.grad_cam(model, images, upsample=False), expected)


def test_tokens_of_a_wide_image_and_other_prefixes() -> None:
    for model in (vit(size=(16, 32)), vit(size=(16, 32), reg_tokens=4), vit("avg", size=(16, 32), class_token=False)):
        assert cam.hires_cam(model, pictures(1, (16, 32)), 0, upsample=False).shape == (1, 1, 2, 4)


@pytest.mark.parametrize("method", [*METHODS, cam.finer_cam, cam.shapley_cam])
def test_differentiable_maps(method) -> None:
    torch.manual_seed(0)
    model = prepared(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Conv2d(4, 5, 3), nn.Tanh(), nn.Flatten(), nn.Linear(45, 2))
    )
    images = pictures(1, (7, 7)).requires_grad_()

    def maps(x: Tensor) -> Tensor:
        return method(model, x, 0, layer="1", create_graph=True)

    assert torch.autograd.gradcheck(maps, images)
    torch.testing.assert_close(maps(images).detach(), method(model, images, 0, layer="1"))


@pytest.mark.parametrize("network", ["resnet", "vit", "swin"])
@pytest.mark.parametrize("method", [cam.grad_cam, cam.eigen_cam, cam.eigen_grad_cam])
def test_gradients_reach_the_parameters(method, network: str) -> None:
    build, layer, size = NETWORKS[network]
    model, images = build().requires_grad_(True), pictures(1, size)
    loss = method(model, images, 1, layer=layer, create_graph=True).sum()
    first = next(parameter for name, parameter in model.named_parameters() if name.endswith("weight"))
    (gradient,) = torch.autograd.grad(loss, first)
    assert gradient.isfinite().all() and gradient.any()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_dead_channels_and_equal_places_do_no_harm() -> None:
    maps = torch.zeros(1, 6, 3, 3, dtype=torch.float64, requires_grad=True)
    assert not first_component(maps).any()
    for rule in (xgrad_cam._rule, grad_cam_plusplus._rule, eigen_grad_cam._rule):
        result = rule(maps, torch.zeros_like(maps))
        (gradient,) = torch.autograd.grad(result.sum(), maps)
        assert not result.any() and gradient.isfinite().all()


def test_works_where_gradients_are_off() -> None:
    model, images = tiny_cnn(dtype=torch.float32), pictures(1, (8, 8), torch.float32)
    with torch.no_grad():
        inside = cam.grad_cam(model, images, 0)
    torch.testing.assert_close(inside, cam.grad_cam(model, images, 0))


def test_bad_arguments() -> None:
    model, images = tiny_cnn(), pictures(2, (8, 8))
    before = footprint(model)
    with pytest.raises(ValueError, match="layer: wanted the name"):
        cam.grad_cam(model, images, 0, layer="44")
    with pytest.raises(ValueError, match="layer: wanted an output"):
        cam.grad_cam(model, images, 0, layer="7")
    with pytest.raises(ValueError, match="targets: wanted classes"):
        cam.eigen_cam(model, images, 4)
    with pytest.raises(ValueError, match="targets: wanted 2"):
        cam.grad_cam(model, images, [1, 2, 3])
    assert_untouched(before, model)


def test_a_layer_without_influence_is_refused() -> None:
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.aside, self.main = nn.Conv2d(3, 2, 1).double(), nn.Conv2d(3, 2, 1).double()

        def forward(self, x: Tensor) -> Tensor:
            self.aside(x)
            return self.main(x).mean((2, 3))

    for model in (Aside(), Aside().requires_grad_(False)):
        with pytest.raises(ValueError, match="on which the scores depend, got"):
            cam.grad_cam(model, pictures(1, (4, 4)), 0, layer="aside")
