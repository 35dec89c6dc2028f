"""The captioner in the repository, on scenes that its training never read."""

from __future__ import annotations

import json

import pytest

from imagexplain.checkout import ROOT
from imagexplain.models.captioners import captioner
from imagexplain.models.checkpoints import checkpoint
from training.captioning import demonstration
from training.captioning.command import REGION_ENCODER
from training.captioning.measuring import changed_items, compared, control_of
from training.captioning.scores import BLEU, CIDER
from training.captioning.sources import scene_vocabulary
from training.captioning.train_region_encoder import load_region_encoder
from training.captioning.validation import captions_for

pytest.importorskip("pycocoevalcap")

FILE = ROOT / "archive_specs/weights/captioner_scenes.safetensors"
REPORT = json.loads(FILE.with_suffix(".json").read_text())


def test_the_report_is_what_is_required() -> None:
    own, other = REPORT["scores"]["captioner"], REPORT["scores"]["another graph's true caption"]
    assert own[CIDER] >= 3 * other[CIDER] and own[BLEU[3]] >= 3 * other[BLEU[3]]
    assert REPORT["changes"]["all"]["answers"] >= 0.85
    assert FILE.stat().st_size + REGION_ENCODER.stat().st_size <= 6_000_000
    words = (ROOT / "archive_specs/labels/captioner.txt").read_text().splitlines()
    assert tuple(words) == scene_vocabulary().words


def test_it_says_what_is_asked_of_held_out_scenes() -> None:
    model = captioner.build({name: tensor.float() for name, tensor in checkpoint.read(FILE).items()})
    vocabulary = scene_vocabulary()
    scenes = demonstration.encoded_scenes(load_region_encoder(REGION_ENCODER), demonstration.HELD_OUT_SEED, 60)
    items = demonstration.fixed_items(scenes, demonstration.HELD_OUT_SEED, 2)
    found = compared(model, vocabulary, items)
    own, other = found["captioner"], found["another graph's true caption"]
    assert own[CIDER] >= 3 * other[CIDER] and own[BLEU[3]] >= 3 * other[BLEU[3]]
    changed = changed_items(items, scenes, demonstration.HELD_OUT_SEED)
    control = control_of(captions_for(model, changed, vocabulary), changed, scenes)
    assert control.count > 300 and control.answers >= 0.9 and control.true >= 0.8
