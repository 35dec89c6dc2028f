"""Numbers of docs/meaning.md: a cup of coffee by EfficientNet-Lite0, and a scene by the ResNet of the scenes.

`python -m evaluation.evaluate_meaning` computes them anew, writes benchmarks/results_meaning.json and draws the page's
pictures; two minutes on one core. The page states them in the words of :mod:`evaluation.meaning_text`, and the tests
hold it to these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import torch
from PIL import Image
from torch import Tensor

import imagexplain
from evaluation.evaluated_model import EvaluatedModel, as_built
from evaluation.ranks import spearman
from imagexplain.attribution.baselines import blurred
from imagexplain.attribution.groups.directional import GroupScores, group_scores
from imagexplain.attribution.groups.families import Family, family
from imagexplain.attribution.paths.path_integral import PathIntegral
from imagexplain.attribution.paths.quadrature import quadrature
from imagexplain.checkout import ROOT
from imagexplain.vision.geometry import Geometry
from imagexplain.vision.preprocess import apply
from imagexplain.vision.superpixels import GridSettings, SlicSettings, grid, one_hot, slic
from training.scenes import SceneSettings, scene

CUP = Path(skimage.__file__).parent / "data" / "coffee.png"
DRAWS, STEPS = 4, 13
"""Draws and steps of each, as the service's default has them of 50 steps."""
CHUNK = 8
SUPERPIXELS = SlicSettings(n_segments=20)
DARK = (7, 20)
"""Seed and index of a scene whose triangle is nearly black."""

Numbers = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Case:
    """A photo, the model that is asked about it, and the class that it names.

    Attributes:
        model: Model.
        photo: Upright photo.
        image: Model input (3, H, W).
        geometry: Map between the two.
        target: Index of the predicted class.
    """

    model: EvaluatedModel
    photo: Image.Image
    image: Tensor
    geometry: Geometry
    target: int

    @property
    def labels(self) -> Tensor:
        """Superpixels (H, W) of the input."""
        return slic(self.model.preprocess.rgb(self.image), SUPERPIXELS)

    def baselines(self, name: str, draws: int = DRAWS) -> Tensor:
        """Baselines (D, 3, H, W) of a name."""
        match name:
            case "uniform":
                return self.model.noise(draws, seed=0)
            case "blur":
                return blurred(self.image, 0.1 * min(self.image.shape[1:]))[None]
        return self.model.start(name)[None]

    def paths(self, baselines: Tensor, steps: int, rule: str = "gauss_legendre", target: int | None = None) -> Paths:
        """Path integrals from baselines (D, 3, H, W)."""
        images = self.image.expand(len(baselines), -1, -1, -1)
        chosen = self.target if target is None else target
        return Paths(self.model.explain(images, baselines, chosen, quadrature(rule, steps)))

    def scores(self, images: Tensor) -> Tensor:
        """Scores (N, classes) of inputs."""
        with torch.no_grad():
            return torch.cat([self.model.network(part) for part in images.split(CHUNK)])


@dataclass(frozen=True, eq=False)
class Paths:
    """Path integrals of one input from several baselines, and their means."""

    each: Sequence[PathIntegral]

    @property
    def attribution(self) -> Tensor:
        """Mean attribution (3, H, W)."""
        return torch.stack([one.attribution for one in self.each]).mean(0)

    def mean(self, name: str) -> float:
        """Mean of a number of the integrals."""
        return float(np.mean([getattr(one, name) for one in self.each]))

    @property
    def residual(self) -> float:
        """Mean residual, relative to the mean difference of the scores."""
        return self.mean("residual") / (self.mean("score") - self.mean("baseline_score"))

    def table(self, groups: Family) -> GroupScores:
        """Table of groups."""
        attribution, difference = (
            torch.stack([getattr(one, name) for one in self.each]) for name in ("attribution", "difference")
        )
        return group_scores(attribution, difference, groups)


@cache
def cup() -> Case:
    """A cup of coffee as EfficientNet-Lite0 sees it: the photo's middle."""
    (model,) = as_built(ROOT / "archive_specs", ["imagenet"])
    with Image.open(CUP) as opened:
        photo = opened.convert("RGB")
    return _case(model, photo)


@cache
def dark_scene() -> tuple[Case, Tensor]:
    """A scene whose deciding triangle is painted black, and the triangle's mask (H, W)."""
    (model,) = as_built(ROOT / "archive_specs", ["resnet"])
    drawn = scene(*DARK, SceneSettings(size=model.preprocess.size))
    pixels = drawn.image.copy()
    pixels[drawn.deciding.mask] = 0
    return _case(model, Image.fromarray(pixels)), torch.from_numpy(drawn.deciding.mask)


def _case(model: EvaluatedModel, photo: Image.Image) -> Case:
    image, geometry = apply(photo, model.preprocess)
    model = replace(model, chunk=CHUNK)
    with torch.no_grad():
        target = int(model.network(image[None]).argmax())
    return Case(model, photo, image, geometry, target)


@cache
def usual() -> Paths:
    """Paths of the cup from the draws that the service would take."""
    return cup().paths(cup().baselines("uniform"), STEPS)


def segments_of(labels: Tensor) -> Family:
    """Family of a partition (H, W)."""
    masks = one_hot(labels)
    return family(masks, [str(number) for number in range(len(masks))])


def completeness() -> Numbers:
    """Score, baseline score, attributed sum and residual of the cup."""
    paths = usual()
    return {
        "score": paths.mean("score"),
        "baseline_score": paths.mean("baseline_score"),
        "attributed": paths.attribution.sum().item(),
        "residual": paths.mean("residual"),
        "probability": cup().scores(cup().image[None])[0].softmax(0).max().item(),
    }


def sizes() -> Numbers:
    """Mean magnitude of attribution and of directional gradient in ever finer grids; and superpixels' areas."""
    paths, found = usual(), {}
    for cells in (2, 4, 8, 16):
        groups = segments_of(grid((224, 224), GridSettings(cells, cells)))
        table = paths.table(groups)
        count = cells * cells
        found[str(cells)] = [
            table.attribution[:count].abs().mean().item(),
            table.directional[:count].abs().mean().item(),
        ]
    labels = cup().labels
    groups = segments_of(labels)
    table, rows = paths.table(groups), slice(0, int(labels.max()) + 1)
    area = table.area[rows].double()
    top = int(table.directional[rows].argmax())
    mask = groups.masks[top : top + 1]
    with_pixels = paths.table(family(mask, ["top"], pixels=True))
    values = {"superpixels": table.value[top].item(), "alone": paths.table(family(mask, ["top"])).value[0].item()}
    return {
        "grids": found,
        "area, attribution": spearman(area, table.attribution[rows].abs()),
        "area, directional": spearman(area, table.directional[rows].abs()),
        "area, per pixel": spearman(area, table.attribution[rows].abs() / area),
        "value": {**values, "with pixels": with_pixels.value[0].item()},
        "area": area[top].item() / labels.numel(),
        "segments": len(area),
    }


def blind_spot() -> Numbers:
    """Share of all magnitude of the map that lies in a black triangle, from four baselines."""
    case, mask = dark_scene()
    shares = {}
    for name in ("black", "white", "mean", "uniform"):
        start = (
            case.image.mean((1, 2), keepdim=True).expand_as(case.image)[None]
            if name == "mean"
            else case.baselines(name)
        )
        steps = STEPS if name == "uniform" else 30
        paths = case.paths(start, steps)
        maps = paths.attribution.sum(0)
        shares[name] = {
            "magnitude": (maps.abs()[mask].sum() / maps.abs().sum()).item(),
            "attribution": maps[mask].sum().item(),
            "total": maps.sum().item(),
        }
    probability = case.scores(case.image[None])[0].softmax(0).max().item()
    return {
        "shares": shares,
        "area": mask.double().mean().item(),
        "label": case.model.labels[case.target],
        "probability": probability,
    }


def residuals() -> Numbers:
    """Relative residual by steps and baseline, and the errors that it does not tell of."""
    case, found = cup(), {}
    labels = case.labels
    groups, count = segments_of(labels), int(labels.max()) + 1
    reference = case.paths(case.baselines("black"), 300)
    true = reference.table(groups).attribution[:count]
    rise = reference.mean("score") - reference.mean("baseline_score")
    errors = {}
    for name in ("black", "white", "zero"):
        rows = {}
        for steps in (5, 10, 15, 20, 30, 50, 75, 100):
            paths = case.paths(case.baselines(name), steps)
            rows[str(steps)] = paths.residual
            if name == "black":
                own = paths.table(groups).attribution[:count]
                errors[str(steps)] = [
                    (own - true).abs().max().item() / abs(rise),
                    _correlation(paths.attribution, reference.attribution),
                    spearman(own, true),
                ]
        found[name] = rows
    found["uniform"] = {
        str(4 * steps): case.paths(case.baselines("uniform"), steps).residual for steps in (3, 5, 8, 13, 25)
    }
    return {"relative": found, "errors": errors, "reference": reference.residual}


def path() -> Numbers:
    """Score and probability along the path from black."""
    case = cup()
    alphas = torch.linspace(0, 1, 51)
    start = case.baselines("black")[0]
    scores = case.scores(torch.stack([torch.lerp(start, case.image, alpha.item()) for alpha in alphas]))
    logit, probability = scores[:, case.target], scores.softmax(1)[:, case.target]
    return {
        "alpha": alphas.tolist(),
        "logit": logit.tolist(),
        "probability": probability.tolist(),
        "half": alphas[int((probability > 0.5 * probability[-1]).double().argmax())].item(),
    }


def baselines() -> Numbers:
    """Rank correlations of the cup's segments between baselines, and the number whose sign is another."""
    case = cup()
    labels = case.labels
    groups, count = segments_of(labels), int(labels.max()) + 1
    tables = {name: case.paths(case.baselines(name), 50).table(groups) for name in ("black", "white", "blur")}
    tables["uniform"] = usual().table(groups)
    rows = {name: table.attribution[:count] for name, table in tables.items()}
    pairs = [(one, other) for place, one in enumerate(rows) for other in list(rows)[place + 1 :]]
    return {
        "correlations": {f"{one}, {other}": spearman(rows[one], rows[other]) for one, other in pairs},
        "signs": {f"{one}, {other}": int((rows[one] * rows[other] < 0).sum()) for one, other in pairs},
        "segments": count,
        "rows": {name: tables[name].directional[:count].tolist() for name in rows},
    }


def draws() -> Numbers:
    """Spread of the draws of a random baseline."""
    case = cup()
    paths = case.paths(case.baselines("uniform", 16), STEPS)
    labels = case.labels
    groups, count = segments_of(labels), int(labels.max()) + 1
    each = torch.stack([Paths([one]).table(groups).attribution[:count] for one in paths.each])  # (16, S)
    top = int(each.mean(0).argmax())
    fours = each.view(4, 4, count).mean(1)
    pairs = [(one, other) for one in range(16) for other in range(one)]
    return {
        "mean": each[:, top].mean().item(),
        "spread": each[:, top].std(correction=0).item(),
        "one": float(np.mean([spearman(each[one], each[other]) for one, other in pairs])),
        "four": float(np.mean([spearman(fours[one], fours[other]) for one in range(4) for other in range(one)])),
    }


def contrast() -> Numbers:
    """Segments of the cup for espresso, for the class after it, and for the difference of the two."""
    case = cup()
    second = int(case.scores(case.image[None])[0].topk(2).indices[1])
    other = case.paths(case.baselines("uniform"), STEPS, target=second)
    labels = case.labels
    groups, count = segments_of(labels), int(labels.max()) + 1
    one, two = (each.table(groups).attribution[:count] for each in (usual(), other))
    top = int(one.argmax())
    norms = usual().table(groups).norm[:count]
    return {
        "label": case.model.labels[second],
        "top": [one[top].item(), two[top].item(), (one - two)[top].item()],
        "both": int(((one > 0) & (two > 0)).sum()),
        "segments": count,
        "sums": [one.sum().item(), two.sum().item()],
        "rows": {
            "one": (one / norms).tolist(),
            "two": (two / norms).tolist(),
            "difference": ((one - two) / norms).tolist(),
        },
    }


def sums() -> Numbers:
    """Sums of several methods' maps of the cup, beside the difference of scores from black."""
    case, black = cup(), cup().baselines("black")
    network, images, chosen = case.model.network, case.image[None], case.target
    labels = case.labels
    maps = {
        "integrated_gradients": case.paths(black, 50).attribution,
        "kernel_shap": imagexplain.kernel_shap(
            network, images, chosen, groups=labels, baselines=black, samples=64, chunk=CHUNK
        )
        / torch.bincount(labels.flatten())[labels],
        "gradient": imagexplain.gradient(network, images, chosen),
        "input_x_gradient": imagexplain.input_x_gradient(network, images, chosen),
        "grad_cam": imagexplain.grad_cam(network, images, chosen),
        "occlusion": imagexplain.occlusion(network, images, chosen, size=56, stride=28, fill=black[0], chunk=CHUNK),
    }
    scores = case.scores(torch.cat([black, images]))[:, chosen]
    return {
        "sums": {name: one.sum().item() for name, one in maps.items()},
        "difference": (scores[1] - scores[0]).item(),
    }


def removal() -> Numbers:
    """Falls of the score when segments of the cup are replaced by the baseline, beside what their rows foretell."""
    case, starts = cup(), cup().baselines("uniform")
    labels = case.labels
    groups, count = segments_of(labels), int(labels.max()) + 1
    told = usual().table(groups).attribution[:count]
    score = usual().mean("score")

    def fall(mask: Tensor) -> float:
        """Fall of the score, over the draws, where the mask shows the baseline."""
        return score - case.scores(torch.where(mask, starts, case.image))[:, case.target].mean().item()

    alone = torch.tensor([fall(mask) for mask in groups.masks[:count]], dtype=torch.float64)
    first = told.argsort(descending=True)[:3]
    return {
        "correlation": spearman(told, alone),
        "alone": alone.sum().item(),
        "told": told.sum().item(),
        "difference": score - usual().mean("baseline_score"),
        "three told": told[first].sum().item(),
        "three alone": alone[first].sum().item(),
        "three together": fall(groups.masks[first].any(0)),
        "top": [told[first[0]].item(), alone[first[0]].item()],
        "signs": int((told * alone < 0).sum()),
        "segments": count,
    }


PARTS = (completeness, sizes, blind_spot, residuals, path, baselines, draws, contrast, sums, removal)


def _correlation(first: Tensor, second: Tensor) -> float:
    return torch.corrcoef(torch.stack([first.sum(0).flatten(), second.sum(0).flatten()]))[0, 1].item()
