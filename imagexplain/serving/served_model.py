"""A classifier as a worker holds it: loaded from its archive, frozen, and measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from imagexplain import models
from imagexplain.archive import classifier_network, supported_methods
from imagexplain.archive.spec import ClassifierSpec
from imagexplain.attribution.config import AttributionConfig
from imagexplain.attribution.paths.path_integral import score_gradients
from imagexplain.attribution.runner import layer_and_channels
from imagexplain.errors import ArgumentError
from imagexplain.models.head import Head
from imagexplain.models.optimize.any_network import optimize
from imagexplain.models.optimize.folding import fold
from imagexplain.models.optimize.precision import with_precision
from imagexplain.models.optimize.specialised_convolutions import specialise
from imagexplain.models.programs.program import Program
from imagexplain.serving.chunk_size import chunk_size
from imagexplain.serving.deadline import CHUNK_SHARE
from imagexplain.serving.model_facts import ModelFacts
from imagexplain.vision.preprocess_settings import Preprocess


@dataclass(frozen=True)
class ServedModel:
    """A loaded classifier, with all that answering a request needs to know about it.

    Attributes:
        spec: Resolved spec of the archive.
        head: Meaning of the scores.
        preprocess: Preprocessing of photos.
        network: Frozen network from (N, C, H, W) to the scores that are explained (N, classes), as fast as it can be
            made.
        original_network: Same network with the modules that its authors gave it, whose layers can be named; built
            when the worker loads.
        device: Device of the network.
        chunk: Number of path points evaluated at once.
        seconds_per_point: Seconds that one path point within a chunk takes, measured after loading.
        facts: Facts learnt of the model since.
    """

    spec: ClassifierSpec
    head: Head
    preprocess: Preprocess
    network: nn.Module
    original_network: Callable[[], nn.Module]
    device: torch.device
    chunk: int
    seconds_per_point: float
    facts: ModelFacts


def load(model_dir: Path, device: torch.device) -> ServedModel:
    """Build the network of an unpacked archive, fold it, specialise one of our own, and measure it.

    Raises:
        SpecError, CheckpointError: an archive that does not hold what it should.
        ValueError: a network whose scores do not match the labels.
    """
    spec = ClassifierSpec.read(model_dir)
    preprocess = Preprocess(**spec.preprocess.model_dump())
    example = torch.zeros(1, *preprocess.shape)

    def placed(network: nn.Module) -> nn.Module:
        return network.requires_grad_(False).to(device).to(memory_format=torch.channels_last)

    photo = supported_methods.example_input(spec)
    built = classifier_network.of_archive(spec, model_dir, device)
    if spec.architecture in models.ARCHITECTURES:
        network = fold(built)  # a copy
        network = specialise(network, example) if device.type == "cpu" else network
    elif isinstance(built, Program):
        network = built.quick()
    else:
        network = optimize(built, photo[None])
    original, network = placed(built), with_precision(placed(network), spec.serving.precision, device)
    with torch.no_grad():
        classes = network(example.to(device)).shape[1]
    if classes != len(spec.labels):
        raise ValueError(f"labels: wanted {classes}, one for each score of the model, got {len(spec.labels)}")
    chunk = spec.serving.chunk or chunk_size(network, example.to(device))
    seconds = _measure(network, example.to(device), min(chunk, spec.explain.steps + 2))
    chunk = max(1, min(chunk, int(CHUNK_SHARE * spec.serving.deadline_s / seconds)))
    names = supported_methods.load(model_dir, lambda: supported_methods.find_refusals(original, photo.to(device)))
    facts = ModelFacts(names, _default_layer(original, example.to(device)))
    head = Head(**spec.head.model_dump())
    return ServedModel(spec, head, preprocess, network, lambda: original, device, chunk, seconds, facts)


def _default_layer(network: nn.Module, example: Tensor) -> dict[str | None, tuple[str, int]]:
    """The layer that methods look at by default, as :attr:`ModelFacts.layers` has it; nothing where there is none."""
    try:
        found = layer_and_channels(AttributionConfig(("grad_cam",)), network, example)
    except ArgumentError:  # told to whoever asks for a method that looks at one
        return {}
    return {None: found, found[0]: found}


def _measure(network: nn.Module, example: Tensor, count: int) -> float:
    """Seconds per path point, of ``count`` at once, the best of two after a first that compiles the kernels.

    The best, because other workers load at the same time.
    """
    rows = example + torch.linspace(0, 1, count, device=example.device).view(-1, 1, 1, 1)
    targets = torch.zeros(count, dtype=torch.int64, device=example.device)
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        score_gradients(network, rows, targets)[1].sum().item()  # .item() waits for the device
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:]) / count
