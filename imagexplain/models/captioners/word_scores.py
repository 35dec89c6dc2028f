"""Scores of a caption's words as a function of the features, which is what attribution differentiates.

Node features and the global one are packed into one "image" (1, 1, N·region + image), so that whatever integrates along
a path from a baseline image, or scores groups of pixels, works on them as it is: a node is a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagexplain.errors import ArgumentError
from imagexplain.models.captioners.captioner import BEGIN, Captioner
from imagexplain.models.captioners.graph_tensors import GraphTensors

Kind = Literal["logit", "log_probability"]


class WordScores(nn.Module):
    """Scores of some words of a caption, teacher-forced: packed features (R, 1, 1, L) to scores (R, K).

    Args:
        captioner: Captioner of the words.
        graph: Batch of one graph.
        words: Words of the caption, as found, the end sign included where it is to have a score.
        positions: Places of the K words in it, from 0; None for all.
        kind: Kind of score: the word's ``logit``, or its ``log_probability`` after the words before it.

    Raises:
        ArgumentError: no words, or a position that the caption does not have.
    """

    def __init__(
        self,
        captioner: Captioner,
        graph: GraphTensors,
        words: Sequence[int],
        positions: Sequence[int] | None = None,
        kind: Kind = "log_probability",
    ) -> None:
        super().__init__()
        self.captioner = captioner
        self.graph = graph
        self.words = tuple(words)
        self.positions = tuple(range(len(self.words)) if positions is None else positions)
        self.kind = kind
        if len(graph) != 1:
            raise ArgumentError("graph", f"wanted one graph, got {len(graph)}")
        if not self.positions:
            raise ArgumentError("positions", "wanted at least one, got none")
        for position in self.positions:
            if not 0 <= position < len(self.words):
                raise ArgumentError("positions", f"wanted 0 to {len(self.words) - 1}, got {position}")

    def forward(self, packed: Tensor) -> Tensor:
        nodes, image = self.unpack(packed)
        encoded = self.captioner.encode(nodes, image, self.graph.expand(len(packed)))
        decoder, state = self.captioner.decoder, encoded.state
        scores: dict[int, Tensor] = {}
        for position, before in enumerate((BEGIN, *self.words)[: max(self.positions) + 1]):
            words = torch.full((len(packed),), before, device=packed.device)
            state = decoder.step(encoded.context, state, words).state
            if position in self.positions:
                scores[position] = self._score(state.h_lang, self.words[position])
        return torch.stack([scores[position] for position in self.positions], 1)

    def groups(self) -> Tensor:
        """Masks (nodes + 1, 1, L), bool, of each node's features and, last, of the global one; padding is in none."""
        region, image = self.captioner.dimensions.region, self.captioner.dimensions.image
        (mask,) = self.graph.mask.cpu()
        owners = torch.arange(len(mask)).repeat_interleave(region)
        owners = torch.cat([owners, torch.full((image,), len(mask))])
        own = torch.cat([mask.nonzero().flatten(), torch.tensor([len(mask)])])
        return (owners == own.unsqueeze(1)).unsqueeze(1)

    def unpack(self, packed: Tensor) -> tuple[Tensor, Tensor]:
        """Node features (R, N, region) and global features (R, image) in packed ones, (R, 1, 1, L)."""
        region, image = self.captioner.dimensions.region, self.captioner.dimensions.image
        count = self.graph.mask.shape[1]
        nodes, feature = packed.flatten(1).split([count * region, image], 1)
        return nodes.unflatten(1, (count, region)), feature

    def _score(self, h_lang: Tensor, word: int) -> Tensor:
        decoder = self.captioner.decoder
        if self.kind == "logit":
            return decoder.dropout(h_lang) @ decoder.embedding.we.weight[word]
        return F.log_softmax(decoder.logits(h_lang), 1)[:, word]


def pack(nodes: Tensor, image: Tensor) -> Tensor:
    """Pack one image's node features (N, region) and global feature (image,) into (1, 1, N·region + image).

    Example:
        >>> import torch
        >>> from imagexplain.models.captioners.word_scores import pack
        >>> pack(torch.zeros(6, 32), torch.zeros(24)).shape
        torch.Size([1, 1, 216])
    """
    return torch.cat([nodes.flatten(), image]).view(1, 1, -1)
