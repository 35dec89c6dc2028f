"""The completion of the commands, by the shells themselves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagexplain.checkout import ROOT
from imagexplain.cli import completion_table

LINES = {
    "imagexplain mod": ["models"],
    "imagexplain explain photo.jpg --mo": ["--model"],
    "imagexplain explain photo.jpg --method grad_c": ["grad_cam", "grad_cam_plusplus"],
    "imagexplain explain photo.jpg --model ": ["mine/1.0", "mine/2.0", "other"],
    "imagexplain evaluate-methods --methods grad_cam guided_b": ["guided_backprop"],
    "imagexplain edge key wi": ["withdraw"],
    "imagexplain explain photo.jpg --format s": ["safetensors"],
    "imagexplain completion z": ["zsh"],
    "imagexplain debug select results --strategy conc": ["concept"],
    "imagexplain debug find --seg": ["--segments"],
    "imagexplain debug sp": ["split"],
    "imagexplain debug train results photos --mixu": ["--mixup"],
    "imagexplain evaluate-photos --mosaics-3": ["--mosaics-3x3"],
    "imagexplain finetune photos --precision bf": ["bfloat16"],
    "imagexplain methods --url http": [],
}

BASH = """
eval "$(imagexplain completion bash)"
function="$(complete -p imagexplain | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
while read -r COMP_LINE; do
    COMP_LINE="${COMP_LINE%|}" COMP_POINT=${#COMP_LINE} COMP_TYPE=9
    COMP_POINT=${#COMP_LINE}
    COMPREPLY=()
    "$function" imagexplain
    echo "${COMPREPLY[*]}"
done
"""
FISH = """
imagexplain completion fish | source
while read -l line
    echo (complete -C (string trim --right --chars='|' $line) | string replace -r '\\t.*' '')
end
"""
ZSH = """
autoload -Uz compinit && compinit -u
eval "$(imagexplain completion zsh)"
echo ${_comps[imagexplain]}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout whose server has three models, and the command in a folder of programs."""
    folder = tmp_path_factory.mktemp("home")
    for name in ("imagexplain", "debugging", "evaluation", "training", "archive_specs"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "run").mkdir()
    (folder / "run" / "server.json").write_text(json.dumps({"models": ["mine/1.0", "mine/2.0", "other"]}))
    command = folder / "bin" / "imagexplain"
    command.parent.mkdir()
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import imagexplain.checkout, pathlib"
    program += f"; imagexplain.checkout.ROOT = pathlib.Path({str(folder)!r})"
    program += "; from imagexplain.cli import main; import atexit, os; sys.exit(main())"
    command.write_text(f"#!{sys.executable}\n{program}\n")
    command.chmod(0o755)
    return folder


def said_by(shell: str, script: str, home: Path, lines: Iterator[str]) -> list[str]:
    """Lines that a shell prints which reads some, each with a bar at its end."""
    environment = {**os.environ, "PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}", "HOME": str(home)}
    done = subprocess.run(
        [shell, *{"zsh": ["-f"], "fish": ["--no-config"], "bash": ["--norc"]}[shell], "-c", script],
        input="".join(f"{line}|\n" for line in lines),
        cwd=home / "run",
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout.splitlines()


def test_bash_completes_commands_options_models_and_methods(home: Path) -> None:
    told = said_by("bash", BASH, home, iter(LINES))
    assert [line.split() for line in told] == list(LINES.values())


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
def test_fish_does_too(home: Path) -> None:
    told = said_by("fish", FISH, home, iter(LINES))
    assert [line.split() for line in told] == list(LINES.values())


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")
def test_zsh_knows_who_completes(home: Path) -> None:
    assert said_by("zsh", ZSH, home, iter(())) == ["_python_argcomplete"]


def test_completion_imports_no_command() -> None:
    """Nor anything else that takes seconds."""
    program = (
        "import sys\nfrom imagexplain.cli.completion import completing, methods\ncompleting(), methods()\n"
        "print(sorted({'torch', 'numpy', 'timm', 'matplotlib', 'PIL', 'imagexplain.cli.parsers'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_table_is_that_of_the_parsers() -> None:
    write = "python -m imagexplain.cli.completion_table --write"
    assert completion_table.TABLE.read_text("utf-8") == completion_table.text(), write
