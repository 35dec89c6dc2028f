"""The command that scores captioners: the original's formats, images that are easy, captions of a file, scenes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from debugging import evaluate_captioner
from debugging.annotation import RATING
from imagexplain import cli
from imagexplain.checkout import ROOT
from tests.models.captioning import EGA
from training.captioning import command, demonstration
from training.captioning.caption_folder import CaptionFolder, SplitItems
from training.captioning.config import CaptionConfig
from training.captioning.grammar import NAMING
from training.captioning.n_best import Candidate, read_n_best, write_n_best
from training.captioning.scores import BLEU, CIDER, NAMES, caption_scores

pytest.importorskip("pycocoevalcap")
pytest.importorskip("h5py")

PAGE = (ROOT / "docs" / "captioner_training.md").read_text("utf-8")
SMALL = EGA / "small"
MODEL = ["--captioner", str(EGA / "small.th"), "--limit", "10"]


@pytest.fixture(name="tasks")
def _tasks(tmp_path: Path) -> Path:
    """Answered tasks of the two images: one hard, one easy."""
    names = [f"p1_COCO_train2014_{number:012}__caption_1_attr_result.jpg" for number in (1, 2)]
    tasks = [
        {
            "task_id": name,
            "status": "completed",
            "metadata": {"filename": name},
            "response": {"annotations": {RATING: rating}},
        }
        for name, rating in zip(names, ("1.5", "4"), strict=True)
    ]
    file = tmp_path / "tasks.json"
    file.write_text(json.dumps(tasks))
    return file


def evaluated(*arguments: str | Path) -> int:
    return cli.main(["evaluate-captioner", *map(str, arguments)])


def numbers(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text("utf-8"))


def test_both_splits_by_the_same_captions(tmp_path: Path, tasks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The captions are the original's; each split is scored against its own references, the easy images' alone."""
    out, file = tmp_path / "scores.json", tmp_path / "captions.json"
    written: list[str | Path] = ["--tasks", tasks, "--threshold", "0.5", "--no-java", "--out", out, "--n-best", file]
    assert evaluated(SMALL, *MODEL, *written) == 0
    captions = read_n_best(file)
    items = SplitItems(CaptionFolder(SMALL), "val_sub", 10)
    reference = json.loads((EGA / "small_captions.json").read_text())["greedy"]
    for key, own in captions.items():
        assert (
            items.vocabulary.encode([own[0].caption])[0][0, 1:].tolist()[: len(reference[key]["ids"])]
            == (reference[key]["ids"][:24])
        )
        assert own[0].log_probability == pytest.approx(reference[key]["logprob"], rel=1e-5)
    found = numbers(out)["splits"]
    assert {name: (own["images"], own["captions"]) for name, own in found.items()} == {
        "val_sub": (2, 10),
        "val_sub_opt": (1, 5),
    }
    assert (found["val_sub_opt"]["threshold"], found["val_sub_opt"]["unrated"]) == (0.5, 0)
    for name, image in (("val_sub", ""), ("val_sub_opt", "000000000002_")):
        keys = {item.key: item.references for item in items if image in item.key}
        wanted = caption_scores({key: captions[key][0].caption for key in keys}, keys).mean
        assert found[name]["scores"] == pytest.approx(dict(wanted), rel=1e-4)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == f"| split | images | captions | {' | '.join(NAMES)} |"
    assert printed[3].startswith("| val_sub_opt | 1 | 5 | ")

    data = tmp_path / "data"  # the split that is written is the same one
    shutil.copytree(SMALL, data, copy_function=shutil.copyfile)
    assert cli.main(["debug", "split", str(tasks), str(data), "--split", "val_sub"]) == 0
    capsys.readouterr()
    assert evaluated(data, *MODEL, "--split", "val_sub_opt", "--no-java", "--out", out) == 0
    assert numbers(out)["splits"]["val_sub_opt"]["scores"] == found["val_sub_opt"]["scores"]


def test_captions_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = SplitItems(CaptionFolder(SMALL), "val_sub", 10)
    file, out = tmp_path / "captions.json", tmp_path / "scores.json"
    file.write_text(json.dumps({item.key: [item.caption, "worse"] for item in items}))
    assert evaluated(SMALL, "--captions", file, "--out", out, "--no-java") == 0
    assert numbers(out)["splits"]["val_sub"]["scores"][BLEU[0]] == pytest.approx(1)
    file.write_text("{}")
    assert evaluated(SMALL, "--captions", file) == 1
    assert "wanted one for each region of val_sub, got none for 'train2014/COCO" in capsys.readouterr().err


def test_n_best_captions_read_back(tmp_path: Path) -> None:
    file = tmp_path / "captions.json"
    captions = {"1_2": (Candidate("ein größerer Stern", -1.25, -0.1), Candidate("", -3.0000000000000004, -3.0))}
    write_n_best(file, captions)
    assert read_n_best(file) == captions


def test_a_beam_finds_as_many_captions(tmp_path: Path) -> None:
    file = tmp_path / "captions.json"
    assert evaluated(SMALL, *MODEL, "--beam", "3", "--batch", "4", "--n-best", file, "--no-java") == 0
    for own in read_n_best(file).values():
        scores = [one.mean_log_probability for one in own]
        assert len(own) == 3 and scores == sorted(scores, reverse=True)  # type: ignore[type-var]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "wanted an object"),
        ({"1": []}, "wanted a list of at least one caption for '1'"),
        ({"1": [3]}, "log_probability for '1' in"),
        ({"1": [{"caption": "a"}]}, "log_probability for '1' in"),
        ({"1": [{"caption": "a", "log_probability": True, "mean_log_probability": 1}]}, "for '1' in"),
    ],
)
def test_faulty_files_of_captions(tmp_path: Path, content: Any, message: str) -> None:
    (tmp_path / "captions.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_n_best(tmp_path / "captions.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([SMALL], "wanted either a captioner or captions"),
        ([SMALL, *MODEL, "--captions", "x.json"], "wanted either a captioner or captions"),
        ([SMALL, *MODEL, "--split", "trn"], "trn_names.npy"),
        ([SMALL, *MODEL, "--batch", "0"], "batch: wanted at least 1, got 0"),
        ([SMALL, *MODEL, "--beam", "0"], "width: wanted 1 to 31, got 0"),
        ([SMALL, "--captioner", evaluate_captioner.CAPTIONER], "wanted the captioner's 52 words, got 31"),
        (["--scenes", "0"], "scenes: wanted at least 1, got 0"),
        (["--steps", "0"], "steps: wanted at least 1, got 0"),
        (["--captioner", EGA / "small.th"], "wanted the captioner's 31 words, got 52"),
    ],
)
def test_what_cannot_be_scored_is_said(
    capsys: pytest.CaptureFixture[str], arguments: list[str | Path], message: str
) -> None:
    assert evaluated(*arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said


def test_a_threshold_that_leaves_nothing(tasks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluated(SMALL, *MODEL, "--tasks", tasks, "--threshold", "0.9") == 1
    assert "threshold: wanted one that leaves images of val_sub, got 0.9" in capsys.readouterr().err


def test_the_demonstration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "record.json"
    assert evaluated("--scenes", "12", "--explained", "6", "--steps", "4", "--no-java", "--out", out) == 0
    found = numbers(out)
    assert set(found["scores"]) >= {"captioner", "another graph's true caption", "without edges"}
    assert found["related"]["captioner"][BLEU[3]] > found["related"]["without edges"][BLEU[3]]
    assert found["graphs"]["count"] == 12 * demonstration.PER_SCENE
    kinds, words = found["words"]["kinds"], found["words"]
    assert kinds["all"]["words"] == sum(kinds[name]["words"] for name in kinds if name in NAMING)
    assert words["captions"] + words["left_out"] <= 6
    printed = capsys.readouterr().out
    assert evaluated("--print", out) == 0
    assert printed.endswith(capsys.readouterr().out)


def test_the_record_is_of_the_weights_in_the_repository() -> None:
    record, report = numbers(evaluate_captioner.RECORD), numbers(evaluate_captioner.CAPTIONER.with_suffix(".json"))
    assert (
        record["settings"]["scenes"] == report["held_out"] and record["settings"]["series"] == report["held_out_seed"]
    )
    for part in ("scores", "graphs", "changes"):
        for name, own in report[part].items():
            wanted = own if isinstance(own, dict) else {name: own}
            given = record[part][name] if isinstance(own, dict) else record[part]
            assert {key: given[key] for key in wanted} == pytest.approx(wanted, abs=6e-5)


def test_the_page_has_the_tables_of_the_record(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluated("--print") == 0
    *tables, missing = capsys.readouterr().out.strip().split("\n\n")
    assert missing.startswith("SPICE: wanted stanford-corenlp-3.6.0.jar") and "/" not in missing.partition(" in ")[0]
    assert len(tables) == 4 and all(table in PAGE for table in tables)


def test_numbers_of_the_page() -> None:
    record, weights = numbers(evaluate_captioner.RECORD), evaluate_captioner.CAPTIONER.parent
    minutes = [numbers(weights / f"{name}_scenes.json")["minutes"] for name in ("captioner", "region_encoder")]
    own, other = (record["scores"][name] for name in ("captioner", "another graph's true caption"))
    times = [own[name] / other[name] for name in (BLEU[3], CIDER)]
    words, settings = record["words"], record["settings"]
    percent = [100 * words[name] for name in ("residual", "median_residual", "largest_residual")]
    for sentence in (
        f"has {times[0]:.1f} times its BLEU-4 and {times[1]:.1f} times its CIDEr-D",
        f"Training took {minutes[0]} minutes, and {minutes[1]} for the region encoder",
        f"On {settings['scenes']:,} scenes that no training read, with two graphs each",
        f"the first {settings['explained graphs']} graphs",
        f"{settings['steps']} Gauss–Legendre points",
        f"ambiguous ({words['left_out']} of {words['left_out'] + words['captions']})",
        f"is {percent[0]:.1f} % on average and {percent[1]:.1f} % in the median, but {percent[2]:.0f} % at worst",
    ):
        assert sentence in " ".join(PAGE.split()), sentence


def test_options_of_the_page() -> None:
    parsers = command.parser(), evaluate_captioner.parser()
    options = {option for parser in parsers for action in parser._actions for option in action.option_strings}
    assert set(re.findall(r"(?<![-\w])--[a-z][a-z-]+", PAGE)) <= options
    usual = CaptionConfig()
    recipe = f"Adam at {usual.rate:.0e}, batches of {usual.batch}, dropout {command.DROPOUT}, {usual.epochs} epochs"
    assert f"{recipe}, width {command.HIDDEN}".replace("e-0", "e-") in PAGE
