"""Formulas between dollar signs as MathML, which browsers draw by themselves."""

from __future__ import annotations

import html
import re
from xml.etree import ElementTree

from latex2mathml.converter import convert

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def drawn(page: str) -> str:
    """HTML with MathML in the place of what the extension arithmatex marked as LaTeX.

    Raises:
        ValueError: a formula that cannot be read.
    """
    return _FORMULA.sub(_mathml, page)


def _mathml(found: re.Match[str]) -> str:
    latex = html.unescape(found[3]).strip()
    try:
        formula = convert(latex, display="block" if found[2] == "[" else "inline")
        ElementTree.fromstring(formula)
    except Exception as error:
        raise ValueError(f"formula: wanted LaTeX that latex2mathml reads, got {latex!r}: {error!r}") from None
    if "\\" in formula:  # a command that it does not know stays in the text
        raise ValueError(f"formula: wanted commands that latex2mathml knows, got {latex!r}")
    return f'<div class="formula">{formula}</div>' if found[2] == "[" else formula
