"""The segmenters behind one interface: preprocessing, prediction, and the scores that explanations differentiate."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from imagexplain.archive.spec import CONFIG_FILE, WEIGHTS_FILE, ResizeSpec, SegmenterSpec
from imagexplain.errors import ArgumentError, RequestError
from imagexplain.models.checkpoints.checkpoint import read
from imagexplain.models.example_photo import example_photo
from imagexplain.models.segmenters import detectron2_tensormask, mmdet_segmenter, tensormask
from imagexplain.models.segmenters.mmdet_segmenter import MMDetInput, MMDetSegmenter, PhotoError
from imagexplain.models.segmenters.tensormask import TensorMaskSettings
from imagexplain.vision.decode import Photo
from imagexplain.vision.detections import Detections
from imagexplain.vision.geometry import Geometry
from imagexplain.vision.preprocess import ModelInput, preprocess
from imagexplain.vision.preprocess_settings import Preprocess

ScoreFunction = Callable[[Tensor], Tensor]
"""Function from model inputs (B, 3, H, W) to scores (B, classes)."""


class SegmenterBackend(Protocol):
    """An instance segmenter as a worker holds it.

    Attributes:
        network: Network with the weights, frozen, in ``eval()``.
        classes: Number of classes; None where the model does not say.
    """

    @property
    def network(self) -> nn.Module: ...

    @property
    def classes(self) -> int | None: ...

    def preprocess(self, photo: Photo) -> ModelInput:
        """The segmenter's input of a photo; channels are red, green, blue."""
        ...

    def predict(self, seen: ModelInput, threshold: float) -> Detections:
        """The instances whose score exceeds the threshold; tensors on the CPU."""
        ...

    def score_function(self, seen: ModelInput, anchor: Tensor) -> ScoreFunction:
        """The pre-sigmoid or pre-softmax scores (B, classes) at a fixed anchor, a function of inputs (B, 3, H, W)."""
        ...


@dataclass(frozen=True)
class TensorMaskBackend:
    """TensorMask; a detection's score is the logit of its window, which stays in place along the path.

    Attributes:
        network: Network of ``implementation``.
        implementation: Module with the functions: ours, :mod:`imagexplain.models.segmenters.tensormask`, or
            detectron2's, :mod:`imagexplain.models.segmenters.detectron2_tensormask`.
        settings: Settings that the weights do not tell.
        classes: Number of classes.
        device: Device of the network.
        resize: Size limits of photos before the network; None for none.
    """

    network: nn.Module
    implementation: ModuleType
    settings: TensorMaskSettings
    classes: int
    device: torch.device
    resize: ResizeSpec | None = None

    def preprocess(self, photo: Photo) -> ModelInput:
        """The photo, resized where the spec says so."""
        size = photo.size if self.resize is None else self.resize.size(photo.size)
        blue, green, red = (mean / 255 for mean in self.settings.pixel_mean)
        of_blue, of_green, of_red = (std / 255 for std in self.settings.pixel_std)
        return preprocess(photo, Preprocess(size, (red, green, blue), (of_red, of_green, of_blue)))

    def predict(self, seen: ModelInput, threshold: float) -> Detections:
        """See :func:`imagexplain.models.segmenters.tensormask.detect`."""
        image = _bgr(seen.image[None]).to(self.device)
        found: Detections = self.implementation.detect(self.network, image, seen.geometry.photo, threshold)
        return found

    def score_function(self, seen: ModelInput, anchor: Tensor) -> ScoreFunction:
        """The window's class logits, see :func:`imagexplain.models.segmenters.tensormask.class_logits_at`."""
        window = tuple(anchor.tolist())
        return lambda images: self.implementation.class_logits_at(self.network, _bgr(images), window)


@dataclass(frozen=True)
class MMDetModelInput(ModelInput):
    """A photo as the input of an mmdet model.

    Attributes:
        seen: Padded input in mmdet's own form.
    """

    seen: MMDetInput


@dataclass(frozen=True)
class MMDetBackend:
    """Any instance segmenter of mmdet.

    For the scores that explanations differentiate see :mod:`imagexplain.models.segmenters.mmdet_segmenter`.
    """

    segmenter: MMDetSegmenter

    @property
    def network(self) -> nn.Module:
        """The network with the weights."""
        network: nn.Module = self.segmenter.model
        return network

    @property
    def classes(self) -> int | None:
        """Number of classes; None where the model does not say."""
        return self.segmenter.num_classes

    def preprocess(self, photo: Photo) -> MMDetModelInput:
        """The photo after the model's own test pipeline.

        Raises:
            RequestError: 422 for a photo that is too narrow for it.
        """
        try:
            seen = self.segmenter.preprocess(np.asarray(photo.image)[..., ::-1])
        except PhotoError as error:
            raise RequestError(422, "image", str(error)) from None
        height, width = seen.image_size
        image = self._rgb(seen.inputs[:, :, :height, :width])[0].cpu()
        mean, std = (self._rgb(values.view(1, 3, 1, 1)).flatten().div(255).tolist() for values in self._statistics())
        geometry = Geometry(photo.size, seen.image_size, (0, 0, height, width))
        return MMDetModelInput(image, geometry, Preprocess((height, width), tuple(mean), tuple(std)), seen)

    def predict(self, seen: ModelInput, threshold: float) -> Detections:
        """See :meth:`imagexplain.models.segmenters.mmdet_segmenter.MMDetSegmenter.predict`."""
        assert isinstance(seen, MMDetModelInput)
        return self.segmenter.predict(seen.seen, threshold)

    def score_function(self, seen: ModelInput, anchor: Tensor) -> ScoreFunction:
        """The mean over stages of the class logits of the detection's regions.

        Raises:
            RequestError: 422 for a model without such scores.
        """
        assert isinstance(seen, MMDetModelInput)
        if not self.segmenter.explains:
            raise RequestError(422, "method", "this segmenter scores no regions, so that there is nothing to explain")
        height, width = seen.seen.inputs.shape[2:]

        def scores(images: Tensor) -> Tensor:
            padding = (0, width - images.shape[3], 0, height - images.shape[2])
            return self.segmenter.class_logits(F.pad(self._rgb(images), padding), anchor.to(images))

        return scores

    def _rgb(self, images: Tensor) -> Tensor:
        """Images from the model's order of channels to red, green, blue, or back."""
        return images if self.segmenter.model.data_preprocessor._channel_conversion else images.flip(1)

    def _statistics(self) -> tuple[Tensor, Tensor]:
        preprocessor = self.segmenter.model.data_preprocessor
        return preprocessor.mean, preprocessor.std


def load(spec: SegmenterSpec, model_dir: Path, device: torch.device) -> SegmenterBackend:
    """The segmenter of an unpacked archive; raises like :func:`build`, and ArgumentError for too few or many labels."""
    torch.backends.cudnn.allow_tf32 = False
    file = model_dir / CONFIG_FILE
    config = json.loads(file.read_text()) if file.is_file() else None
    engine = build(spec, read(model_dir / WEIGHTS_FILE), config, device)
    if engine.classes not in (None, len(spec.labels)):
        wanted = f"wanted {engine.classes}, one for each class of the model"
        raise ArgumentError("labels", f"{wanted}, got {len(spec.labels)}")
    return engine


def build(
    spec: SegmenterSpec, state: Mapping[str, Tensor], config: Mapping[str, Any] | None, device: torch.device
) -> SegmenterBackend:
    """The segmenter of a checkpoint, frozen.

    Args:
        spec: Spec that names the engine.
        state: Tensors of the checkpoint.
        config: Resolved configuration of an mmdet model.
        device: Device for the network.

    Raises:
        CheckpointError: tensors that do not fit.
        ImportError: an engine that is not installed, and what to install.
        ArgumentError: unknown settings.
    """
    if spec.engine == "mmdet":
        with _installed(spec.engine, "mmengine, mmdet and mmcv-lite (or mmcv): make setup, or pip install --no-deps"):
            return MMDetBackend(mmdet_segmenter.build(config or {}, state).to(device))
    settings = _settings(spec)
    classes = tensormask.size_of(state, len(settings.mask_sizes)).classes
    if spec.engine == "torchvision":
        network: nn.Module = tensormask.build(state, settings).to(device).requires_grad_(False)
        return TensorMaskBackend(network, tensormask, settings, classes, device, spec.resize)
    source = "https://github.com/facebookresearch/detectron2"
    with _installed(spec.engine, f"detectron2 and tensormask, from {source} and its folder projects/TensorMask"):
        network = detectron2_tensormask.build(state, settings).to(device)
    return TensorMaskBackend(network, detectron2_tensormask, settings, classes, device, spec.resize)


@torch.no_grad()
def dry_run(engine: SegmenterBackend, labels: int, threshold: float) -> tuple[ScoreFunction, Tensor] | None:
    """Do with a small photo what a request does.

    Args:
        engine: Segmenter of a checkpoint.
        labels: Number of classes that have a name.
        threshold: Score that detections must exceed.

    Returns:
        The score function at a place of the photo and the model input (3, H, W); None for a model without such scores.

    Raises:
        RequestError, ArgumentError: the photo does not come through; scores that are not finite; a detection of a class
            without a name.
    """
    seen = engine.preprocess(Photo(Image.fromarray(example_photo()), "list", "RGB"))
    found = engine.predict(seen, threshold)
    if len(found) and int(found.labels.max()) >= labels:
        raise ArgumentError("labels", f"wanted a name for class {int(found.labels.max())}, given {labels}")
    # Where nothing is found, somewhere.
    anchor = found.anchors[0] if len(found) else found.anchors.new_zeros(found.anchors.shape[1:])
    scores, explained = found.scores, None
    try:
        forward = engine.score_function(seen, anchor)
    except RequestError:  # it predicts and explains nothing
        pass
    else:
        image = seen.image.to(next(engine.network.parameters()).device)
        scores, explained = forward(image[None]), (forward, image)
        if scores.shape != (1, labels):
            raise ArgumentError("scores", f"wanted one for each of {labels} labels, given {list(scores.shape)}")
    if not scores.isfinite().all():
        raise ArgumentError("scores", "wanted finite numbers, given some that are not, on a photo of two colour ramps")
    return explained


@contextmanager
def _installed(engine: str, wanted: str) -> Iterator[None]:
    """Say what to install where an import fails."""
    try:
        yield
    except ImportError as error:
        raise ImportError(f"engine {engine}: {error}; wanted {wanted}") from error


def _settings(spec: SegmenterSpec) -> TensorMaskSettings:
    known = TensorMaskSettings.__dataclass_fields__
    for name in spec.settings:
        if name not in known:
            raise ArgumentError("settings", f"wanted some of {', '.join(known)}, got {name}")
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in spec.settings.items()
    }
    return TensorMaskSettings(**values)


def _bgr(images: Tensor) -> Tensor:
    return images.flip(1)
