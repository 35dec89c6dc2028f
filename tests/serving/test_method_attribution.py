"""Every method asked of the handler as TorchServe calls it, on seeded networks of timm."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load, save_file

import imagexplain.attribution as library
from handlers.classifier import ClassifierHandler
from imagexplain.api.request import Defaults
from imagexplain.archive.spec import SPEC_FILE, WEIGHTS_FILE, select
from imagexplain.attribution.registry import METHODS
from imagexplain.models.checkpoints import checkpoint
from imagexplain.ops.server import ROOT
from imagexplain.serving.cache import Cache
from imagexplain.vision.preprocess import apply
from tests.attribution.every_method import OF_ATTENTION, OF_TOKEN_ROWS
from tests.pictures import panel
from tests.rows import rows_through
from tests.serving.asking import ask, explain_one, explanation, noise_png
from tests.serving.handlers import TIMM_NETWORKS, classifier_of, forget, write_bit, write_timm
from tests.tensors import unpacked
from tests.wire.photos import encoded

QUICK = {
    "blur_ig": "steps=4",
    "expected_gradients": "samples=4&draws=2",
    "fem": "deviations=1",
    "gaussian_shap": "samples=20",
    "guided_ig": "steps=4",
    "idgi": "steps=4",
    "integrated_gradients": "steps=4",
    "kernel_shap": "samples=20",
    "lime": "samples=20",
    "rise": "samples=20&cells=4",
    "shapley_sampling": "permutations=2",
    "smoothgrad": "samples=3",
    "smoothgrad_cam_plusplus": "samples=3",
    "ss_cam": "samples=1",
    "xrai": "steps=4",
}
FOR_CNNS = {"deep_lift", "guided_backprop", "guided_grad_cam", "full_grad", "lrp"}
FOR_TRANSFORMERS = OF_ATTENTION


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ClassifierHandler]:
    return {kind: classifier_of(write_timm(tmp_path_factory.mktemp(kind), kind)) for kind in TIMM_NETWORKS}


@pytest.fixture
def handlers(loaded: dict[str, ClassifierHandler]) -> dict[str, ClassifierHandler]:
    """Ones that remember nothing of other tests."""
    for handler in loaded.values():
        forget(handler)
    return loaded


@pytest.mark.parametrize("kind", TIMM_NETWORKS)
@pytest.mark.parametrize("method", sorted(library.METHODS))
def test_every_method_answers_or_says_that_it_has_no_meaning(
    handlers: dict[str, ClassifierHandler], kind: str, method: str
) -> None:
    options = f"method={method}&target_class=dog&segments=grid&rows=2&columns=2"
    options += f"&{QUICK[method]}" if method in QUICK else ""
    status, answer = explain_one(handlers[kind], options, "application/gzip")
    if method in {"resnet": FOR_TRANSFORMERS, "swin": FOR_CNNS | OF_TOKEN_ROWS}.get(kind, FOR_CNNS):
        assert status == 422 and answer["field"] == "method"
        assert f"{method} is not supported by this model" in answer["message"]
        supported_methods = answer["message"].rpartition("Those that are: ")[2].split(", ")
        assert method not in supported_methods and {"gradient", "grad_cam", "rise"} <= set(supported_methods)
        return
    assert status == 200, answer
    map_ = answer["integrated_grads" if method == "integrated_gradients" else "map"]
    assert map_.shape in ((1, 3, 32, 32), (1, 1, 32, 32)) and map_.isfinite().all() and map_.any()
    assert answer["group_masks"].shape == (5, 32, 32)
    sums = (answer["group_masks"][:, None] * map_).sum((1, 2, 3))
    if "groups" in METHODS[method].parameters:  # each counted once, not as often as it has pixels
        sums /= 256
    assert torch.allclose(answer["attribution"], sums, rtol=1e-3, atol=1e-4 * float(map_.abs().sum()))
    assert answer["area"].tolist() == [256] * 4 + [1024]
    assert ("dividend" in answer) == (method == "integrated_gradients" or "groups" in METHODS[method].parameters)
    assert ("standard_error" in answer) == ("observe_covariance" in METHODS[method].parameters)
    assert answer["method"] == method and answer["evaluations"] >= 1
    assert answer["score"] == pytest.approx(answer["output"][0, 1].item(), rel=1e-4, abs=1e-6)


def test_a_served_map_is_the_librarys(handlers: dict[str, ClassifierHandler]) -> None:
    handler = handlers["resnet"]
    _, answer = explain_one(handler, "method=grad_cam&target_class=2", "application/gzip")
    image, _ = apply(Image.open(io.BytesIO(noise_png())), handler.worker.task.model.preprocess)
    expected = library.grad_cam(handler.worker.task.model.original_network(), image[None], 2)
    assert torch.allclose(answer["map"], expected, rtol=1e-4, atol=1e-6)
    assert answer["layer"] == "layer3"  # of the next, one place is left


def test_a_batch_of_many_methods_equals_one_by_one(handlers: dict[str, ClassifierHandler]) -> None:
    handler = handlers["resnet"]
    options = [
        "method=gradient",
        "method=gradient&target_class=owl",
        "method=score_cam&layer=layer3",
        "steps=4",
        "method=kernel_shap&samples=30&segments=grid",
        "method=kernel_shap&samples=30&segments=grid&rows=3",
        "combine=blur_ig,grad_cam&steps=4",
        'method=gradient&smooth={"samples":3}',
        "method=occlusion&size=8&baseline=white",
    ]
    requests = [(explanation(given, "application/gzip"), noise_png(seed)) for seed, given in enumerate(options)]
    bodies, context = ask(handler, *requests)
    assert [context.statuses[index] for index in range(len(options))] == [200] * len(options)
    handler.worker.task.scores, handler.worker.explanations = Cache(0), Cache(0)
    for request, body in zip(requests, bodies, strict=True):
        (alone,), _ = ask(handler, request)
        together, apart = unpacked(body), unpacked(alone)
        assert set(together) == set(apart)
        name = "map" if "map" in apart else "integrated_grads"
        assert torch.allclose(together[name], apart[name], rtol=1e-4, atol=1e-4 * float(apart[name].abs().max()))


def test_equal_plans_share_their_evaluations(handlers: dict[str, ClassifierHandler]) -> None:
    handler = handlers["vit"]
    with rows_through(handler.worker.task.model.network) as rows:
        ask(handler, *((explanation("method=gradient", "application/json"), noise_png(seed)) for seed in range(3)))
    assert rows == [3, 3]  # the scores of all, and the gradients of all


def test_a_product_is_that_of_the_maps(handlers: dict[str, ClassifierHandler]) -> None:
    handler = handlers["swin"]
    maps = {}
    for given in ("method=gradient", "method=layer_cam", "combine=gradient,layer_cam"):
        _, answer = explain_one(handler, f"{given}&target_class=cat", "application/gzip")
        maps[given] = answer["map"]
    expected = library.combine(maps["method=gradient"], maps["method=layer_cam"])
    assert torch.allclose(maps["combine=gradient,layer_cam"], expected, rtol=1e-4)
    assert answer["method"] == "gradient × layer_cam" and "normalized" not in answer
    _, answer = explain_one(handler, "combine=gradient,layer_cam&normalized=true&target_class=cat", "application/gzip")
    expected = library.combine(maps["method=gradient"], maps["method=layer_cam"], normalized=True)
    assert torch.allclose(answer["map"], expected, rtol=1e-4, atol=1e-5) and answer["normalized"] is True
    assert answer["map"].max() == 1


def test_what_is_known_is_not_computed_again(handlers: dict[str, ClassifierHandler]) -> None:
    handler = handlers["resnet"]
    first = explain_one(handler, "method=rise&samples=10&cells=4")
    with rows_through(handler.worker.task.model.network) as rows:
        assert explain_one(handler, "method=rise&samples=10&cells=4") == first and not rows
        assert explain_one(handler, "method=rise&samples=10&cells=4&segments=grid")[0] == 200 and not rows
        explain_one(handler, "method=rise&samples=11&cells=4")
        explain_one(handler, "method=rise&samples=10&cells=4&baseline=white")
        assert rows == [1, 11, 1, 10]  # the baseline's own score, and the masked copies


@pytest.mark.parametrize("accept", ["image/png", "application/x-safetensors"])
@pytest.mark.parametrize("groups", ["", "&segments=slic"])
def test_other_forms_of_answer(handlers: dict[str, ClassifierHandler], accept: str, groups: str) -> None:
    status, body = explain_one(handlers["resnet"], f"method=grad_cam{groups}", accept)
    assert status == 200
    if accept == "image/png":
        assert panel(body).size == (48, 40)
    else:
        assert load(body)["map"].shape == (1, 1, 32, 32)


@pytest.mark.parametrize(
    ("options", "status", "field", "message"),
    [
        ("method=gradcam", 400, "method", "did you mean 'grad_cam'"),
        ("method=grad_cam&layer=layer5", 400, "layer", "such as layer"),
        ("method=grad_cam&layer=fc", 400, "layer", "wanted an output"),
        ("method=gradient&layer=layer4", 400, "layer", "gradient does not take it"),
        ("method=grad_cam&samples=3", 400, "samples", "grad_cam does not take it, but layer"),
        ("samples=3", 400, "samples", "integrated_gradients does not take it, but quadrature, seed, steps"),
        ("method=smoothgrad&samples=0", 400, "samples", "wanted at least 1, got 0"),
        ("method=rise&samples=-1000000", 400, "samples", "wanted at least 1, got -1000000"),
        ("combine=integrated_gradients,grad_cam&quadrature=foo", 400, "quadrature", "unknown quadrature"),
        ("method=idgi&quadrature=left", 400, "quadrature", "idgi does not take it, but steps"),
        ("method=smoothgrad&samples=100000", 413, "samples", "wanted at most 20000"),
        ("method=gaussian_shap&samples=5000", 413, "samples", "wanted at most 4096, got 5000"),
        ("method=gaussian_shap&n_segments=257", 413, "segments", "wanted at most 256: gaussian_shap takes no more"),
        (
            "method=attention_rollout&head_fusion=median",
            400,
            "head_fusion",
            "wanted one of mean, max, min, got 'median'",
        ),
        ("method=legrad&layers=-3", 400, "layers", "wanted at least 0, got -3"),
        ("method=smoothgrad&samples=20000", 413, "method", "wanted an explanation of at most"),
        ("method=smoothgrad&statistic=median", 400, "statistic", "wanted one of mean"),
        ("method=occlusion&size=40", 400, "size", "wanted 1..32"),
        ("method=occlusion&size=8.5", 400, "size", "a whole number"),
        ("method=blur_ig&max_sigma=-1", 400, "max_sigma", "positive"),
        ("method=blur_ig&sqrt=2", 400, "sqrt", "true or false"),
        ("method=blur_ig&tolerance=0.1", 400, "tolerance", "blur_ig does not take it, but "),
        ("method=blur_ig&outputs=step_sizes", 400, "outputs", "wanted method=integrated_gradients alone"),
        ("method=blur_ig&baseline=white", 400, "baseline", "starts from no baseline"),
        ("method=gradient&combine=gradient,grad_cam", 400, "combine", "got both"),
        ("combine=gradient", 400, "combine", "wanted two methods"),
        ("combine=gradient,grad_cam&normalized=1", 400, "normalized", "wanted true or false"),
        ("method=gradient&normalized=true", 400, "normalized", "goes with combine"),
        ("normalized=false", 400, "normalized", "goes with combine"),
        ("combine=grad_cam,gradient", 400, "combine", "wanted as the second one of"),
        ('method=gradient&smooth={"sample":3}', 400, "smooth", "did you mean 'samples'"),
        ('method=gradient&smooth={"samples":0}', 400, "smooth.samples", "wanted 1..1000, got 0"),
        ('method=gradient&smooth={"samples":2000}', 413, "smooth.samples", "wanted 1..1000, got 2000"),
        ('method=gradient&smooth={"std":"a"}', 400, "smooth.std", "wanted a number"),
        ("method=gradient&smooth=25", 400, "smooth", "wanted an object such as"),
        ("method=gradient&pixels=true", 400, "pixels", "alone"),
    ],
)
def test_requests_that_cannot_be_answered(
    handlers: dict[str, ClassifierHandler], options: str, status: int, field: str, message: str
) -> None:
    handler = handlers["resnet"]
    model = handler.worker.task.model
    handler.worker.task.model = replace(model, seconds_per_point=0.1)
    handler.worker.task.seconds_per_point, kept = 0.1, handler.worker.task.seconds_per_point
    try:
        got, answer = explain_one(handler, options)
    finally:
        handler.worker.task.model, handler.worker.task.seconds_per_point = model, kept
    assert (got, answer["field"]) == (status, field), answer
    assert message in answer["message"]


def test_a_bad_request_leaves_the_others_of_its_batch_alone(handlers: dict[str, ClassifierHandler]) -> None:
    options = ["method=grad_cam", "method=grad_cam&layer=nowhere", "method=full_grad", "method=grad_cam"]
    _, context = ask(handlers["vit"], *((explanation(given), noise_png(seed)) for seed, given in enumerate(options)))
    assert [context.statuses[index] for index in range(4)] == [200, 400, 422, 200]


def test_one_images_refusal_is_not_its_neighbours(handlers: dict[str, ClassifierHandler]) -> None:
    """DeepLIFT does not support a transformer, but for an image that equals its baseline it is 0 everywhere."""
    black = encoded(Image.new("RGB", (40, 40)))
    asked = explanation("method=deep_lift&baseline=black")
    _, context = ask(handlers["vit"], (asked, black), (asked, noise_png()))
    assert (context.statuses[0], context.statuses[1]) == (200, 422)


def test_what_has_a_meaning_is_found_out_once(handlers: dict[str, ClassifierHandler]) -> None:
    handler = handlers["swin"]
    first = explain_one(handler, "method=full_grad")
    with rows_through(handler.worker.task.model.network) as rows:
        assert explain_one(handler, "method=full_grad") == first
    assert sum(rows) <= 1


@pytest.mark.parametrize("groups", ["segments=grid&rows=1&columns=1", "n_segments=4", "segments=slic&n_segments=4"])
@pytest.mark.parametrize("kind", TIMM_NETWORKS)
def test_shapley_values_of_few_groups(handlers: dict[str, ClassifierHandler], kind: str, groups: str) -> None:
    status, answer = explain_one(handlers[kind], f"method=kernel_shap&samples=10&{groups}", "application/gzip")
    assert status == 200, answer
    assert answer["map"].isfinite().all()


@pytest.mark.parametrize("more", ["", "&baseline=uniform&draws=2", '&smooth={"samples":2}'])
def test_values_of_groups_have_directional_gradients_and_errors(
    handlers: dict[str, ClassifierHandler], more: str
) -> None:
    options = f"method=gaussian_shap&samples=60&segments=grid{more}"  # of 16 segments
    status, answer = explain_one(handlers["resnet"], options)
    assert status == 200, answer
    *segments, whole = answer["groups"]
    assert whole["kind"] == "whole" and whole["standard_error"] == pytest.approx(0, abs=1e-9)  # its value is known
    scale = max(abs(answer["score"] - answer["baseline_score"]), sum(abs(row["attribution"]) for row in segments))
    worst = max(row["standard_error"] for row in segments)
    assert answer["uncertainty"] == pytest.approx(2 * worst / scale) and "converged" not in answer
    assert whole["value"] == pytest.approx(1) and sum(row["dividend"] for row in answer["groups"]) == pytest.approx(1)
    if "uniform" not in more:  # over draws it is a mean of ratios
        for row in answer["groups"]:
            assert row["directional"] == pytest.approx(row["attribution"] / row["norm"])


def test_a_product_and_another_statistic_have_no_error(handlers: dict[str, ClassifierHandler]) -> None:
    for options in ('smooth={"samples":2,"statistic":"square"}&method=gaussian_shap', "combine=gaussian_shap,grad_cam"):
        status, answer = explain_one(handlers["resnet"], f"{options}&samples=8&n_segments=9", "application/gzip")
        assert status == 200 and "standard_error" not in answer and "uncertainty" not in answer, answer


@pytest.mark.parametrize(("tolerance", "met"), [(0.6, True), (1e-9, False)])
def test_an_answer_tells_whether_its_tolerance_was_met(
    handlers: dict[str, ClassifierHandler], tolerance: float, met: bool
) -> None:
    options = f"method=gaussian_shap&samples=80&segments=grid&tolerance={tolerance}"
    status, answer = explain_one(handlers["resnet"], options, "application/gzip")
    assert status == 200 and answer["converged"] is met and (answer["uncertainty"] <= tolerance) is met
    assert answer["options"]["tolerance"] == tolerance and answer["evaluations"] <= 83


def test_defaults_of_the_spec(tmp_path: Path) -> None:
    """Its steps and quadrature are those of integrated gradients, and of the method that it names."""
    handler = classifier_of(write_timm(tmp_path, "resnet"))
    handler.worker.task.defaults = Defaults(method="idgi", steps=7, quadrature="midpoint", baseline="uniform")
    assert explain_one(handler, "")[1]["options"] == {"steps": 7}
    combined = explain_one(handler, "combine=integrated_gradients,grad_cam")[1]
    assert combined["options"] == {"steps": 7, "quadrature": "midpoint"}
    assert explain_one(handler, "method=blur_ig")[1]["options"]["steps"] == 100
    first, second = (explain_one(handler, f"method=idgi&seed={seed}", "application/gzip")[1]["map"] for seed in (1, 2))
    assert not torch.equal(first, second)
    assert explain_one(handler, "method=integrated_gradients&seed=1")[0] == 200


def test_folded_networks_answer_as_the_library_does(tmp_path: Path) -> None:
    """A folded LaNet hides some of its ReLUs from guided backpropagation."""
    spec = next(iter(select([ROOT / "archive_specs" / "lanet.yaml"], {})))
    (tmp_path / SPEC_FILE).write_text(spec.model.to_json())
    save_file(checkpoint.read(spec.weights), tmp_path / WEIGHTS_FILE)
    handler = classifier_of(tmp_path)
    image, _ = apply(Image.open(io.BytesIO(noise_png())), handler.worker.task.model.preprocess)
    for method in ("guided_backprop", "deep_lift"):
        _, answer = explain_one(handler, f"method={method}&target_class=0", "application/gzip")
        expected = getattr(library, method)(handler.worker.task.model.original_network(), image[None], 0)
        assert torch.allclose(answer["map"], expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


VALUES: tuple[Any, ...] = (0, -1, 1, 2.5, 1e308, 10**400, True, "foo", "", [], {}, None)


@pytest.mark.parametrize("method", sorted(library.METHODS))
def test_no_option_is_the_servers_fault(handlers: dict[str, ClassifierHandler], method: str) -> None:
    handler = handlers["vit" if method in FOR_TRANSFORMERS else "resnet"]
    image = {"image": base64.b64encode(noise_png()).decode()}
    quick = {name: json.loads(value) for name, value in parse_qsl(QUICK.get(method, ""))}
    for name in sorted(METHODS[method].parameters):
        if name in ("baselines", "references", "chunk", "segments", "groups", "pictures", "fill"):
            continue
        for value in VALUES:
            body = json.dumps({**image, "method": method, **quick, "quadrature" if name == "rule" else name: value})
            (answer,), context = ask(handler, (explanation() | {"Content-Type": "application/json"}, body.encode()))
            assert context.statuses[0] in (200, 400, 413, 422), (name, value, answer)


def test_references_that_the_client_sends(handlers: dict[str, ClassifierHandler]) -> None:
    references = torch.rand(3, 3, 32, 32)
    body = json.dumps(
        {
            "img_data": np.asarray(Image.open(io.BytesIO(noise_png()))).tolist(),
            "method": "expected_gradients",
            "samples": 8,
            "baseline": "tensor",
            "baseline_tensor": references.tolist(),
        }
    )
    headers = explanation(accept="application/gzip") | {"Content-Type": "application/json"}
    (answer,), context = ask(handlers["resnet"], (headers, body.encode()))
    assert context.statuses[0] == 200
    assert (unpacked(answer)["draws"], unpacked(answer)["options"]) == (3, {"samples": 8, "seed": 0})


def test_our_own_networks_are_asked_under_their_authors_names(tmp_path: Path) -> None:
    """LaNet and BiT are served folded, which renames and removes layers."""
    handler = classifier_of(write_bit(tmp_path))
    (tmp_path / WEIGHTS_FILE).unlink()  # no request reads it
    status, answer = explain_one(handler, "method=grad_cam")
    assert status == 200 and answer["layer"] in dict(handler.worker.task.model.original_network().named_modules())
    assert explain_one(handler, f"method=layer_cam&layer={answer['layer']}")[0] == 200
