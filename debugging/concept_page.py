"""The page on which a person reads the concepts of each class's errors."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path

from debugging.concept import ClassConcepts, Concept, Member
from imagexplain.vision.html_page import document, picture, plural

CROPS = 8
"""Number of example crops of a concept, at most."""

STYLE = """
nav ul { columns: 14rem; padding-left: 1.1rem; margin: .5rem 0; }
.bars { display: grid; grid-template-columns: max-content minmax(6rem, 18rem) max-content; gap: .1rem .7rem;
  align-items: center; font-size: .9rem; margin-top: .5rem; }
.track { height: .55rem; border-radius: .3rem; background: var(--line); overflow: hidden; }
.track span { display: block; height: 100%; background: var(--bar); }
.track .area { background: var(--area); }
"""


def concept_page(classes: Mapping[str, ClassConcepts], results: Path, model: str, edited: str) -> str:
    """The page: a section for each class, its concepts by the score that they carry, each with example crops.

    Args:
        classes: Concepts of each class that has errors.
        results: Folder that the crops' paths begin at.
        model: Name of the model.
        edited: Name of the file in which a person keeps, drops and renames.
    """
    errors = sum(each.errors for each in classes.values())
    contents = "".join(
        f'<li><a href="#class-{number}">{escape(name)}</a> <span class="quiet">({each.errors})</span></li>'
        for number, (name, each) in enumerate(classes.items(), 1)
    )
    sections = "\n".join(
        _section(number, name, each, results) for number, (name, each) in enumerate(classes.items(), 1)
    )
    body = f"""<header>
<h1>What drove the errors of {escape(model)}</h1>
<p>{errors} errors in {len(classes)} classes. Segments that moved the model to the wrong class are grouped into
concepts. A concept that has nothing to do with the class is a shortcut: keep it, and training images
can be chosen against it. Keep, drop and rename in <code>{escape(edited)}</code>.</p>
<p class="quiet">Score: part of the wrong classes' scores that these segments carry, the mean of their attribution and
of what the scores lose when they are replaced. Area: part of the image that they cover on average. Crops show the
segment outlined, the rest faded.</p>
<nav aria-label="Classes"><ul>{contents}</ul></nav>
</header>
<main>
{sections}
</main>"""
    return document(f"Concepts: {model}", STYLE, body)


def _section(number: int, name: str, found: ClassConcepts, results: Path) -> str:
    stability = (
        "" if found.stability is None else f" Clusters agree over five seeds to {found.stability:.2f} (adjusted Rand)."
    )
    without = f" {found.unexplained} without a responsible segment." if found.unexplained else ""
    cards = "\n".join(_card(each, found.share(each), name, results) for each in found.concepts)
    return f"""<section aria-labelledby="class-{number}">
<h2 id="class-{number}">{escape(name)}</h2>
<p class="quiet">{plural(found.errors, "error")} among images of {escape(name)}.{without}{stability}</p>
{cards}
</section>"""


def _card(concept: Concept, share: float, truth: str, results: Path) -> str:
    named = ", ".join(f"{escape(name)} ({times})" for name, times in concept.named[:4])
    shown = concept.members[:CROPS]
    crops = "".join(f"<li>{_figure(member, truth, results)}</li>" for member in shown)
    more = len(concept.members) - len(shown)
    rest = f'<p class="quiet">and {plural(more, "segment")} more</p>' if more else ""
    return f"""<article class="card">
<h3>{escape(concept.name)}</h3>
<p class="quiet">{plural(len(concept.members), "segment")} in {plural(concept.errors, "error")}; named {named}</p>
<div class="bars">{_bar("score", share, "bar")}{_bar("area", concept.area_share, "area")}</div>
<ul class="crops">{crops}</ul>{rest}
</article>"""


def _bar(name: str, share: float, kind: str) -> str:
    return (
        f'<span>{name}</span><span class="track" aria-hidden="true">'
        f'<span class="{kind}" style="width:{share:.1%}"></span></span><span>{share:.0%}</span>'
    )


def _figure(member: Member, truth: str, results: Path) -> str:
    description = f"{member.label} in {member.image}, which is {truth} and was named {member.named}"
    return (
        f"<figure>{picture(results / member.crop, description)}<figcaption>{escape(member.image)}: "
        f"{escape(member.named)} {member.confidence:.0%}, {member.area_share:.0%} of the area</figcaption></figure>"
    )
