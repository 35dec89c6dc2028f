"""What only many requests show. Not part of the default run: ``pytest -m soak``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import psutil
import pytest
import torch

from imagexplain.serving.cache import Cache
from tests.serving.asking import explanation, noise_png
from tests.serving.fake_torchserve import Context
from tests.serving.handlers import classifier_of, write_bit, write_timm

REQUESTS = 500
SETTLED = 100
"""Requests after which allocator and caches have their size."""


@pytest.mark.soak
def test_memory_stays_flat_over_hundreds_of_explanations(tmp_path: Path) -> None:
    """Every image is another one, so that the cache fills and forgets; every fifth request keeps its steps."""
    handler = classifier_of(write_bit(tmp_path, limits={"cache_bytes": 2_000_000}))
    before = {name: tensor.clone() for name, tensor in handler.worker.task.model.network.state_dict().items()}
    resident = []
    for number in range(REQUESTS):
        options = "segments=slic&steps=20" if number % 5 else "segments=grid&steps=50&outputs=intermediates"
        accept = ("application/json", "application/gzip", "image/png")[number % 3]
        context = Context(headers=[explanation(options, accept)])
        handler.handle([{"body": bytearray(noise_png(number))}], context)
        assert context.statuses[0] == 200
        resident.append(psutil.Process().memory_info().rss)
    early, late = max(resident[:SETTLED]), max(resident[-SETTLED:])
    assert late < 1.03 * early, f"{early / 1e6:.0f} MB, later {late / 1e6:.0f} MB"
    after = handler.worker.task.model.network.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert not any(parameter.requires_grad for parameter in handler.worker.task.model.network.parameters())


MIXED = (
    "method=gradient",
    "method=grad_cam",
    "method=score_cam",
    "method=ablation_cam",
    "method=full_grad",
    "method=deep_lift",
    "method=guided_grad_cam&segments=slic",
    "method=blur_ig&steps=8",
    "method=guided_ig&steps=8",
    "method=expected_gradients&samples=8",
    "method=kernel_shap&samples=40",
    "method=rise&samples=40",
    "method=xrai&steps=5",
    "combine=idgi,layer_cam&steps=8",
    'method=input_x_gradient&smooth={"samples":4}',
    "method=attention_rollout",
    "method=grad_cam&layer=nowhere",
    "steps=20&segments=slic",
)
"""Every family, and two that are refused."""
REFUSED = 2


@pytest.mark.soak
def test_memory_stays_flat_over_hundreds_of_methods(tmp_path: Path) -> None:
    """In batches of three, every image another one."""
    handler = classifier_of(write_timm(tmp_path, "resnet"))
    handler.worker.explanations = Cache(200_000)
    resident, statuses, hooks = [], Counter[int](), handler.worker.task.model.original_network()
    for number in range(0, REQUESTS, 3):
        asked = [explanation(MIXED[(number + place) % len(MIXED)], "application/gzip") for place in range(3)]
        context = Context(headers=asked)
        handler.handle([{"body": bytearray(noise_png(number + place))} for place in range(3)], context)
        statuses.update(context.statuses.values())
        resident.append(psutil.Process().memory_info().rss)
    assert set(statuses) == {200, 400, 422}
    assert statuses[200] >= REQUESTS * (1 - REFUSED / len(MIXED)) - len(MIXED)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in hooks.modules())
    early, late = max(resident[: SETTLED // 3]), max(resident[-SETTLED // 3 :])
    assert late < 1.03 * early, f"{early / 1e6:.0f} MB, later {late / 1e6:.0f} MB"
