"""The comparison of methods with their peers, on small images."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import bench_methods
from benchmarks.bench_methods import (
    Evaluations,
    Settings,
    Timing,
    compared_seconds,
    difference,
    interval,
    merged,
    ours,
    part,
    ratios,
    table,
    taken,
    turns,
)

SETTINGS = Settings(side=64, steps=3, samples=2, window=32, stride=32, cells=2)
TIMING = Timing(repeats=2, least=0)
COUNTS = {
    "ablation_cam": ({"whole": 2, "rest": 512 * 2 + 5, "back": 0}, {"whole": 2 * (2 + 512), "rest": 0, "back": 0}),
    "deep_lift": ({"whole": 4, "rest": 0, "back": 2}, {"whole": 4, "rest": 0, "back": 4}),
    "feature_ablation": ({"whole": 10, "rest": 0, "back": 0}, {"whole": 10, "rest": 0, "back": 0}),
    "grad_cam": ({"whole": 2, "rest": 0, "back": 2}, {"whole": 2, "rest": 0, "back": 2}),
    "guided_ig": ({"whole": 6, "rest": 0, "back": 6}, {"whole": 6, "rest": 0, "back": 6}),
    "integrated_gradients": ({"whole": 6, "rest": 0, "back": 6}, {"whole": 6, "rest": 0, "back": 6}),
}


@pytest.mark.upstream
def test_maps_and_evaluations_are_compared() -> None:
    for name in ("pytorch_grad_cam", "saliency"):
        pytest.importorskip(name)
    result = part("resnet", 2, [*COUNTS, "bag_cam"], TIMING, SETTINGS, "cpu")
    rows = {row["method"]: row for row in result["methods"]}
    for method, (own, theirs) in COUNTS.items():
        row = rows[method]
        for way, expected in (("ours", own), ("peer", theirs)):
            counts = dict(row["evaluations"][way])
            assert counts.pop("passes") > 0
            assert counts == expected, (method, way)
            assert row["seconds"][way] > 0
        assert row["interval"][0] <= row["times ours"] <= row["interval"][1]
        assert row["timing"] == {"repeats": 2, "slow": 10.0, "least": 0}
        assert row["note"] or row["difference"] < 1e-4, method
    # The gradients of the layers before the last, and those of the parameters, are the peer's alone.
    passes = {way: counts["passes"] for way, counts in rows["grad_cam"]["evaluations"].items()}
    assert passes["ours"] < 2.1 and passes["peer"] > 5
    assert rows["bag_cam"]["peer"] is None and "times ours" not in rows["bag_cam"]
    lines = table({"parts": [json.loads(json.dumps(result))]}).splitlines()
    assert len(lines) == 2 + 2 + len(rows) and len({line.count("|") for line in lines[2:]}) == 1


def test_what_has_no_meaning_is_said(capsys, monkeypatch, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    arguments = ["--models", "vit", "--batches", "1", "--methods", "guided_backprop", "--side", "64"]
    monkeypatch.setattr(sys, "argv", ["bench_methods", *arguments, "--out", str(out)])
    bench_methods.main()
    shown = capsys.readouterr().out
    assert "| guided_backprop |" in shown and "not supported" in shown
    monkeypatch.setattr(sys, "argv", ["bench_methods", "--show", str(out)])
    bench_methods.main()
    assert capsys.readouterr().out == shown


def test_evaluations_are_counted() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(16, 5))
    with Evaluations(network) as evaluations:
        network(torch.zeros(2, 3, 2, 2)).sum().backward()
        with torch.no_grad():
            network(torch.zeros(3, 3, 2, 2))
    one = 2 * (4 * 3 * 4 + 16 * 5)
    assert evaluations.told(one) == {
        "whole": 5,
        "rest": 0,
        "back": 2,
        "passes": round((5 * one + 2 * (2 * 4 * 3 * 4 + 2 * 2 * 16 * 5)) / one, 2),
    }
    assert not network._forward_hooks


@pytest.mark.parametrize(("first", "expected"), [((0.05, 0.05), 26), ((0.01, 0.01), 36), ((20.0, 0.1), 3), ((), 3)])
def test_short_calls_take_more_turns(first: tuple[float, ...], expected: int) -> None:
    """Calls of 0.05 s, each behind a rest of 0.1 s, take 0.3 s a turn."""
    assert turns(first, Timing(repeats=3, least=8.0)) == expected


def test_slow_calls_take_one_turn_and_have_no_interval() -> None:
    order: list[str] = []

    def turn_of(way: str) -> float:
        order.append(way)
        return 12.0 if way == "peer" else 1.0 + len(order)

    seconds = taken(turn_of, {"ours": 9.0, "peer": 11.0}, Timing(repeats=3, slow=10.0, least=0))
    assert order == ["peer", "ours", "ours", "ours"]
    assert seconds == {"ours": [3.0, 4.0, 5.0], "peer": [12.0]}
    assert compared_seconds(seconds["ours"], seconds["peer"]) == (3.0, None)
    assert compared_seconds([2.0], [3.0]) == (1.5, None)
    assert compared_seconds([1.0, 2.0, 4.0], [1.0, 3.0, 8.0]) == (1.5, (1.0, 2.0))


def test_interval_of_a_median_by_order_statistics() -> None:
    """Of 100 draws, 40 are below the median or fewer in 2.8 % of cases: the 41st and the 60th bound it."""
    assert interval([3.0, 1.0, 2.0]) == (1.0, 3.0)
    assert interval([float(value) for value in range(100, 0, -1)]) == (41.0, 60.0)


def test_ratios_name_what_is_slower_with_its_whole_interval() -> None:
    def row(method: str, ratio: float, interval: list[float] | None) -> dict[str, object]:
        return {"method": method, "peer": "Captum", "times ours": ratio, "interval": interval}

    shown = ratios(
        {
            "parts": [
                {
                    "architecture": "resnet18",
                    "batch": 1,
                    "methods": [
                        row("slow", 0.9, [0.8, 0.99]),
                        row("level", 0.99, [0.9, 1.1]),
                        row("once", 0.5, None),
                        {"method": "alone"},
                    ],
                },
                {
                    "architecture": "resnet18",
                    "batch": 8,
                    "methods": [
                        row("slow", 133.4, [120, 150]),
                        {"method": "level", "refused": "no"},
                        row("once", 0.6, None),
                        {},
                    ],
                },
            ]
        }
    )
    assert shown.splitlines() == [
        "| method | peer | resnet18, 1 | resnet18, 8 |",
        "| --- | --- | --- | --- |",
        "| `slow` | Captum | 0.900 | 133 |",
        "| `level` | Captum | 0.990 |  |",
        r"| `once` | Captum | 0.500\* | 0.600\* |",
        "",
        r"Slower than the peer with the whole interval: `slow` (resnet18, 1: 0.80 to 0.99). \*: a side was timed once.",
    ]


def test_rows_measured_anew_take_the_place_of_those_on_record() -> None:
    def part(batch: int, **rows: float) -> dict[str, object]:
        found = [{"method": method, "times ours": ratio} for method, ratio in rows.items()]
        return {"model": "resnet", "batch": batch, "methods": found}

    earlier = [part(1, grad_cam=1.0, gradient=2.0), part(8, grad_cam=3.0)]
    assert merged(earlier, part(1, gradient=4.0)) == [part(1, grad_cam=1.0, gradient=4.0), part(8, grad_cam=3.0)]
    assert merged(earlier[1:], part(1, gradient=4.0)) == [part(1, gradient=4.0), part(8, grad_cam=3.0)]


def test_rows_of_other_settings_are_not_added(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    held = json.dumps({"parts": [{"model": "vit", "batch": 1, "settings": {"side": 224}, "methods": []}]})
    out.write_text(held)
    monkeypatch.setattr(sys, "argv", ["bench_methods", "--side", "64", "--out", str(out), "--add"])
    with pytest.raises(SystemExit):
        bench_methods.main()
    assert out.read_text() == held


def test_difference_is_that_of_scaled_maps() -> None:
    maps = torch.tensor([1.0, 2.0, 3.0, 5.0]).view(1, 1, 2, 2)
    assert difference(maps, 7 * maps.view(1, 2, 2) - 3, scaled=True) == pytest.approx(0, abs=1e-15)
    assert difference(maps, -2 * maps, scaled=False) == pytest.approx(2)
    assert difference(maps, maps.repeat(1, 3, 1, 1), scaled=False) == 0


def test_the_networks_of_both_sides_are_left_as_they_were() -> None:
    case = bench_methods.made("resnet", 1, SETTINGS, "cpu")
    before = {key: value.clone() for key, value in case.network.state_dict().items()}
    first = ours("grad_cam", case)
    assert torch.equal(first, ours("grad_cam", case))
    assert all(torch.equal(value, before[key]) for key, value in case.network.state_dict().items())
    assert all(module.inplace for module in case.network.modules() if isinstance(module, nn.ReLU))
    assert not any(module.inplace for module in case.out_of_place.modules() if isinstance(module, nn.ReLU))
