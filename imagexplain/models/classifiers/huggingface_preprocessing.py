"""Preprocessing of photos by a folder's image processor: the fields of a spec's ``preprocess``.

transformers itself reads ``preprocessor_config.json``, of whatever version, and fills in what it leaves out. Its
processors resize by Pillow or by torchvision, whose numbers differ a little; it takes torchvision where that is
installed, whatever the folder says, and so does this: ``resampling: pillow`` in a spec wins over it.

Provenance: the steps are those of transformers' image processors (https://github.com/huggingface/transformers,
Apache-2.0), each of which a test compares with.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from imagexplain.models.checkpoints.state_dict import CheckpointError
from imagexplain.models.classifiers.huggingface_folder import read_json
from imagexplain.models.classifiers.huggingface_network import library

FILES = ("preprocessor_config.json", "processor_config.json")
"""Files of an image processor; the second holds its fields among those of others, such as a tokenizer's."""

RESAMPLING = {"pil": "pillow", "torchvision": "torch"}
INTERPOLATION = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""Filters by Pillow's numbers, by which the files name them."""
OF_TORCHVISION = {name: name for name in ("lanczos", "bilinear", "bicubic")} | {"nearest": "nearest_exact"}
"""Filters that torchvision has for tensors, and their names there."""

STEPS = (
    "process_image",
    "resize",
    "center_crop",
    "rescale",
    "normalize",
    "rescale_and_normalize",
    "pad",
    "_preprocess",
)
"""Methods of an image processor, of which a class of its own may have others than the base class."""

OWN_STEPS = {
    "BeitImageProcessor": {"_preprocess"},  # for masks
    "ConvNextImageProcessor": {"resize", "_preprocess"},
    "EfficientNetImageProcessor": {"rescale", "_preprocess"},
    "LevitImageProcessor": {"resize"},
    "MobileNetV2ImageProcessor": {"_preprocess"},  # for masks
    "MobileViTImageProcessor": {"_preprocess"},
    "PoolFormerImageProcessor": {"resize", "_preprocess"},
    "SegformerImageProcessor": {"_preprocess"},  # for masks
}
"""Classes with steps of their own that are known here, and those steps."""

CONVNEXT_SQUASHES = 384
"""Shorter side from which ConvNeXt's processor resizes both sides, and cuts nothing off."""

Resize = int | tuple[int, int]
"""Size of a resized photo: of its shorter side, or its height and width."""


def preprocess(folder: Path) -> dict[str, Any]:
    """Preprocessing of photos as the folder states it: the fields of a spec's ``preprocess``.

    Raises:
        CheckpointError: no such file, or a field that cannot be followed here; the message names it.
        ImportError: transformers is not installed.
    """
    file = folder / next((name for name in FILES if (folder / name).is_file()), FILES[0])
    for content in _nested(read_json(file)):
        if content.get("auto_map"):
            wanted = "wanted an image processor of transformers' own, given one whose code lies in the folder"
            raise CheckpointError(f"{file.name}: auto_map: {wanted}, which is not run")
    library()
    auto = import_module("transformers.models.auto.image_processing_auto").AutoImageProcessor
    try:
        processor = auto.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # of whatever kind transformers raises for fields of a wrong type
        raise CheckpointError(f"{file.name}: no image processor: {error}") from error
    try:
        return fields_of(processor)
    except _FieldError as error:
        raise CheckpointError(f"{file.name}: {error}") from None


class _FieldError(ValueError):
    """Field of an image processor that cannot be followed."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")


def fields_of(processor: Any) -> dict[str, Any]:
    """Fields of a spec's ``preprocess`` of one of transformers' image processors.

    Raises:
        ValueError: a field that cannot be followed here.
    """
    name = _check_steps(processor)
    if getattr(processor, "do_pad", None):
        raise _FieldError("do_pad", "wanted false: photos are padded only where a crop is larger than they are")
    if not processor.do_resize:
        raise _FieldError("do_resize", "wanted true, for a model's inputs are of one size, got false")
    resize = _resize(name, processor)
    crop = _crop(name, processor, resize)
    mean, std = _statistics(name, processor)
    resampling = RESAMPLING[processor.backend]
    fields: dict[str, Any] = {
        "size": crop or resize,
        "mean": mean,
        "std": std,
        "interpolation": _interpolation(processor.resample, resampling),
        "resampling": resampling,
    }
    if crop is not None and crop != resize:
        fields |= {"fit": "crop", "resize": resize, "crop_offset": "floor"}
        shorter = (resize, resize) if isinstance(resize, int) else resize
        if resampling == "pillow" and (crop[0] > shorter[0] or crop[1] > shorter[1]):
            fields["pad_extra"] = "before"  # the odd pixel of the black around a photo that is smaller than the crop
    if name == "MobileViTImageProcessor" and processor.do_flip_channel_order:
        fields["channels"] = "bgr"
    return fields


def _nested(content: dict[str, Any]) -> list[dict[str, Any]]:
    return [content, *(part for part in content.values() if isinstance(part, dict))]


def _check_steps(processor: Any) -> str:
    """Name of the processor's class in both of its forms, after its steps were found to be known."""
    kind = type(processor)
    name = kind.__name__.removesuffix("Pil").removesuffix("Fast")
    backends = import_module("transformers.image_processing_backends")
    base = next((each for each in (backends.TorchvisionBackend, backends.PilBackend) if issubclass(kind, each)), None)
    if base is None:
        raise _FieldError("image_processor_type", f"wanted one that resizes and normalises photos, got {name}")
    own = {step for step in STEPS if getattr(kind, step, None) is not getattr(base, step, None)}
    if unknown := sorted(own - OWN_STEPS.get(name, set())):
        known = ", ".join(OWN_STEPS)
        wanted = f"wanted one whose steps are known: {known} or one without steps of its own"
        raise _FieldError("image_processor_type", f"{wanted}, got {name}, which has its own {', '.join(unknown)}")
    return name


def _interpolation(resample: Any, resampling: str) -> str:
    """Filter, from Pillow's number of it, a member of Pillow's enumeration, or of torchvision's."""
    given = getattr(resample, "value", resample)
    name = INTERPOLATION.get(given, "") if isinstance(given, int) else str(given).removesuffix("-exact")
    if name not in INTERPOLATION.values():
        raise _FieldError("resample", f"wanted one of {', '.join(map(str, INTERPOLATION))}, got {given!r}")
    if resampling == "torch" and name not in OF_TORCHVISION:
        raise _FieldError("resample", f"wanted a filter that torchvision has, as this processor takes it, got {name}")
    return OF_TORCHVISION[name] if resampling == "torch" else name


def _resize(name: str, processor: Any) -> Resize:
    """Size of the resized photo."""
    size = processor.size
    both = (size.height, size.width) if size.height and size.width else None
    shorter, fraction = size.shortest_edge, getattr(processor, "crop_pct", None)
    if name == "ConvNextImageProcessor":
        if not shorter:
            raise _FieldError("size", f"wanted shortest_edge, got {dict(size)}")
        return int(shorter / fraction) if shorter < CONVNEXT_SQUASHES else (shorter, shorter)
    if name == "PoolFormerImageProcessor" and fraction is not None:
        if both is not None and both[0] != both[1] and not shorter:
            return (int(both[0] / fraction), int(both[1] / fraction))
        side = shorter or (both[0] if both else None)
        if side:
            return int(side / fraction)
    if name == "LevitImageProcessor" and shorter:
        return int(256 / 224 * shorter)
    if size.longest_edge:
        raise _FieldError("size", f"longest_edge: wanted height and width, or shortest_edge alone, got {dict(size)}")
    if shorter:
        return int(shorter)
    if both is not None:
        return both
    raise _FieldError("size", f"wanted height and width, or shortest_edge, got {dict(size)}")


def _crop(name: str, processor: Any, resize: Resize) -> tuple[int, int] | None:
    """Height and width of what is cut out of the resized photo; None where nothing is."""
    inner = None
    if name == "ConvNextImageProcessor" and isinstance(resize, int):
        inner = (processor.size.shortest_edge, processor.size.shortest_edge)
    if not processor.do_center_crop:
        if inner is None and isinstance(resize, int):
            wanted = "wanted true, for photos resized by their shorter side alone are of different sizes"
            raise _FieldError("do_center_crop", f"{wanted}, got {processor.do_center_crop}")
        return inner
    given = processor.crop_size
    if given is None or not (given.height and given.width):
        raise _FieldError("crop_size", f"wanted height and width, got {None if given is None else dict(given)}")
    crop = (given.height, given.width)
    if inner not in (None, crop):
        raise _FieldError("crop_size", f"wanted {inner}, to which `size` cuts photos already, got {crop}")
    return crop


def _statistics(name: str, processor: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation for values in 0..1, with what the file says of rescaling in them."""
    normalizes = processor.do_normalize and name != "MobileViTImageProcessor"  # which has no such step
    mean = _channels("image_mean", processor.image_mean) if normalizes else (0.0, 0.0, 0.0)
    std = _channels("image_std", processor.image_std) if normalizes else (1.0, 1.0, 1.0)
    white = 255 * processor.rescale_factor if processor.do_rescale else 255.0
    offset = 0.0
    if name == "EfficientNetImageProcessor":
        offset = 1.0 if processor.do_rescale and processor.rescale_offset else 0.0
        if processor.include_top:  # normalised once more, by a mean of 0
            again = _channels("image_std", processor.image_std)
            std = tuple(first * second for first, second in zip(std, again, strict=True))
    if not white > 0 or min(std) <= 0:
        field = "image_std" if white > 0 else "rescale_factor"
        raise _FieldError(field, "wanted positive numbers")
    return tuple((value + offset) / white for value in mean), tuple(value / white for value in std)


def _channels(field: str, given: float | Sequence[float]) -> tuple[float, ...]:
    values = (given,) * 3 if isinstance(given, int | float) else tuple(given or ())
    if len(values) != 3:
        raise _FieldError(field, f"wanted a number for each of three channels, got {given!r}")
    return tuple(map(float, values))
