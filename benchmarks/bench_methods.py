"""Every attribution method against the package that has it too: seconds, model evaluations, and how far maps differ.

    python -m benchmarks.bench_methods [--models resnet vit] [--batches 1 8] [--methods grad_cam …] [--repeats 3]
                                       [--device cpu] [--out benchmarks/results_methods.json [--add]]
    python -m benchmarks.bench_methods --show benchmarks/results_methods.json [--write]

Full-size networks of timm with seeded weights explain seeded pictures of 224 × 224; a ResNet's batch norms are
calibrated on the pictures. `resnet` is ResNet-18 and `vit` ViT-Ti/16, the smallest of their families, for a peer's
Score-CAM and Ablation-CAM evaluate everything once for each of the layer's channels (512 and 192); `resnet50` and
`vit_small` are there for those who have the time. Parameters require gradients, as they do when a network is made.

The peers are pytorch-grad-cam, Captum and PAIR's saliency, each called as its documentation says: a CAM object with
targets and, for tokens, a reshape_transform; PAIR with one NumPy image at a time. Layer, steps, samples, windows,
groups and chunk are equal on both sides, and few (`settings`), so that all of it takes about an hour on two cores.
Captum's rules for guided backpropagation and DeepLIFT do not bear ReLUs in place; there both sides explain a copy
without.

The first call of each way warms up and is counted; then both take turns with a rest between, each first in every other
one, and the ratio is the median of the turns', with its 95 % interval. Short calls take more turns than `repeats`, as
many as fill `least` seconds; calls of more than `slow` seconds take one. A ratio with a side that took one has no
interval.
    rows       whole: from the pixels on; rest: of a layer's replaced output on; back: gradients from the scores on.
    passes     floating-point operations of convolutions, matrix products and attention, forwards and back, in units of
               one image's forward pass. Gradients of the parameters count too, where a way takes them.
    difference largest between the two maps, each image's scaled to 0..1 (class activation maps) or by its largest
               magnitude. Where the definitions differ or chance is in it, the table has a note instead.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.tables import put
from evaluation.cost import measure_cost
from evaluation.machine import machine
from imagexplain.attribution.methods.gradient import gradient
from imagexplain.attribution.registry import METHODS
from imagexplain.errors import LayerError, UnsupportedModelError

MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "resnet": ("resnet18", "layer4", {"zero_init_last": False}),
    "resnet50": ("resnet50", "layer4", {"zero_init_last": False}),
    "vit": ("vit_tiny_patch16_224", "blocks.11.norm1", {}),
    "vit_small": ("vit_small_patch16_224", "blocks.11.norm1", {}),
}
"""Models by name: timm's name, the layer of class activation maps, and further arguments."""

REST = 0.1
"""Seconds before each turn: NumPy's threads are awake that long after their work, at the cost of whoever comes next."""

SAMPLES = {"rise": 4, "ss_cam": 1 / 16}
"""Factors of the settings' samples, for methods that need more, or take as many for each channel."""

RATIOS = "times of peers"
"""Name of the docs' table."""

ONCE = r"\*"
"""Mark of the ratios without an interval."""

PACKAGES = ("grad-cam", "captum", "saliency", "timm", "numpy")

PERMUTATIONS = 2
"""Number of orders of sampled Shapley values, each of which is as many evaluations as there are groups."""


@dataclass(frozen=True)
class Settings:
    """The settings of both sides.

    Attributes:
        side: Side of the images, in pixels.
        chunk: Number of images evaluated at once, at most, where a way can be told.
        steps: Number of steps of a path.
        samples: Number of noisy copies, references drawn or coalitions; RISE's masks are four times as many.
        window, stride: Lengths of occlusion, in pixels.
        cells: Side of the grid whose cells are the groups.
    """

    side: int = 224
    chunk: int = 32
    steps: int = 10
    samples: int = 16
    window: int = 64
    stride: int = 32
    cells: int = 4


@dataclass(frozen=True)
class Timing:
    """Numbers that say how often a call is timed, after a first one that warms up.

    Attributes:
        repeats: Number of turns at least.
        slow: Seconds of a call beyond which it takes one turn.
        least: Seconds that the turns of short calls fill, both ways together.
    """

    repeats: int = 3
    slow: float = 10.0
    least: float = 8.0


@dataclass(frozen=True)
class Case:
    """One network and one batch.

    Attributes:
        network: Network in ``eval()``.
        out_of_place: Copy whose ReLUs are not in place.
        layer: Dotted name of the layer.
        images: (B, 3, side, side) model inputs.
        targets: (B,) predicted classes.
        tokens: Flag for a layer that puts out tokens, the first of them the class token.
        settings: Settings of both sides.
    """

    network: nn.Module
    out_of_place: nn.Module
    layer: str
    images: Tensor
    targets: Tensor
    tokens: bool
    settings: Settings

    @cached_property
    def groups(self) -> Tensor:
        """(side, side) int64 cells of a grid."""
        cell = torch.arange(self.settings.side, device=self.images.device) * self.settings.cells // self.settings.side
        return self.settings.cells * cell[:, None] + cell

    @cached_property
    def references(self) -> Tensor:
        """(4, 3, side, side) references of expected gradients."""
        return pictures(4, self.settings.side, seed=1).to(self.images.device)


def pictures(count: int, side: int, seed: int = 0) -> Tensor:
    """Seeded soft blobs (count, 3, side, side), about −2 to 2 as after the usual normalisation."""
    coarse = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (side, side), mode="bicubic", align_corners=False).clamp(-2, 2)


def made(name: str, batch: int, settings: Settings, device: str) -> Case:
    """The case of one of MODELS."""
    architecture, layer, arguments = MODELS[name]
    tokens = architecture.startswith("vit")
    torch.manual_seed(0)
    network = timm.create_model(architecture, **arguments, **({"img_size": settings.side} if tokens else {})).to(device)
    images = pictures(batch, settings.side).to(device)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()(pictures(8, settings.side, seed=2).to(device))
        targets = network.eval()(images).argmax(1)
    out_of_place = copy.deepcopy(network)
    for module in out_of_place.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return Case(network, out_of_place, layer, images, targets, tokens, settings)


def in_double(case: Case) -> Case:
    """The first image alone, in float64."""
    network, out_of_place = (copy.deepcopy(network).double() for network in (case.network, case.out_of_place))
    return replace(
        case, network=network, out_of_place=out_of_place, images=case.images[:1].double(), targets=case.targets[:1]
    )


def our_options(method: str, case: Case) -> dict[str, Any]:
    """The options of our function beside the model, images and targets."""
    wanted = case.settings
    given = {
        "layer": case.layer,
        "chunk": wanted.chunk,
        "groups": case.groups,
        "references": case.references,
        "steps": wanted.steps,
        "samples": max(1, round(wanted.samples * SAMPLES.get(method, 1))),
        "permutations": PERMUTATIONS,
        "size": wanted.window,
        "stride": wanted.stride,
    }
    return {name: value for name, value in given.items() if name in METHODS[method].parameters}


def ours(method: str, case: Case) -> Tensor:
    """Our map."""
    network = case.out_of_place if "nonlinearities" in METHODS[method].needs else case.network
    maps: Tensor = METHODS[method].function(network, case.images, case.targets, **our_options(method, case))
    return maps


def by_grad_cam(kind: str, case: Case) -> Tensor:
    """One CAM object of pytorch-grad-cam, with targets."""
    package = import_module("pytorch_grad_cam")
    layers = [] if kind == "FullGrad" else [case.network.get_submodule(case.layer)]
    options: dict[str, Any] = {}
    if kind == "AblationCAM":
        ablation = import_module("pytorch_grad_cam.ablation_layer")
        layer = ablation.AblationLayerVit if case.tokens else ablation.AblationLayer
        options = {"ablation_layer": layer(), "batch_size": case.settings.chunk}
    if case.tokens:
        options["reshape_transform"] = partial(_token_maps, side=case.settings.side // 16)
    with getattr(package, kind)(case.network, layers, **options) as cam:
        cam.batch_size = case.settings.chunk
        wanted = None if kind == "FinerCAM" else [_target(kind)(target) for target in case.targets.tolist()]
        maps = cam(case.images.clone(), wanted)  # none: the predicted classes, with those that they are told from
    case.network.zero_grad()  # as far as it left any behind
    return torch.from_numpy(maps)


def _target(kind: str) -> Any:
    """The class of pytorch-grad-cam's for the score that one of its methods explains."""
    targets = import_module("pytorch_grad_cam.utils.model_targets")
    return targets.ClassifierOutputReST if kind == "ShapleyCAM" else targets.ClassifierOutputTarget


def _token_maps(tokens: Tensor, side: int) -> Tensor:
    """(B, C, h, w) of (B, 1 + h · w, C), as pytorch-grad-cam's documentation has it for a ViT."""
    return tokens[:, 1:, :].reshape(len(tokens), side, side, tokens.shape[-1]).permute(0, 3, 1, 2)


def by_captum(kind: str, case: Case) -> Tensor:
    """One of Captum's classes."""
    attr, wanted = import_module("captum.attr"), case.settings
    network = case.out_of_place if kind in ("GuidedBackprop", "DeepLift", "GuidedGradCam") else case.network
    each = max(1, wanted.chunk // len(case.images))
    groups = {"feature_mask": case.groups.view(1, 1, wanted.side, wanted.side), "perturbations_per_eval": each}
    deviation = 0.15 * (case.images.amax((1, 2, 3)) - case.images.amin((1, 2, 3))).mean().item()
    options: dict[str, dict[str, Any]] = {
        "Saliency": {"abs": False},
        "IntegratedGradients": {"n_steps": wanted.steps, "internal_batch_size": wanted.chunk},
        "NoiseTunnel": {
            "nt_samples": wanted.samples,
            "nt_samples_batch_size": each,
            "stdevs": deviation,
            "abs": False,
        },
        "GuidedGradCam": {"interpolate_mode": "bilinear"},
        "Occlusion": {
            "sliding_window_shapes": (3, wanted.window, wanted.window),
            "strides": (3, wanted.stride, wanted.stride),
            "perturbations_per_eval": each,
        },
        "FeatureAblation": groups,
        "ShapleyValueSampling": {**groups, "n_samples": PERMUTATIONS, "perturbations_per_eval": each},
        # Captum counts both ends, all groups and none, among its samples; we do not.
        "KernelShap": {**groups, "n_samples": wanted.samples + 2, "perturbations_per_eval": wanted.chunk},
        "Lime": {**groups, "n_samples": wanted.samples, "perturbations_per_eval": wanted.chunk},
        "GradientShap": {"baselines": case.references, "n_samples": wanted.samples},
    }
    if kind == "NoiseTunnel":
        method = attr.NoiseTunnel(attr.Saliency(network))
    elif kind == "GuidedGradCam":
        method = attr.GuidedGradCam(network, network.get_submodule(case.layer))
    else:
        method = getattr(attr, kind)(network)
    maps: Tensor = method.attribute(case.images.clone(), target=case.targets, **options.get(kind, {})).detach()
    return maps


def by_pair(kind: str, case: Case) -> Tensor:
    """One of PAIR's classes, image by image, in float64 but for the network."""
    pair, wanted = import_module("saliency.core"), case.settings
    options: dict[str, dict[str, Any]] = {
        "BlurIG": {"steps": wanted.steps, "batch_size": wanted.chunk},
        "GuidedIG": {"x_steps": wanted.steps},
        "XRAI": {"extra_parameters": pair.XRAIParameters(steps=wanted.steps), "batch_size": wanted.chunk},
    }

    def call(points: NDArray[np.float64], call_model_args: int, expected_keys: object) -> dict[str, Any]:
        rows = torch.from_numpy(points).to(case.images).permute(0, 3, 1, 2)
        gradients = gradient(case.network, rows, call_model_args).permute(0, 2, 3, 1)
        return {pair.INPUT_OUTPUT_GRADIENTS: gradients.double().cpu().numpy()}

    maps = []
    with _old_quantile():
        for image, target in zip(case.images.double().cpu(), case.targets.tolist(), strict=True):
            given = image.permute(1, 2, 0).numpy()
            maps.append(getattr(pair, kind)().GetMask(given, call, call_model_args=target, **options[kind]))
    channels_last = torch.from_numpy(np.stack(maps))
    return channels_last if channels_last.ndim == 3 else channels_last.permute(0, 3, 1, 2)


@contextlib.contextmanager
def _old_quantile() -> Iterator[None]:
    """Let PAIR call NumPy's quantile by an argument's old name."""
    quantile = np.quantile
    np.quantile = lambda values, share, interpolation: quantile(values, share, method=interpolation)  # type: ignore
    try:
        yield
    finally:
        np.quantile = quantile


PEERS: dict[str, Callable[[str, Case], Tensor]] = {
    "pytorch-grad-cam": by_grad_cam,
    "Captum": by_captum,
    "PAIR": by_pair,
}
"""Packages that methods are compared with; which of them has a method is known to the registry."""

SCALED = ("pytorch-grad-cam",)
"""Packages whose maps are scaled to 0..1."""


class _Operations(TorchDispatchMode):
    """A counter of floating-point operations, and of images through the first convolution."""

    def __init__(self, stems: Sequence[nn.Conv2d]) -> None:
        super().__init__()
        self.stems = {stem.weight.data_ptr() for stem in stems}
        self.rows = self.flop = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if (count := flop_registry.get(func._overloadpacket)) is not None:
            self.flop += count(*args, **(kwargs or {}), out_val=result)
        if func is torch.ops.aten.convolution.default and args[1].data_ptr() in self.stems:
            self.rows += len(args[0])
        return result


class Evaluations:
    """A counter of what a way has networks do within the block."""

    def __init__(self, *networks: nn.Module) -> None:
        self.networks = networks
        self.operations = _Operations(
            [next(part for part in network.modules() if isinstance(part, nn.Conv2d)) for network in networks]
        )

    def __enter__(self) -> Evaluations:
        self._stack = contextlib.ExitStack()
        self.cost = self._stack.enter_context(measure_cost(*self.networks))
        self._stack.enter_context(self.operations)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def told(self, one_pass: float) -> dict[str, float]:
        """The counts, given the operations of one image's forward pass."""
        return {
            "whole": self.operations.rows,
            "rest": self.cost.forward - self.operations.rows,
            "back": self.cost.backward,
            "passes": round(self.operations.flop / one_pass, 2),
        }


def one_pass(case: Case) -> float:
    """Operations of one image's forward pass."""
    with torch.no_grad(), Evaluations(case.network) as evaluations:
        case.network(case.images[:1])
    return float(evaluations.operations.flop)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the peers' progress bars and warnings."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def timed(way: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, float]:
    """The map, and the seconds it took, after a rest."""
    time.sleep(REST)
    started = time.perf_counter()
    with _quiet():
        maps = way()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return maps, time.perf_counter() - started


def turns(first: Collection[float], timing: Timing) -> int:
    """Number of turns of calls that took these seconds at first: ``repeats``, or as many as fill ``least`` seconds."""
    return max(timing.repeats, int(timing.least / (sum(first) + REST * len(first)))) if first else timing.repeats


def taken(turn_of: Callable[[str], float], first: Mapping[str, float], timing: Timing) -> dict[str, list[float]]:
    """The seconds of every turn by way, a single one of the ways that are slow.

    Args:
        turn_of: Function that takes a way's turn and returns its seconds.
        first: Seconds of each way's first call.
        timing: Numbers of turns.
    """
    seconds: dict[str, list[float]] = {way: [] for way in first}
    for turn in range(turns(first.values(), timing)):
        for way in list(first)[:: 1 if turn % 2 else -1]:
            if turn == 0 or first[way] <= timing.slow:
                seconds[way].append(turn_of(way))
    return seconds


def compared_seconds(own: Sequence[float], theirs: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """The median of the turns' ratios of the peer's seconds to ours, and its interval.

    A side's only turn is compared with all of the other's, and there is no interval: one turn does not tell how far
    others would have differed from it.
    """
    ratios = np.divide(theirs, own).tolist()
    return statistics.median(ratios), interval(ratios) if min(len(own), len(theirs)) > 1 else None


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % confidence interval of a median, by order statistics; all values where they are too few for one."""
    ordered = sorted(values)
    outside = max(0, int((len(ordered) - 1.96 * math.sqrt(len(ordered))) / 2))  # at either end, by the normal law
    return ordered[outside], ordered[-1 - outside]


def compared(case: Case, method: str, timing: Timing) -> dict[str, Any]:
    """One method on one case: ours beside the peer's, where there is one."""
    peer, device = METHODS[method].peer, case.images.device
    ways: dict[str, Callable[[], Tensor]] = {"ours": partial(ours, method, case)}
    result: dict[str, Any] = {"method": method, "peer": peer.package if peer else None, "evaluations": {}}
    if peer is not None and case.tokens and not peer.tokens:
        result["missing"] = "the peer's weighted sum knows no tokens"
    elif peer is not None:
        explain = partial(PEERS[peer.package], peer.kind)
        ways["peer"] = partial(explain, case)
    maps: dict[str, Tensor] = {}
    first: dict[str, float] = {}
    unit = one_pass(case)
    for way, call in ways.items():
        try:
            with Evaluations(case.network, case.out_of_place) as evaluations:
                maps[way], first[way] = timed(call, device)
        except (UnsupportedModelError, LayerError) as error:
            return {**result, "refused": str(error)}  # the method does not support this network
        except ImportError as error:
            result["missing"] = str(error)
            continue
        result["evaluations"][way] = evaluations.told(unit)
    seconds = taken(lambda way: timed(ways[way], device)[1], first, timing)
    result["seconds"] = {way: statistics.median(row) for way, row in seconds.items()}
    result["timing"] = asdict(timing)
    if peer is not None and "peer" in maps:
        result["times ours"], result["interval"] = compared_seconds(seconds["ours"], seconds["peer"])
        if peer.double:
            exact = in_double(case)
            with _quiet():
                maps = {"ours": ours(method, exact), "peer": explain(exact)}
        result["difference"] = difference(maps["ours"], maps["peer"], peer.package in SCALED)
        result["note"] = peer.note if peer.token_note is None or not case.tokens else peer.token_note
    return result


def difference(own: Tensor, theirs: Tensor, scaled: bool) -> float:
    """The largest difference between two batches of maps, after the same scaling of each image's."""
    theirs = theirs.to(own.device, torch.float64).view(len(own), -1, *own.shape[2:])
    own = own.double()
    if theirs.shape != own.shape:  # a peer that keeps equal channels, or does not reduce them as ours
        theirs = theirs.gather(1, theirs.abs().argmax(1, keepdim=True))
    return (_scaled(own, scaled) - _scaled(theirs, scaled)).abs().max().item()


def _scaled(maps: Tensor, to_range: bool) -> Tensor:
    if to_range:
        maps = maps - maps.amin((1, 2, 3), keepdim=True)
    return maps / maps.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-300)


def table(results: dict[str, Any]) -> str:
    """The results as Markdown, one table for each model and batch."""
    lines: list[str] = []
    for part in results["parts"]:
        lines += [
            f"\n{part['architecture']}, {part['batch']} × {part['settings']['side']} px\n",
            "| method | peer | s | peer's s | times ours | rows: whole + rest / back | peer's | passes | peer's "
            "| difference |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        lines += ["| " + " | ".join(_cells(row)) + " |" for row in part["methods"]]
    return "\n".join(lines).strip()


def _cells(row: dict[str, Any]) -> list[str]:
    if "refused" in row:
        return [row["method"], "", *["–"] * 7, "not supported"]
    own, theirs = (row["evaluations"].get(way) for way in ("ours", "peer"))
    seconds = [f"{row['seconds'][way]:.3g}" if way in row["seconds"] else "–" for way in ("ours", "peer")]
    ratio = "–"
    if "times ours" in row:
        ratio = f"{row['times ours']:.2f} ({_ends(row)})"
    rows = [
        f"{counts['whole']}{' + ' + str(counts['rest']) if counts['rest'] else ''} / {counts['back']}"
        if counts
        else "–"
        for counts in (own, theirs)
    ]
    passes = [f"{counts['passes']:.4g}" if counts else "–" for counts in (own, theirs)]
    last = row.get("note") or (f"{row['difference']:.0e}" if "difference" in row else row.get("missing", ""))
    return [row["method"], row["peer"] or "–", *seconds, ratio, *rows, *passes, last]


def _ends(row: dict[str, Any]) -> str:
    """Both ends of a ratio's interval, if it has one."""
    return " to ".join(f"{end:.2f}" for end in row["interval"]) if row["interval"] else "timed once"


def ratios(results: dict[str, Any]) -> str:
    """The times that peers took, in ours, as a Markdown table of all parts, and which of ours are surely slower."""
    parts = results["parts"]
    columns = [f"{part['architecture']}, {part['batch']}" for part in parts]
    lines = ["| " + " | ".join(["method", "peer", *columns]) + " |", "| --- " * (2 + len(parts)) + "|"]
    slower = []
    for same in zip(*(part["methods"] for part in parts), strict=True):
        if any("times ours" in row for row in same):
            lines.append("| " + " | ".join([f"`{same[0]['method']}`", same[0]["peer"], *map(_ratio, same)]) + " |")
        slower += [
            f"`{row['method']}` ({column}: {_ends(row)})"
            for column, row in zip(columns, same, strict=True)
            if row.get("interval") and row["interval"][1] < 1
        ]
    said = (
        f"Slower than the peer with the whole interval: {', '.join(slower) or 'none'}. {ONCE}: a side was timed once."
    )
    return "\n".join(lines) + f"\n\n{said}\n"


def _ratio(row: dict[str, Any]) -> str:
    """The peer's times in ours, with a mark where there is no interval."""
    if "times ours" not in row:
        return ""
    return f"{row['times ours']:#.3g}".rstrip(".") + ("" if row["interval"] else ONCE)


def part(
    name: str, batch: int, methods: Sequence[str], timing: Timing, settings: Settings, device: str
) -> dict[str, Any]:
    """All methods on one model and batch."""
    case = made(name, batch, settings, device)
    rows = []
    for method in methods:
        print(f"{name}, batch {batch}: {method} …", end=" ", file=sys.stderr, flush=True)
        row = compared(case, method, timing)
        rows.append(row)
        print(row.get("refused", row.get("seconds")), file=sys.stderr, flush=True)
    return {
        "model": name,
        "architecture": MODELS[name][0],
        "layer": case.layer,
        "batch": batch,
        "parameters": sum(parameter.numel() for parameter in case.network.parameters()),
        "gflop of a pass": one_pass(case) / 1e9,
        "settings": asdict(settings),
        "methods": rows,
    }


def merged(earlier: Sequence[dict[str, Any]], part: dict[str, Any]) -> list[dict[str, Any]]:
    """Earlier parts with the rows of one more: those of its methods are replaced, those of others are kept."""
    rows = {row["method"]: row for row in part["methods"]}
    parts = []
    for old in earlier:
        if (old["model"], old["batch"]) == (part["model"], part["batch"]):
            rows = {row["method"]: row for row in old["methods"]} | rows
        else:
            parts.append(old)
    parts.append({**part, "methods": [rows[method] for method in METHODS if method in rows]})
    return sorted(parts, key=lambda found: (list(MODELS).index(found["model"]), found["batch"]))


def versions() -> dict[str, str]:
    """The versions of the packages that are compared."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet", "vit"], choices=MODELS)
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for name, value in {**asdict(Timing()), **asdict(Settings())}.items():
        shown = "turns at least, after a first one that warms up" if name == "repeats" else argparse.SUPPRESS
        parser.add_argument(f"--{name}", type=type(value), default=value, help=shown)
    parser.add_argument("--out", type=Path)
    parser.add_argument(
        "--add", action="store_true", help="keep what that file has of other models, batches and methods"
    )
    parser.add_argument("--show", type=Path, help="print the table of such a file, and end")
    parser.add_argument("--write", action="store_true", help="with --show: put its ratios into docs/methods.md")
    options = parser.parse_args()
    if options.show:
        shown = json.loads(options.show.read_text())
        print(table(shown))
        if options.write:
            put("methods", {RATIOS: ratios(shown)})
        return
    if options.add and not options.out:
        parser.error("--add: wanted --out, the file to add to, got none")
    settings = Settings(**{name: getattr(options, name) for name in asdict(Settings())})
    timing = Timing(**{name: getattr(options, name) for name in asdict(Timing())})
    earlier = json.loads(options.out.read_text())["parts"] if options.add and options.out.exists() else []
    if any(part["settings"] != asdict(settings) for part in earlier):
        parser.error("--add: wanted the settings of the file, got others, whose rows cannot be told apart")
    results: dict[str, Any] = {
        "machine": {**machine(), "device": options.device, **versions()},
        "parts": earlier,
    }
    if options.device.startswith("cuda"):
        results["machine"]["device"] = torch.cuda.get_device_name(options.device)
    for name in options.models:
        for batch in options.batches:
            found = part(name, batch, options.methods, timing, settings, options.device)
            results["parts"] = merged(results["parts"], found)
            if options.out:
                options.out.write_text(json.dumps(results, indent=2) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
