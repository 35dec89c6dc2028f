"""The demonstration captioner over real HTTP: scenes whose objects have names by construction."""

from __future__ import annotations

import base64
import contextlib
import io
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from PIL import Image

from tests.conftest import Served, metrics
from tests.tensors import unpacked
from tests.waiting import until
from tests.wire.photos import encoded
from training.captioning.named_scenes import NamedScene, named_scene

SEED = 7


def ask(served: Served, kind: str, timeout: float = 120, **content: Any) -> requests.Response:
    """The answer to JSON or, with ``files``, to a form."""
    headers = {**served.server.headers(), **content.pop("headers", {})}
    url = f"{served.server.inference}/{kind}/captioner"
    return requests.post(url, headers=headers, timeout=timeout, **content)


def photo_of(scene: NamedScene) -> bytes:
    return encoded(Image.fromarray(scene.image))


def graph_of(scene: NamedScene, *attributes: int) -> dict[str, Any]:
    """The first objects of a scene with so many attributes each, a chain of relationships between them."""
    boxes = [[one.box.x, one.box.y, one.box.width, one.box.height] for one in scene.objects]
    objects = [{"box": box, "attributes": count} for box, count in zip(boxes, attributes, strict=False)]
    return {"objects": objects, "relationships": [[index, index + 1] for index in range(len(objects) - 1)]}


def test_captions_say_what_the_graph_asks_for(served: Served) -> None:
    """One attribute is the colour, none is the name alone; eight scenes of ten are named right at least."""
    right = 0
    for index in range(10):
        scene = named_scene(SEED, index)
        graphs = [graph_of(scene, 1), graph_of(scene, 0, 0)]
        image = base64.b64encode(photo_of(scene)).decode()
        answer = ask(served, "predictions", json={"image": image, "graphs": graphs})
        assert answer.status_code == 200, answer.text
        one, two = (graph["caption"].split() for graph in answer.json()["graphs"])
        first, second = scene.objects[:2]
        right += {first.colour, first.shape} <= set(one) and {first.shape, second.shape} <= set(two)
    assert right >= 8


def test_a_form_an_explanation_and_a_picture(served: Served) -> None:
    scene = named_scene(SEED, 3)
    files = {"image": photo_of(scene), "graph": json.dumps(graph_of(scene, 1, 1)), "tolerance": "0.05"}
    form = {name: (None, value) for name, value in files.items()}
    explained = ask(served, "explanations", files=form)
    assert explained.status_code == 200, explained.text
    (found,) = explained.json()["graphs"]
    assert found["words"] and all(word["relative_residual"] <= 0.05 for word in found["words"] if word["converged"])
    by_word = {word["word"]: word for word in found["words"]}
    named = by_word[scene.objects[0].shape]
    assert named["largest_region"]["box"] == graph_of(scene, 1)["objects"][0]["box"]
    tensors = ask(served, "explanations", files=form, headers={"Accept": "application/gzip"})
    assert unpacked(tensors.content)["pixel_attribution.0"].shape == (len(found["words"]), 3, *scene.image.shape[:2])
    picture = ask(served, "explanations", files=form, headers={"Accept": "image/png"})
    with Image.open(io.BytesIO(picture.content)) as drawn:
        assert drawn.info["Title"] == found["caption"]


def test_good_and_bad_requests_side_by_side(served: Served) -> None:
    scene = named_scene(SEED, 4)
    image, graph = base64.b64encode(photo_of(scene)).decode(), graph_of(scene, 2, 0)
    bodies: list[tuple[str, dict[str, Any], int]] = [
        ("predictions", {"image": image, "graph": graph}, 200),
        ("predictions", {"image": image, "graph": {"objects": []}}, 400),
        ("explanations", {"image": image, "graph": graph, "steps": 4}, 200),
        ("predictions", {"image": image, "graph": graph_of(scene, 20)}, 400),
        ("explanations", {"image": image, "graph": graph, "caption": "ein roter Stern"}, 422),
        ("predictions", {"image": image, "graph": graph, "n_best": 5}, 200),
    ]
    with ThreadPoolExecutor(len(bodies)) as pool:
        answers = list(pool.map(lambda one: ask(served, one[0], json=one[1]), bodies))
    assert [answer.status_code for answer in answers] == [status for *_, status in bodies]
    assert answers[0].json()["graphs"][0]["caption"] == answers[5].json()["graphs"][0]["caption"]
    counted = 'explain_requests_total{model_name="captioner",kind="prediction",outcome="ok"'
    until(lambda: counted in metrics(served.server))


def test_a_form_of_a_hundred_megabytes(served: Served) -> None:
    """Refused by TorchServe before our code sees it, and the next request is answered."""
    form = {"image": (None, bytes(100_000_000)), "graph": (None, "{}")}
    with contextlib.suppress(requests.ConnectionError):  # it answers and closes while the form is still being sent
        assert ask(served, "predictions", files=form).status_code == 413
    scene = named_scene(SEED, 5)
    image = base64.b64encode(photo_of(scene)).decode()
    assert ask(served, "predictions", json={"image": image, "graph": graph_of(scene, 1)}).status_code == 200


@pytest.mark.parametrize("kind", ["predictions", "explanations"])
def test_a_photo_without_a_graph(served: Served, kind: str) -> None:
    answer = ask(served, kind, data=photo_of(named_scene(SEED, 0)), headers={"Content-Type": "image/png"})
    assert answer.status_code == 400 and answer.json()["field"] == "graph"
