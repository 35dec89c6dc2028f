"""The scores on photographs as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evaluation import metrics
from evaluation.metrics import Metric
from evaluation.photo_study import BASELINES, SEGMENT_METHODS

Nested = dict[str, Any]

GRID = metrics.GRID_POINTING_GAME.name
ON_PHOTOS = (
    metrics.INSERTION,
    metrics.DELETION,
    metrics.PIXEL_INSERTION,
    metrics.PIXEL_DELETION,
    metrics.PIXEL_FLIPPING,
    metrics.ROAD,
    metrics.SACO,
    metrics.NORMALIZED_INFIDELITY,
    metrics.MAX_SENSITIVITY,
    metrics.RANDOMIZATION,
    metrics.RANDOMIZATION_OF_MAGNITUDES,
    metrics.CASCADING_RANDOMIZATION,
    metrics.RANDOMIZATION_BY_LAYER,
    metrics.CPU_TIME,
    metrics.FORWARD,
    metrics.BACKWARD,
)
COUNTS = (metrics.FORWARD.name, metrics.BACKWARD.name)


def markdown(results: Nested) -> Iterator[str]:
    """Lines of all tables: which photos, the grid pointing games, the scores on photos, and segments by baseline."""
    yield from _photos(results)
    yield from _grids(results["grids"])
    yield from _on_photos(results)
    yield from _segments(results["segments"])


def _photos(results: Nested) -> Iterator[str]:
    yield "### The photos"
    yield ""
    yield (
        f"{len(results['photos'])} of {results['seen']} photos: of each class the surest, at least "
        f"{results['settings']['threshold']} sure."
    )
    yield ""
    yield "| photo | the network's name | probability |"
    yield "| --- | --- | ---: |"
    for photo in results["photos"]:
        yield f"| {photo['name']} | {photo['label']} | {photo['probability']:.2f} |"
    yield ""


def _grids(grids: Mapping[str, Nested]) -> Iterator[str]:
    yield "### Grid pointing game"
    yield ""
    for side, grid in grids.items():
        sure = grid["knowledge"]
        yield (
            f"{side}×{side}: {len(grid['mosaics'])} mosaics of {grid['size'][0]}×{grid['size'][1]} pixels, "
            f"{len(sure)} classes explained, of {grid['photos']} photos. In {_sum(sure, 'decides')} of the {len(sure)} "
            "blotting out the class's own tile costs its score most; in "
            f"{sum(one['rank'] <= int(side) ** 2 for one in sure)} the class is among the network's first "
            f"{int(side) ** 2} names for the mosaic. Chance is {1 / int(side) ** 2:.2f}."
        )
        yield ""
    yield "Share of the positive values in the class's tile, ± half the 95 % interval over photos."
    yield ""
    columns: list[tuple[str, str, str]] = []
    for side in grids:
        columns.append((side, GRID, f"{side}×{side} share ↑"))
        columns.append((side, metrics.POINTING_GAME.name, f"{side}×{side} highest pixel ↑"))
    first = next(iter(grids))
    columns.append((first, metrics.BORDER_MASS.name, f"{first}×{first} {metrics.BORDER_MASS.heading}"))
    yield "| method | " + " | ".join(heading for _, _, heading in columns) + " |"
    yield "| --- |" + " ---: |" * len(columns)
    for method in sorted(grids[first]["metrics"], key=lambda name: -grids[first]["metrics"][name][GRID]["mean"]):
        cells = [_cell(grids[side]["metrics"].get(method, {}).get(name), name == GRID) for side, name, _ in columns]
        yield f"| {method} | " + " | ".join(cells) + " |"
    yield ""


def _on_photos(results: Nested) -> Iterator[str]:
    found, fails = results["on_photos"]["metrics"], results["on_photos"]["fails"]
    yield "### On the photos themselves"
    yield ""
    columns = [metric for metric in ON_PHOTOS if any(metric.name in values for values in found.values())]
    yield "| method | " + " | ".join(metric.heading for metric in columns) + " |"
    yield "| --- |" + " ---: |" * len(columns)
    for method in sorted(found, key=lambda name: -found[name][metrics.SACO.name]["mean"]):
        cells = [_cell(found[method].get(metric.name), digits=0 if metric.name in COUNTS else 2) for metric in columns]
        yield f"| {method}{' †' if method in fails else ''} | " + " | ".join(cells) + " |"
    yield ""
    if fails:
        yield "† fails the randomization check: mean \\|ρ\\| above 0.5 with all parameters randomized."
        yield ""
    if results["on_photos"]["not_supported"]:
        yield "Not supported by this model:"
        yield ""
        yield from (f"- {method}: {reason}" for method, reason in results["on_photos"]["not_supported"].items())
        yield ""


def _segments(segments: Nested) -> Iterator[str]:
    found = segments["metrics"]
    yield "### Segments, by baseline"
    yield ""
    yield (
        f"{segments['classes']} classes in {segments['mosaics']} mosaics of 2×2, about {segments['groups']:.0f} "
        "superpixels each. Top segment in the class's tile / share of the positive mass there / rank correlation with "
        "what leaving a segment out costs, mean over all five baselines."
    )
    yield ""
    yield "| method | " + " | ".join(BASELINES) + " |"
    yield "| --- |" + " ---: |" * len(BASELINES)
    for method in (*SEGMENT_METHODS, "leave-one-out", "KernelShap", "gaussian_shap", "Δ²"):
        cells = [_three(found[f"{method}, {name}"]) for name in BASELINES]
        yield f"| {method} | " + " | ".join(cells) + " |"
    yield ""
    yield "| beside these | hit / mass / rank correlation |"
    yield "| --- | ---: |"
    for method, values in found.items():
        if ", " not in method or " at " in method:
            yield f"| {method} | {_three(values)} |"
    yield ""


def _three(values: Mapping[str, Mapping[str, float]]) -> str:
    shown: Sequence[Metric] = (metrics.POINTING_GAME, metrics.RELEVANCE_MASS, metrics.RANK_CORRELATION)
    return " / ".join(f"{values[metric.name]['mean']:.2f}" for metric in shown)


def _cell(value: Mapping[str, float] | None, interval: bool = False, digits: int = 2) -> str:
    if value is None:
        return ""
    half = f" ± {(value['high'] - value['low']) / 2:.2f}" if interval else ""
    return f"{value['mean']:.{digits}f}{half}"


def _sum(rows: Sequence[Mapping[str, float]], key: str) -> int:
    return round(sum(row[key] for row in rows))
