"""Decoder of captions: two LSTMs that attend to a graph's nodes, follow its edges, and write back what has been said.

Source: Chen et al., "Say As You Wish: Fine-grained Control of Image Caption Generation with Abstract Scene Graphs",
CVPR 2020 (arXiv 2003.00387). The names of submodules are asg2cap's
(https://github.com/cshizhe/asg2cap, MIT), ``sentinal_layer`` as it is spelt there.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FLOW_STEPS = ("stay", "one step", "two steps")
"""Ways of the attention along the graph, in the order of their gates."""


@dataclass(frozen=True)
class RowTensors:
    """Tensors with a row for each caption."""

    def rows(self, index: Tensor) -> Self:
        """Select rows, with repetition where an index (R,) repeats."""
        return type(self)(*(getattr(self, field.name).index_select(0, index) for field in fields(self)))


@dataclass(frozen=True)
class Context(RowTensors):
    """Facts of an image and a graph that no word changes.

    Attributes:
        vector: Vector (B, H) of image and graph.
        mask: Mask (B, N), bool, true for nodes, false for padding.
        flow: Flow (B, N, N), [target, source].
    """

    vector: Tensor
    mask: Tensor
    flow: Tensor


@dataclass(frozen=True)
class State(RowTensors):
    """State between two words.

    Attributes:
        h_attn: Hidden state (B, H) of the attention LSTM.
        c_attn: Cell state (B, H) of the attention LSTM.
        h_lang: Hidden state (B, H) of the language LSTM, of which the word before was read.
        c_lang: Cell state (B, H) of the language LSTM.
        memory: Nodes (B, N, H), with what has been written to them.
        attention: Attention (B, N) of the word before; on the first node before the first word.
    """

    h_attn: Tensor
    c_attn: Tensor
    h_lang: Tensor
    c_lang: Tensor
    memory: Tensor
    attention: Tensor


@dataclass(frozen=True)
class Step:
    """One word's step.

    Attributes:
        state: State after the step; its ``attention`` (B, N) is the word's, and its rows sum to 1.
        content: Attention (B, N) by content alone.
        beta: Weight (B,) of content against flow, in [0, 1].
        flow_gate: Weights (B, 3) of :data:`FLOW_STEPS`, of sum 1.
        sentinel: Part (B,) of the attention with which the memory is written, in [0, 1].
        erase: Part (B, N, H) that full attention would erase of the memory, in [0, 1].
        add: Values (B, N, H) that full attention would add to the memory.
    """

    state: State
    content: Tensor
    beta: Tensor
    flow_gate: Tensor
    sentinel: Tensor
    erase: Tensor
    add: Tensor


class WordEmbedding(nn.Module):
    """Table of word vectors (words, width), which serves the input and, transposed, the logits."""

    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.we = nn.Embedding(words, width)
        nn.init.uniform_(self.we.weight, -(width**-0.5), width**-0.5)

    def forward(self, words: Tensor) -> Tensor:
        vectors: Tensor = self.we(words)
        return vectors


class ContentAttention(nn.Module):
    """Attention by content: softmax over the nodes of wᵀ tanh(W q + b + key), (B, N)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_query = nn.Linear(width, width)
        self.attn_w = nn.Linear(width, 1, bias=False)

    def forward(self, query: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        energy = self.attn_w(torch.tanh(self.linear_query(query).unsqueeze(1) + keys)).squeeze(2)  # (B, N)
        return F.softmax(energy.masked_fill(~mask, -torch.inf), 1)


class Decoder(nn.Module):
    """Decoder of captions with memory and flow, all of one width H; the words' table is tied to the logits.

    The LSTMs start at zero, since image and graph go into each of their steps.
    """

    def __init__(self, words: int, width: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.width = width
        self.embedding = WordEmbedding(words, width)
        self.attn_lstm = _lstm(3 * width, width)
        self.lang_lstm = _lstm(2 * width, width)
        self.attn = ContentAttention(width)
        self.attn_linear_context = nn.Linear(width, width, bias=False)
        self.address_layer = _two_layers(2 * width, width, 1 + len(FLOW_STEPS))
        self.memory_update_layer = _two_layers(2 * width, width, 2 * width)
        self.sentinal_layer = _two_layers(width, width, 1)
        self.dropout = nn.Dropout(dropout)

    def start(self, nodes: Tensor) -> State:
        """State before the first word, with the encoded nodes (B, N, H) as memory."""
        zero = nodes.new_zeros(len(nodes), self.width)
        attention = nodes.new_zeros(nodes.shape[:2])
        attention[:, 0] = 1
        return State(zero, zero, zero, zero, nodes, attention)

    def step(self, context: Context, state: State, words: Tensor) -> Step:
        """Take one step from the words before, (B,) int64, to the state of which the next ones' logits are read."""
        h_attn, c_attn = self.attn_lstm(
            torch.cat([state.h_lang, context.vector, self.embedding(words)], 1), (state.h_attn, state.c_attn)
        )
        seen = _weighted(state.attention, state.memory)
        gates = self.address_layer(torch.cat([h_attn, seen], 1))  # (B, 4)
        beta, flow_gate = gates[:, :1].sigmoid(), F.softmax(gates[:, 1:], 1)
        content = self.attn(h_attn, self.attn_linear_context(state.memory), context.mask)
        once = _flowed(context.flow, state.attention)
        ways = torch.stack([state.attention, once, _flowed(context.flow, once)], 2)  # (B, N, 3)
        attention = beta * content + (1 - beta) * (ways @ flow_gate.unsqueeze(2)).squeeze(2)

        attended = _weighted(attention, state.memory)
        h_lang, c_lang = self.lang_lstm(torch.cat([h_attn, attended], 1), (state.h_lang, state.c_lang))

        sentinel = self.sentinal_layer(h_lang).sigmoid()  # (B, 1)
        erase, add = self._update(h_lang, state.memory)
        written = (attention * sentinel).unsqueeze(2)  # (B, N, 1)
        memory = state.memory * (1 - written * erase) + written * add
        after = State(h_attn, c_attn, h_lang, c_lang, memory, attention)
        return Step(after, content, beta.squeeze(1), flow_gate, sentinel.squeeze(1), erase, add)

    def logits(self, h_lang: Tensor) -> Tensor:
        """Logits (B, words) of hidden states (B, H) of the language LSTM."""
        # The other way round, a product of few rows with a large table takes two to four times as long.
        return (self.embedding.we.weight @ self.dropout(h_lang).T).T

    def _update(self, h_lang: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Part to erase and values to add, (B, N, H) each: two layers on [h_lang; node] for every node."""
        first, activation, second = self.memory_update_layer
        assert isinstance(first, nn.Linear)
        of_state, of_nodes = first.weight.chunk(2, 1)
        # What is the same for all nodes is computed once.
        hidden = F.linear(h_lang, of_state, first.bias).unsqueeze(1) + F.linear(memory, of_nodes)
        erase, add = second(activation(hidden)).chunk(2, 2)
        return erase.sigmoid(), add


def _weighted(weights: Tensor, nodes: Tensor) -> Tensor:
    """Weighted sum (B, H) of nodes (B, N, H)."""
    return (weights.unsqueeze(1) @ nodes).squeeze(1)


def _flowed(flow: Tensor, attention: Tensor) -> Tensor:
    """Attention (B, N) one step further along the graph."""
    return (flow @ attention.unsqueeze(2)).squeeze(2)


def _two_layers(width_in: int, hidden: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width_in, hidden), nn.ReLU(), nn.Linear(hidden, width))


def _lstm(width_in: int, width: int) -> nn.LSTMCell:
    """LSTM cell as upstream starts it: orthogonal weights, and a forget gate that is open at first."""
    cell = nn.LSTMCell(width_in, width)
    for weight in (cell.weight_ih, cell.weight_hh):
        nn.init.orthogonal_(weight)
    for bias in (cell.bias_ih, cell.bias_hh):
        nn.init.zeros_(bias)
    with torch.no_grad():
        cell.bias_ih[width : 2 * width] = 1
    return cell
