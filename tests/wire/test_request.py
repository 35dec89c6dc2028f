from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagexplain.api.request import (
    GZIP,
    JSON,
    MEDIA,
    ORIGINAL_OUTPUTS,
    PNG,
    SAFETENSORS,
    Defaults,
    Kind,
    Request,
    negotiate,
    parse,
    resolve_target,
)
from imagexplain.errors import RequestError
from imagexplain.limits import Limits
from imagexplain.serving.tasks.segmenter import Segmenter
from imagexplain.vision.decode import Layout
from tests.wire.photos import jpeg, png, refusal

LIST = [[[1, 2, 3], [4, 5, 6]]]
BASE64 = base64.b64encode(png()).decode()
LIMITS = Limits(max_bytes=20_000, max_pixels=10_000, max_steps=100)


def ask(
    row: dict[str, Any], *, kind: Kind = "explanation", defaults: Defaults | None = None, **headers: str
) -> Request:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return parse(row, names, kind=kind, limits=LIMITS, defaults=defaults)


def body(**fields: Any) -> dict[str, Any]:
    return {"body": bytearray(json.dumps(fields).encode())}


def refused_request(row: dict[str, Any], **options: Any) -> tuple[int, str, str]:
    with pytest.raises(RequestError) as caught:
        ask(row, **options)
    return caught.value.status, caught.value.field, caught.value.message


# The four forms


@pytest.mark.parametrize("content_type", [None, "image/png", "application/octet-stream", "image/jpeg", "text/plain"])
@pytest.mark.parametrize("key", ["body", "data"])
def test_encoded_body_under_any_content_type(content_type: str | None, key: str) -> None:
    header: Any = {} if content_type is None else {"content_type": content_type}
    request = ask({key: bytearray(png())}, **header)
    assert request.photo.source_format == "PNG"
    assert not request.legacy
    assert (request.target, request.path.steps, request.plan.name) == (None, 50, "integrated_gradients")
    assert (request.path.quadrature, request.baseline.name, request.outputs) == ("gauss_legendre", "zero", ())
    assert request.accept == GZIP


def test_options_in_the_header() -> None:
    options = {
        "target_class": "tench, Tinca & co",
        "steps": "20",
        "quadrature": "left",
        "outputs": "output, step_sizes",
    }
    for encode in (urlencode, lambda pairs: urlencode(pairs, quote_via=quote)):
        request = ask({"body": jpeg()}, x_explain_options=encode(options))
        assert (request.target, request.path.steps, request.path.quadrature) == ("tench, Tinca & co", 20, "left")
        assert request.outputs == ("step_sizes", "output")


def test_json_with_a_list_the_original_way() -> None:
    request = ask(body(img_data=LIST, target_class="airplane"), content_type="application/json", accept="*/*")
    assert request.legacy
    assert request.outputs == ORIGINAL_OUTPUTS
    assert request.target == "airplane"
    assert np.asarray(request.photo.image).tolist() == LIST


@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({"steps": 50}, {}),
        ({"outputs": []}, {}),
        ({}, {"accept": "application/json"}),
        ({}, {"x_explain_options": "steps=50"}),
    ],
)
def test_any_word_more_is_not_the_original_way(fields: dict[str, Any], headers: dict[str, Any]) -> None:
    assert not ask(body(img_data=LIST, **fields), **headers).legacy


def test_original_way_without_target() -> None:
    assert ask(body(img_data=LIST)).legacy
    assert not ask(body(img_data=LIST), kind="prediction").legacy
    assert not ask(body(image=BASE64)).legacy


def test_json_with_base64() -> None:
    request = ask(body(image=BASE64, target_class=3, steps=7, outputs=["output"], baseline="zero"))
    assert request.photo.source_format == "PNG"
    assert (request.target, request.path.steps, request.outputs) == (3, 7, ("output",))


def test_base64_may_be_wrapped() -> None:
    wrapped = "\n".join(BASE64[i : i + 20] for i in range(0, len(BASE64), 20))
    assert ask(body(image=wrapped)).photo.size == (2, 3)


def test_parsed_bodies_are_taken_too() -> None:
    assert ask({"body": {"img_data": LIST, "target_class": "cat"}}).legacy
    assert ask({"body": json.dumps({"image": BASE64, "steps": 3})}).path.steps == 3


def test_json_without_a_content_type_or_behind_spaces() -> None:
    assert ask({"body": b" \n" + json.dumps({"image": BASE64}).encode()}).photo.size == (2, 3)


def test_multipart() -> None:
    row = {
        "image": bytearray(png()),
        "target_class": bytearray("café".encode()),
        "steps": b" 9 ",
        "outputs": b"output,intermediates",
        "quadrature": "right",
    }
    request = ask(row, content_type="multipart/form-data; boundary=x")
    assert (request.target, request.path.steps, request.path.quadrature) == ("café", 9, "right")
    assert request.outputs == ("intermediates", "output")
    assert not request.legacy


def test_multipart_part_named_data() -> None:
    assert ask({"data": png(), "steps": b"4"}, content_type="multipart/form-data; boundary=x").path.steps == 4


def test_null_is_not_given() -> None:
    request = ask(body(image=BASE64, target_class=None, steps=None, outputs=None, method=None))
    assert (request.target, request.path.steps, request.outputs) == (None, 50, ())


def test_defaults_of_the_spec() -> None:
    defaults = Defaults(steps=11, quadrature="midpoint", outputs=("output",), order="bgr")
    request = ask(body(img_data=LIST, quadrature="left"), defaults=defaults)
    assert (request.path.steps, request.path.quadrature, request.outputs) == (11, "left", ("output",))
    assert np.asarray(request.photo.image).tolist() == [[[3, 2, 1], [6, 5, 4]]]


RANDOM = Defaults(baseline="uniform")


@pytest.mark.parametrize(
    ("options", "defaults", "baseline", "paths", "steps"),
    [
        ({}, RANDOM, "uniform", 4, 13),
        ({"draws": 8}, RANDOM, "uniform", 8, 7),
        ({"draws": 64}, Defaults(baseline="uniform", steps=100), "uniform", 64, 2),
        ({"steps": 50}, RANDOM, "uniform", 4, 50),
        ({"tolerance": 0.1}, RANDOM, "uniform", 4, 100),
        ({"baseline": "blur"}, RANDOM, "blur", 1, 50),
        ({"baseline": "uniform"}, Defaults(), "uniform", 4, 13),
        ({"method": "occlusion"}, RANDOM, "black", 1, None),
        ({"method": "occlusion", "baseline": "uniform"}, RANDOM, "uniform", 4, None),
        ({"method": "grad_cam"}, RANDOM, "black", 1, None),
        ({"method": "idgi"}, Defaults(method="idgi", baseline="uniform"), "uniform", 4, None),
        ({"combine": ["integrated_gradients", "grad_cam"]}, RANDOM, "black", 1, None),
        ({"smooth": {"samples": 5}}, replace(RANDOM, method="rise"), "black", 1, None),
        ({"method": "expected_gradients"}, RANDOM, "uniform", 16, None),
    ],
)
def test_random_baselines_share_the_steps_and_cost_other_methods_nothing(
    options: dict[str, Any], defaults: Defaults, baseline: str, paths: int, steps: int | None
) -> None:
    request = ask(body(image=BASE64, **options), defaults=defaults)
    assert (request.baseline.name, request.baseline.paths) == (baseline, paths)
    assert steps is None or request.path.steps == steps


def test_predictions_ignore_every_option() -> None:
    row = {"image": png(), "steps": b"many", "what": b"ever"}
    request = ask(row, kind="prediction", x_explain_options="%%%&=")
    assert (request.target, request.path.steps, request.accept) == (None, 50, JSON)
    request = ask(body(image=BASE64, steps="many", target_class=[1], segments="slic"), kind="prediction")
    assert (request.target, request.path.steps) == (None, 50)


# Bad input

EXPLAIN = "X-Explain-Options"


@pytest.mark.parametrize(
    ("row", "status", "field", "words"),
    [
        ({}, 400, "image", "curl's -d"),
        ({"body": b""}, 400, "image", "got nothing"),
        ({"body": None}, 400, "image", ""),
        ({"steps": b"5"}, 400, "image", "only the parts 'steps'"),
        ({"image": png(), "data": png()}, 400, "image", "image and data"),
        ({"body": 7}, 400, "body", "got 7"),
        ({"body": [1]}, 400, "body", "[1]"),
        ({"body": b"{"}, 400, "body", "wanted JSON"),
        ({"body": b'{"image": }'}, 400, "body", "byte 10"),
        ({"body": b'{"img_data": [[[1,2,3]]], }'}, 400, "body", "wanted JSON"),
        ({"body": b'{"img_data": [[[NaN,2,3]]]}'}, 400, "body", "wanted JSON"),
        ({"body": b"[1, 2]"}, 400, "body", "`array`"),
        ({"body": b'{"a":' + b"[" * 5000}, 400, "body", "recursion"),
        ({"body": b'{"\xff": 1}'}, 400, "body", "utf-8"),
        ({"body": b"{}"}, 400, "image", "(none)"),
        (body(target_class="cat"), 400, "image", "'target_class'"),
        (body(image=BASE64, img_data=LIST), 400, "image", "both"),
        (body(image="?" * 8), 400, "image", "base64"),
        (body(image="abc"), 400, "image", "base64"),
        (body(image="é"), 400, "image", "base64"),
        (body(image=""), 400, "image", "got nothing"),
        (body(image=7), 400, "image", "base64, got 7"),
        (body(image=None), 400, "image", "None"),
        (body(image="data:image/png;base64," + BASE64), 400, "image", "data URL"),
        (body(image=BASE64[:40]), 400, "image", "PNG is truncated"),
        (body(image=base64.b64encode(b"GIF89a").decode()), 415, "image", "GIF"),
        ({"body": b"GIF89a"}, 415, "image", "GIF"),
        ({"body": jpeg()[:300]}, 400, "image", "JPEG is truncated"),
        (body(img_data=[[[1, 2, 3], [4, 5]]]), 400, "img_data", "ragged"),
        (body(img_data=[[[1.5, 2, 3]]]), 400, "img_data", "1.5"),
        (body(img_data=[[[300, 2, 3]]]), 400, "img_data", "300"),
        (body(img_data=None), 400, "img_data", "None"),
        ({"body": png(200, 200)}, 413, "image", "10,000 pixels"),
        ({"body": bytes(20_001)}, 413, "body", "20,000 bytes, got 20,001"),
        ({"image": png(), "steps": bytes(20_000)}, 413, "body", "20,000 bytes"),
        (body(image=BASE64, step=5), 400, "step", "did you mean 'steps'"),
        (body(image=BASE64, segment="slic"), 400, "segment", "did you mean 'segments'"),
        ({"image": png(), "mask": b"x"}, 400, "mask", "unknown option"),
        (body(image=BASE64, target_class=1.5), 400, "target_class", "1.5"),
        (body(image=BASE64, target_class=True), 400, "target_class", "True"),
        (body(image=BASE64, target_class={"cat": 1}), 400, "target_class", "{'cat': 1}"),
        (body(image=BASE64, target_class=[]), 400, "target_class", "or a list of them, got []"),
        (body(image=BASE64, target_class=["cat", []]), 400, "target_class", "wanted a label or an index, got []"),
        (body(image=BASE64, target_class=[0] * 21), 413, "target_class", "wanted at most 20 classes, got 21"),
        (body(image=BASE64, contrast_class=["cat"]), 400, "contrast_class", "['cat']"),
        (body(image=BASE64, target_class=""), 400, "target_class", "0 characters"),
        (body(image=BASE64, target_class="x" * 201), 400, "target_class", "201"),
        (body(image=BASE64, method="occlusions"), 400, "method", "occlusion"),
        (body(image=BASE64, method=3), 400, "method", "3"),
        (body(image=BASE64, quadrature="simpson"), 400, "quadrature", "trapezoid"),
        (body(image=BASE64, baseline="blurred"), 400, "baseline", "did you mean 'blur'?"),
        (body(image=BASE64, baseline=0), 400, "baseline", "zero"),
        (body(image=BASE64, target_class=["x" * 10_000]), 400, "target_class", "10,000 bytes"),
        (body(image=BASE64, steps=0), 400, "steps", "1..100, got 0"),
        (body(image=BASE64, steps=-3), 400, "steps", "-3"),
        (body(image=BASE64, steps=2.0), 400, "steps", "2.0"),
        (body(image=BASE64, steps="20"), 400, "steps", "'20'"),
        (body(image=BASE64, steps=True), 400, "steps", "True"),
        (body(image=BASE64, steps=101), 413, "steps", "1..100, got 101"),
        (body(image=BASE64, steps=10**30), 413, "steps", "1..100"),
        (body(image=BASE64, outputs="output"), 400, "outputs", "'output'"),
        (body(image=BASE64, outputs=["gradients"]), 400, "outputs", "integrated_grads"),
        (body(image=BASE64, outputs=[1]), 400, "outputs", "unknown output 1"),
        ({"body": b'{"target_class": "\xff", "image": "' + BASE64.encode() + b'"}'}, 400, "target_class", "utf-8"),
        ({"image": png(), "target_class": b"\xff"}, 400, "target_class", "UTF-8"),
        ({"image": png(), "steps": b"2.5"}, 400, "steps", "2.5"),
        ({"image": png(), "steps": b"1000"}, 413, "steps", "1000"),
        ({"image": png(), "steps": 5}, 400, "steps", "text"),
        ({"image": png(), "outputs": b"output;step_sizes"}, 400, "outputs", "unknown output"),
    ],
)
def test_bad_requests(row: dict[str, Any], status: int, field: str, words: str) -> None:
    got = refused_request(row)
    assert got[:2] == (status, field), got
    assert words in got[2]


@pytest.mark.parametrize(
    ("header", "field", "words"),
    [
        ("steps=1&steps=2", EXPLAIN, "'steps' more than once"),
        ("steps", EXPLAIN, "form-encoded"),
        ("target_class=%ff", EXPLAIN, "utf-8"),
        ("&".join(f"o{i}=1" for i in range(40)), EXPLAIN, "form-encoded"),
        ("segment=slic", "segment", "unknown option"),
        ("target_class=", "target_class", "0 characters"),
        ("steps=", "steps", "''"),
    ],
)
def test_bad_options_in_the_header(header: str, field: str, words: str) -> None:
    got = refused_request({"body": png()}, x_explain_options=header)
    assert got[:2] == (400, field), got
    assert words in got[2]


def test_an_option_in_two_places() -> None:
    assert refused_request(body(image=BASE64, steps=5), x_explain_options="steps=5")[:2] == (400, "steps")
    assert refused_request({"image": png(), "steps": b"5"}, x_explain_options="steps=5")[:2] == (400, "steps")


def test_empty_json_body_is_an_empty_body() -> None:
    assert refused_request({"body": b""}, content_type="application/json")[:2] == (400, "image")
    assert refused_request({"body": b"  "}, content_type="application/json; charset=utf-8")[:2] == (400, "body")


def test_the_image_is_decoded_last() -> None:
    assert refused_request({"image": jpeg()[:300], "steps": b"0"})[1] == "steps"


values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=8,
)
names = st.sampled_from(["image", "img_data", "target_class", "steps", "outputs", "method", "other"])
headers = st.dictionaries(
    st.sampled_from(["accept", "content-type", "x-explain-options"]),
    st.one_of(st.text(), st.sampled_from(["application/json", "*/*", "steps=3", "image/png;q=0.3"])),
)
kinds = st.sampled_from(["prediction", "explanation"])


def survives(row: dict[str, Any], given_headers: dict[str, str], kind: Kind) -> None:
    error = refusal(parse, row, given_headers, kind=kind, limits=LIMITS)
    if error is not None:
        assert error.status in (400, 406, 413, 415)
        assert json.loads(error.body())["code"] == error.status


@given(
    st.binary(max_size=100),
    st.sampled_from([b"", b"{", b'{"image":"', b'{"img_data":[[', b"\xff\xd8\xff"]),
    headers,
    kinds,
)
def test_arbitrary_bytes(data: bytes, start: bytes, given_headers: dict[str, str], kind: Kind) -> None:
    survives({"body": start + data}, given_headers, kind)


@given(st.dictionaries(names, values), headers, kinds)
def test_arbitrary_json(fields: dict[str, Any], given_headers: dict[str, str], kind: Kind) -> None:
    survives({"body": json.dumps(fields).encode("utf-8", "replace")}, given_headers, kind)
    survives({"body": fields}, given_headers, kind)


@given(
    st.dictionaries(st.one_of(names, st.just("body"), st.text()), st.one_of(st.binary(), st.text(), values)),
    headers,
    kinds,
)
def test_arbitrary_parts(row: dict[str, Any], given_headers: dict[str, str], kind: Kind) -> None:
    survives(row, given_headers, kind)


# Targets

LABELS = ("airplane", "automobile", "bird", "cat", "7", "crane", "crane")


@pytest.mark.parametrize(
    ("target", "index"), [("airplane", 0), ("cat", 3), (2, 2), ("2", 2), ("06", 6), ("7", 4), (6, 6), (0, 0)]
)
def test_targets(target: str | int, index: int) -> None:
    assert resolve_target(target, LABELS) == index


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("airplanes", "did you mean 'airplane'"),
        ("Cat", "did you mean 'cat'"),
        ("zebra", "known: airplane, automobile"),
        (7, "0..6, got 7"),
        (-1, "0..6, got -1"),
        ("-1", "0..6"),
        ("99", "0..6, got '99'"),
        ("9" * 50, "0..6"),
        ("crane", "2 classes of this model; wanted one of the indices 5, 6"),
    ],
)
def test_targets_that_are_none(target: str | int, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        resolve_target(target, LABELS)
    assert (caught.value.status, caught.value.field) == (422, "target_class")
    assert words in caught.value.message


def test_a_thousand_labels_are_not_listed() -> None:
    with pytest.raises(RequestError) as caught:
        resolve_target("label", [f"label {i}" for i in range(1000)])
    assert len(caught.value.message) < 200


# Accept


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("", GZIP),
        ("*/*", GZIP),
        ("*", GZIP),
        ("application/json", JSON),
        ("Application/JSON; charset=utf-8", JSON),
        ("image/*", PNG),
        ("application/*", GZIP),
        ("application/x-safetensors", SAFETENSORS),
        ("application/json, text/plain, */*", JSON),
        ("image/png;q=0.5, application/json;q=0.9", JSON),
        ("application/json;q=0.5, image/png", PNG),
        ("image/png, application/json", PNG),
        ("application/json, image/png", JSON),
        ("*/*, application/gzip;q=0", JSON),
        ("application/*;q=0.2, application/gzip;q=0, image/png;q=0.1", JSON),
        ("text/html, */*;q=0.8", GZIP),
        ("text/html,image/avif,image/webp,*/*;q=0.001", GZIP),
        ("application/json ; q = 0.5 , image/png ; q=0.4", JSON),
    ],
)
def test_accept(accept: str, media: str) -> None:
    assert negotiate(accept, MEDIA["explanation"]) == media


@pytest.mark.parametrize("accept", ["text/html", "image/jpeg", "application/json;q=0", "*/*;q=0", "json"])
def test_nothing_acceptable(accept: str) -> None:
    with pytest.raises(RequestError, match="406 accept: wanted one of application/gzip, application/json"):
        negotiate(accept, MEDIA["explanation"])


@pytest.mark.parametrize("accept", ["application/json;q=2", "*/*;q=x", "*/*;q=", "*/*;q=-1", "*/*;q=1.5"])
def test_bad_quality(accept: str) -> None:
    with pytest.raises(RequestError, match="400 accept"):
        negotiate(accept, MEDIA["explanation"])


def test_predictions_have_no_picture() -> None:
    assert negotiate("*/*", MEDIA["prediction"]) == JSON
    assert refused_request({"body": png()}, kind="prediction", accept="image/png")[:2] == (406, "accept")


def test_unbounded_names_and_values_are_refused_briefly() -> None:
    many = {"body": bytearray(json.dumps({f"\x7f{index}" * 20: 1 for index in range(60)}).encode())}
    for row in (many, body(**{"n" * 10_000: 1}), {"image": png(), "method": b"m" * 15_000}):
        status, field, message = refused_request(row)
        assert status == 400
        assert len(field) + len(message) < 3000


def test_the_trapezoid_needs_two_steps() -> None:
    assert ask(body(image=BASE64, quadrature="trapezoid", steps=2)).path.steps == 2
    status, field, message = refused_request(body(image=BASE64, quadrature="trapezoid", steps=1))
    assert (status, field) == (400, "steps")
    assert "trapezoid" in message


@pytest.mark.parametrize("layout", ["hwc", "chw"])
def test_mask_servers_take_both_layouts_and_classifiers_their_own(layout: Layout) -> None:
    defaults = Defaults(layout=layout, order="bgr")
    for nested in ([[[3, 2, 1], [6, 5, 4]]], [[[3, 6]], [[2, 5]], [[1, 4]]]):
        request = parse(body(img_data=nested), {}, kind="prediction", defaults=defaults, contract=Segmenter.contract)
        photo = request.photo
        assert np.asarray(photo.image).tolist() == [[[1, 2, 3], [4, 5, 6]]]
    assert refused_request(body(img_data=[[[3, 6]], [[2, 5]], [[1, 4]]]))[:2] == (400, "img_data")


SYNONYMS = (
    "tench, Tinca tinca",
    "traffic light, traffic signal, stoplight",
    "crane, bird",
    "crane, machine",
    "9, nine",
    "maillot",
    "maillot, tank suit",
    "cock",
)


@pytest.mark.parametrize(
    ("target", "index"),
    [
        ("traffic light", 1),
        ("stoplight", 1),
        ("traffic light, traffic signal, stoplight", 1),
        ("Tinca tinca", 0),
        ("bird", 2),
        ("maillot", 5),  # the whole label of one class and a synonym of another
        ("nine", 4),
        ("4", 4),
        ("cock", 7),
    ],
)
def test_a_synonym_of_one_class_names_it(target: str, index: int) -> None:
    assert resolve_target(target, SYNONYMS) == index


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("crane", "wanted one of the indices 2, 3 (2 'crane, bird', 3 'crane, machine')"),
        ("trafic light", "did you mean 'traffic light'"),
        ("Stoplight", "did you mean 'stoplight'"),
        ("light", "did you mean 'traffic light'"),
        ("9", "wanted a class index in 0..7, got '9'"),
        ("", "or an index in 0..7"),
        (",", "or an index in 0..7"),
    ],
)
def test_synonyms_of_none_or_several_classes(target: str, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        resolve_target(target, SYNONYMS)
    assert (caught.value.status, caught.value.field) == (422, "target_class")
    assert words in caught.value.message


def test_several_targets_as_json_and_as_text() -> None:
    (several, as_text, bracketed) = (
        ask(body(image=BASE64, target_class=["cat", 3])),
        ask({"image": png(), "target_class": b'["cat", 3]', "contrast_class": b"a, b"}),
        ask({"image": png(), "target_class": b"[cat]"}),
    )
    assert several.targets == as_text.targets == ("cat", 3) and several.target is as_text.target is None
    assert (bracketed.target, bracketed.targets, as_text.contrast) == ("[cat]", (), "a, b")
