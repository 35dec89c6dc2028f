"""Fields of a preprocessing: their values, and the check that no two of them contradict each other.

Nothing here imports torch: a spec is checked before anything is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

Size = tuple[int, int]
Fit = Literal["stretch", "crop", "pad"]
Interpolation = Literal["nearest", "nearest_exact", "bilinear", "bicubic", "lanczos", "box", "hamming"]
Resampling = Literal["pillow", "torch", "torch_float"]
Rounding = Literal["floor", "round"]
PadMode = Literal["constant", "reflect", "edge"]
PadPosition = Literal["center", "top_left"]
PadExtra = Literal["after", "before"]
Channels = Literal["rgb", "bgr", "grey", "rgba"]
Standardize = bool | Literal["channel"]

CHANNELS: dict[str, int] = {"rgb": 3, "bgr": 3, "grey": 1, "rgba": 4}
"""Number of channels of a model's input."""

_INTERPOLATIONS = {
    "pillow": {"nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"},
    "torch": {"nearest", "nearest_exact", "bilinear", "bicubic", "lanczos"},
    "torch_float": {"nearest", "nearest_exact", "bilinear", "bicubic", "lanczos"},
}

_WORDS: dict[str, tuple[str, ...]] = {
    "fit": get_args(Fit),
    "interpolation": get_args(Interpolation),
    "resampling": get_args(Resampling),
    "resize_rounding": get_args(Rounding),
    "crop_offset": get_args(Rounding),
    "pad_mode": get_args(PadMode),
    "pad_position": get_args(PadPosition),
    "pad_extra": get_args(PadExtra),
    "channels": get_args(Channels),
}


@dataclass(frozen=True, repr=False)
class PreprocessFields:
    """Preprocessing of a model's photos.

    A photo is brought into the model's channels, resized, cut or padded to ``size``, brought to values from 0 to
    ``scale``, and normalised: (value − mean) / std.

    Attributes:
        size: Height and width of the model's input, pixels.
        mean: Mean of each channel, for values in [0, scale].
        std: Standard deviation of each channel, for values in [0, scale]; positive.
        fit: Way to the size: ``stretch`` resizes both sides to ``size``; ``crop`` keeps the aspect ratio, covers
            ``size`` and cuts the centre out; ``pad`` keeps it, fits within ``size`` and pads the rest.
        crop_fraction: Part of the resized photo that ``size`` is, in (0, 1]: of its tighter side with ``crop``, of its
            longer one with ``pad``.
        interpolation: Filter of the resize; ``nearest_exact`` is torch's, Pillow's ``nearest`` is exact by itself.
        resize: Size of the resized photo in place of ``crop_fraction``, pixels: of its shorter side, or of both sides,
            whatever the aspect ratio. Where ``size`` is larger, the rest is padded.
        longer: Largest size of its longer side, pixels; alone, its very size.
        resize_rounding: Rounding of the side that follows from the other.
        resampling: Library that resizes: ``pillow`` on 8 bits, ``torch`` on 8 bits as torchvision does with such
            tensors, ``torch_float`` on values in [0, 1], whose results are not rounded.
        antialias: Choice of a filter that widens where a photo is shrunk, as Pillow's always does.
        crop_offset: Rounding of the corner of a centred crop: torchvision rounds (half to even), transformers floors.
        pad_mode: Content of padding: a constant, the photo mirrored without its edge, or its edge continued.
        pad_value: Constant, for pixels in 0..255: one for all channels, or one for each.
        pad_position: Place of the photo within a padded input.
        pad_extra: Side of the odd pixel of a centred padding: after the photo as in torchvision, or before it.
        channels: Channels of the input. ``grey`` is Pillow's ``L``; ``rgba`` has the photo's alpha, 255 without one.
        scale: Value of white before ``mean`` and ``std``.
        standardize: Normalisation by each photo's own mean and standard deviation in place of ``mean`` and ``std``, as
            TensorFlow's ``per_image_standardization``: over all values, or over those of each ``channel``, the
            deviation no less than 1 / √(number of values).
    """

    size: Size
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: Fit = "stretch"
    crop_fraction: float = 1.0
    interpolation: Interpolation = "bilinear"
    resize: int | Size | None = None
    longer: int | None = None
    resize_rounding: Rounding = "floor"
    resampling: Resampling = "pillow"
    antialias: bool = True
    crop_offset: Rounding = "round"
    pad_mode: PadMode = "constant"
    pad_value: float | tuple[float, ...] = 0.0
    pad_position: PadPosition = "center"
    pad_extra: PadExtra = "after"
    channels: Channels = "rgb"
    scale: float = 1.0
    standardize: Standardize = False

    def __post_init__(self) -> None:
        check(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.stated().items())})"

    def stated(self) -> dict[str, Any]:
        """Values by name as a spec states them: the first six, and of the others those that are not the default."""
        required, others = fields(self)[:6], fields(self)[6:]
        told = [field for field in others if getattr(self, field.name) != field.default]
        return {field.name: getattr(self, field.name) for field in (*required, *told)}


def check(given: PreprocessFields) -> None:
    """Check the values of a preprocessing, each by itself and against the others.

    Raises:
        ValueError: a value that is none, or that contradicts another; the message begins with the field's name.
    """
    for name, words in _WORDS.items():
        if getattr(given, name) not in words:
            raise ValueError(f"{name}: wanted one of {', '.join(words)}, got {getattr(given, name)!r}")
    if len(given.size) != 2 or min(given.size) < 1:
        raise ValueError(f"size: wanted (height, width), both at least 1, got {given.size!r}")
    _check_values(given)
    _check_resize(given)
    _check_resampling(given)
    _check_padding(given)


def _check_values(given: PreprocessFields) -> None:
    count = CHANNELS[given.channels]
    for name, values in (("mean", given.mean), ("std", given.std)):
        if len(values) != count:
            wanted = f"wanted one number for each channel of {given.channels}, {count}"
            raise ValueError(f"{name}: {wanted}, got {len(values)}: {values!r}")
    if min(given.std) <= 0:
        raise ValueError(f"std: wanted positive numbers, got {given.std!r}")
    if not given.scale > 0:
        raise ValueError(f"scale: wanted a positive number, got {given.scale!r}")
    if given.standardize not in (False, True, "channel"):
        raise ValueError(f"standardize: wanted false, true or 'channel', got {given.standardize!r}")
    if given.standardize and (set(given.mean) != {0} or set(given.std) != {1}):
        raise ValueError("standardize: takes each photo's own mean and std; leave out mean and std, or give 0 and 1")


def _check_resize(given: PreprocessFields) -> None:
    resize, longer, named = given.resize, given.longer, "longer" if given.resize is None else "resize"
    if not 0 < given.crop_fraction <= 1:
        raise ValueError(f"crop_fraction: wanted a number in (0, 1], got {given.crop_fraction!r}")
    for name, value in (("resize", resize), ("longer", longer)):
        sides = value if isinstance(value, tuple) and name == "resize" else (value,)
        if value is not None and not (len(sides) <= 2 and all(isinstance(side, int) and side > 0 for side in sides)):
            wanted = "a number of pixels, at least 1" + (", or (height, width)" if name == "resize" else "")
            raise ValueError(f"{name}: wanted {wanted}, got {value!r}")
    if resize is None and longer is None:
        return
    if given.fit != "crop":
        raise ValueError(f"{named}: goes with fit: crop, which cuts or pads to `size`; fit: {given.fit} has its own")
    if given.crop_fraction != 1:
        raise ValueError(f"crop_fraction: says the size of the resized photo, as {named} does; give one of them")
    if longer is not None and isinstance(resize, tuple):
        raise ValueError("longer: limits a resize by the shorter side; this one names both sides")
    if longer is not None and isinstance(resize, int) and longer <= resize:
        raise ValueError(f"longer: wanted more than resize, {resize}, got {longer}")


def _check_resampling(given: PreprocessFields) -> None:
    possible = _INTERPOLATIONS[given.resampling]
    if given.interpolation not in possible:
        wanted = f"wanted one of {', '.join(sorted(possible))} with resampling: {given.resampling}"
        raise ValueError(f"interpolation: {wanted}, got {given.interpolation!r}")
    if not given.antialias and (given.resampling == "pillow" or given.interpolation == "lanczos"):
        by = "Pillow" if given.resampling == "pillow" else "torch's lanczos"
        raise ValueError(f"antialias: {by} always does; without it, wants resampling: torch and another interpolation")


def _check_padding(given: PreprocessFields) -> None:
    values = given.pad_value if isinstance(given.pad_value, tuple) else (given.pad_value,)
    if len(values) not in (1, CHANNELS[given.channels]):
        wanted = f"wanted one number, or one for each channel of {given.channels}, {CHANNELS[given.channels]}"
        raise ValueError(f"pad_value: {wanted}, got {len(values)}: {values!r}")
    if not all(0 <= value <= 255 for value in values):
        raise ValueError(f"pad_value: wanted numbers in 0..255, got {given.pad_value!r}")
    if given.pad_mode != "constant" and any(values):
        raise ValueError(f"pad_value: goes with pad_mode: constant, got pad_mode: {given.pad_mode}")
    usual = {"pad_mode": "constant", "pad_value": 0.0, "pad_position": "center"}
    if given.fit == "stretch":
        for name, value in usual.items():
            if getattr(given, name) != value:
                raise ValueError(f"{name}: goes with fit: pad or crop; fit: stretch leaves nothing to pad")
