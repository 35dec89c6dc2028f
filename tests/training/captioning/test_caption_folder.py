"""The original's data set formats: read as its reader does, written as they were, and faults named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from imagexplain.checkout import ROOT
from imagexplain.errors import ArgumentError
from imagexplain.vision.scene_graph import Box
from training.captioning.caption_folder import CaptionFolder, SplitItems, boxes_to_encode
from training.captioning.feature_files import read_global, read_region_features, write_global
from training.captioning.items import batch_of
from training.captioning.references import read_references, write_references
from training.captioning.region_files import read_regions, write_regions
from training.captioning.splits import Split, read_split, write_split
from training.captioning.vocabulary import Vocabulary, read_vocabulary

pytest.importorskip("h5py")

FIXTURES = ROOT / "tests/fixtures/ega"
FIRST, SECOND = "train2014/COCO_train2014_000000000001", "train2014/COCO_train2014_000000000002"
SPLIT = "val_sub"


def files() -> CaptionFolder:
    return CaptionFolder(FIXTURES / "small")


@pytest.fixture
def copied(tmp_path: Path) -> CaptionFolder:
    shutil.copytree(FIXTURES / "small", tmp_path / "small", copy_function=shutil.copyfile)
    return CaptionFolder(tmp_path / "small")


def rewrite(folder: CaptionFolder, image: str, change: Callable[[dict], object]) -> None:
    file = folder.region_file(image)
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["small", "sample"])
@pytest.mark.parametrize("limit", [6, 10, 16])
def test_the_originals_reader(name: str, limit: int) -> None:
    """Both data sets have one structure; the original's tensors were made of the one with real dimensions."""
    reference = np.load(FIXTURES / f"reader_limit{limit}.npz")
    names = json.loads((FIXTURES / f"reader_limit{limit}_nodes.json").read_text())
    items = SplitItems(CaptionFolder(FIXTURES / name), SPLIT, limit)
    assert len(items) == 10
    batch = batch_of(list(items), items.vocabulary, limit)
    assert np.array_equal(batch.words, reference["caption_ids"])
    assert np.array_equal(batch.mask, reference["caption_masks"])
    assert np.array_equal(batch.graph.mask, reference["attn_masks"])
    assert np.array_equal(batch.graph.node_types, reference["node_types"])
    assert np.array_equal(batch.graph.orders, reference["attr_order_idxs"])
    assert np.array_equal(batch.graph.edges, reference["rel_edges"])
    assert np.allclose(batch.graph.flow, reference["flow_edges"], atol=1e-7)
    for number, item in enumerate(items):
        rows = reference["feature_rows"][number]
        assert items.rows(number) == rows[rows >= 0].tolist()
        assert [node.name for node in item.layout.nodes] == names[item.key]
        assert item.references == (item.caption,)
    assert batch.nodes.shape == (10, limit, {"small": 32, "sample": 2048}[name])
    assert not batch.nodes[~batch.graph.mask].any()


def test_features_are_the_originals() -> None:
    reference = np.load(FIXTURES / "small_outputs.npz")
    items = SplitItems(files(), SPLIT, 10)
    batch = batch_of(list(items), items.vocabulary, 10)
    assert np.array_equal(batch.image, reference["mp_fts"])
    mask = batch.graph.mask
    assert np.array_equal(batch.nodes[mask], reference["attn_fts"][mask])


def test_without_a_limit_the_whole_graph_is_taken() -> None:
    items = SplitItems(files(), SPLIT)
    assert all(not item.layout.dropped for item in items)
    assert len(items[8].layout.nodes) == 13
    assert len(SplitItems(files(), SPLIT, 10)[8].layout.dropped) == 3


def test_all_that_is_read_is_written_the_same(tmp_path: Path) -> None:
    old, new = files(), CaptionFolder(tmp_path)
    split = read_split(old.annotation, SPLIT)
    write_split(new.annotation, SPLIT, split)
    read_vocabulary(old.annotation).write(new.annotation)
    for image in split.images:
        write_regions(new.region_file(image), read_regions(old.region_file(image)))
        new.write_boxes(image, read_region_features(old.box_file(image)))
    write_global(new.global_file(SPLIT), read_global(old.global_file(SPLIT), 2))
    write_references(new.reference_file(SPLIT), read_references(old.reference_file(SPLIT)))
    again, before = SplitItems(new, SPLIT), SplitItems(old, SPLIT)
    assert again.split == before.split and again.vocabulary == before.vocabulary
    for one, other in zip(again, before, strict=True):
        assert (one.graph, one.caption, one.references) == (other.graph, other.caption, other.references)
        assert torch.equal(one.nodes, other.nodes) and torch.equal(one.image, other.image)
    for path in sorted(old.annotation.rglob("*.npy")):
        assert np.array_equal(np.load(path), np.load(new.annotation / path.relative_to(old.annotation)))
    for path in sorted(old.annotation.rglob("*.json")):
        assert json.loads(path.read_text()) == json.loads(
            (new.annotation / path.relative_to(old.annotation)).read_text()
        )
    own, theirs = (read_region_features(folder.box_file(FIRST)) for folder in (new, old))
    assert own.size == theirs.size == (427, 640)
    assert own.features.dtype == np.float64 and own.boxes.dtype == np.int32


def test_boxes_to_encode_are_those_of_the_originals_files() -> None:
    for image in (FIRST, SECOND):
        graphs = read_regions(files().region_file(image)).values()
        regions = read_region_features(files().box_file(image))
        height, width = regions.size
        wanted = [(0, 0, width - 1, height - 1), *boxes_to_encode(list(graphs))]
        assert set(wanted) == set(map(tuple, regions.boxes.tolist()))


def test_further_references_come_after_the_phrase(tmp_path: Path) -> None:
    references = {("a", "1"): ("one", "two"), ("a", "2"): ("three",)}
    write_references(tmp_path / "references.json", references)
    assert read_references(tmp_path / "references.json") == references
    assert json.loads((tmp_path / "references.json").read_text())["a"]["1"]["phrase"] == "one"


def test_a_caption_as_numbers() -> None:
    vocabulary = Vocabulary(("<BOS>", "<EOS>", "<UNK>", "a", "dog"))
    ids, mask = vocabulary.encode(["a dog", "a zebra", "", "a a a a a"], length=5)
    assert ids.tolist() == [[0, 3, 4, 1, 1], [0, 3, 2, 1, 1], [0, 1, 1, 1, 1], [0, 3, 3, 3, 3]]
    assert mask.sum(1).tolist() == [4, 4, 2, 5]
    assert [vocabulary.decode(row.tolist()) for row in ids] == ["a dog", "a <UNK>", "", "a a a a"]


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        (lambda region: region["objects"].clear(), "objects", "wanted at least one"),
        (lambda region: region.pop("relationships"), "relationships", "is missing"),
        (lambda region: region.pop("phrase"), "phrase", "is missing"),
        (
            lambda region: region["relationships"][0].update(object_id=99),
            "relationships[0].object",
            "unknown object id 99",
        ),
        (
            lambda region: region["objects"][0].update(object_id=12),
            "objects[2]",
            "wanted an id of its own, got 12 again",
        ),
        (lambda region: region["objects"][0].update(w=0), "objects[0].w", "wanted a box with an area"),
        (
            lambda region: region["objects"][0].update(attributes=["x"] * 20),
            "objects[0].attributes",
            "wanted at most 19",
        ),
        (lambda region: region["objects"][0].pop("x"), "objects[0].x", "is missing"),
        (lambda region: region["objects"][0].update(x=246), "box", "with a feature, got (246, 182, 360, 354)"),
    ],
)
def test_faults_in_a_region_are_named(copied: CaptionFolder, change: Callable, field: str, words: str) -> None:
    rewrite(copied, FIRST, lambda content: change(content["515385"]))
    items = SplitItems(copied, SPLIT)
    with pytest.raises(ArgumentError) as caught:
        items[0]
    assert caught.value.field == field
    assert words in caught.value.message and "region 515385 of" in caught.value.message
    assert items[1].caption == "a dog"  # its neighbours are read


def test_a_union_without_a_feature_is_named(copied: CaptionFolder) -> None:
    def relate(content: dict) -> None:
        content["4"]["objects"][1].update(x=70, w=70)
        content["4"]["objects"][0].update(x=245, y=182, w=115, h=173)
        content["4"]["objects"][1].update(x=286, y=236, w=123, h=75)
        content["4"]["relationships"][1].update(subject_id=2, object_id=2)

    rewrite(copied, FIRST, relate)
    assert SplitItems(copied, SPLIT)[4].nodes.shape[1] == 32
    rewrite(copied, FIRST, lambda content: content["4"]["objects"][1].update(x=10, y=20, w=100, h=80))
    rewrite(copied, FIRST, lambda content: content["4"]["relationships"][1].update(subject_id=1, object_id=2))
    with pytest.raises(ArgumentError, match=r"got \(10, 20, 359, 354\), in region 4 of"):
        SplitItems(copied, SPLIT)[4]


def test_whole_numbers_as_floats_are_boxes(copied: CaptionFolder) -> None:
    rewrite(copied, FIRST, lambda content: content["1"]["objects"][0].update(x=10.0, w=100.0))
    assert torch.equal(SplitItems(copied, SPLIT)[1].nodes, SplitItems(files(), SPLIT)[1].nodes)


def test_faults_in_other_files_are_named(copied: CaptionFolder, tmp_path: Path) -> None:
    def refuses(words: str, fields: str) -> None:
        with pytest.raises(ArgumentError) as caught:
            list(SplitItems(copied, SPLIT))
        assert caught.value.field == fields and words in caught.value.message

    regions = copied.annotation / "regionfiles" / f"{SPLIT}_names.npy"
    whole = np.load(regions)
    np.save(regions, np.array([[FIRST, "77"]]))
    refuses("wanted a region of", "region")
    np.save(regions, np.array([["elsewhere", "1"]]))
    refuses("wanted regions of the split's images, got 1 of elsewhere", "regions")
    np.save(regions, whole[:, :1])
    refuses("wanted pairs", "regions")
    np.save(regions, np.array([[FIRST, 1]], dtype=object))
    refuses("wanted an array of numbers or texts", "file")
    np.save(regions, whole)

    globals_ = np.load(copied.global_file(SPLIT))
    np.save(copied.global_file(SPLIT), globals_[:1])
    refuses("wanted 2 rows, one for each image", "features")
    np.save(copied.global_file(SPLIT), globals_ * np.nan)
    refuses("wanted finite features", "features")
    np.save(copied.global_file(SPLIT), globals_)

    boxes = copied.box_file(FIRST).read_bytes()
    copied.box_file(FIRST).write_bytes(b"no HDF5")
    refuses("wanted one data set with boxes", "features")
    copied.box_file(FIRST).unlink()
    with pytest.raises(FileNotFoundError):
        list(SplitItems(copied, SPLIT))
    copied.box_file(FIRST).write_bytes(boxes)

    copied.region_file(SECOND).write_text("[]")
    refuses("wanted an object in", "file")
    copied.region_file(SECOND).write_text("{")
    refuses("wanted JSON in", "file")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("<EOS>", "<BOS>", "<UNK>"), "wanted <BOS>, <EOS>, <UNK> first"),
        (("<BOS>", "<EOS>", "<UNK>", "a", "a"), "wanted each word once, got 'a' twice"),
    ],
)
def test_no_vocabulary(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Vocabulary(words)


def test_a_vocabulary_whose_files_differ_is_refused(copied: CaptionFolder) -> None:
    (copied.annotation / "word2int.json").write_text('{"a": 3}')
    with pytest.raises(ArgumentError, match=r"wanted the numbers of int2word\.npy"):
        read_vocabulary(copied.annotation)


def test_a_split_of_some_images_is_written_in_all_its_files(copied: CaptionFolder) -> None:
    kept = copied.copy_split(SPLIT, "val_sub_opt", {SECOND, "another"})
    assert kept == Split((SECOND,), tuple((SECOND, region) for region in ("10", "11", "12", "13", "14")))
    items, whole = SplitItems(copied, "val_sub_opt"), SplitItems(copied, SPLIT)
    assert len(items) == 5 and items.split == kept
    for one, other in zip(items, list(whole)[5:], strict=True):
        assert one.key == other.key and torch.equal(one.nodes, other.nodes) and torch.equal(one.image, other.image)
        assert one.references == other.references
    assert np.load(copied.annotation / "public_split/val_sub_opt_names.npy").tolist() == [f"{SECOND}.jpg"]
    with pytest.raises(ArgumentError, match="wanted images of the split val_sub, got none of its 2"):
        copied.copy_split(SPLIT, "none", {"another"})
    with pytest.raises(ArgumentError, match="wanted another name"):
        copied.copy_split(SPLIT, SPLIT, {SECOND})


def test_a_box_has_the_row_of_its_inclusive_corners() -> None:
    regions = read_region_features(files().box_file(FIRST))
    assert regions.row(Box(0, 0, 640, 427)) == 0
    assert regions.row(Box(245, 182, 115, 173)) == 1
    with pytest.raises(ArgumentError, match=r"wanted one of the 10 boxes with a feature, got \(0, 0, 0\.5, 1\)"):
        regions.row(Box(0, 0, 1.5, 2))
