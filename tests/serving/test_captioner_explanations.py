"""Explanations of a caption's words over a captioner's handler, against path integrals of one word at a time."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from handlers.captioner import CaptionerHandler
from imagexplain.attribution.paths.path_integral import PathIntegral, integrate
from imagexplain.attribution.paths.quadrature import quadrature
from imagexplain.models.captioners.features import EncodedRegions
from imagexplain.models.captioners.graph_tensors import graph_tensors, lay_out
from imagexplain.models.captioners.word_scores import WordScores, pack
from imagexplain.serving.cache import Cache
from imagexplain.vision import scene_graph
from tests.serving.asking import HEIGHT, WIDTH, noise_png
from tests.serving.captions import BOXES, GRAPH, ask_many, explained, predicted, refused, words_of
from tests.serving.handlers import CAPTION_WIDTH, CAPTION_WORDS, seeded_captioner, seeded_regions
from tests.tensors import unpacked

STEPS = 6


@pytest.fixture
def handler(captioner: CaptionerHandler) -> CaptionerHandler:
    """The captioner, which remembers nothing of other tests."""
    captioner.worker.captions, captioner.worker.explanations = Cache(1_000_000), Cache(10_000_000)
    return captioner


def photo() -> Tensor:
    """The photo of noise, (3, H, W) of 0 … 1."""
    with Image.open(io.BytesIO(noise_png())) as image:
        pixels = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
    return pixels.view(HEIGHT, WIDTH, 3).permute(2, 0, 1).float() / 255


def alone(caption: str, position: int, kind: Any = "log_probability") -> PathIntegral:
    """The path integral of one word's score, with features made and joined by hand."""
    layout = lay_out(scene_graph.read(GRAPH))
    boxes = torch.tensor([node.box.corners for node in layout.nodes])
    with torch.no_grad():
        (regions,), (image,) = EncodedRegions(seeded_regions())(photo()[None], boxes)
    words = [CAPTION_WORDS.index(word) for word in caption.split()]
    scores = WordScores(seeded_captioner(), graph_tensors([layout]), (*words, 1), [position], kind)
    inputs = pack(regions, image)[None]
    rules = [quadrature("gauss_legendre", STEPS)]
    (found,) = integrate(scores, inputs, torch.zeros_like(inputs), torch.tensor([0]), rules, chunk=64)
    return found


@pytest.mark.parametrize("kind", ["log_probability", "logit"])
def test_words_of_a_given_caption(handler: CaptionerHandler, kind: str) -> None:
    caption = "a red star"
    found = explained(handler, caption=caption, steps=STEPS, score=kind)
    assert (found["caption"], found["own_caption"], found["score_kind"]) == (caption, False, kind)
    assert words_of(found) == ["a", "red", "star", "<EOS>"]
    assert [word["word"] for word in found["words"]] == ["a", "red", "star"]
    for word in found["words"]:
        wanted = alone(caption, word["position"], kind)
        assert word["score"] == pytest.approx(wanted.score, rel=1e-5)
        assert word["residual"] == pytest.approx(wanted.residual, abs=1e-4)
        parts = wanted.attribution.flatten().split(CAPTION_WIDTH)  # six nodes and the whole photo
        sums = [part.sum().item() for part in parts]
        groups = word["groups"]
        assert [group["attribution"] for group in groups] == pytest.approx([*sums, sum(sums)], abs=1e-4)
        norms = [part.norm().item() for part in wanted.difference.flatten().split(CAPTION_WIDTH)]
        assert [group["directional"] for group in groups[:7]] == pytest.approx(
            [total / norm for total, norm in zip(sums, norms, strict=True)], abs=1e-4
        )
        assert sum(group["dividend"] for group in groups) == pytest.approx(1)
        assert groups[-1]["attribution"] == pytest.approx(word["score"] - word["baseline_score"] - word["residual"])
        assert word["largest_node"]["index"] == max(range(6), key=sums.__getitem__)
        assert word["largest_region"]["attribution"] == pytest.approx(
            max(sum(sums[:2]), sum(sums[2:5]), sums[5]), abs=1e-4
        )


def test_labels_and_kinds_of_the_groups(handler: CaptionerHandler) -> None:
    (word, *_) = explained(handler, steps=2)["words"]
    assert [(group["label"], group["kind"]) for group in word["groups"]] == [
        ("star", "object"),
        ("red", "attribute"),
        ("object 1", "object"),
        ("attribute 1 of 1", "attribute"),
        ("attribute 2 of 1", "attribute"),
        ("left of", "relationship"),
        ("global", "global"),
        ("whole", "whole"),
    ]


def test_the_own_caption_is_the_predicted_one(handler: CaptionerHandler) -> None:
    predictions, found = predicted(handler), explained(handler, steps=2)
    assert found["own_caption"] and found["tokens"] == predictions["tokens"]
    for word in found["words"]:
        token = found["tokens"][word["position"]]
        assert token["word"] == word["word"] and word["score"] == pytest.approx(token["log_probability"], rel=1e-4)


def test_some_words_are_those_of_all(handler: CaptionerHandler) -> None:
    asked = {"caption": "a red star left of a ring", "steps": STEPS}
    every = explained(handler, **asked)["words"]
    for words, places in (("a", [0, 5]), ("0, ring", [0, 6]), ([2], [2]), ("<EOS>", [7]), ("all", range(7))):
        found = explained(handler, **asked, words=words)["words"]
        assert [word["position"] for word in found] == list(places)
        for word in found:
            if word["position"] < 7:
                assert word["score"] == pytest.approx(every[word["position"]]["score"], rel=1e-5)
                got, wanted = (
                    [group["attribution"] for group in one["groups"]] for one in (word, every[word["position"]])
                )
                assert got == pytest.approx(wanted, abs=1e-4)


def test_a_tolerance_says_whether_it_is_met(handler: CaptionerHandler) -> None:
    found = explained(handler, caption="a red star", tolerance=0.05, steps=400)
    for word in found["words"]:
        assert word["converged"] and word["tolerance"] == 0.05 and word["relative_residual"] <= 0.05
    short = explained(handler, caption="a red star", tolerance=1e-6, steps=5)
    assert not any(word["converged"] for word in short["words"])


def test_a_map_goes_through_the_features_to_the_pixels(handler: CaptionerHandler) -> None:
    body = {"graph": GRAPH, "caption": "a red star", "steps": 200, "words": "1,2"}
    ((status, answer),) = ask_many(handler, ("explanation", body), accept="application/gzip")
    assert status == 200, answer
    result = unpacked(answer)
    (found,) = result["graphs"]
    pixels = result["pixel_attribution.0"]
    assert pixels.shape == (2, 3, HEIGHT, WIDTH) and found["map"]["baseline"] == "black"
    for total, word in zip(pixels.sum((1, 2, 3)).tolist(), found["map"]["words"], strict=True):
        assert total == pytest.approx(word["score"] - word["baseline_score"] - word["residual"], abs=1e-4)
        assert word["relative_residual"] < 0.1
    nodes, whole = result["node_attribution.0"], result["global_attribution.0"]
    assert nodes.shape == (2, 6, CAPTION_WIDTH) and whole.shape == (2, CAPTION_WIDTH)
    table = torch.tensor([[group["attribution"] for group in word["groups"]] for word in found["words"]])
    assert torch.allclose(nodes.sum(2), table[:, :6], atol=1e-4)
    assert result["positions.0"].tolist() == [1, 2]
    summary = explained(handler, **{name: value for name, value in body.items() if name != "graph"}, map=True)
    assert summary["map"] == found["map"]


def test_a_picture_of_the_deciding_regions(handler: CaptionerHandler) -> None:
    body = {"graph": GRAPH | {"objects": [GRAPH["objects"][0] | {"name": "星"}, GRAPH["objects"][1]]}, "steps": 2}
    ((status, answer),) = ask_many(handler, ("explanation", body | {"caption": "a звезда"}), accept="image/png")
    assert status == 200, answer
    with Image.open(io.BytesIO(answer)) as picture:
        lines = picture.info["Description"].splitlines()
        place = json.loads(picture.info["Panel"])
        assert picture.info["Title"] == "a звезда" and place["photo"] == [WIDTH, HEIGHT]
    rows = [line for line in lines if " ← " in line]
    assert [row.split(" ← ")[0].split()[-1] for row in rows[:2]] == ["a", "звезда"]
    ((status, answer),) = ask_many(handler, ("explanation", body | {"picture": "plain"}), accept="image/png")
    with Image.open(io.BytesIO(answer)) as picture:
        assert (status == 200 and picture.size == (HEIGHT, WIDTH)) or picture.size == (WIDTH, HEIGHT)


def test_one_pass_serves_all_words_and_is_cached(handler: CaptionerHandler) -> None:
    sink: Any = handler.worker.metrics.sink
    calls: list[int] = []
    hook = handler.worker.task.model.network.attn_encoder.register_forward_pre_hook(
        lambda module, inputs: calls.append(len(inputs[0]))
    )
    try:
        first = explained(handler, caption="a red star", steps=STEPS)
        assert sum(calls) == STEPS + 2 + 1  # the ends, and the caption as it is
        calls.clear()
        before = len(sink.store.written)
        assert explained(handler, caption="a red star", steps=STEPS) == first
        assert sum(calls) == 1
    finally:
        hook.remove()
    counted = {name: value for name, value, labels in sink.store.written[before:] if "hit" in labels or "evalu" in name}
    assert counted["explain_cache_total"] == 1 and counted["explain_evaluations_sum"] == 0


def test_only_what_the_model_sees_counts_in_the_cache(handler: CaptionerHandler) -> None:
    renamed = {**GRAPH, "objects": [GRAPH["objects"][0] | {"name": "ball"}, GRAPH["objects"][1]]}
    first, second = explained(handler, steps=2), explained(handler, renamed, steps=2)
    assert second["words"][0]["groups"][0]["label"] == "ball"
    scores = [[group["attribution"] for group in one["words"][0]["groups"]] for one in (first, second)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize(
    ("body", "status", "field", "said"),
    [
        ({"caption": "a redd star"}, 422, "caption", "unknown word 'redd' (did you mean 'red'?)"),
        ({"caption": "уна звезда 星"}, 422, "caption", "it lacks 'уна', '星'"),
        ({"caption": ""}, 422, "caption", "wanted at least one word"),
        ({"caption": "a <EOS> star"}, 422, "caption", "wanted words alone, got the sign <EOS>"),
        ({"caption": "a " * 50}, 413, "caption", "at most 50 words, the end sign included, got 51"),
        ({"caption": 3}, 400, "caption", "wanted text, got 3"),
        ({"caption": ["a", "a"]}, 400, "caption", "one caption for each of 1 graphs, got 2"),
        ({"caption": "a star", "words": "2,3"}, 422, "words", "places 0 to 2, got 3"),
        ({"caption": "a star", "words": "ring"}, 422, "words", "words of the caption"),
        ({"words": "9" * 5000}, 422, "words", "words of the caption"),
        ({"words": []}, 400, "words", "wanted all, or words and their places"),
        ({"words": [True]}, 400, "words", "wanted words, or their places"),
        ({"score": "probability"}, 400, "score", "known: log_probability, logit"),
        ({"steps": 1001}, 413, "steps", "1..1000"),
        ({"n_best": 2}, 400, "n_best", "unknown option"),
        ({"baseline": "white"}, 400, "baseline", "wanted map=true beside it"),
        ({"baseline": "blur", "map": True}, 400, "baseline", "known: black, white, mean"),
        ({"map": 3}, 400, "map", "wanted true or false"),
        (
            {"features": {"image": [0.0] * CAPTION_WIDTH, "regions": [[0.0] * CAPTION_WIDTH] * 6}, "map": True},
            *(422, "map", "a photo and no features"),
        ),
    ],
)
def test_what_is_refused(handler: CaptionerHandler, body: dict[str, Any], status: int, field: str, said: str) -> None:
    got = refused(handler, "explanation", **body)
    assert got[:2] == (status, field) and said in got[2], got


def test_pictures_want_one_graph_and_a_photo(handler: CaptionerHandler) -> None:
    features = {"image": [0.0] * CAPTION_WIDTH, "regions": [[0.0] * CAPTION_WIDTH] * 6}
    for body, said in (
        ({"graphs": [GRAPH, GRAPH]}, "one graph for a picture"),
        ({"graph": GRAPH, "image": None, "features": features}, "the photo that the picture is drawn over"),
    ):
        ((status, answer),) = ask_many(handler, ("explanation", body), accept="image/png")
        assert status == 400 and said in json.loads(answer)["message"]


def test_features_that_are_their_baseline_carry_nothing(handler: CaptionerHandler) -> None:
    features = {"image": [0.0] * CAPTION_WIDTH, "regions": [[0.0] * CAPTION_WIDTH] * 6}
    found = explained(handler, features=features, caption="a red star", steps=2)
    for word in found["words"]:
        assert word["residual"] == pytest.approx(0, abs=1e-6)
        assert all(group["attribution"] == group["dividend"] == 0 for group in word["groups"])


def test_what_takes_too_long_is_refused_before(handler: CaptionerHandler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler.worker.task.speed, "gradient", 1.0)
    status, field, message = refused(handler, "explanation", caption="a red star", steps=100)
    assert (status, field) == (413, "steps") and "got 102 points" in message
    monkeypatch.setattr(handler.worker.task.speed, "gradient", 1e-6)
    monkeypatch.setattr(handler.worker.task.speed, "features", 100.0)
    assert refused(handler, "explanation", image=None, caption="a")[1] == "image"
    status, field, _ = refused(handler, "explanation", caption="a red star", map=True)
    assert status == 413 and field in ("image", "map")


def test_an_answer_that_is_too_large_is_refused_before(
    handler: CaptionerHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = handler.worker.task
    limits = task.spec.limits.model_copy(update={"max_response_bytes": 1000})
    monkeypatch.setattr(task, "spec", task.spec.model_copy(update={"limits": limits}))
    monkeypatch.setattr("imagexplain.serving.caption_worker.attribute", None)
    body = {"graph": GRAPH, "caption": "a red star"}
    ((status, answer),) = ask_many(handler, ("explanation", body), accept="application/x-safetensors")
    assert status == 413 and "wanted an answer of at most 1,000 bytes" in json.loads(answer)["message"]


def test_several_graphs_and_captions_of_their_own(handler: CaptionerHandler) -> None:
    small = {"objects": [{"box": BOXES[1]}]}
    body = {"graphs": [GRAPH, small], "caption": ["a red star", None], "steps": STEPS}
    ((status, answer),) = ask_many(handler, ("explanation", body))
    assert status == 200
    first, second = json.loads(answer)["graphs"]
    assert first["caption"] == "a red star" and second["own_caption"]
    wanted = explained(handler, small, steps=STEPS)
    assert [word["score"] for word in second["words"]] == pytest.approx([word["score"] for word in wanted["words"]])
