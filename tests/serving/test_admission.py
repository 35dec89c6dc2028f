"""What is refused before any work is done for it, and what is kept no longer than needed."""

from __future__ import annotations

import json
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from handlers.classifier import ClassifierHandler
from handlers.segmenter import SegmenterHandler
from imagexplain.api.request import parse
from imagexplain.attribution.config import AttributionConfig, Smoothing
from imagexplain.attribution.runner import seconds_beside
from imagexplain.errors import RequestError
from imagexplain.serving.admission import admit_baseline, seconds_of_instances
from imagexplain.serving.cache import Cache
from imagexplain.serving.deadline import Deadline
from imagexplain.serving.messages import RawRequest
from imagexplain.serving.request_state import RequestState
from imagexplain.vision.detections import Detections
from imagexplain.vision.mask_crops import CroppedMask
from tests.serving.asking import ask, ask_json, base64_png, explain_one, explanation, noise_png, prediction, rle
from tests.serving.fake_torchserve import Context
from tests.serving.handlers import classifier_of, segmenter_of, write_bit, write_tensormask, write_timm
from tests.tensors import unpacked

GZIP, SAFETENSORS, PNG = "application/gzip", "application/x-safetensors", "image/png"
IMAGE = 4 * 3 * 32 * 32
"""Bytes of a model input."""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ClassifierHandler:
    """One whose answers may have eight images' bytes, and which can explain nothing."""

    def broken(*_: Any) -> Any:
        raise AssertionError("the model was evaluated")

    monkeypatch.setattr("imagexplain.serving.worker.integrate_paths", broken)
    return classifier_of(write_bit(tmp_path, limits={"max_response_bytes": 8 * IMAGE}))


@pytest.mark.parametrize("output", ["intermediates", "integrated_directional_grads"])
@pytest.mark.parametrize("accept", [GZIP, SAFETENSORS])
def test_steps_that_no_answer_can_hold(small: ClassifierHandler, output: str, accept: str) -> None:
    (_, fits), context = ask(
        small,
        (explanation(f"steps=60&outputs={output}", accept), noise_png()),
        (explanation(f"steps=60&outputs={output}"), noise_png()),  # JSON holds no tensors
    )
    assert context.statuses == {0: 413, 1: 500}, fits


def test_masks_that_no_answer_can_hold(small: ClassifierHandler) -> None:
    """110 cells of a kilobyte; gzip leaves next to nothing of them."""
    options = {"segments": "grid", "rows": 10, "columns": 11}
    context = Context(headers=[explanation("", accept) for accept in (SAFETENSORS, GZIP)])
    small.handle([{"body": {"image": base64_png(), **options}} for _ in range(2)], context)
    assert context.statuses == {0: 413, 1: 500}


def test_a_table_of_parts_that_no_answer_can_hold(small: ClassifierHandler) -> None:
    """Twenty random masks cut the image into a part for each pixel, each with ten labels."""
    masks = [rle(mask) for mask in np.random.default_rng(0).random((20, 40, 48)) < 0.5]
    ((status, answer),) = ask_json(small, {"masks": masks})
    assert (status, answer["field"]) == (413, "outputs"), answer
    ((status, _),) = ask_json(small, {"masks": masks[:1]})
    assert status == 500


def test_a_refinement_takes_no_more_nodes_than_its_answer_can_hold(tmp_path: Path) -> None:
    handler = classifier_of(write_bit(tmp_path, limits={"max_response_bytes": 12 * IMAGE}))
    asked = "tolerance=1e-6&steps=60&outputs=integrated_directional_grads"
    (body,), context = ask(handler, (explanation(asked, SAFETENSORS), noise_png()))
    assert context.statuses[0] == 200, body
    assert len(body) <= 12 * IMAGE
    (stored,) = (handler.worker.explanations._entries.values(),)
    assert not stored  # not converged: a next try may have more time


def test_draws_share_what_a_refinement_may_keep(handler: ClassifierHandler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagexplain.serving.admission.MOST_BYTES", 30 * IMAGE)
    asked = "tolerance=1e-6&steps=60&outputs=&baseline=uniform&draws={}"
    for draws in (1, 2, 3):
        (body,), context = ask(handler, (explanation(asked.format(draws), GZIP), noise_png()))
        assert context.statuses[0] == 200, body
        assert unpacked(body)["evaluations"] <= 30
    (body,), context = ask(handler, (explanation(asked.format(7), GZIP), noise_png()))
    assert context.statuses[0] == 413 and b"at most 6 draws" in body


@pytest.mark.parametrize(
    ("options", "size", "field"),
    [
        ("baseline=uniform&draws=64", (1500, 2000), "draws"),
        ("baseline=blur&blur=0.5", (30_000, 30_000), "baseline"),
    ],
)
def test_baselines_that_take_too_much(options: str, size: tuple[int, int], field: str) -> None:
    headers = {"x-explain-options": options}
    request = parse({"body": noise_png()}, headers, kind="explanation")
    deadline = Deadline.starting_now(96, 0.01)
    admit_baseline(request, (500, 600), deadline)
    with pytest.raises(RequestError) as refused:
        admit_baseline(request, size, deadline)
    assert (refused.value.status, refused.value.field) == (413, field)


def test_several_draws_have_no_steps(handler: ClassifierHandler) -> None:
    """Of two paths the first one's steps alone would come back."""
    one_draw = np.zeros((3, 32, 32)).tolist()
    for draws, status in ((one_draw, 200), ([one_draw], 200), ([one_draw] * 2, 400)):
        body = {"baseline": "tensor", "baseline_tensor": draws, "outputs": ["step_sizes"], "steps": 2}
        ((got, answer),) = ask_json(handler, body)
        assert got == status, answer
    assert answer["field"] == "outputs" and "2 draws" in answer["message"]


def test_steps_are_kept_only_for_an_answer_that_holds_them(handler: ClassifierHandler) -> None:
    ask(handler, (explanation("steps=9&outputs=intermediates"), noise_png()))
    assert handler.worker.explanations.bytes == 2 * IMAGE
    ask(handler, (explanation("steps=9&outputs=intermediates", GZIP), noise_png()))
    assert handler.worker.explanations.bytes > (2 + 2 + 2 * 9) * IMAGE


def test_a_refusal_holds_nothing_of_what_was_computed() -> None:
    class Large:
        pass

    seen: list[weakref.ref[Large]] = []

    def work() -> None:
        large = Large()
        seen.append(weakref.ref(large))
        raise RequestError(413, "outputs", "too large")

    state = RequestState(RawRequest({}, {}, "explanation"))
    with state.stage("encode"):
        work()
    assert state.failure is not None and state.failure.message == "too large"
    assert seen[0]() is None


def test_scores_count_what_they_take(handler: ClassifierHandler) -> None:
    """Ten scores are 40 bytes, and with their key and place a thousand; the batch's others do not stay with them."""
    ask(handler, *((prediction(), noise_png(seed)) for seed in range(4)))
    assert handler.worker.task.scores.bytes >= 4 * 1000
    assert {scores.untyped_storage().nbytes() for scores, _ in handler.worker.task.scores._entries.values()} == {40}


def test_a_view_counts_as_what_it_keeps_alive() -> None:
    cache = Cache[torch.Tensor](1_000_000)
    cache.put("row", torch.zeros(100, 1000)[0])
    assert cache.bytes == 400_000


def test_a_picture_needs_no_other_answer(handler: ClassifierHandler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagexplain.serving.worker.response_payload", None)
    _, context = ask(handler, (explanation("steps=2&segments=grid", PNG), noise_png()))
    assert context.statuses[0] == 200


def test_cheap_methods_make_no_room_for_dear_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimated far too slow, occlusion turns out quick: nothing follows for RISE."""
    handler = classifier_of(write_timm(tmp_path, "resnet"))
    monkeypatch.setattr(handler.worker.task, "seconds_per_point", 0.05)  # 96 of the 120 seconds are the deadline
    for size in range(8, 14):
        assert explain_one(handler, f"method=occlusion&stride=2&size={size}")[0] == 200
    assert explain_one(handler, "method=rise&samples=6000")[0] == 413
    facts = handler.worker.task.model.facts
    assert facts.cost_ratio_of("occlusion") < 1 == facts.cost_ratio_of("rise")


def test_maps_tell_nothing_of_a_segmenters_path(tmp_path: Path) -> None:
    handler = segmenter_of(write_tensormask(tmp_path))
    context = Context(headers=[explanation("method=smoothgrad&samples=25")])
    handler.handle([{"body": bytearray(noise_png())}], context)
    assert context.statuses[0] == 200
    assert handler.worker.task.seconds_per_pixel == 0
    assert set(handler.worker.task.facts.map_cost_ratio) == {("smoothgrad", None)}


def test_seconds_beside_the_model_by_hand() -> None:
    shap = AttributionConfig(("kernel_shap",), (("samples", 20_000),))
    # 20,000 × 500 members at 1,000 operations, and (20,000 + 20 · 500) · 500² of the regression, each 0.1 ns.
    assert seconds_beside(shap, (224, 224), groups=500) == pytest.approx(1.0 + 0.75)
    assert seconds_beside(shap, (224, 224), groups=500, draws=3) == pytest.approx(5.25)
    assert seconds_beside(shap, (224, 224), groups=2) < 1e-3  # two coalitions
    assert seconds_beside(AttributionConfig(("gradient",)), (224, 224)) == 0
    # 100 steps of two blurs, each of three channels by two matrices, in multiplications and additions.
    blur = AttributionConfig(("blur_ig",), (("steps", 100),))
    assert seconds_beside(blur, (100, 200)) == pytest.approx(100 * 2 * 3 * 2 * 100 * 200 * 300 * 1e-10)
    # 1.5 s for six segmentations and 8 µs for a pixel, once for each noisy copy.
    xrai = AttributionConfig(("xrai",), (("steps", 1),))
    assert seconds_beside(xrai, (1000, 2000)) == pytest.approx(1.5 + 16)
    assert seconds_beside(replace(xrai, smoothing=Smoothing(samples=3)), (1000, 2000)) == pytest.approx(52.5)


def instances(*sides: tuple[int, int], photo: tuple[int, int] = (100, 200)) -> Detections:
    """Instances with masks of these heights and widths."""
    count = len(sides)
    cut_outs = tuple(CroppedMask(np.ones(side, dtype=np.bool_), (0, 0)) for side in sides)
    classes = torch.zeros(count, dtype=torch.int64)
    return Detections(torch.zeros(count, 4), torch.ones(count), classes, cut_outs, photo, torch.zeros(count, 4))


def test_seconds_of_instances_by_hand() -> None:
    found = instances((100, 200), (10, 20))  # 20,200 pixels over a photo of 20,000
    assert seconds_of_instances(found, PNG) == pytest.approx(20_000 * 1e-6 + 20_200 * 6e-8)
    assert seconds_of_instances(found, "application/json") == pytest.approx(20_200 * 2e-8)
    assert seconds_of_instances(found, SAFETENSORS) == seconds_of_instances(instances(), "application/json") == 0


@pytest.mark.parametrize("accept", [PNG, "application/json"])
def test_instances_that_there_is_no_time_to_draw_or_to_list(
    segmenter: SegmenterHandler, accept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it takes an hour for a pixel of a mask; the masks alone take none."""
    monkeypatch.setattr("imagexplain.serving.admission.SECONDS_PER_MASK_PIXEL", {accept: 3600.0})
    monkeypatch.setattr("imagexplain.serving.tasks.segmenter.drawn", None)
    monkeypatch.setattr("imagexplain.serving.tasks.segmenter.rle.write", None)
    (body,), context = ask_segmenter(segmenter, accept)
    answer = json.loads(body)
    assert (context.statuses[0], answer["field"]) == (413, "accept"), answer
    _, context = ask_segmenter(segmenter, SAFETENSORS)
    assert context.statuses[0] == 200


def test_masks_of_too_many_pixels_are_refused_before_they_are_made(
    segmenter: SegmenterHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagexplain.vision.mask_crops.MOST_PIXELS", 1000)
    (body,), context = ask_segmenter(segmenter, SAFETENSORS)
    answer = json.loads(body)
    assert (context.statuses[0], answer["field"]) == (413, "threshold"), answer
    assert "wanted masks of at most 1,000 pixels in all, got " in answer["message"]
    _, context = ask_segmenter(segmenter, SAFETENSORS, "threshold=1")  # nothing is found
    assert context.statuses[0] == 200


def test_nothing_is_made_for_an_instance_that_is_not_there(
    segmenter: SegmenterHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Superpixels of a large photo take half a minute."""
    monkeypatch.setattr("imagexplain.serving.worker.prepare_request", None)
    context = Context(headers=[explanation("threshold=1&segments=slic")])
    (body,) = segmenter.handle([{"body": bytearray(noise_png())}], context)
    assert (context.statuses[0], json.loads(body)["field"]) == (422, "threshold")


def ask_segmenter(handler: SegmenterHandler, accept: str, options: str = "") -> tuple[list[bytes], Context]:
    """A prediction, of which nothing is remembered."""
    headers = {"Accept": accept, "Cache-Control": "no-cache", "X-Explain-Options": options}
    context = Context(headers=[headers])
    return handler.handle([{"body": bytearray(noise_png())}], context), context
