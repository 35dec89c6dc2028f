"""One network in two libraries: timm's class, and transformers' class with its weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import timm
import torch
from torch import Tensor, nn
from transformers import (
    ConvNextConfig,
    ConvNextForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    SwinConfig,
    SwinForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from tests.attribution.networks import prepared

CLASSES = 5
Pair = tuple[nn.Module, nn.Module]


class Logits(nn.Module):
    """The scores alone of a model of transformers', under the model's own names of layers."""

    def __new__(cls, model: Any) -> Any:
        model.register_forward_hook(lambda module, given, output: output.logits)
        return model


def vit() -> Pair:
    """A vision transformer with a class token."""
    options = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": CLASSES}
    ours = _timm("vit_tiny_patch16_224", **options)
    config = ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=96,
        image_size=32,
        patch_size=8,
        layer_norm_eps=1e-6,
        num_labels=CLASSES,
    )
    names = {
        r"(cls_token)": r"vit.embeddings.\1",
        r"pos_embed": "vit.embeddings.position_embeddings",
        r"patch_embed\.proj\.(.*)": r"vit.embeddings.patch_embeddings.projection.\1",
        r"blocks\.(\d+)\.norm1\.(.*)": r"vit.layers.\1.layernorm_before.\2",
        r"blocks\.(\d+)\.norm2\.(.*)": r"vit.layers.\1.layernorm_after.\2",
        r"blocks\.(\d+)\.attn\.qkv\.(.*)": r"vit.layers.\1.attention.*_proj.\2",
        r"blocks\.(\d+)\.attn\.proj\.(.*)": r"vit.layers.\1.attention.o_proj.\2",
        r"blocks\.(\d+)\.mlp\.(.*)": r"vit.layers.\1.mlp.\2",
        r"norm\.(.*)": r"vit.layernorm.\1",
        r"head\.(.*)": r"classifier.\1",
    }
    return _pair(ours, ViTForImageClassification(config), names)


def swin() -> Pair:
    """A Swin of two stages with shifted windows."""
    ours = _timm(
        "swin_tiny_patch4_window7_224",
        img_size=32,
        window_size=4,
        embed_dim=12,
        depths=(2, 2),
        num_heads=(1, 2),
        num_classes=CLASSES,
    )
    config = SwinConfig(
        image_size=32,
        patch_size=4,
        embed_dim=12,
        depths=[2, 2],
        num_heads=[1, 2],
        window_size=4,
        num_labels=CLASSES,
    )
    block = r"layers\.(\d+)\.blocks\.(\d+)\."
    target = r"swin.encoder.layers.\1.blocks.\2."
    names = {
        r"patch_embed\.proj\.(.*)": r"swin.embeddings.patch_embeddings.projection.\1",
        r"patch_embed\.norm\.(.*)": r"swin.embeddings.norm.\1",
        block + r"norm1\.(.*)": target + r"layernorm_before.\3",
        block + r"norm2\.(.*)": target + r"layernorm_after.\3",
        block + r"attn\.qkv\.(.*)": target + r"attention.*_proj.\3",
        block + r"attn\.proj\.(.*)": target + r"attention.o_proj.\3",
        block + r"attn\.relative_position_bias_table": target
        + "attention.relative_position_bias.relative_position_bias_table",
        block + r"mlp\.(.*)": target + r"mlp.\3",
        r"layers\.1\.downsample\.(.*)": r"swin.encoder.layers.0.downsample.\1",
        r"norm\.(.*)": r"swin.layernorm.\1",
        r"head\.fc\.(.*)": r"classifier.\1",
    }
    return _pair(ours, SwinForImageClassification(config), names)


def convnext() -> Pair:
    """A ConvNeXt of four stages."""
    ours = _timm("convnext_atto", depths=(1, 1, 1, 1), dims=(8, 8, 16, 16), num_classes=CLASSES)
    config = ConvNextConfig(depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 16], layer_norm_eps=1e-6, num_labels=CLASSES)
    block, target = r"stages\.(\d+)\.blocks\.(\d+)\.", r"convnext.encoder.stages.\1.layers.\2."
    names = {
        r"stem\.0\.(.*)": r"convnext.embeddings.patch_embeddings.\1",
        r"stem\.1\.(.*)": r"convnext.embeddings.layernorm.\1",
        r"stages\.(\d+)\.downsample\.(.*)": r"convnext.encoder.stages.\1.downsampling_layer.\2",
        block + r"conv_dw\.(.*)": target + r"dwconv.\3",
        block + r"norm\.(.*)": target + r"layernorm.\3",
        block + r"mlp\.fc(.*)": target + r"pwconv\3",
        block + r"gamma": target + "layer_scale_parameter",
        r"head\.norm\.(.*)": r"convnext.layernorm.\1",
        r"head\.fc\.(.*)": r"classifier.\1",
    }
    return _pair(ours, ConvNextForImageClassification(config), names)


def resnet() -> Pair:
    """A ResNet of basic blocks."""
    ours = _timm("resnet18", channels=(8, 8, 16, 16), num_classes=CLASSES, zero_init_last=False)
    config = ResNetConfig(
        embedding_size=64, hidden_sizes=[8, 8, 16, 16], depths=[2, 2, 2, 2], layer_type="basic", num_labels=CLASSES
    )
    kinds = {"conv": "convolution", "bn": "normalization", "0": "convolution", "1": "normalization"}

    def block(found: re.Match[str]) -> str:
        stage, index, kind, number, rest = int(found[1]) - 1, found[2], found[3], int(found[4]) - 1, found[5]
        return f"resnet.encoder.stages.{stage}.layers.{index}.layer.{number}.{kinds[kind]}.{rest}"

    def shortcut(found: re.Match[str]) -> str:
        stage, index = int(found[1]) - 1, found[2]
        return f"resnet.encoder.stages.{stage}.layers.{index}.shortcut.{kinds[found[3]]}.{found[4]}"

    names: dict[str, str | Callable[[re.Match[str]], str]] = {
        r"(conv|bn)1\.(.*)": lambda found: f"resnet.embedder.embedder.{kinds[found[1]]}.{found[2]}",
        r"layer(\d)\.(\d)\.(conv|bn)(\d)\.(.*)": block,
        r"layer(\d)\.(\d)\.downsample\.(\d)\.(.*)": shortcut,
        r"fc\.(.*)": r"classifier.1.\1",
    }
    return _pair(ours, ResNetForImageClassification(config), names)


PAIRS: dict[str, tuple[Callable[[], Pair], int]] = {
    "vit": (vit, 32),
    "swin": (swin, 32),
    "convnext": (convnext, 64),
    "resnet": (resnet, 64),
}
"""Pairs, and the side of their images."""


def _timm(name: str, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    network = timm.create_model(name, **options)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    made: nn.Module = prepared(network, torch.float64)
    return made


def _pair(ours: nn.Module, theirs: nn.Module, names: Mapping[str, str | Callable[[re.Match[str]], str]]) -> Pair:
    wanted = theirs.state_dict()
    state: dict[str, Tensor] = {}
    for key, tensor in ours.state_dict().items():
        name = next((re.sub(f"^{old}$", new, key) for old, new in names.items() if re.fullmatch(old, key)), None)
        if name is None:
            continue  # a buffer that is computed
        if "*" in name:
            parts = zip("qkv", tensor.chunk(3), strict=True)
            state |= {name.replace("*", letter): part for letter, part in parts}
        else:
            state[name] = tensor.reshape(wanted[name].shape)
    found = theirs.to(torch.float64).load_state_dict(state, strict=False)
    assert not found.unexpected_keys and not [key for key in found.missing_keys if "index" not in key], found
    return ours, Logits(theirs.eval().requires_grad_(False))
