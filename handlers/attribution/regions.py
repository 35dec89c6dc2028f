"""XRAI: regions of the picture in the order in which they hold the most attribution for their area."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.morphology import isotropic_dilation
from skimage.segmentation import felzenszwalb
from skimage.transform import resize
from torch import Tensor

from handlers.attribution.integrated import integrated_gradients
from handlers.attribution.path import Forward
from handlers.attribution.targets import Targets, classes_to_explain

# The reference implementation's, for pictures of 224 × 224 pixels with values from −1 to 1.
SCALES = (50, 100, 150, 250, 500, 1200)
SIGMA = 0.8
LEAST_SEGMENT = 150
SIDE = 224
DILATION = 5  # pixels of the picture itself, so that a segment holds its own edge


def xrai(
    model: Forward,
    images: Tensor,
    targets: Targets = None,
    *,
    attributions: Tensor | None = None,
    segments: Sequence[Tensor] | None = None,
    pictures: Tensor | None = None,
    least: int = 50,
    steps: int = 50,
    chunk: int = 64,
) -> Tensor:
    """Regions grown greedily from overlapping segments; each pixel gets the density at which it joined.

    The densest segment joins first, then the one whose pixels that have not joined yet are densest, and so on. Density
    is the mean, over pixels, of the largest attribution among the channels. What no segment reaches gets its own
    mean, so that the map sums to what the attributions' maxima over the channels sum to.

    Args:
        model: maps (N, C, H, W) to pre-softmax scores (N, classes), each row independent of the others. Not called
            where attributions are given.
        images: (B, C, H, W) in model-input space.
        targets: see :data:`~handlers.attribution.targets.Targets`.
        attributions: (B, C or 1, H, W) signed; by default integrated gradients, averaged over two baselines, the
            least and the largest value of each image.
        segments: for each image (S, H, W) bool, which may overlap; by default :func:`overlapping_segments`.
        pictures: (B, H, W, 3) uint8, the images as the eye sees them, from which segments are made; by default the
            model's input.
        least: a segment must bring that many new pixels to join, at least 1.
        steps: Gauss–Legendre nodes on each path of integrated gradients.
        chunk: path points evaluated at once.

    Returns:
        (B, 1, H, W) signed, in units of the score for a pixel.

    Raises:
        ValueError: arguments that do not fit, by name.

    Source: Kapishnikov, Bolukbasi, Viégas, Terry 2019, "XRAI: Better Attributions Through Regions", arXiv 1906.02825,
    algorithm 1, as in Google PAIR's ``saliency``, whose quicker and coarser variant is not offered: here sums over
    segments are kept up to date and not computed anew, so that each pixel of each segment is visited once.
    """
    _check(images, attributions, segments, pictures, least, steps)
    if attributions is None:
        attributions = _two_baselines(model, images, targets, steps, chunk)
    densities = attributions.detach().double().amax(1).cpu().numpy()
    if segments is None:
        seen = images.detach().double().permute(0, 2, 3, 1) if pictures is None else pictures
        segments = [torch.from_numpy(overlapping_segments(picture)) for picture in seen.cpu().numpy()]
    maps = [_joined(density, own.cpu().numpy(), least) for density, own in zip(densities, segments, strict=True)]
    return torch.from_numpy(np.stack(maps)).unsqueeze(1).to(attributions)


def overlapping_segments(picture: NDArray[np.number]) -> NDArray[np.bool_]:
    """(S, H, W) bool segments of a picture (H, W, C) at six scales, widened by five pixels, none empty.

    Source: Felzenszwalb, Huttenlocher 2004, "Efficient Graph-Based Image Segmentation", with the settings of Google
    PAIR's ``saliency``.
    """
    values = picture.astype(np.float64)
    values = 2 * (values - values.min()) / (np.ptp(values) or 1) - 1
    large = resize(values, (SIDE, SIDE), order=3, mode="constant", preserve_range=True, anti_aliasing=True)
    masks = []
    for scale in SCALES:
        parts = felzenszwalb(large, scale=scale, sigma=SIGMA, min_size=LEAST_SEGMENT)
        parts = resize(
            parts, picture.shape[:2], order=0, mode="constant", preserve_range=True, anti_aliasing=False
        ).astype(int)
        masks += [isotropic_dilation(parts == part, DILATION) for part in np.unique(parts)]
    return np.stack(masks)


def _joined(density: NDArray[np.float64], segments: NDArray[np.bool_], least: int) -> NDArray[np.float64]:
    """(H, W) the density (H, W) averaged over what each segment (S, H, W) adds, densest addition first."""
    values, masks = density.ravel(), segments.reshape(len(segments), density.size)
    # Of the pixels that have not joined; one mask after the other, for all at once would be copied as float64.
    sums, areas = np.array([values[mask].sum() for mask in masks]), masks.sum(1)
    result, rest = np.empty_like(values), np.ones(values.shape, dtype=bool)
    while (areas >= least).any():
        best = np.where(areas >= least, sums / np.maximum(areas, 1), -np.inf).argmax()
        new = np.flatnonzero(masks[best] & rest)
        result[new] = values[new].mean()
        rest[new] = False
        sums -= masks[:, new] @ values[new]
        areas -= masks[:, new].sum(1)
    if rest.any():
        result[rest] = values[rest].mean()
    return result.reshape(density.shape)


def _two_baselines(model: Forward, images: Tensor, targets: Targets, steps: int, chunk: int) -> Tensor:
    """(B, C, H, W) integrated gradients, the mean of those from each image's least and largest value."""
    classes = classes_to_explain(model, images, targets, chunk)
    ends = [images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)]
    baselines = torch.cat([end.expand_as(images) for end in ends])
    pairs, kinds = images.repeat(2, 1, 1, 1), classes.repeat(2)
    maps = integrated_gradients(model, pairs, kinds, baselines=baselines, steps=steps, chunk=chunk)
    return maps.unflatten(0, (2, len(images))).mean(0)


def _check(
    images: Tensor,
    attributions: Tensor | None,
    segments: Sequence[Tensor] | None,
    pictures: Tensor | None,
    least: int,
    steps: int,
) -> None:
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(f"images: wanted (B, C, H, W) floating point, got {tuple(images.shape)} {images.dtype}")
    count, channels, *sides = images.shape
    if attributions is not None and attributions.shape not in (images.shape, (count, 1, *sides)):
        raise ValueError(
            f"attributions: wanted {(count, channels, *sides)} or {(count, 1, *sides)}, got {tuple(attributions.shape)}"
        )
    if attributions is not None and not attributions.isfinite().all():
        raise ValueError("attributions: wanted finite values, got NaN or infinity")
    if segments is not None:
        if len(segments) != count:
            raise ValueError(f"segments: wanted one tensor for each of {count} images, got {len(segments)}")
        for own in segments:
            if own.ndim != 3 or own.dtype != torch.bool or list(own.shape[1:]) != sides:
                raise ValueError(
                    f"segments: wanted (S, {sides[0]}, {sides[1]}) bool, got {tuple(own.shape)} {own.dtype}"
                )
    if pictures is not None and (pictures.shape != (count, *sides, 3) or pictures.dtype != torch.uint8):
        raise ValueError(f"pictures: wanted {(count, *sides, 3)} uint8, got {tuple(pictures.shape)} {pictures.dtype}")
    for name, value in (("least", least), ("steps", steps)):
        if value < 1:
            raise ValueError(f"{name}: wanted at least 1, got {value}")
