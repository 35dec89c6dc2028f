"""Photographs as cases: those that a network names with confidence, alone and as mosaics of several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from evaluation.cases import Case
from evaluation.evaluated_model import EvaluatedModel
from evaluation.grid_pointing_game import mosaic, tile_masks
from evaluation.partition import partition
from imagexplain.errors import ArgumentError, RequestError
from imagexplain.limits import Limits
from imagexplain.vision.decode import decode
from imagexplain.vision.preprocess import apply
from imagexplain.vision.superpixels import SlicSettings, slic

PACKAGED: dict[str, tuple[str, ...]] = {
    "skimage/data": (
        "astronaut.png",
        "brick.png",
        "camera.png",
        "chelsea.png",
        "clock_motion.png",
        "coffee.png",
        "coins.png",
        "grass.png",
        "gravel.png",
        "hubble_deep_field.jpg",
        "motorcycle_left.png",
        "retina.jpg",
        "rocket.jpg",
    ),
    "sklearn/datasets/images": ("china.jpg", "flower.jpg"),
}
"""Photographs that ship with scikit-image and scikit-learn; their licences stand in docs/evaluation_photos.md."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
PIXELS_AT_ONCE = 8 * 224 * 224
"""Pixels of the images that a network evaluates at once: more are slower on a processor's caches."""


@dataclass(frozen=True, eq=False)
class Photograph:
    """A photo with a name.

    Attributes:
        name: Name of its file.
        image: Upright RGB image.
    """

    name: str
    image: Image.Image


@dataclass(frozen=True, eq=False)
class KnownPhotograph:
    """A photo that the network names with confidence.

    Attributes:
        photograph: The photo.
        label: Class that the network names.
        probability: Its softmax probability, of the photo alone at the model's own size.
    """

    photograph: Photograph
    label: int
    probability: float


def packaged() -> list[Path]:
    """Files of the photographs that ship with the packages, of those that are installed."""
    found = []
    for folder, names in PACKAGED.items():
        package, _, inside = folder.partition("/")
        spec = find_spec(package)
        if spec is not None and spec.origin is not None:
            found += [Path(spec.origin).parent / inside / name for name in names]
    return found


def photos_in(folder: Path) -> list[Path]:
    """Files of a folder whose names end as photos' do, by name.

    Raises:
        ArgumentError: no such folder, or none in it.
    """
    found = sorted(file for file in folder.glob("*") if file.suffix.lower() in SUFFIXES)
    if not found:
        raise ArgumentError("photos", f"wanted a folder of photos ({', '.join(SUFFIXES)}), got {folder}")
    return found


def read(files: Sequence[Path]) -> list[Photograph]:
    """The photos, decoded as the service does.

    Raises:
        ArgumentError: a file that is none.
    """
    photos = []
    for file in files:
        try:
            photos.append(Photograph(file.name, decode(file.read_bytes(), Limits()).image))
        except RequestError as error:
            raise ArgumentError("photos", f"{file.name}: {error.message}") from error
    return photos


def known(model: EvaluatedModel, photos: Sequence[Photograph], threshold: float) -> list[KnownPhotograph]:
    """The photos that the network names with at least that probability, the surest of each class, surest first.

    Nobody says whether the name is right: confidence stands for it.
    """
    best: dict[int, KnownPhotograph] = {}
    for photo in photos:
        image, _ = apply(photo.image, model.preprocess)
        with torch.no_grad():
            probability, label = model.network(image.unsqueeze(0)).softmax(1)[0].max(0)
        one = KnownPhotograph(photo, int(label), float(probability))
        if one.probability >= threshold and (one.label not in best or best[one.label].probability < one.probability):
            best[one.label] = one
    return sorted(best.values(), key=lambda one: -one.probability)


def draw_mosaics(photos: int, side: int, count: int, seed: int) -> list[tuple[int, ...]]:
    """Numbers (n²,) of the photos in each mosaic: all photos in a random order, cut up, and again.

    So each photo is in as many mosaics as another, but for those that a round leaves over.

    Args:
        photos: Number of photos, each of another class.
        side: Number n of tiles along a side.
        count: Number of mosaics.
        seed: Seed of the orders.

    Raises:
        ArgumentError: fewer photos than tiles.
    """
    tiles = side**2
    if photos < tiles:
        wanted = f"wanted {tiles} of different classes for a {side}×{side} mosaic"
        raise ArgumentError("photos", f"{wanted}, got {photos} that the network names with confidence")
    generator = torch.Generator().manual_seed(seed)

    def blocks() -> Iterator[tuple[int, ...]]:
        while True:
            order = torch.randperm(photos, generator=generator).tolist()
            yield from (tuple(order[start : start + tiles]) for start in range(0, photos - tiles + 1, tiles))

    drawn = blocks()
    return [next(drawn) for _ in range(count)]


def at_size(model: EvaluatedModel, size: tuple[int, int]) -> EvaluatedModel:
    """The model with inputs of another size, which a fully convolutional network takes.

    Raises:
        ArgumentError: a network that does not.
    """
    other = replace(
        model,
        preprocess=model.preprocess.at_size(size),
        chunk=max(1, PIXELS_AT_ONCE // (size[0] * size[1])),
    )
    try:
        with torch.no_grad():
            model.network(torch.zeros(1, 3, *size))
    except (RuntimeError, AssertionError) as error:  # torch's, and timm's of a network for one size
        own = "×".join(map(str, model.preprocess.size))
        wanted = f"wanted a size that {model.name} takes, such as its own {own}, got {size[0]}×{size[1]}"
        raise ArgumentError("mosaic_size", wanted) from error
    return other


def photo_cases(model: EvaluatedModel, photos: Sequence[KnownPhotograph], settings: SlicSettings) -> list[Case]:
    """Each photo as the model sees it. Which pixels decide is unknown: all count as deciding."""
    cases = []
    for index, one in enumerate(photos):
        image, _ = apply(one.photograph.image, model.preprocess)
        pixels = model.preprocess.rgb(image)
        segments = slic(pixels, settings)
        everywhere = torch.ones(segments.shape, dtype=torch.bool)
        groups = partition(segments, _names(segments), everywhere)
        cases.append(Case(index, pixels, image, one.label, everywhere, {"superpixels": groups}))
    return cases


def mosaic_cases(
    model: EvaluatedModel, photos: Sequence[KnownPhotograph], drawn: Sequence[int], side: int, settings: SlicSettings
) -> list[Case]:
    """One mosaic as a case for each of its classes, whose own tile is what decides.

    Each photo is preprocessed to a tile. Superpixels are made tile by tile: none crosses a border.

    Args:
        model: Model with inputs of the mosaic's size.
        photos: Photos that the network knows.
        drawn: Numbers (n²,) of those in the mosaic, row by row.
        side: Number n of tiles along a side.
        settings: Settings of a tile's superpixels.
    """
    size = model.preprocess.size
    masks = tile_masks(size, side)
    tile = model.preprocess.at_size((size[0] // side, size[1] // side))
    images = torch.stack([apply(photos[number].photograph.image, tile)[0] for number in drawn])
    pixels = torch.stack([tile.rgb(image) for image in images])
    segments = torch.zeros(size, dtype=torch.int64)
    first = 0
    for mask, picture in zip(masks, pixels, strict=True):
        labels = slic(picture, settings)
        segments[mask] = labels.flatten() + first
        first += int(labels.max()) + 1
    names = _names(segments)
    whole, photo = mosaic(images), mosaic(pixels)
    return [
        Case(number, photo, whole, photos[number].label, mask, {"superpixels": partition(segments, names, mask)})
        for number, mask in zip(drawn, masks, strict=True)
    ]


def references(model: EvaluatedModel, photos: Sequence[Photograph]) -> Tensor:
    """(R, 3, H, W) inputs of photos, for expected gradients to compare with."""
    return torch.stack([apply(photo.image, model.preprocess)[0] for photo in photos])


def _names(segments: Tensor) -> tuple[str, ...]:
    return tuple(f"superpixel {number}" for number in range(int(segments.max()) + 1))
