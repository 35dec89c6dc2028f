"""The dashboard's panels: each a question of an operator's, and the expressions that answer it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Unit = Literal["short", "reqps", "percentunit", "s", "bytes", "bool_yes_no"]
"""Units by Grafana's names: a number, requests a second, a part of 1, seconds, bytes, yes or no."""

WINDOW = "$__rate_interval"
"""Grafana's variable for a window of rates that fits the zoom and the interval of scrapes."""

MODEL = 'model_name=~"$model"'
"""Choice of models at the dashboard's head."""


@dataclass(frozen=True)
class Series:
    """An expression of PromQL, and how the lines that it gives are named.

    Attributes:
        expression: PromQL with Grafana's variables.
        legend: Name of a line, with labels in double braces.
    """

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: Title.
        description: Sentence that says what to read from it.
        unit: Unit of its values.
        series: Expressions.
        stat: Flag for a panel of the latest values, as numbers; else lines over time.
    """

    title: str
    description: str
    unit: Unit
    series: tuple[Series, ...]
    stat: bool = False


@dataclass(frozen=True)
class Row:
    """Panels that belong together."""

    title: str
    panels: tuple[Panel, ...]


def by(labels: str, counter: str, matchers: str = "") -> str:
    """The rate of a counter by labels, of the chosen models."""
    inside = ", ".join(part for part in (MODEL, matchers) if part)
    return f"sum by ({labels}) (rate({counter}{{{inside}}}[{WINDOW}]))"


def mean(labels: str, metric: str) -> str:
    """The mean of what has a sum and a count, by labels."""
    return f"{by(labels, f'{metric}_sum')} / {by(labels, f'{metric}_count')}"


def quantile(share: float, labels: str, histogram: str) -> str:
    """A quantile of a histogram by labels; what lies above the last bucket's bound counts as that bound."""
    return f"histogram_quantile({share}, {by(f'le, {labels}', f'{histogram}_bucket')})"


ROWS = (
    Row(
        "Health",
        (
            Panel(
                "Models ready",
                "A model is ready while it has a READY worker; TorchServe's own ping does not tell.",
                "bool_yes_no",
                (Series(f"imagexplain_model_ready{{{MODEL}}}", "{{model_name}} {{model_version}}"),),
                stat=True,
            ),
            Panel(
                "Frontend answers",
                "TorchServe's front end, as the supervisor sees it.",
                "bool_yes_no",
                (Series("imagexplain_frontend_up", "frontend"),),
                stat=True,
            ),
            Panel(
                "Workers by state",
                "READY workers answer; others load, or have died.",
                "short",
                (
                    Series(
                        f"sum by (model_name, state) (imagexplain_workers{{{MODEL}}})",
                        "{{model_name}} {{state}}",
                    ),
                ),
            ),
            Panel(
                "Restarts",
                "What the supervisor started again within an hour, and workers that it ended because they hung.",
                "short",
                (
                    Series(
                        'sum by (model_name) (increase(imagexplain_restarts_total{what="model"}[1h]))',
                        "model {{model_name}}",
                    ),
                    Series('sum(increase(imagexplain_restarts_total{what="frontend"}[1h]))', "frontend"),
                    Series("sum(increase(imagexplain_workers_ended_total[1h])) or vector(0)", "hung workers"),
                ),
            ),
            Panel(
                "Age of the last answer",
                "Seconds since a model last answered a request with success.",
                "s",
                (
                    Series(
                        f"time() - max by (model_name) (explain_last_answer_timestamp_seconds{{{MODEL}}} > 0)",
                        "{{model_name}}",
                    ),
                ),
                stat=True,
            ),
            Panel(
                "Versions",
                "What is served: version of the package, and the archive's SHA-256.",
                "short",
                (
                    Series(
                        f"imagexplain_build_info{{{MODEL}}}",
                        "{{model_name}} {{model_version}}, {{version}}, {{archive_sha256}}",
                    ),
                ),
                stat=True,
            ),
        ),
    ),
    Row(
        "Traffic",
        (
            Panel(
                "Requests",
                "Answered requests a second, refused ones among them.",
                "reqps",
                (Series(by("model_name, kind", "explain_requests_total"), "{{model_name}} {{kind}}"),),
            ),
            Panel(
                "Outcomes",
                "The same by outcome.",
                "reqps",
                (Series(f"{by('outcome', 'explain_requests_total')} > 0", "{{outcome}}"),),
            ),
            Panel(
                "Refusals by reason",
                "What clients get wrong, and what the server has no time, memory or segmenter for.",
                "reqps",
                (Series(by("reason", "explain_rejected_total"), "{{reason}}"),),
            ),
            Panel(
                "Methods",
                "Explanations by method; 'other' is a product of two, or was refused before its method was read.",
                "reqps",
                (
                    Series(
                        f"{by('method, outcome', 'explain_requests_by_method_total')} > 0",
                        "{{method}} {{outcome}}",
                    ),
                ),
            ),
            Panel(
                "Errors",
                "The part of answers that are 500 or 503, and the part of TorchServe's that are 5xx.",
                "percentunit",
                (
                    Series(f"model:explain_errors:ratio_rate5m{{{MODEL}}}", "{{model_name}}"),
                    Series("max(instance:torchserve_errors:ratio_rate5m) or vector(0)", "TorchServe"),
                ),
            ),
            Panel(
                "TorchServe's answers",
                "By class of status, with those that no handler saw, and with scrapes and readiness among the 2xx.",
                "reqps",
                tuple(
                    Series(f"sum(rate(Requests{status}[{WINDOW}])) or vector(0)", status.lower())
                    for status in ("2XX", "4XX", "5XX")
                ),
            ),
        ),
    ),
    Row(
        "Latency",
        (
            Panel(
                "Time of a request",
                "Quantiles of the whole time at the server; the histogram ends at 10 s.",
                "s",
                tuple(
                    Series(quantile(share, "kind", "explain_request_seconds"), f"{{{{kind}}}} {share:.0%}")
                    for share in (0.5, 0.95, 0.99)
                ),
            ),
            Panel(
                "Requests by duration",
                "Bounded durations, which tell slow work apart where the histogram ends.",
                "reqps",
                (Series(by("duration", "explain_duration_total"), "{{duration}}"),),
            ),
            Panel(
                "Error budget's burn",
                "Requests that took longer than promised, relative to the 1 % that may: above 1 is too fast.",
                "short",
                tuple(
                    Series(
                        f"model_kind:explain_slow:ratio_rate{window}{{{MODEL}}} / 0.01",
                        f"{{{{model_name}}}} {{{{kind}}}} {window}",
                    )
                    for window in ("5m", "1h", "6h")
                ),
            ),
            Panel(
                "Time by stage",
                "Mean seconds of decoding, of prediction and attribution, and of encoding.",
                "s",
                tuple(
                    Series(mean("kind", f"explain_{stage}_seconds"), f"{{{{kind}}}} {stage}")
                    for stage in ("decode", "attribute", "encode")
                ),
            ),
            Panel(
                "Time in the queue, by TorchServe",
                "Mean seconds before a worker takes a request.",
                "s",
                (
                    Series(
                        f"{by('model_name', 'ts_queue_latency_microseconds')} / 1e6"
                        f" / {by('model_name', 'ts_inference_requests_total')}",
                        "{{model_name}}",
                    ),
                ),
            ),
            Panel(
                "Time in the queue, by the handler",
                "Seconds from the edge to the worker, of requests that tell when they left the edge: 95 % quantile.",
                "s",
                (Series(quantile(0.95, "model_name", "explain_queue_seconds"), "{{model_name}}"),),
            ),
        ),
    ),
    Row(
        "Explanations",
        (
            Panel(
                "Evaluations",
                "The model's evaluations per explanation, cached ones (0) among them.",
                "short",
                (Series(mean("model_name", "explain_evaluations"), "{{model_name}}"),),
            ),
            Panel(
                "Groups",
                "Groups that were scored, per explanation.",
                "short",
                (Series(mean("model_name", "explain_groups"), "{{model_name}}"),),
            ),
            Panel(
                "Relative residual",
                "What the quadrature missed of the score's difference: if it grows, photos or the model have changed.",
                "percentunit",
                (Series(mean("model_name", "explain_relative_residual"), "{{model_name}}"),),
            ),
            Panel(
                "Answered from the cache",
                "The part of explanations that cost no evaluation.",
                "percentunit",
                (
                    Series(
                        by("model_name", "explain_cache_total", 'outcome="hit"')
                        + " / "
                        + by("model_name", "explain_cache_total"),
                        "{{model_name}}",
                    ),
                ),
            ),
            Panel(
                "Segmenters next door",
                "Questions to segmenters by their fate.",
                "reqps",
                (Series(by("model_name, outcome", "explain_neighbour_calls_total"), "{{model_name}} {{outcome}}"),),
            ),
            Panel(
                "Bytes",
                "Mean size of requests and answers.",
                "bytes",
                (
                    Series(mean("model_name", "explain_request_bytes"), "{{model_name}} request"),
                    Series(mean("model_name", "explain_response_bytes"), "{{model_name}} answer"),
                ),
            ),
        ),
    ),
    Row(
        "Resources",
        (
            Panel(
                "Caches",
                "Bytes that a worker's caches hold; with several workers of a model, the one that answered last.",
                "bytes",
                (Series(f"explain_cache_bytes{{{MODEL}}}", "{{model_name}}"),),
            ),
            Panel(
                "GPU memory",
                "Bytes that PyTorch holds on each GPU; 0 without one.",
                "bytes",
                (
                    Series(
                        f"sum by (model_name, gpu) (explain_gpu_memory_bytes{{{MODEL}}})",
                        "{{model_name}} GPU {{gpu}}",
                    ),
                ),
            ),
            Panel(
                "Loading",
                "Seconds that the handler took to load its model, and that the model took to be ready.",
                "s",
                (
                    Series(f"explain_model_load_seconds{{{MODEL}}}", "{{model_name}} handler"),
                    Series(f"imagexplain_model_load_seconds{{{MODEL}}}", "{{model_name}} ready"),
                ),
            ),
            Panel(
                "Room for the state",
                "Bytes that are free where logs and unpacked archives lie.",
                "bytes",
                (Series("imagexplain_state_free_bytes", "free"),),
            ),
        ),
    ),
)
"""All panels, by row."""
