from importlib import import_module

import numpy as np
import pytest
import torch

from imagexplain.attribution.methods.ablation_cam import ablation_cam
from imagexplain.attribution.network.layers import layer_named
from tests.attribution.networks import assert_untouched, footprint, pictures, prepared, resnet, swin, tiny_cnn, vit


def test_pooled_linear_network_by_hand() -> None:
    """Global average pooling and a linear layer: without channel k the score lacks w_k · mean(A_k)."""
    model, images = tiny_cnn(), pictures(2, (8, 8))
    maps, scores = model[:5](images), model(images)[:, 2]
    weights = model[7].weight[2] * maps.mean((2, 3)) / scores.abs().unsqueeze(1)
    expected = torch.einsum("bk,bkhw->bhw", weights, maps).relu().unsqueeze(1)
    got = ablation_cam(model, images, 2, layer="4", upsample=False)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-14)


def test_a_negative_score_does_not_invert_the_map() -> None:
    model, images = tiny_cnn(), pictures(1, (8, 8))
    before = ablation_cam(model, images, 0, layer="4") * model(images)[:, 0].abs()
    for shift in (10.0, -10.0):
        model[7].bias += shift
        scores = model(images)[:, 0]
        assert scores.sign() == np.sign(shift)
        torch.testing.assert_close(ablation_cam(model, images, 0, layer="4") * scores.abs(), before)
        model[7].bias -= shift


def test_a_score_of_zero() -> None:
    model, images = tiny_cnn(), pictures(1, (8, 8))
    model[7].bias -= model(images)[0]
    assert ablation_cam(model, images, 1, layer="4").isfinite().all()


@pytest.mark.parametrize(
    ("build", "layer", "prefix"),
    [(vit, "blocks.1.norm1", 1), (lambda: vit(reg_tokens=4), "blocks.0", 5), (swin, "norm", 0)],
)
def test_tokens_agree_with_the_definition(build, layer: str, prefix: int) -> None:
    model, images = build(), pictures(1)
    module, seen = layer_named(model, layer), []
    handle = module.register_forward_hook(lambda *all_: seen.append(all_[-1]))
    score = model(images)[0, 2]
    handle.remove()
    tokens = seen[0]
    expected = torch.zeros(4, 4, dtype=torch.float64)
    for k in range(tokens.shape[-1]):
        ablated = tokens.clone()
        ablated[..., k] = 0
        handle = module.register_forward_hook(lambda *_, ablated=ablated: ablated)
        weight = (score - model(images)[0, 2]) / score.abs()
        handle.remove()
        expected += weight * tokens.flatten(1, -2)[0, prefix:, k].view(4, 4)
    got = ablation_cam(model, images, 2, layer=layer, upsample=False)[0, 0]
    torch.testing.assert_close(got, expected.relu(), rtol=1e-9, atol=1e-12)


def test_agrees_with_pytorch_grad_cam() -> None:
    """Where activations have a zero and scores are positive: the peer ablates others by −1e7 and divides by y."""
    peer = import_module("pytorch_grad_cam")
    model, images, classes = resnet(), pictures(2, (48, 64)), [1, 3]
    model.fc.bias += 10
    with peer.AblationCAM(model, [model.layer2]) as method:
        expected = method(images, [lambda scores, index=index: scores[index] for index in classes])
    got = ablation_cam(model, images, classes, layer="layer2").squeeze(1).numpy()
    low, high = got.min((1, 2), keepdims=True), got.max((1, 2), keepdims=True)
    # The peer's weights are float32 differences of scores near 10.
    assert np.abs((got - low) / (high - low) - expected).max() < 1e-4


@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_neither_chunk_nor_batch_mates_matter(chunk: int) -> None:
    model, images, classes = tiny_cnn(), pictures(3, (10, 8)), [0, 2, 3]
    before = footprint(model)
    together = ablation_cam(model, images, classes, chunk=chunk)
    assert_untouched(before, model)
    alone = torch.cat([ablation_cam(model, images[[b]], classes[b]) for b in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-12)
    assert not together.requires_grad and together.shape == (3, 1, 10, 8)


def test_the_model_is_as_before_after_an_error() -> None:
    class Failing(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) != 1:
                raise RuntimeError("broken")
            return x

    model = prepared(torch.nn.Sequential(*tiny_cnn(), Failing()))
    before = footprint(model)
    with pytest.raises(RuntimeError, match="broken"):
        ablation_cam(model, pictures(1, (8, 8)), 0, layer="4")
    with pytest.raises(ValueError, match="chunk: wanted"):
        ablation_cam(model, pictures(1, (8, 8)), 0, chunk=0)
    assert_untouched(before, model)
