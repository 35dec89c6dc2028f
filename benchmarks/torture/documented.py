"""Requests that schemathesis makes of the service's own OpenAPI document."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagexplain.api.openapi import FORM, document
from imagexplain.cli.openapi import chosen, described
from imagexplain.ops.store import stored

NOT_HELD = ("positive_data_acceptance", "ignored_auth", "unsupported_method")
"""Checks of what a document cannot say (which options go together), and of what tests of the front door see to."""

SETTINGS = Path(__file__).with_name("schemathesis.toml")


@dataclass(frozen=True)
class Fuzzed:
    """Outcome of a run.

    Attributes:
        sent: Number of requests.
        fine: Number of those whose answers the document allows; 0 where any is not.
        said: Report of schemathesis.
    """

    sent: int
    fine: int
    said: str


def explanations_document(store: Path, models: Sequence[str], *, query: bool) -> dict[str, Any]:
    """The OpenAPI document of predictions and explanations, as far as TorchServe itself can keep to it.

    Args:
        store: Directory of the archives.
        models: Names of the models to describe.
        query: Truth of the front door being asked, which takes options from the query string; TorchServe drops them.
    """
    made = document(described(chosen(stored(store), list(models))))
    made["paths"] = {path: own for path, own in made["paths"].items() if path.startswith(("/pred", "/expl"))}
    for own in made["paths"].values():
        if not query:
            own["parameters"] = [each for each in own["parameters"] if each.get("in") != "query"]
        for method in ("post", "put"):  # TorchServe has an error 500 of its own for a form whose names it cannot read
            own[method]["requestBody"]["content"].pop(FORM, None)
    return made


def fuzz(
    described: dict[str, Any], url: str, key: str, folder: Path, *, examples: int, certificate: str | None = None
) -> Fuzzed:
    """Send what a document allows and what it forbids, and hold the answers to it.

    Args:
        described: OpenAPI document.
        url: Address of the service.
        key: Key of the client.
        folder: Directory for files.
        examples: Largest number of requests for each operation in each of two phases.
        certificate: File of the certificate to believe.

    Raises:
        RuntimeError: schemathesis made no report.
    """
    file = folder / "openapi.json"
    file.write_text(json.dumps(described), encoding="utf-8")
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(SETTINGS), "run", str(file)),
        *("--url", url, "--header", f"Authorization: Bearer {key}", "--exclude-checks", ",".join(NOT_HELD)),
        *("--phases", "examples,fuzzing", "--max-examples", str(examples), "--seed", "1"),
        *("--suppress-health-check", "all", "--generation-database", "none", "--no-color", "--warnings", "off"),
        *(("--tls-verify", certificate) if certificate else ()),
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    sent, fine = re.search(r"(\d+) generated", said), re.search(r"generated, (\d+) passed", said)
    if sent is None:
        raise RuntimeError(f"schemathesis made no report: {said[-2000:]}")
    return Fuzzed(int(sent[1]), int(fine[1]) if fine else 0, said)  # it tells those that passed where all did
