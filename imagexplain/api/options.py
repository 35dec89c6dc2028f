"""The options of an explanation: the path's quadrature, its baseline, and the groups that are scored.

Options arrive as plain values by name, from JSON or from text (:func:`imagexplain.api.request.parse` sees to that). One
that has no part in what was asked is an error, so that a typing mistake does not pass for a choice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from imagexplain.errors import RequestError, shown, unknown
from imagexplain.limits import CaptionLimits, Limits
from imagexplain.vision.decode import Photo, decode, from_base64

QUADRATURES = ("gauss_legendre", "midpoint", "left", "right", "trapezoid")
BASELINES = ("zero", "black", "white", "mean", "blur", "uniform", "extremes", "image", "tensor")
PICTURES = ("annotated", "plain")
SEGMENTS = ("slic", "grid")
"""Segments that a worker makes itself; any other name is that of a segmenter on the same server."""

PATH_OPTIONS = ("steps", "tolerance", "quadrature")
BASELINE_OPTIONS = ("baseline", "blur", "draws", "seed", "baseline_image", "baseline_tensor")
PICTURE_OPTIONS = ("picture", "picture_sigma")
GROUP_OPTIONS = ("masks", "segments", "n_segments", "compactness", "rows", "columns", "threshold", "fallback", "pixels")

ABSENT = "absent"
ABSENT_OPTIONS = (ABSENT, *GROUP_OPTIONS, *BASELINE_OPTIONS, "method", "combine", "target_class", "contrast_class")
"""Options of a prediction without some groups; those after the first mean what they mean beside an explanation."""

CAPTION_COUNTS = ("beams", "n_best", "max_words", "node_limit")
"""Options of a captioner that are numbers."""
GRAPH_OPTIONS = ("graph", "graphs", "features")

MAX_SEED = 2**63 - 1


@dataclass(frozen=True)
class Count:
    """An option that is a whole number.

    Attributes:
        most: Largest number, or the name of the limit that it is; None for any.
        least: Smallest number.
    """

    most: int | str | None = None
    least: int = 1

    def upper(self, limits: Limits | CaptionLimits) -> int | None:
        """The largest number under these limits."""
        return getattr(limits, self.most) if isinstance(self.most, str) else self.most


@dataclass(frozen=True)
class Amount:
    """An option that is a number above 0.

    Attributes:
        most: Largest number.
        zero: Flag for 0 as well.
    """

    most: float
    zero: bool = False

    def holds(self, value: float) -> bool:
        """Tell whether a number lies within the bounds; NaN does not."""
        return 0 < value <= self.most or (self.zero and value == 0)


COUNTS: Mapping[str, Count] = {
    "steps": Count("max_steps"),
    "draws": Count("max_draws"),
    "seed": Count(MAX_SEED, least=0),
    "n_segments": Count("max_groups"),
    "rows": Count("max_groups"),
    "columns": Count("max_groups"),
    "detection": Count(least=0),
    "top_k": Count("max_targets"),
    "beams": Count("max_beams"),
    "n_best": Count("max_beams"),
    "max_words": Count("max_words"),
    "node_limit": Count("max_nodes"),
}
"""Options that are whole numbers, with their bounds."""

AMOUNTS: Mapping[str, Amount] = {
    "tolerance": Amount(1, zero=True),
    "blur": Amount(1),
    "compactness": Amount(1e6),
    "threshold": Amount(1, zero=True),
    "picture_sigma": Amount(0.5, zero=True),
}
"""Options that are numbers, with their bounds."""

SWITCHES = ("pixels", "normalized", "map")
FILES = ("masks", "baseline_image", "baseline_tensor", *GRAPH_OPTIONS)
"""Options that may be as long as a request's body; all others are short."""

MODEL_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"
"""Pattern of the name of a segmenter on the same server."""

OWNERS = {
    "blur": ("baseline", "blur"),
    "draws": ("baseline", "uniform"),
    "seed": ("baseline", "uniform"),
    "baseline_image": ("baseline", "image"),
    "baseline_tensor": ("baseline", "tensor"),
    "n_segments": ("segments", "slic"),
    "compactness": ("segments", "slic"),
    "rows": ("segments", "grid"),
    "columns": ("segments", "grid"),
}
"""The choice without which an option means nothing."""


@dataclass(frozen=True)
class PictureOptions:
    """The contents of ``image/png``.

    Attributes:
        annotated: Title, colour key and legend around the photo; otherwise the bare overlay, of the photo's size.
        sigma: Standard deviation of the Gaussian that smooths a map of pixels, as a fraction of the shorter side of the
            model's input; 0 for none, None for the default of the method and size.
    """

    annotated: bool = True
    sigma: float | None = None


ANNOTATED = PictureOptions()
"""Picture options where the client says nothing."""


@dataclass(frozen=True)
class PathOptions:
    """The path of integrated gradients.

    Attributes:
        steps: Number of points on the path; with a tolerance, at most.
        tolerance: Relative change of residual and groups below which refinement ends; None for a fixed quadrature, to
            which a request's 0 amounts.
        quadrature: One of ``QUADRATURES``; ignored with a tolerance.
    """

    steps: int = 50
    tolerance: float | None = None
    quadrature: str = "gauss_legendre"


@dataclass(frozen=True, eq=False)
class Baseline:
    """The baseline, at which paths start.

    Attributes:
        name: One of ``BASELINES``.
        blur: Standard deviation of the blur, as a part of the model input's shorter side, in (0, 1].
        draws: Number of noise images of ``uniform`` that are averaged over, 1 … ``Limits.max_draws``.
        seed: Seed of the noise.
        photo: The second image of ``image``, upright.
        tensor: (D, C, H, W) float32, the model-space inputs of ``tensor``.
    """

    name: str = "zero"
    blur: float = 0.1
    draws: int = 4
    seed: int = 0
    photo: Photo | None = None
    tensor: Tensor | None = None

    @property
    def paths(self) -> int:
        """Number of the paths that start from it."""
        if self.tensor is not None:
            return len(self.tensor)
        return {"uniform": self.draws, "extremes": 2}.get(self.name, 1)


@dataclass(frozen=True)
class Segments:
    """Segments that the server makes.

    Attributes:
        name: One of ``SEGMENTS``, or the name of a served segmenter.
        n_segments: Number of superpixels, approximately.
        compactness: Weight of nearness against colour in superpixels; None for the default.
        rows, columns: Numbers of rows and columns of the grid.
        threshold: Score in [0, 1] that a segmenter's instances must exceed; None for its default.
        fallback: One of ``SEGMENTS``, which takes a segmenter's place when that does not answer; None for an error.
    """

    name: str
    n_segments: int = 50
    compactness: float | None = None
    rows: int = 4
    columns: int = 4
    threshold: float | None = None
    fallback: str | None = None

    @property
    def is_remote(self) -> bool:
        """Tell whether another model of the server makes them."""
        return self.name not in SEGMENTS


def path_options(options: Mapping[str, Any], limits: Limits, default: PathOptions) -> PathOptions:
    """The path's options; what is not said is taken from ``default``.

    Raises:
        RequestError: 400, and 413 for more steps than the limit.
    """
    tolerance = amount("tolerance", options)
    if tolerance is None and "steps" not in options:  # who names the steps wants so many
        tolerance = default.tolerance
    tolerance = tolerance or None
    if tolerance is not None and "quadrature" in options:
        raise RequestError(400, "quadrature", "with a tolerance the points are placed where they are needed")
    unsaid = default.steps if tolerance is None or default.tolerance is not None else limits.max_steps
    steps = count("steps", options, unsaid, limits)
    quadrature = choice("quadrature", options.get("quadrature"), QUADRATURES, default.quadrature)
    if quadrature == "trapezoid" and steps < 2:
        raise RequestError(400, "steps", f"wanted at least 2 for the trapezoid, got {steps}")
    return PathOptions(steps, tolerance, quadrature)


def baseline_options(options: Mapping[str, Any], limits: Limits, default: str, *, alpha: bool = False) -> Baseline:
    """The baseline's options.

    Raises:
        RequestError: 400 for an option that is malformed or does not go with the baseline, a tensor that holds NaN or
            infinity; 413 and 415 as for any image.
    """
    name = choice("baseline", options.get("baseline"), BASELINES, default)
    _check_owners(options, "baseline", name)
    usual = Baseline()
    photo = tensor = None
    if name == "image":
        photo = _second_photo(options.get("baseline_image"), limits, alpha)
    if name == "tensor":
        tensor = _tensor("baseline_tensor", options.get("baseline_tensor"), limits.max_draws)
    return Baseline(
        name=name,
        blur=amount("blur", options) or usual.blur,
        draws=count("draws", options, usual.draws, limits),
        seed=count("seed", options, usual.seed, limits),
        photo=photo,
        tensor=tensor,
    )


def segment_options(options: Mapping[str, Any], limits: Limits) -> Segments | None:
    """The segments to make, None where none are asked for.

    Raises:
        RequestError: 400 for an option that is malformed or does not go with the segments, 413 for too many of them.
    """
    name = options.get("segments")
    if name is not None and not (isinstance(name, str) and re.fullmatch(MODEL_NAME, name)):
        raise RequestError(400, "segments", f"{unknown('segments', name, SEGMENTS)}; or the name of a segmenter")
    fallback = choice("fallback", options["fallback"], SEGMENTS, "") if "fallback" in options else None
    is_remote = name is not None and name not in SEGMENTS
    for option in ("threshold", "fallback"):
        if option in options and not is_remote:
            given = f", got segments={name}" if name else ""
            raise RequestError(400, option, f"wanted segments=<name of a segmenter> beside it{given}")
    _check_owners(options, "segments", fallback or name)
    if name is None:
        return None
    usual = Segments(name)
    segments = Segments(
        name=name,
        n_segments=count("n_segments", options, usual.n_segments, limits),
        compactness=amount("compactness", options),
        rows=count("rows", options, usual.rows, limits),
        columns=count("columns", options, usual.columns, limits),
        threshold=threshold_option(options),
        fallback=fallback,
    )
    if "grid" in (name, fallback) and segments.rows * segments.columns > limits.max_groups:
        given = f"{segments.rows} × {segments.columns}"
        raise RequestError(413, "rows", f"wanted a grid of at most {limits.max_groups} cells, got {given}")
    return segments


def threshold_option(options: Mapping[str, Any]) -> float | None:
    """The score that a detection must exceed, None where the client gave none. Raises RequestError 400."""
    return amount("threshold", options)


def absent_option(options: Mapping[str, Any], limits: Limits) -> tuple[int, ...]:
    """The rows of the groups that are absent, none where the client names none.

    Raises:
        RequestError: 400 for what is no list of rows, or an empty one, 413 for more rows than groups may be.
    """
    value = options.get("absent")
    if value is None:
        return ()
    wanted = "wanted a list of rows of the table of groups, from 0"
    if not isinstance(value, list) or not value or any(type(row) is not int or row < 0 for row in value):
        raise RequestError(400, "absent", f"{wanted}, got {shown(value)}")
    most = limits.max_groups + 1  # and the rest
    if len(value) > most:
        raise RequestError(413, "absent", f"wanted at most {most} rows, got {len(value)}")
    return tuple(dict.fromkeys(value))


def detection_option(options: Mapping[str, Any]) -> int | None:
    """The index of the detection to explain, None where the client gave none. Raises RequestError 400."""
    value = options.get("detection")
    if value is None:
        return None
    if type(value) is not int or value < COUNTS["detection"].least:
        raise RequestError(400, "detection", f"wanted the index of a detection, from 0, got {shown(value)}")
    return value


def picture_options(options: Mapping[str, Any]) -> PictureOptions:
    """The style of a picture and the smoothing of the map that it shows. Raises RequestError 400."""
    style = choice("picture", options.get("picture"), PICTURES, "annotated")
    sigma = amount("picture_sigma", options)
    if sigma is not None and not {"masks", "segments"}.isdisjoint(options):
        raise RequestError(400, "picture_sigma", "goes with maps of pixels: wanted no masks and no segments beside it")
    return PictureOptions(annotated=style == "annotated", sigma=sigma)


def choice(name: str, value: object, known: tuple[str, ...], default: str) -> str:
    """One of the known words, ``default`` where the client gave none. Raises RequestError 400."""
    if value is None:
        return default
    if not isinstance(value, str) or value not in known:
        raise RequestError(400, name, unknown(name, value, known))
    return value


def switch(name: str, value: object) -> bool:
    """A truth value, false where the client gave none. Raises RequestError 400."""
    if value is None:
        return False
    if not isinstance(value, bool):
        raise RequestError(400, name, f"wanted true or false, got {shown(value)}")
    return value


def _check_owners(options: Mapping[str, Any], owner: str, chosen: str | None) -> None:
    for name in options:
        if name in OWNERS and OWNERS[name][0] == owner and OWNERS[name][1] != chosen:
            wanted = f"wanted {owner}={OWNERS[name][1]} beside it"
            raise RequestError(400, name, f"{wanted}, got {owner}={chosen}" if chosen else wanted)


def count(name: str, options: Mapping[str, Any], default: int, limits: Limits | CaptionLimits) -> int:
    """One of ``COUNTS``, ``default`` where the client gave none. Raises RequestError 400, and 413 above the most."""
    value, bounds = options.get(name), COUNTS[name]
    if value is None:
        return default
    most = bounds.upper(limits)
    wanted = f"wanted a whole number in {bounds.least}..{most}"
    if type(value) is not int or value < bounds.least:
        raise RequestError(400, name, f"{wanted}, got {shown(value)}")
    if most is not None and value > most:
        raise RequestError(413, name, f"{wanted}, got {shown(value)}")
    return value


def amount(name: str, options: Mapping[str, Any]) -> float | None:
    """One of ``AMOUNTS``, None where the client gave none. Raises RequestError 400."""
    value, bounds = options.get(name), AMOUNTS[name]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not bounds.holds(value):
        wanted = f"in 0..{bounds.most:g}" if bounds.zero else f"above 0 and up to {bounds.most:g}"
        raise RequestError(400, name, f"wanted a number {wanted}, got {shown(value)}")
    return float(value)


def numbers(name: str, value: object, wanted: str) -> NDArray[Any]:
    """The numbers in nested lists of one length at each depth. Raises RequestError 400, also for text of numbers."""
    try:
        array = np.array(value)
    except (TypeError, ValueError, OverflowError):
        array = None
    if array is None or array.dtype.kind not in "iuf":
        raise RequestError(400, name, f"wanted {wanted}, got {shown(value)}")
    return array


def _second_photo(value: object, limits: Limits, alpha: bool) -> Photo:
    if value is None:
        raise RequestError(400, "baseline_image", "wanted the image that baseline=image starts from, got none")
    data = value if isinstance(value, bytes) else from_base64(value, "baseline_image")
    return decode(data, limits, "baseline_image", alpha=alpha)


def _tensor(name: str, value: object, most: int) -> Tensor:
    """A (D, C, H, W) tensor, of one draw without that axis: a nested list, or a safetensors file that holds one."""
    if value is None:
        raise RequestError(400, name, "wanted the tensor that baseline=tensor starts from, got none")
    if isinstance(value, bytes):
        try:
            tensors = safetensors.torch.load(value)
        except (safetensors.SafetensorError, ValueError, KeyError) as error:
            raise RequestError(400, name, f"wanted a safetensors file with one tensor: {error}") from None
        if len(tensors) != 1:
            raise RequestError(400, name, f"wanted a safetensors file with one tensor, got {len(tensors)}")
        (tensor,) = tensors.values()
    else:
        with np.errstate(over="ignore"):  # to infinity, which is refused
            tensor = torch.from_numpy(numbers(name, value, "a nested list of numbers").astype(np.float32))
    if tensor.ndim == 3:
        tensor = tensor.unsqueeze(0)
    if tensor.ndim != 4 or len(tensor) == 0:
        wanted = "wanted three axes (channel, row, column), or four with that of the draws first"
        raise RequestError(400, name, f"{wanted}, got {list(tensor.shape)}")
    if len(tensor) > most:
        raise RequestError(413, name, f"wanted at most {most} draws, got {len(tensor)}")
    if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
        raise RequestError(400, name, "wanted finite numbers in the model's input space, got NaN, infinity or integers")
    return tensor.float()
