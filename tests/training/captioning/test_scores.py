from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from imagexplain.checkout import ROOT
from imagexplain.errors import ArgumentError
from training.captioning import scores
from training.captioning.scores import BLEU, CIDER, METEOR, NAMES, ROUGE, SPICE, caption_scores, java, lacks_spice

pytest.importorskip("pycocoevalcap")

REFERENCE = json.loads((ROOT / "tests/fixtures/ega/caption_scores.json").read_text())
CAPTIONS = {key: captions[0] for key, captions in REFERENCE["captions"].items()}


@pytest.mark.parametrize("kind", ["several_references", "one_reference"])
def test_scores_are_the_originals_to_the_last_bit(kind: str) -> None:
    several = kind == "several_references"
    references = {key: own if several else own[:1] for key, own in REFERENCE["references"].items()}
    found, wanted = caption_scores(CAPTIONS, references), REFERENCE["no tokeniser"][kind]
    assert [found.mean[name] for name in BLEU] == wanted["bleu"]
    assert list(found.each[BLEU[3]]) == wanted["bleu4_per_caption"]
    for name, key in ((CIDER, "cider"), (ROUGE, "rouge_l")):
        assert found.mean[name] == wanted[key]
        assert list(found.each[name]) == wanted[f"{key}_per_caption"]
    assert found.mean.keys() == found.each.keys() == set(NAMES) and not found.missing


def test_equal_captions_have_the_highest_scores() -> None:
    texts = ["a large striped red circle is left of a square", "the star is below a blue ring", "a small green cross"]
    found = caption_scores(dict(enumerate(texts)), {key: [text] for key, text in enumerate(texts)})  # type: ignore
    assert found.mean[BLEU[0]] == pytest.approx(1) and found.mean[ROUGE] == 1


@pytest.mark.parametrize(
    ("captions", "references", "message"),
    [
        ({"1": "a"}, {"2": ["a"]}, "wanted those of the captions, got others, such as '1'"),
        ({}, {}, "wanted at least one caption"),
        ({"1": "a"}, {"1": []}, "and one reference for each, got none"),
    ],
)
def test_what_cannot_be_scored_is_refused(captions: dict, references: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        caption_scores(captions, references)


def test_spice_says_what_is_missing_and_fetches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spice/lib").mkdir(parents=True)
    monkeypatch.setattr(scores, "_package", lambda: tmp_path)
    reason = lacks_spice()
    assert reason is not None and "stanford-corenlp-3.6.0.jar and stanford-corenlp-3.6.0-models.jar" in reason
    (tmp_path / "spice/lib/stanford-corenlp-3.6.0.jar").touch()
    reason = lacks_spice()
    assert reason is not None and reason.startswith("wanted stanford-corenlp-3.6.0-models.jar in")
    (tmp_path / "spice/lib/stanford-corenlp-3.6.0-models.jar").touch()
    assert lacks_spice() is None or java() is None


def test_without_java_meteor_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "java", lambda: None)
    found = caption_scores(CAPTIONS, REFERENCE["references"], with_java=True)
    assert "wanted java on PATH" in found.missing[METEOR] and METEOR not in found.mean


@pytest.mark.skipif(java() is None, reason="without Java")
def test_meteor_runs_with_java(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.environ["PATH"]
    monkeypatch.setattr(scores, "lacks_spice", lambda: "wanted its jars")
    captions = {"1": "a red circle is above a star", "2": "a ring"}
    found = caption_scores(captions, {"1": [captions["1"]], "2": ["two dogs play", "the park"]}, with_java=True)
    assert found.each[METEOR][0] == pytest.approx(1, abs=1e-3) and found.each[METEOR][1] < 0.2
    assert 0 < found.mean[METEOR] < 1
    assert found.missing == {SPICE: "wanted its jars"}
    assert os.environ["PATH"] == before
