"""The page on fine-tuning against the command."""

from __future__ import annotations

import re

from imagexplain.checkout import ROOT
from tests.pages import rows
from training.finetuning import command, reports, run_folder

PAGE = (ROOT / "docs" / "finetuning.md").read_text(encoding="utf-8")


def test_the_recipe_is_that_of_the_command() -> None:
    given = vars(command.parser().parse_args(["photos", "--out", "run"]))
    stated = {cells[0].strip("`"): cells[1] for cells in rows(PAGE) if cells[0].startswith("`--")}
    assert len(stated) == 15
    for option, default in stated.items():
        value = given[option.removeprefix("--").replace("-", "_")]
        assert default == str(int(value) if value in (5, 100) else value), option


def test_options_and_files_are_there() -> None:
    options = {each for action in command.parser()._actions for each in action.option_strings}
    assert set(re.findall(r"`?(--[a-z][a-z-]+)", PAGE.replace("--nproc-per-node", ""))) <= options
    files = {cells[0].strip("`/") for cells in rows(PAGE) if re.fullmatch(r"`[a-z]+[./][a-z]*`", cells[0])}
    assert files == {
        run_folder.BEST,
        run_folder.LAST,
        run_folder.LABELS,
        reports.LINES,
        reports.TENSORBOARD,
        command.SPEC,
        command.CHECKED,
    }
