"""Classifiers from folders of transformers': scores of every family, every file of weights, and what is refused."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModelForImageClassification, BertConfig, BertForSequenceClassification, ViTModel

from imagexplain import models
from imagexplain.attribution import METHODS
from imagexplain.attribution.runner import refusals
from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.checkpoints.state_dict import CheckpointError
from imagexplain.models.classifiers import huggingface_folder, huggingface_network, huggingface_source
from imagexplain.models.head import Head, attach
from imagexplain.models.optimize.any_network import optimize
from tests.models import huggingface_folders

GIVEN = {"size": (32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3}

OF_ATTENTION = {"attention_rollout", "gradient_rollout"}
OF_RELUS = {"guided_backprop", "guided_grad_cam"}
WHOLE_ATTENTION = (
    *("vit", "deit", "deit_distilled", "swin", "swinv2", "dinov2", "dinov2_with_registers", "beit", "clip", "siglip"),
)
RELUS = ("resnet", "regnet", "bit", "swinv2", "mobilenet_v1", "mobilenet_v2", "mobilevitv2")
LINEAR_IN_PIECES = ("resnet", "mobilenet_v1", "mobilenet_v2")
CLASSES_ONLY = ("data2vec-vision",)


def built(folder: Path) -> nn.Module:
    """The network of a folder, to its scores."""
    found = huggingface_folder.read(folder)
    state = checkpoint.read(found.weights)
    return attach(models.build(f"huggingface/{found.model_type}", state, found.arguments), Head())


@pytest.mark.parametrize("family", huggingface_folders.FAMILIES)
def test_scores_and_methods_of_every_family(family: str, tmp_path: Path) -> None:
    written, images = huggingface_folders.write(tmp_path, family), huggingface_folders.images(family)
    network = built(tmp_path)
    with torch.no_grad():
        scores, expected = network(images), written(images).logits
        library = AutoModelForImageClassification.from_pretrained(tmp_path, local_files_only=True).eval()
        assert (
            torch.equal(scores, expected) and scores.shape == (2, huggingface_folders.CLASSES) and scores.std() > 0.01
        )
        if "Teacher" not in type(written).__name__:  # of the two classes the auto class takes the first
            assert torch.equal(scores, library(images).logits)
        assert torch.allclose(optimize(network, images[:1])(images), scores, atol=1e-5)
    refused = refusals(network, images, METHODS)
    supported = set(METHODS) - set(refused)
    assert {"integrated_gradients", "grad_cam", "layer_cam", "score_cam", "rise", "xrai"} <= supported
    assert bool(OF_ATTENTION & supported) == (family in (*WHOLE_ATTENTION, "data2vec-vision"))
    assert bool(OF_RELUS & supported) == (family in RELUS)
    assert ("full_grad" in supported) == (family in LINEAR_IN_PIECES)


@pytest.mark.parametrize("family", ["vit", "resnet"])
@pytest.mark.parametrize("form", ["shards", "bin", "bin shards", "half"])
def test_every_form_of_weights(family: str, form: str, tmp_path: Path) -> None:
    written, images = huggingface_folders.network(family), huggingface_folders.images(family)
    if form == "half":
        written = written.half()
    written.save_pretrained(tmp_path, max_shard_size="8KB" if "shards" in form else "1GB")
    if "bin" in form:
        _as_pickles(tmp_path)
    found = huggingface_folder.read(tmp_path)
    assert bool(found.parts) == ("shards" in form) and len(found.parts) != 1
    assert torch.equal(built(tmp_path)(images), written.float()(images).logits)


def _as_pickles(folder: Path) -> None:
    """Replace files of safetensors by those that transformers wrote before there were any."""
    for file in folder.glob("*.safetensors"):
        torch.save(
            checkpoint.read(file), folder / file.name.replace("model", "pytorch_model").replace("safetensors", "bin")
        )
        file.unlink()
    for index in folder.glob("*.index.json"):
        content = index.read_text().replace("model-", "pytorch_model-").replace(".safetensors", ".bin")
        (folder / "pytorch_model.bin.index.json").write_text(content)
        index.unlink()


def test_an_index_is_held_to_its_files(tmp_path: Path) -> None:
    huggingface_folders.network("vit").save_pretrained(tmp_path, max_shard_size="20KB")
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    name, part = next(iter(content["weight_map"].items()))

    def written(weight_map: object) -> None:
        index.write_text(json.dumps({"weight_map": weight_map}))

    for places, message in (
        ({name: "../model.safetensors"}, "weight_map: wanted files beside the index, given '../model.safetensors'"),
        ({name: "none.safetensors"}, "weight_map: no such file: "),
        ({}, "weight_map: wanted the file of each tensor, given none"),
        ([], "wanted an index of parts, with the file of each tensor in `weight_map`"),
    ):
        written(places)
        with pytest.raises(CheckpointError, match=re.escape(f"model.safetensors.index.json: {message}")):
            huggingface_folder.read(tmp_path)
    written({key: place for key, place in content["weight_map"].items() if key != name})
    with pytest.raises(CheckpointError, match=f"^{part}: wanted the tensors that the index names; unexpected: {name}"):
        checkpoint.read(index)


def test_labels_repeat_nothing_and_the_head_is_the_folders(tmp_path: Path) -> None:
    huggingface_folders.write(tmp_path, "vit", problem_type="multi_label_classification")
    found = huggingface_source.read(tmp_path, GIVEN)
    assert found.labels == ("cat", "crane (1)", "dog", "crane (3)", "owl")
    assert (found.activation, found.preprocess) == ("sigmoid", {})
    assert not {"id2label", "label2id", "dtype", "problem_type"} & found.arguments.keys()
    assert found.arguments["num_labels"] == 5 and found.arguments["architectures"] == ["ViTForImageClassification"]
    config = json.loads((tmp_path / "config.json").read_text())
    for changes, labels, activation in (
        ({"problem_type": None}, found.labels, "softmax"),
        ({"problem_type": "regression"}, found.labels, "none"),
        ({"problem_type": None, "id2label": {"0": "age"}}, ("age",), "none"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | changes))
        again = huggingface_source.read(tmp_path, GIVEN)
        assert (again.labels, again.activation) == (labels, activation)
    (tmp_path / "config.json").write_text(json.dumps({key: config[key] for key in ("model_type", "architectures")}))
    assert huggingface_source.read(tmp_path, GIVEN).labels == ("LABEL_0", "LABEL_1")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"auto_map": {"AutoModel": "own.Net"}}, "auto_map: wanted a class of transformers' own, given one whose code"),
        ({"quantization_config": {"load_in_8bit": True}}, "quantization_config: wanted weights of floating point"),
        ({"model_type": "bert"}, "model_type: wanted huggingface/ and a type of transformers' models that classify"),
        ({"model_type": "vitt"}, "model_type: wanted .*, such as vit"),
        ({"model_type": None}, "model_type: wanted the type of a model, such as vit, given None"),
        (
            {"model_type": "timm_wrapper", "architecture": "resnet18"},
            "model_type: .*: serve its weights as timm/resnet18",
        ),
        (
            {"model_type": "imagegpt", "architectures": None},
            "model_type: wanted a model of images alone, imagegpt takes",
        ),
        ({"architectures": ["ViTModel"]}, "architectures: wanted ViTForImageClassification, .*, given ViTModel"),
        ({"architectures": []}, "architectures: wanted a list of one class's name, given []"),
        (
            {"id2label": {"0": "cat", "2": "dog"}},
            "id2label: wanted the indices 0 to 1 of 2 classes, given '2' among them",
        ),
        ({"id2label": ["cat", "dog"]}, "id2label: wanted the name of each class by its index"),
        ({"problem_type": "ranking"}, "problem_type: wanted one of single_label_classification, "),
    ],
)
def test_a_configuration_that_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    huggingface_folders.write(tmp_path, "vit")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(CheckpointError, match=f"^config.json: {message.replace('[]', re.escape('[]'))}"):
        huggingface_source.read(tmp_path, GIVEN)


def test_folders_of_other_tasks_and_files_that_are_missing(tmp_path: Path) -> None:
    sizes = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
        "vocab_size": 9,
    }
    BertForSequenceClassification(BertConfig(**sizes)).save_pretrained(tmp_path / "text")
    with pytest.raises(CheckpointError, match=r"^config\.json: model_type: wanted .* classify images, .*given 'bert'"):
        huggingface_source.read(tmp_path / "text", GIVEN)
    config = huggingface_folders.network("vit").config
    ViTModel(config).save_pretrained(tmp_path / "features")
    with pytest.raises(CheckpointError, match=r"^config\.json: architectures: .* given ViTModel"):
        huggingface_source.read(tmp_path / "features", GIVEN)
    for folder, message in (
        (tmp_path / "none", "wanted the folder that save_pretrained wrote, given none"),
        (tmp_path / "text" / "config.json", "wanted the folder that save_pretrained wrote, given a file"),
        (tmp_path, "config.json: no such file in the folder, which has features, text"),
    ):
        with pytest.raises(CheckpointError, match=re.escape(message)):
            huggingface_source.read(folder, GIVEN)
    huggingface_folders.write(tmp_path / "whole", "vit")
    with pytest.raises(CheckpointError, match=r"^preprocessor_config\.json: no such file in the folder"):
        huggingface_source.read(tmp_path / "whole", {"size": (32, 32)})
    (tmp_path / "whole" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"^wanted one of model\.safetensors, .* which has config\.json$"):
        huggingface_source.read(tmp_path / "whole", GIVEN)
    (tmp_path / "whole" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"^config\.json: cannot be read as JSON"):
        huggingface_source.read(tmp_path / "whole", GIVEN)


def test_every_tensor_is_accounted_for(tmp_path: Path) -> None:
    huggingface_folders.write(tmp_path, "vit")
    found = huggingface_folder.read(tmp_path)
    state = checkpoint.read(found.weights)
    del state["vit.layernorm.weight"]
    state["vit.layernorm.other"] = torch.zeros(1)
    state["classifier.weight"] = torch.zeros(7, 24)
    with pytest.raises(CheckpointError) as error:
        models.build("huggingface/vit", state, found.arguments)
    assert error.value.missing == ("vit.layernorm.weight",)
    assert error.value.unexpected == ("vit.layernorm.other",)
    assert error.value.misshapen == (("classifier.weight", (5, 24), (7, 24)),)
    with pytest.raises(ValueError, match=r"^arguments: ViTForImageClassification does not take them: "):
        models.build("huggingface/vit", state, found.arguments | {"hidden_act": "none"})
    with pytest.raises(
        ValueError, match=r"^architecture: wanted huggingface/ and a type .*, such as vit, .*given 'vitt'"
    ):
        models.build("huggingface/vitt", state, found.arguments)
    with pytest.raises(ValueError, match=r"^preprocess: wanted size, mean and std, or in `weights` the folder"):
        huggingface_network.preprocess("vit", found.arguments)


OF_OLDER_VERSIONS = {
    "_name_or_path": "own/model",
    "_num_labels": 2,
    "transformers_version": "4.13.0.dev0",
    "torch_dtype": "float32",
    "output_hidden_states": True,
    "return_dict": False,
    "torchscript": False,
    "use_bfloat16": False,
    "output_past": True,
    "pruned_heads": {},
    "max_length": 20,
    "num_beams": 1,
    "eos_token_id": None,
    "finetuning_task": None,
    "chunk_size_feed_forward": 0,
    "gradient_checkpointing": False,
    "path_norm": True,
    "is_decoder": False,
}
"""Values that configurations had, most of all of text models, and on which no network here depends."""


@pytest.mark.parametrize("family", ["vit", "swin", "resnet", "clip"])
def test_configurations_that_older_versions_wrote(family: str, tmp_path: Path) -> None:
    written, images = huggingface_folders.write(tmp_path, family), huggingface_folders.images(family)
    config = json.loads((tmp_path / "config.json").read_text())
    for part in (config, config.get("vision_config", {})):
        part |= OF_OLDER_VERSIONS
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = huggingface_folder.read(tmp_path)
    network = models.build(f"huggingface/{found.model_type}", checkpoint.read(found.weights), found.arguments)
    output = network(images)
    assert list(output) == ["logits"] and torch.equal(output.logits, written(images).logits)


def test_buffers_that_older_versions_wrote(tmp_path: Path) -> None:
    written, images = huggingface_folders.write(tmp_path, "swinv2"), huggingface_folders.images("swinv2")
    found = huggingface_folder.read(tmp_path)
    computed = dict(written.named_buffers())
    state = {key: tensor + 1 for key, tensor in computed.items()} | checkpoint.read(found.weights)
    assert len(computed) == 8
    network = attach(models.build("huggingface/swinv2", state, found.arguments), Head())
    assert torch.equal(network(images), written(images).logits)


def test_nothing_is_fetched_and_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    written = huggingface_folders.write(tmp_path, "vit")
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    capfd.readouterr()

    def connect(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", connect)
    verbosity = transformers.logging.get_verbosity()
    source = huggingface_source.read(tmp_path, {})
    network = built(tmp_path)
    assert source.preprocess["size"] == (32, 32)
    assert _weights(network) == _weights(written) and "".join(capfd.readouterr()) == ""
    assert transformers.logging.get_verbosity() == verbosity


def _weights(network: nn.Module) -> dict[str, list[Any]]:
    return {name: tensor.tolist() for name, tensor in network.state_dict().items()}


def test_one_model_is_imported_and_only_where_it_is_asked_for(tmp_path: Path) -> None:
    huggingface_folders.write(tmp_path, "resnet")
    code = f"""
import sys
from pathlib import Path
from imagexplain import models
from imagexplain.models.checkpoints import checkpoint
from imagexplain.models.classifiers import huggingface_folder
found = huggingface_folder.read(Path({str(tmp_path)!r}))
assert "transformers" not in sys.modules
models.build("huggingface/resnet", checkpoint.read(found.weights), found.arguments)
print(sorted(name for name in sys.modules if name.startswith("transformers.models.") and ".modeling_" in name))
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "['transformers.models.auto.modeling_auto', 'transformers.models.resnet.modeling_resnet']"


def test_a_host_without_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    huggingface_folders.write(tmp_path, "vit")
    found = huggingface_folder.read(tmp_path)
    state: dict[str, Tensor] = checkpoint.read(found.weights)
    monkeypatch.setitem(sys.modules, "transformers", None)
    message = "wants the package transformers, which is not installed here: pip install 'imagexplain[huggingface]'"
    with pytest.raises(ImportError, match=re.escape(message)):
        models.build("huggingface/vit", state, found.arguments)
    with pytest.raises(ImportError, match=re.escape(message)):
        huggingface_source.read(tmp_path, GIVEN)
