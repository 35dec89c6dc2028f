"""Label files as people have them: the right labels, or the line that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagexplain.archive import label_file
from imagexplain.archive.spec import SpecError, select
from tests.serving.archives import write_spec

TWO = ("cat", "dog")


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        (b"cat\ndog", TWO),
        (b"\xef\xbb\xbfcat\r\ndog\r\n", TWO),
        ("cat\r\ndog\r\n".encode("utf-16"), TWO),
        ("\ufeffcat\ndog\n".encode("utf-16-be"), TWO),
        ("cat\ndog\n".encode("utf-32"), TWO),
        (b"cat\rdog\r", TWO),
        (b" cat \ndog\t\n\n \n", TWO),
        ("niño\n猫\n".encode(), ("niño", "猫")),
        (b"tench, Tinca tinca\ngoldfish, Carassius auratus", ("tench, Tinca tinca", "goldfish, Carassius auratus")),
        # Numbered.
        (b"0: cat\n1: dog", TWO),
        (b"0,cat\n1,dog", TWO),
        (b"1\tdog\n0\tcat\n", TWO),
        (b"1;cat\n2;dog", TWO),
        (b"0 cat\n1 dog", TWO),
        (b"1. cat\n2. dog", TWO),
        (b"cat,0\ndog,1", TWO),
        (b"dog,1\ncat,0", TWO),
        (b"index,label\n0,cat\n1,dog", TWO),
        (b'0,"tench, Tinca tinca"\n1,dog', ("tench, Tinca tinca", "dog")),
        (b"0\n1\n2", ("0", "1", "2")),
        (b"7 of clubs\n9 of hearts", ("7 of clubs", "9 of hearts")),
        (b"1 euro\n2 euro", ("1 euro", "2 euro")),
        # Synsets.
        (b"n01440764 tench, Tinca tinca\nn01443537 goldfish", ("tench, Tinca tinca", "goldfish")),
        (b"n02012849 crane\nn03126707 crane", ("crane (n02012849)", "crane (n03126707)")),
        (b"n01440764\nn01443537", ("n01440764", "n01443537")),
        # JSON and Python.
        (b'["cat", "dog"]', TWO),
        (b'{"1": "dog", "0": "cat"}', TWO),
        (b'{"0": ["n01440764", "cat"], "1": ["n01443537", "dog"]}', TWO),
        (b'{"dog": 1, "cat": 0}', TWO),
        (b'{"id2label": {"0": "cat", "1": "dog"}}', TWO),
        (b"{0: 'cat',\n 1: 'dog'}", TWO),
        (b"[background]\ncat", ("[background]", "cat")),
    ],
)
def test_the_right_labels(content: bytes, labels: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    assert label_file.read(tmp_path / "labels.txt") == labels


def test_a_data_sets_yaml(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("path: images\nnames:\n  0: cat\n  1: dog\n")
    assert label_file.read(tmp_path / "data.yaml") == TWO


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"cat\n\ndog\n", "line 2: wanted a label, the line is empty"),
        (b"\ncat\ndog\n", "line 1: wanted a label, the line is empty"),
        (b"cat\nni\xf1o\n", "line 2: wanted UTF-8, given the byte 0xf1"),
        ("cat\ndog".encode("utf-16-le"), "line 1: wanted text, given"),
        ("cat\ndog".encode("utf-16")[:-1], "line 2: wanted UTF-16"),
        (b"cat\ndog\ncat\n", "line 3: wanted different names, 'cat' stands in line 1 too"),
        ("cat\n\ufeffdog".encode(), "line 2: wanted text, given '\\ufeffdog' with the character U+FEFF"),
        ("ca\u2028t\ndog".encode(), "line 1: wanted text"),
        (b"cat\tKatze\ndog\tHund", "line 1: wanted text"),
        (b"0,cat\n2,dog", "line 2: wanted each index from 0 to 1 once, given 2"),
        (b"0,cat\n0,dog", "line 2: wanted each index from 0 to 1 once, given 0"),
        (b"0: cat\ndog", "line 2: wanted an index and a label"),
        (b"animals\n0: cat\n1: dog", "line 1: wanted an index and a label, as in all other lines"),
        (b"n02119789 1 kit_fox\nn02100735 2 English_setter", "line 1: wanted a synset and a label"),
        (b'["cat",\n"dog"', "line 2: neither JSON nor"),
        (b'{"0": "cat", "0": "dog"}', "'0' repeats"),
        (b'{"0": "cat", "2": "dog"}', "wanted each index from 0 to 1 once"),
        (b'["cat", "cat"]', "label 1: 'cat' is label 0 too"),
        (b'["cat", 3]', "label 1: wanted text, given 3"),
        (b'{"cat": "dog"}', "wanted labels by index, or indices by label"),
        (b"[" * 100_000, "line 1: nested too deep"),
        (b"", "holds none"),
        (b"\n\n", "holds none"),
    ],
)
def test_or_the_line_that_is_wrong(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(SpecError) as caught:
        select([write_spec(tmp_path, labels="labels.txt")], {})
    assert f"small.yaml: labels: {tmp_path / 'labels.txt'}: " in str(caught.value)
    assert words in str(caught.value)
