from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from imagexplain.archive.spec import (
    CaptionerFile,
    ClassifierFile,
    ClassifierSpec,
    SegmenterFile,
    SegmenterSpec,
    SpecError,
    load,
    select,
    select_each,
)
from imagexplain.ops.server import ROOT
from tests.serving.archives import SPEC, write_spec


def test_a_spec_resolves_to_what_a_worker_reads(tmp_path: Path) -> None:
    (archive,) = select([write_spec(tmp_path)], {})
    assert archive.weights == tmp_path / "small.safetensors"
    assert archive.model.labels == ("cat", "dog")
    assert archive.model.explain.steps == 50
    (tmp_path / "spec.json").write_text(archive.model.to_json())
    assert ClassifierSpec.read(tmp_path) == archive.model


def test_weights_of_an_installed_package(tmp_path: Path) -> None:
    path = write_spec(tmp_path, weights={"package": "torch", "path": "version.py", "environment": "OWN"})
    (archive,) = select([path], {})
    assert archive.weights == Path(torch.__file__).parent / "version.py"
    (archive,) = select([path], {"OWN": str(tmp_path / "small.safetensors")})
    assert archive.weights == tmp_path / "small.safetensors"


def test_a_spec_whose_package_is_missing_keeps_its_name_and_stops_no_other(tmp_path: Path) -> None:
    missing = write_spec(tmp_path, "a.yaml", name="a", weights={"package": "no_such_package", "path": "a.pth"})
    rival, other = write_spec(tmp_path, "rival.yaml", name="a"), write_spec(tmp_path, "b.yaml", name="b")
    archives, failures = select_each([missing, rival, other], {})
    assert [archive.model.name for archive in archives] == ["b"]
    assert [str(failure).partition(": ")[2] for failure in failures] == [
        "package: wanted an installed package, given no_such_package"
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red"}, "small.yaml: colour: Extra inputs are not permitted (given 'red')"),
        ({"name": "a b"}, "small.yaml: name: String should match pattern"),
        ({"name": None}, "small.yaml: name: Field required"),
        ({"serving": {"batch_size": 0}}, "small.yaml: serving.batch_size: Input should be greater than 0 (given 0)"),
        ({"serving": {"deadline_fraction": 1}}, "small.yaml: serving.deadline_fraction: Input should be less than 1"),
        ({"explain": {"quadrature": "simpson"}}, "small.yaml: explain.quadrature: Input should be 'gauss_legendre'"),
        ({"explain": {"steps": 2000}}, "small.yaml: spec: Value error, explain.steps is 2000, above limits.max_steps"),
        (
            {"preprocess": {**SPEC["preprocess"], "std": [1, 0, 1]}},
            "small.yaml: preprocess.std.1: Input should be greater",
        ),
        (
            {"preprocess": {**SPEC["preprocess"], "resize": 40}},
            "small.yaml: preprocess: Value error, resize: goes with fit: crop",
        ),
        (
            {"preprocess": {**SPEC["preprocess"], "channels": "grey"}},
            "small.yaml: preprocess: Value error, mean: wanted one number for each channel of grey, 1, got 3",
        ),
        (
            {"preprocess": {**SPEC["preprocess"], "fit": "cover"}},
            "small.yaml: preprocess.fit: Input should be 'stretch'",
        ),
        ({"weights": {}}, "small.yaml: weights: Value error, wants a path, or `environment:`"),
        ({"weights": {"package": "torch"}}, "small.yaml: weights: Value error, wants a path, or `environment:`"),
        (
            {"weights": {"package": "torch", "environment": "W"}},
            "small.yaml: weights: Value error, package: wants a `path:`",
        ),
        ({"weights": {"package": "../torch", "path": "a.pth"}}, "small.yaml: weights.package: String should match"),
        (
            {"weights": {"package": "no_such_package", "path": "a.pth"}},
            "small.yaml: package: wanted an installed package, given no_such_package",
        ),
        ({"weights": {"package": "torch", "path": "missing.pth"}}, "small.yaml: weights: no such file: "),
        ({"weights": "missing.npz"}, "small.yaml: weights: no such file: "),
        ({"labels": ["cat", "cat"]}, "small.yaml: labels: Value error, wants different names, cat repeats"),
        ({"labels": ["cat"]}, "small.yaml: labels: Tuple should have at least 2 items"),
        ({"labels": []}, "small.yaml: labels: Value error, wants a path"),
        ({"labels": "missing.txt"}, "small.yaml: labels: no such file: "),
        ({"labels": {"environment": "LABELS"}}, "small.yaml: labels: the environment variable LABELS is not set"),
    ],
)
def test_errors_name_file_and_field(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as error:
        select([write_spec(tmp_path, **changes)], {})
    assert message in str(error.value)


TIMM: dict[str, Any] = {"architecture": "timm/vit_tiny_patch16_224", "arguments": {"img_size": 64}}


def test_a_timm_models_preprocessing_is_timms_but_for_what_the_spec_says(tmp_path: Path) -> None:
    (archive,) = select([write_spec(tmp_path, **TIMM, preprocess={"crop_fraction": 1.0})], {})
    assert isinstance(archive.model, ClassifierSpec)
    found = archive.model.preprocess
    assert (found.size, found.mean, found.std) == ((64, 64), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert (found.fit, found.crop_fraction, found.interpolation) == ("crop", 1.0, "bicubic")
    assert archive.model.arguments == {"img_size": 64}
    (archive,) = select([write_spec(tmp_path, **TIMM, preprocess=None)], {})
    assert isinstance(archive.model, ClassifierSpec) and archive.model.preprocess.crop_fraction == 0.9


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        ({}, {"fit": "crop", "resize": (246, 246)}),
        ({"crop_fraction": 0.8}, {"fit": "crop", "crop_fraction": 0.8}),
        ({"fit": "stretch"}, {"fit": "stretch"}),
        ({"fit": "pad", "pad_mode": "edge"}, {"fit": "pad", "pad_mode": "edge"}),
        ({"resize": 300}, {"fit": "crop", "resize": 300}),
    ],
)
def test_a_way_to_the_size_replaces_the_librarys(tmp_path: Path, own: dict[str, Any], wanted: dict[str, Any]) -> None:
    changes: dict[str, Any] = {"architecture": "timm/dm_nfnet_f1.dm_in1k", "preprocess": own or None}
    (archive,) = select([write_spec(tmp_path, **changes)], {})
    assert isinstance(archive.model, ClassifierSpec)
    found = archive.model.preprocess.model_dump()
    usual = {"size": (224, 224), "mean": found["mean"], "std": found["std"], "interpolation": "bicubic"}
    assert found == usual | {"crop_fraction": 1.0} | wanted


def test_grey_photos_want_statistics_of_their_own(tmp_path: Path) -> None:
    grey = {**TIMM, "arguments": {"img_size": 64, "in_chans": 1}}
    with pytest.raises(SpecError, match="mean: wanted one number for each channel of grey, 1, got 3"):
        select([write_spec(tmp_path, **grey, preprocess={"channels": "grey"})], {})
    (archive,) = select(
        [write_spec(tmp_path, **grey, preprocess={"channels": "grey", "mean": [0.5], "std": [0.5]})], {}
    )
    assert isinstance(archive.model, ClassifierSpec) and archive.model.preprocess.channels == "grey"


def test_an_architecture_by_a_variable(tmp_path: Path) -> None:
    path = write_spec(tmp_path, architecture={"environment": "OWN_MODEL"})
    with pytest.raises(SpecError, match=r"small\.yaml: architecture: the environment variable OWN_MODEL is not set"):
        select([path], {})
    (archive,) = select([path], {"OWN_MODEL": "lanet"})
    assert isinstance(archive.model, ClassifierSpec) and archive.model.architecture == "lanet"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"architecture": "resnet18", "preprocess": None},
            "small.yaml: architecture: wanted one of bit, lanet, ",
        ),
        ({"architecture": "timm/resnet18s", "preprocess": None}, "small.yaml: architecture: wanted timm/ and the name"),
        ({**TIMM, "preprocess": {"colour": 1}}, "small.yaml: preprocess.colour: Extra inputs are not permitted"),
        ({"preprocess": {"size": [32, 32]}}, "small.yaml: preprocess.mean: Field required"),
        ({"explain": {"method": "gradcam"}}, "small.yaml: explain.method: Value error, wants one of"),
    ],
)
def test_errors_of_a_timm_models_spec(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as error:
        select([write_spec(tmp_path, **changes)], {})
    assert message in str(error.value)


SEGMENTER: dict[str, Any] = {"handler": "segmenter", "engine": "torchvision", "preprocess": None, "architecture": None}


def test_a_segmenters_spec(tmp_path: Path) -> None:
    (tmp_path / "model.py").touch()
    changes = SEGMENTER | {"engine": "mmdet", "config": "model.py", "threshold": 0.25}
    (archive,) = select([write_spec(tmp_path, **changes)], {})
    assert isinstance(archive.model, SegmenterSpec) and archive.config == tmp_path / "model.py"
    (tmp_path / "spec.json").write_text(archive.model.to_json())
    assert SegmenterSpec.read(tmp_path) == archive.model


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            SEGMENTER | {"serving": {"precision": "tf32"}},
            "small.yaml: spec: Value error, serving.precision: wanted float32 of a segmenter, got tf32",
        ),
        ({"handler": "ranker"}, "small.yaml: handler: wants one of classifier, segmenter, captioner (given 'ranker')"),
        (SEGMENTER | {"engine": "keras"}, "small.yaml: engine: Input should be 'torchvision', 'detectron2' or 'mmdet'"),
        (SEGMENTER | {"engine": "mmdet"}, "config: goes with engine mmdet, which wants one"),
        (SEGMENTER | {"config": "model.py"}, "config: goes with engine mmdet"),
        (SEGMENTER | {"engine": "mmdet", "config": "gone.py"}, "small.yaml: config: no such file: "),
        (SEGMENTER | {"architecture": "bit"}, "small.yaml: architecture: Extra inputs are not permitted"),
        (SEGMENTER | {"labels": {"from_weights": True}}, "labels.from_weights: goes with a classifier"),
        (SEGMENTER | {"threshold": 2}, "small.yaml: threshold: Input should be less than or equal to 1"),
    ],
)
def test_errors_of_a_segmenters_spec(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as error:
        select([write_spec(tmp_path, **changes)], {})
    assert message in str(error.value)


def test_every_fault_of_a_file_is_listed(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as error:
        load(write_spec(tmp_path, name="a b", architecture=""))
    assert str(error.value).count("\n") == 1


@pytest.mark.parametrize(("text", "message"), [("- a\n", "holds list"), ("a: [", "cannot be read as YAML")])
def test_a_file_that_is_no_spec_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "odd.yaml").write_text(text)
    with pytest.raises(SpecError, match=rf"odd\.yaml: .*{message}"):
        load(tmp_path / "odd.yaml")


def test_a_users_weights_and_labels_replace_the_demonstrations(tmp_path: Path) -> None:
    demonstration = write_spec(tmp_path)
    (tmp_path / "animals.txt").write_text("cat\ndog\n\n")
    labels = {"environment": "OWN_LABELS", "path": "animals.txt"}
    full = write_spec(tmp_path, "small_full.yaml", weights={"environment": "OWN_WEIGHTS"}, labels=labels)
    own = tmp_path / "own.pth"
    own.touch()
    (tmp_path / "own.txt").write_text("left\nright\n")

    assert [archive.source for archive in select([full, demonstration], {})] == [demonstration]
    assert [archive.source for archive in select([full, demonstration], {"OWN_WEIGHTS": ""})] == [demonstration]
    (archive,) = select([full, demonstration], {"OWN_WEIGHTS": str(own)})
    assert (archive.source, archive.weights, archive.model.labels) == (full, own, ("cat", "dog"))
    (archive,) = select([full], {"OWN_WEIGHTS": str(own), "OWN_LABELS": str(tmp_path / "own.txt")})
    assert archive.model.labels == ("left", "right")
    with pytest.raises(SpecError, match=r"small_full\.yaml: weights: no such file: .*gone\.pth \(from OWN_WEIGHTS\)"):
        select([full, demonstration], {"OWN_WEIGHTS": str(tmp_path / "gone.pth")})


def test_two_specs_with_the_same_claim_to_a_name_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"twin\.yaml: name: 'small' is also the name in .*small\.yaml"):
        select([write_spec(tmp_path), write_spec(tmp_path, "twin.yaml")], {})


def test_versions_of_one_name_stand_side_by_side(tmp_path: Path) -> None:
    """In order of their numbers, and each claimed once; another version's variable replaces none of them."""
    versions = {"b": "1.10", "a": "1.9", "c": "1.0"}
    specs = [write_spec(tmp_path, f"{file}.yaml", version=version) for file, version in versions.items()]
    own = write_spec(tmp_path, "own.yaml", version="1.9", weights={"environment": "OWN"})
    found = [(archive.source.stem, archive.model.address) for archive in select([*specs, own], {})]
    assert found == [("c", "small"), ("a", "small/1.9"), ("b", "small/1.10")]
    replaced = select([*specs, own], {"OWN": str(tmp_path / "small.safetensors")})
    assert [archive.source.stem for archive in replaced] == ["c", "own", "b"]
    assert [archive.model.file_name for archive in replaced] == ["small", "small@1.9", "small@1.10"]
    twin = write_spec(tmp_path, "twin.yaml", version="1.9")
    with pytest.raises(
        SpecError, match=r"twin\.yaml: name: 'small' is also the name in .*a\.yaml, and both are version 1\.9"
    ):
        select([*specs, twin], {})


@pytest.mark.parametrize("version", [1.1, 2])
def test_a_version_is_no_number(tmp_path: Path, version: float) -> None:
    with pytest.raises(
        SpecError, match=rf"version: Value error, wants quotes.* version: '{version}' \(given {version}"
    ):
        select([write_spec(tmp_path, version=version)], {})


def test_labels_that_the_weights_are_to_tell(tmp_path: Path) -> None:
    """A file of the user's goes before."""
    path = write_spec(tmp_path, labels={"environment": "OWN_LABELS", "from_weights": True})
    (tmp_path / "own.txt").write_text("left\nright\n")
    (given,) = select([path], {"OWN_LABELS": str(tmp_path / "own.txt")})
    assert given.model.labels == ("left", "right") and given.with_labels(3, ["a", "b", "c"]) == given
    (untold,) = select([path], {})
    assert untold.with_labels(3, None).model.labels == ("0", "1", "2")
    assert untold.with_labels(3, ["a", "b"]).model.labels == ("0", "1", "2")
    assert untold.with_labels(2, ["hall", "attic"]).model.labels == ("hall", "attic")
    with pytest.raises(SpecError, match=r"small\.yaml: labels: Tuple should have at least 2 items"):
        untold.with_labels(1, None)


@pytest.mark.parametrize("path", sorted((ROOT / "archive_specs").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_repositorys_specs_are_valid_and_fit_the_servers_limits(path: Path) -> None:
    properties = dict(
        line.split("=", 1) for line in (ROOT / "config.properties").read_text().splitlines() if "=" in line
    )
    spec = load(path)
    assert isinstance(spec, ClassifierFile | SegmenterFile | CaptionerFile)
    assert spec.limits.max_bytes < int(properties["max_request_size"])
    assert spec.limits.max_response_bytes < int(properties["max_response_size"])
