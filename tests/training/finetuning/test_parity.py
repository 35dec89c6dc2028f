"""Numbers of the original: MAE's own functions and training loop, recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.data import create_transform

from benchmarks import deterministic
from tests.models.reference import FIXTURES
from tests.training.finetuning.networks import tiny_cnn
from tests.wire.photos import noise_photo
from training.finetuning import pipeline
from training.finetuning.config import FinetuneConfig
from training.finetuning.labelled_images import TensorImages
from training.finetuning.losses import mixing
from training.finetuning.parameter_groups import parameter_groups, set_rate
from training.finetuning.pipeline import Augmentation, Pipeline, recipe_preprocess
from training.finetuning.randomness import private_randomness, seed_all
from training.finetuning.schedule import rate_at
from training.finetuning.start import starting_network
from training.finetuning.trainer import finetune

POOLINGS = {"class_token": "token", "average": "avg"}
POSITIONS_SCALE = 8
"""Factor of the tiny network's position embeddings."""


def recorded(name: str) -> Any:
    return json.loads((FIXTURES / "egdd" / name).read_text())


RECIPE = recorded("recipe.json")


@pytest.mark.parametrize("pooling", POOLINGS)
def test_scale_and_decay_of_every_parameter(pooling: str) -> None:
    wanted = recorded(f"groups_{pooling}.json")
    with torch.device("meta"):
        network = timm.create_model("vit_base_patch16_224", num_classes=12, global_pool=POOLINGS[pooling])
    groups = parameter_groups(network, wanted["layer_decay"], wanted["weight_decay"])
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    given = {names[id(each)]: group for group in groups for each in group["params"]}
    assert len(groups) == wanted["groups"] == 28
    assert given.keys() == wanted["parameters"].keys() and len(given) == 152
    for name, values in wanted["parameters"].items():
        assert given[name]["lr_scale"] == pytest.approx(values["lr_scale"], abs=1e-9), name
        assert given[name]["weight_decay"] == values["weight_decay"], name
    set_rate(groups, 2.0)
    assert given["cls_token"]["lr"] == pytest.approx(2 * 0.65**13, abs=1e-9)


def test_a_network_of_ones_own_has_one_rate() -> None:
    network = tiny_cnn()
    groups = parameter_groups(network, 0.65, 0.05)
    given = {id(each): (group["lr_scale"], group["weight_decay"]) for group in groups for each in group["params"]}
    assert len(given) == len(list(network.parameters()))
    assert all(given[id(each)] == (1.0, 0.05 if each.ndim > 1 else 0.0) for each in network.parameters())


def test_the_learning_rate_at_every_epoch() -> None:
    wanted = recorded("lr_schedule.json")
    config = FinetuneConfig()
    assert config.effective_batch(processes=4) == wanted["effective_batch"]
    assert config.peak_rate(processes=4) == pytest.approx(wanted["lr"], abs=1e-12)
    for epoch, rate in wanted["lr_at"]:
        given = rate_at(
            epoch,
            peak=config.peak_rate(4),
            lowest=config.min_rate,
            warmup=config.warmup_epochs,
            epochs=config.epochs,
        )
        assert given == pytest.approx(rate, abs=1e-9), epoch
    assert wanted["warmup_epochs"] == config.warmup_epochs and wanted["epochs"] == config.epochs


@pytest.mark.parametrize("targets", ["hard_smoothing", "soft"])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_the_training_loop(pooling: str, targets: str, tmp_path: Path) -> None:
    """Loss of each of the 12 batches, rates of the 6 updates, and the logits afterwards."""
    wanted = recorded("tiny_finetune.json")[f"{pooling}_{targets}"]
    with np.load(FIXTURES / "egdd/tiny_finetune_data.npz") as arrays:
        images, labels, soft = (torch.from_numpy(arrays[name]) for name in ("images", "labels", "soft_targets"))
    network = timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        patch_size=8,
        embed_dim=32,
        depth=3,
        num_heads=2,
        num_classes=5,
        global_pool=POOLINGS[pooling],
    )
    state = deterministic.state({name: tuple(tensor.shape) for name, tensor in network.state_dict().items()})
    network.load_state_dict(state | {"pos_embed": POSITIONS_SCALE * state["pos_embed"]})
    config = FinetuneConfig(
        epochs=3, warmup_epochs=1, batch=8, accumulation=2, rate=5e-3, min_rate=1e-6, mixup=0, cutmix=0, smoothing=0.1
    )
    classes = tuple("abcde")
    rates: list[list[float]] = []
    step = torch.optim.AdamW.step

    def watched(optimizer: torch.optim.AdamW, *arguments: Any) -> Any:
        given = [group["lr"] for group in optimizer.param_groups]
        rates.append([min(given), max(given)])
        return step(optimizer, *arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("training.finetuning.trainer.shuffled", lambda count, *key: torch.arange(count))
        patched.setattr(torch.optim.AdamW, "step", watched)
        given_labels = labels if targets == "hard_smoothing" else soft
        val = TensorImages(images, labels, classes)
        result = finetune(network, TensorImages(images, given_labels, classes), val, config, tmp_path, progress=False)
    network.load_state_dict(torch.load(result.last, weights_only=True)["model"])
    with torch.no_grad():
        logits = network(images)
    # A key's bias shifts all scores of a softmax alike: its gradient is rounding alone, which Adam scales up. Those
    # of query and value show in the logits.
    by_rounding = {name for name in wanted["norms_after"] if name.endswith("attn.qkv.bias")}
    assert len(by_rounding) == 3
    norms = {name: float(parameter.detach().norm()) for name, parameter in network.named_parameters()}
    assert result.losses == pytest.approx(wanted["losses"], rel=1e-4)
    assert norms.keys() == wanted["norms_after"].keys()
    for name in norms.keys() - by_rounding:
        assert norms[name] == pytest.approx(wanted["norms_after"][name], rel=1e-4), name
    np.testing.assert_allclose(rates, wanted["lr_min_max_at_updates"], rtol=0, atol=1e-9)
    torch.testing.assert_close(logits, torch.tensor(wanted["logits_after"]), rtol=1e-3, atol=1e-3)


def test_the_defaults_are_the_recipe() -> None:
    config, mixup = FinetuneConfig(), RECIPE["mixup"]
    for name in ("epochs", "accumulation", "layer_decay", "weight_decay", "clip", "seed"):
        assert getattr(config, name) == RECIPE[name], name
    assert (config.batch, config.base_rate) == (RECIPE["batch_per_process"], RECIPE["base_lr"])
    assert list(config.betas) == RECIPE["betas"]
    mixed: Any = mixing(config, classes=12)
    for name, value in {"mix_prob": mixup["prob"], **{key: mixup[key] for key in mixup if key != "prob"}}.items():
        assert getattr(mixed, name) == value, name


def test_the_drop_path_of_every_block() -> None:
    with torch.device("meta"):
        network: Any = starting_network("vit_base_patch16_224", {}, 12, drop_path=RECIPE["drop_path"]).network
    given = [getattr(block.drop_path1, "drop_prob", 0.0) for block in network.blocks]
    assert given == pytest.approx(RECIPE["drop_path_per_block"], abs=1e-9)


def test_training_photos_are_augmented_as_in_the_recipe() -> None:
    """The same draws give the same pixels as by the original's arguments."""
    photo = noise_photo(60, 80)
    ours = Pipeline(recipe_preprocess((224, 224)), Augmentation()).transform()
    theirs = create_transform(**RECIPE["train_transform"]["timm.data.create_transform"])
    with private_randomness():
        for number in range(8):
            seed_all(number)
            given = ours(photo)
            seed_all(number)
            assert torch.equal(given, theirs(photo)), number


@pytest.mark.parametrize("policy", ["rand-m10-inc1-n8", "rand-m0-n8", "original", "augmix-m10"])
def test_posterization_to_no_bits_is_black(policy: str) -> None:
    """As with Pillow up to version 12; timm's policies ask for it at the highest magnitude, or at the lowest."""
    photo = noise_photo(40, 40)
    transform: Any = Pipeline(recipe_preprocess((32, 32)), Augmentation(policy)).transform()
    operations = [each for each in pipeline._operations(transform.transforms) if "Posterize" in each.name]
    assert operations
    for operation in operations:
        assert not np.any(operation.aug_fn(photo, 0, **operation.kwargs))
        kept = np.asarray(operation.aug_fn(photo, 2, **operation.kwargs))
        assert np.array_equal(kept, np.asarray(photo) & 0b11000000)
    with private_randomness():
        for number in range(20):
            seed_all(number)
            assert transform(photo).isfinite().all()


@pytest.mark.parametrize("size", [(60, 80), (300, 260), (256, 256)])
def test_validation_photos_are_those_of_timm_and_of_the_service(size: tuple[int, int]) -> None:
    photo = noise_photo(*size)
    for side, fraction in ((224, 0.875), (32, 0.875), (384, 1.0)):
        preprocess = recipe_preprocess((side, side))
        given = Pipeline(preprocess).transform()(photo)
        wanted = create_transform(input_size=side, interpolation="bicubic", crop_pct=fraction)(photo)
        torch.testing.assert_close(given, wanted, rtol=0, atol=1e-5)
