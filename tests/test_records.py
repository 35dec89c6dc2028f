"""Numbers that the pages state of measurements, against the records in benchmarks/."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import dropwhile, takewhile
from typing import Any

import pytest

from benchmarks import bench_jobs, bench_methods, simulate_jobs
from benchmarks.group_explanations import report
from benchmarks.tables import with_tables
from benchmarks.torture.table import Row
from benchmarks.torture.table import text as text_of
from debugging import shortcut_study
from imagexplain.ops.server import ROOT
from tests.pages import rows

NUMBER = re.compile(r"(?<![\w.])-?(?:\d[\d,]*)?\.?\d+(?:e-?\d+)?")


def record(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / f"results_{name}.json").read_text("utf-8"))


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text("utf-8")


def table(text: str, heading: str) -> dict[str, list[str]]:
    """The rows of the table whose first line has the heading, by their first cell without its stars."""
    lines = text.splitlines()
    found = dropwhile(lambda line: [row[0] for row in rows(line)] != [heading], lines)
    body = takewhile(lambda line: line.startswith("|"), found)
    return {row[0]: row[1:] for row in rows("\n".join(body).replace("**", ""))[1:]}


def numbers(text: str) -> list[str]:
    return NUMBER.findall(text.replace("\N{MINUS SIGN}", "-"))


def agrees(shown: str, value: float) -> bool:
    """Whether a number as shown is the value, rounded to the digits that are shown."""
    mantissa, _, exponent = shown.replace(",", "").partition("e")
    unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return abs(float(shown.replace(",", "")) - value) <= unit * 0.5000001


def check(cell: str, values: Iterable[float | None]) -> None:
    """Fails unless the numbers of a cell are these values, none of them missing."""
    wanted = [value for value in values if value is not None]
    shown = numbers(cell)
    assert len(shown) == len(wanted) and all(map(agrees, shown, wanted)), (cell, wanted)


@pytest.mark.parametrize(("where", "name"), [("reliability", "torture"), ("scale", "torture_cluster")])
def test_tables_of_what_became_of_requests(where: str, name: str) -> None:
    own = {"survival": text_of([Row(**each) for each in record(name)["rows"]]) + "\n"}
    assert with_tables(page(where), own) == page(where)


def test_times_of_peers() -> None:
    own = {bench_methods.RATIOS: bench_methods.ratios(record("methods"))}
    assert with_tables(page("methods"), own) == page("methods")


def test_tables_of_estimators_at_equal_cost() -> None:
    assert with_tables(page("evaluation"), report.tables(record("group_methods"))) == page("evaluation")


@pytest.mark.parametrize(
    ("shown", "value", "same"),
    [
        ("0.55", 0.5526, True),
        ("0.55", 0.5560, False),
        (".57", 0.567, True),
        ("2,000", 2000.4, True),
        ("2,000", 2001, False),
        ("1.1e-2", 0.01076, True),
        ("1.1e-2", 0.0116, False),
        ("31", 30.5, True),
    ],
)
def test_a_number_agrees_in_the_digits_that_it_shows(shown: str, value: float, same: bool) -> None:
    assert agrees(shown, value) is same


def test_numbers_are_found() -> None:
    assert numbers("6.1× (timm's: 4.3×), .57 / 2,000 and R50x1 −1.1e-2") == ["6.1", "4.3", ".57", "2,000", "-1.1e-2"]


def explanations() -> Iterator[tuple[str, list[list[float | None]]]]:
    """The rows of the table of explanations and, of each model, the numbers in its cell."""
    found = [model["summary"] for model in record("explanation")["models"]]
    seconds = [model["seconds"] for model in found]
    lanet = found[2]["gigabytes"]
    yield (
        "the original servers' procedure",
        [[seconds[0]["authors"]], [seconds[1]["authors"]], [seconds[2]["original"], lanet["original"]]],
    )
    yield (
        "the same with timm's faster weight standardisation",
        [[seconds[0]["original"]], [seconds[1]["original"]], []],
    )
    yield "Captum, on our folded model", [[each["captum"]] for each in seconds]
    yield "Captum with its convergence delta, which ours always has", [[each["captum_delta"]] for each in seconds]
    yield (
        "here, integrated gradients and every step's gradient",
        [[seconds[0]["ours"]], [seconds[1]["ours"]], [seconds[2]["ours"], lanet["ours"]]],
    )
    yield "here, integrated gradients alone", [[each["ours_ig"]] for each in seconds]
    yield "original procedure / here", [[each["authors / ours"], each["original / ours"]] for each in found]
    yield "Captum / here, integrated gradients alone", [[each["captum / ours_ig"]] for each in found]
    yield "here / arithmetic floor", [[each["ours / floor"]] for each in found]


def test_explanations() -> None:
    shown = table(page("performance"), "seconds")
    wanted = dict(explanations())
    assert shown.keys() == wanted.keys()
    for name, cells in shown.items():
        for cell, values in zip(cells, wanted[name], strict=True):
            check(cell, values)


def test_where_the_time_of_an_explanation_goes() -> None:
    shown = table(page("performance"), "")
    for model in record("explanation")["models"]:
        check(" ".join(shown[model["model"]]), model["profile_percent"].values())


def test_requests() -> None:
    shown = table(page("performance"), "explanation at 50 steps")
    found = record("serving")["milliseconds"]
    assert len(shown) == 4
    for name, cells in shown.items():
        model, _, form = name.partition(", ")
        photo = "JPEG 640×480" if form.startswith("JPEG") else "JSON list 640×480"
        measured = found[f"explanations/{model.lower()}, {photo}"]
        check(" ".join(cells), [measured[key] for key in ("median", "decode", "attribute", "encode", "transport")])


def test_the_front_door() -> None:
    rows_of = {name.partition(",")[0]: (name, cells) for name, cells in table(page("edge"), "photo").items()}
    measured = record("edge")["milliseconds"]
    assert rows_of.keys() == measured.keys()
    for photo, (name, cells) in rows_of.items():
        row = measured[photo]
        check(name.partition(",")[2], [row["request_kB"]])
        for cell, column in zip(cells, ("direct", "edge", "added", "ratio"), strict=True):
            check(cell, [row[column]])
    assert f"medians of {record('edge')['requests']} by each way" in " ".join(page("edge").split())


def test_segmenters() -> None:
    tensormask, swin = (model["summary"] for model in record("segmenters")["models"])
    ways = [(tensormask, "detectron2"), (tensormask, "ours"), (swin, "mmdet_compiled"), (swin, "mmdet"), (swin, "ours")]
    section = page("performance").partition("## Segmenters")[2].partition("\n## ")[0]
    for (_, seconds, memory), (summary, way) in zip(rows(section)[1:], ways, strict=True):
        times = [summary["times ours"]["detectron2"]] if (summary, way) == (tensormask, "ours") else []
        check(seconds, [summary["seconds"][way], *times])
        check(memory, [summary["gigabytes"][way]])


def test_the_distance_of_float32() -> None:
    found = record("precision")
    starts = found["models"]["R50x1"].values()
    shown = table(page("performance"), "float32")
    ways = ("original", "folded", "served")
    assert len(shown) == len(ways) + 1 and list(found["models"]["R50x1"]) == ["black", "grey"]
    for way, cells in zip(ways, shown.values(), strict=False):
        for cell, start in zip(cells, starts, strict=True):
            check(cell, [start[way]["median"], start[way]["p90"]])
    check(" ".join([*shown.values()][-1]), [start["served"]["nearer"] for start in starts])
    text = " ".join(page("performance").partition("## float32")[2].partition("\n## ")[0].split())
    assert f"integrated gradients of {found['images']} images" in text
    for start in starts:
        assert f"is {start['served']['median'] / start['original']['median']:.1f} times as far" in text


def test_tolerances() -> None:
    """The probes' row has at each error the best of three variants."""
    names = {
        "uniform midpoints": ["midpoint"],
        "Gauss–Legendre": ["gauss_legendre"],
        "trapezoids": ["trapezoid"],
        "placed by forward probes": ["nuig_4", "nuig_4_root", "nuig_8_root"],
        "here, with a tolerance": ["refine"],
    }
    shown = table(page("performance"), "error 0.1 / 0.03 / 0.01 / 0.003")
    found = {(model["model"], model["baseline"]): model["gradients_needed"] for model in record("refinement")["models"]}
    assert len(shown) == len(names)
    for name, cells in shown.items():
        ways = next(ways for key, ways in names.items() if name.startswith(key))
        for cell, model in zip(cells, [("lanet", "zero"), ("bit", "black")], strict=True):
            check(cell, map(min, zip(*(found[model][way]["median"] for way in ways), strict=True)))


def test_scores_of_groups() -> None:
    names = {
        "attribution": "ig",
        "directional": "directional",
        "dividend, value": "dividend",
        "random scores": "random",
        "area": "area",
        "Sobel edges": "edges",
        "gradient": "gradient",
        "input × gradient": "input × gradient",
        "leave one group out": "leave-one-out",
    }
    shown = table(page("evaluation"), "hit / mass")
    assert shown.keys() == names.keys()
    found = record("evaluation")["models"]
    for name, cells in shown.items():
        places = [(model, groups) for model in ("lanet", "bit") for groups in ("objects", "superpixels")]
        for cell, (model, groups) in zip(cells, places, strict=True):
            scores = found[model]["scenes"]["standard"]["metrics"][groups][names[name]]
            check(cell, [scores[metric]["mean"] for metric in ("pointing game", "relevance mass accuracy")])


def test_scores_of_maps() -> None:
    names = {"random scores": "random", "Sobel edges": "edges", "`xrai`, regions of integrated gradients": "xrai"}
    shown = table(page("evaluation"), "IoU of the map with the deciding object / hit of its highest pixel")
    models = record("methods_evaluation")["models"]
    for name, cells in shown.items():
        for cell, (model, result) in zip(cells, models.items(), strict=True):
            metrics = result["metrics"]
            if name == "best by IoU":
                method, _, cell = cell.strip("`").partition("` ")
                assert method == max(metrics, key=lambda each: metrics[each]["IoU"]["mean"])
            else:
                method = names.get(name, name.strip("`"))
            assert bool(cell) == (method in metrics), (method, model)
            check(cell, [metrics[method][metric]["mean"] for metric in ("IoU", "pointing game")] if cell else [])


def test_strategies_of_debugging(capsys: pytest.CaptureFixture[str]) -> None:
    """The section is the command's own print of the record, and what it says of the record holds."""
    text = page("debugging").partition("## Study")[2]
    assert shortcut_study.main(["--print"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) > 10 and "\n".join(line for line in lines if line.startswith("|")) in text
    for line in lines:
        assert line.startswith("|") or " ".join(line.split()) in " ".join(text.split()), line


def test_jobs() -> None:
    """The tables are the records', and the simulation is of what was measured."""
    jobs, simulated = record("jobs"), record("simulation")
    assert simulated["measured"] == {name: jobs[name] for name in simulated["measured"]}
    texts = {
        "datasets": {"jobs": bench_jobs.table(jobs)},
        "scale": {
            "jobs by simulation": simulate_jobs.job_table(simulated),
            "replicas by simulation": simulate_jobs.serving_table(simulated),
            "memory of a job": bench_jobs.memory(jobs),
        },
    }
    for name, own in texts.items():
        assert with_tables(page(name), own) == page(name)


def test_the_readme() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    held_out = {name.strip("`"): cells[2] for name, cells in table(text, "model").items()}
    for name, cell in held_out.items():
        if name in ("imagenet", "timm", "torchvision", "huggingface", "own"):
            assert not cell, "none was trained on scenes"
        else:
            about = json.loads((ROOT / "archive_specs" / "weights" / f"{name}_scenes.json").read_text("utf-8"))
            score = about["cider"] if "cider" in about else 100 * about.get("accuracy", about.get("ap50"))
            check(cell.replace("AP50", "AP"), [score])
    seconds = record("explanation")["models"][0]["summary"]["seconds"]
    said = text.partition("An explanation by BiT-R50x1")[2].partition("\n- ")[0]
    check(said, [seconds["ours"], seconds["authors"], seconds["captum"]])
