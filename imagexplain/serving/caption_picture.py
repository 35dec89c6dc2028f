"""The picture of an explained caption: the photo with the region that decided each word."""

from __future__ import annotations

from PIL import Image, ImageDraw

from imagexplain.api.options import PictureOptions
from imagexplain.models.captioners.vocabulary import Vocabulary
from imagexplain.serving.caption_results import Region, regions_of, scores_of
from imagexplain.serving.word_attribution import WordAttributions, WordsToExplain, label_of
from imagexplain.vision.figure import PAPER, Caption, Row, em_of, figure, magnification, magnified, number
from imagexplain.vision.instance_overlay import colour
from imagexplain.vision.lettering import drawable
from imagexplain.vision.marks import Mark, numbered
from imagexplain.vision.scene_graph import Box


def render(
    photo: Image.Image,
    words: WordsToExplain,
    found: WordAttributions,
    vocabulary: Vocabulary,
    model: str,
    asked: PictureOptions,
) -> Image.Image:
    """The photo with the deciding regions outlined, and a legend of the words, each with its region.

    A region is a box, whose nodes count together; the one that decided a word has the largest attribution. Words whose
    largest attribution is the photo's global feature have no region, and words of one region share its colour.

    Args:
        photo: Upright RGB photo; not changed.
        words: Words of the caption.
        found: Their explanations.
        vocabulary: Words by number.
        model: Name of the model.
        asked: Title and legend around the photo, or the photo alone.
    """
    factor = magnification(photo.size) if asked.annotated else 1
    panel = magnified(photo, factor)
    panel = panel.copy() if panel is photo else panel
    deciding: dict[Box, int] = {}
    rows: list[Row] = []
    for position, one in zip(words.positions, found.features, strict=True):
        table = scores_of(words, one)
        attributions = table.attribution.nan_to_num(0, 0, 0).tolist()
        region, rest = regions_of(words.graph, attributions)[0], attributions[len(words.graph.boxes)]
        total = abs(one.score - one.baseline_score)
        word = drawable(vocabulary.words[words.caption.words[position]])
        if rest > region.attribution:
            rows.append(Row(f"{word} ← the whole photo", _values(rest, total), None))
            continue
        rank = deciding.setdefault(region.box, len(deciding))
        rows.append(Row(f"{word} ← {_name(words, region)}", _values(region.attribution, total), colour(rank), rank + 1))
    thickness = max(1, round(em_of(panel.size) / 5))
    draw = ImageDraw.Draw(panel)
    for box, rank in sorted(deciding.items(), key=lambda pair: -pair[0].width * pair[0].height):
        corners = [round(side * factor) for side in box.corners]
        right, bottom = max(corners[0], corners[2] - 1), max(corners[1], corners[3] - 1)
        draw.rectangle((corners[0], corners[1], right, bottom), outline=colour(rank), width=thickness)
        inner = (corners[0] + thickness, corners[1] + thickness, right - thickness, bottom - thickness)
        if inner[2] > inner[0] and inner[3] > inner[1] and thickness > 1:
            draw.rectangle(inner, outline=PAPER)
    caption = Caption(
        drawable(vocabulary.caption(words.caption.words)),
        (
            f"{'own' if words.own else 'given'} caption, mean log-probability "
            f"{number(words.caption.mean_log_probability, signed=False)} a word",
            f"{drawable(model)}: integrated gradients of each word's {words.kind.replace('_', '-')} to the features",
        ),
        legend=tuple(rows),
        notes=("each word ← the region with the largest attribution; %: part of the word's score difference",),
    )
    if asked.annotated:
        em = em_of(panel.size)
        marks = [_mark(box, rank + 1, factor, em) for box, rank in deciding.items()]
        numbered(panel, marks, em)
    return figure(panel, caption, photo.size, factor if asked.annotated else None)


def _mark(box: Box, rank: int, factor: int, em: int) -> Mark:
    """The number of a region, in its upper left corner: middles of nested boxes may coincide."""
    half = min(0.8 * em, box.width * factor / 2), min(0.8 * em, box.height * factor / 2)
    return Mark(rank, box.x * factor + half[0], box.y * factor + half[1], em)


def _name(words: WordsToExplain, region: Region) -> str:
    return drawable(", ".join(label_of(words.graph.layout.nodes[index]) for index in region.nodes))


def _values(attribution: float, total: float) -> tuple[str, str]:
    share = f"{attribution / total:+,.0%}".replace("-", "−") if total > 0 else "–"
    return number(attribution), share
