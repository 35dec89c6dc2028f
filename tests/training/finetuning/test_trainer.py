"""Training to the end, the choice of the best epoch, resumption, and what stops a run."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from imagexplain import models
from imagexplain.errors import ArgumentError
from imagexplain.models.checkpoints import checkpoint
from tests.models.same import assert_same_network, assert_same_weights
from tests.training.finetuning.networks import CLASSES, MIXED, PLAIN, TINY, brightness, tiny_cnn, tiny_vit
from training.finetuning import trainer
from training.finetuning.config import FinetuneConfig
from training.finetuning.labelled_images import Batch, TensorImages
from training.finetuning.losses import training_loss
from training.finetuning.processes import Processes
from training.finetuning.reports import LINES
from training.finetuning.run_folder import NonFiniteError
from training.finetuning.trainer import FinetuneResult, finetune
from training.finetuning.validation import Validation, validate

TRAIN, VAL = brightness(21), brightness(9, seed=1)
"""Two updates of 8 images to an epoch; 5 are left out of each."""


class CrashError(Exception):
    pass


@dataclass(frozen=True, eq=False)
class Crashing(TensorImages):
    """Images of which one batch cannot be read."""

    after: int = 0

    def batches(self, order: Sequence[Tensor], seed: int) -> Iterator[Batch]:
        for number, batch in enumerate(super().batches(order, seed)):
            if number == self.after:
                raise CrashError
            yield batch


def trained(
    out: Path, config: FinetuneConfig = PLAIN, network: nn.Module | None = None, **options: Any
) -> tuple[FinetuneResult, nn.Module]:
    network = tiny_vit(drop_path_rate=0.2) if network is None else network
    options.setdefault("train", TRAIN)
    return finetune(network, val=VAL, config=config, out=out, progress=False, **options), network


def assert_same_run(given: FinetuneResult, wanted: FinetuneResult) -> None:
    """Bit for bit, but for the time that it took."""
    assert given.losses == wanted.losses
    assert [replace(each, seconds=0) for each in given.epochs] == [replace(each, seconds=0) for each in wanted.epochs]
    first, second = (torch.load(each.last, weights_only=True) for each in (given, wanted))
    assert first["model"].keys() == second["model"].keys()
    assert all(torch.equal(tensor, second["model"][name]) for name, tensor in first["model"].items())
    assert first["step"] == second["step"]
    for ours, theirs in zip(first["optimizer"]["state"].values(), second["optimizer"]["state"].values(), strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    best, other = (checkpoint.read(each.best) for each in (given, wanted))
    assert all(torch.equal(best[name], other[name]) for name in other)


def stopped_after(step: int) -> Any:
    """A function for ``stop`` that says so after so many updates."""
    left = iter([False] * (step - 1))
    return lambda: next(left, True)


def test_it_learns_what_can_be_learnt(tmp_path: Path) -> None:
    config = replace(PLAIN, epochs=8, rate=3e-2)
    result, network = trained(tmp_path, config, tiny_vit(), train=brightness(48))
    assert result.finished and result.best_epoch.accuracy == 1
    assert result.best_epoch.per_class == dict.fromkeys(CLASSES, 1.0)
    assert result.epochs[-1].train_loss < result.epochs[0].train_loss / 2
    assert not network.training
    assert len(result.losses) == 8 * 6 * 2


@pytest.mark.parametrize("make", [lambda: tiny_vit(drop_path_rate=0.2), tiny_cnn], ids=["vit", "cnn"])
@pytest.mark.parametrize("step", [1, 2, 3, 6])
def test_a_resumed_run_is_the_uninterrupted_one(make: Any, step: int, tmp_path: Path) -> None:
    """Stopped within an epoch, at its end, and at the end of all."""
    whole, network = trained(tmp_path / "whole", MIXED, make())
    part, _ = trained(tmp_path / "part", MIXED, make(), stop=stopped_after(step))
    assert not part.finished and len(part.losses) == 2 * step
    rest, other = trained(tmp_path / "part", MIXED, make())
    assert rest.finished
    assert_same_run(rest, whole)
    assert_same_weights(other, network)


def test_a_crash_within_an_update_costs_no_more_than_the_steps_since_the_last_save(tmp_path: Path) -> None:
    whole, _ = trained(tmp_path / "whole", MIXED)
    crashing = Crashing(TRAIN.images, TRAIN.labels, CLASSES, after=3)  # between the batches of the second update
    with pytest.raises(CrashError):
        trained(tmp_path / "part", MIXED, train=crashing, save_every=1)
    assert torch.load(tmp_path / "part" / "last.pth", weights_only=True)["step"] == 1
    rest, _ = trained(tmp_path / "part", MIXED)
    assert_same_run(rest, whole)


def test_a_crash_before_anything_was_saved_begins_anew(tmp_path: Path) -> None:
    whole, _ = trained(tmp_path / "whole")
    with pytest.raises(CrashError):
        trained(tmp_path / "part", train=Crashing(TRAIN.images, TRAIN.labels, CLASSES, after=3))
    assert not (tmp_path / "part" / "last.pth").exists()
    assert_same_run(trained(tmp_path / "part")[0], whole)


def test_a_finished_run_is_not_done_again(tmp_path: Path) -> None:
    first, network = trained(tmp_path)
    again, other = trained(tmp_path, train=TRAIN, stop=lambda: pytest.fail("made a step"))
    assert again == first
    assert_same_weights(other, network)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"config": replace(PLAIN, rate=2e-2)}, "rate: wanted 0.01, as in the run that is in"),
        ({"train": brightness(21, seed=5)}, "train: wanted"),
        ({"network": tiny_vit(seed=1, drop_path_rate=0.2)}, "network: wanted"),
        ({"network": tiny_vit(drop_path_rate=0.1)}, "network: wanted"),
    ],
)
def test_another_run_wants_another_folder(changed: dict[str, Any], field: str, tmp_path: Path) -> None:
    trained(tmp_path)
    with pytest.raises(ArgumentError, match=f"^{field}.*another run wants another folder"):
        trained(tmp_path, **changed)


def test_the_generators_are_left_as_they_were(tmp_path: Path) -> None:
    def drawn() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    def seeded() -> None:
        random.seed(1), np.random.seed(1), torch.manual_seed(1)  # noqa: NPY002

    seeded()
    wanted = drawn()
    seeded()
    trained(tmp_path, MIXED)
    assert drawn() == wanted


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    one, _ = trained(tmp_path / "one")
    two, _ = trained(tmp_path / "two", replace(PLAIN, seed=1))
    assert one.losses != two.losses


def test_the_best_epoch_is_kept_and_the_first_of_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = iter([0.25, 0.75, 0.5, 0.75])
    monkeypatch.setattr(
        trainer, "validate", lambda *_: Validation(1.0, accuracy := next(accuracies), None, {"dark": accuracy})
    )
    kept: list[dict[str, Tensor]] = []
    end = trainer._Training.end_epoch

    def watched(training: Any, seconds: float) -> Any:
        kept.append({name: tensor.clone() for name, tensor in training.network.state_dict().items()})
        return end(training, seconds)

    monkeypatch.setattr(trainer._Training, "end_epoch", watched)
    result, network = trained(tmp_path, replace(PLAIN, epochs=4))
    assert [report.best for report in result.epochs] == [True, True, False, False]
    assert result.best_epoch.epoch == 2
    best, last = checkpoint.read(result.best), checkpoint.read(result.last)
    assert all(torch.equal(best[name], kept[1][name]) for name in best)
    assert all(torch.equal(last[name], kept[3][name]) for name in last)
    assert all(torch.equal(network.state_dict()[name], best[name]) for name in best)


def test_validation_counts_by_hand() -> None:

    class Reads(nn.Module):
        """The first pixel's channels are the logits."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, images: Tensor) -> Tensor:
            return images[:, :, 0, 0] * self.weight

    logits = torch.tensor([[2.0, 0, 0], [0, 2, 0], [0, 2, 0], [0, 0, 2], [2, 0, 0]])
    val = TensorImages(logits[:, :, None, None], torch.tensor([0, 1, 0, 2, 2]), CLASSES)
    network = Reads().train()
    found = validate(network, val, batch=2)
    right, wrong = np.log(np.exp(2) + 2) - 2, np.log(np.exp(2) + 2)
    assert found.loss == pytest.approx((3 * right + 2 * wrong) / 5)
    assert found.accuracy == pytest.approx(0.6) and found.top5 is None
    assert found.per_class == {"dark": 0.5, "light": 1.0, "middle": 0.5}
    assert network.training


@pytest.mark.parametrize("count", [2, 20])
def test_processes_share_the_validation(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image is validated by one of them; some may have none."""
    network = tiny_vit()
    parts: list[Tensor] = []
    whole = validate(network, VAL, batch=2)

    def alone(self: Processes, values: Tensor) -> Tensor:
        parts.append(values)
        return values

    monkeypatch.setattr(Processes, "total", alone)
    for rank in range(count):
        with suppress(ZeroDivisionError):  # of what the others would have added
            validate(network, VAL, batch=2, processes=Processes(rank, count))
    monkeypatch.setattr(Processes, "total", lambda self, values: torch.stack(parts).sum(0))
    found = validate(network, VAL, batch=2, processes=Processes(0, count))
    assert found.loss == pytest.approx(whole.loss) and found.per_class == whole.per_class


def test_a_loss_that_is_not_finite_stops_the_run_with_its_step(tmp_path: Path) -> None:
    images = TRAIN.images.clone()
    network, poisoned = tiny_vit(), replace(TRAIN, images=images)
    done, _ = trained(tmp_path / "whole", replace(PLAIN, epochs=2), tiny_vit(), save_every=1)

    class Poisoning(TensorImages):
        def batches(self, order: Sequence[Tensor], seed: int) -> Iterator[Batch]:
            for number, (pixels, labels) in enumerate(super().batches(order, seed)):
                yield (pixels * (float("nan") if number == 3 else 1), labels)

    images_that_fail = Poisoning(poisoned.images, poisoned.labels, CLASSES)
    with pytest.raises(NonFiniteError) as raised:
        trained(tmp_path / "part", PLAIN, network, train=images_that_fail, save_every=1)
    last = tmp_path / "part" / "last.pth"
    assert raised.value.step == 2
    message = f"step 2: wanted a finite loss, got nan in batch 2 of 2; {last} has the weights after step 1"
    assert str(raised.value) == message
    content = torch.load(last, weights_only=True)
    assert content["step"] == 1 and content["losses"].tolist() == list(done.losses[:2])
    assert all(tensor.isfinite().all() for tensor in content["model"].values())


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    """The loss was finite, the gradient was not."""

    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1, 3))

        def forward(self, images: Tensor) -> Tensor:
            return (self.weight.abs().sqrt() + 0 * images.mean()).expand(len(images), 3)

    with pytest.raises(NonFiniteError, match=r"step 1: wanted finite weights, got others in weight; nothing was saved"):
        trained(tmp_path, replace(PLAIN, warmup_epochs=0), Root(), save_every=1)
    assert not (tmp_path / "last.pth").exists()


def test_an_interrupted_write_leaves_the_file_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(tmp_path, stop=stopped_after(2))
    before = (tmp_path / "last.pth").read_bytes()

    def torn(content: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(OSError, match="no space"):
        trained(tmp_path)
    assert (tmp_path / "last.pth").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} <= {"best.pth", "last.pth", "labels.json", LINES, "tensorboard"}


def test_a_line_of_json_for_each_epoch(tmp_path: Path) -> None:
    result, _ = trained(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / LINES).read_text("utf-8").splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert lines[1] == {
        "epoch": 2,
        "step": 4,
        "rate": result.epochs[1].rate,
        "train_loss": pytest.approx(sum(result.losses[4:8]) / 4),
        "val_loss": result.epochs[1].val_loss,
        "accuracy": result.epochs[1].accuracy,
        "top5": None,
        "per_class": result.epochs[1].per_class,
        "best": result.epochs[1].best,
        "seconds": result.epochs[1].seconds,
    }
    assert json.loads((tmp_path / "labels.json").read_text("utf-8")) == list(CLASSES)


def test_tensorboard_is_written_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    class SummaryWriter:
        def __init__(self, folder: Path, purge_step: int) -> None:
            told.append((folder, purge_step))

        def add_scalar(self, name: str, value: float, epoch: int) -> None:
            told.append((name, epoch, value))

        def flush(self) -> None:
            pass

        def close(self) -> None:
            told.append("closed")

    stub = ModuleType("torch.utils.tensorboard")
    vars(stub)["SummaryWriter"] = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stub)
    trained(tmp_path, stop=stopped_after(3))
    result, _ = trained(tmp_path)
    assert [each for each in told if isinstance(each[0], Path)] == [
        (tmp_path / "tensorboard", 1),
        (tmp_path / "tensorboard", 2),
    ]
    assert [each[1:] for each in told if each[0] == "accuracy"] == [
        (each.epoch, each.accuracy) for each in result.epochs
    ]
    assert ("per_class/light", 3, result.epochs[2].per_class["light"]) in told and told[-1] == "closed"


def test_without_tensorboard_nothing_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert trained(tmp_path)[0].finished
    assert not (tmp_path / "tensorboard").exists()


def test_both_checkpoints_build_the_network_of_an_archive(tmp_path: Path) -> None:
    result, network = trained(tmp_path, network=tiny_vit(global_pool="avg"))
    arguments = {**TINY, "global_pool": "avg"}
    for file in (result.last, result.best):
        stored = checkpoint.load(file)
        assert (stored.taken, stored.beside, stored.classes) == ("model", (), CLASSES)
        built = models.build("timm/vit_tiny_patch16_224", stored.tensors, arguments)
        assert built.state_dict().keys() == network.state_dict().keys()
    assert_same_network(built, network, VAL.images)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_trains_too(precision: Any, tmp_path: Path) -> None:
    full, _ = trained(tmp_path / "full", replace(PLAIN, epochs=2))
    half, _ = trained(tmp_path / "half", replace(PLAIN, epochs=2, precision=precision))
    assert half.losses != full.losses
    assert half.losses == pytest.approx(full.losses, rel=0.1)
    trained(tmp_path / "part", replace(PLAIN, epochs=2, precision=precision), stop=stopped_after(3))
    rest, _ = trained(tmp_path / "part", replace(PLAIN, epochs=2, precision=precision))
    assert_same_run(rest, half)
    assert {tensor.dtype for tensor in torch.load(half.last, weights_only=True)["model"].values()} == {torch.float32}


def test_clipping_shortens_the_gradient(tmp_path: Path) -> None:
    free, _ = trained(tmp_path / "free", replace(PLAIN, epochs=2))
    clipped, _ = trained(tmp_path / "clipped", replace(PLAIN, epochs=2, clip=1e-6))
    assert clipped.losses[:4] == free.losses[:4], "the first update has rate 0"
    assert clipped.losses[6:] != free.losses[6:]


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        (brightness(7), VAL, "batch: wanted at most the 7 training images for one update, got 8"),
        (replace(TRAIN, classes=("a", "b", "c")), VAL, r"val: wanted the classes of train, \['a', 'b', 'c'\]"),
        (TRAIN, brightness(2), "val: wanted images of every class, got none of middle"),
        (brightness(1), VAL, "train: wanted images of every class, got none of light, middle"),
        (replace(TRAIN, labels=TRAIN.labels + 1), VAL, "train: wanted labels 0 … 2, got 3"),
        (replace(TRAIN, labels=TRAIN.labels.int()), VAL, r"train: wanted labels \(N,\) int64, got \[21\] torch.int32"),
        (TRAIN, replace(VAL, labels=torch.full((9, 3), 1 / 3)), "val: wanted one label for each image"),
        (replace(TRAIN, labels=torch.full((21, 2), 1 / 2)), VAL, "train: wanted probabilities of 3 classes, got 2"),
    ],
)
def test_images_that_do_not_fit_are_refused(
    train: TensorImages, val: TensorImages, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match=f"^{message}"):
        finetune(tiny_vit(), train, val, PLAIN, tmp_path, progress=False)


def test_a_network_of_other_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"^network: wanted logits \[4, 3\] of 4 images, got \[4, 5\]"):
        trained(tmp_path, network=tiny_vit(classes=5))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch", 3),
        ("rate", 0.0),
        ("clip", -1.0),
        ("warmup_epochs", 3),
        ("layer_decay", 0.0),
        ("smoothing", 1.0),
        ("betas", (0.9, 1.0)),
        ("precision", "float8"),
        ("mix_probability", 2),
        ("mixup", -0.1),
    ],
)
def test_settings_that_make_no_sense_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=f"^{field}: wanted .*, got "):
        replace(MIXED, **{field: value})


def test_probabilities_are_not_mixed() -> None:
    with pytest.raises(ArgumentError, match=r"^mixup: wanted 0"):
        training_loss(MIXED, soft_labels=True)
