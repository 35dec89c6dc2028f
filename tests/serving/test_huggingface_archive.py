"""A folder of transformers' from `make archives` to answers over HTTP: equal to the library's own on the same photo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from imagexplain.archive.build import build_all
from imagexplain.archive.spec import ClassifierSpec, SpecError
from imagexplain.attribution import attention_rollout
from imagexplain.checkout import ROOT
from imagexplain.client import Client
from imagexplain.ops.server import ServerError, free_port, start, stop
from tests.attribution.same_weights import Logits
from tests.models import huggingface_folders
from tests.serving import archives
from tests.tensors import unpacked

SPEC = ROOT / "archive_specs" / "huggingface.yaml"


def written(folder: Path, family: str = "vit", shards: str = "1GB", **config: Any) -> tuple[Any, Any]:
    """The network and the image processor of a folder, which is written."""
    network = huggingface_folders.network(family, **config)
    network.save_pretrained(folder, max_shard_size=shards)
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32})
    processor.save_pretrained(folder)
    return network, processor


def build(folder: Path, store: Path, spec: Path = SPEC, **variables: Path) -> dict[str, bytes]:
    """Files of the archive that the repository's spec makes of a folder."""
    named = {name: str(path) for name, path in ({"HUGGINGFACE_MODEL": folder} | variables).items()}
    (path,) = build_all([spec], store, environ=named)
    return archives.files_of(path)


def test_an_archive_is_asked_over_http(tmp_path: Path, run: Path, scene_file: Path) -> None:
    network, processor = written(tmp_path / "folder")
    files = build(tmp_path / "folder", tmp_path / "store")
    pixels = processor(Image.open(scene_file).convert("RGB"), return_tensors="pt").pixel_values
    with torch.no_grad():
        expected = network(pixels).logits[0].softmax(0)
    server = start(store=tmp_path / "store", run=run, port=free_port())
    client = Client(server.inference, headers=server.headers())
    found = client.photo("predictions/huggingface", scene_file, accept="application/json").json()
    probabilities = {row["index"]: (row["label"], row["probability"]) for row in found["predictions"]}
    assert [probabilities[index][0] for index in range(5)] == ["cat", "crane (1)", "dog", "crane (3)", "owl"]
    assert torch.allclose(torch.tensor([probabilities[index][1] for index in range(5)]), expected, atol=1e-5)
    options = {"method": "attention_rollout", "target_class": "owl"}
    answer = client.photo("explanations/huggingface", scene_file, accept="application/gzip", options=options)
    rolled = attention_rollout(Logits(network), pixels, 4)
    assert torch.allclose(unpacked(answer.body)["map"].reshape(32, 32), rolled[0, 0], atol=1e-5)
    stop(run)

    (tmp_path / "lacking").mkdir()
    absent = b"raise ModuleNotFoundError('No module named transformers', name='transformers')\n"
    archives.seal(archives.pack(tmp_path / "lacking" / "huggingface.mar", files | {"transformers.py": absent}))
    with pytest.raises(ServerError, match=r"wants the package transformers, which is not installed here: pip install"):
        start(store=tmp_path / "lacking", run=run, port=free_port())


def test_the_spec_is_the_folders_own(tmp_path: Path) -> None:
    written(tmp_path / "folder", shards="8KB", problem_type="multi_label_classification")
    files = build(tmp_path / "folder", tmp_path / "store")
    spec = ClassifierSpec.model_validate_json(files["spec.json"])
    assert (spec.architecture, spec.head.activation) == ("huggingface/vit", "sigmoid")
    assert spec.labels == ("cat", "crane (1)", "dog", "crane (3)", "owl")
    stated = spec.preprocess.model_dump()
    assert {key: stated[key] for key in ("size", "resize", "fit", "resampling", "crop_offset", "interpolation")} == {
        "size": (32, 32),
        "resize": 40,
        "fit": "crop",
        "resampling": "torch",
        "crop_offset": "floor",
        "interpolation": "bicubic",
    }
    assert not any(name.endswith((".bin", "config.json")) and "/" not in name for name in files)
    assert set(json.loads(files["methods.json"])["supported"]) >= {"attention_rollout", "grad_cam"}


def test_a_part_of_the_weights_that_changes_is_built_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path / "folder", shards="8KB")
    before = build(tmp_path / "folder", tmp_path / "store")
    assert build(tmp_path / "folder", tmp_path / "store") == before and "up to date" in capsys.readouterr().out
    for part in (tmp_path / "folder").glob("model-*.safetensors"):
        tensors = load_file(part)
        if "classifier.bias" in tensors:
            save_file(tensors | {"classifier.bias": tensors["classifier.bias"] + 1}, part)
    after = build(tmp_path / "folder", tmp_path / "store")
    assert {name for name in after if after[name] != before[name]} >= {"model.safetensors"}


def test_what_stands_in_the_spec_wins(tmp_path: Path) -> None:
    written(tmp_path / "folder", "resnet")
    (tmp_path / "labels.txt").write_text("\n".join("abcde"))
    content = yaml.safe_load(SPEC.read_text()) | {
        "preprocess": {"size": [64, 48], "fit": "stretch", "resampling": "pillow"},
        "head": {"temperature": 2.0},
    }
    spec = tmp_path / "own.yaml"
    spec.write_text(yaml.safe_dump(content))
    files = build(tmp_path / "folder", tmp_path / "store", spec, HUGGINGFACE_LABELS=tmp_path / "labels.txt")
    found = ClassifierSpec.model_validate_json(files["spec.json"])
    assert (found.labels, found.head.temperature) == (tuple("abcde"), 2.0)
    assert (found.preprocess.size, found.preprocess.fit, found.preprocess.resampling) == ((64, 48), "stretch", "pillow")
    assert found.preprocess.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073)), "the folder's"


def test_one_output_is_a_value_or_a_logit(tmp_path: Path) -> None:
    written(tmp_path / "age", "resnet", num_labels=1, id2label={0: "age"})
    spec = ClassifierSpec.model_validate_json(build(tmp_path / "age", tmp_path / "store")["spec.json"])
    assert (spec.labels, spec.head.activation) == (("age",), "none")
    written(tmp_path / "cat", "resnet", num_labels=1, id2label={0: "cat"}, problem_type="multi_label_classification")
    spec = ClassifierSpec.model_validate_json(build(tmp_path / "cat", tmp_path / "store")["spec.json"])
    assert (spec.labels, spec.head.activation) == (("not cat", "cat"), "sigmoid")


def test_refusals_name_file_and_field(tmp_path: Path) -> None:
    written(tmp_path / "folder")

    def refused(**config: Any) -> str:
        file = tmp_path / "folder" / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | config))
        with pytest.raises(SpecError) as error:
            build(tmp_path / "folder", tmp_path / "store")
        return str(error.value)

    start_of_all = f"{SPEC}: weights: {tmp_path / 'folder'}"
    assert refused(image_size=48).startswith(f"{start_of_all}/model.safetensors: the checkpoint does not fit the model")
    by_variable = f"{start_of_all} (from HUGGINGFACE_MODEL): config.json: "
    assert refused(image_size=32, auto_map={"AutoModel": "own.Net"}).startswith(f"{by_variable}auto_map: ")
    assert refused(auto_map=None, architectures=["ViTModel"]).startswith(f"{by_variable}architectures: ")
    assert refused(architectures=None, model_type="gpt2").startswith(f"{by_variable}model_type: ")
    processor = tmp_path / "folder" / "preprocessor_config.json"
    processor.write_text(json.dumps({"image_processor_type": "ViTImageProcessor", "size": {"height": 40, "width": 40}}))
    assert "Input image size (40*40) doesn't match model" in refused(model_type="vit")
