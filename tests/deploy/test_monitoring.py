"""A real Prometheus that scrapes a real server under known load: every panel shows what the load must give."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests
from PIL import Image

from deploy.grafana.dashboard import FILE, build
from deploy.grafana.draw import draw, expression, named
from deploy.grafana.panels import ROWS, Panel
from imagexplain import __version__
from imagexplain.archive.build import build_all
from imagexplain.ops.server import ROOT, Server, free_port, start, stop
from imagexplain.serving.headers import ANSWERED_ID
from tests.conftest import metrics
from tests.deploy.prometheus_server import prometheus, query
from tests.deploy.supervisor_metrics import supervisor_metrics
from tests.serving.asking import noise_png
from tests.waiting import until

MODEL = "bit"
WAITED = 6.0
"""Seconds that each prediction of the load has waited, as its proxy says: it falls into the buckets from 5 to 7.5."""

Predicate = Callable[[float], bool]
Expected = Mapping[str, Predicate]


@dataclass(frozen=True)
class Sent:
    """What a client sends."""

    server: Server

    def __call__(self, path: str, body: bytes | None = None, **headers: str) -> requests.Response:
        """The answer; in the names of headers ``_`` stands for ``-``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return requests.post(
            f"{self.server.inference}/{path}/{MODEL}",
            data=noise_png() if body is None else body,
            headers={**self.server.headers(), "Accept": "application/json", **named},
            timeout=120,
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of one small model."""
    store, run = tmp_path_factory.mktemp("store"), tmp_path_factory.mktemp("run")
    build_all([ROOT / "archive_specs" / f"{MODEL}.yaml"], store)
    try:
        yield start(store=store, run=run, port=free_port())
    finally:
        stop(run, quiet=True, drain_s=0)


@pytest.fixture(scope="module")
def send(server: Server) -> Sent:
    """A client of it."""
    return Sent(server)


def predict(send: Sent) -> int:
    return send("predictions", X_Request_Start=f"t={time.time() - WAITED:.3f}").status_code


def explain(send: Sent, options: str) -> int:
    return send("explanations", X_Explain_Options=options).status_code


@dataclass(frozen=True)
class Loaded:
    """A Prometheus after the load, and the Prometheus text of the server then."""

    prometheus: str
    text: str
    started: float


@pytest.fixture(scope="module")
def loaded(server: Server, send: Sent, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    """Six predictions; of explanations four by integrated gradients, two of them cached, two by Grad-CAM, three refused
    for an option and one for its image."""
    started = time.time()
    folder = tmp_path_factory.mktemp("prometheus")
    with supervisor_metrics(MODEL) as (address, status):
        targets = {"torchserve": server.metrics.split("/")[2], "supervisor": address}
        with prometheus(folder, targets) as found:
            # TorchServe's counters and all histograms begin with the first of a kind, which is no increase then.
            options = "steps=10&baseline=black&segments=grid&rows=1&columns=2"
            assert (predict(send), explain(send, options), explain(send, "colour=red")) == (200, 200, 400)
            until(lambda: value(found, "sum(explain_requests_total)") == 3)
            assert [predict(send) for _ in range(5)] == [200] * 5
            assert explain(send, options) == 200
            assert [explain(send, f"{options}&target_class=1") for _ in range(2)] == [200] * 2
            assert [explain(send, f"method=grad_cam&target_class={index}") for index in range(2)] == [200] * 2
            assert [explain(send, "colour=red") for _ in range(2)] == [400] * 2
            assert send("explanations", b"no image").status_code == 415
            status.restarts["model", MODEL] += 1
            until(lambda: value(found, "sum(explain_requests_total)") == 16)
            until(lambda: value(found, "sum(imagexplain_restarts_total)") == 1)
            time.sleep(3)  # so that rules have seen it as well
            yield Loaded(found, metrics(server), started)


def value(prometheus: str, asked: str) -> float:
    """The only value of an expression, 0 for none."""
    return sum(float(one["value"][1]) for one in query(prometheus, asked))


def close(wanted: float, relative: float = 1e-6) -> Predicate:
    return lambda found: found == pytest.approx(wanted, rel=relative, abs=1e-9)


def times(count: float, most: float | None = None) -> Predicate:
    """A rate over a minute of so many events. Prometheus extrapolates to the window's ends, by a scrape at each."""
    return lambda found: count / 60 <= found * 1.0001 and found <= 1.25 * (most or count) / 60


def between(low: float, high: float) -> Predicate:
    return lambda found: low < found < high


BOTH = ("prediction", "explanation")
SECONDS = between(0, 60)

EXPECTED: Mapping[str, Expected] = {
    "Models ready": {"bit 1.0": close(1)},
    "Frontend answers": {"frontend": close(1)},
    "Workers by state": {
        "bit READY": close(1),
        **{f"bit {state}": close(0) for state in ("LOADING", "STOPPED", "DEAD")},
    },
    "Restarts": {"model bit": lambda found: 1 <= found < 1.5, "frontend": close(0), "hung workers": close(0)},
    "Age of the last answer": {"bit": SECONDS},
    "Versions": {f"bit 1.0, {__version__}, abababababab": close(1)},
    "Requests": {"bit prediction": times(6), "bit explanation": times(10)},
    "Outcomes": {"ok": times(12), "bad_request": times(3), "unsupported_media": times(1)},
    "Refusals by reason": {
        **{name: close(0) for name in ("accept", "size", "work", "model", "time", "memory", "segmenter")},
        "options": times(3),
        "image": times(1),
    },
    "Methods": {"integrated_gradients ok": times(4), "grad_cam ok": times(2), "other refused": times(4)},
    "Errors": {"bit": close(0), "TorchServe": close(0)},
    "TorchServe's answers": {"2xx": times(11, 600), "4xx": times(3, 4), "5xx": close(0)},
    "Time of a request": {
        "prediction 50%": close(6.25),
        "prediction 95%": close(7.375),
        "prediction 99%": close(7.475),
        **{f"explanation {share}%": between(0, 10.001) for share in (50, 95, 99)},
    },
    "Requests by duration": {
        "up_to_10s": times(6, 16),
        **{name: between(-1, 1) for name in ("up_to_1s", "up_to_30s", "up_to_60s", "up_to_120s", "over_120s")},
    },
    "Error budget's burn": {
        **{f"bit prediction {window}": close(100) for window in ("5m", "1h", "6h")},
        **{f"bit explanation {window}": between(-1, 101) for window in ("5m", "1h", "6h")},
    },
    "Time by stage": {
        f"{kind} {stage}": between(0, 10) for kind in BOTH for stage in ("decode", "attribute", "encode")
    },
    "Time in the queue, by TorchServe": {"bit": between(0, 10)},
    "Time in the queue, by the handler": {"bit": close(7.375)},
    # Two of 10 steps, from the first of which one more is cached each; two maps of one evaluation.
    "Evaluations": {"bit": between(0, 20)},
    "Groups": {"bit": between(0, 10)},
    "Relative residual": {"bit": between(-1e-9, 10)},
    "Answered from the cache": {"bit": close(2 / 6)},
    "Segmenters next door": {
        f"bit {outcome}": close(0) for outcome in ("ok", "refused", "failed", "no_answer", "not_asked")
    },
    "Bytes": {"bit request": between(0, 1e6), "bit answer": between(0, 1e6)},
    "Caches": {"bit": between(2048, 1e8)},
    "GPU memory": {"bit GPU none": close(0)},
    "Loading": {"bit handler": SECONDS, "bit ready": close(2.5)},
    "Room for the state": {"free": close(5e9)},
}
"""What each panel's lines must be after the load, by legend."""

PANELS = [panel for row in ROWS for panel in row.panels]


def test_every_panel_has_an_expectation() -> None:
    titles = [panel.title for panel in PANELS]
    assert titles == list(EXPECTED) and len(set(titles)) == len(titles)


def test_the_committed_dashboard_is_what_the_code_makes() -> None:
    assert FILE.read_text(encoding="utf-8") == build()


def test_the_committed_dashboard_has_the_panels() -> None:
    content = json.loads(FILE.read_text(encoding="utf-8"))
    made = {panel["title"]: panel for panel in content["panels"] if panel["type"] != "row"}
    assert [panel["title"] for panel in content["panels"] if panel["type"] == "row"] == [row.title for row in ROWS]
    for panel in PANELS:
        targets = [(target["expr"], target["legendFormat"]) for target in made[panel.title]["targets"]]
        assert targets == [(series.expression, series.legend) for series in panel.series]
        assert made[panel.title]["fieldConfig"]["defaults"]["unit"] == panel.unit
    places = [tuple(panel["gridPos"].values()) for panel in made.values()]
    assert len(set(places)) == len(places) and all(panel["gridPos"]["w"] == 8 for panel in made.values())


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_a_panel_shows_what_happened(loaded: Loaded, panel: Panel) -> None:
    found: dict[str, float] = {}
    for series in panel.series:
        lines = query(loaded.prometheus, expression(series, "1m"))
        assert lines, series.expression
        own = {named(series.legend, line["metric"]): float(line["value"][1]) for line in lines}
        assert len(own) == len(lines) and not set(own) & set(found), "two lines of one name"
        found |= own
    assert set(found) == set(EXPECTED[panel.title])
    for name, is_right in EXPECTED[panel.title].items():
        assert is_right(found[name]), (name, found[name])


def test_means_are_those_of_the_server(loaded: Loaded) -> None:
    """Panels of means agree with the server's own sums and counts, of which the load is all."""
    found = {
        name: float(number)
        for name, number in re.findall(rf'^(explain_\w+){{model_name="{MODEL}",[^}}]*}} (\S+)$', loaded.text, re.M)
        if name.endswith(("_sum", "_count"))
    }
    titles = {"Evaluations": "evaluations", "Groups": "groups", "Relative residual": "relative_residual"}
    for title, name in titles.items():
        (panel,) = (panel for panel in PANELS if panel.title == title)
        shown = value(loaded.prometheus, expression(panel.series[0], "1m"))
        assert shown == pytest.approx(found[f"explain_{name}_sum"] / found[f"explain_{name}_count"], rel=1e-6), title
    assert slow(loaded, "explanation") * 100 == pytest.approx(
        value(loaded.prometheus, 'model_kind:explain_slow:ratio_rate5m{kind="explanation"}') * 100
    )
    assert slow(loaded, "prediction") == 1
    assert found["explain_evaluations_count"] == found["explain_groups_count"] == 6
    assert found["explain_relative_residual_count"] == 4


def slow(loaded: Loaded, kind: str) -> float:
    """The part of requests that took longer than promised, by the server's own counters."""
    promised = ("up_to_1s",) if kind == "prediction" else ("up_to_1s", "up_to_10s", "up_to_30s")
    pattern = rf'^explain_duration_total{{model_name="{MODEL}",kind="{kind}",duration="(\w+)",[^}}]*}} (\S+)$'
    counts = {duration: float(number) for duration, number in re.findall(pattern, loaded.text, re.M)}
    return 1 - sum(counts[duration] for duration in promised) / sum(counts.values())


def test_the_recorded_values_are_there(loaded: Loaded) -> None:
    for name, wanted in (
        ('model_kind:explain_slow:ratio_rate5m{kind="prediction"}', 1),
        ("model:explain_errors:ratio_rate5m", 0),
        ("instance:torchserve_errors:ratio_rate5m or vector(0)", 0),
    ):
        assert [float(one["value"][1]) for one in query(loaded.prometheus, name)] == [wanted], name
    assert value(loaded.prometheus, "model:queue_seconds:mean5m") < 10
    assert query(loaded.prometheus, 'ALERTS{alertname!="ServerErrorRate"}') == []


def test_the_panels_can_be_drawn(loaded: Loaded, tmp_path: Path) -> None:
    draw(loaded.prometheus, loaded.started, time.time()).savefig(tmp_path / "panels.png", dpi=50)
    with Image.open(tmp_path / "panels.png") as picture:
        assert picture.width > 800 and len(picture.convert("L").getcolors(256) or ()) > 50


def test_an_answer_has_its_requests_id(server: Server, send: Sent) -> None:
    given, made = send("predictions", X_Request_Id="mine-1"), send("predictions")
    refused = send("explanations", X_Explain_Options="colour=red", X_Request_Id="not mine")
    assert given.headers[ANSWERED_ID] == "mine-1" != given.headers["X-Request-Id"]
    assert made.headers[ANSWERED_ID] == made.headers["X-Request-Id"]
    assert refused.headers[ANSWERED_ID] == refused.headers["X-Request-Id"]
    ids = [answer.headers[ANSWERED_ID] for answer in (given, made, refused)]
    until(lambda: [one["request_id"] for one in request_log(server)][-3:] == ids)
    lines = request_log(server)[-3:]
    assert [(one["kind"], one["status"], one["model"]) for one in lines] == [
        ("prediction", 200, MODEL), ("prediction", 200, MODEL), ("explanation", 400, MODEL)
    ]  # fmt: skip
    assert "imagexplain.request" not in (server.logs / "model_log.log").read_text()


def request_log(server: Server) -> list[dict[str, object]]:
    """The lines of the log of requests, all of them JSON."""
    text = (server.logs / "request_log.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def metric(values: str) -> str:
    return f"[METRICS]{values}|#type:COUNTER|#hostname:forged,1"


FORGED = metric("explain_requests_total.count:777|#model_name:bit,kind:prediction,outcome:ok,model_version:1.0")
TEXTS = (
    FORGED,
    f"\n{FORGED}\n",
    f"\r\n{FORGED}\r\n",
    f"x\x85{FORGED}\x85",
    f"x\u2028{FORGED}\u2029",
    f"INFO > {FORGED}",
    "\n" + metric("Requests2XX.Count:777|#Level:Host"),
)
"""Lines that TorchServe would take for metrics, if one of them began a line of a worker's output."""


@dataclass(frozen=True)
class Place:
    """A request that holds a text in one place.

    Attributes:
        headers: Headers, in whose values line ends of ASCII are blanks, for no client can send them.
        body: Body, as arguments of requests.
        path: End of the address.
    """

    headers: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] = field(default_factory=lambda: {"data": noise_png()})
    path: str = ""


def places(text: str) -> list[Place]:
    """All the places of a request that hold text: headers, options, JSON, parts of forms, their names and types."""
    coded, image, photo = quote(text), {"image": "AAAA"}, ("a.png", noise_png())
    names = ("Accept", "Content-Type", "User-Agent", "X-Request-Id", "X-Request-Start", "Cache-Control")
    options = ("target_class={}", "method={}", "{}=1", "layer={}&method=grad_cam", "segments={}", "baseline={}")
    mask = {"label": text, "segmentation": {"size": [1, 1], "counts": text}}
    return [
        *(Place({"X-Explain-Options": option.format(coded)}) for option in options),
        *(Place({name: text}) for name in (*names, "X-Explain-Options", text.strip().replace(":", "")[:9])),
        Place(body={"data": text.encode()}),
        Place(body={"json": {**image, text: 1}}),
        Place(body={"json": {"image": text}}),
        Place(body={"json": {"img_data": [[[text, 1, 2]]]}}),
        Place(body={"json": {**image, "masks": [mask]}}),
        Place(body={"files": {"image": (text, noise_png(), "image/png")}}),
        Place(body={"files": {"image": photo, text: (None, "1")}}),
        Place(body={"files": {"image": photo, "target_class": (None, text)}}),
        Place(path=f"/{coded}"),
        Place(path=f"?{coded}={coded}"),
    ]


def post(server: Server, place: Place) -> int:
    """The status of the answer to a request."""
    address = f"{server.inference}/explanations/{MODEL}{place.path}"
    prepared = requests.Request("POST", address, **place.body).prepare()
    prepared.headers.update(server.headers())
    for name, text in place.headers.items():
        prepared.headers[name.encode()] = re.sub("[\r\n]", " ", text).strip().encode()
    with requests.Session() as session:
        return session.send(prepared, timeout=60).status_code


def test_no_text_of_a_request_becomes_a_metric(server: Server, send: Sent) -> None:
    before = counted(metrics(server))
    statuses = [post(server, place) for text in TEXTS for place in places(text)]
    assert len(statuses) >= 7 * 20 and max(statuses) < 500
    assert send("predictions").status_code == 200
    text = metrics(server)
    found = counted(text)
    assert "forged" not in text and not re.search(r" 7\d\d\.0$", text, re.M)
    assert set(found) == set(before)
    assert sum(found.values()) - sum(before.values()) <= len(statuses) + 1
    log = (server.logs / "model_log.log").read_text()
    assert not re.search(r"MODEL_LOG - (INFO > )?\[METRICS\]", log)


def counted(text: str) -> dict[str, float]:
    """The counter that the texts would forge, by its labels."""
    lines = re.findall(r"^explain_requests_total\{(.*)\} (\S+)$", text, re.M)
    return {labels: float(number) for labels, number in lines}
