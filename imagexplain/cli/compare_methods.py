"""All attribution methods on one photo by one classifier, on one sheet, with the time that each of them takes.

compare_methods.py photo.jpg --model lanet
compare_methods.py photo.jpg --model bit --target star --methods integrated_gradients grad_cam xrai --columns 4
compare_methods.py photo.jpg --model resnet --target star --contrast ring
compare_methods.py photo.jpg --model my_model.yaml --methods smooth:gradient "guided_ig*hires_cam" --steps 100

The model is built here, from its spec in archive_specs/; no server is needed. Beside the methods of
imagexplain/attribution, a method may be averaged over noise (smooth:METHOD), two be multiplied (FINE*COARSE), and
integrated_directional_gradients are those of superpixels.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import get_args

import torch
from PIL import Image
from torch import Tensor, nn

from imagexplain.api.request import Defaults, parse, resolve_target
from imagexplain.archive.classifier_network import of_sources
from imagexplain.archive.find import find_classifier
from imagexplain.archive.spec import ClassifierSpec, ResolvedArchive
from imagexplain.attribution.baselines import uniform_noise
from imagexplain.attribution.config import AttributionConfig, Smoothing
from imagexplain.attribution.differences import OF_ONE_SCORE, score_of
from imagexplain.attribution.groups.directional import directional_gradients
from imagexplain.attribution.paths.path_integral import integrate
from imagexplain.attribution.paths.quadrature import Quadrature, quadrature
from imagexplain.attribution.registry import METHODS, Family
from imagexplain.attribution.runner import AttributionInputs, layer_and_channels, run
from imagexplain.checkout import ROOT
from imagexplain.errors import LayerError, RequestError, UnsupportedModelError, unknown
from imagexplain.models.head import Head
from imagexplain.progress import say, with_progress
from imagexplain.serving.chunk_size import chunk_size
from imagexplain.serving.method_attribution import watched
from imagexplain.serving.path_attribution import contrasted
from imagexplain.serving.prepared_request import prepare_request
from imagexplain.serving.render import for_display, sigma_of
from imagexplain.serving.runtime import limits
from imagexplain.vision.contact_sheet import Tile, contact_sheet, greyed
from imagexplain.vision.geometry import fit
from imagexplain.vision.heatmap import overlay
from imagexplain.vision.preprocess import preprocess
from imagexplain.vision.preprocess_settings import Preprocess
from imagexplain.vision.segment_overlay import coloured
from imagexplain.vision.superpixels import slic

SPECS = ROOT / "archive_specs"
OUT = ROOT / "run" / "sheets"
BOX = (240, 300)
"""Width and height of a picture on the sheet, at most, pixels."""
FOOTER = "blue opposes the class, red supports it; full colour at the 99.5th percentile of each map"
REFERENCES = 64
"""Number of photos of noise from which expected gradients draws."""
DIRECTIONAL = "integrated_directional_gradients"
SMOOTH = "smooth:"
COMBINED = ("blur_ig*grad_cam", f"{SMOOTH}integrated_gradients")
"""Combinations of methods that are shown beside the methods."""


@dataclass(frozen=True, eq=False)
class Question:
    """The score of a class that a model gives a photo, or its difference from another class's, to be explained.

    Attributes:
        spec: Spec of the model.
        network: Network from (N, C, H, W) to the scores that are explained (N, classes); not folded, so that methods
            find its layers.
        head: Meaning of the scores.
        photo: Upright photo, as large as it is drawn.
        preprocess: Preprocessing that made the input.
        image: (1, C, H, W) model input.
        inside: Rows and columns of it that show the photo, and no padding.
        baselines: (D, 1, C, H, W) baselines, the spec's own.
        scores: (classes,) scores of the image.
        target: Index of the class.
        contrast: Index of the class whose score is taken off; None for none.
        layer: Name of the layer that methods look at, found by the scores themselves; None where there is none.
        rule: Quadrature of path integrals.
        steps: Number of steps, for methods that take steps; None for each one's own number.
    """

    spec: ClassifierSpec
    network: nn.Module
    head: Head
    photo: Image.Image
    preprocess: Preprocess
    image: Tensor
    inside: tuple[slice, slice]
    baselines: Tensor
    scores: Tensor
    target: int
    contrast: int | None
    layer: str | None
    rule: Quadrature
    steps: int | None

    @property
    def explained(self) -> int | tuple[int, int]:
        """The class, or both, whose score or difference is explained."""
        return self.target if self.contrast is None else (self.target, self.contrast)


def ask(
    photo: Path,
    archive: ResolvedArchive,
    target: str | None = None,
    steps: int | None = None,
    contrast: str | None = None,
) -> Question:
    """Read a photo, build the model and score the photo, all as a worker would.

    Raises:
        OSError: the photo cannot be read.
        RequestError: it is none, or the model has no such class.
        ValueError: weights or labels that do not fit the model, or a number of steps that is none.
    """
    spec = archive.model
    assert isinstance(spec, ClassifierSpec)
    own = spec.explain
    rule = quadrature(own.quadrature, own.steps if steps is None else _positive("steps", steps))
    defaults = Defaults(**own.model_dump())
    request = parse({"body": photo.read_bytes()}, {}, kind="explanation", limits=limits(spec), defaults=defaults)
    settings = Preprocess(**spec.preprocess.model_dump())
    sample = prepare_request(request, preprocess(request.photo, settings))
    built = of_sources(archive)
    network = built.network
    with torch.no_grad():
        scores = network(sample.image.unsqueeze(0))[0]
    spec = archive.with_labels(len(scores), built.checkpoint.classes).model
    assert isinstance(spec, ClassifierSpec)
    if len(scores) != len(spec.labels):
        raise ValueError(f"labels: wanted {len(scores)}, one for each score of the model, got {len(spec.labels)}")
    index = built.head.predicted(scores) if target is None else resolve_target(target, spec.labels)
    other = None if contrast is None else resolve_target(contrast, spec.labels, "contrast_class")
    if other == index:
        raise ValueError(f"contrast: wanted another class than {spec.labels[index]}, the explained one")
    layer = None
    if other is not None:
        with suppress(LayerError):  # told to each method that looks at one
            layer, _ = layer_and_channels(AttributionConfig(("grad_cam",)), network, sample.image.unsqueeze(0))
    return Question(
        spec=spec,
        network=network,
        head=built.head,
        photo=_fitted(request.photo.image),
        preprocess=sample.preprocess,
        image=sample.image.unsqueeze(0),
        inside=sample.geometry.inside,
        baselines=sample.baselines.unsqueeze(1),
        scores=scores,
        target=index,
        contrast=other,
        layer=layer,
        rule=rule,
        steps=steps,
    )


def named(names: Sequence[str] | None) -> dict[str, str]:
    """The methods to compare, in order of their families, each with its family.

    Args:
        names: Names as on the command line; None for all.

    Raises:
        ValueError: an unknown name, or a second factor whose map is not coarse.
    """
    families: dict[str, str] = {
        name: family for family in get_args(Family) for name in METHODS if METHODS[name].family == family
    }
    families |= dict.fromkeys(COMBINED, "combinations") | {DIRECTIONAL: "superpixels"}
    if names is None:
        return families
    for name in names:
        *fine, last = name.removeprefix(SMOOTH).split("*")
        for method in (*fine, last):
            if not _exists(method):
                raise ValueError(unknown("method", method, sorted({*METHODS, DIRECTIONAL})))
        if DIRECTIONAL in (*fine, last) and name != DIRECTIONAL:
            raise ValueError(f"methods: {DIRECTIONAL} are of superpixels, and cannot be smoothed or multiplied")
        if len(fine) > 1 or (fine and not METHODS[last].coarse):
            coarse = ", ".join(method for method in METHODS if METHODS[method].coarse)
            raise ValueError(f"methods: wanted a product of one map and one of {coarse}, got {name}")
    order = list(families)
    chosen = {name: families.get(name, "combinations") for name in names}
    return dict(sorted(chosen.items(), key=lambda item: order.index(item[0]) if item[0] in families else len(order)))


def plan(name: str, question: Question) -> AttributionConfig:
    """The plan of a method for the model's input size: lengths in pixels are the methods' own, made for 224, scaled."""
    shorter = min(question.preprocess.size)
    size = max(2, round(15 * shorter / 224))
    options = {
        "size": size,
        "stride": max(1, size // 2),
        "max_sigma": 50 * shorter / 224,
        "least": max(1, round(50 * (shorter / 224) ** 2)),
        "rule": question.rule.rule,
    }
    if question.steps is not None:
        options["steps"] = question.steps
    if question.contrast is not None or not question.head.competes:
        options |= OF_ONE_SCORE  # of which no softmax is a probability
    smoothing = Smoothing() if name.startswith(SMOOTH) else None
    methods = tuple(name.removeprefix(SMOOTH).split("*"))
    return AttributionConfig(methods, tuple(options.items()), question.layer, smoothing)


def tiles(question: Question, names: dict[str, str]) -> Iterator[Tile]:
    """The photo, and then each method's picture as soon as it is there; prints the time that each of them took."""
    probabilities, score = question.head.probabilities(question.scores), score_of(question.scores, question.explained)
    told = f"{question.head.score_kind} {score:.2f}" if question.head.score_kind != "logit" else f"score {score:.2f}"
    if question.contrast is not None:
        told = f"difference {score:.2f}"
    if probabilities is not None:
        told += f", probability {probabilities[question.target].item():.1%}"
    yield Tile(question.photo, named_class(question), told, "photo")

    groups = superpixels(question)
    pixels = question.preprocess.picture(question.image[0])
    material = AttributionInputs(question.baselines, groups=groups.unsqueeze(0), pictures=pixels.unsqueeze(0))
    low, high = question.preprocess.grey(0.0), question.preprocess.grey(1.0)
    noise = AttributionInputs(uniform_noise(low, high, REFERENCES, seed=0).unsqueeze(1))
    chunk = question.spec.serving.chunk or chunk_size(question.network, question.image)
    geometry = fit(question.photo.size[::-1], question.preprocess)

    def heat_map(wanted: AttributionConfig, own: AttributionInputs) -> Image.Image:
        with contrasted(question.network, [question.explained]) as (forward, columns):
            maps = run(wanted, forward, question.image, torch.tensor(columns), own, chunk=chunk)
        maps = for_display(maps, wanted)
        sigma = sigma_of(wanted, maps.shape[-2:])
        return (
            overlay(question.photo, maps, geometry, sigma=sigma)
            if maps.any()
            else greyed(question.photo, "zero everywhere")
        )

    def segments() -> Image.Image:
        values = directional(question, groups, chunk)
        return coloured(question.photo, groups, values / values.abs().max().clamp_min(1e-30), geometry)

    for name, family in names.items():
        shown, work = title(name), segments
        if name != DIRECTIONAL:
            wanted = plan(name, question)
            own = replace(material, baselines=None) if wanted.own_baselines else material
            work = partial(heat_map, wanted, noise if "references" in wanted.takes else own)
        with watched(question.network) as (_, rows):
            started = time.perf_counter()
            try:
                drawn = with_progress(shown, work)
            except (UnsupportedModelError, LayerError) as error:
                say(f"{shown:32} is not supported by this model: {error.message}")
                yield Tile(greyed(question.photo, error.message), shown, "not supported by this model", family)
                continue
            seconds, count = time.perf_counter() - started, rows[0]
        noun = "evaluation" if count == 1 else "evaluations"
        say(f"{shown:32} {seconds:8.2f} s {count:8,} {noun}")
        yield Tile(drawn, shown, f"{seconds:.2f} s, {count:,} {noun}", family)


def superpixels(question: Question) -> Tensor:
    """Labels (H, W) of superpixels of the photo; padding has one of its own."""
    rows, columns = question.inside
    own = slic(question.preprocess.rgb(question.image[0])[:, rows, columns])
    labels = torch.full(question.image.shape[2:], int(own.max()) + 1)
    labels[rows, columns] = own
    return labels


def directional(question: Question, labels: Tensor, chunk: int) -> Tensor:
    """(G,) integrated directional gradients of the groups (H, W), averaged over the draws of the baseline."""
    starts = question.baselines[:, 0]
    count = len(starts)
    ends = question.image.expand(count, -1, -1, -1)
    with contrasted(question.network, [question.explained]) as (forward, columns):
        targets = torch.tensor(columns).expand(count)
        integrals = integrate(forward, ends, starts, targets, [question.rule] * count, chunk=chunk)
    each = [directional_gradients(own.attribution, own.difference, labels) for own in integrals]
    return torch.stack(each).mean(0)


def title(name: str) -> str:
    """A method's name as it is shown."""
    shown = name.removeprefix(SMOOTH).replace("*", " * ")  # Pillow's font has no sign of multiplication
    if shown in METHODS and METHODS[shown].centred:
        shown += ", less its mean"
    return f"{shown}, smoothed" if name.startswith(SMOOTH) else shown


def heading(question: Question, image: str) -> str:
    """The sheet's title: model, class, the predicted class where that is another one, and photo."""
    labels, best = question.spec.labels, question.head.predicted(question.scores)
    told = best == question.target or question.head.activation == "none"
    predicted = "" if told else f" (it predicts {labels[best]})"
    return f"{question.spec.file_name} · {named_class(question)}{predicted} · {image}"


def named_class(question: Question) -> str:
    """The class that is explained, and the class that it is contrasted with."""
    labels, other = question.spec.labels, question.contrast
    return labels[question.target] + ("" if other is None else f" rather than {labels[other]}")


def _exists(name: str) -> bool:
    return name == DIRECTIONAL or all(method in METHODS for method in name.removeprefix(SMOOTH).split("*"))


def _fitted(photo: Image.Image) -> Image.Image:
    """The photo as large as the box allows; a small one is enlarged."""
    scale = min(BOX[0] / photo.width, BOX[1] / photo.height)
    return photo.resize(
        (max(1, round(photo.width * scale)), max(1, round(photo.height * scale))), Image.Resampling.BICUBIC
    )


def _positive(field: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{field}: wanted at least 1, got {value}")
    return value


def parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The parser of this command."""
    made = argparse.ArgumentParser(prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("image", type=Path)
    made.add_argument(
        "--model", required=True, help="name of a classifier in archive_specs/, name/version, or a spec file"
    )
    made.add_argument("--methods", nargs="+", metavar="METHOD", help="which methods (default: all)")
    made.add_argument("--target", help="label or index of the class to explain (default: the predicted one)")
    made.add_argument("--contrast", help="label or index of a class whose score is taken off: why not this one")
    made.add_argument("--out", type=Path, help="the PNG file (default: run/sheets/IMAGE_MODEL.png)")
    made.add_argument("--columns", type=int, default=6, help="pictures in a row (default: 6)")
    made.add_argument("--steps", type=int, help="of all methods that take steps (default: each one's own)")
    return made


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    """The command line; returns the exit status."""
    given = parser(prog).parse_args(arguments)
    try:
        _positive("columns", given.columns)
        names = named(given.methods)
        question = ask(given.image, find_classifier(given.model, SPECS), given.target, given.steps, given.contrast)
        out = given.out or OUT / f"{given.image.stem}_{question.spec.file_name}.png"
        out.parent.mkdir(parents=True, exist_ok=True)
    except RequestError as error:
        print(f"error: {error.field}: {error.message}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    say(heading(question, given.image.name))
    started = time.perf_counter()
    sheet = contact_sheet(list(tiles(question, names)), given.columns, heading(question, given.image.name), FOOTER)
    sheet.save(out, "PNG")
    say(f"{len(names)} methods in {time.perf_counter() - started:.1f} s: {out}")
    return 0
