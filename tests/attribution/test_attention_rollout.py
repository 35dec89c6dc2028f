"""Rollouts by hand, and beside dense products of matrices that the models' unfused attention gives."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from timm.models.vision_transformer import ParallelThingsBlock
from torch import Tensor, nn

from imagexplain.attribution.methods.attention_rollout import HeadFusion, attention_rollout
from imagexplain.attribution.methods.gradient_rollout import gradient_rollout
from imagexplain.attribution.network.attention_capture import attention_layers
from tests.attribution.networks import (
    assert_untouched,
    footprint,
    pictures,
    prepared,
    swin,
    tiny_cnn,
    torchvision_vit,
    vit,
)

METHODS: list[Callable[..., Tensor]] = [attention_rollout, gradient_rollout]
SWINS = (SwinTransformerBlock, SwinTransformerV2Block)


class Given(nn.Module):
    """A class token and the image's two pixels, two layers with one given head each; scores are ± the class token."""

    attention = (
        ((0.5, 0.25, 0.25), (0.2, 0.6, 0.2), (0.25, 0.25, 0.5)),
        ((0.5, 0.3, 0.2), (0.1, 0.8, 0.1), (0.3, 0.3, 0.4)),
    )

    def forward(self, images: Tensor) -> Tensor:
        tokens = torch.cat([torch.ones(len(images), 1, 1).to(images), images.flatten(2).mT], 1)
        for given in self.attention:
            logits = torch.tensor(given, dtype=images.dtype).log() + 0 * tokens.mT  # (B, 3, 3)
            tokens = tokens + logits.unsqueeze(1).softmax(-1).squeeze(1) @ tokens
        return torch.cat([tokens[:, 0], -tokens[:, 0]], 1)


def padded(size: tuple[int, int] = (20, 36), version: int = 1, dtype: torch.dtype = torch.float64) -> Any:
    """A Swin with two stages and shifted windows, by default on grids 5 × 9 and 3 × 5 that they do not fill."""
    torch.manual_seed(0)
    name = ("swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256")[version - 1]
    options = {
        "img_size": size,
        "window_size": ((4, 2), (2, 2)),
        "embed_dim": 12,
        "depths": (2, 2),
        "num_heads": (2, 4),
    }
    network = prepared(timm.create_model(name, num_classes=5, **options), dtype)
    for module in network.modules():
        if isinstance(module, nn.LayerNorm):  # those of the second version begin at 0
            nn.init.uniform_(module.weight, 0.5, 1.5)
        if hasattr(module, "relative_position_bias_table"):
            nn.init.normal_(module.relative_position_bias_table)
    return network


def distilled(dtype: torch.dtype = torch.float64) -> Any:
    torch.manual_seed(0)
    options = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 24, "num_heads": 2}
    return prepared(timm.create_model("deit_tiny_distilled_patch16_224", num_classes=5, **options), dtype)


TOKEN_MODELS: dict[str, tuple[Callable[[], Any], int, slice]] = {
    "class token": (vit, 1, slice(0, 1)),
    "registers": (lambda: vit(reg_tokens=4), 5, slice(0, 1)),
    "wide": (lambda: vit(size=(16, 48)), 1, slice(0, 1)),
    "deeper": (lambda: vit(depth=4), 1, slice(0, 1)),
    "patches": (lambda: vit("avg", class_token=False), 0, slice(0, None)),
    "patches beside a class token": (lambda: vit("avg"), 1, slice(1, None)),
    "patches beside registers": (lambda: vit("avg", class_token=False, reg_tokens=4), 4, slice(4, None)),
    "distilled": (distilled, 2, slice(0, 2)),
}
"""Model, prefix tokens, and the tokens that its scores are read from."""


def unfused(network: nn.Module, images: Tensor, target: int) -> tuple[list[Tensor], list[Tensor]]:
    """Each layer's attention as timm's slow path has it, and the gradient of the target's score by it."""
    outputs: list[Tensor] = []
    with ExitStack() as stack:
        modules: list[Any] = list(network.modules())
        for module in modules:
            if hasattr(module, "attn_drop"):
                handle = module.attn_drop.register_forward_hook(lambda _, __, output: outputs.append(output))
                stack.callback(handle.remove)
                if hasattr(module, "fused_attn"):
                    stack.callback(setattr, module, "fused_attn", module.fused_attn)
                    module.fused_attn = False
        score = network(images.clone().requires_grad_())[:, target].sum()
    return [output.detach() for output in outputs], list(torch.autograd.grad(score, outputs))


def dense_rollout(relations: list[Tensor]) -> Tensor:
    """The product of (A + I) / 2 with rows scaled to 1; a matrix that is not square, a merging, is a factor itself."""
    product = torch.eye(relations[0].shape[-1], dtype=relations[0].dtype)
    for relation in relations:
        if relation.shape[-1] == relation.shape[-2]:
            with_identity = relation + torch.eye(len(relation.mT[0]), dtype=relation.dtype)
            product = with_identity / with_identity.sum(-1, keepdim=True) @ product
        else:
            product = relation @ product
    return product


def dense_relevance(relations: list[Tensor]) -> Tensor:
    """R ← R + Ā R from R = I, less what I alone becomes."""
    identity = torch.eye(relations[0].shape[-1], dtype=relations[0].dtype)
    relevance = identity
    for relation in relations:
        if relation.shape[-1] == relation.shape[-2]:
            relevance = relevance + relation @ relevance
        else:
            relevance, identity = relation @ relevance, relation @ identity
    return relevance - identity


def in_windows(attention: Tensor, block: Any, h: int, w: int) -> Tensor:
    """(h·w, h·w) of one image from (windows, T, T), token by token."""
    (rows, columns), (down, right) = block.window_size, block.shift_size
    across = math.ceil(w / columns)
    seats = []
    for i in range(h):
        for j in range(w):
            r, c = (i - down) % h, (j - right) % w
            seats.append((r // rows * across + c // columns, r % rows * columns + c % columns))
    dense = attention.new_zeros(h * w, h * w)
    for query, (window, row) in enumerate(seats):
        for key, (other, column) in enumerate(seats):
            if window == other:
                dense[query, key] = attention[window, row, column]
    return dense


def merging(h: int, w: int) -> Tensor:
    """The mean over the up to four tokens that become one."""
    matrix = torch.zeros(math.ceil(h / 2) * math.ceil(w / 2), h * w, dtype=torch.float64)
    for i in range(h):
        for j in range(w):
            matrix[i // 2 * math.ceil(w / 2) + j // 2, i * w + j] = 1
    return matrix / matrix.sum(1, keepdim=True)


def dense_swin(network: Any, fused: list[Tensor]) -> list[Tensor]:
    relations, layers, (h, w) = [], iter(fused), network.patch_embed.grid_size
    for stage, blocks in enumerate(network.layers):
        if stage:
            relations.append(merging(h, w))
            h, w = math.ceil(h / 2), math.ceil(w / 2)
        relations += [in_windows(next(layers), block, h, w) for block in blocks.blocks]
    return relations


def test_rollout_by_hand() -> None:
    images = torch.tensor([[[[2.0, -1.0]]]], dtype=torch.float64)
    # The class token's row of (A₂ + I) / 2 is (.75, .15, .1); times (A₁ + I) / 2 its patches are
    # (.75·.25 + .15·1.6 + .1·.25) / 2 and (.75·.25 + .15·.2 + .1·1.5) / 2.
    expected = torch.tensor([[[[0.22625, 0.18375]]]], dtype=torch.float64)
    for target in (None, 0, [1]):
        assert torch.allclose(attention_rollout(Given(), images, target), expected, rtol=0, atol=1e-12)


def test_discarded_by_hand() -> None:
    images = torch.tensor([[[[2.0, -1.0]]]], dtype=torch.float64)
    # The least of three is dropped: A₂'s row is (1.5, .3, 0) / 1.8; A₁ + I has rows (1.5, 0, .25) / 1.75 (of equals the
    # first goes), (0, 1.6, .2) / 1.8 and (0, .25, 1.5) / 1.75.
    first, second = 1.5 / 1.8, 0.3 / 1.8
    expected = [second * 1.6 / 1.8, first * 0.25 / 1.75 + second * 0.2 / 1.8]
    result = attention_rollout(Given(), images, discard=0.34)
    assert torch.allclose(result.flatten(), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
    assert torch.equal(attention_rollout(Given(), images, discard=0.3), attention_rollout(Given(), images))


def test_gradient_rollout_by_hand() -> None:
    images = torch.tensor([[[[2.0, -1.0]]]], dtype=torch.float64)
    # t₀ = (1, 2, −1), t₁ = t₀ + A₁t₀ = (1.75, 3.2, −.75). ∇A₂ has the one row t₁, ∇A₁ the rows (1.5, .3, .2)ᵀ t₀.
    # Ā₂: (.875, .96, 0). Ā₁: (.75, .75, 0), (.06, .36, 0), (.05, .1, 0). The class token's row of R − I:
    # (.875, .96, 0) + (1.875, .96, 0) Ā₁, whose second value is .96 + 1.875·.75 + .96·.36.
    result = gradient_rollout(Given(), images, 0)
    assert torch.allclose(result.flatten(), torch.tensor([2.71185, 0.0], dtype=torch.float64), rtol=0, atol=1e-12)
    # With the sign turned Ā₂ is (0, 0, .15), Ā₁'s last column (.375, .06, .1): .15 + .375 + .15·.1.
    result = gradient_rollout(Given(), images, 1)
    assert torch.allclose(result.flatten(), torch.tensor([0.0, 0.54], dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", TOKEN_MODELS)
@pytest.mark.parametrize("fusion", ["mean", "max", "min"])
def test_rollout_equals_the_dense_product(kind: str, fusion: HeadFusion) -> None:
    make, prefix, read = TOKEN_MODELS[kind]
    network = make()
    images = pictures(2, network.patch_embed.img_size)
    attention, _ = unfused(network, images, 0)
    fuse = {"mean": lambda a: a.mean(1), "max": lambda a: a.amax(1), "min": lambda a: a.amin(1)}[fusion]
    dense = torch.stack([dense_rollout([fuse(layer)[index] for layer in attention]) for index in range(2)])
    expected = dense[:, read, prefix:].mean(1).unflatten(1, (1, *network.patch_embed.grid_size))
    result = attention_rollout(network, images, head_fusion=fusion, upsample=False)
    assert torch.allclose(result, expected, rtol=1e-10, atol=1e-14)
    large = F.interpolate(expected, images.shape[2:], mode="bilinear", align_corners=False)
    assert torch.allclose(attention_rollout(network, images, head_fusion=fusion), large, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("kind", TOKEN_MODELS)
@pytest.mark.parametrize("target", [0, 3])
def test_gradient_rollout_equals_the_dense_recursion(kind: str, target: int) -> None:
    make, prefix, read = TOKEN_MODELS[kind]
    network = make()
    images = pictures(2, network.patch_embed.img_size)
    layers = [(a * g).relu().mean(1) for a, g in zip(*unfused(network, images, target), strict=True)]
    dense = torch.stack([dense_relevance([layer[index] for layer in layers]) for index in range(2)])
    expected = dense[:, read, prefix:].mean(1).unflatten(1, (1, *network.patch_embed.grid_size))
    result = gradient_rollout(network, images, target, upsample=False)
    assert expected.max() > 1e-6
    assert torch.allclose(result, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("size", [(20, 36), (32, 32)])
def test_windows_equal_dense_matrices(version: int, size: tuple[int, int]) -> None:
    network, images = padded(size, version), pictures(1, size)
    attention, gradients = unfused(network, images, 2)
    shifts = [block.shift_size for block in network.modules() if isinstance(block, SWINS)]
    assert shifts == [(0, 0), (2, 1), (0, 0), (1, 1)]
    mean = dense_rollout(dense_swin(network, [layer.mean(1) for layer in attention])).mean(0)
    result = attention_rollout(network, images, upsample=False)
    assert torch.allclose(result.flatten(), mean, rtol=1e-10, atol=1e-14)
    assert math.isclose(result.sum().item(), 1)
    relevance = [(a * g).relu().mean(1) for a, g in zip(attention, gradients, strict=True)]
    expected = dense_relevance(dense_swin(network, relevance)).mean(0)
    result = gradient_rollout(network, images, 2, upsample=False)
    assert expected.max() > 1e-8
    assert torch.allclose(result.flatten(), expected, rtol=1e-8, atol=1e-16)


def test_padding_is_no_token_to_discard() -> None:
    """Whatever is asked for, each row keeps its largest attention to a token; with all else gone this alone counts."""
    network, images = padded(), pictures(1, (20, 36))
    attention, _ = unfused(network, images, 0)
    relations = dense_swin(network, [layer.mean(1) for layer in attention])
    for relation in relations:
        if relation.shape[0] == relation.shape[1]:
            relation *= relation == relation.amax(1, keepdim=True)
    result = attention_rollout(network, images, discard=0.999, upsample=False)
    # of a window with n tokens ⌊.999 n⌋ = n − 1 are dropped
    assert torch.allclose(result.flatten(), dense_rollout(relations).mean(0), rtol=1e-10, atol=1e-14)


class InSteps(nn.Module):
    """What nn.MultiheadAttention does for one input, its attention kept."""

    def __init__(self, given: nn.MultiheadAttention, outputs: list[Tensor]) -> None:
        super().__init__()
        self.given, self.outputs = given, outputs

    def forward(self, tokens: Tensor, *_: object, **__: object) -> tuple[Tensor, None]:
        projected = F.linear(tokens, self.given.in_proj_weight, self.given.in_proj_bias)
        split = projected.view(*tokens.shape[:2], 3, self.given.num_heads, -1)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        self.outputs.append((query @ key.mT / math.sqrt(query.shape[-1])).softmax(-1))
        return self.given.out_proj((self.outputs[-1] @ value).transpose(1, 2).flatten(2)), None


def test_multihead_attention_of_torch() -> None:
    network, images = torchvision_vit(), pictures(2)
    rollout = attention_rollout(network, images, upsample=False)
    relevance = gradient_rollout(network, images, 1, upsample=False)
    scores, layers = attention_layers(network, images)
    assert torch.allclose(scores, network(images), rtol=1e-10) and len(layers) == 2
    outputs: list[Tensor] = []
    for layer in network.encoder.layers:
        layer.self_attention = InSteps(layer.self_attention, outputs)
    gradients = torch.autograd.grad(network(images.requires_grad_())[:, 1].sum(), outputs)
    for index in range(2):
        product = dense_rollout([output[index].mean(0).detach() for output in outputs])
        assert torch.allclose(rollout[index].flatten(), product[0, 1:], rtol=1e-10, atol=1e-14)
        parts = [(a[index] * g[index]).relu().mean(0).detach() for a, g in zip(outputs, gradients, strict=True)]
        assert relevance[index].max() > 0
        assert torch.allclose(relevance[index].flatten(), dense_relevance(parts)[0, 1:], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", [vit, swin, padded])
def test_fused_is_unfused(method: Callable[..., Tensor], make: Callable[[], Any]) -> None:
    network = make()
    images = pictures(2, network.patch_embed.img_size)
    results = []
    for fused in (True, False):
        for module in network.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = fused
        results.append(method(network, images, 1))
        scores, layers = attention_layers(network, images)
        assert torch.allclose(scores, network(images), rtol=1e-9, atol=1e-12)
        assert len(layers) == sum(hasattr(module, "fused_attn") for module in network.modules())
    assert torch.allclose(results[0], results[1], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"scale": 0.3}, {"boolean": True}, {"added": True}])
def test_attention_in_steps_is_torchs(options: dict[str, Any]) -> None:
    class Masked(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            tokens = images.flatten(2).mT.unsqueeze(1)  # (B, 1, 16, 3)
            chosen = dict(options)
            if chosen.pop("boolean", False):
                chosen["attn_mask"] = torch.ones(16, 16, dtype=torch.bool).tril(2)
            if chosen.pop("added", False):
                chosen["attn_mask"] = torch.linspace(-1, 1, 256).double().view(16, 16)
            return F.scaled_dot_product_attention(tokens, tokens * 2, tokens, **chosen).mean((1, 2))

    images = pictures(2, (4, 4))
    scores, (layer,) = attention_layers(Masked(), images)
    assert torch.allclose(scores, Masked()(images), rtol=1e-10)
    assert layer.grid == (4, 4) and layer.prefix == 0


def test_heads_that_share_keys() -> None:
    class Grouped(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            key = images.flatten(2).mT.unsqueeze(1).repeat(1, 2, 1, 1) * torch.tensor([1.0, 2.0]).view(2, 1, 1)
            query = key.repeat(1, 2, 1, 1)
            return F.scaled_dot_product_attention(query, key, key, enable_gqa=True).mean(2).flatten(1)

    images = pictures(2, (4, 4))
    scores, (layer,) = attention_layers(Grouped(), images)
    assert torch.allclose(scores, Grouped()(images), rtol=1e-10) and layer.shape == (2, 1, 4, 16, 16)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", [vit, distilled, lambda dtype: vit("avg", class_token=False, dtype=dtype), padded])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_batch_is_one_by_one_in_any_chunk(
    method: Callable[..., Tensor], make: Any, dtype: torch.dtype, tolerance: float
) -> None:
    network = make(dtype=dtype)
    images = pictures(3, network.patch_embed.img_size, dtype)
    together = method(network, images, [2, 0, 1])
    assert together.dtype == dtype and together.shape == (3, 1, *images.shape[2:]) and together.min() >= 0
    atol = tolerance * together.max().item()
    alone = torch.cat([method(network, images[i : i + 1], target) for i, target in enumerate((2, 0, 1))])
    assert torch.allclose(alone, together, rtol=tolerance, atol=atol)
    for chunk in (1, 2):
        assert torch.allclose(method(network, images, [2, 0, 1], chunk=chunk), together, rtol=tolerance, atol=atol)


def test_only_gradient_rollout_is_of_a_class() -> None:
    network, images = vit(), pictures(2)
    assert torch.equal(attention_rollout(network, images, 0), attention_rollout(network, images, 1))
    assert not torch.allclose(gradient_rollout(network, images, 0), gradient_rollout(network, images, 1), rtol=1e-2)
    predicted = network(images).argmax(1)
    assert torch.equal(gradient_rollout(network, images), gradient_rollout(network, images, predicted))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", [vit, swin, torchvision_vit, lambda: vit("map", class_token=False), tiny_cnn])
@pytest.mark.parametrize("frozen", [True, False])
def test_model_is_untouched_also_by_failure(method: Callable[..., Tensor], make: Any, frozen: bool) -> None:
    network, images = make().requires_grad_(not frozen), pictures(2)
    flags = [vars(module).get("fused_attn") for module in network.modules()]
    before, inputs, scores = footprint(network), images.clone(), network(images)
    try:
        result = method(network, images, 1)
        assert not result.requires_grad
    except ValueError:
        assert isinstance(network, nn.Sequential)
    assert_untouched(before, network)
    assert flags == [vars(module).get("fused_attn") for module in network.modules()]
    assert torch.equal(network(images), scores) and torch.equal(images, inputs) and not images.requires_grad


@pytest.mark.parametrize("method", METHODS)
def test_in_inference_without_gradients(method: Callable[..., Tensor]) -> None:
    network, images = vit(), pictures(2)
    expected = method(network, images, 1)
    with torch.no_grad():
        assert torch.equal(method(network, images, 1), expected)


class Neighbours(nn.Module):
    """Mixes tokens that are beside each other."""

    def forward(self, tokens: Tensor) -> Tensor:
        return F.conv1d(tokens.mT, torch.ones(tokens.shape[2], 1, 3).to(tokens), padding=1, groups=tokens.shape[2]).mT


def convolved(at: int) -> Any:
    network = vit("avg", class_token=False)
    network.blocks.insert(at, Neighbours())
    return network


@pytest.mark.parametrize(
    ("make", "size", "got"),
    [
        (tiny_cnn, 32, "none"),
        (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(4)), 32, "none"),
        (lambda: convolved(1), 32, "convolutions after attention"),
        (lambda: convolved(2), 32, "convolutions after attention"),
        (lambda: vit(block_fn=ParallelThingsBlock), 32, "attention side by side"),
        (lambda: vit(attn_layer="diff"), 32, "differences of attention"),
        (lambda: timm.create_model("levit_128s", img_size=64), 64, "attention of shape"),
        (lambda: timm.create_model("pvt_v2_b0"), 64, "attention of shape"),
        (lambda: timm.create_model("cait_xxs24_224", img_size=32, depth=2), 32, "attention of shape"),
        (lambda: timm.create_model("xcit_nano_12_p16_224", depth=2), 64, "attention of shape"),
        (lambda: timm.create_model("tnt_s_patch16_224", img_size=32, depth=1), 32, "windows of an unknown kind"),
        (
            lambda: timm.create_model("coatnet_nano_rw_224", img_size=64),
            64,
            r"tokens 0 \+ \(4, 4\) before 0 \+ \(2, 2\)",
        ),
    ],
)
def test_other_models_are_refused(make: Any, size: int, got: str) -> None:
    network = make().float().eval()
    for method in METHODS:
        with pytest.raises(ValueError, match=rf"model: wanted a transformer whose attention .*, got .*{got}"):
            method(network, pictures(2, (size, size), torch.float32))


def test_convolutions_before_attention_make_patches() -> None:
    assert attention_rollout(convolved(0), pictures(2)).shape == (2, 1, 32, 32)


@pytest.mark.parametrize("method", METHODS)
def test_bad_arguments(method: Callable[..., Tensor]) -> None:
    network, images = vit(), pictures(2)
    with pytest.raises(ValueError, match=r"targets: wanted classes 0\.\.4, got"):
        method(network, images, 5)
    with pytest.raises(ValueError, match="targets: wanted 2, one for each image, got 3"):
        method(network, images, [0, 1, 2])
    with pytest.raises(ValueError, match="images: wanted"):
        method(network, images[0])
    with pytest.raises(ValueError, match="chunk: wanted at least 1, got 0"):
        method(network, images, chunk=0)
    with pytest.raises(ValueError, match="model: wanted a module with attention layers, got function"):
        method(lambda x: network(x), images)
    nn.init.zeros_(network.head.weight)
    with pytest.raises(ValueError, match="model: wanted scores that depend on the last layer's attention"):
        method(network, images)


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="head_fusion: wanted one of mean, max, min, got 'sum'"):
        attention_rollout(vit(), pictures(), head_fusion="sum")  # type: ignore[arg-type]
    for discard in (1.0, -0.1):
        with pytest.raises(ValueError, match=r"discard: wanted a share in \[0, 1\), got"):
            attention_rollout(vit(), pictures(), discard=discard)
