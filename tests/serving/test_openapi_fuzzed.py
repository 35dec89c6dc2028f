"""Requests that schemathesis makes of the OpenAPI document, to a real server."""

from __future__ import annotations

from pathlib import Path

from benchmarks.torture.documented import explanations_document, fuzz
from tests.conftest import Served


def test_no_request_of_the_documents_breaks_it(served: Served, model_store: Path, tmp_path: Path) -> None:
    described = explanations_document(model_store, ["bit", "captioner"], query=False)
    key = served.server.headers()["Authorization"].removeprefix("Bearer ")
    found = fuzz(described, served.server.inference, key, tmp_path, examples=13)
    assert found.fine == found.sent >= 100, found.said[-5000:]
