"""Pictures of docs/meaning.md, from its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from evaluation.meaning import Case, cup, dark_scene, segments_of, usual
from imagexplain.checkout import ROOT
from imagexplain.vision.heatmap import overlay
from imagexplain.vision.segment_overlay import coloured
from imagexplain.vision.superpixels import GridSettings, grid

FOLDER = ROOT / "docs"
QUALITY = 85
INK = {"black": "#222222", "white": "#e08214", "uniform": "#2166ac"}


def draw(record: Mapping[str, Any]) -> None:
    """Draw all pictures of the page."""
    mpl.use("agg")
    _save(_along(record["path"], record["residuals"]["relative"]), "meaning_path")
    _save(_sizes(), "meaning_size")
    _save(_blind_spot(), "meaning_blind_spot")
    _save(_segments(record["baselines"]["rows"], cup(), {}), "meaning_baselines")
    second = record["contrast"]["label"]
    titles = {"one": "espresso", "two": second, "difference": f"espresso rather than {second}"}
    _save(_segments(record["contrast"]["rows"], cup(), titles), "meaning_contrast")


def _along(path: Mapping[str, Sequence[float]], relative: Mapping[str, Mapping[str, float]]) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 2.9))
    left.plot(path["alpha"], path["logit"], color="#2166ac", label="score (logit)")
    left.set(xlabel="place on the path from black to the photo", ylabel="score")
    other = left.twinx()
    other.plot(path["alpha"], path["probability"], color="#b2182b", label="probability")
    other.set(ylabel="probability", ylim=(0, 1.02))
    lines = [*left.get_lines(), *other.get_lines()]
    left.legend(lines, [str(line.get_label()) for line in lines], loc="lower right", fontsize=8)
    for name, colour in INK.items():
        steps = [int(count) for count in relative[name]]
        right.loglog(steps, [abs(value) for value in relative[name].values()], "o-", ms=3.5, color=colour, label=name)
    ticks = (5, 10, 20, 50, 100)
    right.set_xticks(ticks, map(str, ticks))
    right.set_yticks((0.01, 0.1, 1), ("1 %", "10 %", "100 %"))
    right.minorticks_off()
    right.set(xlabel="gradients", ylabel="|residual| / score difference")
    right.legend(fontsize=8)
    return figure


def _sizes() -> Figure:
    """Attribution and directional gradient of ever finer grids, in one colour scale each."""
    paths, case = usual(), cup()
    figure, axes = plt.subplots(2, 3, figsize=(8.4, 4.3))
    for column, cells in enumerate((2, 4, 8)):
        labels = grid((224, 224), GridSettings(cells, cells))
        table = paths.table(segments_of(labels))
        rows = ((table.attribution, "attribution"), (table.directional, "directional"))
        for axis, (values, name) in zip(axes[:, column], rows, strict=True):
            scale = {"attribution": 3.5, "directional": 0.03}[name]
            _show(axis, coloured(case.photo, labels, (values[: cells * cells] / scale).clamp(-1, 1), case.geometry))
            axis.set_title(f"{name}, {cells} × {cells}", fontsize=9)
    return figure


def _blind_spot() -> Figure:
    case, _ = dark_scene()
    names = ("black", "white", "uniform")
    figure, axes = plt.subplots(1, 4, figsize=(9.6, 2.7))
    _show(axes[0], case.photo)
    axes[0].set_title("scene", fontsize=9)
    for axis, name in zip(axes[1:], names, strict=True):
        paths = case.paths(case.baselines(name), 13 if name == "uniform" else 30)
        _show(axis, overlay(case.photo, paths.attribution, case.geometry, sigma=1.5))
        axis.set_title(f"from {name}", fontsize=9)
    return figure


def _segments(rows: Mapping[str, Sequence[float]], case: Case, titles: Mapping[str, str]) -> Figure:
    """Segments in the colours of their directional gradients, each picture in its own scale."""
    figure, axes = plt.subplots(1, len(rows), figsize=(2.6 * len(rows), 2.1))
    for axis, (name, values) in zip(axes, rows.items(), strict=True):
        strengths: Tensor = torch.tensor(values)
        _show(axis, coloured(case.photo, case.labels, strengths / strengths.abs().max(), case.geometry))
        axis.set_title(titles.get(name, f"from {name}"), fontsize=9)
    return figure


def _show(axis: Axes, picture: Image.Image) -> None:
    axis.imshow(picture)
    axis.axis("off")


def _save(figure: Figure, name: str) -> None:
    figure.tight_layout()
    figure.savefig(FOLDER / f"{name}.jpg", dpi=100, pil_kwargs={"quality": QUALITY, "optimize": True})
    plt.close(figure)
