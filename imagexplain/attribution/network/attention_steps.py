"""Attention in steps: calls of torch's fused functions of attention, taken apart where a method looks between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from imagexplain.attribution.network.function_calls import FunctionCalls
from imagexplain.errors import UnsupportedModelError


class AttentionSteps(FunctionCalls):
    """Replacement of fused attention by its products and its softmax, each of which is a :meth:`step` like any call."""

    def call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if function is F.scaled_dot_product_attention:
            return self.dot_product_attention(*args, **kwargs)
        if function is F.multi_head_attention_forward:
            return self.multi_head_attention(*args, **kwargs)
        return self.step(function, args, kwargs)

    def step(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Result of a function that is no fused attention; subclasses override this."""
        raise NotImplementedError

    def dot_product_attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Compute ``scaled_dot_product_attention`` as documented, step by step."""
        if enable_gqa:
            key, value = (part.repeat_interleave(query.shape[-3] // part.shape[-3], -3) for part in (key, value))
        scaled = self.step(torch.mul, (query, query.shape[-1] ** -0.5 if scale is None else scale), {})
        logits = self.step(torch.matmul, (scaled, key.mT), {})
        if is_causal:
            attn_mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            logits = logits.masked_fill(~attn_mask, float("-inf"))
        elif attn_mask is not None:
            logits = logits + attn_mask
        output = self.step(torch.softmax, (logits, -1), {})
        result: Tensor = self.step(torch.matmul, (F.dropout(output, dropout_p), value), {})
        return result

    def multi_head_attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        embed_dim_to_check: int,
        num_heads: int,
        in_proj_weight: Tensor | None,
        in_proj_bias: Tensor | None,
        bias_k: Tensor | None,
        bias_v: Tensor | None,
        add_zero_attn: bool,
        dropout_p: float,
        out_proj_weight: Tensor,
        out_proj_bias: Tensor | None,
        training: bool = True,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        use_separate_proj_weight: bool = False,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Compute ``multi_head_attention_forward`` of tokens (N, B, K) that attend to all, without its weights.

        Its projections are :meth:`projection`'s, for no layer calls them.

        Raises:
            UnsupportedModelError: masks, extra keys, or projections of other widths.
        """
        extra = (in_proj_weight is None, bias_k, bias_v, add_zero_attn, key_padding_mask, attn_mask)
        if use_separate_proj_weight or any(one is not None and one is not False for one in extra):
            raise UnsupportedModelError(
                "model", "wanted multi-head attention of all tokens to all, got one with masks, extra keys or widths"
            )
        assert in_proj_weight is not None
        biases = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
        tokens = (part.transpose(0, 1) for part in (query, key, value))  # (B, N, K)
        ways = zip(tokens, in_proj_weight.chunk(3), biases, strict=True)
        heads = [self.projection(*way).unflatten(-1, (num_heads, -1)).transpose(1, 2) for way in ways]
        mixed = self.dot_product_attention(heads[0], heads[1], heads[2])  # (B, heads, N, K / heads)
        joined = mixed.transpose(1, 2).flatten(-2)
        return self.projection(joined, out_proj_weight, out_proj_bias).transpose(0, 1), None

    def projection(self, tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Project tokens within multi-head attention; subclasses may override this."""
        return F.linear(tokens, weight, bias)
