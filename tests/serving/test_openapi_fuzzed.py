"""Requests that schemathesis makes of the OpenAPI document, to a real server."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from imagexplain.api.openapi import FORM, document
from imagexplain.cli.openapi import addressed, chosen, specs_of
from imagexplain.serving.interface import interface_of
from tests.conftest import Served

NOT_HELD = ("positive_data_acceptance", "ignored_auth", "unsupported_method")
"""Checks of what a document cannot say (which options go together), and of what the front door sees to, not
TorchServe: keys and methods."""

SETTINGS = Path(__file__).with_name("schemathesis.toml")

EXAMPLES = 13
"""Requests for each operation in each of two phases, at most."""


def test_no_request_of_the_documents_breaks_it(served: Served, model_store: Path, tmp_path: Path) -> None:
    models = addressed(chosen(specs_of(model_store), ["bit", "captioner"]))
    made = document([interface_of(spec, address) for address, spec in models.items()])
    made["paths"] = {path: own for path, own in made["paths"].items() if path.startswith(("/pred", "/expl"))}
    for own in made["paths"].values():  # TorchServe drops the query, which the front door makes a header of
        own["parameters"] = [each for each in own["parameters"] if each.get("in") != "query"]
        for method in ("post", "put"):  # and has an error 500 of its own for a form whose names it cannot read
            own[method]["requestBody"]["content"].pop(FORM, None)
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(made), encoding="utf-8")
    key = served.server.headers()["Authorization"]
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(SETTINGS), "run", str(file)),
        *("--url", served.server.inference),
        *("--header", f"Authorization: {key}", "--exclude-checks", ",".join(NOT_HELD)),
        *("--phases", "examples,fuzzing", "--max-examples", str(EXAMPLES), "--seed", "1"),
        *("--suppress-health-check", "all", "--generation-database", "none", "--no-color", "--warnings", "off"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    found = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert found is not None and found[1] == found[2] and int(found[1]) >= 100, done.stdout[-2000:]
