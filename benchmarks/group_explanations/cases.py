"""Games that the estimators are compared on: scenes whose deciding object is known, and photographs."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

from benchmarks.group_explanations.game import Game, SegmentGame, StoredGame, facts_of
from evaluation.cases import SCENES, SUPERPIXELS, Case, case
from evaluation.evaluated_model import EvaluatedModel, as_built, folded_models
from evaluation.partition import Partition, by_superpixels
from evaluation.photos import known, packaged, photo_cases, photos_in, read
from evaluation.shapley import MOST_GROUPS
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
def _photos(folder: Path | None) -> list[Case]:
    model = model_of(PHOTO_MODEL)
    files = [*packaged(), *(photos_in(folder) if folder else [])]
    return photo_cases(model, known(model, read(files), PHOTO_CONFIDENCE), PHOTO_SUPERPIXELS)


@cache
def case_of(name: str, index: int, photos: Path | None = None) -> Case:
    """A scene, or for the photographs' model the photograph of that number.

    Raises:
        IndexError: more photographs than there are.
    """
    if name == PHOTO_MODEL:
        return _photos(photos)[index]
    preprocess = model_of(name).preprocess
    return case(HELD_OUT_SEED, index, replace(SCENES["standard"], size=preprocess.size), preprocess)


def few_superpixels(one: Case) -> Partition:
    """Superpixels, as many as can be had of those few whose coalitions can all be evaluated."""
    for wanted in range(2 * MOST_GROUPS, 0, -1):
        found = by_superpixels(one.photo, one.deciding, replace(SUPERPIXELS, n_segments=wanted))
        if len(found) <= MOST_GROUPS:
            break
    return found


def game_of(name: str, index: int, partition: str, folder: Path, photos: Path | None = None) -> StoredGame:
    """The stored game of a case; the network is built when an evaluation is not in the store.

    Args:
        name: Name of the model.
        index: Number of the scene or photograph.
        partition: ``superpixels`` or ``few``, at most 12 of them.
        folder: Folder of the stores.
        photos: Folder of photographs beside those of the packages.
    """
    file = folder / f"{name}-{partition}-{index}.npz"

    def known() -> tuple[EvaluatedModel, Case, Partition]:
        one = case_of(name, index, photos)
        return model_of(name), one, few_superpixels(one) if partition == "few" else one.partitions[partition]

    def opened() -> Game:
        model, one, groups = known()
        return SegmentGame(model.network, one.image, model.start(), groups.segments, one.label)

    if file.exists():
        return StoredGame.at(file, None, opened)
    model, one, groups = known()
    inside = None if name == PHOTO_MODEL else groups.inside.numpy()
    return StoredGame.at(file, facts_of(one.image, model.start(), groups.segments, inside), opened)
