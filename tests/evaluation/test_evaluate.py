"""The whole evaluation on three scenes with the trained LaNet."""

import json
from pathlib import Path

import pytest

from evaluation import evaluate, report
from evaluation.methods import CONTROLS, OURS
from evaluation.report import verdict
from evaluation.settings import Settings
from evaluation.summary import Mean
from training.train_classifier import HELD_OUT_SEED

FEW = Settings(removals=8, noisy=2, draws=1, repeat_steps=40, orders=2, samples=(20, 40))


@pytest.fixture(scope="module")
def results(one_thread: None) -> dict:
    return evaluate.evaluate(["lanet"], ["standard"], seed=HELD_OUT_SEED, count=3, costly=1, settings=FEW)


def test_structure(results: dict) -> None:
    assert set(results) == {"settings", "machine", "versions", "models"}
    lanet = results["models"]["lanet"]
    for found in lanet["scenes"].values():
        assert 1 <= found["right"] <= found["drawn"] == 3
        assert {"pixels", "objects", "superpixels"} == set(found["metrics"])
        for kind in ("objects", "superpixels"):
            assert set(found["metrics"][kind]) == {*OURS, *CONTROLS, "leave-one-out", "truth"}
    superpixels = lanet["scenes"]["standard"]["metrics"]["superpixels"]
    assert superpixels["ig"]["max-sensitivity"]["scenes"] == 1
    assert superpixels["area"]["signed parameter randomization"]["mean"] == pytest.approx(1), (
        "area does not look at the model"
    )
    assert superpixels["truth"]["relevance mass accuracy"]["mean"] == max(
        row["relevance mass accuracy"]["mean"] for row in superpixels.values()
    )
    assert lanet["sampling"]["superpixels"]["KernelShap 40"]["evaluations"] == pytest.approx(40, abs=1)
    assert (
        lanet["baselines"]["pixels"]["noise"]["relevance mass accuracy"]["scenes"]
        == lanet["scenes"]["standard"]["right"]
    )
    json.dumps(results, allow_nan=False)


def test_feature_ablation_is_leave_one_out(results: dict) -> None:
    assert results["models"]["lanet"]["feature_ablation_gap"] < 1e-4


def test_the_deciding_object_beats_chance(results: dict) -> None:
    metrics = results["models"]["lanet"]["scenes"]["standard"]["metrics"]
    assert (
        metrics["pixels"]["ig"]["relevance mass accuracy"]["mean"]
        > 1.3 * metrics["pixels"]["random"]["relevance mass accuracy"]["mean"]
    )
    assert metrics["objects"]["ig"]["pointing game among objects"]["mean"] > 0.5


def test_a_finer_path_orders_the_groups_alike(results: dict) -> None:
    superpixels = results["models"]["lanet"]["scenes"]["standard"]["metrics"]["superpixels"]
    assert superpixels["ig"]["rank correlation with a finer path"]["mean"] > 0.9


def test_report_and_picture(results: dict, tmp_path: Path) -> None:
    text = "\n".join(report.lines(results))
    assert "lanet, standard scenes" in text and "KernelShap 40" in text
    report.draw(results, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("low", "high", "wanted"), [(0.1, 0.3, "beats"), (-0.1, 0.3, "level with"), (-0.3, -0.1, "loses to")]
)
def test_verdict(low: float, high: float, wanted: str) -> None:
    assert verdict(Mean((low + high) / 2, low, high, 9)) == wanted


def test_unknown_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["--models", "lanet", "resnext"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: models: wanted some of bit, lanet, ") and "got 'resnext'" in said
