"""Softmax attention, the mixer of transformers and of the attention layers of hybrids."""

import torch
import torch.nn.functional as F
from torch import nn

from comba.nn.layers import positions_in_sequences, rotary_embedding
from comba.nn.state import LayerState


class Attention(nn.Module):
    """Causal softmax attention with rotary positions, grouped key and value heads and, if asked for, a sliding window.

    window_size: tokens seen, the own one included; None: all.
    Parameters: {q,k,v,o}_proj.weight, and {q,k,v}_proj.bias with qkv_bias.
    State: keys (rotated) and values of the tokens still seen, [B, num_kv_heads, S, K], and which are none: mask [B, S].
    """

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        num_kv_heads: int | None = None,
        *,
        qkv_bias: bool = False,
        window_size: int | None = None,
        rope_theta: float = 10000.0,
        device=None,
        dtype=None,
    ):
        super().__init__()
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if num_heads % num_kv_heads:
            raise ValueError(f"[Attention] num_heads must be a multiple of num_kv_heads; got {num_heads} and {num_kv_heads}")
        if hidden_size % (2 * num_heads):
            raise ValueError(f"[Attention] hidden_size must be an even multiple of num_heads; got {hidden_size} and {num_heads}")
        self.num_kv_heads = num_kv_heads
        self.head_dim = hidden_size // num_heads
        self.window_size = window_size
        self.rope_theta = rope_theta
        options = {"device": device, "dtype": dtype}
        self.q_proj = nn.Linear(hidden_size, hidden_size, bias=qkv_bias, **options)
        self.k_proj = nn.Linear(hidden_size, num_kv_heads * self.head_dim, bias=qkv_bias, **options)
        self.v_proj = nn.Linear(hidden_size, num_kv_heads * self.head_dim, bias=qkv_bias, **options)
        self.o_proj = nn.Linear(hidden_size, hidden_size, bias=False, **options)

    def initial_state(self, batch: int) -> LayerState:
        none = self.k_proj.weight.new_zeros(batch, self.num_kv_heads, 0, self.head_dim)
        return LayerState(keys=none, values=none, mask=none.new_zeros(batch, 0, dtype=torch.bool))

    def forward(
        self,
        x: torch.Tensor,
        state: LayerState | None = None,
        mask: torch.Tensor | None = None,
        cu_seqlens: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As of comba.nn.Comba.  x [B, T, D] -> [B, T, D]"""
        num_tokens = x.shape[1]
        if cu_seqlens is None:
            positions = torch.arange(num_tokens, device=x.device) + (state.position if state else 0)
        else:
            positions = positions_in_sequences(cu_seqlens, num_tokens)
        q, k, v = (
            projection(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = (rotary_embedding(heads, positions, self.rope_theta) for heads in (q, k))
        if state is not None:
            k, v, mask = self._remember(state, k, v, mask)
            state.position += num_tokens
        if cu_seqlens is None:
            o = self._attend(q, k, v, mask)
        else:
            borders = cu_seqlens.tolist()
            pieces = [
                self._attend(*(heads[:, :, begin:end] for heads in (q, k, v)), None)
                for begin, end in zip(borders, borders[1:])
                if end > begin
            ]
            o = torch.cat(pieces, dim=2)
        return self.o_proj(o.transpose(1, 2).flatten(2))

    def _remember(self, state: LayerState, k, v, mask):
        """Keys, values and mask of the tokens before and of these; the state keeps those that the next token sees."""
        seen = k.new_ones(k.shape[0], k.shape[2], dtype=torch.bool) if mask is None else mask
        k = torch.cat([state["keys"].to(k.dtype), k], dim=2)
        v = torch.cat([state["values"].to(v.dtype), v], dim=2)
        seen = torch.cat([state["mask"], seen], dim=1)
        kept = k.shape[2] if self.window_size is None else min(k.shape[2], self.window_size - 1)
        first = k.shape[2] - kept
        # Copies where tokens fall out: a slice would keep them all in memory.
        own = (lambda tensor: tensor.clone()) if first > 0 else (lambda tensor: tensor)
        state["keys"], state["values"] = own(k.detach()[:, :, first:]), own(v.detach()[:, :, first:])
        state["mask"] = own(seen[:, first:])
        return k, v, seen

    def _attend(self, q, k, v, mask):
        """The queries are the last ones of the keys' tokens."""
        num_queries, num_keys = q.shape[2], k.shape[2]
        window = num_keys if self.window_size is None else self.window_size
        if mask is None and num_queries == num_keys <= window:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        key = torch.arange(num_keys, device=q.device)
        query = torch.arange(num_keys - num_queries, num_keys, device=q.device)[:, None]
        seen = (key <= query) & (key > query - window)  # [T, S]
        if mask is not None:
            # A query that is padding itself may see itself: a softmax needs something to be over.
            seen = (seen & mask[:, None, :] | (key == query))[:, None]  # [B, 1, T, S]
        return F.scaled_dot_product_attention(q, k, v, seen, enable_gqa=True)
