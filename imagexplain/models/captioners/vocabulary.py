"""Words of a captioner by number, read from the files in which they are kept, and captions as numbers and back.

Source: asg2cap's files (https://github.com/cshizhe/asg2cap): ``int2word.npy`` holds the words in the order of their
numbers, ``word2int.json`` the number of each word.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from imagexplain.errors import ArgumentError, listed, unknown
from imagexplain.models.captioners.captioner import BEGIN, END

SIGNS = ("<BOS>", "<EOS>", "<UNK>")
"""First words of every vocabulary: before the first word, after the last, and for any that it does not have."""

MAX_BYTES = 50_000_000
"""Bytes of a vocabulary's file, at most."""


@dataclass(frozen=True)
class Vocabulary:
    """Words of a captioner, by number.

    Attributes:
        words: Words, the three signs first.

    Raises:
        ArgumentError: other signs, a word twice, or one that is empty or holds a space.

    Example:
        >>> from imagexplain.models.captioners.vocabulary import SIGNS, Vocabulary
        >>> words = Vocabulary((*SIGNS, "red", "star"))
        >>> words.caption([3, 4, 1]), words.encoded("red star")
        ('red star', (3, 4, 1))
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.words[: len(SIGNS)] != SIGNS:
            raise ArgumentError("words", f"wanted {', '.join(SIGNS)} first, got {listed(self.words[: len(SIGNS)])}")
        if len(self.numbers) < len(self.words):
            twice = next(word for word, count in Counter(self.words).items() if count > 1)
            raise ArgumentError("words", f"wanted each word once, got {twice!r} twice")
        for number, word in enumerate(self.words):
            if len(word.split()) != 1 or word.strip() != word:
                raise ArgumentError("words", f"wanted words without spaces, got {word!r} as number {number}")

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Number of each word."""
        return {word: number for number, word in enumerate(self.words)}

    def spelled(self, numbers: Iterable[int]) -> list[str]:
        """Words of some numbers, signs included."""
        return [self.words[number] for number in numbers]

    def caption(self, numbers: Iterable[int]) -> str:
        """Caption of a model's words, without the signs of begin and end."""
        return " ".join(self.words[number] for number in numbers if number not in (BEGIN, END))

    def encoded(self, caption: str) -> tuple[int, ...]:
        """Numbers of a caption's words, which spaces part, and the end sign.

        Raises:
            ArgumentError: no words, words that the vocabulary lacks, or signs of begin and end among them; names the
                nearest of its words.
        """
        words = caption.split()
        if not words:
            raise ArgumentError("caption", "wanted at least one word, got none")
        for word in words:
            if word in SIGNS[:2]:
                raise ArgumentError("caption", f"wanted words alone, got the sign {word}")
        lacking = list(dict.fromkeys(word for word in words if word not in self.numbers))
        if len(lacking) > 1:
            wanted = f"wanted words of the vocabulary ({SIGNS[2]} stands for any other)"
            raise ArgumentError("caption", f"{wanted}, it lacks {listed(lacking)}")
        if lacking:
            raise ArgumentError("caption", unknown("word", lacking[0], self.words[len(SIGNS) - 1 :]))
        return (*(self.numbers[word] for word in words), END)


def read(file: Path) -> Vocabulary:
    """Read a vocabulary: ``.npy`` with the words in order, ``.json`` with a list or with each word's number, or text
    of a word a line. Nothing is unpickled.

    Raises:
        ArgumentError: no such file's contents.
        OSError: the file cannot be read.
    """
    size = file.stat().st_size
    if size > MAX_BYTES:
        raise ArgumentError("vocabulary", f"wanted at most {MAX_BYTES:,} bytes, got {size:,}")
    try:
        if file.suffix == ".npy":
            return Vocabulary(_of_array(np.load(file, allow_pickle=False)))
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".json":
            return Vocabulary(_of_json(json.loads(text)))
        return Vocabulary(tuple(text.removesuffix("\n").split("\n")))
    except ArgumentError:
        raise
    except (ValueError, RecursionError, EOFError) as error:
        wanted = "wanted int2word.npy, word2int.json, a list as JSON, or text of a word a line"
        raise ArgumentError("vocabulary", f"{wanted}: {error}") from None


def _of_array(array: np.ndarray) -> tuple[str, ...]:
    if array.dtype.kind != "U" or array.ndim != 1:
        raise ArgumentError("vocabulary", f"wanted a row of texts, got {array.ndim} dimensions of {array.dtype}")
    return tuple(map(str, array))


def _of_json(content: Any) -> tuple[str, ...]:
    if isinstance(content, dict):
        if sorted(content.values(), key=str) != sorted(range(len(content)), key=str):
            raise ArgumentError("vocabulary", f"wanted the numbers 0 to {len(content) - 1}, each once")
        content = sorted(content, key=content.__getitem__)
    if not isinstance(content, list) or not all(isinstance(word, str) for word in content):
        raise ArgumentError("vocabulary", "wanted a list of words, or the number of each")
    return tuple(content)
