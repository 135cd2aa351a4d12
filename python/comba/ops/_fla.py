"""The calls of flash-linear-attention 0.6: its names, order of arguments, defaults and results.

What differs: everything here works on the CPU too, inside torch.compile(fullgraph=True), and for fp32; the recurrent
calls have gradients; a beta of shape [B, T, HV, V] is refused. fla's own documentation of chunk_comba holds for p: it
is a full tensor, and use_qk_l2norm_in_kernel normalises q, k and p.
"""

import warnings

import torch

from comba.ops._arguments import (
    require_absent,
    require_flags,
    require_optional_tensors,
    require_tensors,
    to_fp32,
    wants_gradient,
)
from comba.ops._native import delta_rule, delta_rule_decode_step


def chunk_comba(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    p: torch.Tensor | None,
    g: torch.Tensor,
    beta: torch.Tensor | None = None,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    cu_seqlens_cpu: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The rule of Comba, u = beta (v - h^T p), h <- e^g h + k u^T, o = h^T (scale q), for all tokens at once.

    Args:
        q, k: `[B, T, H, K]`, fp32, bf16 or fp16, as v and p are.
        v: `[B, T, HV, V]`.
        p: `[B, T, H, K]`: the feedback direction; None: k.
        g: `[B, T, HV]`: natural logarithm of the decay, <= 0.
        beta: `[B, T, HV]`: step size; None: 1.
        scale: multiplies q; None: K^-1/2.
        initial_state: `[N, HV, K, V]`; None: 0.
        use_qk_l2norm_in_kernel: q, k and p are divided by sqrt(sum of squares + 1e-6).
        cu_seqlens: `[N + 1]` int32 or int64: borders of packed sequences; needs B = 1.
        cu_seqlens_cpu: not used.

    Returns:
        o `[B, T, HV, V]` in the dtype of q, and the final state `[N, HV, K, V]` in fp32 if `output_final_state`, else
        None.
    """
    return _chunk("chunk_comba", "comba", q, k, v, p=p, g=g, beta=beta, scale=scale, initial_state=initial_state,
                  output_final_state=output_final_state, l2norm=use_qk_l2norm_in_kernel, cu_seqlens=cu_seqlens)


def fused_recurrent_comba(
    q: torch.Tensor,
    k: torch.Tensor,
    p: torch.Tensor | None,
    v: torch.Tensor,
    g: torch.Tensor,
    beta: torch.Tensor | None = None,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    cu_seqlens: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """chunk_comba token by token, for a few tokens at a time. Note the order of its arguments: q, k, p, v."""
    return _recurrent("fused_recurrent_comba", "comba", q, k, v, p=p, g=g, beta=beta, scale=scale,
                      initial_state=initial_state, output_final_state=output_final_state,
                      l2norm=use_qk_l2norm_in_kernel, cu_seqlens=cu_seqlens)


def chunk_gated_delta_rule(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor,
    beta: torch.Tensor,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    use_beta_sigmoid_in_kernel: bool = False,
    allow_neg_eigval: bool = False,
    state_v_first: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    cu_seqlens_cpu: torch.Tensor | None = None,
    chunk_indices: torch.Tensor | None = None,
    cp_context: None = None,
    *,
    use_gate_in_kernel: bool = False,
    A_log: torch.Tensor | None = None,
    dt_bias: torch.Tensor | None = None,
    chunk_size: int = 64,
    transpose_state_layout: bool | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The rule of Gated DeltaNet, h <- e^g h, u = beta (v - h^T k), h <- h + k u^T, o = h^T (scale q), for all tokens.

    Args (those not named here: `chunk_comba`):
        g: `[B, T, HV]`: the log decay; with `use_gate_in_kernel` it is -exp(A_log) softplus(g + dt_bias).
        beta: `[B, T, HV]`: step size; with `use_beta_sigmoid_in_kernel` it is sigmoid(beta), and with
            `allow_neg_eigval` too 2 sigmoid(beta).
        state_v_first: states are `[N, HV, V, K]`. transpose_state_layout: its old name.
        A_log, dt_bias: `[HV]`, with `use_gate_in_kernel`; an absent dt_bias is 0.
        cu_seqlens_cpu, chunk_indices, chunk_size: not used.
        cp_context: must be None: nothing here computes one sequence on several devices.
    """
    where = "chunk_gated_delta_rule"
    require_absent(where, "context parallelism is not implemented", cp_context=cp_context)
    state_v_first = _v_first(where, state_v_first, transpose_state_layout)
    gates = _gates(where, v, g, beta, use_gate_in_kernel, A_log, dt_bias, use_beta_sigmoid_in_kernel, allow_neg_eigval)
    o, final_state = _chunk(where, "gated_delta", q, k, v, **gates, scale=scale,
                            initial_state=_flipped(where, initial_state, state_v_first),
                            output_final_state=output_final_state, l2norm=use_qk_l2norm_in_kernel, cu_seqlens=cu_seqlens)
    return o, _flipped(where, final_state, state_v_first)


def fused_recurrent_gated_delta_rule(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None = None,
    gk: None = None,
    gv: None = None,
    beta: torch.Tensor | None = None,
    scale: float | None = None,
    initial_state: torch.Tensor | None = None,
    output_final_state: bool = False,
    use_qk_l2norm_in_kernel: bool = False,
    use_gate_in_kernel: bool = False,
    A_log: torch.Tensor | None = None,
    dt_bias: torch.Tensor | None = None,
    use_beta_sigmoid_in_kernel: bool = False,
    allow_neg_eigval: bool = False,
    state_v_first: bool = False,
    cu_seqlens: torch.Tensor | None = None,
    *,
    transpose_state_layout: bool | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """chunk_gated_delta_rule token by token, for a few tokens at a time. An absent g is 0, an absent beta 1.

    gk and gv must be None: the decay here is one number a head.
    """
    where = "fused_recurrent_gated_delta_rule"
    require_absent(where, "the decay is one number a head", gk=gk, gv=gv)
    state_v_first = _v_first(where, state_v_first, transpose_state_layout)
    gates = _gates(where, v, g, beta, use_gate_in_kernel, A_log, dt_bias, use_beta_sigmoid_in_kernel, allow_neg_eigval)
    o, final_state = _recurrent(where, "gated_delta", q, k, v, **gates, scale=scale,
                                initial_state=_flipped(where, initial_state, state_v_first),
                                output_final_state=output_final_state, l2norm=use_qk_l2norm_in_kernel,
                                cu_seqlens=cu_seqlens)
    return o, _flipped(where, final_state, state_v_first)


def _chunk(where, rule, q, k, v, *, l2norm, output_final_state, beta=None, beta_logit=None, **arguments):
    require_tensors(where, q=q, k=k, v=v)
    require_flags(where, use_qk_l2norm_in_kernel=l2norm, output_final_state=output_final_state)
    return delta_rule(q, k, v, beta=_ones_unless_given(v, beta, beta_logit), beta_logit=beta_logit, rule=rule,
                      convention="fla", l2norm=l2norm, output_final_state=output_final_state, **arguments)


def _recurrent(where, rule, q, k, v, *, initial_state=None, cu_seqlens=None, **arguments):
    """By the decode step where it can: without gradients, and for sequences that are not packed."""
    require_tensors(where, q=q, k=k, v=v)
    require_optional_tensors(where, initial_state=initial_state)
    given = [value for value in (q, k, v, initial_state, *arguments.values()) if isinstance(value, torch.Tensor)]
    state = None if q.dim() != 4 or v.dim() != 4 else _state(q, v, initial_state)
    if state is None or cu_seqlens is not None or wants_gradient(*given):
        return _chunk(where, rule, q, k, v, initial_state=initial_state, cu_seqlens=cu_seqlens, **arguments)
    l2norm, output_final_state = arguments["l2norm"], arguments.pop("output_final_state")
    require_flags(where, use_qk_l2norm_in_kernel=l2norm, output_final_state=output_final_state)
    beta = _ones_unless_given(v, arguments.pop("beta", None), arguments.get("beta_logit"))
    o = delta_rule_decode_step(q, k, v, state, beta=beta, rule=rule, convention="fla", **arguments)
    return o, state if output_final_state else None


def _state(q, v, initial_state):
    """A state to advance in place; None when the given one cannot be one of these q and v."""
    shape = (q.size(0), v.size(2), q.size(3), v.size(3))
    if initial_state is None:
        return q.new_zeros(shape, dtype=torch.float32)
    if initial_state.shape != shape or initial_state.device != q.device or not initial_state.is_floating_point():
        return None
    return to_fp32(initial_state).clone(memory_format=torch.contiguous_format)


def _gates(where, v, g, beta, use_gate, A_log, dt_bias, use_sigmoid, allow_neg_eigval) -> dict:
    """The gates of Gated DeltaNet by the names of delta_rule."""
    require_flags(where, use_gate_in_kernel=use_gate, use_beta_sigmoid_in_kernel=use_sigmoid,
                  allow_neg_eigval=allow_neg_eigval)
    if allow_neg_eigval and not use_sigmoid:
        raise ValueError(f"[{where}] allow_neg_eigval=True needs use_beta_sigmoid_in_kernel=True; got False")
    if use_gate and (g is None or A_log is None):
        raise ValueError(f"[{where}] use_gate_in_kernel=True needs g and A_log; got {'no g' if g is None else 'no A_log'}")
    decay = {"a": g, "A_log": A_log, "dt_bias": dt_bias} if use_gate else {"g": g}
    if use_sigmoid and beta is not None:
        return {**decay, "beta_logit": beta, "beta_scale": 2.0 if allow_neg_eigval else 1.0}
    return {**decay, "beta": beta}


def _ones_unless_given(v, beta, beta_logit):
    given = beta is not None or beta_logit is not None
    return beta if given or v.dim() != 4 else v.new_ones(v.shape[:3], dtype=torch.float32)


def _v_first(where, state_v_first, transpose_state_layout) -> bool:
    require_flags(where, state_v_first=state_v_first)
    if transpose_state_layout is None:
        return state_v_first
    if state_v_first:
        raise ValueError(f"[{where}] state_v_first and its old name transpose_state_layout exclude each other; got both")
    warnings.warn("transpose_state_layout is now called state_v_first", DeprecationWarning, stacklevel=3)
    return bool(transpose_state_layout)


def _flipped(where, state, state_v_first):
    """States between [N, HV, V, K] and [N, HV, K, V]."""
    if state is None or not state_v_first:
        return state
    require_tensors(where, initial_state=state)
    if state.dim() != 4:
        raise ValueError(f"[{where}] initial_state must have shape [N, HV, V, K]; got {list(state.shape)}")
    return state.transpose(-1, -2).contiguous()
