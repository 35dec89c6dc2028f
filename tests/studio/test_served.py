"""The studio's core before the served models, by way of its own server, and the lines that reproduce an answer."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from imagexplain.api.schema import PathExplanation
from imagexplain.attribution.registry import METHODS
from imagexplain.checkout import ROOT
from imagexplain.cli.studio import document_of
from imagexplain.ops.studio import Settings, StudioServer, serving
from tests.conftest import Served
from tests.studio.browser import Modules

EXAMPLE = ROOT / "studio" / "examples" / "scene.jpg"
IMPORT = """async (given) => {
    const {Service} = await import("/studio/core/service.js");
    const groups = await import("/studio/core/groups.js");
    const photo = await (await fetch("/studio/examples/scene.jpg")).blob();
    const service = new Service({key: given.key});
    CODE
}"""


@pytest.fixture(scope="module")
def studio(served: Served) -> Iterator[StudioServer]:
    """The studio's server before the served archives."""
    with serving(Settings(ROOT / "studio", Path(served.server.run), document_of)) as server:
        yield server


@pytest.fixture(scope="module")
def page(browser: Browser, studio: StudioServer) -> Page:
    """A page of its origin, under its policy."""
    opened = browser.new_page()
    opened.goto(f"{studio.url}/livez")
    return opened


def run(page: Page, studio: StudioServer, code: str, **given: Any) -> Any:
    return page.evaluate(IMPORT.replace("CODE", code), {"key": studio.settings.key, **given})


def test_the_models_that_are_served(served: Served, page: Page, studio: StudioServer) -> None:
    models = {model["name"]: model for model in run(page, studio, "return service.models();")}
    assert {name.partition("/")[0] for name in models} == {name.partition("/")[0] for name in served.server.models}
    assert len(models["imagenet"]["labels"]) == 1000 and "star" in models["bit"]["labels"]
    assert "grad_cam" in models["resnet"]["methods"] and "attention_rollout" not in models["resnet"]["methods"]
    assert "attention_rollout" in models["vit"]["methods"]
    kinds = {name: models[name]["kind"] for name in ("bit", "swin", "captioner")}
    assert kinds == {"bit": "classifier", "swin": "segmenter", "captioner": "captioner"}
    ready = run(page, studio, "return service.readiness();")
    assert ready["ready"] and ready["models"].keys() == {*served.server.models}


def test_controls_of_every_served_method(page: Page, studio: StudioServer) -> None:
    code = """
    const {controls} = await import("/studio/core/options.js");
    const document = await service.document();
    return (await service.models()).map(({name, kind, methods}) => [name, kind, Object.fromEntries(
        (kind === "captioner" ? [null] : methods).map((method) => [method, controls(document, name, method)]))]);
    """
    for name, kind, found in run(page, studio, code):
        assert found, name
        for method, all_controls in found.items():
            controls = {control["name"]: control for control in all_controls}
            assert not any(control["part"] == "other" or not control["help"] for control in all_controls)
            if kind != "captioner":
                taken = {"quadrature" if option == "rule" else option for option in METHODS[method].options}
                assert taken <= controls.keys() and {"target_class", "segments", "picture"} <= controls.keys()
                assert {"swin", "tensormask"} <= {*controls["segments"]["choices"]}


def test_an_explanation_and_what_its_table_foretells(served: Served, page: Page, studio: StudioServer) -> None:
    code = """
    const options = {segments: "grid", rows: 2, columns: 2, steps: 30, baseline: "black", outputs: ["photo_masks"]};
    const found = await service.explain("bit", photo, options);
    const absent = [0, 2];
    const without = await service.predict("bit", photo, {segments: "grid", rows: 2, columns: 2, baseline: "black",
        target_class: found.summary.target_class, absent});
    return {summary: found.summary, shapes: Object.fromEntries(Object.entries(found.tensors).map(
        ([name, tensor]) => [name, tensor.shape])), map: Array.from(found.tensors.integrated_grads.data),
        foretold: groups.foretold(found.summary, new Set(absent)), without};
    """
    found = run(page, studio, code)
    summary, shapes = found["summary"], found["shapes"]
    own = served.client.explain(EXAMPLE, "bit", segments="grid", rows=2, columns=2, steps=30, baseline="black")
    assert isinstance(own.summary, PathExplanation) and summary["score"] == pytest.approx(own.summary.score)
    np.testing.assert_allclose(np.ravel(own.tensors["integrated_grads"]), found["map"], atol=1e-5)
    assert summary["frame"]["photo"] == shapes["photo_label_map"] == [360, 480]
    carried = sum(summary["groups"][row]["attribution"] for row in (0, 2))
    assert found["foretold"] == pytest.approx(summary["score"] - carried)
    assert found["without"]["absent"] == [0, 2] and found["without"]["targets"]


def test_errors_and_an_end_before_the_answer(page: Page, studio: StudioServer) -> None:
    code = """
    const told = (asked) => asked.then(() => "answered", (error) => [error.name, error.status, error.field]);
    const stopped = new AbortController();
    const slow = told(service.explain("lanet", photo, {method: "rise"}, {signal: stopped.signal, fresh: true}));
    setTimeout(() => stopped.abort(), 200);
    return [
        await told(service.predict("none", photo)),
        await told(service.explain("bit", photo, {steps: 0})),
        await told(service.explain("bit", photo, {target_class: "no such class"})),
        await told(new Service({key: "other"}).predict("bit", photo)),
        (await slow)[0],
    ];
    """
    assert run(page, studio, code) == [
        ["ServiceError", 404, "path"],
        ["ServiceError", 400, "steps"],
        ["ServiceError", 422, "target_class"],
        ["ServiceError", 401, "authorization"],
        "AbortError",
    ]


def score_of(answer: Any) -> float:
    """The score of the first class that an answer has."""
    if "predictions" in answer:
        return float(answer["predictions"][0]["score"])
    return float(answer.get("explanations", [answer])[0]["score"])


def test_the_lines_reproduce_an_answer(core: Modules, studio: StudioServer, tmp_path: Path) -> None:
    photo = "it's my; photo.jpg"
    shutil.copy(EXAMPLE, tmp_path / photo)
    shutil.copy(EXAMPLE, tmp_path / "second.jpg")
    runs = {"size": [360, 480], "counts": [86400, 43200, 43200]}
    masks = [{**runs, "label": f"half, \u201cno. {index}\u201d '" + "x" * 100} for index in range(40)]
    file = "new File([new Uint8Array(3)], 'second.jpg')"
    environment = {**os.environ, "KEY": studio.settings.key, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    asked: list[tuple[str, dict[str, Any], str]] = [
        ("prediction", {}, ""),
        ("explanation", {"steps": 8, "segments": "grid", "target_class": "star", "pixels": False}, ""),
        ("explanation", {"steps": 4, "masks": masks, "target_class": ["star", 2]}, ""),
        ("explanation", {"steps": 4, "baseline": "image"}, file),
    ]
    for endpoint, options, baseline in asked:
        given = {"base": studio.url, "endpoint": endpoint, "model": "bit", "options": options, "photo": photo}
        code = "const request = {...a[0], accept: 'application/json'};"
        code += f"request.options.baseline_image = {baseline};" if baseline else ""
        line, lines = core.run("snippets", f"{code} return [m.curl(request), m.python(request)];", given)
        done = subprocess.run(["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, timeout=60)
        assert done.returncode == 0, (line, done.stderr)
        answer = json.loads(done.stdout)
        assert len(answer.get("explanations", [{}])[0].get("merged", [])) == (39 if "masks" in options else 0)
        typed = "answer" if endpoint == "prediction" else "answer.summary"
        written = f"{lines}import msgspec\nprint(msgspec.json.encode({typed}).decode())"
        command = [sys.executable, "-c", written]
        python = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
        assert python.returncode == 0, (lines, python.stderr)
        assert score_of(json.loads(python.stdout.splitlines()[-1])) == pytest.approx(score_of(answer))
