"""The page on which a person reads what fine-tuning changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from debugging.debug_sets import NONE, ORIGINAL
from debugging.images import ImageFolder, read_photo
from imagexplain.vision.html_page import document, embedded, plural

STYLE = """
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .95rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .9rem 0 .3rem; }
th, td { text-align: left; padding: .35rem 1.1rem .35rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
thead th { font-size: .85rem; font-weight: 600; color: var(--quiet); vertical-align: bottom; }
tbody th { font-weight: 600; }
td .quiet { font-size: .85rem; margin-left: .4rem; }
.axis { position: relative; display: block; width: 12rem; height: 1rem; background: var(--line); border-radius: .3rem; }
.axis span { position: absolute; top: 0; height: 100%; border-radius: .3rem; }
.axis .interval { background: var(--area); opacity: .75; }
.axis .mean { width: 3px; margin-left: -1.5px; background: var(--bar); border-radius: 0; }
.share { display: inline-block; width: 5rem; height: .6rem; margin-right: .5rem; background: var(--line);
  border-radius: .3rem; overflow: hidden; }
.share span { display: block; height: 100%; background: var(--bar); }
.share .area { background: var(--area); }
.clear { color: var(--accent); font-weight: 600; }
"""

MEASURES = {"drive": "of the drive", "directional": "of the directional gradient"}


def report_page(
    content: Mapping[str, Any],
    entries: Mapping[str, Mapping[str, Mapping[str, Any]]],
    folder: ImageFolder,
    examples: int,
) -> str:
    """The page: accuracies with intervals, the segments that scores come from, and errors fixed and made.

    Args:
        content: Content of ``report.json``.
        entries: Records of each model's answers, by image.
        folder: Folder of the images.
        examples: Number of pictures of each kind, at most.
    """
    models = content["models"]
    title = f"What fine-tuning changed: {content['addresses'][ORIGINAL]}"
    skipped = f" {plural(len(content['skipped']), 'image')} could not be read." if content["skipped"] else ""
    unmarked = f" {plural(content['unmarked'], 'image')} in neither part." if content["unmarked"] else ""
    subsets = list(models[ORIGINAL]["accuracy"])
    tables = "\n".join(_accuracies(subset, models) for subset in subsets)
    runs = "\n".join(
        _run(number, name, content["addresses"][name], found, entries, folder, examples)
        for number, (name, found) in enumerate(models.items())
        if name != ORIGINAL
    )
    body = f"""<header>
<h1>{escape(title)}</h1>
<p>The original and {plural(len(models) - 1, "model")} that began with its weights, on
{plural(content["images"], "image")} that none of them has seen. <code>{NONE}</code> was trained on as many images as
the others, but on no debug set: what a set did is the difference to it.{skipped}{unmarked}</p>
<p class="quiet">Intervals of {content["confidence"]:.0%} by {content["resamples"]} resamples of the images, differences
on the same images. A difference in colour has an interval without 0. Points are percentage points.</p>
</header>
<main>
<section aria-labelledby="accuracy"><h2 id="accuracy">Accuracy</h2>
{tables}
</section>
{_sources(content)}
{runs}
</main>"""
    return document(title, STYLE, body)


def _accuracies(subset: str, models: Mapping[str, Any]) -> str:
    counted = models[ORIGINAL]["accuracy"][subset]["accuracy"]
    name = "All images" if subset == "all" else f"Images where the {subset}"
    if counted is None:
        return f"<p>{name}: there is none.</p>"
    rows = "\n".join(_accuracy(model, found, found["accuracy"][subset]) for model, found in models.items())
    return f"""<div class="scroll" role="region" aria-label="Accuracy: {name}" tabindex="0"><table>
<caption>{name} <span class="quiet">({counted["images"]})</span></caption>
<thead><tr><th scope="col">model</th><th scope="col">0 … 100 %</th><th scope="col">accuracy</th>
<th scope="col">points to {NONE}</th><th scope="col">points to the original</th></tr></thead>
<tbody>
{rows}
</tbody></table></div>"""


def _accuracy(model: str, found: Mapping[str, Any], numbers: Mapping[str, Any]) -> str:
    own = numbers["accuracy"]
    axis = (
        '<span class="axis" aria-hidden="true">'
        f'<span class="interval" style="left:{own["low"]:.2%};width:{own["high"] - own["low"]:.2%}"></span>'
        f'<span class="mean" style="left:{own["value"]:.2%}"></span></span>'
    )
    to_none = "" if model == ORIGINAL else _points(numbers["to_none"])
    return (
        f'<tr><th scope="row">{escape(model)}</th><td>{axis}</td><td>{own["value"]:.1%}'
        f'<span class="quiet">{own["low"]:.1%} … {own["high"]:.1%}</span></td><td>{to_none}</td>'
        f"<td>{_points(numbers['to_original'])}</td></tr>"
    )


def _points(estimate: Mapping[str, float] | None) -> str:
    if estimate is None:
        return ""
    value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
    kind = ' class="clear"' if low > 0 or high < 0 else ""
    return f'<span{kind}>{_signed(value)}</span><span class="quiet">{_signed(low)} … {_signed(high)}</span>'


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def _sources(content: Mapping[str, Any]) -> str:
    models = content["models"]
    labels = sorted({label for found in models.values() for label in found["segments"]})
    if not labels:
        return ""
    tables = "\n".join(_source(measure, words, labels, models) for measure, words in MEASURES.items())
    return f"""<section aria-labelledby="sources"><h2 id="sources">Where the score of the named class comes from</h2>
<p>Mean part that each kind of segment carries of what speaks for the class that the model names, over
{plural(content["explained"], "image")}, beside its part of the area. A part that grows on the object and shrinks on the
background says that the model looks elsewhere now. Drive: fall of the score when the segment alone is replaced, by the
root of its area.</p>
{tables}
</section>"""


def _source(measure: str, words: str, labels: Sequence[str], models: Mapping[str, Any]) -> str:
    heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in models)
    rows = []
    for label in labels:
        area = models[ORIGINAL]["segments"].get(label, {}).get("area", {}).get("share")
        cells = "".join(
            _share_cell(name, found["segments"].get(label, {}).get(measure)) for name, found in models.items()
        )
        rows.append(f'<tr><th scope="row">{escape(label)}</th><td>{_share(area, "area")}</td>{cells}</tr>')
    body = "\n".join(rows)
    return f"""<div class="scroll" role="region" aria-label="Part {words}" tabindex="0"><table>
<caption>Part {words} <span class="quiet">(points to {NONE})</span></caption>
<thead><tr><th scope="col">segment</th><th scope="col">area</th>{heads}</tr></thead>
<tbody>
{body}
</tbody></table></div>"""


def _share_cell(model: str, numbers: Mapping[str, Any] | None) -> str:
    if numbers is None:
        return "<td></td>"
    to_none = numbers.get("to_none")
    moved = ""
    if model not in (ORIGINAL, NONE) and to_none is not None:
        kind = "clear" if to_none["low"] > 0 or to_none["high"] < 0 else "quiet"
        moved = f' <span class="{kind}">{_signed(100 * to_none["value"])}</span>'
    return f"<td>{_share(numbers['share'], 'bar')}{moved}</td>"


def _share(estimate: Mapping[str, float] | None, kind: str) -> str:
    if estimate is None:
        return "–"
    filled = f'<span class="{kind}" style="width:{estimate["value"]:.1%}"></span>'
    return f'<span class="share" aria-hidden="true">{filled}</span>{estimate["value"]:.0%}'


def _run(
    number: int,
    name: str,
    address: str,
    found: Mapping[str, Any],
    entries: Mapping[str, Mapping[str, Mapping[str, Any]]],
    folder: ImageFolder,
    examples: int,
) -> str:
    fixed, made, to_none = found["fixed"], found["made"], found["to_none"]
    against = "" if name == NONE else f" To {NONE}: {to_none['fixed']} fixed, {to_none['made']} made."
    cards = "\n".join(
        _examples(title, images, entries[ORIGINAL], entries[name], folder, examples)
        for title, images in (("Fixed", fixed), ("Made", made))
    )
    changed = f"{plural(len(fixed), 'error')} fixed, {len(made)} made."
    return f"""<section aria-labelledby="run-{number}">
<h2 id="run-{number}">{escape(name)}</h2>
<p class="quiet">{escape(address)}. To the original: {changed}{against}</p>
{cards}
</section>"""


def _examples(
    title: str,
    images: Sequence[str],
    before: Mapping[str, Mapping[str, Any]],
    after: Mapping[str, Mapping[str, Any]],
    folder: ImageFolder,
    examples: int,
) -> str:
    if not images:
        return ""
    shown = images[:examples]
    figures = "".join(f"<li>{_figure(image, before[image], after[image], folder)}</li>" for image in shown)
    more = len(images) - len(shown)
    rest = f'<p class="quiet">and {more} more</p>' if more else ""
    return f"""<article class="card">
<h3>{title} <span class="quiet">({len(images)})</span></h3>
<ul class="crops">{figures}</ul>{rest}
</article>"""


def _figure(image: str, before: Mapping[str, Any], after: Mapping[str, Any], folder: ImageFolder) -> str:
    said = f"{before['named']} {before['confidence']:.0%} → {after['named']} {after['confidence']:.0%}"
    shown = embedded(read_photo(folder.file(image)).image, f"{image}, which is {before['truth']}: {said}")
    return f"<figure>{shown}<figcaption>{escape(image)}: {escape(said)}</figcaption></figure>"
