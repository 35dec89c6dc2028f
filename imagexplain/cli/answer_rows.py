"""Answers in words and as rows of tables: of classifiers, segmenters and captioners alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from imagexplain.plain_text import printable

ROWS = 10
"""Number of groups in a summary, at most."""

GROUP_COLUMNS = (
    *("photo", "model", "method", "graph", "target", "contrast", "group", "kind", "attribution", "directional"),
    *("dividend", "value", "norm", "area", "parent", "standard_error", "attribution_spread", "directional_spread"),
    "absolute_directional",
)
"""Columns of a table of groups."""

PREDICTION_COLUMNS = (
    *("photo", "model", "rank", "label", "index", "score", "probability", "left", "top", "right", "bottom", "area"),
    *("caption", "log_probability"),
)
"""Columns of a table of predictions."""

SUMMARY_COLUMNS = ("photo", "model", "outcome", "answer", "score", "relative_residual", "seconds")
"""Columns of a table of photos."""


def best(prediction: Mapping[str, Any]) -> str:
    """The best classes, the surest instances, or the captions."""
    if "detections" in prediction:
        found = prediction["detections"]
        listed = ", ".join(f"{printable(row['label'])} {row['score']:.1%}" for row in found[:5])
        return f"{len(found)} found" + (f": {listed}" if found else "")
    if "graphs" in prediction:
        return "; ".join(printable(graph["caption"]) for graph in prediction["graphs"])
    return ", ".join(f"{printable(row['label'])} {_share(row)}" for row in prediction["predictions"][:3])


def told(result: Mapping[str, Any]) -> str:
    """The lines for an explanation."""
    if "graphs" in result:
        return "\n".join(_of_graph(graph) for graph in result["graphs"])
    return "\n".join(_summary(one) for one in result.get("explanations", [result]))


def in_short(result: Mapping[str, Any]) -> dict[str, Any]:
    """The answer, the score and the relative residual of a prediction or an explanation, for a table of photos."""
    if "predictions" in result or "detections" in result:
        return {"answer": best(result)}
    if "graphs" in result:
        words = [word for graph in result["graphs"] for word in graph.get("words", ())]
        return {"answer": best(result)} | _worst(words)
    each = result.get("explanations", [result])
    return {"answer": ", ".join(map(_class, each)), "score": each[0]["score"]} | _worst(each)


def group_rows(photo: str, model: str, result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each group of each class or word that was explained."""
    for graph in result.get("graphs", ()):
        for word in graph["words"]:
            row = {"photo": photo, "model": model, "graph": graph.get("graph", ""), "target": word["word"]}
            yield from ({**row, **_group(group)} for group in word["groups"])
    if "graphs" not in result:
        for one in result.get("explanations", [result]):
            row = {"photo": photo, "model": model, "method": one["method"], "target": one["target_label"]}
            row["contrast"] = one.get("contrast_label", "")
            yield from ({**row, **_group(group)} for group in one.get("groups", ()))


def prediction_rows(photo: str, model: str, result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A row for each class, instance or caption."""
    if "detections" in result:
        for rank, found in enumerate(result["detections"], 1):
            sides = dict(zip(("left", "top", "right", "bottom"), found["box"], strict=True))
            own = {"label": found["label"], "index": found["class"], "score": found["score"], "area": found["area"]}
            yield {"photo": photo, "model": model, "rank": rank, **own, **sides}
    elif "graphs" in result:
        captions = [caption for graph in result["graphs"] for caption in graph["n_best"] or [graph]]
        for rank, found in enumerate(captions, 1):
            own = {name: found[name] for name in ("caption", "log_probability")}
            yield {"photo": photo, "model": model, "rank": rank, **own}
    else:
        for rank, found in enumerate(result["predictions"], 1):
            yield {"photo": photo, "model": model, "rank": rank, **found}


def _group(group: Mapping[str, Any]) -> dict[str, Any]:
    return {("group" if name == "label" else name): value for name, value in group.items() if name != "segmentation"}


def _worst(each: list[dict[str, Any]]) -> dict[str, Any]:
    """The largest relative residual of several explanations, where they have any."""
    found = [one["relative_residual"] for one in each if one.get("relative_residual") is not None]
    return {"relative_residual": max(found, key=abs)} if found else {}


def _class(one: Mapping[str, Any]) -> str:
    """The class that is explained, and the class that it is contrasted with."""
    other = f" rather than {printable(one['contrast_label'])}" if "contrast_label" in one else ""
    return f"{printable(one['target_label'])}{other}"


def _share(row: Mapping[str, Any]) -> str:
    """A class's probability, or a value."""
    return f"{row['probability']:.1%}" if "probability" in row else f"{row['score']:.4g}"


def _summary(result: Mapping[str, Any]) -> str:
    by_path = "residual" in result
    lines = _of_path(result) if by_path else _of_map(result)
    column = "directional" if by_path else "attribution"
    groups = sorted(result.get("groups", []), key=lambda row: -abs(row[column]))
    for row in groups[:ROWS]:
        error = f" ± {row['standard_error']:.3f}" if "standard_error" in row else ""
        change = f"directional {row['directional']:+8.4f}  dividend {row['dividend']:6.1%}  " if by_path else ""
        lines.append(
            f"    {printable(row['label']):24.24} attribution {row['attribution']:+8.3f}{error}  {change}"
            f"area {row['area']}"
        )
    if len(groups) > ROWS:
        lines.append(f"    and {len(groups) - ROWS} more groups")
    return "\n".join(lines)


def _explained(result: Mapping[str, Any]) -> str:
    return f"  explained: {_class(result)}, score {result['score']:.3f}"


def _of_path(result: Mapping[str, Any]) -> list[str]:
    placed = f"of {result['quadrature']}" if "quadrature" in result else f"for a tolerance of {result['tolerance']:g}"
    return [
        f"{_explained(result)}, baseline {result['baseline_score']:.3f}",
        f"  {result['method']} with {result['steps']} steps {placed}: "
        f"residual {result['residual']:.2e} (relative {result['relative_residual']:.1e})",
    ]


def _of_map(result: Mapping[str, Any]) -> list[str]:
    options = dict(result["options"]) | ({"layer": result["layer"]} if "layer" in result else {})
    said = ", ".join(f"{name} {value}" for name, value in options.items())
    return [
        _explained(result),
        f"  {result['method']}{f' with {said}' if said else ''}: {result['evaluations']} evaluations",
    ]


def _of_graph(graph: Mapping[str, Any]) -> str:
    words = [f"{printable(word['word'])} ← {printable(word['largest_node']['label'])}" for word in graph["words"]]
    return f"  caption: {printable(graph['caption'])}\n  {', '.join(words)}"
