"""Captions under graphs over a captioner's handler, and what it refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handlers.captioner import CaptionerHandler
from imagexplain.models.captioners.graph_tensors import graph_tensors, lay_out
from imagexplain.models.captioners.search import search
from imagexplain.serving.cache import Cache
from imagexplain.vision import scene_graph
from tests.serving.asking import noise_png
from tests.serving.captions import BOXES, GRAPH, ask_many, in_form, predicted, refused, words_of
from tests.serving.fake_torchserve import Context
from tests.serving.handlers import CAPTION_WIDTH, CAPTION_WORDS, captioner_of, seeded_captioner, write_captioner
from tests.tensors import unpacked

REGION_FORM = {
    "objects": [
        {"object_id": 7, "name": "star", "attributes": ["red"], "x": 2, "y": 2, "w": 20, "h": 20},
        {"object_id": "b", "name": "ring", "attributes": ["", "big"], "x": 20, "y": 10, "w": 20, "h": 24},
    ],
    "relationships": [{"relationship_id": 1, "name": "holding", "subject_id": 7, "object_id": "b"}],
    "phrase": "a red star",
}
"""GRAPH with other names and identifiers."""


@pytest.fixture(scope="module")
def handler(captioner: CaptionerHandler) -> CaptionerHandler:
    return captioner


@pytest.fixture(scope="module")
def featureless(tmp_path_factory: pytest.TempPathFactory) -> CaptionerHandler:
    """A captioner that makes no features."""
    return captioner_of(write_captioner(tmp_path_factory.mktemp("featureless"), extractor=False))


def features(rows: int = 6, width: int = CAPTION_WIDTH, seed: int = 0) -> dict[str, Any]:
    """Random features of as many regions, without their boxes."""
    torch.manual_seed(seed)
    return {"image": torch.randn(CAPTION_WIDTH).tolist(), "regions": torch.randn(rows, width).tolist()}


def test_a_graphs_caption_and_what_led_to_it(handler: CaptionerHandler) -> None:
    found = predicted(handler, beams=3, n_best=2)
    assert [node["role"] for node in found["nodes"]] == [
        *("object", "attribute", "object", "attribute", "attribute", "relationship")
    ]
    assert found["nodes"][1] == {"role": "attribute", "name": "red", "box": BOXES[0], "object_id": 0, "order": 1}
    assert found["nodes"][5] == {
        "role": "relationship",
        "name": "left of",
        "box": [2, 2, 38, 32],
        "subject_id": 0,
        "object_id": 1,
    }
    assert found["dropped"] == [] and found["tokens"]
    for token in found["tokens"]:
        assert len(token["attention"]) == 6 and sum(token["attention"]) == pytest.approx(1, abs=1e-5)
        assert 0 <= token["beta"] <= 1 and sum(token["flow_gate"].values()) == pytest.approx(1, abs=1e-5)
    first, second = found["n_best"]
    assert first["caption"] == found["caption"] and first["mean_log_probability"] >= second["mean_log_probability"]
    for one in found["n_best"]:
        each = [token["log_probability"] for token in one["tokens"]]
        assert one["log_probability"] == pytest.approx(sum(each))
        assert one["mean_log_probability"] == pytest.approx(sum(each) / len(each))
        assert one["ended"] == (one["tokens"][-1]["word"] == "<EOS>")


def test_precomputed_features_give_the_captions_of_the_network_alone(featureless: CaptionerHandler) -> None:
    given = features()
    found = predicted(featureless, features=given, image=None, n_best=3)
    graph = graph_tensors([lay_out(scene_graph.read(GRAPH))])
    network = seeded_captioner()
    encoded = network.encode(torch.tensor([given["regions"]]), torch.tensor([given["image"]]), graph)
    (wanted,) = search(network, encoded, 3, 8)
    assert [one["log_probability"] for one in found["n_best"]] == pytest.approx(
        [one.log_probability for one in wanted], rel=1e-5
    )
    assert words_of(found) == [CAPTION_WORDS[word] for word in wanted[0].words]


def test_names_and_identifiers_do_not_reach_the_model(handler: CaptionerHandler) -> None:
    plain, named = predicted(handler), predicted(handler, REGION_FORM)
    assert named["tokens"] == plain["tokens"]
    assert named["nodes"][4]["name"] == "big" and named["nodes"][2]["object_id"] == "b"


def test_several_graphs_each_as_if_alone(handler: CaptionerHandler) -> None:
    small = {"objects": [{"box": BOXES[1]}]}
    body: dict[str, Any] = {"graphs": {"12": GRAPH, "a region": small}}
    ((status, answer),) = ask_many(handler, ("prediction", body), **{"Cache-Control": "no-cache"})
    assert status == 200
    found = json.loads(answer)["graphs"]
    assert [one["graph"] for one in found] == ["12", "a region"]
    for one, graph in zip(found, (GRAPH, small), strict=True):
        alone = predicted(handler, graph)
        assert alone["caption"] == one["caption"]
        assert alone["log_probability"] == pytest.approx(one["log_probability"], rel=1e-5)


def test_a_limit_says_what_it_drops(handler: CaptionerHandler) -> None:
    found = predicted(handler, node_limit=2)
    assert len(found["nodes"]) == len(found["tokens"][0]["attention"]) == 2
    assert [node["role"] for node in found["dropped"]] == ["object", "attribute", "attribute", "relationship"]
    assert found["log_probability"] == pytest.approx(
        predicted(handler, {"objects": GRAPH["objects"][:1]})["log_probability"], rel=1e-5
    )


def test_features_of_boxes_in_any_order(featureless: CaptionerHandler) -> None:
    """A row for each box, found by the box; nodes with one box share a row."""
    given = features(3)
    boxes = [[2, 2, 38, 32], BOXES[1], BOXES[0]]
    first, second, both = given["regions"][2], given["regions"][1], given["regions"][0]
    by_node = {"image": given["image"], "regions": [first, first, second, second, second, both]}
    answers = [predicted(featureless, image=None, features=one) for one in ({**given, "boxes": boxes}, by_node)]
    assert answers[0] == answers[1]
    status, field, message = refused(featureless, features={**given, "boxes": [*boxes[:2], [2, 3, 20, 20]]})
    assert (status, field) == (422, "features.boxes") and "the box [2.0, 2.0, 20.0, 20.0]" in message


def test_a_form_with_a_photo_or_with_features(handler: CaptionerHandler, featureless: CaptionerHandler) -> None:
    graph = json.dumps(GRAPH).encode()
    status, answer = in_form(handler, {"image": noise_png(), "graph": graph, "beams": b"2", "n_best": b"2"})
    assert status == 200 and len(answer["graphs"][0]["n_best"]) == 2
    file = safetensors.torch.save({name: torch.tensor(value) for name, value in features().items()})
    status, answer = in_form(featureless, {"features": file, "graphs": b"[" + graph + b"]"})
    assert status == 200
    assert answer["graphs"][0] == predicted(featureless, features=features(), image=None)


def test_tensors_of_the_answer(handler: CaptionerHandler) -> None:
    ((status, body),) = ask_many(handler, ("prediction", {"graph": GRAPH}), accept="application/gzip")
    result = unpacked(body)
    found = predicted(handler)
    assert status == 200 and result["graphs"][0]["caption"] == found["caption"]
    assert result["attention.0"].shape == (len(found["tokens"]), 6)
    assert [CAPTION_WORDS[word] for word in result["words.0"]] == words_of(found)


def graph(*objects: dict[str, Any], relationships: Any = ()) -> dict[str, Any]:
    return {"objects": list(objects), "relationships": list(relationships)}


STAR = {"box": BOXES[0]}
MANY = graph(*[STAR | {"id": index} for index in range(300)])


@pytest.mark.parametrize(
    ("body", "status", "field", "said"),
    [
        ({"graph": None}, 400, "graph", "wanted a graph, or graphs, got neither"),
        ({"graphs": [GRAPH]}, 400, "graph", "got both"),
        ({"graph": None, "graphs": []}, 400, "graphs", "at least one"),
        ({"graph": None, "graphs": 3}, 400, "graphs", "wanted a list of graphs, or graphs by name"),
        ({"graph": None, "graphs": [GRAPH] * 17}, 413, "graphs", "at most 16 graphs, got 17"),
        ({"graph": [1]}, 400, "graph", "wanted an object with keys"),
        ({"graph": {"objects": []}}, 400, "graph.objects", "at least one"),
        ({"graph": graph(STAR, relationships=[[0, 9]])}, 400, "graph.relationships[0].object", "unknown object id 9"),
        ({"graph": graph(STAR | {"id": 1}, STAR | {"id": 1})}, 400, "graph.objects[1]", "an id of its own"),
        ({"graph": graph({"box": [2, 2, 0, 9]})}, 400, "graph.objects[0].w", "a box with an area"),
        ({"graph": graph({"box": [-1, 2, 9, 9]})}, 400, "graph.objects[0].box", "a box within the photo, 48 × 40"),
        ({"graph": graph({"box": [40, 2, 9, 9]})}, 400, "graph.objects[0].box", "one from (40, 2) to (49, 11)"),
        ({"graph": graph(STAR | {"attributes": 20})}, 400, "graph.objects[0].attributes", "0 to 19, got 20"),
        ({"graph": MANY}, 413, "graph", "at most 256 nodes (objects, attributes and relationships), got 300"),
        ({"graph": graph(*[STAR] * 20_001)}, 413, "graph", "at most 20,000 nodes in all, got 20,001"),
        ({"beams": 21}, 413, "beams", f"1..{len(CAPTION_WORDS)}, got 21"),
        ({"beams": 2, "n_best": 3}, 400, "n_best", "at most the 2 captions"),
        ({"max_words": 51}, 413, "max_words", "1..50"),
        ({"node_limit": 0}, 400, "node_limit", "1..256, got 0"),
        ({"steps": 5}, 400, "steps", "unknown option 'steps'"),
        ({"image": None}, 400, "image", "wanted a photo, or features of it, got neither"),
        ({"img_data": [[[0, 0, 0]]]}, 400, "img_data", "wanted the photo as image"),
        ({"features": features(5)}, 422, "features.regions", "a row for each of the 6 nodes"),
        ({"features": features(width=7)}, 422, "features.regions", f"width {CAPTION_WIDTH}, as this model's"),
        ({"features": {"image": [1.0]}}, 400, "features.regions", "is missing"),
        ({"features": {**features(), "image": [1.0, "x"]}}, 400, "features.image", "wanted numbers"),
        ({"features": {**features(), "image": [1e300]}}, 400, "features.image", "wanted finite numbers"),
        ({"features": {**features(), "image": []}}, 400, "features.image", "a row of numbers, got shape [0]"),
        ({"features": {**features(), "boxes": [BOXES[0]]}}, 400, "features.boxes", "each of the 6 regions"),
        ({"features": {**features(), "more": []}}, 400, "features", "image, regions and boxes alone, got 'more'"),
        ({"features": "AAAA"}, 400, "features", "wanted a safetensors file"),
        ({"graph": None, "graphs": [GRAPH] * 2, "features": features()}, 400, "features.boxes", "several graphs"),
    ],
)
def test_what_is_refused(handler: CaptionerHandler, body: dict[str, Any], status: int, field: str, said: str) -> None:
    got = refused(handler, **body)
    assert got[:2] == (status, field) and said in got[2], got


def test_features_that_are_not_numbers(handler: CaptionerHandler) -> None:
    tensors = {name: torch.tensor(value) for name, value in features().items()}
    tensors["regions"][2, 3] = torch.nan
    form = {"graph": json.dumps(GRAPH).encode(), "features": safetensors.torch.save(tensors)}
    status, answer = in_form(handler, form)
    assert (status, answer["field"]) == (400, "features.regions") and "NaN" in answer["message"]


def test_a_limit_takes_the_first_of_many_nodes(handler: CaptionerHandler) -> None:
    found = predicted(handler, MANY, node_limit=10)
    assert len(found["nodes"]) == 10 and len(found["dropped"]) == 290


def test_a_model_without_features_of_its_own_says_so(featureless: CaptionerHandler) -> None:
    status, field, message = refused(featureless)
    assert (status, field) == (422, "features") and f"regions of width {CAPTION_WIDTH}" in message


def test_a_photo_alone_and_a_form_that_is_too_large(handler: CaptionerHandler) -> None:
    context = Context(headers=[{"Content-Type": "image/png"}])
    (body,) = handler.handle([{"body": bytearray(noise_png())}], context)
    assert context.statuses[0] == 400 and "a multipart form with the photo" in json.loads(body)["message"]
    status, answer = in_form(handler, {"image": noise_png(), "graph": b" " * 32_000_001})
    assert (status, answer["error"]) == (413, "too_large")


def test_words_in_other_scripts(handler: CaptionerHandler) -> None:
    """As names they come back as they were; what no font can draw is the picture's to spell."""
    found = predicted(handler, graph(STAR | {"name": "звезда 星 🐶", "attributes": ["أحمر"]}))
    assert [node["name"] for node in found["nodes"]] == ["звезда 星 🐶", "أحمر"]


def test_a_bad_request_fails_alone_and_changes_no_answer(handler: CaptionerHandler) -> None:
    handler.worker.captions = Cache(1_000_000)
    other = {"objects": [{"box": BOXES[1], "attributes": 1}]}
    answers = ask_many(
        handler,
        ("prediction", {"graph": GRAPH}),
        ("prediction", {"graph": {"objects": []}}),
        ("explanation", {"graph": other, "steps": 3}),
        ("prediction", {"graph": other, "beams": 1}),
        ("explanation", {"graph": GRAPH, "caption": "no such words"}),
    )
    assert [status for status, _ in answers] == [200, 400, 200, 200, 422]
    found = json.loads(answers[0][1])["graphs"][0]
    handler.worker.captions = Cache(1_000_000)
    alone = predicted(handler)
    assert words_of(found) == words_of(alone)
    assert found["log_probability"] == pytest.approx(alone["log_probability"], rel=1e-5)


def test_the_search_must_fit_the_time(handler: CaptionerHandler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler.worker.task.speed, "search", 10.0)
    handler.worker.captions = Cache(1_000_000)
    status, field, message = refused(handler, beams=3)
    assert (status, field) == (413, "beams") and "wanted work of at most 960 s" in message


def test_metrics_count_captions_and_refusals(handler: CaptionerHandler) -> None:
    sink = handler.worker.metrics.sink
    store: Any = sink.store  # type: ignore[attr-defined]
    before = len(store.written)
    predicted(handler)
    refused(handler, graph=None)
    counted = [labels[1:3] for name, value, labels in store.written[before:] if name == "explain_requests_total"]
    assert counted == [("prediction", "ok"), ("prediction", "bad_request")]


KEYS = ["objects", "box", "attributes", "id", "object_id", "relationships", "x"]
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["objects", "box", "attributes", "id", "object_id", "relationships", "x"]), inner
        )
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["graph", "graphs", "features", "beams", "words", "caption", "map", "node_limit"]), JSONS)
def test_whatever_a_client_sends_is_answered(handler: CaptionerHandler, name: str, value: Any) -> None:
    body = {"graph": GRAPH, "words": "0", "steps": 1, name: value}
    ((status, answer),) = ask_many(handler, ("explanation", body))
    assert status in (200, 400, 413, 422), answer


def test_bytes_that_are_no_request(handler: CaptionerHandler) -> None:
    for parts in ({}, {"graph": b"\xff"}, {"graph": b"{"}, {"features": b"x", "graph": b"{}"}, {"body": b"[]"}):
        context = Context(headers=[{}])
        handler.handle([parts], context)
        assert context.statuses[0] == 400
