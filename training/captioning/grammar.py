"""Grammar of the captions of named scenes: statements become words in several wordings, and words statements again.

    caption  := ["there is"] clause ("and" clause)*
    clause   := mention | mention relation mention
    mention  := ("a" | "an") [[[size] texture] colour] shape    the first time
              | "the" shape                                      every further time

It is closed: what it does not derive is no caption. "The" shape is the only one of its shape in the caption, and occurs
only where a relation is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from imagexplain.errors import ArgumentError
from imagexplain.vision.scene_graph import SceneGraph
from training.captioning.named_scenes import NamedScene
from training.captioning.names import (
    ABOVE,
    BELOW,
    BIGGER,
    COLOURS,
    LEFT,
    RIGHT,
    SAME_COLOUR,
    SHAPES,
    SMALLER,
    TEXTURES,
)
from training.captioning.statements import Clause, Mention, Statements, statements_of

MOST_WORDS = 23
"""Largest number of words: with the signs of begin and end 25 ids."""

NAMING = ("shape", "colour", "texture", "size", "relation")
"""Kinds of words that name something."""

_OPENING = ("there", "is")
_GRAMMATICAL = frozenset(("is", "has", "the", "of", "to", "on", "as", "than"))
"""Words of relations that name nothing by themselves."""


@dataclass(frozen=True)
class Wording:
    """A way to say statements.

    Attributes:
        relations: Words of each relation.
        sizes: Word of each size.
        opening: Words at the beginning.
    """

    relations: Mapping[str, str]
    sizes: Mapping[str, str]
    opening: tuple[str, ...] = ()


WORDINGS: tuple[Wording, ...] = (
    Wording(
        {
            SAME_COLOUR: "is the same colour as",
            BIGGER: "is bigger than",
            SMALLER: "is smaller than",
            LEFT: "is left of",
            RIGHT: "is right of",
            ABOVE: "is above",
            BELOW: "is below",
        },
        {"small": "small", "large": "large"},
    ),
    Wording(
        {
            SAME_COLOUR: "of the same colour as",
            BIGGER: "bigger than",
            SMALLER: "smaller than",
            LEFT: "to the left of",
            RIGHT: "to the right of",
            ABOVE: "above",
            BELOW: "below",
        },
        {"small": "little", "large": "big"},
        _OPENING,
    ),
    Wording(
        {
            SAME_COLOUR: "has the colour of",
            BIGGER: "is larger than",
            SMALLER: "is smaller than",
            LEFT: "is on the left of",
            RIGHT: "is on the right of",
            ABOVE: "is over",
            BELOW: "is under",
        },
        {"small": "small", "large": "big"},
    ),
)
"""The wordings; the first is what a captioner is taught, all are references."""


@dataclass(frozen=True)
class NamingWord:
    """A word of a caption that names an object, one of its attributes, or a relation.

    Attributes:
        place: Place among the caption's words.
        kind: One of :data:`NAMING`.
        mentions: Places among the caption's objects: of the one that it is said of, or of subject and object.
    """

    place: int
    kind: str
    mentions: tuple[int, ...]


_PHRASES: Mapping[tuple[str, ...], str] = {
    tuple(words.split()): name for wording in WORDINGS for name, words in wording.relations.items()
}
_SIZE_WORDS: Mapping[str, str] = {word: name for wording in WORDINGS for name, word in wording.sizes.items()}


def captions_of(scene: NamedScene, graph: SceneGraph) -> tuple[str, ...]:
    """The captions of a graph of a scene, one of each wording.

    Raises:
        ArgumentError: a graph that has no statements, or statements that the grammar has no caption for.
    """
    statements = statements_of(scene, graph)
    return tuple(say(statements, wording) for wording in WORDINGS)


def say(statements: Statements, wording: Wording = WORDINGS[0]) -> str:
    """The caption with those statements.

    Raises:
        ArgumentError: it has more than 23 words, or an object in several relations is not the only one of its shape.

    Example:
        >>> from training.captioning.grammar import say
        >>> from training.captioning.statements import Clause, Mention, Statements
        >>> objects = Mention("star", ("orange",)), Mention("ring", ("red", "plain", "large"))
        >>> say(Statements(objects, (Clause(0, "left of", 1),)))
        'an orange star is left of a large plain red ring'
    """
    words = list(wording.opening)
    shapes = [mention.shape for mention in statements.objects]
    introduced: set[int] = set()

    def mention(place: int) -> list[str]:
        one = statements.objects[place]
        if place not in introduced:
            introduced.add(place)
            named = [*(wording.sizes.get(name, name) for name in reversed(one.attributes)), one.shape]
            return [_article(named[0]), *named]
        if shapes.count(one.shape) > 1:
            raise ArgumentError("statements", f"wanted one {one.shape} to refer to, got {shapes.count(one.shape)}")
        return ["the", one.shape]

    for number, clause in enumerate(statements.clauses):
        words += ["and"] if number else []
        words += mention(clause.subject)
        if clause.other is not None:
            words += [*wording.relations[clause.relation].split(), *mention(clause.other)]
    if len(words) > MOST_WORDS:
        raise ArgumentError("statements", f"wanted a caption of at most {MOST_WORDS} words, got {len(words)}")
    return " ".join(words)


def parse(caption: str) -> Statements | None:
    """The statements of a caption in any wording, or in several at once; None for what is no caption of the grammar.

    Example:
        >>> from training.captioning.grammar import parse
        >>> parse("a star is above a red ring").related
        ((0, 'above', 1),)
        >>> parse("a star red above") is None
        True
    """
    reader = _read(caption)
    return None if reader is None else reader.statements()


def naming_words(caption: str) -> tuple[NamingWord, ...]:
    """The words of a caption that name something, in their order; none of what is no caption of the grammar.

    Example:
        >>> from training.captioning.grammar import naming_words
        >>> [(word.place, word.kind, word.mentions) for word in naming_words("a star is above a red ring")]
        [(1, 'shape', (0,)), (3, 'relation', (0, 1)), (5, 'colour', (1,)), (6, 'shape', (1,))]
    """
    reader = _read(caption)
    return () if reader is None else tuple(sorted(reader.naming, key=lambda word: word.place))


def _read(caption: str) -> _Reader | None:
    """A reader that has come to the end of a caption; None where it cannot."""
    reader = _Reader(caption.split())
    if tuple(reader.rest[:2]) == _OPENING:
        del reader.rest[:2]
    try:
        reader.clause()
        while reader.rest:
            reader.word("and")
            reader.clause()
    except _NoCaptionError:
        return None
    return reader


class _NoCaptionError(ValueError):
    """Words that the grammar does not derive."""


class _Reader:
    """A caption on its way into statements."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self.rest = list(words)
        self.naming: list[NamingWord] = []
        self.objects: list[Mention] = []
        self.clauses: list[Clause] = []
        self.referred: set[int] = set()

    @property
    def place(self) -> int:
        """Place of the next word."""
        return len(self.words) - len(self.rest)

    def statements(self) -> Statements | None:
        """All that was read; None where it refers to one of several."""
        shapes = [one.shape for one in self.objects]
        if any(shapes.count(shapes[place]) > 1 for place in self.referred):
            return None
        return Statements(tuple(self.objects), tuple(self.clauses))

    def clause(self) -> None:
        definite = self.rest[:1] == ["the"]
        subject = self.mention()
        start = self.place
        relation = self.relation()
        if relation is None:
            if definite:
                raise _NoCaptionError
            self.clauses.append(Clause(subject))
        else:
            end = self.place
            other = self.mention()
            self.clauses.append(Clause(subject, relation, other))
            told = (place for place in range(start, end) if self.words[place] not in _GRAMMATICAL)
            self.naming += [NamingWord(place, "relation", (subject, other)) for place in told]

    def relation(self) -> str | None:
        for words, name in _PHRASES.items():
            if tuple(self.rest[: len(words)]) == words:
                del self.rest[: len(words)]
                return name
        return None

    def mention(self) -> int:
        article = self.next()
        if article == "the":
            shape = self.next()
            found = [place for place, one in enumerate(self.objects) if one.shape == shape]
            if len(found) != 1:
                raise _NoCaptionError
            self.referred.add(found[0])
            self.naming.append(NamingWord(self.place - 1, "shape", (found[0],)))
            return found[0]
        if not self.rest or article != _article(self.rest[0]):
            raise _NoCaptionError
        named: list[str] = []
        while (word := self.next()) not in SHAPES:
            named.append(word)
        self.objects.append(Mention(word, _attributes(named)))
        number, last = len(self.objects) - 1, self.place - 1
        for before, kind in enumerate(NAMING[: len(named) + 1]):  # from the shape backwards
            self.naming.append(NamingWord(last - before, kind, (number,)))
        return number

    def word(self, wanted: str) -> None:
        if self.next() != wanted:
            raise _NoCaptionError

    def next(self) -> str:
        if not self.rest:
            raise _NoCaptionError
        return self.rest.pop(0)


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _attributes(words: Sequence[str]) -> tuple[str, ...]:
    """Colour, texture and size of the words before a shape, as many as there are."""
    kinds = [{name: name for name in COLOURS}, {name: name for name in TEXTURES}, _SIZE_WORDS]
    named = list(reversed(words))
    if len(named) > len(kinds) or any(word not in kind for word, kind in zip(named, kinds, strict=False)):
        raise _NoCaptionError
    return tuple(kind[word] for word, kind in zip(named, kinds, strict=False))
