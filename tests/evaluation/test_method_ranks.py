"""Places of methods, by hand."""

from __future__ import annotations

from typing import Any

from evaluation import metrics
from evaluation.method_ranks import markdown, places


def record(**scores: dict[str, float]) -> dict[str, Any]:
    """A model's results: method → metric → mean; `edges` is a control, `smooth` a method with smoothing."""
    plans: dict[str, Any] = {name: {"methods": [name], "smoothing": None} for name in scores}
    plans["edges"] = {"control": True}
    plans["smooth"] = {"methods": ["one"], "smoothing": {"samples": 8}}
    found = {name: {metric: {"mean": mean} for metric, mean in means.items()} for name, means in scores.items()}
    return {"plans": plans, "metrics": found, "fails": ["two"]}


RESULTS = {
    "models": {
        "a": record(
            one={"IoU": 0.5, "deletion AUC": 0.3},
            two={"IoU": 0.7, "deletion AUC": 0.3},
            smooth={"IoU": 0.6, "deletion AUC": 0.1},
            edges={"IoU": 0.9, "deletion AUC": 0.0},
        ),
        "b": record(one={"IoU": 0.5, "deletion AUC": 0.2}, smooth={"IoU": 0.2, "deletion AUC": 0.4}),
    }
}


def test_the_better_direction_is_the_metrics_and_equal_values_share_a_place() -> None:
    assert places(RESULTS, metrics.IOU) == {"two": {"a": 1}, "smooth": {"a": 2, "b": 2}, "one": {"a": 3, "b": 1}}
    assert (
        places(RESULTS, metrics.DELETION)["one"]
        == places(RESULTS, metrics.DELETION)["two"] | {"b": 1}
        == {"a": 2, "b": 1}
    )


def test_a_method_is_best_for_what_it_has_the_best_mean_place_by() -> None:
    assert list(markdown(RESULTS))[2:] == [
        "| `one` | segments that are needed | 2, 1 |  |",
        "| `two` | the object's extent | 1, – | a, b |",
    ]
