"""Estimates of a request's work beside the model's evaluations and of its answer's size, made before any of it is done.

Seconds go to :meth:`imagexplain.serving.deadline.Deadline.admit`; they are those of one slow core, and rather too many
than few.
"""

from __future__ import annotations

import math

from isal import igzip
from torch import lerp

from imagexplain.api.request import GZIP, JSON, PNG, SAFETENSORS, Request, has_label_map, has_runs
from imagexplain.api.response import GZIP_LEVEL, check_size
from imagexplain.attribution.paths.adaptive import MOST_BYTES, START
from imagexplain.errors import RequestError
from imagexplain.serving.deadline import Deadline
from imagexplain.serving.prepared_request import PreparedRequest
from imagexplain.vision.detections import Detections

MAX_DRAWN_BYTES = 2**28
"""Bytes that the images of a baseline of several draws may take; what is made of them takes some ten times as much."""

SECONDS_PER_BLURRED = 3e-7
"""Seconds for each value of an image that is blurred."""

SECONDS_PER_DRAWN = 4e-8
"""Seconds for each value of a random image."""

SECONDS_PER_SHARE = 1e-9
"""Seconds for each pixel of a group whose share of one gradient is summed."""

SECONDS_PER_PIXEL = 1e-6
"""Seconds for each pixel of a picture."""

SECONDS_PER_MASK_PIXEL = {PNG: 6e-8, JSON: 2e-8}
"""Seconds for each pixel of an instance's mask, by media type: drawn with its outline, or written in runs."""

SECONDS_PER_RUN = 3e-6
"""Seconds for each run of a group's mask over the photo."""

SECONDS_PER_LABELLED_PIXEL = 2e-8
"""Seconds for each pixel of the photo, and of each rectangle around a group, in a map of labels."""

BYTES_PER_RUN = 2
"""Bytes that a run takes, at least."""

SECONDS_PER_LISTED = 1e-7
"""Seconds for each disjoint part of the image and each group that may hold it."""

SECONDS_PER_PAIR = 1e-10
"""Seconds for each disjoint part and each pair of groups, one of which may hold the other."""

GRADIENTS_LEFT = 0.85
"""Part of the bytes of gradients that gzip leaves, at least: all but their sign and exponent is noise."""

POINTS_LEFT = 0.9
"""Part that gzip leaves of the points of a path, at least, relative to the part that it leaves of one of them."""

MASKS_LEFT = 1 / 32
"""Part of the bytes of masks that counts in gzip. It leaves less, but they have to be held in memory before."""


def admit_baseline(request: Request, size: tuple[int, int], deadline: Deadline, channels: int = 3) -> None:
    """Refuse a baseline that would take too much memory or time, before it is made.

    Args:
        request: Parsed request.
        size: (H, W) of the model's input.
        deadline: Deadline of the batch; the baseline is made at once, so that nothing stays committed.
        channels: Number of channels of the model's input.

    Raises:
        RequestError: 413 for too many draws or too long a time, 503 if there is no time left.
    """
    if not request.has_baseline:
        return
    baseline, values = request.baseline, channels * size[0] * size[1]
    draws = baseline.paths
    image = 4 * values
    # A refinement keeps some gradients of every path, however little it may keep.
    refined = request.by_path and request.path.tolerance is not None
    most = MOST_BYTES // (image * (START + 1)) if refined else MAX_DRAWN_BYTES // image
    if draws > max(1, most):
        beside = " and a tolerance" if refined else ""
        wanted = f"wanted at most {max(1, most)} draws with a model input of {size[0]} × {size[1]}{beside}"
        raise RequestError(413, "baseline_tensor" if baseline.tensor is not None else "draws", f"{wanted}, got {draws}")
    each = {"blur": SECONDS_PER_BLURRED, "uniform": SECONDS_PER_DRAWN}.get(baseline.name, 0.0)
    deadline.admit(field="baseline", seconds=draws * values * each)


def seconds_of_answer(sample: PreparedRequest) -> float:
    """The time from an explanation to its answer: the table of groups, or the picture."""
    seconds = 0.0
    if sample.groups is not None:
        parts, groups = sample.groups.family.parts.members.shape
        seconds += SECONDS_PER_LISTED * parts * groups + SECONDS_PER_PAIR * parts * groups**2
    if sample.over_photo is not None and has_runs(sample.request):
        seconds += SECONDS_PER_RUN * sample.over_photo.runs
        seconds += SECONDS_PER_LABELLED_PIXEL * sample.over_photo.written_pixels
    if sample.over_photo is not None and has_label_map(sample.request):
        pixels = math.prod(sample.geometry.photo) + sample.over_photo.drawn_pixels
        seconds += SECONDS_PER_LABELLED_PIXEL * pixels
    if sample.request.accept == PNG:
        seconds += SECONDS_PER_PIXEL * math.prod(sample.request.photo.size)
    return seconds


def seconds_of_instances(found: Detections, media: str) -> float:
    """The time from instances to the answer that shows or lists them."""
    masks = sum(cut_out.mask.size for cut_out in found.cut_outs)
    drawn = SECONDS_PER_PIXEL * math.prod(found.size) if media == PNG else 0.0
    return drawn + SECONDS_PER_MASK_PIXEL.get(media, 0.0) * masks


def seconds_of_shares(sample: PreparedRequest, points: int) -> float:
    """The time for the groups' shares of the gradient at so many points of a path, where these are asked for."""
    if sample.groups is None or "absolute_directional" not in sample.request.outputs:
        return 0.0
    return SECONDS_PER_SHARE * points * sample.groups.family.masks.numel()


def check_answer(sample: PreparedRequest, classes: int, max_bytes: int) -> None:
    """Refuse an explanation whose answer is known to be too large, before anything is computed for it.

    Raises:
        RequestError: 413, with the limit and what the answer would take at least.
    """
    request = sample.request
    path = request.path
    steps = 0 if not request.by_path else path.steps if path.tolerance is None else min(path.steps, START + 1)
    least = bytes_beside_steps(sample, classes) + steps * bytes_per_step(sample, max_bytes)
    check_size(int(least), request.accept, max_bytes)


def check_masks(count: int, size: tuple[int, int], media: str, max_bytes: int) -> None:
    """Refuse so many masks of a photo (H, W) that are known to be too large an answer, before they are made.

    Raises:
        RequestError: 413, as :func:`check_answer`.
    """
    share = {GZIP: MASKS_LEFT, SAFETENSORS: 1.0}.get(media, 0.0)
    check_size(int(share * count * size[0] * size[1]), media, max_bytes)


def nodes_that_fit(sample: PreparedRequest, classes: int, max_bytes: int) -> int:
    """Largest number of nodes of a refined path that fits its answer and the memory that its draws may keep."""
    kept = MOST_BYTES // (4 * sample.image.numel() * len(sample.baselines))
    each = bytes_per_step(sample, max_bytes)
    if each == 0:
        return kept
    return min(kept, int((max_bytes - bytes_beside_steps(sample, classes)) // each))


def bytes_per_step(sample: PreparedRequest, max_bytes: int) -> float:
    """Bytes that each step adds to the answer, at least; 0 where the answer holds no step."""
    request = sample.request
    if not request.by_path or request.accept not in (GZIP, SAFETENSORS):
        return 0.0
    each = 4 * sample.image.numel()
    gradients, points = (name in request.outputs for name in ("integrated_directional_grads", "intermediates"))
    raw = each * (gradients + points)
    if request.accept == SAFETENSORS or raw * request.path.steps <= max_bytes:  # else it is worth a closer look
        return raw
    seen = 0.0
    if points:
        point = lerp(sample.baselines[0], sample.image, 0.37).numpy().tobytes()
        seen = POINTS_LEFT * len(igzip.compress(point, GZIP_LEVEL)) / len(point)
    return each * (GRADIENTS_LEFT * gradients + seen * points)


def bytes_beside_steps(sample: PreparedRequest, classes: int) -> float:
    """Bytes that the rest of the answer takes, at least."""
    request, groups = sample.request, sample.groups
    pixels = sample.image[0].numel()
    if request.accept == PNG:
        return 0.0
    size = 0.0
    if sample.over_photo is not None and has_runs(request):
        size += BYTES_PER_RUN * sample.over_photo.runs * (MASKS_LEFT if request.accept == GZIP else 1)
    if request.accept in (GZIP, SAFETENSORS):
        exact = request.accept == SAFETENSORS
        size += 4 * classes
        if request.by_path:
            # Where the image is its baseline, the map is zero, which takes no room in gzip.
            differs = (sample.image != sample.baselines).any(0).float().mean().item()
            size += 4 * sample.image.numel() * (1 if exact else GRADIENTS_LEFT * differs)
        elif exact:
            size += 4 * pixels
        if has_label_map(request):
            size += 4 * math.prod(sample.geometry.photo) * (1 if exact else MASKS_LEFT)
        if groups is not None and not request.legacy:
            size += groups.family.masks.numel() * (1 if exact else MASKS_LEFT)
            size += 4 * pixels * (request.pixels and exact)
    if groups is not None and request.by_path and request.accept in (JSON, SAFETENSORS):
        # The table of the disjoint parts: {"segments":["label","label"],"attribution":0.1,"area":1}
        members = groups.family.parts.members
        lengths = [
            len(label.encode()) + 3 if kind == "segment" else 0
            for label, kind in zip(groups.family.labels, groups.family.kinds, strict=True)
        ]
        size += 40 * len(members)
        size += sum(count * length for count, length in zip(members.sum(0).tolist(), lengths, strict=True))
    return size
