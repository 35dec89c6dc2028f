"""Sentences and rows of docs/meaning.md that have numbers, from its record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Record = Mapping[str, Any]
ROWS = ("5", "10", "20", "50", "100")
"""Numbers of gradients in the table of residuals."""


def statements(record: Record) -> dict[str, str]:
    """The sentences and the rows of tables on the page, by names of their own."""
    return {**_scores(record), **_residuals(record), **_groups(record), **_baselines(record), **_maps(record)}


def _scores(record: Record) -> dict[str, str]:
    whole, path = record["completeness"], record["path"]
    sure, logit, half = whole["probability"], path["logit"], path["half"]
    rise = (logit[path["alpha"].index(half)] - logit[0]) / (logit[-1] - logit[0])
    start, left = _number(whole["baseline_score"]), _number(whole["residual"], apart=True)
    return {
        "sure": f"a cup of coffee, which the model calls espresso with a probability of {sure:.0%}",
        "saturated": f"its gradient has the factor $p (1 - p)$, {sure * (1 - sure):.2f} for the cup",
        "half": f"After {half:.0%} of the way from a black photo to the cup {rise:.0%} of the score's rise are done",
        "sum": f"{whole['score']:.2f} = {start} + {whole['attributed']:.2f} {left}",
    }


def _residuals(record: Record) -> dict[str, str]:
    relative, errors = record["residuals"]["relative"], record["residuals"]["errors"]
    black, white = relative["black"], relative["white"]
    agreement = record["baselines"]["correlations"]["black, white"]
    rows = {}
    for count in ROWS:
        worst, correlation, _ = errors[count]
        rows[f"{count} gradients"] = f"| {count} | {_percent(black[count])} | {worst:.1%} | {correlation:.3f} |"
    return {
        **rows,
        "cancels": f"At 20 gradients the residual is {abs(black['20']):.1%} of the difference, and one segment is off "
        f"by {errors['20'][0]:.1%}",
        "uneven": f"from {abs(black['20']):.1%} at 20 to {abs(black['50']):.1%} at 50",
        "two": f"At 100 gradients from black and from white it is {abs(black['100']):.1%} and {abs(white['100']):.1%}, "
        f"and the two order the segments as good as independently (at 50, ρ = {agreement:.2f})",
    }


def _groups(record: Record) -> dict[str, str]:
    found = record["sizes"]
    value = found["value"]
    by_area = {name: found[f"area, {name}"] for name in ("attribution", "directional", "per pixel")}
    rows = {
        f"grid {cells}": f"| {cells} × {cells} | {attribution:.2f} | {directional:.4f} |"
        for cells, (attribution, directional) in found["grids"].items()
    }
    return {
        **rows,
        "areas": f"Over the {found['segments']} superpixels of the cup, |attribution| and area correlate by "
        f"ρ = {by_area['attribution']:.2f}, |directional| and area by {by_area['directional']:.2f}, and attribution "
        f"per pixel by {by_area['per pixel']:.2f}",
        "value": f"The coffee in the cup, {found['area']:.0%} of the input, has a value of "
        f"{value['superpixels']:.0%} among the superpixels, of {value['alone']:.0%} if it is the only segment, "
        f"and of {value['with pixels']:.0%} with every pixel in the family",
    }


def _baselines(record: Record) -> dict[str, str]:
    blind, drawn, found = record["blind_spot"], record["draws"], record["baselines"]
    signs, orders = found["signs"], found["correlations"]
    rows = {
        f"from {name}": f"| {name} | {share['attribution']:.2f} of {share['total']:.2f} | {share['magnitude']:.0%} |"
        for name, share in blind["shares"].items()
    }
    return {
        **rows,
        "dark": f"a black {blind['label']} on {blind['area']:.0%} of the scene, which the network names with a "
        f"probability of {blind['probability']:.0%}",
        "signs": f"Of the {found['segments']} superpixels {signs['black, uniform']} have another sign from black than "
        f"from noise, and {signs['blur, uniform']} from a blurred photo",
        "orders": f"ρ = {orders['black, uniform']:.2f} and {orders['blur, uniform']:.2f}",
        "draws": "From one draw to another, the coffee's attribution is "
        f"{drawn['mean']:.2f} ± {drawn['spread']:.2f}; the order of the segments agrees by ρ = {drawn['one']:.2f} "
        f"between two draws and by {drawn['four']:.2f} between the means of four and of four others",
    }


def _maps(record: Record) -> dict[str, str]:
    two, gone, maps = record["contrast"], record["removal"], record["sums"]
    one, other, difference = two["top"]
    told, alone = gone["top"]
    return {
        **{f"total, {name}": f"| `{name}` | {_number(value)} |" for name, value in maps["sums"].items()},
        "difference": f"The score's difference is {maps['difference']:.2f}",
        "contrast": f"{two['both']} of the {two['segments']} superpixels support both; the coffee has {one:.2f} for "
        f"espresso and {other:.2f} for {two['label']}, hence {difference:.2f} for the one rather than the other",
        "removal": f"The coffee's row says {told:.2f}; replaced by the baseline alone it costs {alone:.2f}",
        "three": f"The first three rows sum to {gone['three told']:.2f}, one by one their segments cost "
        f"{gone['three alone']:.2f}, and together {gone['three together']:.2f}",
        "order": f"In order the rows and the falls agree by ρ = {gone['correlation']:.2f}",
    }


def _number(value: float, apart: bool = False) -> str:
    """A number with two digits, or whole from 1,000 on; its sign may stand apart from it, plus or minus."""
    sign = "\N{MINUS SIGN}" if value < 0 else "+" if apart else ""
    return f"{sign}{' ' if apart else ''}{abs(value):,.{2 if abs(value) < 1000 else 0}f}"


def _percent(value: float) -> str:
    return f"{value:.1%}".replace("-", "\N{MINUS SIGN}")
