"""A preprocessed request: model input, baselines and the pixel groups to score, all in model coordinates."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from imagexplain.api.options import Baseline, Segments
from imagexplain.api.request import Request
from imagexplain.attribution import baselines
from imagexplain.attribution.groups.families import Family, family
from imagexplain.attribution.runner import most_groups
from imagexplain.errors import ArgumentError, RequestError
from imagexplain.limits import Limits
from imagexplain.serving.cache import digest
from imagexplain.serving.deadline import MIN_ADMITTED_SECONDS, Deadline
from imagexplain.vision.geometry import Geometry
from imagexplain.vision.masks import PhotoMasks, Shape, to_model
from imagexplain.vision.photo_groups import PhotoGroups
from imagexplain.vision.preprocess import ModelInput
from imagexplain.vision.preprocess import preprocess as preprocessed
from imagexplain.vision.preprocess_settings import Preprocess
from imagexplain.vision.superpixels import GridSettings, SlicSettings, grid, one_hot, slic

SECONDS_PER_GROUP_PIXEL = 4e-8
"""Time that a group takes for each pixel of the model's input, from the mask to its parts, on a busy core."""

SECONDS_PER_SLIC_PIXEL = 3e-6
"""Time that superpixels take for each pixel of the model's input, however many they are: twice that of a free core."""


@dataclass(frozen=True)
class Groups:
    """The groups of one request, over the model's input.

    Attributes:
        family: Family of groups over which importance is shared out.
        cropped: Part of a sent mask's area that the model's crop cut off, by label, where it did.
        rescued: Labels of masks that are too small for the model's grid and keep their best pixel.
    """

    family: Family
    cropped: dict[str, float]
    rescued: tuple[str, ...]


@dataclass(frozen=True)
class PreparedRequest:
    """A request with its image in model space; tensors are on the CPU.

    Attributes:
        request: Parsed request.
        image: (C, H, W) model input.
        geometry: Map from the photo to it.
        key: Digest of the image, by which results on it are cached.
        preprocess: Preprocessing that made the image.
        baselines: (D, C, H, W) baselines, one for each draw.
        groups: Groups to score beside pixels, if any.
        over_photo: The same groups over the photo.
    """

    request: Request
    image: Tensor
    geometry: Geometry
    key: bytes
    preprocess: Preprocess
    baselines: Tensor
    groups: Groups | None = None
    over_photo: PhotoGroups | None = None


def prepare_request(
    request: Request,
    seen: ModelInput,
    found: PhotoMasks | None = None,
    limits: Limits | None = None,
    deadline: Deadline | None = None,
    key: bytes | None = None,
) -> PreparedRequest:
    """Bring a request into model space.

    Args:
        request: Parsed request.
        seen: Model input of its photo.
        found: Segments that another model found on it.
        limits: Bounds on the groups that come out.
        deadline: Deadline of all this work; none, if not given.
        key: Digest of the photo's input, where it is known.

    Raises:
        RequestError: 413 for more groups than the limits, the method or the deadline allow, 422 for a photo, mask or
            baseline that does not fit this model's frame, 503 where the time that is left is too short, or is over.
    """
    key = digest(seen.image) if key is None else key
    starts = _baselines(request.baseline, seen)
    prepared = PreparedRequest(request, seen.image, seen.geometry, key, seen.preprocess, starts)
    if not request.wants_groups:
        return prepared
    groups, over_photo = _groups(request, seen, found, limits or Limits(), deadline)
    return replace(prepared, groups=groups, over_photo=over_photo)


def without(sample: PreparedRequest) -> Tensor:
    """Model inputs (D, C, H, W) whose absent groups look as each of the baselines does.

    Raises:
        RequestError: 422 for a row that the table of groups has not, or that is the whole.
    """
    assert sample.groups is not None
    absent, family = sample.request.absent, sample.groups.family
    for row in absent:
        if row >= len(family):
            raise RequestError(422, "absent", f"wanted rows in 0..{len(family) - 1} of the table of groups, got {row}")
        if family.kinds[row] == "whole":
            wanted = "wanted rows of segments or of the rest: without the whole nothing of the photo is left"
            raise RequestError(422, "absent", f"{wanted}, got row {row}")
    gone = family.masks[list(absent)].any(0)
    return torch.where(gone, sample.baselines, sample.image)


def _baselines(choice: Baseline, seen: ModelInput) -> Tensor:
    """(D, C, H, W) baselines of the paths: inputs of photos of the same size, but for tensors and a second photo."""
    image, preprocess = seen.of_photo(seen.image), seen.preprocess
    black, white = (seen.of_photo(preprocess.grey(value)) for value in (0.0, 1.0))
    match choice.name:
        case "zero":
            return torch.zeros_like(seen.image)[None]
        case "black":
            start = black
        case "white":
            start = white
        case "mean":
            start = baselines.image_mean(image)
        case "blur":
            start = baselines.blurred(image, choice.blur * min(preprocess.size))
        case "uniform":
            return seen.with_photo(baselines.uniform_noise(black, white, choice.draws, choice.seed))
        case "extremes":
            return seen.with_photo(baselines.extremes(image))
        case "image":
            assert choice.photo is not None
            return preprocessed(choice.photo, preprocess).image[None]
        case "tensor":
            assert choice.tensor is not None
            if choice.tensor.shape[1:] != seen.image.shape:
                wanted, got = tuple(seen.image.shape), tuple(choice.tensor.shape[1:])
                raise RequestError(422, "baseline_tensor", f"wanted {wanted} like the model's input, got {got}")
            return choice.tensor
        case name:
            raise ValueError(f"baseline: {name!r} is not known here")
    return seen.with_photo(start).unsqueeze(0)


def _groups(
    request: Request, seen: ModelInput, found: PhotoMasks | None, limits: Limits, deadline: Deadline | None
) -> tuple[Groups, PhotoGroups]:
    sent = [masks for masks in (request.masks, None if found is None else numbered(found)) if masks is not None]
    own_most = most_groups(request.plan) if request.kind == "explanation" else None
    size = seen.preprocess.size
    _check_asked(request, size, own_most)
    room = _room(request.segments, sum(len(masks.labels) for masks in sent), size, limits, deadline)
    masks = [torch.zeros(0, *seen.image.shape[1:], dtype=torch.bool)]
    labels: list[str] = []
    shapes: list[Shape | None] = []
    cropped: dict[str, float] = {}
    rescued: tuple[str, ...] = ()
    for own in sent:
        brought = to_model(own, seen.geometry, None if deadline is None else deadline.check_masks)
        masks.append(brought.masks)
        labels += brought.labels
        shapes += own.shapes
        cropped |= {
            label: lost for label, lost in zip(brought.labels, brought.cropped.tolist(), strict=True) if lost > 0
        }
        rescued += brought.rescued
    if request.segments is not None and not request.segments.is_remote:
        made = _segments(request.segments, seen, room if own_most is None else min(room, own_most))
        masks.append(made)
        labels += [f"{request.segments.name} {index + 1}" for index in range(len(made))]
        shapes += [None] * len(made)
    most_parts = limits.max_parts if own_most is None else min(limits.max_parts, own_most)
    try:
        whole = family(torch.cat(masks), labels, pixels=request.pixels, most_parts=most_parts)
    except ArgumentError as error:
        if error.field != "masks":
            raise
        why = f": {request.plan.name} takes no more" if most_parts == own_most else ""
        raise RequestError(413, "segments" if request.masks is None else "masks", error.message + why) from None
    of_rows = [shapes[index] if index < len(shapes) else None for index in whole.origins]
    over_photo = PhotoGroups(seen.geometry, whole.masks, whole.kinds, of_rows, limits.max_runs)
    return Groups(whole, cropped, rescued), over_photo


def _asked(segments: Segments | None, size: tuple[int, int]) -> int:
    """Number of segments that are to be made, about."""
    if segments is None or segments.is_remote:
        return 0
    cells = min(segments.rows, size[0]) * min(segments.columns, size[1])
    return cells if segments.name == "grid" else min(segments.n_segments, size[0] * size[1])


def _check_asked(request: Request, size: tuple[int, int], most: int | None) -> None:
    """Refuse more segments than the method takes, before any is made. Raises RequestError 413."""
    asked = _asked(request.segments, size)
    if most is not None and asked > most:
        wanted = f"wanted at most {most}: {request.plan.name} takes no more groups"
        raise RequestError(413, "segments", f"{wanted}, got {asked}")


def _room(
    segments: Segments | None, sent: int, size: tuple[int, int], limits: Limits, deadline: Deadline | None
) -> int:
    """Number of segments that may be made beside the masks that are there.

    Raises:
        RequestError: 413 for more groups than the limits allow, or than can be there in time, 503 for more than can be
            there in the time that is left; before any is made.
    """
    asked, pixels = _asked(segments, size), size[0] * size[1]
    most = min(limits.max_groups, limits.max_group_pixels // pixels)
    if deadline is not None:
        most = min(most, int(deadline.budget / (SECONDS_PER_GROUP_PIXEL * pixels)))
    if sent + asked > most:
        beside = f"{asked} segments beside {sent} masks" if asked and sent else f"{sent + asked}"
        wanted = f"wanted at most {most} groups on this model's input of {size[0]} × {size[1]}"
        raise RequestError(413, "masks" if sent else "segments", f"{wanted}, got {beside}")
    if deadline is not None:
        seconds = SECONDS_PER_GROUP_PIXEL * pixels * (sent + asked)
        if segments is not None and segments.name == "slic":
            seconds += SECONDS_PER_SLIC_PIXEL * pixels
        if seconds >= MIN_ADMITTED_SECONDS:
            deadline.admit(field="masks" if sent else "segments", seconds=seconds)
    return most - sent


def numbered(masks: PhotoMasks) -> PhotoMasks:
    """The same masks, those of one label numbered, so that an answer can tell them apart."""
    times = Counter(masks.labels)
    seen: Counter[str] = Counter()
    labels = []
    for label in masks.labels:
        seen[label] += 1
        labels.append(f"{label} {seen[label]}" if times[label] > 1 else label)
    return replace(masks, labels=tuple(labels))


def _segments(settings: Segments, seen: ModelInput, most: int) -> Tensor:
    """(S, H, W) bool, a partition of the photo's part of the input into at most so many; padding is in none."""
    picture = seen.of_photo(seen.preprocess.rgb(seen.image))
    if settings.name == "grid":
        labels = grid((picture.shape[1], picture.shape[2]), GridSettings(settings.rows, settings.columns))
    else:
        usual = SlicSettings(settings.n_segments)
        compactness = settings.compactness or usual.compactness
        labels = slic(picture, SlicSettings(settings.n_segments, compactness), most)
    return seen.over_padding(one_hot(labels))
