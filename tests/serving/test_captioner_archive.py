"""Archives of captioners: the original's files and networks of features, tried when they are built."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from handlers.captioner import CaptionerHandler
from imagexplain.archive.build import build_all
from imagexplain.archive.captioner_archive import FEATURES_FILE
from imagexplain.archive.spec import CaptionerSpec, SpecError, load, select
from imagexplain.models.captioners import captioner
from imagexplain.models.captioners.vocabulary import SIGNS
from imagexplain.models.checkpoints import checkpoint
from imagexplain.ops.check_archive import check
from imagexplain.ops.unpack import unpack
from tests.models.captioning import EGA, small, small_model
from tests.serving.captions import predicted
from tests.serving.handlers import CAPTION_WIDTH, CAPTION_WORDS, captioner_of, seeded_captioner, seeded_regions

WORDS = EGA / "small/annotation/int2word.npy"


def write_spec(folder: Path, **changes: Any) -> Path:
    """The spec of the original's small model; a change to None leaves the field out."""
    content = {"name": "ega", "handler": "captioner", "weights": str(EGA / "small.th"), "vocabulary": str(WORDS)}
    path = folder / "ega.yaml"
    path.write_text(
        yaml.safe_dump({name: value for name, value in {**content, **changes}.items() if value is not None})
    )
    return path


def write_own(folder: Path, **changes: Any) -> Path:
    """The spec of a seeded model that makes its features, with the words as text."""
    torch.save(captioner.export(seeded_captioner()), folder / "own.th")
    save_file(checkpoint.exported(seeded_regions()), folder / "regions.safetensors")
    (folder / "words.txt").write_text("\n".join(CAPTION_WORDS))
    features = {"extractor": "region_encoder", "weights": "regions.safetensors", "longer": 64}
    return write_spec(folder, **{"weights": "own.th", "vocabulary": "words.txt", "features": features, **changes})


def unpacked(archive: Path, folder: Path) -> CaptionerHandler:
    """The handler of a packed archive."""
    unpack(archive, folder)
    return captioner_of(folder)


@pytest.mark.parametrize("weights", ["small.th", "small_legacy.th"])
def test_the_originals_checkpoint_and_words(tmp_path: Path, weights: str) -> None:
    (archive,) = build_all([write_spec(tmp_path, weights=str(EGA / weights))], tmp_path / "store")
    assert check(archive) == ("ega", "1.0")
    handler = unpacked(archive, tmp_path / "unpacked")
    assert handler.worker.task.spec.labels == tuple(np.load(WORDS).tolist())
    reference, graph = small(), 3
    count = len(reference.graphs[graph].nodes)
    features = {"image": reference.image[graph].tolist(), "regions": reference.nodes[graph, :count].tolist()}
    region = json.loads((EGA / "small/annotation/regionfiles" / f"{regions()[graph][0]}.json").read_text())
    found = predicted(handler, region[regions()[graph][1]], image=None, features=features, beams=1)
    wanted = reference.greedy()[graph]
    words = [handler.worker.task.spec.labels[number] for number in wanted["ids"]]
    assert [token["word"] for token in found["tokens"]] == [*words, "<EOS>"] and wanted["ended"]
    each = [token["log_probability"] for token in found["tokens"]]
    assert each == pytest.approx(wanted["logprobs"], abs=1e-5)
    assert found["log_probability"] == pytest.approx(wanted["logprob"], abs=1e-5)


def regions() -> list[list[str]]:
    """Image and region of each graph of the sample."""
    names: list[list[str]] = np.load(EGA / "small/annotation/regionfiles/val_sub_names.npy").tolist()
    return names


def test_an_archive_with_a_network_of_features(tmp_path: Path) -> None:
    (archive,) = build_all([write_own(tmp_path)], tmp_path / "store")
    handler = unpacked(archive, tmp_path / "unpacked")
    with zipfile.ZipFile(archive) as content:
        assert FEATURES_FILE in content.namelist()
        spec = json.loads(content.read("spec.json"))
    assert spec["features"] == {"extractor": "region_encoder", "longer": 64}
    assert predicted(handler)["caption"]
    first = archive.read_bytes()
    (again,) = build_all([tmp_path / "ega.yaml"], tmp_path / "again")
    assert again.read_bytes() == first


def changed_weights(folder: Path, **changes: torch.Tensor | None) -> Path:
    """The small model's checkpoint with some tensors changed, added or, with None, left out."""
    parts = captioner.export(small_model())
    for name, tensor in changes.items():
        part, _, own = name.replace("__", ".").partition(".")
        if tensor is None:
            del parts[part][own]
        else:
            parts[part][own] = tensor
    torch.save(parts, folder / "changed.th")
    return write_spec(folder, weights="changed.th")


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    for changes, said in (
        ({"mp_encoder__ft_embed__bias": None}, "missing 1: mp_encoder.ft_embed.bias"),
        ({"decoder__more": torch.zeros(2)}, "unexpected 1: decoder.more"),
        ({"mp_encoder__ft_embed__bias": torch.full((16,), torch.nan)}, "wanted finite numbers"),
    ):
        with pytest.raises(SpecError) as error:
            build_all([changed_weights(tmp_path, **changes)], tmp_path / "store")
        assert said.partition(" 1: ")[0] in str(error.value) and said.rpartition(": ")[2] in str(error.value)
        assert "ega.yaml" in str(error.value)


def test_words_that_do_not_fit(tmp_path: Path) -> None:
    words = np.load(WORDS).tolist()
    for content, said in (
        (words[:-1], f"vocabulary: wanted the {len(words)} words of the weights, got {len(words) - 1}"),
        (words[3:], "wanted <BOS>, <EOS>, <UNK> first"),
        ([*words[:-1], words[3]], "wanted each word once"),
        ([*words[:-1], "two words"], "wanted words without spaces"),
        ([*words[:-1], 3], "wanted a list of words"),
    ):
        (tmp_path / "words.json").write_text(json.dumps(content))
        with pytest.raises(SpecError) as error:
            build_all([write_spec(tmp_path, vocabulary="words.json")], tmp_path / "store")
        assert said in str(error.value) and "ega.yaml: vocabulary" in str(error.value), error.value


def test_every_form_of_words(tmp_path: Path) -> None:
    words = (*SIGNS, "a", "звезда")
    np.save(tmp_path / "words.npy", np.array(words))
    (tmp_path / "words.txt").write_text("\n".join(words) + "\n")
    (tmp_path / "list.json").write_text(json.dumps(words))
    numbers = {word: number for number, word in reversed(list(enumerate(words)))}
    (tmp_path / "numbers.json").write_text(json.dumps(numbers, ensure_ascii=False))
    for name in ("words.npy", "words.txt", "list.json", "numbers.json"):
        (archive,) = select([write_spec(tmp_path, vocabulary=name)], {})
        assert archive.model.labels == words
    for name, data in (("words.npy", b"\x93NUMPY"), ("list.json", b"{"), ("list.json", b'{"a": 1}')):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SpecError, match="vocabulary"):
            select([write_spec(tmp_path, vocabulary=name)], {})
    np.save(tmp_path / "pickled.npy", np.array([*words, None], dtype=object), allow_pickle=True)
    with pytest.raises(SpecError, match="vocabulary"):
        select([write_spec(tmp_path, vocabulary="pickled.npy")], {})


def test_features_that_do_not_fit(tmp_path: Path) -> None:
    path = write_own(tmp_path, weights=str(EGA / "small.th"), vocabulary=str(WORDS))
    with pytest.raises(SpecError, match=r"features: wanted region features of width \d+, the extractor has 16"):
        build_all([path], tmp_path / "store")
    broken = {name: tensor for name, tensor in checkpoint.exported(seeded_regions()).items() if name != "last.bias"}
    path = write_own(tmp_path)
    save_file(broken, tmp_path / "regions.safetensors")
    with pytest.raises(SpecError, match=r"features: .*regions\.safetensors: .*missing.*regions\.last\.bias"):
        build_all([path], tmp_path / "store")


def test_fields_of_the_spec(tmp_path: Path) -> None:
    for changes, said in (
        ({"vocabulary": None}, "vocabulary: Field required"),
        ({"labels": ["a"]}, "labels: Extra inputs"),
        ({"captions": {"beams": 30}}, "captions.beams: wanted at most 20, got 30"),
        ({"captions": {"n_best": 6}}, "captions.n_best: wanted at most 5, got 6"),
        ({"explain": {"method": "grad_cam"}}, "explain.method"),
        ({"explain": {"score": "probability"}}, "explain.score"),
        ({"features": {"extractor": "clip", "weights": "x.pth"}}, "features.extractor"),
        ({"features": {"extractor": "torchvision", "weights": "x.pth"}}, "image_weights: goes with extractor"),
        ({"architecture": "transformer"}, "architecture"),
    ):
        with pytest.raises(SpecError) as error:
            load(write_spec(tmp_path, **changes))
        assert said in str(error.value), error.value
    (archive,) = select([write_spec(tmp_path, captions={"node_limit": 10})], {})
    assert isinstance(archive.model, CaptionerSpec) and archive.model.captions.node_limit == 10
    assert archive.model.features is None and CAPTION_WIDTH == 16
