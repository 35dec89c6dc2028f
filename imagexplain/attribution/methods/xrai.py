"""XRAI: regions of the picture in the order in which they hold the most attribution for their area."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from imagexplain.attribution.baselines import extremes
from imagexplain.attribution.methods.integrated_gradients import integrated_gradients
from imagexplain.attribution.network.forward import isolated
from imagexplain.attribution.paths.path_integral import Forward
from imagexplain.attribution.registry import Peer, Workload, register
from imagexplain.attribution.targets import Targets, check_images, classes_to_explain
from imagexplain.errors import ArgumentError

# The reference implementation's, for pictures of 224 × 224 pixels with values from −1 to 1.
SCALES = (50, 100, 150, 250, 500, 1200)
SIGMA = 0.8
LEAST_SEGMENT = 150
SIDE = 224
DILATION = 5  # pixels of the picture itself, so that a segment holds its own edge
MOST_PIXELS = 2**21
"""Largest number of pixels of a picture whose segments are to be made."""
MOST_BYTES = 2**30
"""Largest size, in bytes, of a picture's segments, each of which takes a byte for each pixel. Photographs have about a
hundred segments, noise 400."""
PIECE = 2**14  # pixels whose segments are looked up at once

OPERATIONS_PER_SEGMENTATION = 1.5e10
"""Cost of the segmentations of a picture, which is brought to one size for them; twice what was measured."""

OPERATIONS_PER_PIXEL = 8e4
"""Cost of resizing a picture for them, and of growing regions from them, for each of its pixels; likewise."""


def _segmentation_operations(work: Workload) -> float:
    return OPERATIONS_PER_SEGMENTATION + OPERATIONS_PER_PIXEL * work.size[0] * work.size[1]


@register(
    family="regions",
    needs={"gradients"},
    gradient_passes=lambda work: work.draws * (work.options["steps"] + 2),
    operations=_segmentation_operations,
    own_draws=2,
    peer=Peer("PAIR", "XRAI", "the peer's integrated gradients are by another rule"),
)
@isolated
def xrai(
    model: Forward,
    images: Tensor,
    targets: Targets = None,
    *,
    attributions: Tensor | None = None,
    baselines: Tensor | None = None,
    segments: Sequence[Tensor] | None = None,
    pictures: Tensor | None = None,
    observe: Callable[[Tensor], None] | None = None,
    least: int = 50,
    steps: int = 50,
    chunk: int = 64,
) -> Tensor:
    """XRAI: regions grown greedily from overlapping segments; each pixel gets the density at which it joined.

    The densest segment joins first, then the one whose pixels that have not joined yet are densest, and so on. Density
    is the mean, over pixels, of the largest attribution among the channels. What no segment reaches gets its own
    mean, so that the map sums to what the attributions' maxima over the channels sum to.

    Args:
        model: Module or function from (N, C, H, W) to pre-softmax scores (N, classes), each row independent of the
            others. Not called where attributions are given.
        images: Images (B, C, H, W) in model-input space; without ``segments`` at most 2,097,152 pixels each.
        targets: Classes to explain: one for all images, one for each, or None for the predicted ones.
        attributions: Attributions (B, C or 1, H, W), signed; by default integrated gradients, averaged over the
            baselines.
        baselines: Starting points of the paths, (B, C, H, W), or several of each image, (D, B, C, H, W); by default
            two, the least and the largest value of each image.
        segments: Masks (S, H, W) of each image, bool, which may overlap; by default :func:`overlapping_segments`.
        pictures: Pictures (B, H, W, 3), uint8: the images as the eye sees them, from which segments are made; by
            default the model's input.
        observe: Function that gets the integrated gradients (B, C, H, W), averaged over the baselines.
        least: Least number of new pixels that a segment must bring to join, at least 1.
        steps: Number of Gauss–Legendre nodes on each path of integrated gradients.
        chunk: Number of path points evaluated at once.

    Returns:
        (B, 1, H, W) signed, in units of the score for a pixel.

    Raises:
        ArgumentError: arguments that do not fit, by name.

    Source: Kapishnikov, Bolukbasi, Viégas, Terry 2019, "XRAI: Better Attributions Through Regions", arXiv 1906.02825,
    algorithm 1, as in Google PAIR's ``saliency``, whose quicker and coarser variant is not offered: here sums over
    segments are kept up to date and not computed anew, so that each pixel of each segment is visited once.

    Example:
        >>> from torch import arange, nn, rand, stack
        >>> from imagexplain import gradient, xrai
        >>> network, images = nn.Sequential(nn.Flatten(), nn.Linear(768, 5)), rand(1, 3, 16, 16)
        >>> left, parts = (arange(16) < 8).expand(16, 16), gradient(network, images, 1)
        >>> maps = xrai(network, images, 1, attributions=parts, segments=[stack([left, ~left])])
        >>> maps.sum().allclose(parts.amax(1).sum(), atol=1e-5), len(maps.unique())
        (True, 2)
    """
    _check(images, attributions, segments, pictures, least, steps)
    starts = _starts(images, attributions, baselines)
    masks: Iterable[NDArray[np.bool_]]
    if segments is None:
        seen = images.detach().double().permute(0, 2, 3, 1) if pictures is None else pictures
        parts = [_parts(picture) for picture in seen.cpu().numpy()]  # first: one that has too many is refused
        size = (images.shape[2], images.shape[3])
        masks = (_widened(own, size) for own in parts)
    else:
        masks = (own.cpu().numpy() for own in segments)
    if attributions is None:
        attributions = _averaged(model, images, targets, starts, steps, chunk)
        if observe is not None:
            observe(attributions)
    densities = attributions.detach().double().amax(1).cpu().numpy()
    # One image's masks at a time.
    maps = [_joined(density, own, least) for density, own in zip(densities, masks, strict=True)]
    return torch.from_numpy(np.stack(maps)).unsqueeze(1).to(attributions)


def overlapping_segments(picture: NDArray[np.number]) -> NDArray[np.bool_]:
    """Segments (S, H, W), bool, of a picture (H, W, C) at six scales, widened by five pixels, none empty.

    Raises:
        ValueError: they would take more than a gibibyte, as those of a large and very patchy picture would.

    Source: Felzenszwalb, Huttenlocher 2004, "Efficient Graph-Based Image Segmentation", with the settings of Google
    PAIR's ``saliency``.
    """
    return _widened(_parts(picture), picture.shape[:2])


def _parts(picture: NDArray[np.number]) -> list[NDArray[np.int64]]:
    """Labels (SIDE, SIDE), from 0, of the parts of a picture (H, W, C) resized to that size, for each scale."""
    from skimage.segmentation import felzenszwalb  # takes a second
    from skimage.transform import resize

    values = picture.astype(np.float64)
    values = 2 * (values - values.min()) / (np.ptp(values) or 1) - 1
    large = resize(values, (SIDE, SIDE), order=3, mode="constant", preserve_range=True, anti_aliasing=True)
    found = [felzenszwalb(large, scale=scale, sigma=SIGMA, min_size=LEAST_SEGMENT) for scale in SCALES]
    height, width = picture.shape[:2]
    count = _number(found, (height, width))
    if count * height * width > MOST_BYTES:
        raise ArgumentError(
            "images", f"wanted segments of {MOST_BYTES} pixels in all at most, got {count} × {height} × {width}"
        )
    return found


def _widened(parts: Sequence[NDArray[np.int64]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Masks (S, H, W), bool: each part at the picture's size, with all that lies within five pixels of it."""
    from scipy.ndimage import find_objects

    rows, columns = _nearest(size[0]), _nearest(size[1])
    masks = np.zeros((_number(parts, size), *size), dtype=np.bool_)
    free = iter(masks)
    for small in parts:
        labels = small[rows][:, columns]
        # A part is widened within its own surroundings only.
        for part, box in enumerate(find_objects(labels + 1)):
            if box is not None:  # else too small to be seen at the picture's size
                near = tuple(slice(max(side.start - DILATION, 0), side.stop + DILATION) for side in box)
                next(free)[near] = _dilated(labels[near] == part)
    return masks


def _number(parts: Sequence[NDArray[np.int64]], size: tuple[int, int]) -> int:
    """Number of parts that are seen at the picture's size."""
    rows, columns = np.unique(_nearest(size[0])), np.unique(_nearest(size[1]))
    return sum(len(np.unique(labels[rows][:, columns])) for labels in parts)


def _nearest(side: int) -> NDArray[np.int64]:
    """Pixel of SIDE that each of a picture's takes its label from, along either axis: (side,)."""
    from skimage.transform import resize

    places = np.broadcast_to(np.arange(SIDE)[:, None], (SIDE, 1))
    found = resize(places, (side, 1), order=0, mode="constant", preserve_range=True, anti_aliasing=False)
    return found[:, 0].astype(np.int64)


def _dilated(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels (H, W) whose centres lie within five pixels of one of the mask's.

    It goes row by row of the disc: its rows are runs, and a run of r pixels to either side is one of r − 1, shifted
    both ways.
    """
    result = mask.copy()
    run = mask.copy()
    height = len(mask)
    for reach in range(DILATION + 1):
        if reach:
            wider = run.copy()
            wider[:, 1:] |= run[:, :-1]
            wider[:, :-1] |= run[:, 1:]
            run = wider
        # The rows of the disc that reach so far, and no farther.
        for away in range(DILATION + 1):
            if math.isqrt(DILATION**2 - away**2) == reach and away < height:
                result[away:] |= run[: height - away]
                result[: height - away] |= run[away:]
    return result


def _joined(density: NDArray[np.float64], segments: NDArray[np.bool_], least: int) -> NDArray[np.float64]:
    """Density (H, W) averaged over what each segment (S, H, W) adds, densest addition first."""
    values, masks = density.ravel(), segments.reshape(len(segments), density.size)
    # Of the pixels that have not joined; one mask after the other, for all at once would be copied as float64.
    sums, areas = np.array([values[mask].sum() for mask in masks]), masks.sum(1)
    result, rest = np.empty_like(values), np.ones(values.shape, dtype=bool)
    while (areas >= least).any():
        best = np.where(areas >= least, sums / np.maximum(areas, 1), -np.inf).argmax()
        new = np.flatnonzero(masks[best] & rest)
        result[new] = values[new].mean()
        rest[new] = False
        for piece in np.split(new, range(PIECE, len(new), PIECE)):
            holds = masks[:, piece]
            sums -= holds @ values[piece]
            areas -= holds.sum(1)
    if rest.any():
        result[rest] = values[rest].mean()
    return result.reshape(density.shape)


def _starts(images: Tensor, attributions: Tensor | None, baselines: Tensor | None) -> Tensor:
    """Starting points (D, B, C, H, W) of the paths."""
    if baselines is None:
        return torch.stack([extremes(image) for image in images], 1)
    if attributions is not None:
        raise ArgumentError("baselines", "wanted them where there are no attributions, got both")
    starts = baselines.unsqueeze(0) if baselines.ndim == images.ndim else baselines
    if starts.shape[1:] != images.shape or not len(starts):
        wanted = f"{tuple(images.shape)} like images, or several of that shape"
        raise ArgumentError("baselines", f"wanted {wanted}, got {tuple(baselines.shape)}")
    return starts


def _averaged(model: Forward, images: Tensor, targets: Targets, starts: Tensor, steps: int, chunk: int) -> Tensor:
    """Integrated gradients (B, C, H, W), the mean of those from each of the starting points (D, B, C, H, W)."""
    classes, draws = classes_to_explain(model, images, targets, chunk), len(starts)
    ends, kinds = images.repeat(draws, 1, 1, 1), classes.repeat(draws)
    maps = integrated_gradients(model, ends, kinds, baselines=starts.flatten(0, 1), steps=steps, chunk=chunk)
    return maps.unflatten(0, (draws, len(images))).mean(0)


def _check(
    images: Tensor,
    attributions: Tensor | None,
    segments: Sequence[Tensor] | None,
    pictures: Tensor | None,
    least: int,
    steps: int,
) -> None:
    check_images(images)
    count, channels, *sides = images.shape
    if attributions is not None and attributions.shape not in (images.shape, (count, 1, *sides)):
        raise ArgumentError(
            "attributions",
            f"wanted {(count, channels, *sides)} or {(count, 1, *sides)}, got {tuple(attributions.shape)}",
        )
    if attributions is not None and not attributions.isfinite().all():
        raise ArgumentError("attributions", "wanted finite values, got NaN or infinity")
    if segments is not None:
        if len(segments) != count:
            raise ArgumentError("segments", f"wanted one tensor for each of {count} images, got {len(segments)}")
        for own in segments:
            if own.ndim != 3 or own.dtype != torch.bool or list(own.shape[1:]) != sides:
                raise ArgumentError(
                    "segments", f"wanted (S, {sides[0]}, {sides[1]}) bool, got {tuple(own.shape)} {own.dtype}"
                )
    if segments is None and math.prod(sides) > MOST_PIXELS:
        raise ArgumentError(
            "images", f"wanted at most {MOST_PIXELS} pixels each, or segments, got {sides[0]} × {sides[1]}"
        )
    if pictures is not None and (pictures.shape != (count, *sides, 3) or pictures.dtype != torch.uint8):
        raise ArgumentError(
            "pictures", f"wanted {(count, *sides, 3)} uint8, got {tuple(pictures.shape)} {pictures.dtype}"
        )
    for name, value in (("least", least), ("steps", steps)):
        if value < 1:
            raise ArgumentError(name, f"wanted at least 1, got {value}")
