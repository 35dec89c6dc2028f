"""Games that the estimators are compared on: scenes whose deciding object is known, and photographs."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

from benchmarks.group_explanations.game import Game, SegmentGame, StoredGame, facts_of
from evaluation.cases import SCENES, Case, case
from evaluation.evaluated_model import EvaluatedModel, as_built, folded_models
from evaluation.photos import known, packaged, photo_cases, read
from imagexplain.vision.superpixels import SlicSettings
from training.scenes import CLASSES
from training.train_classifier import HELD_OUT_SEED

ROOT = Path(__file__).resolve().parents[2]
SPECS = ROOT / "archive_specs"
SCENE_MODELS = ("lanet", "bit", "resnet", "vit", "swin_classifier")
PHOTO_MODEL = "imagenet"
PHOTO_SUPERPIXELS = SlicSettings(n_segments=24)
PHOTO_CONFIDENCE = 0.5


@cache
def model_of(name: str) -> EvaluatedModel:
    """A demonstration model; folded where that is possible."""
    if name in ("lanet", "bit"):
        return folded_models(SPECS, [name], CLASSES)[0][0]
    return as_built(SPECS, [name])[0]


@cache
def _photos() -> list[Case]:
    model = model_of(PHOTO_MODEL)
    sure = known(model, read(packaged()), PHOTO_CONFIDENCE)
    return photo_cases(model, sure, PHOTO_SUPERPIXELS)


@cache
def case_of(name: str, index: int) -> Case:
    """A scene, or for the photographs' model the photograph of that number.

    Raises:
        IndexError: more photographs than there are.
    """
    if name == PHOTO_MODEL:
        return _photos()[index]
    preprocess = model_of(name).preprocess
    return case(HELD_OUT_SEED, index, replace(SCENES["standard"], size=preprocess.size), preprocess)


def game_of(name: str, index: int, partition: str, folder: Path) -> StoredGame:
    """The stored game of a case; the network is built when an evaluation is not in the store.

    Args:
        name: Name of the model.
        index: Number of the scene or photograph.
        partition: ``superpixels`` or ``objects``.
        folder: Folder of the stores.
    """
    file = folder / f"{name}-{partition}-{index}.npz"

    def opened() -> Game:
        model, one = model_of(name), case_of(name, index)
        return SegmentGame(model.network, one.image, model.start(), one.partitions[partition].segments, one.label)

    if file.exists():
        return StoredGame.at(file, None, opened)
    model, one = model_of(name), case_of(name, index)
    groups = one.partitions[partition]
    inside = None if name == PHOTO_MODEL else groups.inside.numpy()
    return StoredGame.at(file, facts_of(one.image, model.start(), groups.segments, inside), opened)
