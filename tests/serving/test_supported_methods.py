"""The methods that a model supports are an archive's to say, and a worker's to find where it does not."""

from pathlib import Path

import pytest
import torch

from imagexplain.archive import supported_methods
from imagexplain.archive.manifest import METHODS_FILE
from imagexplain.archive.spec import SpecError
from imagexplain.attribution import METHODS
from imagexplain.serving import served_model
from tests.attribution.every_method import OF_ATTENTION
from tests.serving.handlers import write_bit

CPU = torch.device("cpu")


def test_a_worker_takes_the_archives_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bit(tmp_path)
    supported_methods.write(("gradient", "rise"), tmp_path)

    def tried(*_: object) -> None:
        raise AssertionError("methods were tried though the archive names them")

    monkeypatch.setattr(supported_methods, "refusals", tried)
    assert served_model.load(tmp_path, CPU).facts.supported_methods == ("gradient", "rise")


def test_a_worker_tries_the_methods_of_an_archive_that_does_not_say(tmp_path: Path) -> None:
    facts = served_model.load(write_bit(tmp_path), CPU).facts
    assert set(METHODS) - set(facts.supported_methods) == {"deep_lift", "full_grad", "lrp", *OF_ATTENTION}


def test_the_default_layer_is_known_before_the_first_request(tmp_path: Path) -> None:
    facts = served_model.load(write_bit(tmp_path), CPU).facts
    name, channels = facts.layers[None]
    assert facts.layers[name] == (name, channels) and channels == 128


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"supported": "gradient"}', '{"supported": ["gradent"]}'])
def test_a_file_that_is_not_one(text: str, tmp_path: Path) -> None:
    (tmp_path / METHODS_FILE).write_text(text)
    with pytest.raises(SpecError, match=r"methods\.json: supported: wanted a list of methods; build the archive anew"):
        supported_methods.read(tmp_path)
