import json
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from torch import nn

from imagexplain import models
from imagexplain.models.checkpoints import checkpoint
from training import pool, publish, train_classifier
from training.scenes import CLASSES, SceneSettings, scene, scenes
from training.train_classifier import HELD_OUT_SEED, RECIPES, Recipe, Report

SPECS = Path(__file__).parents[2] / "archive_specs"

TOY = Recipe(
    architecture="toy",
    create=lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)),
    export=checkpoint.exported,
    dimensions="a linear classifier of the mean colour",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    steps=100,
    batch=16,
    rate=0.1,
)


def equal(first: pool.Labelled, second: pool.Labelled) -> bool:
    return np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1])


@pytest.mark.parametrize("architecture", RECIPES)
def test_the_shipped_weights_recognise_held_out_scenes(architecture: str) -> None:
    path = SPECS / "weights" / f"{architecture}_scenes.safetensors"
    recipe = RECIPES[architecture]
    model = models.build(recipe.architecture, checkpoint.read(path), recipe.arguments)
    count = 500 if recipe.size == 32 else 200
    held_out = train_classifier.tensors(scenes(HELD_OUT_SEED, 0, count, SceneSettings(size=(recipe.size,) * 2)))
    assert train_classifier.accuracy(model, held_out, recipe) >= 0.95
    assert path.stat().st_size <= 4_200_000


@pytest.mark.parametrize("architecture", RECIPES)
def test_the_shipped_weights_say_what_they_are(architecture: str) -> None:
    path = SPECS / "weights" / f"{architecture}_scenes.safetensors"
    report = Report(**json.loads(path.with_suffix(".json").read_text()))
    with safe_open(path, "pt") as file:
        assert file.metadata() == {name: str(value) for name, value in asdict(report).items()}
        stored = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118 (safe_open is no mapping)
    assert report.architecture == architecture
    assert report.accuracy >= 0.95
    assert report.parameters == sum(tensor.numel() for tensor in stored)
    assert {tensor.dtype for tensor in stored} == {torch.float16}
    assert publish.table(path.parent) == (path.parent / "README.md").read_text()


@pytest.mark.parametrize("architecture", RECIPES)
def test_the_spec_preprocesses_and_labels_as_in_training(architecture: str) -> None:
    spec = yaml.safe_load((SPECS / f"{architecture}.yaml").read_text())
    assert tuple(spec["preprocess"]["mean"]) == RECIPES[architecture].mean
    assert tuple(spec["preprocess"]["std"]) == RECIPES[architecture].std
    assert tuple((SPECS / spec["labels"]).read_text().split()) == CLASSES
    assert spec["preprocess"]["size"] == [RECIPES[architecture].size] * 2
    assert spec["architecture"] == RECIPES[architecture].architecture
    assert spec.get("arguments", {}) == RECIPES[architecture].arguments


def test_training_learns_a_task_that_can_be_learned() -> None:
    labels = torch.arange(64) % 2
    images = (60 + 120 * labels)[:, None, None, None].expand(64, 4, 4, 3).to(torch.uint8)
    model = train_classifier.train(TOY, images, labels, (images, labels), seed=0)
    assert not model.training
    assert train_classifier.accuracy(model, (images, labels), TOY) == 1
    again = train_classifier.train(TOY, images, labels, (images, labels), seed=0)
    assert all(map(torch.equal, model.state_dict().values(), again.state_dict().values()))


def test_alterations_keep_every_pixel_of_an_image() -> None:
    images = torch.arange(40 * 2 * 2 * 3, dtype=torch.uint8).reshape(40, 2, 2, 3)
    altered = train_classifier.altered(images, torch.Generator().manual_seed(0))
    assert torch.equal(altered.flatten(1).sort(1).values, images.flatten(1).sort(1).values)
    assert len({tuple((a.int() - b.int()).flatten().tolist()) for a, b in zip(altered, images, strict=True)}) > 20


def test_a_mask_behind_the_colours_goes_along() -> None:
    colours = torch.randint(256, (40, 4, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    marked = (colours.sum(3, keepdim=True) % 2).to(torch.uint8)  # which no exchange of the channels changes
    altered = train_classifier.altered(torch.cat([colours, marked], 3), torch.Generator().manual_seed(0))
    assert torch.equal(altered[..., :3].sum(3, keepdim=True) % 2, altered[..., 3:].long())
    assert not torch.equal(altered[..., 3:], marked)
    seen = train_classifier.normalised(altered, TOY)
    assert torch.equal(seen, train_classifier.normalised(altered[..., :3], TOY))


def test_patches_are_labelled_by_what_covers_half_of_them() -> None:
    mask = torch.zeros(1, 4, 4, dtype=torch.uint8)
    mask[0, :2, :2] = 1  # the first patch wholly
    mask[0, 0, 2:] = 1  # half of the second
    mask[0, 2, 0] = 1  # a quarter of the third
    assert train_classifier.token_labels(mask, torch.tensor([7]), 4, 10).tolist() == [[7, 7, 10, 10]]


def test_a_transformer_says_what_its_patches_show() -> None:
    network = RECIPES["vit"].create()
    images = torch.rand(2, 3, 64, 64)
    logits, tokens = train_classifier.TokenLabelled(network, 10).eval()(images)
    assert (logits.shape, tokens.shape) == ((2, 10), (2, 64, 11))
    assert torch.allclose(logits, network.eval()(images), atol=1e-6)


def test_muon_takes_the_hidden_matrices_of_a_transformer_and_adamw_the_rest() -> None:
    recipe = RECIPES["vit"]
    model = train_classifier.TokenLabelled(recipe.create(), 10)
    names = {id(weight): name for name, weight in model.named_parameters()}
    adamw, muon = (
        [names[id(weight)] for group in optimiser.param_groups for weight in group["params"]]
        for optimiser in train_classifier.optimisers(model, recipe)
    )
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert muon == [f"network.blocks.{block}.{layer}.weight" for block in range(6) for layer in layers]
    assert sorted(adamw + muon) == sorted(names.values())
    assert len(train_classifier.optimisers(TOY.create(), TOY)) == 1


def test_every_image_comes_once_before_any_comes_again() -> None:
    drawn = list(train_classifier.batches(10, 4, 5, torch.Generator().manual_seed(0)))
    assert [len(chosen) for chosen in drawn] == [4] * 5
    order = torch.cat(drawn).tolist()
    assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))


def test_normalised_follows_the_recipe() -> None:
    images = torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8)
    x = train_classifier.normalised(images, TOY)
    torch.testing.assert_close(x, torch.tensor([-1.0, -0.6, 1.0]).reshape(1, 3, 1, 1))


def test_float16_raises_vanishing_variances_and_refuses_overflow() -> None:
    small = publish.as_float16({"bn.running_var": torch.tensor([0.0, 2.0]), "w": torch.tensor([1e-9])})
    assert small["bn.running_var"].tolist() == [torch.finfo(torch.float16).smallest_normal, 2.0]
    assert small["w"].item() == 0
    for value in (1e5, math.inf, math.nan):
        with pytest.raises(ValueError, match=r"bn\.running_mean"):
            publish.as_float16({"bn.running_mean": torch.tensor([0.0, value])})


def test_a_pool_is_kept_and_refused_for_another_purpose(tmp_path: Path) -> None:
    kept = tmp_path / "scenes.npz"
    first = pool.draw_or_read(kept, 4, 6, SceneSettings())
    second = pool.draw_or_read(kept, 4, 6, SceneSettings())
    assert equal(first, second)
    assert equal(first, scenes(4, 0, 6))
    with pytest.raises(ValueError, match="seed 5"):
        pool.draw_or_read(kept, 5, 6, SceneSettings())


def test_a_pool_with_masks_has_the_same_colours_and_is_not_taken_for_one_without(tmp_path: Path) -> None:
    kept = tmp_path / "scenes.npz"
    images, labels = pool.draw_or_read(kept, 4, 3, SceneSettings(), masks=True)
    assert equal((images[..., :3], labels), scenes(4, 0, 3))
    for index in range(3):
        assert np.array_equal(images[index, ..., 3] != 0, scene(4, index, SceneSettings()).deciding.mask)
    assert equal((images, labels), pool.draw_or_read(kept, 4, 3, SceneSettings(), masks=True))
    with pytest.raises(ValueError, match="3 scenes with masks"):
        pool.draw_or_read(kept, 4, 3, SceneSettings())


def test_processes_do_not_change_a_pool() -> None:
    one, two = pool.draw(6, 510, SceneSettings(), processes=1), pool.draw(6, 510, SceneSettings(), processes=2)
    assert equal(one, two)
