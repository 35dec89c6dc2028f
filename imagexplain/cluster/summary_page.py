"""A job's summary as one HTML page, which needs no other file, and as a CSV table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from PIL import Image
from safetensors.torch import load_file

from imagexplain.cluster.inputs import Item, read
from imagexplain.cluster.summary import ClassSummary, Row, SegmentSummary, Summary
from imagexplain.errors import RequestError
from imagexplain.limits import Limits
from imagexplain.vision.decode import decode
from imagexplain.vision.heatmap import overlay
from imagexplain.vision.html_page import document, embedded, plural

SEGMENTS = 12
"""Number of labels of segments that the page lists for a class, at most; the CSV has all."""

CLASSES = 20
"""Number of classes whose segments and images the page shows, at most; the CSV has all."""

MAPS = ("integrated_grads", "map")
"""Names of the tensor that is drawn: of a path, and of any other method."""

COLUMNS = ("class", "images", "segment", "images_with_it", "share", "signed_share", "dividend", "largest_in")

STYLE = """
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; }
.wide { overflow-x: auto; }
meter { width: 9rem; }
"""


def page(summary: Summary, out: Path, title: str) -> str:
    """The page.

    Args:
        summary: Numbers of the job.
        out: Folder of the job, in which the maps are.
        title: Heading.
    """
    refused = sum(times for _, times in summary.errors)
    parts = [f"<h1>{escape(title)}</h1>", f"<p>{plural(summary.images, 'image')}, {refused} of them refused.</p>"]
    if summary.errors:
        rows = [(escape(message), str(times)) for message, times in summary.errors[:SEGMENTS]]
        parts.append(_table(("refused because", "images"), rows))
    if not summary.classes:
        parts.append("<p>No image was explained.</p>")
        return document(title, STYLE, "\n".join(parts))
    parts.append(_classes(summary.classes))
    parts += [_class(one, out) for one in summary.classes[:CLASSES]]
    if len(summary.classes) > CLASSES:
        parts.append(f"<p class=quiet>{plural(len(summary.classes) - CLASSES, 'more class')}: see the CSV table.</p>")
    if summary.unstable:
        parts.append("<h2>How sure the numbers are</h2>")
        parts.append(
            "<p>The relative residual is what the path's points missed of a score's difference from the baseline's. "
            "Where it is large, ask again with more steps.</p>"
        )
        parts.append(_images("The largest residuals", summary.unstable, out, "{:.1%}"))
        parts.append(_images("The smallest", summary.stable, out, "{:.2%}"))
    return document(title, STYLE, "\n".join(parts))


def table(summary: Summary) -> str:
    """The CSV table, a row for each class and label of segments; one for a class without segments."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for one in summary.classes:
        if not one.segments:
            writer.writerow((one.label, one.images, *[""] * (len(COLUMNS) - 2)))
        for own in one.segments:
            numbers = (own.images, own.share, own.signed, own.dividend, own.largest)
            writer.writerow((one.label, one.images, own.label, *("" if each is None else each for each in numbers)))
    return text.getvalue()


def _classes(classes: Sequence[ClassSummary]) -> str:
    rows = [
        (
            escape(one.label),
            str(one.images),
            f"{one.score:.3g}",
            "–" if one.residual is None else f"{one.residual:.1%}",
            "–" if one.on_object is None else f"{one.on_object:.0%}",
        )
        for one in classes
    ]
    return _table(("explained class", "images", "mean score", "median residual", "share on its own segments"), rows)


def _class(one: ClassSummary, out: Path) -> str:
    parts = [f"<h2>{escape(one.label)}</h2>"]
    if one.segments:
        parts.append(f"<p>Which segments carry the score, over {plural(one.images, 'image')}:</p>")
        parts.append(_segments(one.segments))
        parts.append(_images("One segment carries the most", one.most, out, "{:.0%}"))
        shown = {row["id"] for _, row in one.most}
        if least := [(share, row) for share, row in one.least if row["id"] not in shown]:
            parts.append(_images("The least", least, out, "{:.0%}"))
    else:
        parts.append("<p>The explanations have no groups: ask for segments to see which carry the score.</p>")
    return "\n".join(parts)


def _segments(segments: Sequence[SegmentSummary]) -> str:
    rows = [
        (
            escape(own.label),
            f'<meter min="0" max="1" value="{own.share:.4f}">{own.share:.0%}</meter> {own.share:.0%}',
            "–" if own.signed is None else f"{own.signed:+.0%}",
            "–" if own.dividend is None else f"{own.dividend:.0%}",
            str(own.images),
            str(own.largest),
        )
        for own in segments[:SEGMENTS]
    ]
    head = ("segment", "share of |attribution|", "signed part of the score", "dividend", "images", "largest in")
    more = len(segments) - SEGMENTS
    return _table(head, rows) + (f"<p class=quiet>and {more} more labels</p>" if more > 0 else "")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def cells(values: Sequence[str], tag: str) -> str:
        first, *others = values
        scope = ' scope="col"' if tag == "th" else ""
        return f"<{tag}{scope}>{first}</{tag}>" + "".join(
            f'<{tag} class="number"{scope}>{each}</{tag}>' for each in others
        )

    lines = [f"<tr>{cells(row, 'td')}</tr>" for row in rows]
    return f'<div class="wide"><table><tr>{cells(head, "th")}</tr>\n' + "\n".join(lines) + "</table></div>"


def _images(heading: str, rows: Sequence[tuple[float, Row]], out: Path, form: str) -> str:
    figures = []
    for value, row in rows:
        name = Path(row["id"]).name
        caption = f"{escape(name)}: {form.format(value)}; predicted {escape(str(row['prediction']))}"
        shown = thumbnail(row, out)
        drawn = "" if shown is None else embedded(shown, f"{name}, explained for {row['target']}")
        figures.append(f"<li><figure>{drawn}<figcaption>{caption}</figcaption></figure></li>")
    return f'<h3>{escape(heading)}</h3>\n<ul class="crops">{"".join(figures)}</ul>'


def thumbnail(row: Row, out: Path) -> Image.Image | None:
    """The part of a row's photo that the model saw, under its heat map where the job kept maps and they are there.

    None where the photo cannot be read any more.
    """
    item = Item(row["id"], row["path"], row["offset"], row["size"], row["row_group"], row["column"])
    (photo,) = read([item], Limits().max_bytes)
    if isinstance(photo, OSError):
        return None
    try:
        upright = decode(photo, Limits()).image
    except RequestError:
        return None
    seen = upright.convert("RGB").crop(tuple(round(edge) for edge in row["frame"]))
    if row["maps"] is None or not (out / row["maps"]).is_file():
        return seen
    kept = load_file(out / row["maps"])
    seen.thumbnail((512, 512))
    return overlay(seen, next(kept[name] for name in MAPS if name in kept))
