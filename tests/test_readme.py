"""Runs the code of the README, of CONTRIBUTING and of docs/: every shell and Python block, but for those listed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from imagexplain.client import local
from imagexplain.ops.server import ROOT
from tests.conftest import Served
from tests.pages import PAGES, Block, blocks
from training.scenes import SceneSettings, scene
from training.train_classifier import HELD_OUT_SEED

LANGUAGES = {"sh", "python"}
RUN_ELSEWHERE = {
    "make studio": "tests/studio/ opens the page, before the served models and before a service of its own",
    "run/demo/": "tests/serving/test_getting_started.py, which reads what they print",
    "make demo": "tests/serving/test_scripts.py explains with every model",
    "make archives": "tests/serving/test_build.py, with checkpoints that the tests make",
    "make test": "the tests do not run themselves",
    "make kernel": "tests/test_notebooks.py, into a folder of its own",
    "make lint": "types take minutes to check",
    "scripts/accuracy.py": "tests/serving/test_scripts.py, with photos that the tests draw",
    "scripts/finetune.py": "tests/training/finetuning/test_command.py and test_two_processes.py beside it",
    "imagexplain check": "tests/serving/test_check.py, the page's block on files of its own",
    "imagexplain debug": "tests/debugging/test_debugging_page.py, in the page's order on folders of scenes",
    "train-captioner": "tests/training/captioning/test_command.py, and test_region_encoder.py beside it",
    "evaluate-captioner": "tests/debugging/test_evaluate_captioner.py, on the original's formats and on scenes",
    "imagexplain edge key add moved": "tests/ops/test_edge_moving.py, with all that asks the front door",
    "PredictionServiceClient(": "tests/ops/test_edge_moving.py, by Vertex AI's client",
    "> kserve.jsonl": "tests/ops/test_edge_moving.py, on what the page's calls have answered",
    "imagexplain compare-answers": "tests/ops/test_edge_moving.py, on what the page's calls have answered",
    "imagexplain edge key add kserve": "tests/ops/test_edge_kserve.py, before a real server",
    "imagexplain edge": "tests/ops/test_edge_torchserve.py, the page from top to bottom",
    "run/edge/certificate.pem": "tests/ops/test_edge_torchserve.py, the page from top to bottom",
    "--config.file=deploy/prometheus": "tests/deploy/test_monitoring.py, and Alertmanager's by test_rules.py beside it",
    "deploy.grafana.draw": "tests/deploy/test_monitoring.py, from a Prometheus of its own",
    '"request_id": "mine-1"': "tests/deploy/test_monitoring.py, where the log's lines are waited for",
    "imagexplain batch --input": "tests/cluster/test_datasets_page.py, the page from top to bottom",
    '"results/table"': "tests/cluster/test_datasets_page.py, the page from top to bottom",
    "tests.answers.record": "tests/answers/test_record.py, on a part: the whole takes minutes",
}
"""Commands of blocks that are not run here, each with what runs it or why nothing does."""
BLOCKS = [block for page in PAGES for block in blocks(page)]


def elsewhere(block: Block) -> bool:
    """Whether a block has a command that is run elsewhere."""
    return any(command in block.code for command in RUN_ELSEWHERE)


RUNNABLE = [block for block in BLOCKS if block.language in LANGUAGES and not elsewhere(block)]


@pytest.fixture
def checkout(tmp_path: Path, served: Served) -> Path:
    """What a reader has: the scripts, archives, a running server's key file, and a photo."""
    for name in ("scripts", "imagexplain"):  # which resolve their own path, and look for run/ there
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("handlers", "training", "archive_specs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "model_store").mkdir()
    for archive in Path(served.server.store).glob("*.mar"):
        (tmp_path / "model_store" / archive.name).symlink_to(archive)
    (tmp_path / "run").mkdir()
    shutil.copy(Path(served.server.run) / "key_file.json", tmp_path / "run")
    shutil.copy(Path(served.server.run) / "server.json", tmp_path / "run")
    image = Image.fromarray(scene(HELD_OUT_SEED, 1, SceneSettings(size=(240, 320))).image)
    image.save(tmp_path / "photo.jpg", quality=95)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_says_its_language(page: Path) -> None:
    """`text` is what nobody runs; a fence that is not found as one would be left out in silence."""
    found = blocks(page)
    assert {block.language for block in found} <= LANGUAGES | {"text"}
    assert page.read_text("utf-8").count("```") == 2 * len(found)


def test_there_is_something_to_run() -> None:
    assert {block.language for block in RUNNABLE} == LANGUAGES
    assert len({block.page for block in RUNNABLE}) >= 6


def test_what_runs_elsewhere_is_on_a_page_and_has_its_test() -> None:
    assert all(any(command in block.code for block in BLOCKS) for command in RUN_ELSEWHERE)
    assert all((ROOT / path).is_file() for path in re.findall(r"tests/\S+\.py", " ".join(RUN_ELSEWHERE.values())))


@pytest.mark.parametrize(
    "block", RUNNABLE, ids=lambda block: f"{block.page}: {block.code.strip().splitlines()[-1].strip()[:50]}"
)
def test_the_code_runs(checkout: Path, served: Served, block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    code = block.code
    if "curl" in code and shutil.which("curl") is None:
        pytest.skip("no curl here")
    for port, address in (("8080", served.server.inference), ("8082", served.server.metrics.removesuffix("/metrics"))):
        code = code.replace(f"http://127.0.0.1:{port}", address)
    if block.language == "python" and "register" not in code:  # an interpreter of its own for what would stay
        monkeypatch.chdir(checkout)
        monkeypatch.setattr(local, "ROOT", checkout)
        exec(compile(code, block.page, "exec"), {"__name__": "__main__"})
        return
    command = ["bash", "-euo", "pipefail", "-c", code] if block.language == "sh" else [sys.executable, "-c", code]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
