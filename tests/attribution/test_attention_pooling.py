"""Transformers whose tokens are pooled by attention with learned queries (SigLIP), beside the pooling by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from timm.layers.attention_pool import AttentionPoolLatent
from torch import Tensor, nn

from imagexplain.attribution.methods.attention_rollout import attention_rollout
from imagexplain.attribution.methods.attn_lrp import attn_lrp
from imagexplain.attribution.methods.gradient_rollout import gradient_rollout
from imagexplain.attribution.methods.legrad import Reading, legrad
from imagexplain.attribution.methods.libra_grad import libra_grad
from imagexplain.attribution.methods.transformer_attribution import transformer_attribution
from imagexplain.attribution.network.attention_capture import attention_layers
from imagexplain.attribution.network.relevance_rules import RelevanceRules
from imagexplain.errors import UnsupportedModelError
from tests.attribution.networks import assert_untouched, footprint, pictures, vit

METHODS = (attention_rollout, gradient_rollout, transformer_attribution, legrad, libra_grad, attn_lrp)


def pooled(queries: int = 1, read: str = "token", **options: Any) -> Any:
    """A transformer of two blocks over 4 × 4 patches, whose scores are read from some queries' results."""
    network = vit("map", class_token=False, **options)
    torch.manual_seed(1)
    network.attn_pool = AttentionPoolLatent(
        24, num_heads=3, norm_layer=nn.LayerNorm, latent_len=queries, pool_type=read
    )
    nn.init.normal_(network.attn_pool.latent)
    return network.double().eval().requires_grad_(False)


def by_hand(network: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Attention (B, heads, Q, T) of the pooling of tokens (B, T, K) that the norm has passed, and the scores by it."""
    pool = network.attn_pool

    def heads(values: Tensor) -> Tensor:
        return values.unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)

    query = heads(pool.q(pool.latent.expand(len(tokens), -1, -1)))
    key, value = map(heads, pool.kv(tokens).chunk(2, -1))
    attention = (query @ key.mT / (24 // pool.num_heads) ** 0.5).softmax(-1)
    mixed = pool.proj((attention @ value).transpose(1, 2).flatten(2))
    mixed = mixed + pool.mlp(pool.norm(mixed))
    return attention, network.head(network.fc_norm(mixed.mean(1) if pool.pool == "avg" else mixed[:, 0]))


def relevance_of(relevance: list[Tensor]) -> Tensor:
    """The queries' Ā R (B, Q, T), with R ← R + Ā R over the blocks from R = I, of relevance (B, heads, Q, T)."""
    relations = [layer.relu().mean(1) for layer in relevance]
    found = torch.eye(16).to(relations[0])
    for relation in relations[:-1]:
        found = found + relation @ found
    return relations[-1] @ found


KINDS = pytest.mark.parametrize(
    ("queries", "read", "rows"), [(1, "token", [0]), (3, "token", [0]), (3, "avg", [0, 1, 2])]
)


@KINDS
def test_rollouts_by_hand(queries: int, read: str, rows: list[int]) -> None:
    network, images = pooled(queries, read), pictures(2)
    scores, layers = attention_layers(network, images)
    assert [layer.shape[2:] for layer in layers] == [(2, 16, 16), (2, 16, 16), (3, queries, 16)]
    attention, expected = by_hand(network, network.forward_features(images))
    torch.testing.assert_close(scores, expected, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(layers[-1].output, attention, rtol=1e-10, atol=1e-14)

    shares = torch.eye(16, dtype=images.dtype)
    for layer in layers[:-1]:
        shares = (layer.output.mean(1) + torch.eye(16)) / 2 @ shares
    rolled = (attention.mean(1) @ shares)[:, rows].mean(1)
    found = attention_rollout(network, images, upsample=False).flatten(1)
    torch.testing.assert_close(found, rolled, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(found.sum(1), torch.ones(2).double())

    gradients = torch.autograd.grad(scores[:, 3].sum(), [layer.output for layer in layers])
    products = [gradient * layer.output.detach() for gradient, layer in zip(gradients, layers, strict=True)]
    wanted = relevance_of(products)[:, rows].mean(1)
    found = gradient_rollout(network, images, 3, upsample=False).flatten(1)
    assert wanted.max() > 0
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-14)


@KINDS
def test_transformer_attribution_by_hand(queries: int, read: str, rows: list[int]) -> None:
    """But for the relevance of attention, of which the rules that give it have tests of their own."""
    network, images = pooled(queries, read), pictures(2)
    scores, layers = attention_layers(network, images)
    gradients = torch.autograd.grad(scores[:, 3].sum(), [layer.output for layer in layers])
    scores, layers = attention_layers(network, images, RelevanceRules)
    torch.testing.assert_close(scores, network(images), rtol=1e-9, atol=1e-12)
    relevance = torch.autograd.grad(scores[:, 3].sum(), [layer.output for layer in layers])
    wanted = relevance_of([g * r for g, r in zip(gradients, relevance, strict=True)])[:, rows].mean(1)
    found = transformer_attribution(network, images, 3, upsample=False).flatten(1)
    assert wanted.max() > 0
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-14)


@KINDS
@pytest.mark.parametrize("reading", ["mean", "model"])
def test_legrad_is_of_the_poolings_attention_to_each_layers_tokens(
    queries: int, read: str, rows: list[int], reading: Reading
) -> None:
    """As in the authors' code for SigLIP, with the norm before the pooling."""
    network, images = pooled(queries, read), pictures(2)
    tokens = network.norm_pre(network.patch_drop(network._pos_embed(network.patch_embed(images.requires_grad_()))))
    maps = []
    for block in network.blocks:
        tokens = block(tokens)
        attention, scores = by_hand(network, network.norm(tokens))
        (gradient,) = torch.autograd.grad(scores[:, 3].sum(), attention, retain_graph=True)
        assert not gradient[:, :, [row for row in range(queries) if row not in rows]].any()
        maps.append(gradient.relu().mean((1, 2)))
    for layers in (0, 1, 2):
        expected = torch.stack(maps[-layers:]).mean(0)
        found = legrad(network, images.detach(), 3, layers=layers, reading=reading, upsample=False).flatten(1)
        assert expected.std() > 0
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-15)


def test_what_must_add_up_to_the_score() -> None:
    """Where no biases are behind the tokens, or at all; the queries are none, for attention is held."""
    network, images = pooled(), pictures(2)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
    wanted = network(images)[[0, 1], [1, 3]]
    maps = libra_grad(network, images, [1, 3], upsample=False)
    torch.testing.assert_close(maps.sum((1, 2, 3)), wanted, rtol=1e-9, atol=1e-12)
    nn.init.zeros_(network.pos_embed)
    wanted = network(images)[[0, 1], [1, 3]]
    for gamma in (0.0, 0.3):
        maps = attn_lrp(network, images, [1, 3], gamma=gamma, conv_gamma=gamma)
        torch.testing.assert_close(maps.sum((1, 2, 3)), wanted, rtol=1e-9, atol=1e-12)


class TorchPooling(nn.Module):
    """The same pooling by PyTorch's multi-head attention, as the transformers library has it."""

    def __init__(self, pool: Any) -> None:
        super().__init__()
        self.probe = nn.Parameter(pool.latent)
        self.attention = nn.MultiheadAttention(24, pool.num_heads, batch_first=True).double()
        self.attention.in_proj_weight.data = torch.cat([pool.q.weight, pool.kv.weight])
        self.attention.in_proj_bias.data = torch.cat([pool.q.bias, pool.kv.bias])
        self.attention.out_proj = pool.proj
        self.norm, self.mlp = pool.norm, pool.mlp

    def forward(self, tokens: Tensor) -> Tensor:
        found = self.attention(self.probe.expand(len(tokens), -1, -1), tokens, tokens)[0]
        return (found + self.mlp(self.norm(found)))[:, 0]


WITHOUT_GAMMA = partial(attn_lrp, gamma=0.0)  # of which the projections of torch's attention have none


@pytest.mark.parametrize("method", [*METHODS[:-1], WITHOUT_GAMMA])
def test_multihead_attention_of_torch(method: Callable[..., Tensor]) -> None:
    network, images = pooled(3), pictures(2)
    wanted = method(network, images, 3)
    network.attn_pool = TorchPooling(network.attn_pool).eval().requires_grad_(False)
    torch.testing.assert_close(method(network, images, 3), wanted, rtol=1e-9, atol=1e-12 * wanted.abs().max().item())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("options", [{}, {"reg_tokens": 2}, {"depth": 1}])
def test_classes_chunks_and_footprints(method: Callable[..., Tensor], options: dict[str, Any]) -> None:
    network, images = pooled(**options).requires_grad_(True), pictures(3)
    before = footprint(network)
    maps = method(network, images, [2, 0, 1])
    assert maps.shape[2:] == (32, 32) and maps.any() and not maps.requires_grad
    alone = method(network, images, [2, 0, 1], chunk=1)
    torch.testing.assert_close(maps, alone, rtol=1e-9, atol=1e-9 * maps.abs().max().item())
    with torch.no_grad():
        assert torch.equal(method(network, images, [2, 0, 1]), maps)
    assert_untouched(before, network)


class OfTokens(nn.Module):
    """A pooling whose query is the mean of the tokens, or one of them, as last layers are that compute no other row."""

    def __init__(self, pool: Any, mean: bool) -> None:
        super().__init__()
        self.pooling, self.mean = TorchPooling(pool), mean

    def forward(self, tokens: Tensor) -> Tensor:
        query = tokens.mean(1, keepdim=True) if self.mean else tokens[:, :1]
        return self.pooling.attention(query, tokens, tokens)[0][:, 0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_queries_that_are_tokens_are_refused(method: Callable[..., Tensor], mean: bool, frozen: bool) -> None:
    """For they have a part of their own beside what they attend to."""
    network = pooled()
    network.attn_pool = OfTokens(network.attn_pool, mean).eval()
    network.requires_grad_(not frozen)
    with pytest.raises(UnsupportedModelError, match=r"got attention of shape \(1, 3, 1, 16\) with queries from tokens"):
        method(network, pictures(1), 0)


@pytest.mark.parametrize("method", METHODS)
def test_attention_after_pooling_is_refused(method: Callable[..., Tensor]) -> None:
    network = vit("map", class_token=False)
    first = AttentionPoolLatent(24, num_heads=3, latent_len=4, pool_type="none")
    network.attn_pool = nn.Sequential(first, AttentionPoolLatent(24, num_heads=3)).double().eval()
    before = footprint(network)
    with pytest.raises(UnsupportedModelError, match=r"got attention of shape \(1, 3, 4, 16\) before another"):
        method(network, pictures(1), 0)
    assert_untouched(before, network)
