"""Archive specifications: one YAML file says what a served model is, and an archive carries it resolved, as JSON.

`ArchiveSpecFile` is the file as written by a person; `ModelSpec` is what a worker reads, with the labels spelled out.
There is one of each for every kind of model.
Unknown fields are errors, and every error names the file and the field.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from imagexplain.archive import label_file
from imagexplain.attribution import METHODS
from imagexplain.plain_text import escaped
from imagexplain.plain_text import in_file_name as in_file_name
from imagexplain.vision.preprocess_fields import (
    CHANNELS,
    Channels,
    Fit,
    Interpolation,
    PadExtra,
    PadMode,
    PadPosition,
    PreprocessFields,
    Resampling,
    Rounding,
    Standardize,
)

SPEC_FILE = "spec.json"
WEIGHTS_FILE = "model.safetensors"
HUGGINGFACE = "huggingface"
"""Architecture of a classifier whose weights are a folder that transformers' save_pretrained wrote."""
CONFIG_FILE = "config.json"
"""The resolved configuration of an mmdet model."""
OWN_MODULE = "own_module"
"""Name in an archive of a classifier's own code: a folder, or with the suffix of Python a file."""


DEFAULT_VERSION = "1.0"


def _not_a_number(value: Any) -> Any:
    if isinstance(value, int | float):
        raise ValueError(f"wants quotes, for 1.10 is another version than 1.1: version: '{value}'")
    return value


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Version = Annotated[str, BeforeValidator(_not_a_number), Field(pattern=r"^\d+(\.\d+)*$")]
Positive = Annotated[int, Field(gt=0)]
Package = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class SpecError(ValueError):
    """An archive spec that cannot be used; the message names the file and the field, and is fit for a terminal."""

    def __init__(self, message: str) -> None:
        super().__init__(escaped(message))


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PreprocessSpec(_Strict):
    """The preprocessing of photos: a resize, a crop or padding to `size`, then (value - mean) / std per channel.

    The fields are those of :class:`imagexplain.vision.preprocess_fields.PreprocessFields`. With `standardize` the mean
    and std are each photo's own, and are not given.
    """

    size: tuple[Positive, Positive]
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    fit: Fit = "stretch"
    crop_fraction: float = Field(default=1.0, gt=0, le=1)
    interpolation: Interpolation = "bilinear"
    resize: Positive | tuple[Positive, Positive] | None = None
    longer: Positive | None = None
    resize_rounding: Rounding = "floor"
    resampling: Resampling = "pillow"
    antialias: bool = True
    crop_offset: Rounding = "round"
    pad_mode: PadMode = "constant"
    pad_value: float | tuple[float, ...] = 0.0
    pad_position: PadPosition = "center"
    pad_extra: PadExtra = "after"
    channels: Channels = "rgb"
    scale: float = Field(default=1.0, gt=0)
    standardize: Standardize = False

    @model_validator(mode="before")
    @classmethod
    def _of_each_photo(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or not value.get("standardize"):
            return value
        count = CHANNELS.get(str(value.get("channels", "rgb")), 3)
        return {"mean": (0.0,) * count, "std": (1.0,) * count} | dict(value)

    @model_validator(mode="after")
    def _nothing_contradicts(self) -> Self:
        self._checked()
        return self

    @model_serializer(mode="wrap")
    def _stated(self, values: SerializerFunctionWrapHandler) -> dict[str, Any]:
        stated = self._checked().stated()
        return {name: value for name, value in values(self).items() if name in stated}

    def _checked(self) -> PreprocessFields:
        return PreprocessFields(**{name: getattr(self, name) for name in type(self).model_fields})


class HeadSpec(_Strict):
    """The end of a classifier: what its output means, and the score that is explained.

    As in :class:`imagexplain.models.head.Head`; the build finds `probabilities_by`, the module that makes probabilities
    of logits, which may be named as well.
    """

    activation: Literal["softmax", "sigmoid", "none"] = "softmax"
    output: str | int | None = None
    temperature: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    gives: Literal["logits", "probabilities"] = "logits"
    score: Literal["logit", "log_odds", "probability", "value"] | None = None
    probabilities_by: str | None = None

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        of_values = self.activation == "none"
        if of_values and (self.gives != "logits" or self.temperature != 1):
            raise ValueError("activation none: values have neither probabilities nor a temperature")
        if self.score is not None and of_values != (self.score == "value"):
            raise ValueError("score: wanted value with activation none, else logit, log_odds or probability")
        if self.probabilities_by is not None and self.gives != "probabilities":
            raise ValueError("probabilities_by: goes with `gives: probabilities`")
        return self


class ModuleSpec(_Strict):
    """The code of a classifier of its user's own: the class or function in it that makes the network.

    Without a name it is the only module class that the code has.
    """

    factory: str | None = None


class ExplainSpec(_Strict):
    """The options of an explanation where the request does not say."""

    method: str = "integrated_gradients"
    steps: Positive = 50
    tolerance: float | None = Field(default=None, gt=0, le=1)
    quadrature: Literal["gauss_legendre", "midpoint", "left", "right", "trapezoid"] = "gauss_legendre"
    baseline: Literal["zero", "black", "white", "mean", "blur", "uniform", "extremes"] = "zero"

    @field_validator("method")
    @classmethod
    def _known(cls, method: str) -> str:
        if method not in METHODS:
            raise ValueError(f"wants one of {', '.join(METHODS)}")
        return method


class LimitsSpec(_Strict):
    """The largest request and response, and the size of a worker's cache (0: none).

    `max_pixels` are a photo's, `max_input_pixels` those of a segmenter's input: its memory goes with the size to which
    its spec or pipeline resizes photos, if any.
    The byte limits lie below those of `config.properties`, so that ours answer: TorchServe's own refusal is empty, and
    it kills a worker that answers with more.
    """

    max_bytes: int = Field(default=32_000_000, gt=0, le=33_000_000)
    max_pixels: Positive = 50_000_000
    max_input_pixels: Positive = 16_000_000
    max_steps: Positive = 1000
    max_samples: Positive = 20_000
    max_groups: Positive = 500
    max_response_bytes: int = Field(default=64_000_000, gt=0, le=67_000_000)
    cache_bytes: int = Field(default=64_000_000, ge=0)


class CaptionExplainSpec(ExplainSpec):
    """The options of an explanation of a caption's words where the request does not say.

    `score` is a word's logit or its log-probability; `baseline` is where the path of a map of pixels starts, features
    start from zero.
    """

    method: Literal["integrated_gradients"] = "integrated_gradients"
    baseline: Literal["black", "white", "mean"] = "black"
    score: Literal["logit", "log_probability"] = "log_probability"


class CaptionLimitsSpec(LimitsSpec):
    """The largest request of captions: graphs, nodes of one graph, captions followed by the search, words of one."""

    max_graphs: Positive = 16
    max_nodes: Positive = 256
    max_beams: Positive = 20
    max_words: Positive = 50


class CaptionsSpec(_Strict):
    """The options of captions where the request does not say.

    `node_limit` is the number of nodes after which a graph is cut off, the original's is 10; None takes all of them.
    """

    beams: Positive = 5
    n_best: Positive = 1
    max_words: Positive = 25
    node_limit: Positive | None = None


class FeaturesSpec(_Strict):
    """The network that makes a captioner's features of a photo: of the whole, and of boxes.

    `region_encoder` is the demonstration's, `torchvision` a ResNet-101 and the box head of a Faster R-CNN. Photos are
    shrunk to `longer` pixels of their longer side; smaller ones stay as they are.
    """

    extractor: Literal["region_encoder", "torchvision"]
    longer: int = Field(default=512, ge=32, le=4096)


class ImgDataSpec(_Strict):
    """The layout of the nested lists that the original server's clients send."""

    layout: Literal["hwc", "chw"] = "hwc"
    order: Literal["rgb", "bgr"] = "rgb"


class ResizeSpec(_Strict):
    """The resize of photos to a shorter side of so many pixels, or less where the longer one would exceed its limit.

    Without `enlarge`, smaller ones stay as they are.
    """

    shorter: Positive
    longer: Positive
    enlarge: bool = True

    def size(self, photo: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of a resized photo of (height, width)."""
        scale = min(self.shorter / min(photo), self.longer / max(photo))
        if not self.enlarge:
            scale = min(scale, 1.0)
        return max(1, round(photo[0] * scale)), max(1, round(photo[1] * scale))


class ServingSpec(_Strict):
    """TorchServe's settings for the model.

    `chunk` is the number of path points that are evaluated at once, by default as many as fit the free memory.
    TorchServe kills a worker after `response_timeout_s`; the handler answers within `deadline_fraction` of it.
    `precision` is a classifier's on a GPU, see :mod:`imagexplain.models.optimize.precision`.
    """

    workers: Positive = 1
    batch_size: Positive = 4
    batch_delay_ms: int = Field(default=5, ge=0)
    response_timeout_s: Positive = 120
    startup_timeout_s: Positive = 300
    retry_timeout_s: Positive = 300
    queue_size: Positive = 20
    chunk: Positive | None = None
    deadline_fraction: float = Field(default=0.8, gt=0, lt=1)
    device: Literal["gpu", "cpu"] = "gpu"
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"

    @property
    def deadline_s(self) -> float:
        """Seconds after which a request must have been answered."""
        return self.response_timeout_s * self.deadline_fraction


class _Spec(_Strict):
    name: Name
    version: Version = DEFAULT_VERSION
    description: str = ""
    handler: str
    explain: ExplainSpec = ExplainSpec()
    limits: LimitsSpec = LimitsSpec()
    serving: ServingSpec = ServingSpec()

    @property
    def address(self) -> str:
        """Name of the model as answers have it, and requests: name/version, where it is not the first version."""
        return self.name if self.version == DEFAULT_VERSION else f"{self.name}/{self.version}"

    @property
    def file_name(self) -> str:
        """Name of the archive's file, without its suffix."""
        return in_file_name(self.address)

    @model_validator(mode="after")
    def _steps_within_limit(self) -> Self:
        if self.explain.steps > self.limits.max_steps:
            raise ValueError(f"explain.steps is {self.explain.steps}, above limits.max_steps {self.limits.max_steps}")
        if self.explain.quadrature == "trapezoid" and self.explain.steps < 2:
            raise ValueError(f"explain.steps: wanted at least 2 for the trapezoid, got {self.explain.steps}")
        return self

    @model_validator(mode="after")
    def _precision_of_a_classifier(self) -> Self:
        if self.handler != "classifier" and self.serving.precision != "float32":
            raise ValueError(f"serving.precision: wanted float32 of a {self.handler}, got {self.serving.precision}")
        return self


class _Classifier(_Spec):
    handler: Literal["classifier"] = "classifier"
    arguments: dict[str, Any] = {}
    head: HeadSpec = HeadSpec()


class _Segmenter(_Spec):
    handler: Literal["segmenter"]
    engine: Literal["torchvision", "detectron2", "mmdet"] = "torchvision"
    img_data: ImgDataSpec = ImgDataSpec()
    threshold: float = Field(default=0.5, ge=0, le=1)
    resize: ResizeSpec | None = None
    settings: dict[str, Any] = {}

    @model_validator(mode="after")
    def _method_takes_a_function(self) -> Self:
        # The usual one first: the record of a method imports torch, which takes seconds.
        if self.explain.method != "integrated_gradients" and METHODS[self.explain.method].needs_module:
            wanted = "wants a method that takes any function of images, for a segmenter's score is one"
            raise ValueError(f"explain.method: {wanted}, got {self.explain.method}")
        return self


class _Captioner(_Spec):
    handler: Literal["captioner"]
    architecture: Literal["captioner"] = "captioner"
    explain: CaptionExplainSpec = CaptionExplainSpec()
    limits: CaptionLimitsSpec = CaptionLimitsSpec()
    captions: CaptionsSpec = CaptionsSpec()

    @model_validator(mode="after")
    def _captions_within_limits(self) -> Self:
        captions, limits = self.captions, self.limits
        for name, most in (("beams", limits.max_beams), ("max_words", limits.max_words), ("n_best", captions.beams)):
            if (given := getattr(captions, name)) > most:
                raise ValueError(f"captions.{name}: wanted at most {most}, got {given}")
        return self


class ModelSpec(_Spec):
    """The resolved spec inside an archive (`spec.json`): all that a worker needs beside the weights."""

    labels: tuple[str, ...] = Field(min_length=1)

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        if not all(label.strip() for label in labels):
            raise ValueError("wants names, one is empty")
        repeated = sorted(label for label, times in Counter(labels).items() if times > 1)
        if repeated:
            raise ValueError(f"wants different names, {', '.join(repeated)} repeats")
        return labels

    @classmethod
    def read(cls, model_dir: str | Path) -> Self:
        """The spec of an unpacked archive. Raises SpecError naming file and field."""
        path = Path(model_dir) / SPEC_FILE
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise SpecError(described(path, error)) from None

    def to_json(self) -> str:
        """The text of `spec.json`."""
        return self.model_dump_json(indent=2) + "\n"


class VertexSpec(_Strict):
    """The model as clients of Vertex AI know it.

    Attributes:
        deployed_model_id: Identifier that their requests may name, and answers have; None for the model's name.
        explanation_spec: ``ExplanationSpec`` of google.cloud.aiplatform.v1, in its JSON: parameters and metadata of
            explanations where a request says nothing; None for the service's own. `imagexplain build` checks it,
            and so does a worker as it starts.
    """

    deployed_model_id: str | None = Field(default=None, min_length=1, max_length=128)
    explanation_spec: dict[str, Any] | None = None


class ClassifierSpec(_Classifier, ModelSpec):
    """The resolved spec of a classifier, from photos to class scores.

    Attributes:
        architecture: One of :data:`imagexplain.models.ARCHITECTURES`, ``timm/`` or ``torchvision/`` and the name of one
            of its models, ``huggingface/`` and the type of a model of transformers, ``module`` for code of the user's
            own, or the kind of a saved program.
        arguments: Arguments of a library's model, where they differ from those that its name stands for, values of the
            configuration of one of transformers, or arguments of the class or function of a user's own.
        module: Code of the user's own; None for other architectures.
        head: End of the network.
        preprocess: Preprocessing of photos.
        vertex: Model as clients of Vertex AI know it.
    """

    architecture: str = Field(min_length=1)
    module: ModuleSpec | None = None
    preprocess: PreprocessSpec
    vertex: VertexSpec = VertexSpec()

    @model_validator(mode="after")
    def _code_where_it_belongs(self) -> Self:
        if (self.module is not None) != (self.architecture == "module"):
            raise ValueError("module: goes with `architecture: module`, which wants one")
        return self

    @model_validator(mode="after")
    def _labels_suffice(self) -> Self:
        if len(self.labels) < 2 and self.head.activation != "none":
            why = "a classifier's scores compete, and one alone always has probability 1"
            if self.head.activation == "sigmoid":
                why = "of a single logit, the names of its negative and of its positive class"
            fault = PydanticCustomError("too_short", f"Tuple should have at least 2 items: {why}")
            detail = InitErrorDetails(type=fault, loc=("labels",), input=self.labels)
            raise ValidationError.from_exception_data("labels", [detail])
        return self


class SegmenterSpec(_Segmenter, ModelSpec):
    """The resolved spec of an instance segmenter, from photos to masks, boxes, scores and labels.

    Attributes:
        engine: `torchvision` (our TensorMask), `detectron2` (its TensorMask), or `mmdet` (any of its instance
            segmenters).
        img_data: Layout of the lists that clients of the original server send.
        threshold: Score that detections must exceed, where the request does not say.
        resize: Size limits of photos for TensorMask; None for none, like the original server. mmdet models have their
            own pipeline.
        settings: Settings of TensorMask, where they differ from the published ones.
    """


class CaptionerSpec(_Captioner, ModelSpec):
    """The resolved spec of a captioner, from photos or features and scene graphs to captions.

    Attributes:
        architecture: ``captioner``: :mod:`imagexplain.models.captioners.captioner`.
        labels: Words of the vocabulary, by number: a word's score is its logit or log-probability.
        captions: Options of captions.
        features: Network that makes features of photos; None for precomputed features alone.
    """

    features: FeaturesSpec | None = None


class StrictLoader(yaml.SafeLoader):
    """A loader of safe YAML that loses nothing: a field that is there twice is an error, not the last of the two."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """See the base class."""
        places: dict[Any, yaml.Mark] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                if key.value in places:
                    line = places[key.value].line + 1
                    problem = f"{key.value}: wanted once, it stands in line {line} too"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                places[key.value] = key.start_mark
        return super().construct_mapping(node, deep)


_MERGE = "tag:yaml.org,2002:merge"


class FileSource(_Strict):
    """A file named by its path, by an environment variable, or by both.

    The path is relative to the spec file or, where `package` names an installed Python package, to that one's folder. A
    variable that is set and not empty wins over the path. Written as a plain string, it is the path.
    """

    path: str | None = None
    package: Package | None = None
    environment: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _named(self) -> Self:
        if not self._is_named():
            raise ValueError("wants a path, or `environment:` with the name of a variable")
        if self.package and not self.path:
            raise ValueError("package: wants a `path:` within the package")
        return self

    def _is_named(self) -> bool:
        return bool(self.path or self.environment)

    def from_environment(self, environ: Mapping[str, str]) -> Path | None:
        """The file that the environment names, if it names one; relative to the working directory."""
        given = environ.get(self.environment, "") if self.environment else ""
        return Path(given).expanduser().resolve() if given else None

    def locate(self, spec_file: Path, environ: Mapping[str, str]) -> Path | None:
        """The file, or None when only an unset variable names it."""
        named = self.from_environment(environ)
        return named if named or not self.path else (self._folder(spec_file) / self.path).resolve()

    def _folder(self, spec_file: Path) -> Path:
        if self.package is None:
            return spec_file.parent
        found = find_spec(self.package)  # which imports nothing of it
        if found is None or not found.submodule_search_locations:
            raise SpecError(f"{spec_file}: package: wanted an installed package, given {self.package}")
        return Path(found.submodule_search_locations[0])


class NameSource(_Strict):
    """A name, or the environment variable that holds it, or both; written as a plain string, it is the name.

    A variable that is set and not empty wins.
    """

    name: str | None = None
    environment: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _named(self) -> Self:
        if not (self.name or self.environment):
            raise ValueError("wants a name, or `environment:` with the name of a variable")
        return self

    def from_environment(self, environ: Mapping[str, str]) -> str | None:
        """The name that the environment holds, if it holds one."""
        return environ.get(self.environment, "") or None if self.environment else None

    def resolve(self, environ: Mapping[str, str]) -> str | None:
        """The name, or None when only an unset variable holds it."""
        return self.from_environment(environ) or self.name


class LabelSource(FileSource):
    """Class names in order of the model's outputs: a list, or a text file with one name per line.

    With `from_weights`, and without a file, they are the names that the checkpoint itself has, or else numbers.
    """

    names: tuple[str, ...] = ()
    from_weights: bool = False

    @model_validator(mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return {"names": value} if isinstance(value, list) else value

    def _is_named(self) -> bool:
        return bool(self.names) or self.from_weights or super()._is_named()


class ModuleSource(FileSource):
    """Code of a user's own: a Python file, or the folder of a package.

    Building the archive and loading it run the code, with all that it may do: it is to be trusted like the service.

    Attributes:
        factory: Class or function in it that makes the network.
    """

    factory: NameSource | None = None


class VertexSource(_Strict):
    """The model as clients of Vertex AI know it: :class:`VertexSpec`, with the file of the explanation spec."""

    deployed_model_id: str | None = None
    explanation_spec: FileSource | None = None


class _Sources(_Strict):
    weights: FileSource
    labels: LabelSource

    @property
    def sources(self) -> tuple[FileSource | NameSource, ...]:
        """Every file that the archive is made of, and every name that a variable may hold."""
        return (self.weights, self.labels)


class ClassifierFile(_Classifier, _Sources):
    """The spec of a classifier as it stands in `archive_specs/*.yaml`.

    Attributes:
        architecture: Architecture, as in :class:`ClassifierSpec`; ``huggingface`` where ``weights`` names a folder.
        module: Code of the user's own, with ``architecture: module``.
        preprocess: Preprocessing, all of it; of a library's model, only what differs from the library's own account of
            it, and of one of transformers, from the folder's. Fields of a :class:`FileSource` among it name a YAML file
            of fields, which win over those beside it.
        vertex: Model as clients of Vertex AI know it.
    """

    architecture: NameSource
    module: ModuleSource | None = None
    preprocess: dict[str, Any] = {}
    vertex: VertexSource = VertexSource()

    @property
    def preprocess_file(self) -> FileSource | None:
        """The YAML file of the preprocessing's fields, if one is named."""
        named = {field: value for field, value in self.preprocess.items() if field in FileSource.model_fields}
        return FileSource.model_validate(named) if named else None

    @field_validator("preprocess")
    @classmethod
    def _file_is_named(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not set(value).isdisjoint(FileSource.model_fields):
            FileSource.model_validate(
                {field: given for field, given in value.items() if field in FileSource.model_fields}
            )
        return value

    @property
    def sources(self) -> tuple[FileSource | NameSource, ...]:
        """See the base class."""
        code = () if self.module is None else (self.module, self.module.factory)
        others = (self.architecture, self.preprocess_file, self.vertex.explanation_spec, *code)
        return (*super().sources, *(source for source in others if source is not None))


class SegmenterFile(_Segmenter, _Sources):
    """The spec of a segmenter as it stands in `archive_specs/*.yaml`.

    Attributes:
        config: Configuration of an mmdet model, as mmdet reads it. A `.py` file is code, which building the archive
            runs.
    """

    config: FileSource | None = None

    @property
    def sources(self) -> tuple[FileSource | NameSource, ...]:
        """See the base class."""
        return super().sources + ((self.config,) if self.config else ())

    @model_validator(mode="after")
    def _labels_are_known(self) -> Self:
        if self.labels.from_weights:
            raise ValueError("labels.from_weights: goes with a classifier")
        return self

    @model_validator(mode="after")
    def _config_where_it_belongs(self) -> Self:
        if (self.config is not None) != (self.engine == "mmdet"):
            raise ValueError("config: goes with engine mmdet, which wants one")
        return self


class FeaturesSource(FeaturesSpec):
    """The network that makes features, with its checkpoints.

    Attributes:
        weights: Checkpoint of the network that makes those of boxes; the demonstration's makes the whole photo's, too.
        image_weights: Checkpoint of torchvision's ResNet-101, which makes the whole photo's.
    """

    weights: FileSource
    image_weights: FileSource | None = None

    @property
    def sources(self) -> tuple[FileSource, ...]:
        """Both files."""
        return (self.weights, *((self.image_weights,) if self.image_weights else ()))

    @model_validator(mode="after")
    def _image_weights_where_they_belong(self) -> Self:
        if (self.image_weights is not None) != (self.extractor == "torchvision"):
            raise ValueError("image_weights: goes with extractor torchvision, which wants them")
        return self


class CaptionerFile(_Captioner):
    """The spec of a captioner as it stands in `archive_specs/*.yaml`.

    Attributes:
        weights: Checkpoint, such as the original's ``.th``.
        vocabulary: Words by number, such as the original's ``int2word.npy``.
        features: Network that makes features of photos, with its checkpoint.
    """

    weights: FileSource
    vocabulary: FileSource
    features: FeaturesSource | None = None

    @property
    def sources(self) -> tuple[FileSource | NameSource, ...]:
        """Every file that the archive is made of."""
        return (self.weights, self.vocabulary, *(self.features.sources if self.features else ()))


ArchiveSpecFile = ClassifierFile | SegmenterFile | CaptionerFile

_FILES: dict[str, type[ArchiveSpecFile]] = {
    "classifier": ClassifierFile,
    "segmenter": SegmenterFile,
    "captioner": CaptionerFile,
}


_UNREAD = ("0", "1")
"""Labels that stand in the spec until the weights are read."""


@dataclass(frozen=True)
class ResolvedArchive:
    """A spec whose files were found.

    Attributes:
        source: Spec file.
        model: Resolved spec of the archive.
        weights: Checkpoint.
        config: Configuration of an mmdet model.
        module: Python file, or folder of a package, of a classifier of its user's own code.
        labelled: Flag for labels that are known; the others :meth:`with_labels` takes from the weights.
        features: Checkpoints of the network that makes a captioner's features.
        parts: Files of weights, where ``weights`` is the index of several.
    """

    source: Path
    model: ClassifierSpec | SegmenterSpec | CaptionerSpec
    weights: Path
    config: Path | None = None
    module: Path | None = None
    labelled: bool = True
    features: tuple[Path, ...] = ()
    parts: tuple[Path, ...] = ()

    @property
    def program(self) -> Path | None:
        """File of a saved program in the place of a checkpoint; None for a network that is built."""
        from imagexplain.models import PROGRAMS  # which imports torch, and takes seconds

        return self.weights if getattr(self.model, "architecture", None) in PROGRAMS else None

    @property
    def module_files(self) -> tuple[Path, ...]:
        """Python files of a classifier's own code: all that its archive carries of it."""
        if self.module is None:
            return ()
        return tuple(sorted(self.module.rglob("*.py"))) if self.module.is_dir() else (self.module,)

    def with_head(self, head: Mapping[str, Any]) -> ResolvedArchive:
        """The archive of a classifier with these fields of its head, of which the build may find one."""
        fields = self.model.model_dump() | {"head": dict(head)}
        return replace(self, model=type(self.model).model_validate(fields))

    def with_labels(self, classes: int, names: Sequence[str] | None) -> ResolvedArchive:
        """The archive with the labels that its weights tell, where the spec leaves that to them.

        Args:
            classes: Number of scores of the network.
            names: Names of the classes by index, where the checkpoint has them; of another number they do not count.

        Raises:
            SpecError: a single class, or names of which one is empty or repeats.
        """
        if self.labelled:
            return self
        labels = tuple(names) if names is not None and len(names) == classes else tuple(map(str, range(classes)))
        try:
            model = type(self.model).model_validate(self.model.model_dump() | {"labels": labels})
        except ValidationError as error:
            raise SpecError(described(self.source, error)) from None
        return replace(self, model=model, labelled=True)


def version_order(version: str) -> tuple[list[int], str]:
    """Key by which versions are in order: 1.10 comes after 1.9; words in others' archives do not count."""
    return [int(number) for number in re.findall(r"\d+", version)], version


def load(path: Path) -> ArchiveSpecFile:
    """Read and validate one YAML file. Raises SpecError naming file and field."""
    content = _yaml_fields(path)
    handler = content.get("handler", "classifier")
    if not isinstance(handler, str) or handler not in _FILES:
        raise SpecError(f"{path}: handler: wants one of {', '.join(_FILES)} (given {handler!r:.80})")
    try:
        return _FILES[handler].model_validate(content)
    except ValidationError as error:
        raise SpecError(described(path, error)) from None


def _yaml_fields(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), StrictLoader)  # a safe loader
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise SpecError(f"{path}: cannot be read as YAML: {error}") from None
    if not isinstance(content, dict):
        raise SpecError(f"{path}: wants fields and values, holds {type(content).__name__}")
    return content


def select(paths: Iterable[Path], environ: Mapping[str, str] = os.environ) -> list[ResolvedArchive]:
    """The archives to build, one per name and version, in this order.

    A spec whose weights only a variable names waits until that variable is set, and then wins over the other spec of
    its name and version. Raises SpecError naming file and field: an invalid spec, a file that does not exist, two specs
    with the same claim to a name and version.
    """
    archives, failures = select_each(paths, environ)
    if failures:
        raise SpecError("\n".join(map(str, failures)))
    return archives


def select_each(
    paths: Iterable[Path], environ: Mapping[str, str] = os.environ
) -> tuple[list[ResolvedArchive], list[SpecError]]:
    """The archives of :func:`select` that can be built, and the errors of the others.

    A spec that cannot be read keeps its name: no other spec is built under it, so that a mistake in a user's spec does
    not put the demonstration in the place of the user's model.
    """
    claims: dict[tuple[str, str], list[tuple[bool, Path, ArchiveSpecFile]]] = {}
    taken: set[str] = set()
    failures: list[SpecError] = []
    for path in sorted(paths):
        try:
            spec = load(path)
            weights = spec.weights.locate(path, environ)
        except SpecError as error:
            failures.append(error)
            taken |= _names_in(path)
            continue
        if weights:
            by_user = spec.weights.from_environment(environ) is not None
            claims.setdefault((spec.name, spec.version), []).append((by_user, path, spec))
    archives = []
    free = [claim for claim in claims if claim[0] not in taken]
    for claim in sorted(free, key=lambda claim: (claim[0], version_order(claim[1]))):
        try:
            archives.append(_resolve(*_winner(claims[claim]), environ))
        except SpecError as error:
            failures.append(error)
    return archives, failures


def _names_in(path: Path) -> set[str]:
    """The names that a spec file seems to claim that cannot be read."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()
    return set(re.findall(r"^[\s{]*name:\s*[\"']?([\w.-]+)", text, re.MULTILINE))


def _winner(claims: list[tuple[bool, Path, ArchiveSpecFile]]) -> tuple[Path, ArchiveSpecFile]:
    users = [claim for claim in claims if claim[0]]
    (_, path, spec), *rivals = users or claims
    if rivals:
        both = f"{spec.name!r} is also the name in {path}, and both are version {spec.version}"
        raise SpecError(f"{rivals[0][1]}: name: {both}")
    return path, spec


def _resolve(path: Path, spec: ArchiveSpecFile, environ: Mapping[str, str]) -> ResolvedArchive:
    if isinstance(spec, ClassifierFile) and spec.architecture.resolve(environ) == HUGGINGFACE:
        return _resolve_huggingface(path, spec, environ)
    weights = _existing(path, "weights", spec.weights, environ)
    if isinstance(spec, CaptionerFile):
        return _resolve_captioner(path, spec, weights, environ)
    labels = _labels(path, spec.labels, environ)
    fields = spec.model_dump(exclude={"weights", "labels", "config", "architecture", "module", "preprocess", "vertex"})
    config = None
    try:
        if isinstance(spec, ClassifierFile):
            architecture = spec.architecture.resolve(environ)
            if architecture is None:
                variable = spec.architecture.environment
                raise SpecError(f"{path}: architecture: the environment variable {variable} is not set")
            preprocess = _preprocess(path, architecture, spec, environ)
            code, file = None, None
            if spec.module is not None:
                file = _module(path, spec.module, environ)
                code = ModuleSpec(factory=spec.module.factory and spec.module.factory.resolve(environ))
            known = labels or _UNREAD
            fields["vertex"] = _vertex(path, spec.vertex, environ)
            model = ClassifierSpec(
                labels=known, architecture=architecture, module=code, preprocess=preprocess, **fields
            )
            return ResolvedArchive(path, model, weights, module=file, labelled=labels is not None)
        if spec.config is not None:
            config = _existing(path, "config", spec.config, environ)
        return ResolvedArchive(path, SegmenterSpec(labels=labels, **fields), weights, config)
    except ValidationError as error:
        raise SpecError(described(path, error)) from None


def _resolve_huggingface(path: Path, spec: ClassifierFile, environ: Mapping[str, str]) -> ResolvedArchive:
    from imagexplain.models.checkpoints.state_dict import CheckpointError  # which imports torch, and takes seconds
    from imagexplain.models.classifiers import huggingface_source

    folder = spec.weights.locate(path, environ)
    if folder is None:
        raise SpecError(f"{path}: weights: the environment variable {spec.weights.environment} is not set")
    try:
        source = huggingface_source.read(folder, spec.preprocess)
    except (CheckpointError, ImportError) as error:
        variable = f" (from {spec.weights.environment})" if spec.weights.from_environment(environ) else ""
        raise SpecError(f"{path}: weights: {folder}{variable}: {error}") from None
    fields = spec.model_dump(exclude={"weights", "labels", "architecture", "preprocess", "vertex"})
    fields["vertex"] = _vertex(path, spec.vertex, environ)
    if "head" not in spec.model_fields_set:
        fields["head"] = {"activation": source.activation}
    fields |= {"arguments": source.arguments | spec.arguments, "architecture": f"{HUGGINGFACE}/{source.model_type}"}
    labels = _labels(path, spec.labels, environ) or source.labels
    if len(labels) == 1 and fields["head"]["activation"] == "sigmoid":  # a logit, for its class and against it
        labels = (f"not {labels[0]}", *labels)
    try:
        model = ClassifierSpec(labels=labels, preprocess=_merged(source.preprocess, spec.preprocess), **fields)
    except ValidationError as error:
        raise SpecError(described(path, error)) from None
    return ResolvedArchive(path, model, source.weights, parts=source.parts)


def _resolve_captioner(path: Path, spec: CaptionerFile, weights: Path, environ: Mapping[str, str]) -> ResolvedArchive:
    from imagexplain.models.captioners import vocabulary  # which imports torch, and takes seconds

    words = _existing(path, "vocabulary", spec.vocabulary, environ)
    fields = spec.model_dump(
        exclude={"weights": True, "vocabulary": True, "features": {"weights": True, "image_weights": True}}
    )
    named = zip(("weights", "image_weights"), spec.features.sources if spec.features else (), strict=False)
    extractor = tuple(_existing(path, f"features.{field}", source, environ) for field, source in named)
    try:
        model = CaptionerSpec(labels=vocabulary.read(words).words, **fields)
    except ValidationError as error:
        raise SpecError(described(path, error)) from None
    except (ValueError, OSError) as error:
        raise SpecError(f"{path}: vocabulary: {words}: {error}") from None
    return ResolvedArchive(path, model, weights, features=extractor)


def _preprocess(path: Path, architecture: str, spec: ClassifierFile, environ: Mapping[str, str]) -> Any:
    """The fields of the classifier's `preprocess`: those of the spec, of the file that it names, and the library's."""
    library, _, name = architecture.partition("/")
    own = _own_preprocess(path, spec, environ)
    if {"size", "mean", "std", "fit", "crop_fraction", "interpolation"} <= set(own):  # all of an older spec
        return own
    from imagexplain import models  # which takes seconds

    if library not in models.LIBRARIES:
        if architecture not in models.WITHOUT_A_LIBRARY:  # a name of timm's alone, most likely
            raise SpecError(f"{path}: {models.unknown(architecture)}")
        return own
    try:
        usual = models.library_module(library).preprocess(name, spec.arguments)
    except ValueError as error:
        raise SpecError(f"{path}: {error}") from None
    return _merged(usual, own)


def _own_preprocess(path: Path, spec: ClassifierFile, environ: Mapping[str, str]) -> dict[str, Any]:
    """The fields that the spec states, and before them those of the YAML file that it names."""
    stated = {field: value for field, value in spec.preprocess.items() if field not in FileSource.model_fields}
    source = spec.preprocess_file
    if source is None:
        return stated
    if source.locate(path, environ) is None:
        if {"size", "mean", "std"} <= set(stated):
            return stated
        wanted = f"wants size, mean and std; {source.environment}, which names a YAML file of them, is not set"
        raise SpecError(f"{path}: preprocess: {wanted}")
    file = _existing(path, "preprocess", source, environ)
    fields = _yaml_fields(file)
    try:
        PreprocessSpec.model_validate(stated | fields)
    except ValidationError as error:
        raise SpecError(described(file, error)) from None
    return stated | fields


def _merged(usual: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A preprocessing's fields, those of the spec before a library's; of two ways to one size the spec's holds."""
    ways = ({"crop_fraction"}, {"resize", "longer"})
    replaced = {name for mine, other in (ways, ways[::-1]) if mine & set(own) for name in other}
    if own.get("fit", "crop") != "crop":
        replaced |= {"resize", "longer"}
    return {name: value for name, value in usual.items() if name not in replaced} | dict(own)


def _vertex(path: Path, source: VertexSource, environ: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a :class:`VertexSpec`. Raises SpecError for a file that is no object of JSON."""
    fields: dict[str, Any] = {"deployed_model_id": source.deployed_model_id}
    if source.explanation_spec is None:
        return fields
    file = _existing(path, "vertex.explanation_spec", source.explanation_spec, environ)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SpecError(f"{path}: vertex.explanation_spec: {file} cannot be read as JSON: {error}") from None
    return fields | {"explanation_spec": content}


def _existing(path: Path, field: str, source: FileSource, environ: Mapping[str, str]) -> Path:
    file = source.locate(path, environ)
    if file is None:
        raise SpecError(f"{path}: {field}: the environment variable {source.environment} is not set")
    variable = f" (from {source.environment})" if source.from_environment(environ) else ""
    if file.is_dir():
        raise SpecError(f"{path}: {field}: wanted a file, given a folder: {file}{variable}")
    if not file.is_file():
        raise SpecError(f"{path}: {field}: no such file: {file}{variable}")
    try:
        file.open("rb").close()
    except OSError as error:
        raise SpecError(f"{path}: {field}: cannot be read: {file}{variable}: {error.strerror}") from None
    return file


def _module(path: Path, source: ModuleSource, environ: Mapping[str, str]) -> Path:
    """The Python file, or the folder of a package."""
    given = source.locate(path, environ)
    if given is None or not given.is_dir():
        file = _existing(path, "module", source, environ)
        if file.suffix != ".py":
            raise SpecError(f"{path}: module: wanted a Python file (.py), or the folder of a package, given {file}")
        return file
    if not (given / "__init__.py").is_file():
        raise SpecError(f"{path}: module: wanted the folder of a package, which has an __init__.py, given {given}")
    return given


def _labels(path: Path, source: LabelSource, environ: Mapping[str, str]) -> tuple[str, ...] | None:
    """The names of the classes, or None where the weights are to tell them."""
    if source.names:
        return source.names
    if source.from_weights and source.locate(path, environ) is None:
        return None
    file = _existing(path, "labels", source, environ)
    try:
        return label_file.read(file)
    except (ValueError, OSError) as error:
        raise SpecError(f"{path}: labels: {error}") from None


def described(path: Path, error: ValidationError) -> str:
    """One line per fault: file, field, what was wanted, what was given."""
    faults = []
    for fault in error.errors(include_url=False):
        field = ".".join(str(part) for part in fault["loc"]) or "spec"
        given = "" if fault["type"] == "missing" else f" (given {fault['input']!r:.80})"
        faults.append(f"{path}: {field}: {fault['msg']}{given}")
    return "\n".join(faults)
