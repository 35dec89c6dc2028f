"""Attention of a transformer: the output of each layer's softmax, and the grid and tokens that it relates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from imagexplain.attribution.network.attention_steps import AttentionSteps
from imagexplain.attribution.network.forward import class_scores
from imagexplain.attribution.network.function_kinds import CONVOLUTIONS
from imagexplain.attribution.network.layers import SOFTMAXES, depends, reaches
from imagexplain.attribution.network.tokens import layout_of, stated_grids, stated_prefix
from imagexplain.attribution.network.visibility import check_visible
from imagexplain.errors import UnsupportedModelError

WINDOWED = {
    "timm": ("SwinTransformerBlock", "SwinTransformerV2Block"),
    "transformers": ("SwinLayer", "Swinv2Layer", "DonutSwinLayer"),
}
"""Blocks with attention within windows, by library, whose ``window_size`` and ``shift_size`` say what :func:`_windows`
reads. By name: importing a library takes a hundred megabytes, which other models need not have."""
Note = Callable[[Tensor, Sequence[int]], None]
"""Function of a softmax's output and its shape (B, heads, Q, T)."""

PADS_FIRST = "transformers"
"""Library whose blocks pad the grid before they roll it; in the other the padding stays at the end."""


@dataclass(frozen=True)
class AttentionLayer:
    """The attention of one layer in one pass.

    Attributes:
        output: Output of the softmax, as the model goes on with it, so that scores can be differentiated by it.
        shape: Shape (B, windows, heads, Q, T) of the output; T tokens to a window, a query to a row. Where there are no
            windows, one holds all tokens. The queries are the tokens, Q = T, but where a last layer pools them: there
            the model has learned them.
        places: Places (windows, T), int64, of each window's tokens in the row of tokens; ``tokens`` for padding.
        grid: Height and width (h, w) of the grid of patch tokens.
        prefix: Number of tokens before them.
        callers: Modules that run at that time, the outermost first, each with the shape of its first argument, which is
            empty if that is no tensor.
    """

    output: Tensor
    shape: tuple[int, int, int, int, int]
    places: Tensor
    grid: tuple[int, int]
    prefix: int
    callers: tuple[tuple[nn.Module, tuple[int, ...]], ...] = ()

    @property
    def tokens(self) -> int:
        return self.prefix + self.grid[0] * self.grid[1]

    @property
    def pools(self) -> bool:
        """Test whether its queries are other than its tokens."""
        return self.shape[3] != self.shape[4]


def attention_layers(
    model: nn.Module, images: Tensor, watching: Callable[[Note], AttentionWatch] | None = None
) -> tuple[Tensor, list[AttentionLayer]]:
    """Run the model and record its attention.

    While the model runs, calls of ``scaled_dot_product_attention`` are replaced by the same in steps, those of
    ``multi_head_attention_forward`` are asked for their weights, and calls of softmax are watched. Modules are hooked
    for that time, to know which Swin block runs. Compiled or scripted code is not seen.

    Args:
        model: Module in ``eval()`` that turns (B, C, H, W) into scores (B, classes).
        images: Images (B, C, H, W) of the sides that the model wants.
        watching: Class of the recorder, which may replace more calls; None for :class:`AttentionWatch`.

    Returns:
        (B, classes) scores, which autograd knows as a function of each layer's output, and the layers in order. All
        relate the tokens of one grid, or each next grid is the last one with 2 × 2 tokens merged. After these one may
        pool the tokens, or the patches alone.

    Raises:
        ValueError: no attention, or one whose tokens are not known to be an image's patches: not square unless it pools
            last and by learned queries, in windows of a kind that is not known, over another number of tokens, of
            layers side by side, or with convolutions after it. Those before it make the patches.
    """
    if not isinstance(model, nn.Module):
        raise UnsupportedModelError("model", f"wanted a module with attention layers, got {type(model).__name__}")
    check_visible(model, "attention")
    running: list[tuple[nn.Module, tuple[Any, ...]]] = []  # with what each was given, by position
    layers: list[AttentionLayer] = []
    prefix, grids = stated_prefix(model), stated_grids(model, images.shape)

    def begin(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        running.append((module, inputs))

    def end(*_: object) -> None:
        running.pop()

    def note(output: Tensor, shape: Sequence[int]) -> None:
        if _library(running[-1][0], {"timm": ("DiffAttention",)}):
            raise _not_such("differences of attention")
        last = layers[-1] if layers else None
        if last is not None and last.pools:
            raise _not_such(f"attention of shape {(len(images), *last.shape[2:])} before another")
        square = len(shape) == 4 and shape[2] == shape[3]
        pools = len(shape) == 4 and not square and last is not None and shape[0] == len(images)
        if not (square or pools):
            raise _not_such(f"attention of shape {tuple(shape)}")
        if not output.requires_grad:
            raise _not_such("attention that is not differentiable")
        if last is not None and not depends(output, last.output):
            raise _not_such("layers of attention side by side")
        block = next((call for call in reversed(running) if _library(call[0], WINDOWED)), None)
        if last is not None and pools:
            # rules have functions of their own, and a model that has been seen without them
            if watching is None and not _queries_are_learned(output, last.output):
                raise _not_such(f"attention of shape {tuple(shape)} with queries from tokens")
            layer = _pooling(output, shape, last)
        elif block is None:
            layer = _whole(output, shape, images, prefix, grids)
        else:
            layer = _windowed(output, shape, len(images), *block)
        if last is not None and not _follows(layer, last, merging=block is not None):
            raise _not_such(f"tokens {last.prefix} + {last.grid} before {layer.prefix} + {layer.grid}")
        layers.append(replace(layer, callers=tuple((module, _shape(given)) for module, given in running)))

    with ExitStack() as stack:
        for module in model.modules():
            stack.callback(module.register_forward_pre_hook(begin).remove)
            stack.callback(module.register_forward_hook(end).remove)
        stack.enter_context(torch.enable_grad())
        watch = stack.enter_context((watching or AttentionWatch)(note))
        # by which the scores can be differentiated, whether or not the parameters are frozen
        scores = class_scores(model, images.detach().requires_grad_())
    if not layers:
        raise _not_such("none")
    if watch.convolved:
        raise _not_such("convolutions after attention")
    if not scores.requires_grad:
        raise _not_such("scores that are not differentiable")
    if layers[-1].pools and not depends(scores, layers[-1].output):
        layers.pop()  # transformers' SigLIP pools for nobody: it classifies by the mean of the patches
    return scores, layers


class AttentionWatch(AttentionSteps):
    """Recorder of what each attention's softmax puts out, and of convolutions that come after one.

    Args:
        note: Function that is called with each such output and its shape (B, heads, Q, T).
    """

    def __init__(self, note: Note) -> None:
        super().__init__()
        self.note = note
        self.attended = self.convolved = False

    def step(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = function(*args, **kwargs)
        if is_attention(function, args, kwargs, result):
            self.seen(result, result.shape)
        elif function in CONVOLUTIONS and self.attended:
            self.convolved |= any(side > 1 for side in _kernel(*args, **kwargs))
        return result

    def seen(self, output: Tensor, shape: Sequence[int]) -> None:
        self.attended = True
        self.note(output, shape)

    def multi_head_attention(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """Call the function by its path that has weights; the mode is off there, so that its softmax is not seen."""
        asked = {"need_weights": True, "average_attn_weights": True} | kwargs
        kwargs |= {"need_weights": True, "average_attn_weights": False}
        result, weights = F.multi_head_attention_forward(*args, **kwargs)
        assert weights is not None
        # a view of the softmax's output (B · heads, N, N), which is what the result is a function of
        self.seen(weights if weights._base is None else weights._base, weights.shape)
        if not asked["need_weights"]:
            return result, None
        return result, weights.mean(1) if asked["average_attn_weights"] else weights


def _shape(given: tuple[Any, ...]) -> tuple[int, ...]:
    """Shape of a module's first argument, empty if that is no tensor."""
    return tuple(given[0].shape) if given and isinstance(given[0], Tensor) else ()


def is_attention(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> bool:
    """Tell if a call is that of a softmax over the last of more than two dimensions, as attention's is."""
    if function not in SOFTMAXES or result.ndim < 3:
        return False
    return _dimension(*args, **kwargs) in (-1, result.ndim - 1)


def _dimension(input: Tensor, dim: int | None = None, *_: object, **__: object) -> int | None:
    """Dimension that any of the softmaxes was called for; ``input`` and ``dim`` are their own names."""
    return dim


def _kernel(input: Tensor, weight: Tensor, *_: object, **__: object) -> Sequence[int]:
    """Sides of a convolution's kernel."""
    return weight.shape[2:]


def _whole(
    output: Tensor, shape: Sequence[int], images: Tensor, prefix: int | None, grids: Sequence[tuple[int, int]]
) -> AttentionLayer:
    """Layer that relates all tokens of an image."""
    count, heads, tokens, _ = shape
    if count != len(images):
        raise _not_such(f"attention with {count} rows for {len(images)} images, in windows of an unknown kind")
    try:
        layout = layout_of((count, tokens, 1), images.shape, prefix, grids)
    except ValueError:
        raise _not_such(f"{tokens} tokens, not one grid of patches of {tuple(images.shape[2:])}") from None
    assert layout.prefix is not None
    places = torch.arange(tokens, device=output.device).unsqueeze(0)
    grid = (layout.height, layout.width)
    return AttentionLayer(output, (count, 1, heads, tokens, tokens), places, grid, layout.prefix)


def _queries_are_learned(output: Tensor, earlier: Tensor) -> bool:
    """Test whether one factor alone of the product that a softmax was given is a function of an earlier tensor."""
    goal, node = get_gradient_edge(earlier).node, get_gradient_edge(output).node
    while True:
        ways = [before for before, _ in node.next_functions if before is not None and reaches(before, goal)]
        if len(ways) != 1 or "bmm" in node.name().lower():
            return len(ways) == 1
        node = ways[0]


def _pooling(output: Tensor, shape: Sequence[int], last: AttentionLayer) -> AttentionLayer:
    """Layer whose queries, which are no tokens, read the tokens of the last one, or those that are patches."""
    count, heads, queries, tokens = shape
    if tokens not in (last.tokens, last.tokens - last.prefix):
        raise _not_such(f"attention of shape {tuple(shape)} to {last.tokens} tokens")
    places = torch.arange(last.tokens - tokens, last.tokens, device=output.device).unsqueeze(0)
    return AttentionLayer(output, (count, 1, heads, queries, tokens), places, last.grid, last.prefix)


def _windowed(output: Tensor, shape: Sequence[int], count: int, block: Any, inputs: tuple[Any, ...]) -> AttentionLayer:
    """Layer of a Swin, from what its block says and is given: maps (B, h, w, K), or tokens (B, h · w, K) and (h, w)."""
    _, heads, tokens, _ = shape
    sides = inputs[0].shape[1:3] if inputs[0].ndim == 4 else inputs[1]
    grid = (int(sides[0]), int(sides[1]))
    window, shift = _both(block.window_size), _both(block.shift_size)
    places = _windows(grid, window, shift, pads_first=_library(block, WINDOWED) == PADS_FIRST).to(output.device)
    if shape[0] != count * len(places) or tokens != places.shape[1]:
        raise _not_such(f"attention of shape {tuple(shape)} in {len(places)} windows of {places.shape[1]} tokens")
    return AttentionLayer(output, (count, len(places), heads, tokens, tokens), places, grid, 0)


def _windows(grid: tuple[int, int], window: tuple[int, int], shift: tuple[int, int], *, pads_first: bool) -> Tensor:
    """Places (windows, T): the grid is rolled back by the shift, padded at its end, and cut into windows.

    Args:
        grid: Height and width of the grid.
        window: Height and width of a window.
        shift: Rows and columns of the roll.
        pads_first: Order of the first two steps, in which padding is rolled too.
    """
    (h, w), (rows, columns) = grid, window
    padding, back = (0, -w % columns, 0, -h % rows), (-shift[0], -shift[1])
    places = torch.arange(h * w).view(h, w)
    if pads_first:
        places = F.pad(places, padding, value=h * w).roll(back, (0, 1))
    else:
        places = F.pad(places.roll(back, (0, 1)), padding, value=h * w)
    return places.unfold(0, rows, rows).unfold(1, columns, columns).reshape(-1, rows * columns)


def _both(value: Any) -> tuple[int, int]:
    """Both sides of a size that is stated as one number or two."""
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _follows(layer: AttentionLayer, last: AttentionLayer, merging: bool) -> bool:
    """Test whether the layer's tokens are the last one's, or, with merging, these 2 × 2 to one."""
    if layer.prefix != last.prefix:
        return False
    merged = tuple(-(-side // 2) for side in last.grid)
    return layer.grid == last.grid or (merging and layer.grid == merged)


def _library(module: nn.Module, classes: Mapping[str, Sequence[str]]) -> str | None:
    """Library of the module's class, or of one that it is derived from, if it is one of these classes of libraries."""
    for kind in type(module).__mro__:
        library = kind.__module__.partition(".")[0]
        if kind.__name__ in classes.get(library, ()):
            return library
    return None


def _not_such(what: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        "model",
        "wanted a transformer whose attention relates an image's patches in one chain of layers (such as ViT) "
        f"or in the windows of a Swin, got {what}",
    )
