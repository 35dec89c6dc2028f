"""Search for captions: beam search over all captions of a batch at once, of which a width of one is greedy.

Every tensor of the decoder follows its beam. In asg2cap (``caption/utils/inference.py``) memory and attention of a
chosen beam stay another's, and a greedy caption's score goes on after its end until the batch's last caption has ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from imagexplain.errors import ArgumentError
from imagexplain.models.captioners.captioner import BEGIN, END, Captioner, Encoded
from imagexplain.models.captioners.decoder import RowTensors

MAX_WORDS = 25
"""Number of words, the end sign included, at which a caption is cut off: the original's."""

Ranking = Literal["mean_log_probability", "log_probability"]


@dataclass(frozen=True)
class Caption:
    """Caption that was found, of T words with its end sign.

    Attributes:
        words: Words, (T,) numbers; the last is the end sign where the caption has ended.
        log_probabilities: Log-probability (T,) of each word after those before it.
        attention: Attention (T, N) on the graph's own nodes at each word; rows sum to 1.
        beta: Weight (T,) of attention by content against flow.
        flow_gate: Weights (T, 3) of staying, one step and two steps of the flow.
        ended: End: false where the caption was cut off.
    """

    words: tuple[int, ...]
    log_probabilities: Tensor
    attention: Tensor
    beta: Tensor
    flow_gate: Tensor
    ended: bool

    @property
    def log_probability(self) -> float:
        """Log-probability of the caption, its end sign included."""
        return self.log_probabilities.sum(dtype=torch.float64).item()

    @property
    def mean_log_probability(self) -> float:
        """Log-probability divided by the number of words, the end sign included in both."""
        return self.log_probability / len(self.words)


@dataclass(frozen=True)
class _Written(RowTensors):
    """Captions as far as they are written, R of them: a column for each word."""

    words: Tensor
    log_probabilities: Tensor
    attention: Tensor
    gates: Tensor

    def __len__(self) -> int:
        return len(self.words)

    @classmethod
    def blank(cls, count: int, length: int, like: Tensor) -> _Written:
        """Captions of zeros; ``like`` is an attention (…, N)."""
        sizes = ((), (like.shape[-1],), (4,))
        numbers = [like.new_zeros(count, length, *size) for size in sizes]
        return cls(torch.zeros(count, length, dtype=torch.int64, device=like.device), *numbers)

    def and_then(self, words: Tensor, log_probabilities: Tensor, attention: Tensor, gates: Tensor) -> _Written:
        """Captions with a further column."""
        new = (words, log_probabilities, attention, gates)
        old = (self.words, self.log_probabilities, self.attention, self.gates)
        return _Written(*(torch.cat([a, b.unsqueeze(1)], 1) for a, b in zip(old, new, strict=True)))


@torch.no_grad()
def search(
    model: Captioner,
    encoded: Encoded,
    width: int = 1,
    max_words: int = MAX_WORDS,
    *,
    ranking: Ranking = "mean_log_probability",
    may_be_empty: bool = True,
) -> list[list[Caption]]:
    """Search for the captions of each encoded image and graph.

    At each step the ``width`` most probable of the extended captions go on. One that ends leaves the search, its place
    is taken by the next; the search of an image is over when ``width`` have ended or ``max_words`` are reached, where
    captions count as they are. Images of a batch do not meet.

    Args:
        model: Captioner, in ``eval()``.
        encoded: Encoded images and graphs, from :meth:`Captioner.encode`.
        width: Number of captions that are followed, and returned, for each image; 1 is greedy.
        max_words: Number of words at which captions are cut off, the end sign included.
        ranking: Score by which each image's captions are ordered, best first: a property of :class:`Caption`.
        may_be_empty: Choice to let a caption end with its first word. False is the original's way, which goes on after
            an end sign at the very beginning.

    Returns:
        Up to ``width`` captions for each image.

    Raises:
        ArgumentError: a width below 1 or above the number of words, or fewer than one word.
    """
    if not 1 <= width <= model.dimensions.words:
        raise ArgumentError("width", f"wanted 1 to {model.dimensions.words}, got {width}")
    if max_words < 1:
        raise ArgumentError("max_words", f"wanted at least 1, got {max_words}")
    context, state = encoded.context, encoded.state
    device, count = context.mask.device, len(context.mask)
    written = _Written.blank(count, 0, state.attention)
    found = _Written.blank(count * width, max_words, state.attention)
    lengths = torch.zeros(count, width, dtype=torch.int64, device=device)  # 0 where nothing has been found
    searched = torch.arange(count, device=device)  # images whose search goes on, S of them
    total = state.attention.new_zeros(count, 1)  # log-probabilities (S, beams)
    words = torch.full((count,), BEGIN, device=device)
    for length in range(1, max_words + 1):
        step = model.decoder.step(context, state, words)
        log_probabilities = F.log_softmax(model.decoder.logits(step.state.h_lang), 1)
        best, candidates = log_probabilities.topk(width, 1)  # (S·beams, width)
        beams = total.shape[1]
        total, chosen = (best.view(len(searched), -1) + total.repeat_interleave(width, 1)).topk(width, 1)  # (S, width)
        rows = torch.arange(0, len(words), beams, device=device).unsqueeze(1)
        parents = (rows + chosen // width).flatten()
        words, best = (values.view(len(searched), -1).gather(1, chosen).flatten() for values in (candidates, best))
        if beams != width:
            context = context.rows(parents)
        state = step.state.rows(parents)
        gates = torch.cat([step.beta.unsqueeze(1), step.flow_gate], 1)
        written = written.rows(parents).and_then(words, best, state.attention, gates[parents])

        ending = (words.view_as(total) == END) & (may_be_empty or length > 1)
        finished = (ending | (length == max_words)) & (total != -torch.inf)
        before = (lengths[searched] > 0).sum(1, keepdim=True)
        finished &= before + finished.cumsum(1) <= width
        _record(found, lengths, searched, written, finished, before, length)
        total = total.masked_fill(ending, -torch.inf)

        going_on = (lengths[searched] == 0).any(1)
        if not going_on.any():
            break
        if not going_on.all():
            kept = going_on.repeat_interleave(width).nonzero().flatten()
            context, state, written, words = context.rows(kept), state.rows(kept), written.rows(kept), words[kept]
            searched, total = searched[going_on], total[going_on]
    return _captions(found, lengths, encoded.context.mask.sum(1), ranking)


def _record(
    found: _Written,
    lengths: Tensor,
    searched: Tensor,
    written: _Written,
    finished: Tensor,
    before: Tensor,
    length: int,
) -> None:
    """Write the captions that are finished, (S, width), to their images' next places, in place."""
    width = lengths.shape[1]
    places = (searched.unsqueeze(1) * width + before + finished.cumsum(1) - 1)[finished]
    for name in ("words", "log_probabilities", "attention", "gates"):
        getattr(found, name)[places, :length] = getattr(written, name)[finished.flatten()]
    lengths.view(-1)[places] = length


def _captions(found: _Written, lengths: Tensor, nodes: Tensor, ranking: Ranking) -> list[list[Caption]]:
    """Captions of each image, best first, of lengths (B, width), 0 for none; ``nodes`` (B,) is each graph's number."""
    found = _Written(found.words.cpu(), found.log_probabilities.cpu(), found.attention.cpu(), found.gates.cpu())
    width = lengths.shape[1]
    captions = [
        [_caption(found, image * width + place, length, count) for place, length in enumerate(row) if length]
        for image, (row, count) in enumerate(zip(lengths.tolist(), nodes.tolist(), strict=True))
    ]
    return [sorted(own, key=lambda caption: getattr(caption, ranking), reverse=True) for own in captions]


def _caption(found: _Written, row: int, length: int, nodes: int) -> Caption:
    words = tuple(found.words[row, :length].tolist())
    gates = found.gates[row, :length]
    parts = (found.log_probabilities[row, :length], found.attention[row, :length, :nodes], gates[:, 0], gates[:, 1:])
    return Caption(words, *parts, ended=words[-1] == END)
