"""Prompts for a text-to-image model, from a class's kept concepts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

CLASS_ALONE = "a photo of {class_name}"
CLASS_WITH_CONCEPT = "a photo of {class_name} with {concept}"
"""Templates: images of the class whatever is around it, and with what drove its errors, so that both occur together."""


def prompts(concepts: Mapping[str, Sequence[str]]) -> list[str]:
    """Prompts by class: the class alone, then the class with each of its concepts, each prompt once.

    Example:
        >>> from debugging.prompts import prompts
        >>> prompts({"dog": ["snow"]})
        ['a photo of dog', 'a photo of dog with snow']
    """
    found = []
    for class_name, names in concepts.items():
        found.append(CLASS_ALONE.format(class_name=_line(class_name)))
        found += [CLASS_WITH_CONCEPT.format(class_name=_line(class_name), concept=_line(name)) for name in names]
    return list(dict.fromkeys(found))


def _line(words: str) -> str:
    """The words in one line: a prompt is one."""
    return " ".join(words.split())
