"""The served models as the evaluation uses them: network, preprocessing and their own explanation defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from imagexplain.archive.classifier_network import of_sources
from imagexplain.archive.spec import ClassifierSpec, ResolvedArchive, select
from imagexplain.attribution.baselines import uniform_noise
from imagexplain.attribution.paths.path_integral import PathIntegral, integrate
from imagexplain.attribution.paths.quadrature import Quadrature, quadrature
from imagexplain.models.optimize.folding import fold
from imagexplain.models.optimize.specialised_convolutions import specialise
from imagexplain.vision.preprocess_settings import Preprocess

CHUNK = 26  # half of a path of 50 steps and its two ends


@dataclass(frozen=True, eq=False)
class EvaluatedModel:
    """A model whose explanations are scored.

    Attributes:
        name: Name of its archive.
        network: Frozen network from (N, 3, H, W) to pre-softmax scores (N, classes).
        preprocess: Preprocessing of photos.
        rule: Quadrature of its explanations, its own default.
        baseline: Name of its own default baseline; for random ones, which stand for no absent pixels, ``black``.
        chunk: Largest number of rows that a method evaluates at once.
        labels: Names of the classes, where the model was built from its archive's spec.
    """

    name: str
    network: nn.Module
    preprocess: Preprocess
    rule: Quadrature
    baseline: str
    chunk: int = CHUNK
    labels: tuple[str, ...] = ()

    def start(self, name: str | None = None) -> Tensor:
        """(3, H, W) baseline of that name, or the model's own: zero in model space, a black or a white photo."""
        name = name or self.baseline
        return torch.zeros(self.preprocess.shape) if name == "zero" else self.grey({"black": 0.0, "white": 1.0}[name])

    def grey(self, value: float) -> Tensor:
        """(3, H, W) input of a photo that is ``value`` everywhere, in 0 … 1."""
        return self.preprocess.grey(value).contiguous()

    def photos(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) RGB of 0 … 1 that inputs (B, 3, H, W) came from."""
        black, white = self.grey(0.0), self.grey(1.0)
        return (images - black) / (white - black)

    def noise(self, draws: int, seed: int) -> Tensor:
        """(draws, 3, H, W) inputs of photos of uniform noise."""
        return uniform_noise(self.grey(0.0), self.grey(1.0), draws, seed)

    def explain(
        self, images: Tensor, baselines: Tensor, target: int, rule: Quadrature | None = None
    ) -> list[PathIntegral]:
        """The path integral of the target's score for each of the images (B, 3, H, W), from its baseline."""
        targets = torch.full((len(images),), target)
        return integrate(self.network, images, baselines, targets, [rule or self.rule] * len(images), chunk=self.chunk)


def folded_models(
    folder: Path, names: Sequence[str], labels: Sequence[str] | None = None
) -> list[tuple[EvaluatedModel, nn.Module]]:
    """The named models, each with its folded network, from which :func:`with_network` makes relatives.

    Args:
        folder: Folder of the archives' specs.
        names: Names of the models.
        labels: Labels that the models must have, for data of these classes.

    Raises:
        ValueError: a name without a demonstration model of such labels.
    """
    return [_folded(archive) for archive in _archives(folder, names, labels)]


def as_built(folder: Path, names: Sequence[str], labels: Sequence[str] | None = None) -> list[EvaluatedModel]:
    """The named models with their networks as they were built, nothing folded: for methods that look inside.

    Arguments and errors are those of :func:`folded_models`.
    """
    return [of_archive(archive) for archive in _archives(folder, names, labels)]


def with_network(model: EvaluatedModel, network: nn.Module) -> EvaluatedModel:
    """The same model with another folded network."""
    example = torch.zeros(1, *model.preprocess.shape)
    return replace(model, network=specialise(network, example))


def _archives(folder: Path, names: Sequence[str], labels: Sequence[str] | None) -> list[ResolvedArchive]:
    found = select(sorted(folder.glob("*.yaml")), environ={})
    archives = {archive.model.name: archive for archive in found if isinstance(archive.model, ClassifierSpec)}
    if labels is not None:
        archives = {name: one for name, one in archives.items() if one.model.labels == tuple(labels)}
    for name in names:
        if name not in archives:
            raise ValueError(f"models: wanted some of {', '.join(archives)}, got {name!r}")
    return [archives[name] for name in names]


def of_archive(archive: ResolvedArchive) -> EvaluatedModel:
    """The classifier of an archive, with its network as it was built."""
    spec, built = archive.model, of_sources(archive)
    assert isinstance(spec, ClassifierSpec)
    network = built.network.requires_grad_(False).to(memory_format=torch.channels_last)  # which is quicker
    if not archive.labelled:
        with torch.no_grad():
            classes = network(torch.zeros(1, *Preprocess(**spec.preprocess.model_dump()).shape)).shape[1]
        spec = archive.with_labels(classes, built.checkpoint.classes).model
        assert isinstance(spec, ClassifierSpec)
    rule = quadrature(spec.explain.quadrature, spec.explain.steps)
    preprocess = Preprocess(**spec.preprocess.model_dump())
    return EvaluatedModel(spec.name, network, preprocess, rule, _baseline(spec), labels=spec.labels)


def _baseline(spec: ClassifierSpec) -> str:
    return "black" if spec.explain.baseline == "uniform" else spec.explain.baseline


def _folded(archive: ResolvedArchive) -> tuple[EvaluatedModel, nn.Module]:
    spec = archive.model
    assert isinstance(spec, ClassifierSpec)
    folded = fold(of_sources(archive).network)
    rule = quadrature(spec.explain.quadrature, spec.explain.steps)
    bare = EvaluatedModel(spec.name, folded, Preprocess(**spec.preprocess.model_dump()), rule, _baseline(spec))
    return with_network(bare, folded), folded
