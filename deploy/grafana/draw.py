"""A drawing of the dashboard from a running Prometheus, for the eye and the documentation, without Grafana.

``python -m deploy.grafana.draw --prometheus http://127.0.0.1:9090 --minutes 10 --out dashboard.png``
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from string import Template
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

import matplotlib as mpl

mpl.use("Agg")

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from deploy.grafana.panels import ROWS, WINDOW, Panel, Series

COLUMNS = 3
WIDTH, HEIGHT = 6.0, 2.9
"""Inches of a panel."""

POINTS = 240
"""Points of each line."""

MAX_LEGEND = 12
"""Names in a legend, at most; lines that are 0 throughout are not named beside others."""

Line = tuple[str, list[float], list[float]]
"""Name, times and values."""


def expression(series: Series, window: str) -> str:
    """The PromQL of a series, with Grafana's variables filled in: all models, and a window of rates."""
    return series.expression.replace(WINDOW, window).replace("$model", ".*")


def ask(prometheus: str, path: str, **parameters: str) -> list[dict]:
    """The result of a query to Prometheus' API. Raises OSError for one that it refuses."""
    address = f"{prometheus}/api/v1/{path}?{urlencode(parameters)}"
    with build_opener(ProxyHandler({})).open(address, timeout=30) as answer:
        result: list[dict] = json.load(answer)["data"]["result"]
        return result


def lines(prometheus: str, panel: Panel, start: float, end: float, window: str) -> list[Line]:
    """The lines of a panel over a time (seconds since 1970), named by its legends."""
    step = max(1, round((end - start) / POINTS))
    found = []
    for series in panel.series:
        for one in ask(
            prometheus,
            "query_range",
            query=expression(series, window),
            start=f"{start:.0f}",
            end=f"{end:.0f}",
            step=str(step),
        ):
            times, values = zip(*((float(at), float(value)) for at, value in one["values"]), strict=True)
            found.append((named(series.legend, one["metric"]), list(times), list(values)))
    return found


def named(legend: str, labels: dict[str, str]) -> str:
    """A legend with its labels filled in; a digest is shortened as Git shortens its own."""
    short = {name: value[:12] if name.endswith("sha256") else value for name, value in labels.items()}
    return Template(legend.replace("{{", "${").replace("}}", "}")).safe_substitute(short)


def draw(prometheus: str, start: float, end: float, window: str = "1m") -> Figure:
    """All panels over a time (seconds since 1970).

    Args:
        prometheus: Base address of Prometheus.
        start: Begin of the time.
        end: End of the time.
        window: Window of rates, at least four intervals of scrapes.
    """
    grid = [(row.title, panel) for row in ROWS for panel in row.panels]
    height = math.ceil(len(grid) / COLUMNS)
    figure = Figure(figsize=(COLUMNS * WIDTH, height * HEIGHT), layout="constrained")
    axes = figure.subplots(height, COLUMNS, squeeze=False).flatten()
    for place, (row, panel) in enumerate(grid):
        found = lines(prometheus, panel, start, end, window)
        axes[place].set_title(f"{row}: {panel.title}", fontsize=10, loc="left")
        (_numbers if panel.stat else _curves)(axes[place], panel, found, start)
    for left in axes[len(grid) :]:
        left.axis("off")
    return figure


def _curves(axes: Axes, panel: Panel, found: Sequence[Line], start: float) -> None:
    for name, times, values in found:
        axes.plot([(at - start) / 60 for at in times], values, label=name, linewidth=1)
    highest = max((value for _, _, values in found for value in values if math.isfinite(value)), default=0)
    axes.set_ylim(0, 1.45 * highest or 1)  # the legend has its place above the lines
    axes.grid(alpha=0.3)
    axes.tick_params(labelsize=7)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, panel.unit)))
    axes.set_xlabel("minutes", fontsize=7)
    handles, names = axes.get_legend_handles_labels()
    telling = [place for place, (_, _, values) in enumerate(found) if any(values)] or list(range(len(found)))
    shown_names = telling[:MAX_LEGEND]
    axes.legend(
        [handles[i] for i in shown_names], [names[i] for i in shown_names], fontsize=6, loc="upper left", ncols=3
    )


def _numbers(axes: Axes, panel: Panel, found: Sequence[Line], start: float) -> None:
    axes.axis("off")
    if panel.unit == "short":  # names alone tell, as of versions
        text = "\n".join(name.replace(", ", "\n    ", 1) for name, _, _ in found)
    else:
        text = "\n".join(f"{name}: {shown(values[-1], panel.unit)}" for name, _, values in found)
    axes.text(0.02, 0.9, text, va="top", fontsize=9, transform=axes.transAxes)


def shown(value: float, unit: str) -> str:
    """A value with its unit."""
    match unit:
        case "bool_yes_no":
            return "yes" if value else "no"
        case "percentunit":
            return f"{value:.3g}" if 0 < value < 0.01 else f"{value:.0%}"
        case "bytes":
            power = 0 if value < 1 else min(3, int(math.log10(value) // 3))
            return f"{value / 1000**power:.3g} {('B', 'kB', 'MB', 'GB')[power]}"
        case "s":
            return f"{value:.3g} s"
        case "reqps":
            return f"{value:.3g}/s"
        case _:
            return f"{value:.3g}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the last minutes to a file."""
    parser = argparse.ArgumentParser(description="Draw the dashboard's panels from a running Prometheus.")
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", help="base address (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=60, help="time to show (default: %(default)s)")
    parser.add_argument("--window", default="1m", help="window of rates (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    given = parser.parse_args(arguments)
    end = time.time()
    draw(given.prometheus, end - 60 * given.minutes, end, given.window).savefig(given.out, dpi=75)


if __name__ == "__main__":
    main()
