"""The operators of Comba and Gated DeltaNet, differentiable, on the CPU and on NVIDIA GPUs.

`delta_rule` and `delta_rule_decode_step` are our own calls. The other four take the arguments of
flash-linear-attention 0.6 and give what its operators of these names give.

Dims, everywhere: B batch, T tokens, H key heads, HV value heads (a multiple of H; value head j reads key head
j // (HV // H)), K key dim, V value dim (both at most 256), N sequences (B, or the packed ones of cu_seqlens).

Errors: ValueError when an argument breaks a rule: the message says which rule and what came. RuntimeError when
nothing implements the call.

Under torch.autocast q, k, v and p are cast to its dtype; gates and states stay as they are.
"""

from comba import _library

_library.load()

from comba.ops._fla import (  # noqa: E402  torch.ops.comba comes first
    chunk_comba,
    chunk_gated_delta_rule,
    fused_recurrent_comba,
    fused_recurrent_gated_delta_rule,
)
from comba.ops._native import delta_rule, delta_rule_decode_step  # noqa: E402

__all__ = [
    "chunk_comba",
    "chunk_gated_delta_rule",
    "delta_rule",
    "delta_rule_decode_step",
    "fused_recurrent_comba",
    "fused_recurrent_gated_delta_rule",
]
