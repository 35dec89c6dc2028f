"""Captioner of abstract scene graphs: both encoders and the decoder, its loss, and its checkpoints.

asg2cap's model ``rgcn.flow.memory``, which is SA³'s too (``EGA``); checkpoints of either load as they are.

Source: Chen et al., "Say As You Wish: Fine-grained Control of Image Caption Generation with Abstract Scene Graphs",
CVPR 2020 (arXiv 2003.00387); https://github.com/cshizhe/asg2cap, MIT.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imagexplain.errors import ArgumentError
from imagexplain.models.captioners.decoder import Context, Decoder, State
from imagexplain.models.captioners.graph_encoder import GlobalEncoder, GraphEncoder
from imagexplain.models.captioners.graph_tensors import GraphTensors
from imagexplain.models.checkpoints import checkpoint

BEGIN, END, UNKNOWN = 0, 1, 2
"""Words of every vocabulary: before the first word, after the last, and for any that it does not have."""


@dataclass(frozen=True)
class Dimensions:
    """Dimensions of a captioner.

    Attributes:
        words: Number of words, those of every vocabulary included.
        region: Width of a node's image feature.
        image: Width of the image's global feature.
        hidden: Width of all that lies within.
        layers: Number of relational layers.
    """

    words: int
    region: int
    image: int
    hidden: int
    layers: int = 2


@dataclass(frozen=True)
class Encoded:
    """Images and graphs of a batch, encoded: what a decoder starts from.

    Attributes:
        context: Facts that no word changes.
        state: State before the first word.
    """

    context: Context
    state: State


@dataclass(frozen=True)
class Trace:
    """Teacher-forced pass over T words.

    Attributes:
        logits: Logits (B, T, words) of the word after each.
        attention: Attention (B, T, N) on the nodes at each step; rows sum to 1.
        content: Attention (B, T, N) by content alone.
        beta: Weight (B, T) of content against flow.
        flow_gate: Weights (B, T, 3) of staying, one step and two steps of the flow.
        sentinel: Part (B, T) of the attention with which the memory is written.
    """

    logits: Tensor
    attention: Tensor
    content: Tensor
    beta: Tensor
    flow_gate: Tensor
    sentinel: Tensor


class Captioner(nn.Module):
    """Captioner of abstract scene graphs.

    Node features are (B, N, region), the image's (B, image). Values at padding do not matter, if they are finite.

    Args:
        dimensions: Widths and number of words.
        dropout: Part of the language LSTM's output that training drops before the logits, in [0, 1).
    """

    def __init__(self, dimensions: Dimensions, dropout: float = 0.5) -> None:
        super().__init__()
        self.dimensions = dimensions
        self.mp_encoder = GlobalEncoder(dimensions.image, dimensions.hidden)
        self.attn_encoder = GraphEncoder(dimensions.region, dimensions.hidden, dimensions.layers)
        self.decoder = Decoder(dimensions.words, dimensions.hidden, dropout)

    def encode(self, nodes: Tensor, image: Tensor, graph: GraphTensors) -> Encoded:
        """Encode images and graphs, for the decoder to start from.

        Raises:
            ArgumentError: features of another shape than graphs and captioner have.
        """
        wanted = {"nodes": (*graph.mask.shape, self.dimensions.region), "image": (len(graph), self.dimensions.image)}
        for name, given in (("nodes", nodes), ("image", image)):
            if tuple(given.shape) != wanted[name]:
                raise ArgumentError(name, f"wanted features of {wanted[name]}, got {tuple(given.shape)}")
        embedded = self.attn_encoder(nodes, graph)
        vector = self.mp_encoder(image, embedded, graph.mask)
        return Encoded(Context(vector, graph.mask, graph.flow.to(vector)), self.decoder.start(embedded))

    def forward(self, nodes: Tensor, image: Tensor, graph: GraphTensors, words: Tensor) -> Trace:
        """Read T words and tell the logits of the word after each; the same numbers as step by step, bit for bit.

        Args:
            nodes: Features (B, N, region) of the nodes' boxes.
            image: Features (B, image) of the whole images.
            graph: Graphs of the batch.
            words: Words (B, T), int64, :data:`BEGIN` first.
        """
        encoded = self.encode(nodes, image, graph)
        state, steps, logits = encoded.state, [], []
        for column in words.unbind(1):
            step = self.decoder.step(encoded.context, state, column)
            state = step.state
            steps.append(step)
            logits.append(self.decoder.logits(state.h_lang))
        return Trace(
            logits=torch.stack(logits, 1),
            attention=torch.stack([step.state.attention for step in steps], 1),
            content=torch.stack([step.content for step in steps], 1),
            beta=torch.stack([step.beta for step in steps], 1),
            flow_gate=torch.stack([step.flow_gate for step in steps], 1),
            sentinel=torch.stack([step.sentinel for step in steps], 1),
        )


def losses(logits: Tensor, targets: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of captions, averaged over all their words, (), and over each caption's, (B,).

    Args:
        logits: Logits (B, T, words).
        targets: Words (B, T), int64, that should follow.
        mask: Mask (B, T), bool, of the words that count; at least one of each caption.
    """
    each = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none") * mask
    return each.sum() / mask.sum(), each.sum(1) / mask.sum(1)


def build(state: Mapping[str, Tensor]) -> Captioner:
    """Build the captioner of a checkpoint, in ``eval()``; its dimensions follow from the shapes.

    Args:
        state: Tensors by name, as :func:`imagexplain.models.checkpoints.checkpoint.read` returns them.

    Raises:
        CheckpointError: a tensor is missing, unexpected or of a wrong shape.
    """
    with torch.device("meta"):
        model = Captioner(dimensions_of(state))
    checkpoint.fill(model, state)
    return model


def dimensions_of(state: Mapping[str, Tensor]) -> Dimensions:
    """Dimensions of a checkpoint's captioner, told from the shapes of its tensors.

    Raises:
        CheckpointError: one of the tensors that tell them is missing, or of another rank.
    """
    words, hidden = checkpoint.shape(state, "decoder.embedding.we.weight", 2)
    region = checkpoint.shape(state, "attn_encoder.first_embedding.0.weight", 2)[1]
    image = checkpoint.shape(state, "mp_encoder.ft_embed.weight", 2)[1] - hidden
    if image < 1 or min(words, hidden, region) < 1:
        raise checkpoint.CheckpointError("the shapes fit no captioner")
    prefix = "attn_encoder.layers."
    layers = {name.removeprefix(prefix).partition(".")[0] for name in state if name.startswith(prefix)}
    return Dimensions(words, region, image, hidden, len(layers))


def export(model: Captioner) -> dict[str, dict[str, Tensor]]:
    """Tensors of a captioner as the original saves them, ``{submodule: {name: tensor}}``, detached, on the CPU."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in checkpoint.exported(model).items():
        part, _, own = name.partition(".")
        parts.setdefault(part, {})[own] = tensor
    return parts
