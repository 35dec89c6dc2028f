"""The dashboard as Grafana's JSON, made from its panels: ``python -m deploy.grafana.dashboard`` writes it anew."""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueTextMode,
    LegendDisplayMode,
    LegendPlacement,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableHide,
    VariableRefresh,
)

from deploy.grafana.panels import ROWS, Panel

FILE = Path(__file__).with_name("dashboard.json")
"""File that Grafana imports."""

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
HEIGHT, WIDTH = 8, 8
"""Size of a panel on Grafana's grid of 24 columns."""


def build() -> str:
    """The dashboard's JSON."""
    made = (
        dashboard.Dashboard("Image explanations")
        .uid("imagexplain")
        .description("Health, traffic, latency and explanations of the models served. Made by deploy/grafana.")
        .tags(["imagexplain"])
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Source").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable("model")
            .label("Model")
            .query("label_values(explain_requests_total, model_name)")
            .datasource(SOURCE)
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .hide(VariableHide.DONT_HIDE)
        )
    )
    for row in ROWS:
        made = made.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            made = made.with_panel(_stat(panel) if panel.stat else _lines(panel))
    return json.dumps(made.build(), cls=JSONEncoder, indent=2, ensure_ascii=False) + "\n"


def _lines(panel: Panel) -> timeseries.Panel:
    made = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.description)
        .unit(panel.unit)
        .min(0)
        .datasource(SOURCE)
        .height(HEIGHT)
        .span(WIDTH)
        .line_width(1)
        .fill_opacity(10)
        .show_points(VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
    )
    for query in _queries(panel):
        made = made.with_target(query)
    return made


def _stat(panel: Panel) -> stat.Panel:
    made = (
        stat.Panel()
        .title(panel.title)
        .description(panel.description)
        .unit(panel.unit)
        .datasource(SOURCE)
        .height(HEIGHT)
        .span(WIDTH)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
        .text_mode(BigValueTextMode.NAME if panel.title == "Versions" else BigValueTextMode.VALUE_AND_NAME)
    )
    if panel.unit == "bool_yes_no":
        steps = [Threshold(value=None, color="red"), Threshold(value=1, color="green")]
        made = made.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
        made = made.color_mode(BigValueColorMode.BACKGROUND)
    for query in _queries(panel):
        made = made.with_target(query)
    return made


def _queries(panel: Panel) -> list[prometheus.Dataquery]:
    made = []
    for letter, series in zip("ABCDEFGH", panel.series, strict=False):
        query = prometheus.Dataquery().ref_id(letter).expr(series.expression).legend_format(series.legend)
        made.append(query.instant() if panel.stat else query.range())
    return made


if __name__ == "__main__":
    FILE.write_text(build(), encoding="utf-8")
