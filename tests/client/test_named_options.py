"""Options on command lines: none without a value, and none that another one silently overrides."""

from __future__ import annotations

import pytest

from imagexplain.cli import main


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("explain x.jpg --option steps", "--option: wanted NAME=VALUE, got 'steps'"),
        ("explain x.jpg --steps 3 --option steps=4", "--option steps=4: wanted steps once, got '3' as well"),
        ("explain x.jpg --target a --option target_class=b", "--option target_class=b: wanted target_class once"),
        (
            "explain x.jpg --masks a.png --file masks=b.png",
            "--file masks=b.png: wanted masks once",
        ),
        ("predict x.jpg --file graph", "--file: wanted NAME=VALUE, got 'graph'"),
        ("predict x.jpg --option threshold=1 --option threshold=2", "--option threshold=2: wanted threshold once"),
        ("compare-served x.jpg --option =3", "--option: wanted NAME=VALUE, got '=3'"),
    ],
)
def test_no_option_is_ignored(given: str, wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*given.split(), "--model", "bit"]) == 1
    assert capsys.readouterr().err.startswith(f"error: {wanted}")
