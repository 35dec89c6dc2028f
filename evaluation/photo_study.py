"""The studies on photographs: maps of photos, maps of mosaics, and scores of a mosaic's segments by baseline."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from evaluation import metrics
from evaluation.cases import Case
from evaluation.coalition_game import CoalitionGame, leave_one_out
from evaluation.controls import edges, gradients
from evaluation.curves import deletion, flipping, insertion
from evaluation.entries import Entry, maps_of
from evaluation.evaluated_model import EvaluatedModel
from evaluation.faithfulness import infidelity, removals
from evaluation.grid_pointing_game import grid_pointing_game, inner_borders, tile_masks
from evaluation.harness import Part, Result, Row, Study
from evaluation.method_study import SCORED, MethodStudy, group_scores, one_channel
from evaluation.methods import controls, ours
from evaluation.partition import Partition
from evaluation.pointing import pointing_game, relevance_mass_accuracy
from evaluation.randomization import agreement, randomizations
from evaluation.ranks import spearman
from evaluation.remembered import remembered
from evaluation.road import road
from evaluation.saco import GROUPS, rank_groups, saco
from evaluation.shapley import kernel_shap
from imagexplain.attribution.baselines import blurred, image_mean
from imagexplain.attribution.methods.gaussian_shap import gaussian_shap
from imagexplain.attribution.paths.path_integral import points_on
from imagexplain.errors import UnsupportedModelError

BASELINES = ("zero", "black", "mean", "blur", "uniform")
SEGMENT_METHODS = ("ig", "directional", "dividend")
FORWARD_PASSES_PER_GRADIENT = 3
BLUR = 0.1
"""Standard deviation of the blurred baseline, as a part of the shorter side; the service's default."""

SERVED_POINTS = 50
"""Points of the service's path, at whose cost Shapley values are asked once more."""


@dataclass(frozen=True, eq=False)
class PhotoStudy(MethodStudy):
    """Maps of photos of which nobody knows which pixels decide: what the network says as pixels go, and randomization.

    What goes takes the photo's mean colour, as in SaCo's paper: it is no method's own baseline.

    Attributes:
        stages: Number of stages of the network for cascading randomization and randomization by layer.
    """

    stages: int

    def score(self, part: Part) -> Result:
        """Score all entries on a photo, or one entry's max-sensitivity."""
        case, network = self.cases[part.case], self.model.network
        with remembered(network, self.model.chunk):
            if part.alone is not None:
                return super().score(part)
            maps, result = self._maps(case)
        if part.case >= self.randomized:
            return result
        return replace(result, values={**result.values, **self._randomized(case, maps)})

    def _maps(self, case: Case) -> tuple[dict[str, Tensor], Result]:
        superpixels = case.partitions["superpixels"]
        mean = image_mean(case.image)
        game = CoalitionGame(self.model.network, case.image, mean, superpixels.segments, case.label)
        taken = removals(len(superpixels), self.settings.removals, case.generator(3))
        found: dict[str, Tensor] = {}
        values: dict[Row, float] = {}
        refused: dict[str, str] = {}
        for entry in self.entries:
            try:
                maps, cost = self.measured(entry, case)
            except UnsupportedModelError as error:
                refused[entry.name] = str(error)
                continue
            found[entry.name] = maps[0]
            (scores,), (pixels,) = group_scores(entry, maps, case), one_channel(entry, maps)
            groups = rank_groups(pixels, GROUPS)
            by_pixel = CoalitionGame(self.model.network, case.image, mean, groups, case.label)
            order, area = -torch.arange(GROUPS), groups.flatten().bincount(minlength=GROUPS)
            filled = road(
                self.model.network, case.image, case.label, pixels, case.generator(4), shares=self.settings.road
            )
            scored = {
                metrics.INSERTION: insertion(game, scores, superpixels.area).probability,
                metrics.DELETION: deletion(game, scores, superpixels.area).probability,
                metrics.PIXEL_INSERTION: insertion(by_pixel, order, area).probability,
                metrics.PIXEL_DELETION: deletion(by_pixel, order, area).probability,
                metrics.PIXEL_FLIPPING: flipping(by_pixel, order, area).probability,
                metrics.ROAD_MOST: filled.most,
                metrics.ROAD_LEAST: filled.least,
                metrics.ROAD: filled.combined,
                metrics.SACO: saco(by_pixel, pixels, groups),
                metrics.NORMALIZED_INFIDELITY: infidelity(game, scores, taken, scaled=True),
            }
            named = {metric.name: value for metric, value in scored.items()} | cost
            values |= {Row(SCORED, entry.name, name): value for name, value in named.items()}
        return found, Result(values, refused)

    def _randomized(self, case: Case, maps: Mapping[str, Tensor]) -> dict[Row, float]:
        """Mean |ρ| of each map with those of the networks of both tests, of values or magnitudes, whichever is more.

        The whole network's is the test of the other studies: of values, and of magnitudes.
        """
        found: dict[Row, list[float]] = {}
        tests = list(randomizations(self.model.network, self.stages, case.index, self.references))
        for number, (metric, network) in enumerate(tests):
            other = replace(self.model, network=network)
            for entry in self.entries:
                if entry.name not in maps:
                    continue
                try:
                    theirs = maps_of(entry, other, case.image.unsqueeze(0), case, self.references, seed=1)
                except UnsupportedModelError:
                    continue
                kept = agreement(maps[entry.name], theirs[0])
                if not kept:
                    continue
                found.setdefault(Row(SCORED, entry.name, metric), []).append(max(kept.values()))
                if number == self.stages - 1:
                    found |= {Row(SCORED, entry.name, name): [value] for name, value in kept.items()}
        return {row: sum(each) / len(each) for row, each in found.items()}


@dataclass(frozen=True, eq=False)
class MosaicStudy(Study):
    """A study of mosaics, in which all classes of a mosaic are one part: they share the network's evaluations.

    The cases of a mosaic follow one another in the order of its tiles. A row's place is the number of the photo whose
    class is explained, so that means are taken photo by photo.

    Attributes:
        side: Number of tiles along a side.
    """

    side: int

    @property
    def parts(self) -> list[Part]:
        """One for each mosaic."""
        return [Part(number) for number in range(len(self.cases) // self.side**2)]

    def classes(self, part: Part) -> Sequence[Case]:
        """The cases of one mosaic."""
        tiles = self.side**2
        return self.cases[part.case * tiles : (part.case + 1) * tiles]

    def score(self, part: Part) -> Result:
        """Score all entries for all classes of a mosaic."""
        values: dict[Row, float] = {}
        refused: dict[str, str] = {}
        with remembered(self.model.network, self.model.chunk):
            for tile, case in enumerate(self.classes(part)):
                for scored in self.of_class(case, tile):
                    entry, metric, value = scored
                    if isinstance(value, str):
                        refused[entry] = value
                    else:
                        values[Row(str(case.index), entry, metric)] = value
        return Result(values, refused)

    def of_class(self, case: Case, tile: int) -> Iterator[tuple[str, str, float | str]]:
        """Entry, metric and value for one class; a text is the reason why the entry does not support the mosaic."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class GridPointingGame(MosaicStudy):
    """The grid pointing game of maps.

    Attributes:
        entries: Ways to make a map that the model supports.
        references: Images (R, 3, H, W) for expected gradients.
    """

    entries: Sequence[Entry]
    references: Tensor

    MARGIN = 8
    """Distance, in pixels, from an inner border up to which mass may be an artefact of it."""

    def of_class(self, case: Case, tile: int) -> Iterator[tuple[str, str, float | str]]:
        """The share of the class's tile, its pointing game, and the mass at borders between tiles."""
        borders = inner_borders(self.model.preprocess.size, self.side, self.MARGIN)
        for entry in self.entries:
            try:
                maps = maps_of(entry, self.model, case.image.unsqueeze(0), case, self.references, seed=tile)
            except UnsupportedModelError as error:
                yield entry.name, "", str(error)
                continue
            (values,) = one_channel(entry, maps)
            yield entry.name, metrics.GRID_POINTING_GAME.name, float(grid_pointing_game(values, self.side)[tile])
            pixels = values.flatten()
            yield entry.name, metrics.POINTING_GAME.name, pointing_game(pixels, case.deciding.flatten().double())
            if (values > 0).any():
                near = relevance_mass_accuracy(pixels, borders.flatten())
                yield entry.name, metrics.BORDER_MASS.name, near / borders.double().mean().item()


@dataclass(frozen=True, eq=False)
class SegmentGame(MosaicStudy):
    """The game of segments: does the top segment of a class lie in its tile, from each baseline?

    The rows' entries are ``method`` for what has no baseline, and ``method, baseline``. The reference of rank
    correlations is what leaving each segment out costs, the mean over all baselines, which favours none of them.
    """

    def of_class(self, case: Case, tile: int) -> Iterator[tuple[str, str, float | str]]:
        """Hit, mass and rank correlation of every method from every baseline."""
        model, groups = self.model, case.partitions["superpixels"]
        tables: dict[str, Tensor] = {}
        effects: dict[str, Tensor] = {}
        for name in BASELINES:
            starts = _starts(model, case, name, self.settings.draws)
            paths = model.explain(case.image.expand_as(starts), starts, case.label)
            attribution = torch.stack([path.attribution for path in paths])
            difference = torch.stack([path.difference for path in paths])
            own = ours(attribution, difference, groups)
            tables |= {f"{method}, {name}": own[method] for method in SEGMENT_METHODS}
            tables[f"Δ², {name}"] = groups.sums(difference.double().square().sum(1).mean(0))
            game = CoalitionGame(model.network, case.image, starts[0], groups.segments, case.label)
            effects[name] = tables[f"leave-one-out, {name}"] = leave_one_out(game)
            points = {"": points_on(model.rule)}
            if name == model.baseline:
                points[f" at {SERVED_POINTS} points' cost"] = SERVED_POINTS
            for words, equal in points.items():
                samples = FORWARD_PASSES_PER_GRADIENT * equal
                tables[f"KernelShap{words}, {name}"] = kernel_shap(
                    model.network, case.image, starts[0], groups.segments, case.label, samples, seed=0
                )
                tables[f"gaussian_shap{words}, {name}"] = _gaussian_shap(model, case, starts[0], groups, samples)
        local = gradients(model.network, case.image.unsqueeze(0), case.label)
        maps = {"edges": edges(case.photo), **{name: values[0] for name, values in local.items()}}
        tables |= controls(maps, groups, case.generator(4 + tile))
        reference = torch.stack(list(effects.values())).mean(0)
        for method, scores in tables.items():
            yield method, metrics.POINTING_GAME.name, pointing_game(scores, groups.inside)
            yield method, metrics.RELEVANCE_MASS.name, relevance_mass_accuracy(scores, groups.inside)
            yield method, metrics.RANK_CORRELATION.name, spearman(scores, reference)


def _gaussian_shap(model: EvaluatedModel, case: Case, start: Tensor, groups: Partition, samples: int) -> Tensor:
    """(G,) float64 values of the service's method."""
    found = gaussian_shap(
        model.network, case.image[None], case.label, groups=groups.segments, baselines=start, samples=samples
    )
    return groups.sums(found[0, 0]) / groups.area


def _starts(model: EvaluatedModel, case: Case, name: str, draws: int) -> Tensor:
    """(D, 3, H, W) baselines of that name; one but for ``uniform``."""
    if name == "uniform":
        return model.noise(draws, seed=case.index)
    if name in ("mean", "blur"):
        sigma = BLUR * min(model.preprocess.size)
        return (image_mean(case.image) if name == "mean" else blurred(case.image, sigma)).unsqueeze(0)
    return model.start(name).unsqueeze(0)


@torch.no_grad()
def knowledge(model: EvaluatedModel, cases: Sequence[Case], side: int) -> list[dict[str, float]]:
    """The network's answers to one mosaic, for each of its classes: the game's own premises, tested.

    Returns:
        ``probability`` of the class in the mosaic; ``rank`` of its score, 1 for the highest; ``decides``: 1 where
        blotting out its own tile with the mosaic's mean colour costs the class's score more than any other tile's.
    """
    whole = cases[0].image
    masks = tile_masks(model.preprocess.size, side)
    blotted = torch.where(masks.unsqueeze(1), image_mean(whole), whole)
    (scores, *without) = (model.network(image.unsqueeze(0))[0] for image in (whole, *blotted))
    drops = scores - torch.stack(without)  # (n², classes)
    return [
        {
            "probability": float(scores.softmax(0)[case.label]),
            "rank": float((scores > scores[case.label]).sum() + 1),
            "decides": float(drops[:, case.label].argmax() == tile),
        }
        for tile, case in enumerate(cases)
    ]


def by_photo(results: Iterable[Result]) -> list[Result]:
    """One result for each photo: the means over the mosaics in which its class was explained.

    Mosaics share photos, and two of one photo are no two pieces of evidence: intervals are drawn over photos.
    """
    found: dict[str, dict[tuple[str, str], list[float]]] = {}
    for result in results:
        for row, value in result.values.items():
            found.setdefault(row.scored, {}).setdefault((row.entry, row.metric), []).append(value)
    return [
        Result({Row(SCORED, *place): sum(values) / len(values) for place, values in rows.items()})
        for rows in found.values()
    ]
