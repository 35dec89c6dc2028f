"""A model's own explanation spec: what clients of Vertex AI get who ask for nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.cloud.aiplatform_v1.types import ExplanationSpec

from handlers.classifier import ClassifierHandler
from imagexplain.archive.spec import SpecError, load, select
from imagexplain.checkout import ROOT
from imagexplain.cli import build
from tests.serving.asking import base64_png
from tests.serving.fake_torchserve import Context
from tests.serving.handlers import classifier_of, write_timm

DEPLOYED = {
    "parameters": {
        "integratedGradientsAttribution": {"stepCount": 8, "smoothGradConfig": {"noiseSigma": 0.5}},
        "topK": 2,
    },
    "metadata": {
        "inputs": {"photo": {"inputBaselines": [{"b64": base64_png(3)}], "featureValueDomain": {"maxValue": 255}}},
        "outputs": {"logits": {"indexDisplayNameMapping": ["Katze", "Hund", "Fuchs", "Eule"]}},
    },
}


@pytest.fixture(scope="module")
def handlers(tmp_path_factory: pytest.TempPathFactory) -> tuple[ClassifierHandler, ClassifierHandler]:
    """One model with a spec of its own, and without."""
    spec = ExplanationSpec.from_json(json.dumps(DEPLOYED))
    content = json.loads(ExplanationSpec.to_json(spec))  # as the package writes it, with every field
    vertex = {"explanation_spec": content, "deployed_model_id": "7788"}
    return (
        classifier_of(write_timm(tmp_path_factory.mktemp("deployed"), "resnet", vertex=vertex)),
        classifier_of(write_timm(tmp_path_factory.mktemp("plain"), "resnet")),
    )


def call(handler: ClassifierHandler, spec: Any = None, explains: bool = True, **body: Any) -> tuple[int, Any]:
    """Status and answer of a call for one image."""
    headers = {"Content-Type": "application/json", "X-Explain-Protocol": "vertex"}
    context = Context(headers=[headers | ({"explain": "True"} if explains else {})])
    asked = {"instances": [{"b64": base64_png()}], **body} | ({} if spec is None else {"explanationSpecOverride": spec})
    (answer,) = handler.handle([{"body": bytearray(json.dumps(asked).encode())}], context)
    return context.statuses[0], json.loads(answer)


def test_a_request_that_says_nothing_gets_the_models_own(
    handlers: tuple[ClassifierHandler, ClassifierHandler],
) -> None:
    own, plain = handlers
    (status, found), (_, wanted) = call(own), call(plain, DEPLOYED)
    assert status == 200, found
    assert found.pop("deployedModelId") == "7788" and wanted.pop("deployedModelId") == "resnet"
    assert found == wanted
    (one, other) = found["explanations"][0]["attributions"]
    assert one["outputName"] == "logits" and set(one["featureAttributions"]) == {"photo"}
    assert one["instanceOutputValue"] > other["instanceOutputValue"]
    assert call(own, deployedModelId="7788")[0] == 200
    assert set(call(own, explains=False)[1]["predictions"][0]) == {"ids", "displayNames", "logits", "confidences"}


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ({"parameters": {"topK": 1}}, {"parameters": {"topK": 1}}),
        (  # a method takes the place of the method, and a snake's name is the same field
            {"parameters": {"xrai_attribution": {"stepCount": 4}}},
            {"parameters": {"integratedGradientsAttribution": None, "xraiAttribution": {"stepCount": 4}}},
        ),
        (
            {"parameters": {"integratedGradientsAttribution": {"stepCount": 4}}},
            {
                "parameters": {
                    "integratedGradientsAttribution": {"stepCount": 4, "smoothGradConfig": {"noiseSigma": 0.5}}
                }
            },
        ),
        (
            {"metadata": {"inputs": {"photo": {"inputBaselines": [0, 255]}}}},
            {
                "metadata": {
                    "inputs": {"photo": {"inputBaselines": [0, 255], "featureValueDomain": {"maxValue": 255}}},
                    "outputs": DEPLOYED["metadata"]["outputs"],
                }
            },
        ),
    ],
)
def test_an_override_changes_what_it_names(
    handlers: tuple[ClassifierHandler, ClassifierHandler], override: dict[str, Any], meant: dict[str, Any]
) -> None:
    own, plain = handlers
    whole = dict(DEPLOYED)
    for name, value in meant.items():
        whole[name] = value if name == "metadata" else {**whole[name], **value}
    (status, found), (_, wanted) = call(own, override), call(plain, whole)
    assert status == 200, found
    assert found["explanations"] == wanted["explanations"]


def test_an_override_of_another_input_names_those_that_there_are(
    handlers: tuple[ClassifierHandler, ClassifierHandler],
) -> None:
    status, answer = call(handlers[0], {"metadata": {"inputs": {"phato": {"inputBaselines": [0]}}}})
    assert (status, answer["field"]) == (400, "explanationSpecOverride.metadata.inputs.phato")
    assert "did you mean 'photo'" in answer["message"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"parameters": {"xraiAttribution": {}}}, "parameters.xraiAttribution.stepCount: wanted a whole number"),
        ({"parameters": {"topk": 1}}, "parameters.topk: unknown field 'topk' (did you mean 'topK'?)"),
        ({"parameters": {"outputIndices": [4]}}, "parameters.outputIndices: wanted class indices below 4, got 4"),
        ({"metadata": {"outputs": {"y": {"indexDisplayNameMapping": ["a"]}}}}, "metadata.outputs: wanted a name for"),
        ({"metadata": {"inputs": {"x": {"inputBaselines": [{"b64": "AAAA"}]}}}}, "metadata.inputs.image: "),
        ({"metadata": {"inputs": {"x": {"inputBaselines": [3]}}}}, "wanted 0, which is black, or a value within"),
    ],
)
def test_a_faulty_one_keeps_the_worker_from_coming_up(tmp_path: Path, spec: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=r"^vertex\.explanation_spec: ") as caught:
        classifier_of(write_timm(tmp_path, "resnet", vertex={"explanation_spec": spec}))
    assert message in str(caught.value)


def test_a_faulty_one_keeps_the_archive_from_being_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = yaml.safe_load((ROOT / "archive_specs" / "bit.yaml").read_text())
    for name in ("weights", "labels"):
        spec[name] = str(ROOT / "archive_specs" / spec[name])
    (tmp_path / "deployed.json").write_text(json.dumps({"parameters": {"outputIndices": [400]}}))
    (tmp_path / "bit.yaml").write_text(yaml.safe_dump(spec | {"vertex": {"explanation_spec": "deployed.json"}}))
    assert build.main([str(tmp_path / "bit.yaml"), "--store", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    fault = "vertex.explanation_spec: parameters.outputIndices: wanted class indices below"
    assert f"error: {tmp_path / 'bit.yaml'}: {fault}" in said
    assert not list(tmp_path.glob("*.mar"))


def test_it_stands_in_a_file_that_the_archives_spec_names(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").touch()
    file = tmp_path / "spec.yaml"
    file.write_text(
        "{name: toy, architecture: bit, weights: weights.safetensors, labels: [a, b],\n"
        " preprocess: {size: [8, 8], mean: [0, 0, 0], std: [1, 1, 1], fit: stretch, crop_fraction: 1,\n"
        "              interpolation: bilinear},\n"
        ' vertex: {explanation_spec: deployed.json, deployed_model_id: "7788"}}\n'
    )
    with pytest.raises(SpecError, match=r"vertex\.explanation_spec: no such file"):
        select([file], {})
    (tmp_path / "deployed.json").write_text("{")
    with pytest.raises(SpecError, match=r"vertex\.explanation_spec: .* cannot be read as JSON"):
        select([file], {})
    (tmp_path / "deployed.json").write_text("[]")
    with pytest.raises(SpecError, match=r"vertex\.explanation_spec: Input should be a valid dictionary"):
        select([file], {})
    (tmp_path / "deployed.json").write_text(json.dumps(DEPLOYED))
    (archive,) = select([file], {})
    assert archive.model.model_dump()["vertex"] == {"deployed_model_id": "7788", "explanation_spec": DEPLOYED}
    assert tmp_path / "deployed.json" in [
        source.locate(file, {}) for source in load(file).sources if hasattr(source, "locate")
    ]
