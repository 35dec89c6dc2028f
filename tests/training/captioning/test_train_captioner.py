"""Training of captioners: its recipe, its resumption bit for bit, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from imagexplain.checkout import ROOT
from imagexplain.errors import ArgumentError
from imagexplain.models.captioners import captioner
from imagexplain.models.captioners.captioner import Captioner, Dimensions, losses
from imagexplain.models.checkpoints import checkpoint
from training.captioning.caption_folder import CaptionFolder, SplitItems
from training.captioning.config import CaptionConfig
from training.captioning.items import batch_of
from training.captioning.named_scenes import named_scene
from training.captioning.scene_features import SceneFeatures
from training.captioning.sources import SameItems, SceneGraphs, scene_item, scene_vocabulary
from training.captioning.statements import graph_of
from training.captioning.train import WEIGHTS, CaptionTraining, train_captioner
from training.captioning.validation import captions_for, validate
from training.finetuning.run_folder import NonFiniteError

pytest.importorskip("pycocoevalcap")
pytest.importorskip("h5py")

FIXTURES = ROOT / "tests/fixtures/ega"
VOCABULARY = scene_vocabulary()
WIDTH = 12
CONFIG = CaptionConfig(epochs=3, batch=4, rate=2e-3, warmup_steps=2, falling=True, clip=1.0, bucket=2, seed=1)


def scenes(seed: int, count: int) -> list[SceneFeatures]:
    generator = torch.Generator().manual_seed(seed)
    found = []
    for index in range(count):
        objects = named_scene(seed, index).objects
        boxes = torch.randn(len(objects), len(objects), WIDTH, generator=generator)
        found.append(SceneFeatures(objects, boxes, torch.randn(WIDTH, generator=generator)))
    return found


SCENES = scenes(0, 10)
VAL = [
    scene_item(one, graph_of(one.scene, [(0, 1), (1, 0)], [(1, 0)]), str(n), "0") for n, one in enumerate(SCENES[:4])
]
SOURCE = SceneGraphs(SCENES, per_scene=2, stages=(1, 1), seed=5)


def new() -> Captioner:
    torch.manual_seed(0)
    return Captioner(Dimensions(len(VOCABULARY), WIDTH, WIDTH, 8), dropout=0.5)


def run(out: Path, model: Captioner | None = None, stop_after: int | None = None, **settings: int) -> CaptionTraining:
    steps = iter(range(1, 1000))
    stop = None if stop_after is None else lambda: next(steps) == stop_after
    config = replace(CONFIG, **settings)  # type: ignore[arg-type]
    return train_captioner(model or new(), VOCABULARY, SOURCE, VAL, config, out, stop=stop, progress=False)


def test_the_defaults_are_the_originals_recipe() -> None:
    usual = CaptionConfig()
    assert (usual.epochs, usual.batch, usual.rate, usual.clip) == (100, 128, 2e-4, None)
    assert {usual.rate_at(step, 1000) for step in (0, 500, 999)} == {2e-4}
    assert new().decoder.dropout.p == 0.5


def test_ten_steps_are_the_originals(tmp_path: Path) -> None:
    """The reference trained on all ten items at once, without dropout: ten epochs of one batch."""
    model = captioner.build(checkpoint.read(FIXTURES / "small.th"))
    model.decoder.dropout.p = 0.0
    items = SplitItems(CaptionFolder(FIXTURES / "small"), "val_sub", limit=10)
    config = CaptionConfig(epochs=10, batch=10)
    result = train_captioner(model, items.vocabulary, SameItems(items), items, config, tmp_path, progress=False)
    wanted = json.loads((FIXTURES / "small_training.json").read_text())
    wanted = wanted["adam"]["losses_before_each_of_10_steps_and_after"]
    assert [*result.losses, result.epochs[-1].val_loss] == pytest.approx(wanted, rel=1e-5)


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path: Path) -> None:
    whole_model, resumed_model = new(), new()
    whole = run(tmp_path / "whole", whole_model)
    for steps in (3, 4, 6):  # within an epoch and a bucket, and at their ends
        assert not run(tmp_path / "resumed", new(), stop_after=steps).finished
    resumed = run(tmp_path / "resumed", resumed_model)
    assert whole.finished and resumed.finished and len(whole.losses) == 15
    assert resumed.losses == whole.losses
    for one, other in zip(whole_model.state_dict().values(), resumed_model.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(whole.epochs, resumed.epochs, strict=True):
        assert replace(one, seconds=0) == replace(other, seconds=0)
    last = [torch.load(tmp_path / name / "last.pth", weights_only=True)["model"] for name in ("whole", "resumed")]
    assert all(torch.equal(last[0][name], last[1][name]) for name in last[0])


def test_the_best_epoch_is_that_of_the_highest_cider_and_is_a_checkpoint_of_the_original(tmp_path: Path) -> None:
    model = new()
    result = run(tmp_path, model)
    best = [report for report in result.epochs if report.best][-1]
    assert best.cider == max(report.cider for report in result.epochs)
    assert [report.epoch for report in result.epochs] == [1, 2, 3] and result.epochs[-1].step == 15
    loaded = captioner.build(checkpoint.read(tmp_path / WEIGHTS))
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    found = validate(model, VAL, VOCABULARY)
    assert (found.loss, found.bleu4, found.cider) == pytest.approx((best.val_loss, best.bleu4, best.cider))
    assert len((tmp_path / "epochs.jsonl").read_text().splitlines()) == 3
    assert json.loads((tmp_path / "labels.json").read_text()) == list(VOCABULARY.words)
    assert not model.training


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    result = run(tmp_path, epochs=12)
    assert result.epochs[-1].val_loss < result.epochs[0].val_loss < 4.5


def test_stages_begin_with_graphs_of_one_object_and_epochs_differ() -> None:
    source = SceneGraphs(SCENES, per_scene=3, stages=(2, 1), seed=5)
    assert len(source) == len(source.epoch(0)) == 30
    most = [max(len(item.graph.objects) for item in source.epoch(epoch)) for epoch in range(5)]
    assert most[:3] == [1, 1, 2] and max(most[3:]) > 2
    assert [item.caption for item in source.epoch(4)] == [item.caption for item in source.epoch(4)]
    assert [item.caption for item in source.epoch(4)] != [item.caption for item in source.epoch(5)]
    item = source.epoch(4)[0]
    assert item.caption == item.references[0] and len(item.references) == 3
    assert item.nodes.shape == (len(item.layout.nodes), WIDTH)


def test_every_word_of_every_reference_is_in_the_vocabulary() -> None:
    words = {word for item in SOURCE.epoch(3) for caption in item.references for word in caption.split()}
    assert words <= set(VOCABULARY.words)


def test_a_captions_ids_stop_at_the_longest_of_the_batch() -> None:
    """The steps that are left out have no loss: the mean is that over all 25 ids."""
    model = new().eval()
    batch = batch_of(SOURCE.epoch(0)[:4], VOCABULARY)
    whole, _ = losses(
        model(batch.nodes, batch.image, batch.graph, batch.words[:, :-1]).logits, batch.words[:, 1:], batch.mask[:, 1:]
    )
    length = int(batch.mask.sum(1).max())
    short, _ = losses(
        model(batch.nodes, batch.image, batch.graph, batch.words[:, : length - 1]).logits,
        batch.words[:, 1:length],
        batch.mask[:, 1:length],
    )
    assert length < 25 and torch.allclose(whole, short)


def test_greedy_captions_do_not_depend_on_the_batch() -> None:
    model = new().eval()
    assert captions_for(model, VAL, VOCABULARY, batch=3) == captions_for(model, VAL, VOCABULARY, batch=1)


def test_another_run_wants_another_folder(tmp_path: Path) -> None:
    run(tmp_path, epochs=1)
    with pytest.raises(ArgumentError, match="another run wants another folder"):
        run(tmp_path, epochs=1, batch=5)


def test_what_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="wanted at most the 20 items to train on, got 21"):
        run(tmp_path, batch=21)
    with pytest.raises(ArgumentError, match="wanted the captioner's 7 words"):
        run(tmp_path, Captioner(Dimensions(7, WIDTH, WIDTH, 8)))
    with pytest.raises(ArgumentError, match="wanted at least one item"):
        train_captioner(new(), VOCABULARY, SOURCE, [], CONFIG, tmp_path, progress=False)
    broken = new()
    with torch.no_grad():
        broken.decoder.embedding.we.weight.fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="step 1: wanted a finite loss, got nan; nothing was saved before"):
        run(tmp_path, broken)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs: wanted at least 1, got 0"),
        ({"batch": 0}, "batch: wanted at least 1, got 0"),
        ({"rate": 0.0}, "rate: wanted a finite rate above 0"),
        ({"rate": float("nan")}, "rate: wanted a finite rate above 0"),
        ({"clip": -1.0}, "clip: wanted a norm above 0"),
        ({"beta2": 1.0}, "beta2: wanted 0 … 1, below 1"),
        ({"warmup_steps": -1}, "warmup_steps: wanted at least 0"),
    ],
)
def test_settings_that_train_nothing_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        CaptionConfig(**settings)
