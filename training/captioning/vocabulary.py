"""Vocabulary of a captioner: words and their numbers, in the original's two files, and captions as numbers.

``int2word.npy`` holds the words in the order of their numbers, ``word2int.json`` the number of each word. A caption is
split at spaces; a word that the vocabulary does not have is the unknown one.

Source: the reader of asg2cap (https://github.com/cshizhe/asg2cap, ``controlimcap/readers``).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from imagexplain.errors import ArgumentError
from imagexplain.models.captioners import vocabulary
from imagexplain.models.captioners.captioner import BEGIN, END, UNKNOWN
from imagexplain.models.captioners.search import MAX_WORDS
from imagexplain.models.captioners.vocabulary import SIGNS
from training.finetuning.whole_files import replace, write_text

INT2WORD, WORD2INT = "int2word.npy", "word2int.json"


@dataclass(frozen=True)
class Vocabulary(vocabulary.Vocabulary):
    """The words, by number, with what training and the original's files ask of them beside an archive."""

    def encode(self, captions: Sequence[str], length: int = MAX_WORDS) -> tuple[Tensor, Tensor]:
        """Captions as numbers, with the signs of begin and end; what is longer is cut off, its end sign with it.

        Args:
            captions: B captions.
            length: Number of ids of each, from 2.

        Returns:
            Ids (B, length), int64, end signs behind the end, and a mask (B, length), bool, of those that count.
        """
        ids = torch.full((len(captions), length), END)
        mask = torch.zeros(len(captions), length, dtype=torch.bool)
        for row, caption in enumerate(captions):
            words = [self.numbers.get(word, UNKNOWN) for word in caption.split()]
            own = torch.tensor([BEGIN, *words, END][:length])
            ids[row, : len(own)], mask[row, : len(own)] = own, True
        return ids, mask

    def decode(self, ids: Iterable[int]) -> str:
        """The caption of ids, up to an end sign, without signs of begin."""
        words: list[str] = []
        for number in ids:
            if number == END:
                break
            if number != BEGIN:
                words.append(self.words[number])
        return " ".join(words)

    def write(self, folder: Path) -> None:
        """Write both files to a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        write_array(folder / INT2WORD, np.array(self.words))
        write_text(folder / WORD2INT, json.dumps(self.numbers, ensure_ascii=False))


def vocabulary_of(captions: Iterable[str], fewest: int = 1) -> Vocabulary:
    """The vocabulary of the words that occur so often, the most frequent first, then by name.

    Example:
        >>> from training.captioning.vocabulary import vocabulary_of
        >>> vocabulary_of(["a red star", "a star"]).words
        ('<BOS>', '<EOS>', '<UNK>', 'a', 'star', 'red')
    """
    counts = Counter(word for caption in captions for word in caption.split())
    kept = [word for word, count in counts.items() if count >= fewest and word not in SIGNS]
    return Vocabulary((*SIGNS, *sorted(kept, key=lambda word: (-counts[word], word))))


def read_vocabulary(folder: Path) -> Vocabulary:
    """Read the vocabulary of a folder; ``word2int.json`` may be missing.

    Raises:
        ArgumentError: files that are no vocabulary, or that differ.
        FileNotFoundError: no ``int2word.npy``.
    """
    words = Vocabulary(tuple(map(str, read_array(folder / INT2WORD, "U", 1))))
    file = folder / WORD2INT
    if file.is_file() and json.loads(file.read_text(encoding="utf-8")) != words.numbers:
        raise ArgumentError("words", f"wanted the numbers of {INT2WORD} in {file}, got others")
    return words


def read_array(file: Path, kind: str, dimensions: int) -> np.ndarray:
    """Read an array of numbers or texts; nothing is unpickled.

    Args:
        file: File of ``numpy.save``.
        kind: Kinds of its values, such as ``"U"`` or ``"f"``: NumPy's letters.
        dimensions: Number of its dimensions.

    Raises:
        ArgumentError: no such array.
        FileNotFoundError: no such file.
    """
    try:
        array = np.load(file, allow_pickle=False)
    except ValueError as error:
        raise ArgumentError("file", f"wanted an array of numbers or texts in {file}: {error}") from None
    if array.dtype.kind not in kind or array.ndim != dimensions:
        raise ArgumentError(
            "file", f"wanted {dimensions} dimensions of kind {kind} in {file}, got {array.ndim} of {array.dtype}"
        )
    return array


def write_array(file: Path, array: np.ndarray) -> None:
    """Write an array whole."""

    def write(partial: Path) -> None:
        with partial.open("wb") as stream:
            np.save(stream, array, allow_pickle=False)

    replace(file, write)
