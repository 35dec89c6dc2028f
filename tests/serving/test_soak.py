"""What only many requests show. Not part of the default run: ``pytest -m soak``."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import torch

from handlers.classifier import ClassifierHandler
from tests.serving.fake_torchserve import Context
from tests.serving.test_classifier import explanation, png, write_model

REQUESTS = 500
SETTLED = 100
"""Requests after which allocator and caches have their size."""


@pytest.mark.soak
def test_memory_stays_flat_over_hundreds_of_explanations(tmp_path: Path) -> None:
    """Every image is another one, so that the cache fills and forgets; every fifth request keeps its steps."""
    handler = ClassifierHandler()
    limits = {"cache_bytes": 2_000_000}
    handler.initialize(Context(model_dir=write_model(tmp_path, limits=limits)))
    before = {name: tensor.clone() for name, tensor in handler.model.network.state_dict().items()}
    resident = []
    for number in range(REQUESTS):
        options = "segments=slic&steps=20" if number % 5 else "segments=grid&steps=50&outputs=intermediates"
        accept = ("application/json", "application/gzip", "image/png")[number % 3]
        context = Context(headers=[explanation(options, accept)])
        handler.handle([{"body": bytearray(png(number))}], context)
        assert context.statuses[0] == 200
        resident.append(psutil.Process().memory_info().rss)
    early, late = max(resident[:SETTLED]), max(resident[-SETTLED:])
    assert late < 1.03 * early, f"{early / 1e6:.0f} MB, later {late / 1e6:.0f} MB"
    after = handler.model.network.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert not any(parameter.requires_grad for parameter in handler.model.network.parameters())
