"""The lists of models and of methods: of a store, of a running server, and of an OpenAPI document."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from imagexplain.api.openapi import document
from imagexplain.attribution.registry import METHODS
from imagexplain.cli import methods, models
from imagexplain.cli.models import ListedModel, of_document
from imagexplain.cli.openapi import interfaces
from imagexplain.ops.check_archive import check
from imagexplain.ops.store import stored
from tests.conftest import Served


def printed(capsys: pytest.CaptureFixture[str], command: Any, *arguments: str) -> dict[str, dict[str, Any]]:
    """Rows of a list as JSON, by their first entry."""
    assert command.main([*arguments, "--json"]) == 0
    return {next(iter(row.values())): row for row in json.loads(capsys.readouterr().out)}


def test_the_served_models_and_what_they_support(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["--run", served.server.run]
    found = printed(capsys, models, *run)
    assert found.keys() == set(served.server.models)
    assert {model["state"] for model in found.values()} == {"READY"}
    assert all(model["workers"] == ["READY"] for model in found.values())
    imagenet = found["imagenet"]
    assert (imagenet["kind"], imagenet["input"], imagenet["labels"]) == ("classifier", "224×224", 1000)
    assert (found["swin"]["kind"], found["captioner"]["kind"]) == ("segmenter", "captioner")

    of_bit = printed(capsys, methods, "--model", "bit", *run)
    assert of_bit.keys() == METHODS.keys()
    assert of_bit["grad_cam"]["supported"] and of_bit["grad_cam"]["reason"] is None
    refused = of_bit["attention_rollout"]
    assert not refused["supported"] and "attention" in refused["reason"]
    assert not refused["reason"].startswith("needs"), "the server's own words"

    assert models.main(run) == methods.main(["--model", "vit", *run]) == 0
    told = capsys.readouterr().out
    assert told.startswith("model ") and "imagenet         1.0      classifier  READY" in told
    assert "attention_rollout" in told.partition("not supported:")[0]
    assert methods.main(["--model", "vitt", *run]) == 1
    assert "vit" in capsys.readouterr().err


def test_a_store_that_nobody_serves(model_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--run", str(tmp_path), "--store", str(model_store)]
    assert {model["state"] for model in printed(capsys, models, *place).values()} == {"not served"}
    reason = printed(capsys, methods, "--model", "bit", *place)["attention_rollout"]["reason"]
    assert reason == "needs gradients, layers, attention"


def test_a_document_has_the_methods_of_each_model(model_store: Path) -> None:
    """As a front door gives it."""
    known = stored(model_store)
    found = of_document(document(interfaces(model_store)), {"models": {"bit": "LOADING"}})
    by_name = {model.model: model for model in found}
    assert by_name.keys() == {model.spec.name for model in known}
    for model in known:
        one = by_name[model.spec.name]
        assert (one.kind, one.description) == (model.spec.handler, model.spec.description)
        assert one.state == ("LOADING" if one.model == "bit" else None)
        if one.kind != "captioner":
            assert (one.methods, one.method) == (model.methods, model.spec.explain.method)


def test_the_list_of_a_front_door(capsys: pytest.CaptureFixture[str]) -> None:
    answers = {"/openapi.json": (200, document([])), "/readyz": (503, {"message": "none"})}

    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, {"message": "no such path"}))
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Door) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        assert printed(capsys, models, "--url", f"{url}/") == {}
        answers.clear()
        assert models.main(["--url", url]) == 1
        assert f"error: {url}: wanted an OpenAPI document, which a front door has" in capsys.readouterr().err
        server.shutdown()
    assert models.main(["--url", url]) == 1
    assert "error: " in capsys.readouterr().err


def test_the_cost_of_a_method_is_that_of_the_registry(capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, methods)
    assert (found["rise"]["forward_passes"], found["rise"]["gradient_passes"]) == (4000, 0)
    assert (found["smoothgrad"]["gradient_passes"], found["score_cam"]["by_channel"]) == (25, True)
    assert found["kernel_shap"]["takes"] == ["groups", "baseline"]
    families = [row["family"] for row in found.values()]
    assert families == sorted(families, key=families.index), "family by family"


def test_a_model_that_says_nothing_of_methods() -> None:
    assert all(
        method.supported is None for method in methods.of_model(methods.known(), ListedModel("x"), lambda _: None)
    )


def test_the_archives_of_this_repository_are_whole(model_store: Path) -> None:
    found = sorted(model_store.glob("*.mar"))
    assert [check(path) for path in found] == [(path.stem, "1.0") for path in found]
