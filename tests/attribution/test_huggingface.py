"""Models of transformers as the methods see them: maps equal those of the same weights in timm's class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import imagexplain.attribution as library
from imagexplain.attribution.network.attention_capture import attention_layers
from imagexplain.attribution.network.layers import default_layer
from imagexplain.attribution.network.partial_forward import split_at
from imagexplain.attribution.network.tokens import stated_grids, stated_prefix
from tests.attribution import same_weights
from tests.attribution.networks import pictures
from tests.attribution.same_weights import Logits
from tests.models import huggingface_folders

OF_ALL = (
    *("gradient", "input_x_gradient", "integrated_gradients", "smoothgrad", "idgi", "rise", "occlusion"),
    *("grad_cam", "grad_cam_plusplus", "hires_cam", "xgrad_cam", "layer_cam", "eigen_cam", "score_cam", "ablation_cam"),
)
METHODS = {
    "vit": (*OF_ALL, "attention_rollout", "gradient_rollout"),
    "swin": (*OF_ALL, "attention_rollout", "gradient_rollout"),
    "convnext": OF_ALL,
    "resnet": (*OF_ALL, "guided_backprop", "guided_grad_cam", "deep_lift", "full_grad"),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "idgi": {"steps": 5},
    "integrated_gradients": {"steps": 10},
    "occlusion": {"size": 8, "stride": 8},
    "rise": {"samples": 10, "cells": 3},
    "smoothgrad": {"samples": 3},
}


@pytest.fixture(scope="module")
def pairs() -> dict[str, same_weights.Pair]:
    return {name: make() for name, (make, _) in same_weights.PAIRS.items()}


@pytest.mark.parametrize("name", METHODS)
def test_the_same_weights_give_the_same_scores_and_maps(name: str, pairs: dict[str, same_weights.Pair]) -> None:
    ours, theirs = pairs[name]
    images = pictures(2, (same_weights.PAIRS[name][1],) * 2)
    assert torch.allclose(ours(images), theirs(images), atol=1e-5)
    for method in METHODS[name]:
        explain = getattr(library, method)
        expected, found = (explain(model, images, [1, 3], **OPTIONS.get(method, {})) for model in (ours, theirs))
        scale = float(expected.abs().max())
        assert scale > 0 and torch.allclose(found, expected, atol=1e-5 * scale, rtol=1e-4), method


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_is_seen_in_steps_and_fused(implementation: str, pairs: dict[str, same_weights.Pair]) -> None:
    ours, theirs = pairs["vit"]
    theirs.set_attn_implementation(implementation)  # type: ignore[operator]
    images = pictures(2)
    expected, found = (library.attention_rollout(model, images, 0) for model in (ours, theirs))
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    "method", [library.attention_rollout, library.gradient_rollout, library.transformer_attribution, library.legrad]
)
def test_pooling_by_attention_that_nobody_reads(method: Callable[..., Tensor]) -> None:
    """SigLIP's classifier reads the mean of the patches, beside which the pooling runs."""
    model, images = Logits(huggingface_folders.network("siglip")), huggingface_folders.images("siglip")
    vision: Any = model.get_submodule("vision_model")
    found = method(model, images, 1)
    assert vision.use_head
    vision.use_head = False
    torch.testing.assert_close(method(model, images, 1), found)


@pytest.mark.parametrize("family", ["swin", "swinv2"])
@pytest.mark.parametrize(("size", "window"), [((20, 36), 2), ((28, 28), 3), ((36, 52), 4), ((32, 32), 4)])
def test_windows_that_grids_do_not_fill(family: str, size: tuple[int, int], window: int) -> None:
    """transformers rolls the padding of a grid with it, which timm puts at its end: what each window is given."""
    config = {"image_size": size, "window_size": window, "depths": [2, 1], "num_heads": [1, 2]}
    model = Logits(huggingface_folders.network(family, **config))
    blocks = model.get_submodule(f"{family}.encoder.layers.0.blocks")
    given: list[Tensor] = []
    for block in blocks:
        before = block.layernorm_before if family == "swin" else block
        place = before.register_forward_hook if family == "swin" else before.register_forward_pre_hook
        place(lambda *call: given.append(call[-1][0] if isinstance(call[-1], tuple) else call[-1]))
        block.attention.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    layers = attention_layers(model, pictures(1, size, torch.float32))[1]
    assert layers[0].grid == (size[0] // 4, size[1] // 4) and len(given) == 4
    for layer, (tokens, windows) in zip(layers[:2], (given[:2], given[2:]), strict=True):
        padded = torch.cat([tokens[0], tokens.new_zeros(1, tokens.shape[2])])
        assert torch.equal(windows, padded[layer.places])
        assert layer.shape[1:3] == (len(windows), 1)


@pytest.mark.parametrize(
    ("family", "prefix"),
    [
        ("vit", 1),
        ("deit", 2),  # one is not read
        ("deit_distilled", 2),
        ("dinov2", 1),
        ("dinov2_with_registers", 4),
        ("beit", 1),
        ("clip", 1),
        ("siglip", None),
        ("swin", None),
    ],
)
def test_tokens_before_the_patches(family: str, prefix: int | None) -> None:
    model, images = huggingface_folders.network(family), huggingface_folders.images(family)
    assert stated_prefix(model) == prefix
    side = 8 if family == "swin" else 4
    assert stated_grids(model, images.shape)[0] == (side, side)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("vit", "vit.layers.1.layernorm_before"),
        ("deit_distilled", "deit.layers.1.layernorm_before"),
        ("dinov2", "dinov2.layernorm"),
        ("beit", "beit.layers.1"),
        ("data2vec-vision", "data2vec_vision.encoder.layer.1"),
        ("swin", "swin.layernorm"),
        ("swinv2", "swinv2.layernorm"),
        ("focalnet", "focalnet.layernorm"),
        ("resnet", "resnet.encoder.stages.3"),
        ("convnextv2", "convnextv2.encoder.stages.3"),
        ("mobilevit", "mobilevit.conv_1x1_exp"),
        ("siglip", "vision_model.post_layernorm"),
        ("clip", "vision_model.encoder.layers.1"),
    ],
)
def test_the_default_layer(family: str, name: str) -> None:
    model = Logits(huggingface_folders.network(family))
    assert model.get_submodule(name) is default_layer(model, huggingface_folders.images(family))


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("swin", "swin.encoder.layers.0"),  # a tuple of tokens, maps and weights
        ("swin", "swin.encoder.layers.1.blocks.0"),
        ("pvt_v2", "pvt_v2.encoder"),  # an output with names
        ("vit", "vit.layers.0.attention"),
        ("data2vec-vision", "data2vec_vision.encoder.layer.0"),
    ],
)
def test_a_layer_that_puts_out_several_things(family: str, name: str) -> None:
    model, images = Logits(huggingface_folders.network(family)), huggingface_folders.images(family)
    maps = library.layer_cam(model, images, 1, layer=name)
    assert maps.shape == (2, 1, *images.shape[2:]) and maps.isfinite().all()
    scored = library.score_cam(model, images, 1, layer=name)
    assert scored.shape == maps.shape and scored.isfinite().all()


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("swin", "swin.layernorm"),  # behind an encoder that puts out fields, and embeddings that put out a tuple
        ("swin", "swin.encoder.layers.1.blocks.1.layernorm_before"),
        ("vit", "vit.layers.1.layernorm_before"),
        ("data2vec-vision", "data2vec_vision.encoder.layer.1.layernorm_before"),
        ("pvt_v2", "pvt_v2.encoder"),
    ],
)
def test_what_comes_before_a_layer_does_not_run_again(family: str, name: str) -> None:
    model, images = Logits(huggingface_folders.network(family)), huggingface_folders.images(family)
    part = split_at(model, images, model.get_submodule(name))
    assert part.resumes
    ran: list[str] = []
    for other, module in model.named_modules():
        if not [*module.children()]:
            module.register_forward_hook(lambda *_, other=other: ran.append(other))
    owner = torch.tensor([1, 0, 1])
    assert torch.allclose(part.run(owner, part.activation[owner]), part.scores[owner], atol=1e-6)
    if family != "pvt_v2":  # whose layer gives fields, so that what is within it runs
        assert not any("patch_embeddings" in other for other in ran)
    changed = part.activation[owner] * 2
    assert not torch.allclose(part.run(owner, changed), part.scores[owner], atol=1e-6)
